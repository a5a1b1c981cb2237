//! Counts the outcomes of all requests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use super::declared::{Cause, Disturbance};
use super::load::ATTEMPTS;

/// When a proof was sent again. The order is that of the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Again {
    AtOnceToTheSameNode,
    AtOnceToTheOtherNode,
    ToBothNodesTogether,
    /// After some seconds: within the window of `iat`, after it, or after the record has expired.
    Later,
    /// During this disturbance, or after its end.
    Around(Disturbance),
}

#[derive(Default)]
struct Numbers {
    good: u64,
    accepted: u64,
    /// Rejected attempts, by cause and permission.
    rejected: BTreeMap<(Cause, Permission), u64>,
    given_up: u64,
    races: u64,
    races_without_winner: u64,
    replays: BTreeMap<Again, BTreeMap<Cause, u64>>,
    slowest: Duration,
}

/// Why the rejection of a valid request is permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Permission {
    Disturbance(Disturbance),
    /// The client has no nonce, or only an old one.
    NewNonce,
    /// Its token's key was withdrawn.
    WithdrawnKey,
    /// No other reason: the machine may be too busy for the deadline of the store. At most 0.2% of
    /// the requests, and none may be lost by it.
    Busy,
}

#[derive(Default)]
pub(super) struct Counts(Mutex<Numbers>);

impl Counts {
    pub(super) fn add_good(&self) {
        self.0.lock().unwrap().good += 1;
    }

    pub(super) fn add_accepted(&self, took: Duration) {
        let mut numbers = self.0.lock().unwrap();
        numbers.accepted += 1;
        numbers.slowest = numbers.slowest.max(took);
    }

    pub(super) fn add_rejected(&self, cause: Cause, permission: Permission) {
        let mut numbers = self.0.lock().unwrap();
        *numbers.rejected.entry((cause, permission)).or_default() += 1;
    }

    pub(super) fn add_given_up(&self) {
        self.0.lock().unwrap().given_up += 1;
    }

    /// One new proof was sent to both nodes at once.
    pub(super) fn add_race(&self, winners: usize) {
        let mut numbers = self.0.lock().unwrap();
        numbers.races += 1;
        numbers.races_without_winner += u64::from(winners == 0);
    }

    pub(super) fn add_replay(&self, again: Again, cause: Cause) {
        let mut numbers = self.0.lock().unwrap();
        let causes = numbers.replays.entry(again).or_default();
        *causes.entry(cause).or_default() += 1;
    }

    /// Accepted, and rejected with 503, so far.
    pub(super) fn accepted_and_unavailable(&self) -> (u64, u64) {
        let numbers = self.0.lock().unwrap();
        let unavailable = numbers.rejected.iter();
        let unavailable = unavailable.filter(|((cause, _), _)| *cause == Cause::Unavailable);
        (numbers.accepted, unavailable.map(|(_, count)| count).sum())
    }

    /// Whether proofs were sent again around this disturbance.
    pub(super) fn has_replays_around(&self, disturbance: Disturbance) -> bool {
        let numbers = self.0.lock().unwrap();
        numbers.replays.contains_key(&Again::Around(disturbance))
    }

    /// Checks what only the whole run can show.
    pub(super) fn assert_complete(&self) {
        let numbers = self.0.lock().unwrap();
        let busy = numbers.rejected.iter();
        let busy = busy.filter(|((_, permission), _)| *permission == Permission::Busy);
        let busy: u64 = busy.map(|(_, count)| count).sum();
        assert!(
            busy * 500 <= numbers.good,
            "{busy} of {} requests had a 503 without a disturbance",
            numbers.good
        );
        for again in [
            Again::AtOnceToTheSameNode,
            Again::AtOnceToTheOtherNode,
            Again::ToBothNodesTogether,
            Again::Later,
            Again::Around(Disturbance::ClockFarBehind),
        ] {
            let replayed = numbers.replays.get(&again);
            let replayed = replayed.and_then(|causes| causes.get(&Cause::Replayed));
            assert!(replayed.is_some(), "{again:?}: no record was met");
        }
    }

    /// The summary, in lines.
    pub(super) fn text(&self) -> String {
        let numbers = self.0.lock().unwrap();
        let mut text = String::new();
        let replays: u64 = numbers.replays.values().flat_map(BTreeMap::values).sum();
        let _ = writeln!(
            text,
            "good requests: {}, accepted: {}, given up after {ATTEMPTS} permitted rejections: {}, slowest: {:.2?}\n\
            new proofs sent to both nodes together: {}, accepted twice: 0, not at all: {}\n\
            replays: {replays}, accepted: 0",
            numbers.good,
            numbers.accepted,
            numbers.given_up,
            numbers.slowest,
            numbers.races,
            numbers.races_without_winner,
        );
        text.push_str("\nrejected attempts of good requests, and what permits it:\n");
        for ((cause, permission), count) in &numbers.rejected {
            let _ = writeln!(text, "  {cause:?}, {permission:?}: {count}");
        }
        text.push_str("\nreplays, and why they were rejected:\n");
        for (again, causes) in &numbers.replays {
            let causes = causes.iter();
            let causes: Vec<_> = causes
                .map(|(cause, count)| format!("{cause:?} {count}"))
                .collect();
            let _ = writeln!(text, "  {again:?}: {}", causes.join(", "));
        }
        text
    }
}
