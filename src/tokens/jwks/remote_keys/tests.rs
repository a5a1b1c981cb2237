//! Single flight: every sequence of requests, outcomes, lost and abandoned fetches up to a length.
//!
//! The state changes only under one lock, by the functions that are called here. So whatever threads and tasks do is one
//! of these sequences. The task of a fetch is left out: a fetch ends when the test says so, and is dropped as by a panic
//! or the end of a runtime. Waiting is polled after each step.

use std::pin::Pin;
use std::task::{Context, Waker};

use reqwest::Url;

use super::*;
use crate::tokens::jwks::fetch::abandon;
use crate::tokens::jwks::schedule::Held;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The request that waits longest gives its fetch up.
    Abandon,
    /// A request needs keys.
    Ask,
    /// A request has a token that the last seen keys do not verify.
    AskNewer,
    /// The oldest fetch fails.
    Fail,
    /// The task of the newest fetch is dropped.
    Lose,
    /// A minute passes: more than a cooldown, and the lifetime of the keys.
    Pass,
    /// The newest fetch brings other keys.
    Succeed,
    /// The oldest fetch brings other keys.
    SucceedLate,
}

const STEPS: [Step; 8] = [
    Step::Abandon,
    Step::Ask,
    Step::AskNewer,
    Step::Fail,
    Step::Lose,
    Step::Pass,
    Step::Succeed,
    Step::SucceedLate,
];

/// Steps after the first.
const FURTHER: u32 = 5;

type Waiting = Pin<Box<dyn Future<Output = Result<(), RemoteKeysError>>>>;

/// A request that waits for a fetch.
struct Waiter {
    pending: Pending,
    waiting: Waiting,
}

struct World {
    keys: RemoteKeys,
    now: Timestamp,
    /// Oldest first.
    running: Vec<Fetch>,
    waiters: Vec<Waiter>,
    seen: KeySet,
}

fn key_set() -> KeySet {
    r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#
        .parse()
        .unwrap()
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Ask => {
                let is_under_way = self.is_under_way();
                let (found, fetch) = self.keys.find(self.now);
                assert!(!is_under_way || fetch.is_none(), "two fetches at once");
                self.asked(found, fetch);
            }
            Step::AskNewer => {
                let is_under_way = self.is_under_way();
                let (found, fetch) = self.keys.find_newer(&self.seen, self.now);
                assert!(!is_under_way || fetch.is_none(), "two fetches at once");
                self.asked(found, fetch);
            }
            Step::Abandon => {
                if !self.waiters.is_empty() {
                    let Waiter { pending, .. } = self.waiters.remove(0);
                    self.abandon(&pending);
                }
            }
            Step::Fail if !self.running.is_empty() => {
                let fetch = self.running.remove(0);
                self.end(fetch, Some(Err(RemoteKeysError::TimedOut)));
            }
            Step::Lose => {
                if let Some(fetch) = self.running.pop() {
                    self.end(fetch, None);
                }
            }
            Step::Succeed => {
                if let Some(fetch) = self.running.pop() {
                    self.end(fetch, Some(Ok(key_set())));
                }
            }
            Step::SucceedLate if !self.running.is_empty() => {
                let fetch = self.running.remove(0);
                self.end(fetch, Some(Ok(key_set())));
            }
            Step::Fail | Step::SucceedLate => {}
            Step::Pass => self.now = self.now.plus(60),
        }
        self.check();
    }

    fn asked(&mut self, found: Found, fetch: Option<Fetch>) {
        if let Some(fetch) = fetch {
            assert!(self.is_current(&fetch));
            self.running.push(fetch);
        }
        match found {
            Found::Keys(keys) => self.seen = keys,
            Found::Pending(pending) => {
                let (issuer, state) = (self.keys.issuer.clone(), self.keys.state.clone());
                let of = pending.clone();
                self.waiters.push(Waiter {
                    pending,
                    waiting: Box::pin(async move { ended(of, &issuer, &state).await }),
                });
            }
            Found::NothingNew | Found::Unavailable => {}
        }
    }

    fn abandon(&mut self, pending: &Pending) {
        let state = || self.keys.state.lock();
        let before = state().under_way.clone();
        let is_current = state().is_under_way(pending);
        abandon(pending, &self.keys.state);
        match (before, is_current) {
            (Some(other), false) => {
                assert!(state().is_under_way(&other), "another fetch was abandoned");
            }
            _ => assert!(state().under_way.is_none()),
        }
    }

    /// Ends a fetch. `None`: its task is dropped.
    fn end(&mut self, mut fetch: Fetch, outcome: Option<Result<KeySet, RemoteKeysError>>) {
        let is_current = self.is_current(&fetch);
        let before = self.held();
        let brought = outcome.as_ref().and_then(|outcome| outcome.as_ref().ok());
        let brought = brought.cloned();
        let pending = fetch.outcome.subscribe();
        if let Some(outcome) = outcome {
            fetch.end(outcome.map(|keys| {
                let url = Url::parse("https://as.example.com/jwks").unwrap();
                let held = Held {
                    keys,
                    sha256: [0; 32],
                    fetched: fetch.began,
                    max_age: Some(30),
                };
                ((url, fetch.began), held)
            }));
        }
        drop(fetch);
        let expected = if is_current {
            brought.or(before)
        } else {
            before
        };
        assert_eq!(
            self.held().map(|keys| keys.len()),
            expected.as_ref().map(KeySet::len)
        );
        if let (Some(held), Some(expected)) = (self.held(), &expected) {
            assert!(held.is(expected), "an abandoned fetch replaced the keys");
        }
        // Every request that waits for it has its outcome.
        let mut context = Context::from_waker(Waker::noop());
        self.waiters.retain_mut(|waiter| {
            let is_of_this = waiter.pending.same_channel(&pending);
            if is_of_this {
                let polled = waiter.waiting.as_mut().poll(&mut context);
                assert!(
                    polled.is_ready(),
                    "a request waits for a fetch that has ended"
                );
            }
            !is_of_this
        });
    }

    fn check(&mut self) {
        let current = self.running.iter().filter(|fetch| self.is_current(fetch));
        let is_under_way = self.is_under_way();
        assert_eq!(
            current.count(),
            usize::from(is_under_way),
            "one flight, which runs"
        );
        let mut context = Context::from_waker(Waker::noop());
        for waiter in &mut self.waiters {
            let polled = waiter.waiting.as_mut().poll(&mut context);
            assert!(polled.is_pending(), "an outcome before the end");
        }
    }

    /// Whatever happened before, the next fetch is not blocked.
    fn check_end(mut self) {
        while let Some(fetch) = self.running.pop() {
            self.end(fetch, None);
        }
        assert!(self.waiters.is_empty());
        self.now = self.now.plus(8_000);
        let (_, fetch) = self.keys.find(self.now);
        assert!(fetch.is_some(), "no further fetch");
    }

    fn is_under_way(&self) -> bool {
        self.keys.state.lock().under_way.is_some()
    }

    fn is_current(&self, fetch: &Fetch) -> bool {
        let pending = fetch.outcome.subscribe();
        self.keys.state.lock().is_under_way(&pending)
    }

    fn held(&self) -> Option<KeySet> {
        let state = self.keys.state.lock();
        state.held.as_ref().map(|held| held.keys.clone())
    }
}

#[test]
fn there_is_one_fetch_at_a_time_and_none_blocks_the_next() {
    let url: EndpointUrl = "https://as.example.com/jwks".parse().unwrap();
    let keys = RemoteKeys::at(url, HttpClient::new().unwrap())
        .with_lifetime(Duration::from_secs(1), Duration::from_secs(30));
    let (mut fetches, mut waits, seen) = (0, 0, key_set());
    // Before the first request, no other step does anything.
    for first in [Step::Ask, Step::AskNewer] {
        for others in 0..8_usize.pow(FURTHER) {
            let mut world = World {
                keys: RemoteKeys {
                    state: Arc::default(),
                    ..keys.clone()
                },
                now: Timestamp::from_unix(1_700_000_000),
                running: Vec::new(),
                waiters: Vec::new(),
                seen: seen.clone(),
            };
            world.step(first);
            for place in 0..FURTHER {
                world.step(STEPS[others >> (3 * place) & 7]);
            }
            fetches += world.running.len();
            waits += world.waiters.len();
            world.check_end();
        }
    }
    println!("{fetches} fetches and {waits} waits at the ends of sequences");
    assert!(fetches > 5_000 && waits > 5_000);
}
