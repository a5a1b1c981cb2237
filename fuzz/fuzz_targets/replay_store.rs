//! Claims of `MemoryReplayStore`, in turn and by threads at once, while the clock runs, jumps and is set back: no proof
//! passes twice, and the store reports and counts what a model that keeps everything expects.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Barrier;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use tower_dpop::proof::{Claim, Epoch, ReplayKey, ReplayStoreError, UsedProof};
use tower_dpop::{MemoryReplayStore, ReplayStore as _, Timestamp};

#[derive(Arbitrary, Debug)]
struct Input {
    limit: u8,
    client_limit: Option<u8>,
    verifiers: Verifiers,
    steps: Vec<Step>,
}

/// The verifiers that share the store. A window is the number of seconds after `iat` for which a proof is accepted.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Verifiers {
    One {
        window: u8,
    },
    OneWithAFloor {
        window: u8,
        floor: u8,
    },
    /// Two of different freshness, with the retention floor that the documentation requires for them.
    Two([u8; 2]),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Pass(u8),
    Jump(i16),
    Years(i8),
    SetTo(u64),
    /// As it was before a jump.
    SetToStart,
    New(NewProof),
    Again(Old),
    OtherEpoch,
    Race {
        proofs: [Raced; 4],
        skew: [u8; 3],
        third: bool,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct NewProof {
    client: u8,
    age: u8,
    second_verifier: bool,
}

/// An earlier proof.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Old {
    back: u8,
    second_verifier: bool,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Raced {
    New(NewProof),
    Again(Old),
}

/// How far the clock of a client may be ahead.
const LEEWAY: u64 = 5;
const START: u64 = 1_700_000_000;
const YEAR: i64 = 365 * 24 * 60 * 60;

/// A proof that was claimed.
#[derive(Clone, Copy)]
struct Proof {
    client: u8,
    iat: u64,
    /// Whether it was accepted, by any verifier at any time.
    accepted: bool,
}

type Outcome = Result<Claim, ReplayStoreError>;

/// The number of a proof, the window of its verifier, the time, and the outcome; then the bytes that the store
/// allocated.
type RacedClaim = ((usize, u64, u64, Outcome), isize);

struct Model {
    store: MemoryReplayStore,
    limit: usize,
    client_limit: usize,
    windows: [u64; 2],
    floor: u64,
    now: u64,
    /// The latest time that the store may have seen.
    latest: u64,
    proofs: Vec<Proof>,
    /// Records by the last second in which they are needed, with their clients.
    live: BTreeMap<u64, Vec<u8>>,
    /// All records that were ever made: the last second, and the client.
    ever: Vec<(u64, u8)>,
    rejected: u64,
    /// Whether the store must count exactly as many as the model, and not only at most as many.
    exact: bool,
    was_set_back: bool,
    /// What the store has allocated.
    bytes: isize,
    bytes_at_start: isize,
}

fuzz_target!(|input: Input| {
    let mut model = Model::new(&input);
    for step in input.steps.iter().take(300) {
        model.step(*step);
        model.check_usage();
    }
});

impl Model {
    fn new(input: &Input) -> Self {
        let limit = usize::from(input.limit) % 100 + 1;
        let client_limit = input
            .client_limit
            .map_or(usize::MAX, |most| usize::from(most) % 20 + 1);
        let (windows, floor) = match input.verifiers {
            Verifiers::One { window } => ([window; 2], 0),
            Verifiers::OneWithAFloor { window, floor } => ([window; 2], floor.into()),
            Verifiers::Two([one, two]) => ([one, two], u64::from(one.max(two)) + LEEWAY + 1),
        };
        let (store, bytes) = counted(|| {
            MemoryReplayStore::with_limit(limit)
                .with_client_limit(client_limit)
                .with_retention_floor(Duration::from_secs(floor))
        });
        Self {
            store,
            limit,
            client_limit,
            windows: windows.map(u64::from),
            floor,
            now: START,
            latest: 0,
            proofs: Vec::new(),
            live: BTreeMap::new(),
            ever: Vec::new(),
            rejected: 0,
            exact: true,
            was_set_back: false,
            bytes,
            bytes_at_start: bytes,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Pass(seconds) => self.set(self.now + u64::from(seconds % 32)),
            Step::Jump(seconds) => self.set(self.now.saturating_add_signed(seconds.into())),
            Step::Years(years) => {
                self.set(self.now.saturating_add_signed(i64::from(years) * YEAR));
            }
            // Some hundred thousand years.
            Step::SetTo(now) => self.set(now % (1 << 43)),
            Step::SetToStart => self.set(START),
            Step::New(new) => {
                let (number, window) = self.add(new);
                self.claim_in_turn(number, window);
            }
            Step::Again(old) => {
                if let Some((number, window)) = self.find(old, self.now) {
                    self.claim_in_turn(number, window);
                }
            }
            Step::OtherEpoch => {
                let key = key(usize::MAX, 0);
                let [now, expires] = [self.now, self.now + 1].map(Timestamp::from_unix);
                let proof = UsedProof::new(key, now, expires, Epoch::UNKNOWN);
                let claimed = ready(self.store.claim(proof));
                assert_eq!(claimed, Err(ReplayStoreError::OtherStore));
            }
            Step::Race {
                proofs,
                skew,
                third,
            } => {
                let threads = if third { 3 } else { 2 };
                self.race(proofs, &skew.map(|skew| u64::from(skew % 4))[..threads]);
            }
        }
    }

    fn set(&mut self, now: u64) {
        let now = now.min(1 << 44);
        if now < self.now {
            self.was_set_back = true;
            // From now on, a record is not kept into a time whose records were dropped, if only the floor requires it.
            self.exact &= self.floor == 0;
        }
        self.now = now;
    }

    /// The number of a new proof, and the window of its verifier.
    fn add(&mut self, new: NewProof) -> (usize, u64) {
        let window = self.windows[usize::from(new.second_verifier)];
        let age = u64::from(new.age) % (window + LEEWAY + 1);
        self.proofs.push(Proof {
            client: new.client % 8,
            iat: (self.now + LEEWAY).saturating_sub(age),
            accepted: false,
        });
        (self.proofs.len() - 1, window)
    }

    /// A proof that a verifier accepts now, and its window.
    fn find(&self, old: Old, now: u64) -> Option<(usize, u64)> {
        let back = usize::from(old.back).checked_rem(self.proofs.len())?;
        let number = self.proofs.len() - 1 - back;
        let window = self.windows[usize::from(old.second_verifier)];
        self.is_accepted(number, window, now)
            .then_some((number, window))
    }

    fn is_accepted(&self, number: usize, window: u64, now: u64) -> bool {
        let iat = self.proofs[number].iat;
        iat <= now + LEEWAY && now <= iat + window
    }

    fn used_proof(&self, number: usize, window: u64, now: u64) -> UsedProof {
        let proof = self.proofs[number];
        let [now, expires] = [now, proof.iat + window].map(Timestamp::from_unix);
        UsedProof::new(key(number, proof.client), now, expires, self.store.epoch())
    }

    fn claim_in_turn(&mut self, number: usize, window: u64) {
        let proof = self.used_proof(number, window, self.now);
        let (outcome, bytes) = counted(|| ready(self.store.claim(proof)));
        self.bytes += bytes;
        if outcome != Ok(Claim::Replayed) {
            // The store has looked at the time.
            let now = self.now;
            self.live.retain(|second, _| *second >= now);
            self.latest = self.latest.max(now);
        }
        self.check(number, window, outcome);
        self.note(number, window, self.now, outcome);
    }

    /// What a single claim may return.
    fn check(&self, number: usize, window: u64, outcome: Outcome) {
        let proof = self.proofs[number];
        let (live, held) = (self.live_records(), self.held_by(proof.client));
        let share = self.limit / self.live_clients().max(1);
        let fills_up = live >= self.limit / 5 * 4;
        if proof.accepted && self.windows[0] == self.windows[1] {
            let known = matches!(
                outcome,
                Ok(Claim::Replayed) | Err(ReplayStoreError::Unavailable)
            );
            assert!(known, "{outcome:?}: it was used");
        }
        match outcome {
            Ok(Claim::First) if self.exact => {
                assert!(live < self.limit, "{live}");
                assert!(held < self.client_limit, "{held}");
                assert!(!fills_up || held <= share, "{held} of {live}");
            }
            Ok(Claim::First) => {}
            Ok(Claim::Replayed) => assert!(proof.accepted, "it was never used"),
            Err(ReplayStoreError::Full) => assert!(live >= self.limit, "{live}"),
            Err(ReplayStoreError::ClientLimit) => {
                let most = held + self.expired_lately(proof.client);
                let is_over = most >= self.client_limit || fills_up && most > share;
                assert!(
                    is_over || !self.exact,
                    "{held} to {most} of {live}, {share}"
                );
            }
            Err(ReplayStoreError::Unavailable) => {
                let expires = proof.iat + window;
                assert!(expires < self.latest, "nothing that late was dropped");
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// No proof passes twice, whatever else happens.
    fn note(&mut self, number: usize, window: u64, now: u64, outcome: Outcome) {
        let proof = &mut self.proofs[number];
        match outcome {
            Ok(Claim::First) => {
                assert!(!proof.accepted, "a proof passes twice");
                proof.accepted = true;
                let second = (proof.iat + window).max(now + self.floor);
                self.live.entry(second).or_default().push(proof.client);
                self.ever.push((second, proof.client));
            }
            Err(ReplayStoreError::Full | ReplayStoreError::ClientLimit) => self.rejected += 1,
            _ => {}
        }
    }

    /// Each thread claims the same proofs, from another one on, by a clock of its own.
    fn race(&mut self, raced: [Raced; 4], skews: &[u64]) {
        let clocks: Vec<u64> = skews.iter().map(|skew| self.now + skew).collect();
        let mut proofs = Vec::new();
        for raced in raced {
            let found = match raced {
                Raced::New(new) => Some(self.add(new)),
                Raced::Again(old) => self.find(old, self.now),
            };
            let found = found.filter(|(number, window)| {
                clocks
                    .iter()
                    .all(|now| self.is_accepted(*number, *window, *now))
            });
            proofs.extend(found);
        }
        let barrier = Barrier::new(clocks.len());
        let claim_all = |thread: usize| {
            barrier.wait();
            let turns = (0..proofs.len()).map(|at| (at + thread) % proofs.len());
            let claims = turns.map(|at| {
                let (number, window) = proofs[at];
                let proof = self.used_proof(number, window, clocks[thread]);
                let (outcome, bytes) = counted(|| ready(self.store.claim(proof)));
                ((number, window, clocks[thread], outcome), bytes)
            });
            claims.collect::<Vec<_>>()
        };
        let claims: Vec<_> = thread::scope(|scope| {
            let claim_all = &claim_all;
            let threads = (0..clocks.len()).map(|at| scope.spawn(move || claim_all(at)));
            let threads: Vec<_> = threads.collect();
            let joined = threads
                .into_iter()
                .flat_map(|thread| thread.join().expect("no panic"));
            joined.collect()
        });
        self.check_race(&claims, &clocks);
    }

    fn check_race(&mut self, claims: &[RacedClaim], clocks: &[u64]) {
        let same_time = clocks.iter().all(|now| *now == clocks[0]);
        self.exact &= same_time;
        self.was_set_back |= !same_time;
        let looked = claims
            .iter()
            .any(|((.., outcome), _)| *outcome != Ok(Claim::Replayed));
        if looked && same_time {
            self.live.retain(|second, _| *second >= clocks[0]);
        }
        self.latest = self.latest.max(*clocks.iter().max().expect("two threads"));
        for ((number, window, now, outcome), bytes) in claims {
            self.bytes += bytes;
            self.note(*number, *window, *now, *outcome);
        }
        for ((number, window, _, outcome), _) in claims {
            let proof = self.proofs[*number];
            match outcome {
                Ok(Claim::First) => {}
                Ok(Claim::Replayed) => assert!(proof.accepted, "it was never used"),
                Err(ReplayStoreError::Full) => assert!(self.live_records() >= self.limit),
                Err(ReplayStoreError::ClientLimit) => {}
                Err(ReplayStoreError::Unavailable) => {
                    assert!(
                        proof.iat + window < self.latest,
                        "nothing that late was dropped"
                    );
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    fn check_usage(&self) {
        let usage = self.store.usage();
        assert_eq!((usage.limit, usage.rejected), (self.limit, self.rejected));
        assert!(usage.live <= self.limit, "{usage:?}");
        let (live, clients) = (self.live_records(), self.live_clients());
        if self.exact {
            assert_eq!((usage.live, usage.clients), (live, clients));
        } else {
            assert!(
                usage.live <= live && usage.clients <= clients,
                "{usage:?}, {live}, {clients}"
            );
        }
        // About 45 bytes per record, and 100 for each of the 8 clients, in a few allocations that have room for more.
        let most = 4_096 + 150 * self.limit.cast_signed();
        let more = self.bytes - self.bytes_at_start;
        assert!(more <= most, "{more} bytes: {usage:?}");
    }

    fn live_records(&self) -> usize {
        self.live.values().map(Vec::len).sum()
    }

    fn held_by(&self, client: u8) -> usize {
        self.live
            .values()
            .flatten()
            .filter(|of| **of == client)
            .count()
    }

    fn live_clients(&self) -> usize {
        (0..8).filter(|client| self.held_by(*client) > 0).count()
    }

    /// The store counts the records of a client for up to a third longer than it keeps them.
    fn expired_lately(&self, client: u8) -> usize {
        let kept = (self.windows[0].max(self.windows[1]) + LEEWAY).max(self.floor);
        let start = if self.was_set_back {
            0
        } else {
            self.now.saturating_sub(kept / 3 + 1)
        };
        let own = self.ever.iter().filter(|(_, of)| *of == client);
        own.filter(|(second, _)| (start..self.now).contains(second) || self.was_set_back)
            .count()
    }
}

fn key(number: usize, client: u8) -> ReplayKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    ReplayKey::from_parts(bytes, [client; 16])
}

/// A store in memory never waits.
fn ready(claim: impl Future<Output = Outcome>) -> Outcome {
    match pin!(claim).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("it waits"),
    }
}

/// Calls the function, and returns by how many bytes the memory that this thread allocated has grown.
fn counted<T>(call: impl FnOnce() -> T) -> (T, isize) {
    let before = ALLOCATED.get();
    let result = call();
    (result, ALLOCATED.get() - before)
}

thread_local! {
    static ALLOCATED: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all calls go to `System`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + layout.size().cast_signed());
        // SAFETY: the caller meets the requirements of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.set(ALLOCATED.get() - layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
