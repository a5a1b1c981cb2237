//! What is counted and measured, with which labels, and what is said in `tracing`: enough for an
//! alarm, and nothing of the request.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt::{self, Write as _};
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshot};
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
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber, span};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, Key, KeyExt as _, NOW, TestClock, at, block_on,
    enable_tracing_callsites, jwt_verifier, verifier, verifier_by,
};

/// One line per metric: its name, its labels in order, its value.
fn lines(snapshot: Snapshot) -> Vec<String> {
    let mut lines: Vec<String> = snapshot
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let (_, key) = key.into_parts();
            let mut labels: Vec<String> = key
                .labels()
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            labels.sort();
            let value = match value {
                DebugValue::Counter(count) => count.to_string(),
                DebugValue::Gauge(value) => value.to_string(),
                DebugValue::Histogram(values) => {
                    let values: Vec<f64> = values.into_iter().map(|value| value.0).collect();
                    format!("{values:?}")
                }
            };
            format!("{}{{{}}} {value}", key.name(), labels.join(","))
        })
        .collect();
    lines.sort();
    lines
}

/// What is recorded meanwhile, on this thread.
fn recorded<T>(of: impl FnOnce() -> T) -> (T, Vec<String>) {
    enable_tracing_callsites();
    let recorder = DebuggingRecorder::new();
    let result = metrics::with_local_recorder(&recorder, of);
    (result, lines(recorder.snapshotter().snapshot()))
}

fn requests(decision: &str, scheme: &str, reason: &str, count: u64) -> String {
    format!("{REQUESTS}{{decision={decision},reason={reason},scheme={scheme}}} {count}")
}

fn skew(decision: &str, values: &[f64]) -> String {
    format!("{CLOCK_SKEW}{{decision={decision}}} {values:?}")
}

fn cache(result: &str, count: u64) -> String {
    format!("{TOKEN_CACHE}{{result={result}}} {count}")
}

fn replays(records: u64, limit: u64) -> [String; 2] {
    [
        format!("{REPLAY_LIMIT}{{}} {limit}"),
        format!("{REPLAY_RECORDS}{{}} {records}"),
    ]
}

#[track_caller]
fn assert_lines(name: &str, found: &[String], expected: impl IntoIterator<Item = String>) {
    let mut expected: Vec<String> = expected.into_iter().collect();
    expected.sort();
    assert_eq!(found, expected, "{name}");
}

/// The attempts of a row, and all that is recorded of them.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn every_decision_is_counted_with_its_scheme_and_its_reason() {
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
    let both = || DpopLayer::new(verifier().allow_bearer());
    let report_only = || DpopLayer::new(verifier()).with_insecure_report_only();
    let accepted = || {
        let [limit, records] = replays(1, 1_000_000);
        vec![
            requests("accepted", "dpop", "none", 1),
            skew("accepted", &[0.0]),
            cache("miss", 1),
            limit,
            records,
        ]
    };
    let rows = vec![
        row("accepted", default, |_| {}, accepted()),
        row("accepted, Bearer allowed", both, |_| {}, accepted()),
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
                let [limit, records] = replays(1, 7);
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
            "as Bearer, where that is not spoken",
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
            "another method, at a wrong time",
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
                cache("miss", 1),
            ],
        ),
        row(
            "an expired token",
            default,
            |a| a.token_claims["exp"] = json!(1),
            vec![
                requests("rejected", "dpop", "token_expired", 1),
                cache("miss", 1),
            ],
        ),
        row(
            "bound elsewhere",
            default,
            |a| a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt()),
            vec![
                requests("rejected", "dpop", "binding_other_key", 1),
                cache("miss", 1),
            ],
        ),
        row(
            "an unbound token as Bearer",
            both,
            |a| {
                a.token_claims.as_object_mut().unwrap().remove("cnf");
                as_bearer(a);
            },
            vec![requests("accepted", "bearer", "none", 1), cache("miss", 1)],
        ),
        row(
            "a bound token as Bearer",
            both,
            as_bearer,
            vec![
                requests("rejected", "bearer", "bearer_bound", 1),
                cache("miss", 1),
            ],
        ),
        row(
            "a forged token as Bearer",
            both,
            |a| {
                a.token_key = Key::es256();
                as_bearer(a);
            },
            vec![
                requests("rejected", "bearer", "token_signature", 1),
                cache("miss", 1),
            ],
        ),
        row(
            "a full memory",
            || {
                DpopLayer::new(verifier_by(|rules| {
                    rules.with_replay_store(MemoryReplayStore::with_limit(0))
                }))
            },
            |_| {},
            {
                let [limit, records] = replays(0, 0);
                vec![
                    requests("rejected", "none", "unavailable_replay_full", 1),
                    cache("miss", 1),
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

fn as_bearer(attempt: &mut Attempt) {
    attempt.authorization = Some(vec![format!("Bearer {}", attempt.token()).parse().unwrap()]);
}

/// A replay finds its token in the cache, and takes no place.
#[test]
fn hits_and_records_add_up() {
    let clock = TestClock::at(NOW);
    let layer = DpopLayer::new(verifier_by(|rules| rules.with_clock(clock.read())));
    let good = Attempt::good();
    let ((), found) = recorded(|| {
        for attempt in [&good, &good.again(), &good.again()] {
            attempt.outcome_by(&layer).assert_passed("good");
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
            cache("hit", 3),
            cache("miss", 2),
        ]
        .into_iter()
        .chain(replays(4, 1_000_000)),
    );
    // The time of all of them has passed.
    clock.advance(Duration::from_secs(200));
    let mut later = good.again();
    later.proof_claims["iat"] = json!(NOW + 200);
    let ((), found) = recorded(|| later.outcome_by(&layer).assert_passed("later"));
    let expected = [
        requests("accepted", "dpop", "none", 1),
        skew("accepted", &[0.0]),
        cache("hit", 1),
    ];
    assert_lines(
        "later",
        &found,
        expected.into_iter().chain(replays(1, 1_000_000)),
    );
}

/// Positive behind our clock, negative ahead of it, and bounded: `iat` is anybody's to write.
#[test]
fn the_skew_of_clocks_is_measured_in_seconds() {
    let now = f64::from(u32::try_from(NOW).unwrap());
    let rows: [(&str, f64, &str, f64); 13] = [
        ("now", 0.0, "accepted", 0.0),
        ("behind", -5.0, "accepted", 5.0),
        ("half a second behind", -0.5, "accepted", 0.5),
        ("the oldest", -90.0, "accepted", 90.0),
        ("ahead", 10.0, "accepted", -10.0),
        ("the newest", 30.0, "accepted", -30.0),
        ("too old", -91.0, "rejected", 91.0),
        ("an hour old", -3600.0, "rejected", 3600.0),
        ("too far ahead", 31.0, "rejected", -31.0),
        ("an hour ahead", 3600.0, "rejected", -3600.0),
        ("of 1970", -now, "rejected", 86_400.0),
        ("before all time", -1e300, "rejected", 86_400.0),
        ("after all time", 1e300, "rejected", -86_400.0),
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
    // Where a nonce stands in for `iat`, it is measured all the same.
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
}

/// A request that is accepted, and then not allowed what it asks for, is two decisions.
#[test]
fn a_rejection_behind_the_layer_is_counted_in_its_scheme() {
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
        let service = layer.layer(required.layer(service_fn(async |_: Request<()>| {
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

/// Each cache counts for itself.
#[test]
fn a_cache_around_a_cache_counts_twice() {
    let tokens = TokenCache::new(jwt_verifier(), Duration::from_secs(10));
    let verifier = Verifier::new(
        ProofRules::new(AUDIENCE.parse().unwrap()).with_clock(|| at(NOW)),
        tokens,
    );
    let layer = DpopLayer::new(verifier);
    let good = Attempt::good();
    let ((), first) = recorded(|| good.outcome_by(&layer).assert_passed("first"));
    assert!(first.contains(&cache("miss", 2)), "{first:?}");
    let ((), second) = recorded(|| good.again().outcome_by(&layer).assert_passed("second"));
    assert!(second.contains(&cache("hit", 1)), "{second:?}");
    assert!(
        !second.iter().any(|line| line.contains("miss")),
        "{second:?}"
    );
}

/// A token request is a decision of another server; a preflight was not decided about.
#[test]
fn token_requests_count_apart_and_preflights_do_not_count() {
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
    let [limit, records] = replays(1, 1_000_000);
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
    let (outcome, found) = recorded(|| common::ask(&layer, preflight.body(()).unwrap()));
    assert_eq!(outcome.status, StatusCode::OK);
    assert_lines("a preflight", &found, []);
}

/// Every way in which the kit can spoil a request, full of words of its own: no label is one of
/// them, and the reason is that of the rejection.
#[test]
fn labels_come_from_a_fixed_set() {
    let issuer = TestIssuer::new(ISSUER, AUDIENCE).with_clock(TestClock::at(NOW));
    let nonces = StatelessNonces::new(NonceSecret::generate());
    let client = TestClient::new(&issuer)
        .with_claim("marker", "marker")
        .with_nonces(nonces.clone());
    let mut reasons = BTreeSet::new();
    for bearer in [false, true] {
        for defect in Defect::ALL {
            let verifier = Verifier::new(
                ProofRules::new(AUDIENCE.parse().unwrap())
                    .with_clock(|| at(NOW))
                    .with_nonces(nonces.clone()),
                issuer.jwt_verifier(),
            );
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
                // Some defects are a matter of a second request.
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
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(reason.chars().all(plain), "{reason}");
    }
}

/// Units and meanings, for every metric there is.
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

/// The two metrics about authorization servers, asked on the loopback.
mod servers {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::routing::any;
    use tokio::net::TcpListener;
    use tower_dpop::tokens::{
        AccessTokenVerifier as _, ClientAuthentication, EndpointUrl, HttpClient,
        IntrospectionVerifier, KeySource as _, PresentedToken, TokenError,
    };
    use tower_dpop::{RemoteKeys, Timestamp};

    use super::*;

    /// What the server answers now.
    type Said = Arc<Mutex<(u16, String)>>;

    async fn serve(said: Said) -> EndpointUrl {
        let outcome = any(move || async move {
            let (status, body) = said.lock().unwrap().clone();
            let status = StatusCode::from_u16(status).unwrap();
            (status, [("content-type", "application/json")], body)
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let router = Router::new().route("/", outcome);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        url.parse().unwrap()
    }

    fn fetches(cause: &str, result: &str) -> String {
        format!("{KEY_FETCHES}{{cause={cause},result={result}}} 1")
    }

    #[test]
    fn fetches_of_keys_are_counted_by_cause_and_result() {
        enable_tracing_callsites();
        let said: Said = Arc::new(Mutex::new((200, common::issuer_jwks())));
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        // What was recorded since the last look; a counter that has not moved says 0.
        let since = || -> Vec<String> {
            let mut lines = lines(snapshotter.snapshot());
            lines.retain(|line| !line.ends_with(" 0"));
            lines
        };
        let other = TestIssuer::new(ISSUER, AUDIENCE).jwks();
        metrics::with_local_recorder(&recorder, || {
            block_on(async {
                let later = |seconds| Timestamp::from_unix(NOW + seconds);
                let url = serve(Arc::clone(&said)).await;
                let keys = RemoteKeys::at(url, HttpClient::new().unwrap()).with_clock(|| at(NOW));
                let keys = keys.fetched().await.unwrap();
                assert_eq!(since(), [fetches("start", "changed")]);
                let known = keys.key_set(later(1)).await.unwrap();
                assert_eq!(since(), [""; 0], "young keys");
                // Past their life of ten minutes.
                assert!(keys.key_set(later(700)).await.unwrap().is(&known));
                assert_eq!(since(), [fetches("scheduled", "unchanged")]);
                assert!(
                    keys.newer_key_set(&known, later(710))
                        .await
                        .unwrap()
                        .is_none()
                );
                assert_eq!(since(), [fetches("demanded", "unchanged")]);
                said.lock().unwrap().1 = other;
                let newer = keys.newer_key_set(&known, later(720)).await.unwrap();
                assert_eq!(since(), [fetches("demanded", "changed")]);
                said.lock().unwrap().0 = 500;
                let failed = keys.newer_key_set(&newer.unwrap(), later(730)).await;
                assert!(failed.is_err());
                assert_eq!(since(), [fetches("demanded", "failed")]);
                let url = serve(Arc::clone(&said)).await;
                let keys = RemoteKeys::at(url, HttpClient::new().unwrap()).with_clock(|| at(NOW));
                assert!(keys.fetched().await.is_err());
                assert_eq!(since(), [fetches("start", "failed")]);
            });
        });
    }

    #[test]
    fn questions_about_tokens_are_counted_by_their_answer() {
        let active = json!({ "active": true, "aud": AUDIENCE }).to_string();
        let rows = [
            ("active", 200, active.clone(), Ok(()), "active"),
            (
                "active, for another audience",
                200,
                json!({ "active": true, "aud": "marker" }).to_string(),
                Err(TokenError::Audience),
                "active",
            ),
            (
                "inactive",
                200,
                json!({ "active": false }).to_string(),
                Err(TokenError::Invalid),
                "inactive",
            ),
            (
                "an error",
                500,
                active,
                Err(TokenError::Unavailable),
                "failed",
            ),
            (
                "no answer",
                200,
                "marker".to_owned(),
                Err(TokenError::Unavailable),
                "failed",
            ),
        ];
        for (name, status, body, expected, result) in rows {
            let said: Said = Arc::new(Mutex::new((status, body)));
            let ((first, second), found) = recorded(|| {
                block_on(async {
                    let tokens = IntrospectionVerifier::new(
                        serve(said).await,
                        ClientAuthentication::basic("marker", "marker"),
                        AUDIENCE,
                        HttpClient::new().unwrap(),
                    );
                    let ask = async || {
                        let token = PresentedToken::new("marker");
                        tokens
                            .verify(token, Timestamp::from_unix(NOW))
                            .await
                            .map(drop)
                    };
                    (ask().await, ask().await)
                })
            });
            assert_eq!((&first, &second), (&expected, &expected), "{name}");
            let questions = if expected.is_ok() { 1 } else { 2 };
            let mut lines = vec![
                format!("{INTROSPECTIONS}{{result={result}}} {questions}"),
                cache("miss", questions),
            ];
            lines.extend(expected.is_ok().then(|| cache("hit", 1)));
            assert_lines(name, &found, lines);
        }
    }
}

/// An event, with the spans around it.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    level: Level,
    target: String,
    fields: BTreeMap<&'static str, String>,
    spans: Vec<&'static str>,
}

/// Keeps what is said on each thread.
struct Capture;

thread_local! {
    static CAPTURED: RefCell<Captured> = RefCell::default();
}

#[derive(Default)]
struct Captured {
    events: Vec<Event>,
    spans: Vec<(&'static str, String, Level, usize)>,
    /// What happened to spans, in its order.
    steps: Vec<String>,
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Capture {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        let metadata = attributes.metadata();
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let span = (
            metadata.name(),
            metadata.target().to_owned(),
            *metadata.level(),
            fields.0.len(),
        );
        CAPTURED.with_borrow_mut(|captured| captured.spans.push(span));
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let spans = context.event_scope(event).map_or_else(Vec::new, |scope| {
            scope.map(|span| span.metadata().name()).collect()
        });
        let message = fields.0.get("message").cloned().unwrap_or_default();
        let event = Event {
            level: *event.metadata().level(),
            target: event.metadata().target().to_owned(),
            fields: fields.0,
            spans,
        };
        CAPTURED.with_borrow_mut(|captured| {
            captured.steps.push(message);
            captured.events.push(event);
        });
    }

    fn on_enter(&self, id: &span::Id, context: Context<'_, S>) {
        step("enter", id, &context);
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        step("exit", id, &context);
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        step("close", &id, &context);
    }
}

fn step<S: Subscriber + for<'a> LookupSpan<'a>>(
    step: &str,
    id: &span::Id,
    context: &Context<'_, S>,
) {
    let name = context.span(id).unwrap().metadata().name();
    CAPTURED.with_borrow_mut(|captured| captured.steps.push(format!("{step} {name}")));
}

/// What is said meanwhile, on this thread, at every level.
fn said<T>(of: impl FnOnce() -> T) -> (T, Captured) {
    enable_tracing_callsites();
    CAPTURED.take();
    let subscriber = tracing_subscriber::registry().with(Capture);
    let result = tracing::subscriber::with_default(subscriber, of);
    (result, CAPTURED.take())
}

fn event(level: Level, spans: &[&'static str], fields: &[(&'static str, &str)]) -> Event {
    Event {
        level,
        target: "tower_dpop".into(),
        fields: fields
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect(),
        spans: spans.to_vec(),
    }
}

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
