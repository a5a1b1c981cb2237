//! A single fetch: which URLs it requests, which requests wait for it, how it ends, and what it logs.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::JoinSet;
use tower_dpop::RemoteKeys;
use tower_dpop::tokens::{HttpClient, KeySource as _, KeySourceError, RemoteKeysError};

use super::{Fixture, at, invented, secs, verify};
use crate::tokens::server::{KEYS, OAUTH, OPENID, Reply, in_time, wait_until};
use common::log::Log;
use common::{Key, KeyExt as _, block_on};

#[test]
fn reads_the_metadata_again_after_a_failed_fetch() {
    block_on(async {
        let fixture = Fixture::new().await;
        let keys = fixture.keys().await;
        fixture.server.set(KEYS, Reply::status(410));
        fixture
            .server
            .set("/moved", Reply::text(fixture.issuer.jwks()));
        fixture.publish_metadata("/moved");
        assert!(keys.key_set(at(600)).await.is_ok(), "stale");
        assert_eq!(fixture.server.requests(), [KEYS], "the known URL");
        keys.key_set(at(605)).await.unwrap();
        wait_until(|| keys.status().failure.is_none()).await;
        assert_eq!(fixture.server.requests(), [KEYS, OAUTH, "/moved"]);
    });
}

/// An issuer that moves its keys may still publish the previous ones at the old URL. So a discovered
/// URL is used no longer than the maximum lifetime of keys.
#[test]
fn reads_the_metadata_again_after_the_maximum_lifetime() {
    block_on(async {
        let mut fixture = Fixture::new().await;
        let keys = fixture.remote().with_lifetime(secs(60), secs(600));
        let keys = keys.fetched().await.unwrap();
        let newer = fixture.issuer.clone().with_key("2", Key::es256());
        fixture.server.set("/moved", Reply::text(newer.jwks()));
        let metadata = |path| Reply::metadata(&fixture.server.url(), &fixture.server.url_of(path));
        fixture.server.set(OAUTH, metadata("/moved"));

        fixture.server.clear_requests();
        assert!(keys.key_set(at(599)).await.is_ok());
        wait_until(|| keys.status().fetched == Some(at(599))).await;
        assert_eq!(
            fixture.server.requests(),
            [KEYS],
            "the URL is still current"
        );
        let previous = keys.key_set(at(600)).await.unwrap();
        assert!(previous.has_kid("1") && !previous.has_kid("2"));

        fixture.server.clear_requests();
        let moved = keys.key_set(at(1199)).await.unwrap();
        assert_eq!(fixture.server.requests(), [OAUTH, "/moved"]);
        assert!(moved.has_kid("2") && !moved.has_kid("1"));

        // While the metadata is unavailable, the URL is used for the same time again.
        fixture.issuer = newer;
        fixture.issuer = fixture.issuer.clone().with_key("3", Key::es256());
        fixture
            .server
            .set("/moved", Reply::text(fixture.issuer.jwks()));
        fixture.server.set(OAUTH, Reply::status(503));
        fixture.server.clear_requests();
        let from_same_url = keys.key_set(at(1799)).await.unwrap();
        assert_eq!(fixture.server.requests(), [OAUTH, OPENID, "/moved"]);
        assert!(from_same_url.has_kid("3"));
        assert_eq!(keys.status().failure, None);
        fixture.server.clear_requests();
        assert!(keys.key_set(at(2398)).await.is_ok());
        wait_until(|| keys.status().fetched == Some(at(2398))).await;
        assert_eq!(fixture.server.requests(), ["/moved"]);

        // Metadata that are there, but not the issuer's, are no outage.
        let other = Reply::metadata("https://other.example.com", &fixture.server.url_of(KEYS));
        fixture.server.set(OAUTH, other.clone());
        fixture.server.set(OPENID, other);
        fixture.server.clear_requests();
        assert!(keys.key_set(at(2998)).await.is_ok(), "stale");
        let failure = keys.status().failure;
        assert!(
            matches!(failure, Some(RemoteKeysError::Issuer { .. })),
            "{failure:?}"
        );
        assert_eq!(fixture.server.requests_to("/moved"), 0);
        fixture.publish_metadata(KEYS);
        fixture.server.clear_requests();
        assert!(keys.key_set(at(3003)).await.is_ok());
        wait_until(|| keys.status().failure.is_none()).await;
        assert_eq!(fixture.server.requests(), [OAUTH, KEYS]);
        assert!(keys.key_set(at(3004)).await.unwrap().has_kid("1"));
    });
}

/// Tokens that were cached with these keys stay valid.
#[test]
fn keeps_the_same_set_while_the_document_is_unchanged() {
    block_on(async {
        let fixture = Fixture::new().await;
        let keys = fixture.keys().await;
        let old = keys.key_set(at(0)).await.unwrap();
        for second in [600, 1200, 1800] {
            assert!(keys.key_set(at(second)).await.unwrap().is(&old), "{second}");
            assert_eq!(keys.status().fetched, Some(at(second)), "renewed");
        }
        assert_eq!(fixture.fetches(), 3);
        fixture
            .server
            .set(KEYS, Reply::text(format!("{} ", fixture.issuer.jwks())));
        assert!(
            !keys.key_set(at(2400)).await.unwrap().is(&old),
            "another document"
        );
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_once_for_all_waiting_requests() {
    let fixture = Fixture::new().await;
    let remote = fixture.remote();
    for (name, second) in [("no keys yet", 0), ("after the lifetime", 600)] {
        fixture.server.clear_requests();
        fixture.server.hold();
        let mut waiting = JoinSet::new();
        for _ in 0..64 {
            let keys = remote.clone();
            waiting.spawn(async move { keys.key_set(at(second)).await });
        }
        fixture
            .server
            .wait_for_requests(if second == 0 { OAUTH } else { KEYS }, 1)
            .await;
        fixture.server.resume();
        let sets = in_time(waiting.join_all()).await;
        let first = sets[0].as_ref().unwrap();
        assert!(
            sets.iter().all(|set| set.as_ref().unwrap().is(first)),
            "{name}"
        );
        assert_eq!(fixture.fetches(), 1, "{name}");
    }
}

#[test]
fn a_fetch_continues_when_the_request_that_launched_it_is_dropped() {
    block_on(async {
        let fixture = Fixture::new().await;
        let keys = fixture.remote();
        fixture.server.hold();
        let (first, second) = [keys.clone(), keys.clone()]
            .map(|keys| tokio::spawn(async move { keys.key_set(at(0)).await }))
            .into();
        fixture.server.wait_for_requests(OAUTH, 1).await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        fixture.server.resume();
        assert!(in_time(second).await.unwrap().is_ok());
        assert_eq!(fixture.server.requests(), [OAUTH, KEYS]);
    });
}

#[test]
fn tokens_with_unknown_keys_join_a_fetch_that_is_under_way() {
    block_on(async {
        let mut fixture = Fixture::new().await;
        let keys = fixture.keys().await;
        let known = keys.key_set(at(0)).await.unwrap();
        fixture.rotate("2");
        fixture.server.hold();
        keys.key_set(at(450)).await.unwrap();
        let joined = [450, 451, 460].map(|second| {
            let (keys, known) = (keys.clone(), known.clone());
            tokio::spawn(async move { keys.newer_key_set(&known, at(second)).await })
        });
        fixture.server.wait_for_requests(KEYS, 1).await;
        fixture.server.resume();
        for joined in joined {
            assert!(
                in_time(joined)
                    .await
                    .unwrap()
                    .unwrap()
                    .unwrap()
                    .has_kid("2")
            );
        }
        assert_eq!(fixture.fetches(), 1);
        let known = keys.key_set(at(461)).await.unwrap();
        assert!(keys.newer_key_set(&known, at(461)).await.unwrap().is_none());
        assert_eq!(fixture.fetches(), 2, "joining a fetch starts no cooldown");
    });
}

/// Outside of a suitable runtime, calls return an error and do not panic.
#[test]
fn fails_without_a_runtime_but_does_not_panic() {
    fn now_or_never<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("the future is pending"),
        }
    }

    let (fixture, fetched) = block_on(async {
        let fixture = Fixture::new().await;
        let fetched = fixture.keys().await;
        (fixture, fetched)
    });
    let not_fetched = fixture.remote();
    assert_eq!(
        now_or_never(not_fetched.key_set(at(0))).err(),
        Some(KeySourceError)
    );
    assert_eq!(
        not_fetched.status().failure,
        Some(RemoteKeysError::NoRuntime)
    );
    assert_eq!(
        now_or_never(fixture.remote().fetched()).unwrap_err(),
        RemoteKeysError::NoRuntime
    );
    assert_eq!(
        now_or_never(fixture.remote().fetched_within(secs(1))).unwrap_err(),
        RemoteKeysError::NoRuntime
    );
    let known = now_or_never(fetched.key_set(at(449))).expect("within the lifetime");
    assert_eq!(
        now_or_never(fetched.newer_key_set(&known, at(449))).err(),
        Some(KeySourceError)
    );
    assert!(now_or_never(fetched.key_set(at(450))).is_ok());
    assert!(now_or_never(fetched.key_set(at(600))).is_ok(), "stale");
    assert!(now_or_never(fetched.key_set(at(7800))).is_err());

    let without_io = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let not_fetched = fixture.remote();
    assert_eq!(
        without_io.block_on(not_fetched.key_set(at(0))).err(),
        Some(KeySourceError),
        "no I/O"
    );
    assert_eq!(
        not_fetched.status().failure,
        Some(RemoteKeysError::Interrupted)
    );
}

#[test]
fn no_request_waits_for_a_fetch_in_a_runtime_that_has_shut_down() {
    let interrupted = block_on(async {
        let fixture = Fixture::new().await;
        fixture.server.hold();
        let keys = fixture.remote();
        let waiting = tokio::spawn({
            let keys = keys.clone();
            async move { keys.key_set(at(0)).await }
        });
        fixture.server.wait_for_requests(OAUTH, 1).await;
        drop(waiting);
        keys
    });
    assert_eq!(
        interrupted.status().failure,
        Some(RemoteKeysError::Interrupted)
    );
    block_on(async {
        // No call hangs. The second one is after the cooldown and makes another attempt, which fails
        // because the server has shut down.
        assert!(in_time(interrupted.key_set(at(4))).await.is_err());
        assert!(in_time(interrupted.key_set(at(5))).await.is_err());
    });
    assert!(matches!(
        interrupted.status().failure,
        Some(RemoteKeysError::Unreachable { .. })
    ));
}

/// A fetch runs on the runtime of the request that launched it. If nothing drives that runtime any
/// more, other requests wait only as long as a fetch may take, and a late outcome is ignored.
#[test]
fn a_fetch_in_a_runtime_that_has_become_idle_is_abandoned() {
    // The name, whether there are stale keys, and when the fetch is launched.
    for (name, has_keys, start) in [("no keys", false, 0), ("stale keys", true, 600)] {
        let driven = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut fixture = driven.block_on(Fixture::new());
        // The test waits for three times this timeout plus one second.
        let short_timeout = HttpClient::builder().with_timeout(Duration::from_millis(200));
        let url = fixture.server.url_of(KEYS).parse().unwrap();
        let keys = RemoteKeys::at(url, short_timeout.build().unwrap());
        if has_keys {
            driven.block_on(keys.key_set(at(0))).unwrap();
        }
        fixture.rotate("2");
        fixture.server.clear_requests();

        let idle = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        idle.block_on(async {
            let mut first = pin!(keys.key_set(at(start)));
            let is_pending =
                poll_fn(|context| Poll::Ready(first.as_mut().poll(context).is_pending()));
            assert!(is_pending.await, "{name}");
        });

        driven.block_on(async {
            let set = in_time(keys.key_set(at(start))).await;
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
            let _ = in_time(keys.key_set(at(start + 4))).await;
            assert_eq!(fixture.fetches(), 0, "{name}: one attempt per cooldown");
            let _ = in_time(keys.key_set(at(start + 5))).await;
            wait_until(|| keys.status().failure.is_none()).await;
            let set = keys.key_set(at(start + 5)).await.unwrap();
            assert!(set.has_kid("2"), "{name}");
            assert_eq!(fixture.fetches(), 1, "{name}");
        });

        // The late response to the first fetch. It closes the connection, so that no task remains.
        fixture.rotate("3");
        let late = Reply::text(fixture.issuer.jwks()).with_header("connection", "close");
        fixture.server.set(KEYS, late);
        idle.block_on(async {
            let tasks = tokio::runtime::Handle::current().metrics();
            assert!(tasks.num_alive_tasks() > 0, "{name}: the fetch is not done");
            wait_until(|| tasks.num_alive_tasks() == 0).await;
        });
        assert_eq!(
            fixture.fetches(),
            2,
            "{name}: the first fetch was completed"
        );
        let set = driven.block_on(keys.key_set(at(start + 6))).unwrap();
        assert!(set.has_kid("2"), "{name}: the keys of the late response");
        let status = keys.status();
        assert_eq!(
            (status.fetched, status.failure),
            (Some(at(start + 5)), None),
            "{name}"
        );
    }
}

/// One line per failed fetch and per change of the keys. It shows the issuer, which is configuration,
/// and nothing from a token.
#[test]
fn logs_changed_keys_and_failed_fetches() {
    let (log, _guard) = Log::start("off,tower_dpop::tokens::jwks=info");
    let log = block_on(async {
        let mut fixture = Fixture::new().await;
        let tokens = fixture.verifier(fixture.keys().await);
        let token = invented(&fixture, "marker-kid-marker", 0);
        verify(&tokens, &token, at(0)).await.unwrap_err(); // unchanged
        fixture.server.hang_up();
        verify(&tokens, &token, at(5)).await.unwrap_err(); // failed
        verify(&tokens, &token, at(6)).await.unwrap_err(); // within the cooldown
        fixture.server.resume();
        fixture.rotate("2");
        verify(&tokens, &token, at(10)).await.unwrap_err(); // changed
        fixture.server.set(KEYS, Reply::status(500));
        verify(&tokens, &token, at(15)).await.unwrap_err(); // failed
        let issuer = format!("issuer={} ", fixture.server.url());
        let text = log.text();
        let lines = text.lines().filter(|line| line.contains(&issuer));
        lines.map(str::to_owned).collect::<Vec<_>>()
    });
    let expected = [
        ("INFO", "were fetched", "cause=\"start\"", "keys=1"),
        (
            "WARN",
            "could not be fetched",
            "cause=\"demanded\"",
            "is unreachable: no",
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

/// Once per cause: here the key set is unreachable, then also the metadata, in which a new place is looked up.
#[test]
fn an_outage_of_the_issuer_is_logged_once_and_so_is_its_end() {
    let (log, _guard) = Log::start("off,tower_dpop::tokens::jwks=info");
    let text = block_on(async {
        let fixture = Fixture::new().await;
        let tokens = fixture.verifier(fixture.keys().await);
        let token = invented(&fixture, "marker-kid-marker", 0);
        fixture.server.hang_up();
        for seconds in [5, 10, 15] {
            verify(&tokens, &token, at(seconds)).await.unwrap_err();
        }
        fixture.server.resume();
        verify(&tokens, &token, at(20)).await.unwrap_err();
        let issuer = format!("issuer={} ", fixture.server.url());
        let text = log.text();
        let lines = text.lines().filter(|line| line.contains(&issuer));
        lines.map(str::to_owned).collect::<Vec<_>>()
    });
    let [_, key_set, metadata, recovered] = text.as_slice() else {
        panic!("{text:#?}");
    };
    for (failed, cause) in [(key_set, "key set"), (metadata, "metadata")] {
        for part in [" WARN", "could not be fetched", cause, "known_keys=1"] {
            assert!(failed.contains(part), "{failed}");
        }
    }
    let again = "can be fetched again, and have not changed";
    for part in [" INFO", again, "outage_seconds=15"] {
        assert!(recovered.contains(part), "{recovered}");
    }
}
