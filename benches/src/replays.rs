//! The replay store alone, on one thread and on two.

use std::hint;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use moka::sync::Cache;
use tower_dpop::proof::{Claim, Epoch, ReplayKey, ReplayStoreError, UsedProof};
use tower_dpop::{Algorithm, MemoryReplayStore, ReplayStore, Timestamp};

use crate::parties::{Parties, proof, random_key, ready};
use crate::raw::{Signed, signed};
use crate::results::{Label, Rows, Section, Spread, Time};
use crate::timing::{on_threads, wall_time};

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
    for (live, clients, name) in [
        (1_000, 10, "1,000 records of 10 clients"),
        (1_000_000, 1, "1,000,000 records of one client"),
        (1_000_000, 100, "1,000,000 records of 100 clients"),
        (1_000_000, 10_000, "1,000,000 records of 10,000 clients"),
        (1_000_000, 1_000_000, "1,000,000 records of as many clients"),
    ] {
        let mut measure = |memory: &dyn Steady, whose: &str| {
            for threads in &threads {
                let plural = if *threads == 1 { "thread" } else { "threads" };
                let label = Label::new(format!("{whose}, {name}, {threads} {plural}"));
                rows.push(memory.measure(label, *threads, rounds, &raw));
            }
            memory.assert_steady();
        };
        let store = MemoryReplayStore::with_limit(2 * live);
        let live_now: fn(&MemoryReplayStore) -> usize = |store| store.usage().live;
        let memory = Memory::steady(store, live_now, live, clients);
        measure(&memory, "`MemoryReplayStore`");
        drop(memory);
        if clients == 10 || clients == 10_000 {
            let cache = MokaCache(Cache::new(live as u64));
            let memory = Memory::steady(cache, MokaCache::live, live, clients);
            measure(&memory, "a cache of proofs in `moka`");
        }
    }
    let text = "\
        A claim of a proof that was not used, while as many records leave as enter: one claim, as the thread sees it that makes \
        it. Time that passes, not pinned to a core. The cache in `moka` drops its oldest proof when it is full, so it is \
        no replay store; it counts no clients.";
    Section::new("Replay store", text, Rows::Nanos(rows))
}

/// A cache of proofs, as one would write it.
struct MokaCache(Cache<[u8; 16], ()>);

impl MokaCache {
    fn live(&self) -> usize {
        self.0.run_pending_tasks();
        usize::try_from(self.0.entry_count()).expect("a cache fits into memory")
    }
}

impl ReplayStore for MokaCache {
    async fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
        let entry = self.0.entry(proof.key.half()).or_insert(());
        Ok(if entry.is_fresh() {
            Claim::First
        } else {
            Claim::Replayed
        })
    }

    fn epoch(&self) -> Epoch {
        Epoch::UNKNOWN
    }
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
    live_now: fn(&R) -> usize,
    /// Claims so far, which move the clock.
    entered: AtomicUsize,
    live: usize,
    clients: usize,
}

impl<R: ReplayStore> Memory<R> {
    /// A memory of so many records, as many for each tick to come.
    fn steady(store: R, live_now: fn(&R) -> usize, live: usize, clients: usize) -> Self {
        let memory = Self {
            store,
            live_now,
            entered: AtomicUsize::new(0),
            live,
            clients,
        };
        memory.claim_all(&keys(live, clients));
        memory
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
            let shares: Vec<Vec<ReplayKey>> = (0..threads)
                .map(|_| keys(claims / threads, self.clients))
                .collect();
            let raw_time = wall_time(|| raw.iter().for_each(Signed::verify)) / f64::from(RAW);
            let time = on_threads(&shares, |keys| self.claim_all(keys));
            let time = time / f64::from(u32::try_from(shares[0].len()).expect("a round is small"));
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
        let live = (self.live_now)(&self.store);
        assert!(
            live.abs_diff(self.live) <= self.live / 5,
            "{live} records live, not {}",
            self.live
        );
    }
}

/// Keys of proofs by these clients, at random.
fn keys(count: usize, clients: usize) -> Vec<ReplayKey> {
    let clients = u128::try_from(clients).expect("there are not so many");
    let of_client = |key: ReplayKey| {
        let number = u128::from_be_bytes(key.client()) % clients;
        let client = number.to_be_bytes();
        ReplayKey::from_parts(*key.as_bytes(), client)
    };
    (0..count).map(|_| of_client(random_key())).collect()
}
