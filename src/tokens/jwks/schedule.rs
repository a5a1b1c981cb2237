//! What is known of an issuer's keys, and what their age asks for.

use reqwest::Url;
use tokio::sync::watch;

use crate::time::Timestamp;
use crate::tokens::jwks::documents::RemoteKeysError;
use crate::tokens::key_set::KeySet;

/// Durations, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) shortest_life: u64,
    pub(super) longest_life: u64,
    pub(super) stale_life: u64,
    pub(super) cooldown: u64,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) held: Option<Held>,
    /// Where the keys are, once discovered, and when that was.
    pub(super) jwks_uri: Option<(Url, Timestamp)>,
    pub(super) under_way: Option<Pending>,
    /// Why and when the last attempt failed, if it did.
    pub(super) failure: Option<(RemoteKeysError, Timestamp)>,
    /// When a token last caused a fetch.
    pub(super) demanded: Option<Timestamp>,
    /// When we were last asked for keys.
    pub(super) asked: Option<Timestamp>,
}

/// The keys of the last good fetch.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) keys: KeySet,
    /// Of the document they come from.
    pub(super) sha256: [u8; 32],
    /// When that fetch began.
    pub(super) fetched: Timestamp,
    /// For how long the issuer lets its answer be kept. Zero: not at all.
    pub(super) max_age: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// In the first three quarters of their life.
    Young,
    /// In the last quarter.
    Due,
    /// Past their life, to be used only while there are no others.
    Stale,
    /// Not to be used, or never there.
    Gone,
}

/// While the last attempt failed less than this many cooldowns ago, the issuer is taken to be out
/// of reach, and stale keys are used without waiting for the next attempt.
pub(super) const OUTAGE: u64 = 10;

/// Life without a usable `Cache-Control`, in seconds.
const DEFAULT_LIFE: u64 = 600;

/// Requests that had to wait may tell an earlier time than those after them, by so many seconds. A
/// time that is earlier by more was told by a clock that was set back.
const MAX_REORDERING: u64 = 30;

/// What those who wait for a fetch look at.
pub(super) type Pending = watch::Receiver<Option<Result<(), RemoteKeysError>>>;

impl Settings {
    pub(super) fn life(&self, held: &Held) -> u64 {
        let life = held.max_age.unwrap_or(DEFAULT_LIFE);
        life.clamp(self.shortest_life, self.longest_life)
    }

    pub(super) fn phase(&self, state: &mut State, now: Timestamp) -> Phase {
        let Some(held) = &mut state.held else {
            return Phase::Gone;
        };
        let life = self.life(held);
        let age = seconds_since(held.fetched, now).unwrap_or_else(|| {
            // The clock was set back, and nobody knows how old the keys are: past their life, and
            // not for ever.
            held.fetched = Timestamp::from_unix(now.as_unix().saturating_sub(life));
            life
        });
        if age < life - life / 4 {
            Phase::Young
        } else if age < life {
            Phase::Due
        } else if age - life < self.stale_life {
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

    /// Whether this is the fetch that is waited for.
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

/// Nothing, if the clock was set back in the meantime.
fn seconds_since(then: Timestamp, now: Timestamp) -> Option<u64> {
    let (then, now) = (then.as_unix(), now.as_unix());
    (then <= now.saturating_add(MAX_REORDERING)).then(|| now.saturating_sub(then))
}
