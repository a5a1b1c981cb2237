//! One fetch, and those who wait for it (`src/tokens/jwks/fetch.rs`).

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_once_for_all_who_wait() {
    let world = World::new().await;
    let remote = world.remote();
    for (what, second) in [("no keys yet", 0), ("too old", 600)] {
        world.server.forget();
        world.server.hold();
        let mut waiting = JoinSet::new();
        for _ in 0..64 {
            let keys = remote.clone();
            waiting.spawn(async move { keys.key_set(at(second)).await });
        }
        world
            .server
            .asked(if second == 0 { OAUTH } else { KEYS }, 1)
            .await;
        world.server.outcome();
        let sets = within_reason(waiting.join_all()).await;
        let first = sets[0].as_ref().unwrap();
        assert!(
            sets.iter().all(|set| set.as_ref().unwrap().is(first)),
            "{what}"
        );
        assert_eq!(world.fetches(), 1, "{what}");
    }
}

#[test]
fn goes_on_when_the_request_that_began_is_dropped() {
    block_on(async {
        let world = World::new().await;
        let keys = world.remote();
        world.server.hold();
        let (first, second) = [keys.clone(), keys.clone()]
            .map(|keys| tokio::spawn(async move { keys.key_set(at(0)).await }))
            .into();
        world.server.asked(OAUTH, 1).await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        world.server.outcome();
        assert!(within_reason(second).await.unwrap().is_ok());
        assert_eq!(world.server.requests(), [OAUTH, KEYS]);
    });
}

#[test]
fn joins_a_fetch_that_is_under_way() {
    block_on(async {
        let mut world = World::new().await;
        let keys = world.keys().await;
        let known = keys.key_set(at(0)).await.unwrap();
        world.rotate("2");
        world.server.hold();
        keys.key_set(at(450)).await.unwrap();
        let joined = [450, 451, 460].map(|second| {
            let (keys, known) = (keys.clone(), known.clone());
            tokio::spawn(async move { keys.newer_key_set(&known, at(second)).await })
        });
        world.server.asked(KEYS, 1).await;
        world.server.outcome();
        for joined in joined {
            assert!(
                within_reason(joined)
                    .await
                    .unwrap()
                    .unwrap()
                    .unwrap()
                    .has_kid("2")
            );
        }
        assert_eq!(world.fetches(), 1);
        let known = keys.key_set(at(461)).await.unwrap();
        assert!(keys.newer_key_set(&known, at(461)).await.unwrap().is_none());
        assert_eq!(world.fetches(), 2, "to join one is not to cause one");
    });
}

/// Of a source outside of what it needs: an answer, and no panic.
#[test]
fn needs_a_runtime() {
    fn now_or_never<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("it waits"),
        }
    }

    let (world, fetched) = block_on(async {
        let world = World::new().await;
        let fetched = world.keys().await;
        (world, fetched)
    });
    let none = world.remote();
    assert_eq!(
        now_or_never(none.key_set(at(0))).err(),
        Some(KeySourceError)
    );
    assert_eq!(none.status().failure, Some(RemoteKeysError::NoRuntime));
    assert_eq!(
        now_or_never(world.remote().fetched()).unwrap_err(),
        RemoteKeysError::NoRuntime
    );
    assert_eq!(
        now_or_never(world.remote().fetched_within(secs(1))).unwrap_err(),
        RemoteKeysError::NoRuntime
    );
    let known = now_or_never(fetched.key_set(at(449))).expect("keys that live");
    assert_eq!(
        now_or_never(fetched.newer_key_set(&known, at(449))).err(),
        Some(KeySourceError)
    );
    assert!(now_or_never(fetched.key_set(at(450))).is_ok());
    assert!(now_or_never(fetched.key_set(at(600))).is_ok(), "stale");
    assert!(now_or_never(fetched.key_set(at(7800))).is_err());

    let bare = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let none = world.remote();
    assert_eq!(
        bare.block_on(none.key_set(at(0))).err(),
        Some(KeySourceError),
        "no I/O"
    );
    assert_eq!(none.status().failure, Some(RemoteKeysError::Interrupted));
}

#[test]
fn a_runtime_that_ends_leaves_nobody_waiting() {
    let silent = block_on(async {
        let world = World::new().await;
        world.server.hold();
        let keys = world.remote();
        let waiting = tokio::spawn({
            let keys = keys.clone();
            async move { keys.key_set(at(0)).await }
        });
        world.server.asked(OAUTH, 1).await;
        drop(waiting);
        keys
    });
    assert_eq!(silent.status().failure, Some(RemoteKeysError::Interrupted));
    block_on(async {
        // Not stuck, and out of the cooldown another attempt; nobody listens there any more.
        assert!(within_reason(silent.key_set(at(4))).await.is_err());
        assert!(within_reason(silent.key_set(at(5))).await.is_err());
    });
    assert!(matches!(
        silent.status().failure,
        Some(RemoteKeysError::Unreachable { .. })
    ));
}

/// A fetch lives in the runtime of the request that launched it. Where that is not driven any more,
/// others wait for as long as a fetch may take and no longer, and what comes of it at last is of
/// the past.
#[test]
fn a_runtime_that_stands_still_leaves_nobody_waiting() {
    // Whether there are stale keys, and when the fetch is launched.
    for (name, has_keys, start) in [("no keys", false, 0), ("stale keys", true, 600)] {
        let driven = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut world = driven.block_on(World::new());
        // Three times that and a second is what the test waits for.
        let impatient = HttpClient::builder().with_timeout(Duration::from_millis(200));
        let place = world.server.at(KEYS).parse().unwrap();
        let keys = RemoteKeys::at(place, impatient.build().unwrap());
        if has_keys {
            driven.block_on(keys.key_set(at(0))).unwrap();
        }
        world.rotate("2");
        world.server.forget();

        let still = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        still.block_on(async {
            let mut waiting = pin!(keys.key_set(at(start)));
            let waits = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending()));
            assert!(waits.await, "{name}");
        });

        driven.block_on(async {
            let set = within_reason(keys.key_set(at(start))).await;
            assert_eq!(
                set.as_ref().is_ok_and(|set| set.has_kid("1")),
                has_keys,
                "{name}"
            );
            assert_eq!(set.is_err(), !has_keys, "{name}");
            assert_eq!(
                keys.status().failure,
                Some(RemoteKeysError::TimedOut),
                "{name}"
            );
            let _ = within_reason(keys.key_set(at(start + 4))).await;
            assert_eq!(world.fetches(), 0, "{name}: one attempt a cooldown");
            let _ = within_reason(keys.key_set(at(start + 5))).await;
            until(|| keys.status().failure.is_none()).await;
            let set = keys.key_set(at(start + 5)).await.unwrap();
            assert!(set.has_kid("2"), "{name}");
            assert_eq!(world.fetches(), 1, "{name}");
        });

        // What the first fetch is answered at last. It leaves no connection behind.
        world.rotate("3");
        let last = Reply::text(world.issuer.jwks()).with_header("connection", "close");
        world.server.set(KEYS, last);
        still.block_on(async {
            let tasks = tokio::runtime::Handle::current().metrics();
            assert!(tasks.num_alive_tasks() > 0, "{name}: the fetch");
            until(|| tasks.num_alive_tasks() == 0).await;
        });
        assert_eq!(world.fetches(), 2, "{name}: it was driven to its end");
        let set = driven.block_on(keys.key_set(at(start + 6))).unwrap();
        assert!(set.has_kid("2"), "{name}: keys of the past");
        let status = keys.status();
        assert_eq!(
            (status.fetched, status.failure),
            (Some(at(start + 5)), None),
            "{name}"
        );
    }
}

/// One line for each failure and for each change, with the issuer (which is configuration) and
/// without anything of a token.
#[test]
fn says_when_keys_change_and_when_they_cannot_be_fetched() {
    let (log, _guard) = Log::start();
    let log = block_on(async {
        let mut world = World::new().await;
        let tokens = world.verifier(world.keys().await);
        let bad = invented(&world, "marker-kid-marker", 0);
        verify(&tokens, &bad, at(0)).await.unwrap_err(); // unchanged
        world.server.hang_up();
        verify(&tokens, &bad, at(5)).await.unwrap_err(); // failed
        verify(&tokens, &bad, at(6)).await.unwrap_err(); // too early
        world.server.outcome();
        world.rotate("2");
        verify(&tokens, &bad, at(10)).await.unwrap_err(); // changed
        world.server.set(KEYS, Reply::status(500));
        verify(&tokens, &bad, at(15)).await.unwrap_err(); // failed
        log.about(&format!("issuer={} ", world.server.url()))
    });
    let expected = [
        ("INFO", "have changed", "cause=\"start\"", "keys=1"),
        (
            "WARN",
            "could not be fetched",
            "cause=\"demanded\"",
            "key set is unreachable: no",
        ),
        ("INFO", "have changed", "cause=\"demanded\"", "keys=1"),
        (
            "WARN",
            "could not be fetched",
            "cause=\"demanded\"",
            "failed with status 500",
        ),
    ];
    assert_eq!(log.len(), expected.len(), "{log:#?}");
    for (line, (level, message, cause, detail)) in log.iter().zip(expected) {
        for part in [level, message, cause, detail, "issuer=http://127.0.0.1:"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!line.contains("marker"), "{line}");
    }
}

#[test]
fn counts_fetches_by_cause_and_result() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        block_on(async {
            let mut world = World::new().await;
            world.server.hang_up();
            world.remote().fetched().await.unwrap_err();
            world.server.outcome();
            let keys = world.keys().await;
            let known = keys.key_set(at(0)).await.unwrap();
            keys.newer_key_set(&known, at(0)).await.unwrap();
            keys.newer_key_set(&known, at(1)).await.unwrap();
            keys.key_set(at(600)).await.unwrap();
            world.rotate("2");
            keys.newer_key_set(&known, at(600)).await.unwrap();
        });
    });
    let mut counted: Vec<_> = recorder
        .snapshotter()
        .snapshot()
        .into_vec()
        .into_iter()
        .filter(|(key, ..)| key.key().name() == tower_dpop::telemetry::KEY_FETCHES)
        .map(|(key, _, _, value)| {
            let labels: Vec<_> = key
                .key()
                .labels()
                .map(|label| label.value().to_owned())
                .collect();
            (labels.join(" "), value)
        })
        .collect();
    counted.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        "demanded changed",
        "demanded unchanged",
        "scheduled unchanged",
        "start changed",
        "start failed",
    ];
    assert_eq!(
        counted,
        expected.map(|labels| (labels.to_owned(), DebugValue::Counter(1)))
    );
}
