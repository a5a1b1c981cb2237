//! The state of an issuer's keys, and what their age requires.

use reqwest::Url;
use tokio::sync::watch;

use crate::time::Timestamp;
use crate::tokens::jwks::documents::RemoteKeysError;
use crate::tokens::key_set::KeySet;

/// Durations, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) min_lifetime: u64,
    pub(super) max_lifetime: u64,
    pub(super) stale_lifetime: u64,
    pub(super) cooldown: u64,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) held: Option<Held>,
    /// The URL of the keys, once discovered, and when that was.
    pub(super) jwks_uri: Option<(Url, Timestamp)>,
    pub(super) under_way: Option<Pending>,
    /// Why and when the last attempt failed, if it did.
    pub(super) failure: Option<(RemoteKeysError, Timestamp)>,
    /// When a token last caused a fetch.
    pub(super) demanded: Option<Timestamp>,
    /// When keys were last asked for.
    pub(super) asked: Option<Timestamp>,
}

/// The keys of the last successful fetch.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) keys: KeySet,
    /// The hash of the document that they come from.
    pub(super) sha256: [u8; 32],
    /// When that fetch began.
    pub(super) fetched: Timestamp,
    /// For how many seconds the issuer allows its response to be cached. Zero: not at all.
    pub(super) max_age: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// In the first three quarters of their lifetime.
    Young,
    /// In the last quarter of their lifetime.
    Due,
    /// Past their lifetime, to be used only while there are no other keys.
    Stale,
    /// No longer usable, or never fetched.
    Gone,
}

/// If the last attempt failed less than this many cooldowns ago, the issuer is considered
/// unreachable, and stale keys are used without waiting for the next attempt.
pub(super) const OUTAGE: u64 = 10;

/// Lifetime without a usable `Cache-Control`, in seconds.
const DEFAULT_LIFETIME: u64 = 600;

/// A request that had to wait may carry an earlier time than the requests after it, by at most this
/// many seconds. If a time is earlier by more, the clock was set back.
const MAX_REORDERING: u64 = 30;

/// The outcome of a fetch, for the requests that wait for it.
pub(super) type Pending = watch::Receiver<Option<Result<(), RemoteKeysError>>>;

impl Settings {
    pub(super) fn lifetime(&self, held: &Held) -> u64 {
        let lifetime = held.max_age.unwrap_or(DEFAULT_LIFETIME);
        lifetime.clamp(self.min_lifetime, self.max_lifetime)
    }

    pub(super) fn phase(&self, state: &mut State, now: Timestamp) -> Phase {
        let Some(held) = &mut state.held else {
            return Phase::Gone;
        };
        let lifetime = self.lifetime(held);
        let age = seconds_since(held.fetched, now).unwrap_or_else(|| {
            // The clock was set back, so the age of the keys is unknown. Treat them as past their
            // lifetime, but do not use them forever.
            held.fetched = Timestamp::from_unix(now.as_unix().saturating_sub(lifetime));
            lifetime
        });
        if age < lifetime - lifetime / 4 {
            Phase::Young
        } else if age < lifetime {
            Phase::Due
        } else if age - lifetime < self.stale_lifetime {
            Phase::Stale
        } else {
            Phase::Gone
        }
    }
}

impl State {
    pub(super) fn failed_within(&self, seconds: u64, now: Timestamp) -> bool {
        let failed = self.failure.as_ref().map(|(_, when)| *when);
        is_within(seconds, failed, now)
    }

    /// Whether this is the current fetch.
    pub(super) fn is_under_way(&self, pending: &Pending) -> bool {
        let current = self.under_way.as_ref();
        current.is_some_and(|current| current.same_channel(pending))
    }

    pub(super) fn other_than(&self, known: &KeySet) -> Option<KeySet> {
        let held = self.held.as_ref().filter(|held| !held.keys.is(known));
        held.map(|held| held.keys.clone())
    }
}

pub(super) fn is_within(seconds: u64, then: Option<Timestamp>, now: Timestamp) -> bool {
    then.and_then(|then| seconds_since(then, now))
        .is_some_and(|since| since < seconds)
}

/// `None` if the clock was set back in the meantime.
fn seconds_since(then: Timestamp, now: Timestamp) -> Option<u64> {
    let (then, now) = (then.as_unix(), now.as_unix());
    (then <= now.saturating_add(MAX_REORDERING)).then(|| now.saturating_sub(then))
}
