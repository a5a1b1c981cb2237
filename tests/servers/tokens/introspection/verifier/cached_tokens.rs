//! How long the response for a valid token is cached, and that no other response is.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tower_dpop::Timestamp;
use tower_dpop::testing::TestClock;
use tower_dpop::tokens::{
    AccessTokenVerifier as _, IntrospectionVerifier, PresentedToken, TokenError,
};

use crate::tokens::introspection::{
    Server, TOKEN, changed_response, good_response, layer, layer_at, send,
};
use common::remove;
use common::{NOW, block_on};

/// a response is used for the lifetime of the cache, and never beyond `exp`.
#[test]
fn a_cached_response_expires_with_its_lifetime_and_with_the_token() {
    // Seconds after NOW, and the number of introspection requests up to then.
    type Steps = &'static [(i64, usize)];
    type Settings = fn(IntrospectionVerifier) -> IntrospectionVerifier;

    let server = Server::with_basic();
    let clock = TestClock::at(NOW);
    let rows: Vec<(&str, Settings, Value, Steps)> = vec![
        (
            "the default of ten seconds",
            |tokens| tokens,
            good_response(),
            &[(0, 1), (0, 1), (9, 1), (10, 2), (19, 2), (20, 3)],
        ),
        (
            "another lifetime",
            |tokens| tokens.with_cache_lifetime(Duration::from_secs(3)),
            good_response(),
            &[(0, 1), (2, 1), (3, 2)],
        ),
        (
            "a lifetime beyond exp",
            |tokens| tokens.with_cache_lifetime(Duration::from_secs(60)),
            changed_response(|r| r["exp"] = json!(NOW + 5)),
            &[(0, 1), (4, 1), (5, 2), (6, 3)],
        ),
        (
            "a lifetime beyond an exp with a fraction",
            |tokens| tokens.with_cache_lifetime(Duration::from_secs(60)),
            changed_response(|r| r["exp"] = json!(1_700_000_005.5)),
            &[(0, 1), (5, 1), (6, 2)],
        ),
        (
            "no exp",
            |tokens| tokens.with_cache_lifetime(Duration::from_secs(60)),
            changed_response(|r| remove(r, "exp")),
            &[(0, 1), (59, 1), (60, 2)],
        ),
        (
            "no cache",
            |tokens| tokens.with_cache_lifetime(Duration::ZERO),
            good_response(),
            &[(0, 1), (0, 2), (1, 3)],
        ),
        (
            "a lifetime below one second",
            |tokens| tokens.with_cache_lifetime(Duration::from_millis(999)),
            good_response(),
            &[(0, 1), (0, 2)],
        ),
        (
            "an unlimited lifetime",
            |tokens| tokens.with_cache_lifetime(Duration::MAX),
            good_response(),
            &[(0, 1), (60, 1)],
        ),
        (
            "a clock that steps back",
            |tokens| tokens,
            good_response(),
            &[(5, 1), (4, 2), (5, 2), (13, 2), (14, 3)],
        ),
    ];
    block_on(async {
        for (name, settings, response, steps) in rows {
            server.set_response(&response);
            let before = server.request_count();
            let layer = layer_at(&clock, settings(server.verifier()));
            for (second, requests) in steps {
                clock.set(NOW.checked_add_signed(*second).unwrap());
                send(&layer, TOKEN).await.assert_passed(name);
                assert_eq!(
                    server.request_count() - before,
                    *requests,
                    "{name}, {second}"
                );
            }
        }
    });
}

/// only responses for valid tokens are cached, and a revoked token does not come back.
#[test]
fn neither_rejections_nor_errors_are_cached() {
    let server = Server::with_basic();
    let clock = TestClock::at(NOW);
    let layer = layer_at(&clock, server.verifier());
    block_on(async {
        server.set_response(&json!({ "active": false }));
        for _ in 0..2 {
            send(&layer, TOKEN)
                .await
                .assert_reason("inactive", TokenError::Invalid);
        }
        server.set_response(&changed_response(|r| r["aud"] = json!("other")));
        send(&layer, TOKEN)
            .await
            .assert_reason("another audience", TokenError::Audience);
        server.set_response_with_status(StatusCode::INTERNAL_SERVER_ERROR, "");
        send(&layer, TOKEN)
            .await
            .assert_unavailable("a server error");
        server.set_response(&good_response());
        send(&layer, TOKEN).await.assert_passed("valid");
        assert_eq!(server.request_count(), 5);

        server.set_response(&json!({ "active": false }));
        send(&layer, TOKEN)
            .await
            .assert_passed("revoked, but cached");
        send(&layer, "2YotnFZFEjr1-zCsic.MWpA_a~b+c/e==")
            .await
            .assert_reason("another token", TokenError::Invalid);
        clock.set(NOW + 10);
        for (name, second) in [("after the lifetime", 10), ("a clock that steps back", 5)] {
            clock.set(NOW + second);
            send(&layer, TOKEN)
                .await
                .assert_reason(name, TokenError::Invalid);
        }
        assert_eq!(server.request_count(), 8);
    });
}

/// a cache without capacity keeps nothing.
#[test]
fn the_capacity_of_the_cache_can_be_set() {
    let server = Server::with_basic();
    let now = Timestamp::from_unix(NOW);
    let token = PresentedToken::new(TOKEN);
    block_on(async {
        for (bytes, requests) in [(1 << 20, 1), (0, 3)] {
            let before = server.request_count();
            let tokens = server.verifier().with_cache_capacity(bytes);
            for _ in 0..3 {
                assert!(tokens.verify(token, now).await.is_ok());
            }
            assert_eq!(server.request_count() - before, requests, "{bytes}");
        }
    });
}

/// A cached token may not be valid under the new rules.
#[test]
fn a_change_of_rules_empties_the_cache() {
    let server = Server::with_basic();
    let now = Timestamp::from_unix(NOW);
    let token = PresentedToken::new(TOKEN);
    block_on(async {
        let tokens = server.verifier();
        assert!(tokens.verify(token, now).await.is_ok());
        assert!(tokens.verify(token, now).await.is_ok());
        assert_eq!(server.request_count(), 1);
        let tokens = tokens.with_issuer("https://other.example.com");
        let rejected = tokens.verify(token, now).await.unwrap_err();
        assert_eq!((rejected, server.request_count()), (TokenError::Issuer, 2));
    });
}

#[test]
fn introspections_and_cache_hits_are_counted() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    use tower_dpop::telemetry::{INTROSPECTIONS, TOKEN_CACHE};

    let server = Server::with_basic();
    let layer = layer(server.verifier());
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        block_on(async {
            send(&layer, "a").await.assert_passed("active");
            send(&layer, "a").await.assert_passed("cached");
            server.set_response(&json!({ "active": false }));
            send(&layer, "b")
                .await
                .assert_reason("inactive", TokenError::Invalid);
            server.set_response_with_status(StatusCode::UNAUTHORIZED, "");
            send(&layer, "b").await.assert_unavailable("a server error");
        });
    });
    let mut counted = Vec::new();
    for (key, _, _, value) in recorder.snapshotter().snapshot().into_vec() {
        let name = key.key().name();
        if [INTROSPECTIONS, TOKEN_CACHE].contains(&name) {
            let labels: Vec<&str> = key.key().labels().map(metrics::Label::value).collect();
            let DebugValue::Counter(count) = value else {
                panic!("{name} is a counter");
            };
            counted.push((name.to_owned(), labels.join(" "), count));
        }
    }
    counted.sort();
    let rows = [
        (INTROSPECTIONS, "active", 1),
        (INTROSPECTIONS, "failed", 1),
        (INTROSPECTIONS, "inactive", 1),
        (TOKEN_CACHE, "hit", 1),
        (TOKEN_CACHE, "miss", 3),
    ];
    let expected = rows.map(|(name, result, count)| (name.to_owned(), result.to_owned(), count));
    assert_eq!(counted, expected);
}
