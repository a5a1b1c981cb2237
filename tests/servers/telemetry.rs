//! The metrics about requests to authorization servers.

use metrics_util::debugging::DebuggingRecorder;
use serde_json::json;
use tower_dpop::telemetry::{INTROSPECTIONS, KEY_FETCHES};
use tower_dpop::testing::TestIssuer;
use tower_dpop::tokens::{
    AccessTokenVerifier as _, ClientAuthentication, IntrospectionVerifier, KeySource as _,
    PresentedToken, TokenError,
};
use tower_dpop::{RemoteKeys, Timestamp};

use crate::tokens::server::{KEYS, Reply, Server, http};
use common::metrics::{assert_lines, cache_lookups, lines, recorded};
use common::{AUDIENCE, ISSUER, NOW, at, block_on, enable_tracing_callsites};

/// The line for one fetch.
fn fetches(cause: &str, result: &str) -> String {
    format!("{KEY_FETCHES}{{cause={cause},result={result}}} 1")
}

#[test]
fn key_fetches_are_counted_by_cause_and_result() {
    enable_tracing_callsites();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // What was recorded since the previous call. A counter that has not changed has the value 0.
    let recorded_since = || -> Vec<String> {
        let mut lines = lines(snapshotter.snapshot());
        lines.retain(|line| !line.ends_with(" 0"));
        lines
    };
    metrics::with_local_recorder(&recorder, || {
        block_on(async {
            let later = |seconds| Timestamp::from_unix(NOW + seconds);
            let server = Server::start().await;
            let keys = || {
                let url = server.url_of(KEYS).parse().unwrap();
                RemoteKeys::at(url, http()).with_clock(|| at(NOW))
            };
            server.set(KEYS, Reply::text(common::issuer_jwks()));
            let fetched = keys().fetched().await.unwrap();
            assert_eq!(recorded_since(), [fetches("start", "changed")]);
            let known = fetched.key_set(later(1)).await.unwrap();
            assert_eq!(recorded_since(), [""; 0], "young keys");
            // After their lifetime of ten minutes.
            assert!(fetched.key_set(later(700)).await.unwrap().is(&known));
            assert_eq!(recorded_since(), [fetches("scheduled", "unchanged")]);
            let newer = fetched.newer_key_set(&known, later(710)).await.unwrap();
            assert!(newer.is_none());
            assert_eq!(recorded_since(), [fetches("demanded", "unchanged")]);
            let newer = fetched.newer_key_set(&known, later(711)).await.unwrap();
            assert!(newer.is_none());
            assert_eq!(recorded_since(), [""; 0], "within the cooldown");
            let other = TestIssuer::new(ISSUER, AUDIENCE).jwks();
            server.set(KEYS, Reply::text(other));
            let newer = fetched.newer_key_set(&known, later(720)).await.unwrap();
            assert_eq!(recorded_since(), [fetches("demanded", "changed")]);
            server.set(KEYS, Reply::status(500));
            let failed = fetched.newer_key_set(&newer.unwrap(), later(730)).await;
            assert!(failed.is_err());
            assert_eq!(recorded_since(), [fetches("demanded", "failed")]);
            assert!(keys().fetched().await.is_err());
            assert_eq!(recorded_since(), [fetches("start", "failed")]);
        });
    });
}

#[test]
fn introspection_requests_are_counted_by_result() {
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
            "a server error",
            500,
            active,
            Err(TokenError::Unavailable),
            "failed",
        ),
        (
            "not JSON",
            200,
            "marker".to_owned(),
            Err(TokenError::Unavailable),
            "failed",
        ),
    ];
    for (name, status, body, expected, result) in rows {
        let ((first, second), found) = recorded(|| {
            block_on(async {
                let server = Server::start().await;
                let reply = Reply::text(body).with_status(status);
                server.set("/", reply.with_header("content-type", "application/json"));
                let tokens = IntrospectionVerifier::new(
                    server.url_of("/").parse().unwrap(),
                    ClientAuthentication::basic("marker", "marker"),
                    AUDIENCE,
                    http(),
                );
                let verify = async || {
                    let token = PresentedToken::new("marker");
                    let result = tokens.verify(token, Timestamp::from_unix(NOW)).await;
                    result.map(drop)
                };
                (verify().await, verify().await)
            })
        });
        assert_eq!((&first, &second), (&expected, &expected), "{name}");
        // An active token is cached. The others are introspected again.
        let requests = if expected.is_ok() { 1 } else { 2 };
        let mut lines = vec![
            format!("{INTROSPECTIONS}{{result={result}}} {requests}"),
            cache_lookups("miss", requests),
        ];
        lines.extend(expected.is_ok().then(|| cache_lookups("hit", 1)));
        assert_lines(name, &found, lines);
    }
}
