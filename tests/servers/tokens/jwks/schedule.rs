//! The lifetime of keys, and how stale keys are used.

use std::time::Duration;

use tower_dpop::Timestamp;
use tower_dpop::tokens::{KeySource as _, KeySourceError, RemoteKeysError, TokenError};

use super::{Fixture, at, secs, verify};
use crate::tokens::server::{KEYS, OAUTH, OPENID, Reply, in_time, wait_until};
use common::{Key, KeyExt as _, NOW, block_on, keys};

/// RFC 9111 section 5.2. The default bounds are one minute and one hour.
#[test]
fn the_lifetime_of_keys_follows_cache_control_within_bounds() {
    /// The name, the headers of the response, and the lifetime in seconds.
    type Row = (&'static str, &'static [(&'static str, &'static str)], u64);
    const CC: &str = "cache-control";
    let rows: [Row; 24] = [
        ("no header", &[], 600),
        ("max-age", &[(CC, "max-age=300")], 300),
        (
            "max-age among other directives",
            &[(CC, "public, max-age=300, must-revalidate")],
            300,
        ),
        (
            "directives in two fields",
            &[(CC, "public"), (CC, "max-age=300")],
            300,
        ),
        ("max-age in capitals", &[(CC, "Public, Max-Age=300")], 300),
        ("max-age in quotes", &[(CC, "max-age=\"300\"")], 300),
        ("below the minimum", &[(CC, "max-age=1")], 60),
        ("max-age of zero", &[(CC, "max-age=0")], 60),
        ("above the maximum", &[(CC, "max-age=31536000")], 3600),
        (
            "the largest 64-bit number",
            &[(CC, "max-age=18446744073709551615")],
            3600,
        ),
        ("no-store", &[(CC, "no-store")], 60),
        ("no-cache", &[(CC, "no-cache")], 60),
        ("NO-CACHE", &[(CC, "NO-CACHE")], 60),
        (
            "no-store with max-age",
            &[(CC, "no-store, max-age=300")],
            60,
        ),
        ("only public", &[(CC, "public")], 600),
        ("only s-maxage", &[(CC, "s-maxage=300")], 600),
        ("not a number", &[(CC, "max-age=soon")], 600),
        ("negative", &[(CC, "max-age=-1")], 600),
        (
            "more than 64 bits",
            &[(CC, "max-age=99999999999999999999")],
            600,
        ),
        (
            "max-age and Age",
            &[(CC, "max-age=300"), ("age", "100")],
            200,
        ),
        (
            "Age above max-age",
            &[(CC, "max-age=300"), ("age", "301")],
            60,
        ),
        (
            "an invalid Age",
            &[(CC, "max-age=300"), ("age", "old")],
            300,
        ),
        ("only Age", &[("age", "100")], 600),
        (
            "Expires, which is ignored",
            &[("expires", "Thu, 01 Jan 2099 00:00:00 GMT")],
            600,
        ),
    ];
    block_on(async {
        let fixture = Fixture::new().await;
        for (name, headers, lifetime) in rows {
            let mut reply = Reply::text(fixture.issuer.jwks());
            for (field, value) in headers {
                reply = reply.with_header(field, value);
            }
            fixture.server.set(KEYS, reply);
            let status = fixture.keys().await.status();
            assert_eq!(status.fetched, Some(at(0)), "{name}");
            assert_eq!(status.lives_until, Some(at(lifetime)), "{name}");
            assert_eq!(status.usable_until, Some(at(lifetime + 7200)), "{name}");
        }
    });
}

#[test]
fn the_bounds_of_the_lifetime_can_be_changed() {
    /// The name, the bounds, `Cache-Control`, and the lifetime in seconds.
    type Row = (&'static str, (u64, u64), Option<&'static str>, u64);
    let rows: [Row; 7] = [
        ("below the minimum", (10, 20), Some("max-age=5"), 10),
        ("within the bounds", (10, 20), Some("max-age=15"), 15),
        ("above the maximum", (10, 20), Some("max-age=25"), 20),
        ("no header", (10, 20), None, 20),
        (
            "no header, default below the minimum",
            (1000, 2000),
            None,
            1000,
        ),
        (
            "minimum above the maximum",
            (20, 10),
            Some("max-age=15"),
            20,
        ),
        ("bounds of zero", (0, 0), Some("max-age=15"), 1),
    ];
    block_on(async {
        let fixture = Fixture::new().await;
        for (name, (shortest, longest), control, lifetime) in rows {
            let mut reply = Reply::text(fixture.issuer.jwks());
            if let Some(control) = control {
                reply = reply.with_header("cache-control", control);
            }
            fixture.server.set(KEYS, reply);
            let keys = fixture
                .remote()
                .with_lifetime(secs(shortest), secs(longest));
            let status = keys.fetched().await.unwrap().status();
            assert_eq!(status.lives_until, Some(at(lifetime)), "{name}");
        }
        let forever = fixture.remote().with_lifetime(secs(1), Duration::MAX);
        let forever = forever
            .with_stale_lifetime(Duration::MAX)
            .with_cooldown(Duration::MAX);
        let forever = forever.fetched().await.unwrap();
        assert!(forever.key_set(at(20)).await.is_ok(), "no overflow");
        assert!(forever.status().usable_until > Some(at(0)));
    });
}

/// Three quarters of the lifetime of ten minutes are 450 s.
#[test]
fn renews_keys_in_the_background_before_their_lifetime_ends() {
    block_on(async {
        let mut fixture = Fixture::new().await;
        let keys = fixture.keys().await;
        let old = keys.key_set(at(0)).await.unwrap();
        assert!(keys.key_set(at(449)).await.unwrap().is(&old));
        assert_eq!(fixture.fetches(), 0, "in the first three quarters");

        fixture.rotate("2");
        fixture.server.hold();
        for second in [450, 450, 500, 599] {
            // The server does not respond, so a call that waits would time out.
            let found = in_time(keys.key_set(at(second))).await.unwrap();
            assert!(found.is(&old), "{second}");
        }
        fixture.server.wait_for_requests(KEYS, 1).await;
        fixture.server.resume();
        wait_until(|| keys.status().fetched == Some(at(450))).await;
        assert!(keys.key_set(at(599)).await.unwrap().has_kid("2"));
        assert_eq!(
            fixture.server.requests(),
            [KEYS],
            "one fetch, without metadata"
        );
    });
}

#[test]
fn waits_for_new_keys_after_the_lifetime() {
    block_on(async {
        let mut fixture = Fixture::new().await;
        let keys = fixture.keys().await;
        fixture.rotate("2");
        assert!(keys.key_set(at(600)).await.unwrap().has_kid("2"));
        assert_eq!(fixture.fetches(), 1);
        assert_eq!(keys.status().fetched, Some(at(600)));
    });
}

/// Stale keys are used for a while, then tokens are rejected with 503, then the issuer recovers.
#[test]
fn uses_stale_keys_during_an_outage() {
    block_on(async {
        let mut fixture = Fixture::new().await;
        let remote = fixture.remote().with_stale_lifetime(secs(1000));
        let remote = remote.fetched().await.unwrap();
        let tokens = fixture.verifier(remote.clone());
        let token = fixture.token().to_text();
        fixture.server.clear_requests();
        // Each attempt fails with another status, so the test knows which one has ended.
        let fails_with = |status| {
            fixture.server.set(KEYS, Reply::status(status));
            fixture.server.set(OAUTH, Reply::status(status));
        };
        let failed_with = async |expected: u16| {
            let is_expected = |error| matches!(error, RemoteKeysError::Status { status, .. } if status == expected);
            wait_until(|| remote.status().failure.is_some_and(is_expected)).await;
        };

        fails_with(500);
        assert_eq!(
            verify(&tokens, &token, at(450)).await,
            Ok(()),
            "within the lifetime"
        );
        failed_with(500).await;
        fails_with(501);
        for second in 450..455 {
            assert_eq!(verify(&tokens, &token, at(second)).await, Ok(()));
        }
        assert_eq!(
            fixture.server.requests(),
            [KEYS],
            "one attempt per cooldown"
        );
        assert_eq!(verify(&tokens, &token, at(455)).await, Ok(()));
        failed_with(501).await;
        assert_eq!(fixture.server.requests(), [KEYS, OAUTH, OPENID]);
        fails_with(502);
        assert_eq!(verify(&tokens, &token, at(595)).await, Ok(()));
        failed_with(502).await;

        // After the lifetime, no request waits: the issuer is known to be unreachable.
        fails_with(503);
        fixture.server.hold();
        for second in [600, 604, 609] {
            let result = in_time(verify(&tokens, &token, at(second))).await;
            assert_eq!(result, Ok(()), "{second}");
        }
        fixture.server.wait_for_requests(OAUTH, 3).await;
        fixture.server.resume();
        failed_with(503).await;
        let unpublished = fixture.issuer.clone().with_key("unpublished", Key::es256());
        let unpublished = unpublished.token_for(keys::client().thumbprint()).to_text();
        let result = verify(&tokens, &unpublished, at(609)).await;
        assert_eq!(result, Err(TokenError::Unavailable), "it may be valid");
        assert_eq!(fixture.server.requests_to(OAUTH), 3);

        // The last attempt was long ago, so requests wait for the next one.
        let last = verify(&tokens, &token, at(1599)).await;
        assert_eq!(last, Ok(()), "the last second of the stale lifetime");
        for (second, attempts) in [(1600, 4), (1603, 4), (1604, 5), (1608, 5)] {
            let result = verify(&tokens, &token, at(second)).await;
            assert_eq!(result, Err(TokenError::Unavailable), "{second}");
            assert_eq!(fixture.server.requests_to(OAUTH), attempts, "{second}");
        }
        let status = remote.status();
        assert_eq!((status.keys, status.usable_until), (1, Some(at(1600))));

        fixture.publish_metadata(KEYS);
        fixture.publish_keys();
        let early = verify(&tokens, &token, at(1608)).await;
        assert_eq!(early, Err(TokenError::Unavailable));
        assert_eq!(
            verify(&tokens, &token, at(1609)).await,
            Ok(()),
            "the issuer has recovered"
        );
        assert_eq!(remote.status().failure, None);
        fixture.rotate("2");
        assert_eq!(
            verify(&tokens, &fixture.token().to_text(), at(1610)).await,
            Ok(())
        );
    });
}

#[test]
fn uses_no_stale_keys_with_a_stale_lifetime_of_zero() {
    block_on(async {
        let fixture = Fixture::new().await;
        let keys = fixture
            .remote()
            .with_stale_lifetime(Duration::ZERO)
            .fetched()
            .await
            .unwrap();
        fixture.server.hang_up();
        assert!(keys.key_set(at(599)).await.is_ok());
        wait_until(|| keys.status().failure.is_some()).await;
        assert_eq!(keys.key_set(at(604)).await.err(), Some(KeySourceError));
    });
}

/// The clock steps back by more than the 30 s by which requests may be out of order.
#[test]
fn keys_are_past_their_lifetime_after_the_clock_steps_back() {
    block_on(async {
        let mut fixture = Fixture::new().await;
        let keys = fixture.keys().await;
        let before = |seconds| Timestamp::from_unix(NOW - seconds);
        fixture.rotate("2");
        assert!(
            keys.key_set(before(30)).await.unwrap().has_kid("1"),
            "a request out of order"
        );
        assert_eq!(fixture.fetches(), 0);
        assert!(keys.key_set(before(31)).await.unwrap().has_kid("2"));
        assert_eq!(fixture.fetches(), 1);

        // While the issuer is unreachable, the stale lifetime starts when the clock steps back.
        fixture.server.hang_up();
        assert!(keys.key_set(before(10_000)).await.is_ok());
        assert!(keys.key_set(before(10_000 - 7199)).await.is_ok());
        assert!(keys.key_set(before(10_000 - 7200)).await.is_err());

        // The cooldown of a fetch with a later time is ignored.
        fixture.server.resume();
        let known = keys.key_set(at(0)).await.unwrap();
        fixture.server.clear_requests();
        assert!(keys.newer_key_set(&known, at(0)).await.unwrap().is_none());
        assert!(
            keys.newer_key_set(&known, before(30))
                .await
                .unwrap()
                .is_none()
        );
        assert_eq!(fixture.fetches(), 1);
        assert!(
            keys.newer_key_set(&known, before(31))
                .await
                .unwrap()
                .is_none()
        );
        assert_eq!(fixture.fetches(), 2);
    });
}
