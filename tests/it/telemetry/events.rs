//! What is logged, in which span.

use super::*;

fn of_this_crate(captured: &Captured) -> Vec<Event> {
    captured
        .events
        .iter()
        .filter(|event| event.target.starts_with("tower_dpop"))
        .cloned()
        .collect()
}

const IN_THE_SPAN: &[&str] = &["dpop"];

/// D21: one event for each decision, with a stable name, in the span of the layer.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn every_decision_is_one_event() {
    type Change = fn(&mut Attempt);
    type MakeLayer = fn() -> DpopLayer;
    let default = || DpopLayer::new(verifier());
    let both = || DpopLayer::new(verifier().allow_bearer());
    let report_only = || DpopLayer::new(verifier()).with_insecure_report_only();
    let full = || {
        DpopLayer::new(verifier_by(|rules| {
            rules.with_replay_store(MemoryReplayStore::with_limit(0))
        }))
    };
    let rows: Vec<(&str, MakeLayer, Change, Event)> = vec![
        (
            "accepted",
            default,
            |a| a.proof_claims["iat"] = json!(NOW - 5),
            event(
                Level::DEBUG,
                IN_THE_SPAN,
                &[
                    ("message", "request accepted"),
                    ("scheme", "dpop"),
                    ("algorithm", "ES256"),
                    ("skew_seconds", "5.0"),
                ],
            ),
        ),
        (
            "accepted as Bearer",
            both,
            |a| {
                a.token_claims.as_object_mut().unwrap().remove("cnf");
                as_bearer(a);
            },
            event(
                Level::DEBUG,
                IN_THE_SPAN,
                &[("message", "request accepted"), ("scheme", "bearer")],
            ),
        ),
        (
            "rejected",
            default,
            |a| a.proof_claims["iat"] = json!(NOW - 100),
            event(
                Level::INFO,
                IN_THE_SPAN,
                &[
                    ("message", "request rejected"),
                    ("reason", "proof_iat_too_old"),
                    ("description", "the DPoP proof is too old"),
                    ("detail", "Proof(Iat(TooOld { by: 10 }))"),
                    ("scheme", "dpop"),
                ],
            ),
        ),
        (
            "rejected without a token",
            default,
            |a| a.authorization = Some(vec![]),
            event(
                Level::INFO,
                IN_THE_SPAN,
                &[
                    ("message", "request rejected"),
                    ("reason", "credentials_missing"),
                    ("description", "no access token was presented"),
                    ("detail", "Credentials(Missing)"),
                    ("scheme", "none"),
                ],
            ),
        ),
        (
            "rejected as Bearer",
            both,
            as_bearer,
            event(
                Level::INFO,
                IN_THE_SPAN,
                &[
                    ("message", "request rejected"),
                    ("reason", "bearer_bound"),
                    (
                        "description",
                        "the access token is bound to a key and needs a DPoP proof",
                    ),
                    ("detail", "Bearer(Bound)"),
                    ("scheme", "bearer"),
                ],
            ),
        ),
        (
            "reported",
            report_only,
            |a| a.proof_claims["htm"] = json!("POST"),
            event(
                Level::INFO,
                IN_THE_SPAN,
                &[
                    ("message", "request would be rejected, and passes"),
                    ("reason", "proof_htm"),
                    ("description", "the DPoP proof is for another method"),
                    ("detail", "Proof(Method)"),
                    ("scheme", "dpop"),
                ],
            ),
        ),
        (
            "our fault",
            full,
            |_| {},
            event(
                Level::ERROR,
                IN_THE_SPAN,
                &[
                    ("message", "request rejected: cannot decide"),
                    ("reason", "unavailable_replay_full"),
                    ("description", "the replay store is full"),
                    ("detail", "Unavailable(Replay(Full))"),
                    ("scheme", "none"),
                ],
            ),
        ),
    ];
    for (name, layer, change, expected) in rows {
        let attempt = Attempt::but(change);
        let layer = layer();
        let (_, captured) = said(|| attempt.outcome_by(&layer));
        assert_eq!(of_this_crate(&captured), [expected], "{name}");
        let span = ("dpop", "tower_dpop".to_owned(), Level::DEBUG, 0);
        assert_eq!(captured.spans, [span], "{name}");
    }
}

/// The span is that of the decision: neither the service nor the layers of authorization behind are
/// in it.
#[test]
fn the_span_ends_before_the_service_begins() {
    let required = RequireScopesLayer::all_of("admin".parse().unwrap());
    let inner = service_fn(async |_: Request<()>| {
        tracing::info!(target: "application", "service");
        Ok::<_, Infallible>(Response::new(()))
    });
    let service = DpopLayer::new(verifier()).layer(inner);
    let request = Attempt::good().request();
    let (_, captured) = said(|| block_on(service.oneshot(request)).unwrap());
    assert_eq!(
        captured.steps,
        [
            "enter dpop",
            "request accepted",
            "exit dpop",
            "close dpop",
            "service"
        ]
    );

    let service = DpopLayer::new(verifier()).layer(required.layer(inner));
    let request = Attempt::good().request();
    let (response, captured) = said(|| block_on(service.oneshot(request)).unwrap());
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(
        of_this_crate(&captured)[1],
        event(
            Level::INFO,
            &[],
            &[
                ("message", "request rejected"),
                ("reason", "authorization_scope"),
                ("description", "the access token lacks a scope"),
                (
                    "detail",
                    r#"Authorization(Scope { required: Scopes(QuotedText("admin")) })"#,
                ),
                ("scheme", "dpop"),
            ],
        )
    );
}

/// The layer's event also stands in the span of whoever called it.
#[test]
fn the_span_stands_in_that_of_the_caller() {
    let layer = DpopLayer::new(verifier());
    let request = Attempt::good().request();
    let ((), captured) = said(|| {
        tracing::info_span!("http").in_scope(|| common::ask(&layer, request));
    });
    assert_eq!(of_this_crate(&captured)[0].spans, ["dpop", "http"]);
}

/// A filter by the crate's name, as people write it, at the level of a server in production.
#[test]
fn a_filter_by_the_name_of_the_crate_finds_rejections() {
    let filter = tracing_subscriber::EnvFilter::new("tower_dpop=info");
    let subscriber = tracing_subscriber::registry().with(filter).with(Capture);
    let ((), captured) = said(|| {
        tracing::subscriber::with_default(subscriber, || {
            Attempt::good().outcome().assert_passed("good");
            Attempt::but(|a| a.dpop = Some(vec![])).outcome();
        });
    });
    let names: Vec<_> = captured
        .events
        .iter()
        .map(|e| &e.fields["reason"])
        .collect();
    assert_eq!(names, ["proof_missing"]);
    assert_eq!(captured.spans, [], "the span is for those who debug");
}

/// Whatever is accepted or only reported: nothing of the token, of the proof or of its key.
#[test]
fn no_event_and_no_metric_shows_a_secret() {
    type Change = fn(&mut Attempt);
    let rows: [(&str, bool, Change); 5] = [
        ("accepted", false, |_| {}),
        ("accepted as Bearer", false, |a| {
            a.token_claims.as_object_mut().unwrap().remove("cnf");
            as_bearer(a);
        }),
        ("reported", true, |a| {
            a.proof_claims["htm"] = json!("marker-claim-marker");
        }),
        ("reported, another host", true, |a| {
            a.proof_claims["htu"] = json!("https://marker-claim-marker/orders");
        }),
        ("reported, as Bearer", true, |a| {
            a.token_claims["iss"] = json!("https://marker-claim-marker");
            as_bearer(a);
        }),
    ];
    for (name, report_only, change) in rows {
        let attempt = Attempt::but(|a| {
            a.proof_claims["jti"] = json!("marker-jti-marker");
            a.token_claims["private"] = json!("marker-claim-marker");
            a.token_claims["sub"] = json!("marker-subject-marker");
            a.uri = "/orders?marker-query-marker".into();
            change(a);
        });
        let mut layer = DpopLayer::new(verifier().allow_bearer());
        if report_only {
            layer = layer.with_insecure_report_only();
        }
        let request = attempt.request();
        let ((outcome, captured), metrics) = recorded(|| said(|| common::ask(&layer, request)));
        assert_eq!(outcome.status, StatusCode::OK, "{name}");
        let mut shown = metrics.join("\n");
        for event in of_this_crate(&captured) {
            write!(shown, "{event:?}").unwrap();
        }
        assert!(shown.contains("decision="), "{name}: {shown}");
        let token = attempt.token();
        let proof = attempt.proof(&token);
        let mut secrets = vec![attempt.key.jkt(), common::ath(&token), "marker".into()];
        secrets.extend(token.split('.').chain(proof.split('.')).map(str::to_owned));
        for secret in secrets {
            let part = &secret[..secret.len().min(12)];
            assert!(!shown.contains(part), "{name} shows a secret: {shown}");
        }
    }
}

/// A name for alarms does not change by accident.
#[test]
fn names_are_those_that_are_documented() {
    assert_eq!(
        [
            REQUESTS,
            CLOCK_SKEW,
            REPLAY_RECORDS,
            REPLAY_LIMIT,
            TOKEN_CACHE,
            KEY_FETCHES,
            INTROSPECTIONS,
        ],
        [
            "tower_dpop_requests_total",
            "tower_dpop_clock_skew_seconds",
            "tower_dpop_replay_records",
            "tower_dpop_replay_limit",
            "tower_dpop_token_cache_total",
            "tower_dpop_key_fetches_total",
            "tower_dpop_introspections_total",
        ]
    );
}
