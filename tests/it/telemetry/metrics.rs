//! Metrics: names, labels and values.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode};
use metrics_util::debugging::DebuggingRecorder;
use serde_json::json;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::telemetry::{
    CLOCK_SKEW, INTROSPECTIONS, KEY_FETCHES, REPLAY_LIMIT, REPLAY_RECORDS, REQUESTS, TOKEN_CACHE,
    TOKEN_REQUESTS,
};
use tower_dpop::testing::{Defect, TestClient, TestIssuer};
use tower_dpop::token_endpoint::TokenEndpoint;
use tower_dpop::tokens::TokenCache;
use tower_dpop::{
    DpopLayer, Freshness, MemoryReplayStore, NonceSecret, ProofRules, RequireScopesLayer,
    StatelessNonces, Verifier,
};

use super::as_bearer;
use common::metrics::{assert_lines, cache_lookups, recorded};
use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, Key, KeyExt as _, NOW, TestClock, at, block_on,
    jwt_verifier, verifier, verifier_by,
};

/// The line for decisions about requests.
fn requests(decision: &str, scheme: &str, reason: &str, count: u64) -> String {
    format!("{REQUESTS}{{decision={decision},reason={reason},scheme={scheme}}} {count}")
}

/// The line for clock skews.
fn skew(decision: &str, values: &[f64]) -> String {
    format!("{CLOCK_SKEW}{{decision={decision}}} {values:?}")
}

/// The lines for the replay store.
fn replay_store(records: u64, limit: u64) -> [String; 2] {
    [
        format!("{REPLAY_LIMIT}{{}} {limit}"),
        format!("{REPLAY_RECORDS}{{}} {records}"),
    ]
}

/// Each row lists all metrics that the request causes.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn every_decision_is_counted_by_scheme_and_reason() {
    type Change = fn(&mut Attempt);
    struct Row {
        name: &'static str,
        layer: fn() -> DpopLayer,
        change: Change,
        expected: Vec<String>,
    }
    let row = |name, layer, change: Change, expected| Row {
        name,
        layer,
        change,
        expected,
    };
    let default = || DpopLayer::new(verifier());
    let bearer_allowed = || DpopLayer::new(verifier().allow_bearer());
    let report_only = || DpopLayer::new(verifier()).with_insecure_report_only();
    let accepted = || {
        let [limit, records] = replay_store(1, 1_000_000);
        vec![
            requests("accepted", "dpop", "none", 1),
            skew("accepted", &[0.0]),
            cache_lookups("miss", 1),
            limit,
            records,
        ]
    };
    let rows = vec![
        row("accepted", default, |_| {}, accepted()),
        row(
            "accepted, Bearer allowed",
            bearer_allowed,
            |_| {},
            accepted(),
        ),
        row(
            "accepted, in report-only mode",
            report_only,
            |_| {},
            accepted(),
        ),
        row(
            "accepted, without a cache",
            || {
                let tokens = jwt_verifier().without_cache();
                DpopLayer::new(Verifier::new(common::rules(), tokens))
            },
            |_| {},
            accepted()
                .into_iter()
                .filter(|line| !line.starts_with(TOKEN_CACHE))
                .collect(),
        ),
        row(
            "accepted, with another limit",
            || {
                DpopLayer::new(verifier_by(|rules| {
                    rules.with_replay_store(MemoryReplayStore::with_limit(7))
                }))
            },
            |_| {},
            {
                let [limit, records] = replay_store(1, 7);
                let mut lines = accepted();
                lines.retain(|line| !line.starts_with("tower_dpop_replay"));
                lines.extend([limit, records]);
                lines
            },
        ),
        row(
            "no token",
            default,
            |a| a.authorization = Some(vec![]),
            vec![requests("rejected", "none", "credentials_missing", 1)],
        ),
        row(
            "two tokens",
            default,
            |a| a.authorization = Some(vec![HeaderValue::from_static("DPoP a"); 2]),
            vec![requests("rejected", "none", "credentials_ambiguous", 1)],
        ),
        row(
            "Bearer, which is not allowed",
            default,
            |a| a.authorization = Some(vec![HeaderValue::from_static("Bearer a")]),
            vec![requests("rejected", "bearer", "credentials_bearer", 1)],
        ),
        row(
            "no proof",
            default,
            |a| a.dpop = Some(vec![]),
            vec![requests("rejected", "dpop", "proof_missing", 1)],
        ),
        row(
            "another method and an old iat",
            default,
            |a| {
                a.proof_claims["htm"] = json!("POST");
                a.proof_claims["iat"] = json!(NOW - 5);
            },
            vec![requests("rejected", "dpop", "proof_htm", 1)],
        ),
        row(
            "too old",
            default,
            |a| a.proof_claims["iat"] = json!(NOW - 100),
            vec![
                requests("rejected", "dpop", "proof_iat_too_old", 1),
                skew("rejected", &[100.0]),
            ],
        ),
        row(
            "too old, in report-only mode",
            report_only,
            |a| a.proof_claims["iat"] = json!(NOW - 100),
            vec![
                requests("reported", "dpop", "proof_iat_too_old", 1),
                skew("reported", &[100.0]),
            ],
        ),
        row(
            "no token, in report-only mode",
            report_only,
            |a| a.authorization = Some(vec![]),
            vec![requests("reported", "none", "credentials_missing", 1)],
        ),
        row(
            "no nonce",
            || {
                let nonces = StatelessNonces::new(NonceSecret::generate());
                DpopLayer::new(verifier_by(|rules| rules.with_nonces(nonces)))
            },
            |_| {},
            vec![
                requests("rejected", "dpop", "nonce_missing", 1),
                cache_lookups("miss", 1),
            ],
        ),
        row(
            "an expired token",
            default,
            |a| a.token_claims["exp"] = json!(1),
            vec![
                requests("rejected", "dpop", "token_expired", 1),
                cache_lookups("miss", 1),
            ],
        ),
        row(
            "bound to another key",
            default,
            |a| a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt()),
            vec![
                requests("rejected", "dpop", "binding_other_key", 1),
                cache_lookups("miss", 1),
            ],
        ),
        row(
            "an unbound token as Bearer",
            bearer_allowed,
            |a| {
                a.token_claims.as_object_mut().unwrap().remove("cnf");
                as_bearer(a);
            },
            vec![
                requests("accepted", "bearer", "none", 1),
                cache_lookups("miss", 1),
            ],
        ),
        row(
            "a bound token as Bearer",
            bearer_allowed,
            as_bearer,
            vec![
                requests("rejected", "bearer", "bearer_bound", 1),
                cache_lookups("miss", 1),
            ],
        ),
        row(
            "a forged token as Bearer",
            bearer_allowed,
            |a| {
                a.token_key = Key::es256();
                as_bearer(a);
            },
            vec![
                requests("rejected", "bearer", "token_signature", 1),
                cache_lookups("miss", 1),
            ],
        ),
        row(
            "a full replay store",
            || {
                DpopLayer::new(verifier_by(|rules| {
                    rules.with_replay_store(MemoryReplayStore::with_limit(0))
                }))
            },
            |_| {},
            {
                let [limit, records] = replay_store(0, 0);
                vec![
                    requests("rejected", "dpop", "unavailable_replay_full", 1),
                    cache_lookups("miss", 1),
                    limit,
                    records,
                ]
            },
        ),
    ];
    for row in rows {
        let attempt = Attempt::but(row.change);
        let layer = (row.layer)();
        let (_, found) = recorded(|| attempt.outcome_by(&layer));
        assert_lines(row.name, &found, row.expected);
    }
}

/// A replayed proof counts as a cache hit for its token, and adds no record.
#[test]
fn cache_hits_and_replay_records_are_counted() {
    let clock = TestClock::at(NOW);
    let layer = DpopLayer::new(verifier_by(|rules| rules.with_clock(clock.read())));
    let good = Attempt::good();
    let ((), found) = recorded(|| {
        for attempt in [&good, &good.again(), &good.again()] {
            attempt.outcome_by(&layer).assert_passed("a valid request");
        }
        good.outcome_by(&layer);
        Attempt::but(|a| a.token_claims["other"] = json!(1))
            .outcome_by(&layer)
            .assert_passed("another token");
    });
    assert_lines(
        "one of five rejected",
        &found,
        [
            requests("accepted", "dpop", "none", 4),
            requests("rejected", "dpop", "proof_replayed", 1),
            skew("accepted", &[0.0; 4]),
            cache_lookups("hit", 3),
            cache_lookups("miss", 2),
        ]
        .into_iter()
        .chain(replay_store(4, 1_000_000)),
    );
    // All records have expired.
    clock.advance(Duration::from_secs(200));
    let mut later = good.again();
    later.proof_claims["iat"] = json!(NOW + 200);
    let ((), found) = recorded(|| later.outcome_by(&layer).assert_passed("later"));
    let expected = [
        requests("accepted", "dpop", "none", 1),
        skew("accepted", &[0.0]),
        cache_lookups("hit", 1),
    ];
    assert_lines(
        "later",
        &found,
        expected.into_iter().chain(replay_store(1, 1_000_000)),
    );
}

/// The skew is positive behind the server's clock and negative ahead of it. It is limited, because
/// anyone can write any `iat`.
#[test]
fn clock_skew_is_recorded_in_seconds_and_limited() {
    let now = f64::from(u32::try_from(NOW).unwrap());
    let rows: [(&str, f64, &str, f64); 13] = [
        ("now", 0.0, "accepted", 0.0),
        ("behind", -5.0, "accepted", 5.0),
        ("half a second behind", -0.5, "accepted", 0.5),
        ("the oldest accepted", -90.0, "accepted", 90.0),
        ("ahead", 10.0, "accepted", -10.0),
        ("the newest accepted", 30.0, "accepted", -30.0),
        ("too old", -91.0, "rejected", 91.0),
        ("an hour old", -3600.0, "rejected", 3600.0),
        ("too far ahead", 31.0, "rejected", -31.0),
        ("an hour ahead", 3600.0, "rejected", -3600.0),
        ("iat 0", -now, "rejected", 86_400.0),
        ("a huge negative iat", -1e300, "rejected", 86_400.0),
        ("a huge iat", 1e300, "rejected", -86_400.0),
    ];
    for (name, offset, decision, expected) in rows {
        let attempt = Attempt::but(|a| a.proof_claims["iat"] = json!(now + offset));
        let (outcome, found) = recorded(|| attempt.outcome());
        assert_eq!(
            outcome.status.is_success(),
            decision == "accepted",
            "{name}"
        );
        let skews: Vec<_> = found
            .iter()
            .filter(|line| line.starts_with(CLOCK_SKEW))
            .collect();
        assert_eq!(skews, [&skew(decision, &[expected])], "{name}");
    }
    // If a nonce replaces the check of `iat`, the skew is recorded as well.
    let nonces = StatelessNonces::new(NonceSecret::generate());
    let layer = DpopLayer::new(verifier_by(|rules| {
        rules
            .with_nonces(nonces.clone())
            .with_freshness(Freshness::fapi2())
    }));
    let nonce = common::required_nonce(&layer).unwrap();
    for (iat, expected) in [(NOW - 500, 500.0), (NOW + 500, -500.0), (0, 86_400.0)] {
        let attempt = Attempt::but(|a| {
            a.proof_claims["nonce"] = json!(nonce);
            a.proof_claims["iat"] = json!(iat);
        });
        let (outcome, found) = recorded(|| attempt.outcome_by(&layer));
        outcome.assert_passed("with a nonce");
        assert!(found.contains(&skew("accepted", &[expected])), "{found:?}");
    }
    // At a token endpoint, too, and with another policy.
    let rules = ProofRules::new(ISSUER.parse().unwrap()).with_freshness(Freshness::mcp());
    let endpoint = TokenEndpoint::new(rules.with_clock(|| at(NOW)));
    let mut request = TestClient::without_issuer(TestClock::at(NOW))
        .token_request("https://as.example.com/token");
    request.proof_claims["iat"] = json!(NOW - 301);
    let (head, ()) = request.build::<()>().into_parts();
    let rejection = block_on(endpoint.verify(&head)).unwrap_err();
    let (_, found) = recorded(|| endpoint.reject::<String>(rejection));
    assert!(found.contains(&skew("rejected", &[301.0])), "{found:?}");
}

/// A request that is accepted, and then rejected for lack of a scope, counts as two decisions.
#[test]
fn a_rejection_by_an_inner_layer_is_counted_with_its_scheme() {
    for (name, layer, scheme, decision, status) in [
        ("DPoP", DpopLayer::new(verifier()), "dpop", "rejected", 403),
        (
            "Bearer",
            DpopLayer::new(verifier().allow_bearer()),
            "bearer",
            "rejected",
            403,
        ),
        (
            "report-only",
            DpopLayer::new(verifier()).with_insecure_report_only(),
            "dpop",
            "reported",
            200,
        ),
    ] {
        let attempt = Attempt::but(|a| {
            if scheme == "bearer" {
                a.token_claims.as_object_mut().unwrap().remove("cnf");
                as_bearer(a);
            }
        });
        let required = RequireScopesLayer::all_of("admin".parse().unwrap());
        let service = layer.layer(required.layer(service_fn(async |_: Request<String>| {
            Ok::<_, Infallible>(Response::new(()))
        })));
        let (response, found) = recorded(|| block_on(service.oneshot(attempt.request())).unwrap());
        assert_eq!(response.status().as_u16(), status, "{name}");
        let counted: Vec<_> = found
            .into_iter()
            .filter(|line| line.starts_with(REQUESTS))
            .collect();
        let expected = [
            requests("accepted", scheme, "none", 1),
            requests(decision, scheme, "authorization_scope", 1),
        ];
        assert_lines(name, &counted, expected);
    }
}

/// Each cache counts its own lookups.
#[test]
fn two_nested_caches_count_twice() {
    let tokens = TokenCache::new(jwt_verifier(), Duration::from_secs(10));
    let verifier = Verifier::new(
        ProofRules::new(AUDIENCE.parse().unwrap()).with_clock(|| at(NOW)),
        tokens,
    );
    let layer = DpopLayer::new(verifier);
    let good = Attempt::good();
    let ((), first) = recorded(|| good.outcome_by(&layer).assert_passed("first"));
    assert!(first.contains(&cache_lookups("miss", 2)), "{first:?}");
    let ((), second) = recorded(|| good.again().outcome_by(&layer).assert_passed("second"));
    assert!(second.contains(&cache_lookups("hit", 1)), "{second:?}");
    assert!(
        !second.iter().any(|line| line.contains("miss")),
        "{second:?}"
    );
}

/// A token endpoint has a metric of its own. A preflight that passes through is not a decision.
#[test]
fn token_requests_are_counted_separately_and_preflights_are_not() {
    let endpoint =
        TokenEndpoint::new(ProofRules::new(ISSUER.parse().unwrap()).with_clock(|| at(NOW)));
    let client = TestClient::without_issuer(TestClock::at(NOW));
    let request = client.token_request("https://as.example.com/token");
    let (head, ()) = request.build::<()>().into_parts();
    let (outcome, found) = recorded(|| block_on(endpoint.verify(&head)).map(drop));
    assert_eq!(outcome, Ok(()));
    let token_request = |decision: &str, reason: &str| {
        format!("{TOKEN_REQUESTS}{{decision={decision},reason={reason}}} 1")
    };
    let [limit, records] = replay_store(1, 1_000_000);
    let expected = vec![
        token_request("accepted", "none"),
        skew("accepted", &[0.0]),
        limit.clone(),
        records.clone(),
    ];
    assert_lines("a token request", &found, expected);
    let (rejection, found) = recorded(|| {
        let rejection = block_on(endpoint.verify(&head)).map(drop).unwrap_err();
        endpoint.reject::<String>(rejection)
    });
    assert_eq!(rejection.status(), StatusCode::BAD_REQUEST);
    let expected = vec![token_request("rejected", "proof_replayed"), limit, records];
    assert_lines("its replay", &found, expected);

    let layer = DpopLayer::new(verifier()).with_preflight_pass_through();
    let preflight = Request::builder()
        .method(Method::OPTIONS)
        .uri("/orders")
        .header("access-control-request-method", "POST");
    let (outcome, found) = recorded(|| common::ask(&layer, preflight.body(String::new()).unwrap()));
    assert_eq!(outcome.status, StatusCode::OK);
    assert_lines("a preflight", &found, []);
}

/// Requests with every [`Defect`] contain the word `marker` in many places. No label contains it, and
/// the reason is that of the rejection.
#[test]
fn labels_come_from_a_fixed_set() {
    let issuer = TestIssuer::new(ISSUER, AUDIENCE).with_clock(TestClock::at(NOW));
    let rules = ProofRules::new(AUDIENCE.parse().unwrap())
        .with_clock(|| at(NOW))
        .with_nonces(StatelessNonces::new(NonceSecret::generate()));
    let client = TestClient::new(&issuer)
        .with_claim("marker", "marker")
        .with_nonces_of(&rules);
    let mut reasons = BTreeSet::new();
    for bearer in [false, true] {
        for defect in Defect::ALL {
            let verifier = Verifier::new(rules.clone(), issuer.jwt_verifier());
            let layer = DpopLayer::new(if bearer {
                verifier.allow_bearer()
            } else {
                verifier
            });
            let mut request = client.request(Method::GET, "https://api.example.com/orders?marker");
            request
                .extra_headers
                .push(("user-agent", HeaderValue::from_static("marker")));
            let request = request.with_defect(*defect);
            let (outcomes, found) = recorded(|| {
                // Some defects show only in a second request.
                [(); 2].map(|()| common::ask(&layer, request.build()))
            });
            let mut expected = BTreeMap::new();
            for outcome in &outcomes {
                let (decision, scheme, reason) = match &outcome.rejection {
                    None => ("accepted", "dpop", "none"),
                    Some(rejection) => {
                        let scheme = match rejection.scheme() {
                            None => "none",
                            Some(tower_dpop::resource::Scheme::Bearer) => "bearer",
                            Some(_) => "dpop",
                        };
                        reasons.insert(rejection.reason());
                        ("rejected", scheme, rejection.reason())
                    }
                };
                *expected.entry((decision, scheme, reason)).or_insert(0) += 1;
            }
            let expected: Vec<String> = expected
                .into_iter()
                .map(|((decision, scheme, reason), count)| {
                    requests(decision, scheme, reason, count)
                })
                .collect();
            let counted: Vec<String> = found
                .iter()
                .filter(|line| line.starts_with(REQUESTS))
                .cloned()
                .collect();
            assert_lines(&format!("{defect:?}"), &counted, expected);
            for line in &found {
                assert!(!line.contains("marker"), "{defect:?}: {line}");
                let known = [
                    "{decision=accepted,reason=none,scheme=dpop}",
                    "{decision=accepted}",
                    "{decision=rejected}",
                    "{result=hit}",
                    "{result=miss}",
                    "{}",
                ];
                assert!(
                    line.starts_with(REQUESTS) || known.iter().any(|known| line.contains(known)),
                    "{defect:?}: {line}"
                );
            }
        }
    }
    assert!(reasons.len() > 20, "{reasons:?}");
    for reason in reasons {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(reason.chars().all(is_plain), "{reason}");
    }
}

/// Each metric has a unit and a description.
#[test]
fn every_metric_is_described() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        tower_dpop::telemetry::describe();
        metrics::counter!(REQUESTS).increment(1);
        metrics::counter!(TOKEN_REQUESTS).increment(1);
        metrics::counter!(TOKEN_CACHE).increment(1);
        metrics::counter!(KEY_FETCHES).increment(1);
        metrics::counter!(INTROSPECTIONS).increment(1);
        metrics::gauge!(REPLAY_RECORDS).set(1.0);
        metrics::gauge!(REPLAY_LIMIT).set(1.0);
        metrics::histogram!(CLOCK_SKEW).record(1.0);
    });
    let described: BTreeMap<String, (metrics::Unit, String)> = recorder
        .snapshotter()
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, unit, text, _)| {
            let name = key.key().name().to_owned();
            (name, (unit.unwrap(), text.unwrap().to_string()))
        })
        .collect();
    assert_eq!(described.len(), 8);
    for (name, (unit, text)) in described {
        let expected = if name == CLOCK_SKEW {
            metrics::Unit::Seconds
        } else {
            metrics::Unit::Count
        };
        assert_eq!(unit, expected, "{name}");
        assert!(name.starts_with("tower_dpop_"), "{name}");
        assert!(text.len() > 10 && !text.ends_with('.'), "{name}: {text}");
    }
}

/// Dashboards and alerts use these names.
#[test]
fn metric_names_do_not_change() {
    assert_eq!(
        [
            REQUESTS,
            CLOCK_SKEW,
            REPLAY_RECORDS,
            REPLAY_LIMIT,
            TOKEN_CACHE,
            KEY_FETCHES,
            INTROSPECTIONS,
            TOKEN_REQUESTS,
        ],
        [
            "tower_dpop_requests_total",
            "tower_dpop_clock_skew_seconds",
            "tower_dpop_replay_records",
            "tower_dpop_replay_limit",
            "tower_dpop_token_cache_total",
            "tower_dpop_key_fetches_total",
            "tower_dpop_introspections_total",
            "tower_dpop_token_requests_total",
        ]
    );
}
