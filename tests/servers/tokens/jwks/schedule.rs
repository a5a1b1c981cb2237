//! When keys are fetched again, and how long they are used (`src/tokens/jwks/schedule.rs`).

use super::*;

/// RFC 9111 section 5.2, and the bounds that nobody's `Cache-Control` moves.
#[test]
fn keys_live_as_long_as_the_answer_says_within_bounds() {
    type Row = (&'static str, &'static [(&'static str, &'static str)], u64);
    type Bounds = (&'static str, (u64, u64), Option<&'static str>, u64);
    const CC: &str = "cache-control";
    let rows: [Row; 24] = [
        ("nothing said", &[], 600),
        ("max-age", &[(CC, "max-age=300")], 300),
        (
            "among others",
            &[(CC, "public, max-age=300, must-revalidate")],
            300,
        ),
        ("in two fields", &[(CC, "public"), (CC, "max-age=300")], 300),
        ("in capitals", &[(CC, "Public, Max-Age=300")], 300),
        ("in quotes", &[(CC, "max-age=\"300\"")], 300),
        ("too short", &[(CC, "max-age=1")], 60),
        ("zero", &[(CC, "max-age=0")], 60),
        ("too long", &[(CC, "max-age=31536000")], 3600),
        (
            "the longest there is",
            &[(CC, "max-age=18446744073709551615")],
            3600,
        ),
        ("no-store", &[(CC, "no-store")], 60),
        ("no-cache", &[(CC, "no-cache")], 60),
        ("NO-CACHE", &[(CC, "NO-CACHE")], 60),
        (
            "no-store beats max-age",
            &[(CC, "no-store, max-age=300")],
            60,
        ),
        ("without max-age", &[(CC, "public")], 600),
        ("for shared caches", &[(CC, "s-maxage=300")], 600),
        ("not a number", &[(CC, "max-age=soon")], 600),
        ("negative", &[(CC, "max-age=-1")], 600),
        (
            "beyond numbers",
            &[(CC, "max-age=99999999999999999999")],
            600,
        ),
        ("of age", &[(CC, "max-age=300"), ("age", "100")], 200),
        (
            "older than it may be",
            &[(CC, "max-age=300"), ("age", "301")],
            60,
        ),
        (
            "of a broken age",
            &[(CC, "max-age=300"), ("age", "old")],
            300,
        ),
        ("age alone", &[("age", "100")], 600),
        (
            "Expires is not read",
            &[("expires", "Thu, 01 Jan 2099 00:00:00 GMT")],
            600,
        ),
    ];
    block_on(async {
        let world = World::new().await;
        for (name, headers, lifetime) in rows {
            let mut reply = Reply::text(world.issuer.jwks());
            for (field, value) in headers {
                reply = reply.with_header(field, value);
            }
            world.server.set(KEYS, reply);
            let status = world.keys().await.status();
            assert_eq!(status.fetched, Some(at(0)), "{name}");
            assert_eq!(status.lives_until, Some(at(lifetime)), "{name}");
            assert_eq!(status.usable_until, Some(at(lifetime + 7200)), "{name}");
        }

        let bounds: [Bounds; 7] = [
            ("shorter", (10, 20), Some("max-age=5"), 10),
            ("between", (10, 20), Some("max-age=15"), 15),
            ("longer", (10, 20), Some("max-age=25"), 20),
            ("nothing said", (10, 20), None, 20),
            ("nothing said, long", (1000, 2000), None, 1000),
            ("the wrong way round", (20, 10), Some("max-age=15"), 20),
            ("none", (0, 0), Some("max-age=15"), 1),
        ];
        for (name, (shortest, longest), control, lifetime) in bounds {
            let mut reply = Reply::text(world.issuer.jwks());
            if let Some(control) = control {
                reply = reply.with_header("cache-control", control);
            }
            world.server.set(KEYS, reply);
            let keys = world.remote().with_lifetime(secs(shortest), secs(longest));
            let status = keys.fetched().await.unwrap().status();
            assert_eq!(status.lives_until, Some(at(lifetime)), "{name}");
        }
        let forever = world.remote().with_lifetime(secs(1), Duration::MAX);
        let forever = forever
            .with_stale_lifetime(Duration::MAX)
            .with_cooldown(Duration::MAX);
        let forever = forever.fetched().await.unwrap();
        assert!(forever.key_set(at(20)).await.is_ok(), "nothing overflows");
        assert!(forever.status().usable_until > Some(at(0)));
    });
}

/// Three quarters of ten minutes are 450 s.
#[test]
fn renews_keys_in_the_background_before_they_are_too_old() {
    block_on(async {
        let mut world = World::new().await;
        let keys = world.keys().await;
        let old = keys.key_set(at(0)).await.unwrap();
        assert!(keys.key_set(at(449)).await.unwrap().is(&old));
        assert_eq!(world.fetches(), 0, "young");

        world.rotate("2");
        world.server.hold();
        for second in [450, 450, 500, 599] {
            // The server does not answer, so this would hang if it waited.
            let found = within_reason(keys.key_set(at(second))).await.unwrap();
            assert!(found.is(&old), "{second}");
        }
        world.server.asked(KEYS, 1).await;
        world.server.outcome();
        until(|| keys.status().fetched == Some(at(450))).await;
        assert!(keys.key_set(at(599)).await.unwrap().has_kid("2"));
        assert_eq!(world.server.requests(), [KEYS], "once, and no metadata");
    });
}

#[test]
fn waits_for_new_keys_when_those_it_has_are_too_old() {
    block_on(async {
        let mut world = World::new().await;
        let keys = world.keys().await;
        world.rotate("2");
        assert!(keys.key_set(at(600)).await.unwrap().has_kid("2"));
        assert_eq!(world.fetches(), 1);
        assert_eq!(keys.status().fetched, Some(at(600)));
    });
}

/// What rests on the keys lives on.
#[test]
fn keeps_the_same_set_while_the_document_is_the_same() {
    block_on(async {
        let world = World::new().await;
        let keys = world.keys().await;
        let old = keys.key_set(at(0)).await.unwrap();
        for second in [600, 1200, 1800] {
            assert!(keys.key_set(at(second)).await.unwrap().is(&old), "{second}");
            assert_eq!(keys.status().fetched, Some(at(second)), "renewed");
        }
        assert_eq!(world.fetches(), 3);
        world
            .server
            .set(KEYS, Reply::text(format!("{} ", world.issuer.jwks())));
        assert!(
            !keys.key_set(at(2400)).await.unwrap().is(&old),
            "another document"
        );
    });
}

/// Each line is one question and what comes of it, in one story of a source with the default
/// cooldown of 5 s.
#[test]
fn fetches_for_tokens_once_a_cooldown() {
    block_on(async {
        let mut world = World::new().await;
        let keys = world.keys().await;
        let known = keys.key_set(at(0)).await.unwrap();
        let ask = async |second| {
            keys.newer_key_set(&known, at(second))
                .await
                .map(|set| set.is_some())
        };

        assert_eq!(
            ask(0).await,
            Ok(false),
            "the fetch at the start does not count"
        );
        assert_eq!(world.fetches(), 1);
        assert_eq!((ask(1).await, ask(4).await), (Ok(false), Ok(false)));
        assert_eq!(world.fetches(), 1, "within the cooldown");
        assert_eq!(ask(5).await, Ok(false));
        assert_eq!(world.fetches(), 2, "after it");

        let same = keys.key_set(at(605)).await.unwrap();
        assert!(same.is(&known));
        assert_eq!(world.fetches(), 3, "scheduled");
        assert_eq!(ask(605).await, Ok(false), "which does not count either");
        assert_eq!(world.fetches(), 4);

        world.rotate("2");
        assert_eq!(ask(609).await, Ok(false), "not seen yet");
        assert_eq!(ask(610).await, Ok(true));
        assert_eq!(world.fetches(), 5);
        assert_eq!(ask(610).await, Ok(true), "known by now");
        assert_eq!(world.fetches(), 5);

        let known = keys.key_set(at(610)).await.unwrap();
        let ask = async |second| {
            keys.newer_key_set(&known, at(second))
                .await
                .map(|set| set.is_some())
        };
        world.server.hang_up();
        assert_eq!(ask(615).await, Err(KeySourceError), "nobody can say");
        world.server.outcome();
        world.server.forget();
        assert_eq!(
            ask(619).await,
            Err(KeySourceError),
            "nobody could, a moment ago"
        );
        assert_eq!(world.server.requests(), [""; 0], "a failed fetch counts");
        assert_eq!(ask(620).await, Ok(false));
        assert_eq!(world.server.requests(), [OAUTH, KEYS]);
        assert_eq!(ask(621).await, Ok(false), "they could, a moment ago");
    });
}

/// Stale keys for a while, then 503, then as before.
#[test]
fn lives_through_an_outage() {
    block_on(async {
        let mut world = World::new().await;
        let remote = world.remote().with_stale_lifetime(secs(1000));
        let remote = remote.fetched().await.unwrap();
        let tokens = world.verifier(remote.clone());
        let token = world.token().to_text();
        world.server.forget();
        // Each attempt fails in its own way, to be told apart.
        let fails_with = |status| {
            world.server.set(KEYS, Reply::status(status));
            world.server.set(OAUTH, Reply::status(status));
        };
        let failed_with = async |expected: u16| {
            let is_expected = |error| matches!(error, RemoteKeysError::Status { status, .. } if status == expected);
            until(|| remote.status().failure.is_some_and(is_expected)).await;
        };

        fails_with(500);
        assert_eq!(verify(&tokens, &token, at(450)).await, Ok(()), "they live");
        failed_with(500).await;
        fails_with(501);
        for second in 450..455 {
            assert_eq!(verify(&tokens, &token, at(second)).await, Ok(()));
        }
        assert_eq!(world.server.requests(), [KEYS], "one attempt a cooldown");
        assert_eq!(verify(&tokens, &token, at(455)).await, Ok(()));
        failed_with(501).await;
        assert_eq!(world.server.requests(), [KEYS, OAUTH, OPENID]);
        fails_with(502);
        assert_eq!(verify(&tokens, &token, at(595)).await, Ok(()));
        failed_with(502).await;

        // Past their lifetime: nobody waits, for the issuer is known to be out of reach.
        fails_with(503);
        world.server.hold();
        for second in [600, 604, 609] {
            let verdict = within_reason(verify(&tokens, &token, at(second))).await;
            assert_eq!(verdict, Ok(()), "{second}");
        }
        world.server.asked(OAUTH, 3).await;
        world.server.outcome();
        failed_with(503).await;
        let never = world.issuer.clone().with_key("never", Key::es256());
        let never = never.token_for(keys::client().thumbprint()).to_text();
        let verdict = verify(&tokens, &never, at(609)).await;
        assert_eq!(verdict, Err(TokenError::Unavailable), "perhaps it is good");
        assert_eq!(world.server.requests_to(OAUTH), 3);

        // Long after the last attempt, the next is waited for.
        let last = verify(&tokens, &token, at(1599)).await;
        assert_eq!(last, Ok(()), "the last stale second");
        for (second, attempts) in [(1600, 4), (1603, 4), (1604, 5), (1608, 5)] {
            let verdict = verify(&tokens, &token, at(second)).await;
            assert_eq!(verdict, Err(TokenError::Unavailable), "{second}");
            assert_eq!(world.server.requests_to(OAUTH), attempts, "{second}");
        }
        let status = remote.status();
        assert_eq!((status.keys, status.usable_until), (1, Some(at(1600))));

        let metadata = Reply::metadata(&world.server.url(), &world.server.at(KEYS));
        world.server.set(OAUTH, metadata);
        world.publish();
        let early = verify(&tokens, &token, at(1608)).await;
        assert_eq!(early, Err(TokenError::Unavailable));
        assert_eq!(
            verify(&tokens, &token, at(1609)).await,
            Ok(()),
            "back again"
        );
        assert_eq!(remote.status().failure, None);
        world.rotate("2");
        assert_eq!(
            verify(&tokens, &world.token().to_text(), at(1610)).await,
            Ok(())
        );
    });
}

#[test]
fn uses_no_stale_keys_where_none_are_allowed() {
    block_on(async {
        let world = World::new().await;
        let keys = world
            .remote()
            .with_stale_lifetime(Duration::ZERO)
            .fetched()
            .await
            .unwrap();
        world.server.hang_up();
        assert!(keys.key_set(at(599)).await.is_ok());
        until(|| keys.status().failure.is_some()).await;
        assert_eq!(keys.key_set(at(604)).await.err(), Some(KeySourceError));
    });
}

/// A step back by more than requests straggle.
#[test]
fn a_clock_that_steps_back_makes_keys_too_old() {
    block_on(async {
        let mut world = World::new().await;
        let keys = world.keys().await;
        let before = |seconds| Timestamp::from_unix(NOW - seconds);
        world.rotate("2");
        assert!(
            keys.key_set(before(30)).await.unwrap().has_kid("1"),
            "a straggler"
        );
        assert_eq!(world.fetches(), 0);
        assert!(keys.key_set(before(31)).await.unwrap().has_kid("2"));
        assert_eq!(world.fetches(), 1);

        // While the issuer is out of reach, the stale lifetime begins at the step.
        world.server.hang_up();
        assert!(keys.key_set(before(10_000)).await.is_ok());
        assert!(keys.key_set(before(10_000 - 7199)).await.is_ok());
        assert!(keys.key_set(before(10_000 - 7200)).await.is_err());

        // And what was demanded in the future is forgotten.
        world.server.outcome();
        let known = keys.key_set(at(0)).await.unwrap();
        world.server.forget();
        assert!(keys.newer_key_set(&known, at(0)).await.unwrap().is_none());
        assert!(
            keys.newer_key_set(&known, before(30))
                .await
                .unwrap()
                .is_none()
        );
        assert_eq!(world.fetches(), 1);
        assert!(
            keys.newer_key_set(&known, before(31))
                .await
                .unwrap()
                .is_none()
        );
        assert_eq!(world.fetches(), 2);
    });
}

/// 10,000 tokens in 60 s, every other one with a `kid` that does not exist, the rest with a
/// signature that does not verify. In the middle of it the issuer changes its key, and a client
/// tries with a token by the new one, every second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_invented_tokens_fetches_once_a_cooldown() {
    const ROTATED: u64 = 32;
    let mut world = World::new().await;
    let tokens = Arc::new(world.verifier(world.keys().await));
    let (mut sent, mut passed) = (0, None);
    for second in 0..60 {
        if second == ROTATED {
            world.rotate("new");
        }
        let mut flood = JoinSet::new();
        while sent < (usize::try_from(second).unwrap() + 1) * 10_000 / 60 {
            let kid = if sent % 2 == 0 {
                format!("invented {sent}")
            } else {
                "1".into()
            };
            let token = invented(&world, &kid, sent);
            let tokens = Arc::clone(&tokens);
            flood.spawn(async move { verify(&tokens, &token, at(second)).await });
            sent += 1;
        }
        if second >= ROTATED && passed.is_none() {
            let verdict = verify(&tokens, &world.token().to_text(), at(second)).await;
            passed = verdict.is_ok().then_some(second);
        }
        for verdict in within_reason(flood.join_all()).await {
            assert!(
                matches!(verdict, Err(TokenError::Key | TokenError::Signature)),
                "{verdict:?}"
            );
        }
    }
    assert_eq!(sent, 10_000);
    assert_eq!(passed, Some(35), "the first fetch after the change");
    assert_eq!(world.fetches(), 12, "one in five seconds");
    assert_eq!(world.server.requests().len(), 12, "and nothing else");
}

/// Fetches that tokens cause are put off here for an hour, and those by the keys' age are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_does_not_put_off_the_renewal_of_keys() {
    let mut world = World::new().await;
    let minute = |world: &World| {
        let reply = Reply::text(world.issuer.jwks()).with_header("cache-control", "max-age=60");
        world.server.set(KEYS, reply);
    };
    minute(&world);
    let remote = world
        .remote()
        .with_cooldown(secs(3600))
        .fetched()
        .await
        .unwrap();
    world.server.forget();
    let tokens = Arc::new(world.verifier(remote.clone()));
    // One for the flood, at second 0, and then one in three quarters of a minute.
    for second in 0..180 {
        if second == 100 {
            world.rotate("new");
            minute(&world);
        }
        let mut flood = JoinSet::new();
        for number in 0..50 {
            let token = invented(&world, "invented", number);
            let tokens = Arc::clone(&tokens);
            flood.spawn(async move { verify(&tokens, &token, at(second)).await });
        }
        for verdict in within_reason(flood.join_all()).await {
            assert_eq!(verdict, Err(TokenError::Key));
        }
        until(|| remote.status().fetched == Some(at(second / 45 * 45))).await;
    }
    assert_eq!(world.fetches(), 4, "at 0, 45, 90 and 135");
    assert_eq!(
        verify(&tokens, &world.token().to_text(), at(179)).await,
        Ok(())
    );
}

/// The same through the whole layer: a good proof with each token, by which the flood gets no
/// further, and another client is not harmed by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_through_the_layer_is_rejected_and_nothing_else() {
    let mut world = World::new().await;
    let remote = world.keys().await;
    let verifier = Verifier::new(
        ProofRules::new(AUDIENCE.parse().unwrap()).with_clock(world.issuer.clock().read()),
        world.verifier(remote),
    );
    let service = DpopLayer::new(verifier).layer(service_fn(async |_: Request<String>| {
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    }));
    let ask = |request: Request<String>| {
        let service = service.clone();
        async move { service.oneshot(request).await.unwrap() }
    };
    let url = format!("{AUDIENCE}/orders");
    let old = world.issuer.clone();
    for second in 0..60 {
        let mut flood = JoinSet::new();
        let mallory = TestClient::new(&old);
        for number in 0..if second % 3 == 0 { 10 } else { 0 } {
            let mut request = mallory.request(Method::GET, &url);
            request.token_header["kid"] = json!(format!("invented {second} {number}"));
            flood.spawn(ask(request.build()));
        }
        if second == 32 {
            world.rotate("new");
        }
        let client = TestClient::new(&world.issuer);
        let response = ask(client.request(Method::GET, &url).build()).await;
        // The last fetch was at 30, the next is at 35.
        let is_unknown = (32..35).contains(&second);
        let expected = is_unknown.then_some(&Rejection::Token(TokenError::Key));
        assert_eq!(
            response.extensions().get::<Rejection>(),
            expected,
            "{second}"
        );
        for response in within_reason(flood.join_all()).await {
            let rejection = response.extensions().get::<Rejection>();
            assert_eq!(
                rejection,
                Some(&Rejection::Token(TokenError::Key)),
                "{second}"
            );
        }
        world.issuer.clock().advance(secs(1));
    }
    assert_eq!(
        world.fetches(),
        10,
        "at 0, 6, 12, 18, 24, 30, 35, 42, 48 and 54"
    );
}

/// While the issuer is down, a flood makes no more attempts than its absence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_in_an_outage_makes_one_attempt_a_cooldown() {
    let world = World::new().await;
    let remote = world.keys().await;
    let tokens = Arc::new(world.verifier(remote.clone()));
    let good = world.token().to_text();
    world.server.set(OAUTH, Reply::status(503));
    world.server.set(OPENID, Reply::status(503));
    world.server.set(KEYS, Reply::status(503));
    // Across the end of their lifetime, at second 600.
    for second in 570..630 {
        let mut flood = JoinSet::new();
        for number in 0..50 {
            let token = invented(&world, "invented", number);
            let tokens = Arc::clone(&tokens);
            flood.spawn(async move { verify(&tokens, &token, at(second)).await });
        }
        for verdict in within_reason(flood.join_all()).await {
            assert_eq!(verdict, Err(TokenError::Unavailable), "{second}");
        }
        assert_eq!(verify(&tokens, &good, at(second)).await, Ok(()), "{second}");
    }
    assert_eq!(world.fetches(), 1, "then the issuer is discovered again");
    assert_eq!(world.server.requests_to(OAUTH), 11);
}
