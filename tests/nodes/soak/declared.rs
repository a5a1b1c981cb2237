//! For each disturbance, the rejections of valid requests that the documentation permits, and for how long.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What is done to the two nodes, to Redis, or to the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Disturbance {
    ClockAhead,
    ClockBehind,
    ClockFarAhead,
    ClockFarBehind,
    IssuerCloses,
    IssuerFails,
    IssuerHangs,
    KeyAdded,
    KeyChangedInOutage,
    KeyWithdrawn,
    RedisCut,
    RedisFailedOver,
    RedisHalfOpen,
    RedisKilled,
    RedisLostReply,
    RedisPartitioned,
    RedisStopped,
    SecretReplaced,
    SecretRotated,
}

/// Why a request was rejected, as its client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// 401 `use_dpop_nonce`.
    Nonce,
    /// 401 `invalid_dpop_proof`: the proof was used before. No valid request may get this.
    Replayed,
    /// 401 `invalid_dpop_proof`: `iat` is outside the window.
    Time,
    /// 401 `invalid_token`.
    Token,
    /// 503 with `Retry-After`.
    Unavailable,
}

impl Cause {
    pub(super) const ALL: [Self; 5] = [
        Self::Nonce,
        Self::Replayed,
        Self::Time,
        Self::Token,
        Self::Unavailable,
    ];
}

/// A cause that is permitted during a disturbance, and for this many seconds after it.
type Permitted = (Cause, u64);

struct Declared {
    disturbance: Disturbance,
    permitted: &'static [Permitted],
}

const fn declared(disturbance: Disturbance, permitted: &'static [Permitted]) -> Declared {
    Declared {
        disturbance,
        permitted,
    }
}

/// Nothing else is permitted, with three exceptions. A client that has no nonce, or has been idle, may be asked for
/// one. A token whose key was withdrawn may be rejected. A busy machine may miss the deadline of the store, which is a
/// few 503s (`Counts::assert_complete`).
///
/// The seconds: on a busy machine, a store that is reachable again is used within five (`faults`); nodes fetch keys at
/// most once per second, and keep them for four (`node`), or longer by a step of the clock, since times are compared.
const DECLARED: [Declared; 19] = [
    // Within the leeway, nothing is rejected.
    declared(Disturbance::ClockAhead, &[]),
    declared(Disturbance::ClockBehind, &[]),
    // Beyond the leeway, the node's `iat` window is not that of its clients, and the other node rejects its nonces,
    // which are from the future for as long as the step.
    declared(Disturbance::ClockFarAhead, FAR),
    declared(Disturbance::ClockFarBehind, FAR),
    // Stale keys are used.
    declared(Disturbance::IssuerCloses, &[]),
    declared(Disturbance::IssuerFails, &[]),
    declared(Disturbance::IssuerHangs, &[]),
    // The key is published before it is used.
    declared(Disturbance::KeyAdded, &[]),
    // Tokens of the new key cannot be verified until the issuer is reachable.
    declared(
        Disturbance::KeyChangedInOutage,
        &[(Cause::Token, 10), (Cause::Unavailable, 10)],
    ),
    // Tokens of the earlier key become invalid, and the new key is unknown for a moment, or longer during an outage.
    declared(
        Disturbance::KeyWithdrawn,
        &[(Cause::Token, 12), (Cause::Unavailable, 12)],
    ),
    // A claim on the connection may have no reply.
    declared(Disturbance::RedisCut, &[(Cause::Unavailable, 5)]),
    // Another primary is another epoch.
    declared(
        Disturbance::RedisFailedOver,
        &[(Cause::Nonce, 5), (Cause::Unavailable, 5)],
    ),
    declared(Disturbance::RedisHalfOpen, &[(Cause::Unavailable, 5)]),
    // An empty server is another epoch.
    declared(
        Disturbance::RedisKilled,
        &[(Cause::Nonce, 5), (Cause::Unavailable, 5)],
    ),
    declared(Disturbance::RedisLostReply, &[(Cause::Unavailable, 5)]),
    declared(Disturbance::RedisPartitioned, &[(Cause::Unavailable, 5)]),
    declared(Disturbance::RedisStopped, &[(Cause::Unavailable, 5)]),
    // Each client needs a nonce of the new secret, and for a moment one per node.
    declared(Disturbance::SecretReplaced, &[(Cause::Nonce, 5)]),
    // Both secrets are accepted until the nonces of the earlier one are stale.
    declared(Disturbance::SecretRotated, &[]),
];

const FAR: &[Permitted] = &[(Cause::Nonce, 20), (Cause::Time, 2), (Cause::Token, 20)];

struct Entry {
    disturbance: Disturbance,
    began: Instant,
    ended: Option<Instant>,
}

/// What was done, and when.
pub(super) struct Timeline {
    began: Instant,
    entries: Mutex<Vec<Entry>>,
}

impl Timeline {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            entries: Mutex::default(),
        }
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Records the disturbance for as long as the future runs.
    pub(super) async fn during<T>(
        &self,
        disturbance: Disturbance,
        future: impl Future<Output = T>,
    ) -> T {
        let number = {
            let mut entries = self.entries.lock().unwrap();
            entries.push(Entry {
                disturbance,
                began: Instant::now(),
                ended: None,
            });
            entries.len() - 1
        };
        let output = future.await;
        self.entries.lock().unwrap()[number].ended = Some(Instant::now());
        output
    }

    /// The disturbance that permits this cause for a request between these moments.
    pub(super) fn permits(&self, cause: Cause, from: Instant, to: Instant) -> Option<Disturbance> {
        let entries = self.entries.lock().unwrap();
        // All tracks together have at most this many disturbances within the longest recovery time.
        entries.iter().rev().take(40).find_map(|entry| {
            let declared = DECLARED
                .iter()
                .find(|declared| declared.disturbance == entry.disturbance)?;
            let &(_, after) = declared
                .permitted
                .iter()
                .find(|permitted| permitted.0 == cause)?;
            let ended = entry.ended.map(|ended| ended + Duration::from_secs(after));
            let overlaps = entry.began <= to && ended.is_none_or(|ended| ended >= from);
            overlaps.then_some(entry.disturbance)
        })
    }

    /// Whether this began after a moment, and had ended by this margin before another one.
    pub(super) fn happened(
        &self,
        disturbance: Disturbance,
        after: Instant,
        before: Instant,
        margin: Duration,
    ) -> bool {
        let entries = self.entries.lock().unwrap();
        let mut recent = entries.iter().rev().take(60);
        recent.any(|entry| {
            let ended = entry.ended.map(|ended| ended + margin);
            entry.disturbance == disturbance
                && entry.began > after
                && ended.is_some_and(|ended| ended < before)
        })
    }

    /// For how much of the time since the start the disturbances permitted a cause: a part of 1.
    pub(super) fn permitted_part(&self, cause: Cause) -> f64 {
        let end = self.began.elapsed().as_secs_f64();
        let (mut until, mut permitted) = (0.0, 0.0);
        // In the order in which they began.
        for (disturbance, began, ended) in self.all() {
            let declared = DECLARED.iter().find(|one| one.disturbance == disturbance);
            let causes = declared.map_or(&[][..], |declared| declared.permitted);
            let Some(&(_, after)) = causes.iter().find(|permitted| permitted.0 == cause) else {
                continue;
            };
            let ended = (ended + Duration::from_secs(after).as_secs_f64()).min(end);
            permitted += (ended - began.max(until)).max(0.0);
            until = ended.max(until);
        }
        permitted / end
    }

    /// The last disturbances, for the message of a failure.
    pub(super) fn recent(&self) -> String {
        let entries = self.entries.lock().unwrap();
        let recent = entries.iter().rev().take(8).map(|entry| {
            let ended = entry.ended.map_or("goes on".to_owned(), |ended| {
                format!("ended {:.1?} ago", ended.elapsed())
            });
            let began = entry.began.elapsed();
            format!("{:?} began {began:.1?} ago, {ended}", entry.disturbance)
        });
        recent.collect::<Vec<_>>().join("; ")
    }

    /// Each disturbance with its beginning and its end, in seconds.
    pub(super) fn all(&self) -> Vec<(Disturbance, f64, f64)> {
        let entries = self.entries.lock().unwrap();
        let seconds = |moment: Instant| (moment - self.began).as_secs_f64();
        let all = entries.iter().map(|entry| {
            let ended = entry.ended.unwrap_or_else(Instant::now);
            (entry.disturbance, seconds(entry.began), seconds(ended))
        });
        all.collect()
    }

    /// How often each kind of disturbance happened. The list contains all kinds.
    pub(super) fn counts(&self) -> Vec<(Disturbance, usize)> {
        let all = self.all();
        let count = |kind| all.iter().filter(|one| one.0 == kind).count();
        DECLARED
            .iter()
            .map(|declared| (declared.disturbance, count(declared.disturbance)))
            .collect()
    }
}
