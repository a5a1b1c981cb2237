//! The replay store alone, on one thread and on two.

use std::hint;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tower_dpop::proof::{Claim, CompactReplayStore, MemoryUsage, ReplayKey, UsedProof};
use tower_dpop::{Algorithm, MemoryReplayStore, ReplayStore, Timestamp};

use crate::parties::{Parties, proof, random_key, ready};
use crate::raw::{Signed, signed};
use crate::results::{Label, Rows, Section, Spread, Time};
use crate::timing::wall_time;

/// Ticks for which a record is kept. The clock ticks whenever a share of the records has entered,
/// and as many leave.
const KEPT_TICKS: usize = 100;

/// When the clock starts.
const START: u64 = 1_700_000_000;

/// Raw verifications beside each round.
const RAW: u16 = 20;

/// Claims of keys that are not there, by a memory that loses as many as it takes.
pub fn section(parties: &Parties, rounds: usize) -> Section {
    let client = parties.client(Algorithm::Es256);
    let heads: Vec<_> = (0..RAW).map(|_| client.head()).collect();
    let raw = signed(heads.iter().map(proof));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads: Vec<usize> = (1..=2).filter(|threads| *threads <= cores).collect();
    let mut rows = Vec::new();
    for (live, name) in [(1_000, "1,000 live"), (1_000_000, "1,000,000 live")] {
        let mut measure = |memory: &dyn Steady, whose: &str| {
            for threads in &threads {
                let plural = if *threads == 1 { "thread" } else { "threads" };
                let label = Label::new(format!("{whose}, {name}, {threads} {plural}"));
                rows.push(memory.measure(label, *threads, rounds, &raw));
            }
            memory.assert_steady();
        };
        let default = MemoryReplayStore::with_limit(2 * live);
        measure(
            &Memory::steady(default, MemoryReplayStore::usage, live),
            "`MemoryReplayStore`",
        );
        let compact = CompactReplayStore::with_limit(2 * live);
        measure(
            &Memory::steady(compact, CompactReplayStore::usage, live),
            "`CompactReplayStore`",
        );
    }
    let text = "\
        `MemoryReplayStore::claim`, and that of `CompactReplayStore`, of a key that is not there, while as many records leave as \
        enter: one claim, as the thread sees it that makes it. Time that passes, not pinned to a \
        core.";
    Section::new("Replay store", text, Rows::Nanos(rows))
}

/// A memory in a steady state, whatever its type.
trait Steady {
    fn measure(&self, label: Label, threads: usize, rounds: usize, raw: &[Signed]) -> Time;

    /// As many records have left as have entered.
    fn assert_steady(&self);
}

/// A memory in a steady state, and its clock.
struct Memory<R> {
    store: R,
    usage: fn(&R) -> MemoryUsage,
    /// Claims so far, which move the clock.
    entered: AtomicUsize,
    live: usize,
}

impl<R: ReplayStore> Memory<R> {
    /// A memory of so many records, as many for each tick to come.
    fn steady(store: R, usage: fn(&R) -> MemoryUsage, live: usize) -> Self {
        let memory = Self {
            store,
            usage,
            entered: AtomicUsize::new(0),
            live,
        };
        memory.claim_all(&keys(live));
        memory
    }

    /// The time of one claim, in microseconds: the mean over threads that begin at the same moment.
    fn claim_on_threads(&self, shares: &[Vec<ReplayKey>]) -> f64 {
        let waiting = AtomicUsize::new(shares.len());
        let claim = |keys: &[ReplayKey]| {
            waiting.fetch_sub(1, Ordering::SeqCst);
            while waiting.load(Ordering::SeqCst) > 0 {
                hint::spin_loop();
            }
            wall_time(|| self.claim_all(keys))
        };
        let time: f64 = thread::scope(|scope| {
            let threads: Vec<_> = shares
                .iter()
                .map(|keys| scope.spawn(|| claim(keys)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no claim panics"))
                .sum()
        });
        let claims: usize = shares.iter().map(Vec::len).sum();
        time / f64::from(u32::try_from(claims).expect("a round is small"))
    }

    /// Claims these keys, each of which is kept for [`KEPT_TICKS`]. All threads go by one clock.
    fn claim_all(&self, keys: &[ReplayKey]) {
        let a_tick = self.live / KEPT_TICKS;
        for key in keys {
            let ticks = self.entered.fetch_add(1, Ordering::Relaxed) / a_tick;
            let now = Timestamp::from_unix(START).plus(ticks as u64);
            let expires = now.plus(KEPT_TICKS as u64 - 1);
            let proof = UsedProof::new(*key, now, expires, self.store.epoch());
            let claim = hint::black_box(ready(self.store.claim(proof)));
            assert_eq!(claim, Ok(Claim::First), "the key was not there");
        }
    }
}

impl<R: ReplayStore> Steady for Memory<R> {
    /// Each thread claims its share of a round's keys, in far less time than a record is kept, so that a
    /// thread that is kept from running is not late with its claim.
    fn measure(&self, label: Label, threads: usize, rounds: usize, raw: &[Signed]) -> Time {
        let claims = (self.live / 2).min(10_000);
        let (mut ratios, mut own, mut yardstick) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let shares: Vec<Vec<ReplayKey>> =
                (0..threads).map(|_| keys(claims / threads)).collect();
            let raw_time = wall_time(|| raw.iter().for_each(Signed::verify)) / f64::from(RAW);
            let time = self.claim_on_threads(&shares);
            ratios.push(time / raw_time);
            own.push(time);
            yardstick.push(raw_time);
        }
        Time {
            label,
            ratio: Spread::of(ratios),
            micros: Spread::of(own).median,
            raw_micros: Spread::of(yardstick).median,
        }
    }

    fn assert_steady(&self) {
        let live = (self.usage)(&self.store).live;
        assert!(
            live.abs_diff(self.live) <= self.live / 5,
            "{live} records live, not {}",
            self.live
        );
    }
}

fn keys(count: usize) -> Vec<ReplayKey> {
    (0..count).map(|_| random_key()).collect()
}
