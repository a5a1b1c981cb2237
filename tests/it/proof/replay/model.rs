//! `MemoryReplayStore` beside a model that keeps every record: random claims, while the clock runs and is set.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tower_dpop::proof::{Claim, ReplayKey, ReplayStoreError, UsedProof};
use tower_dpop::{MemoryReplayStore, ReplayStore, Timestamp};

use common::NOW;

const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;
const YEAR: i64 = 365 * DAY;

/// How far the clock is off, from time to time.
const OFFSETS: [i64; 11] = [
    0,
    1,
    -2,
    20,
    -45,
    3 * MINUTE,
    -5 * MINUTE,
    DAY,
    -DAY,
    20 * YEAR,
    -50 * YEAR,
];

/// One run.
#[derive(Clone, Copy, Debug)]
struct Setting {
    limit: usize,
    client_limit: usize,
    clients: u64,
    floor: u64,
    /// Of a verifier; another one that shares the store accepts a proof until the floor has passed.
    longest: u64,
    /// How many claims are made before the clock is set, on average. 0: it only runs forward.
    steady: u64,
}

/// A proof that was accepted.
#[derive(Clone, Copy)]
struct Used {
    client: u64,
    expires: u64,
    /// The last second in which any verifier accepts it.
    kept_until: u64,
}

struct Model {
    setting: Setting,
    store: MemoryReplayStore,
    random: u64,
    /// The true time, and how far the clock is off.
    time: u64,
    offset: i64,
    /// All proofs that were ever accepted, by number.
    used: Vec<Used>,
    /// The records that count: those that have not expired by any `now` since they were made, by their last second and client.
    live: BTreeMap<(u64, u64), usize>,
    rejected: u64,
    tally: BTreeMap<&'static str, u64>,
}

impl Setting {
    /// Whether records are counted as long as the model counts them. After the clock was set back, a record does not
    /// last into a time whose records were dropped, if only the floor would make it.
    fn counts_exactly(&self) -> bool {
        self.floor == 0 || self.steady == 0
    }
}

impl Model {
    fn new(setting: Setting, seed: u64) -> Self {
        let store = MemoryReplayStore::with_limit(setting.limit)
            .with_client_limit(setting.client_limit)
            .with_retention_floor(Duration::from_secs(setting.floor));
        Self {
            setting,
            store,
            random: seed,
            time: NOW,
            offset: 0,
            used: Vec::new(),
            live: BTreeMap::new(),
            rejected: 0,
            tally: BTreeMap::new(),
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.random >> 33) % end
    }

    fn now(&self) -> u64 {
        self.time.checked_add_signed(self.offset).unwrap()
    }

    fn pass_time(&mut self) {
        match self.below(40) {
            0..8 => self.time += 1,
            8 => self.time += self.below(40),
            _ => {}
        }
        if self.setting.steady > 0 && self.below(self.setting.steady) == 0 {
            // Mostly a short way, so that the clock comes to the same times again.
            let all = OFFSETS.len() as u64;
            let choice = match self.below(4) {
                0 => self.below(all),
                _ => self.below(all - 4),
            };
            self.offset = OFFSETS[usize::try_from(choice).unwrap()];
        }
    }

    fn step(&mut self) {
        self.pass_time();
        let now = self.now();
        // One of the last proofs again, if it is accepted now, or a new one.
        let (number, client, expires) = self.again(now).unwrap_or_else(|| {
            let (client, life) = (self.a_client(), self.below(self.setting.longest + 1));
            (self.used.len(), client, now + life)
        });
        let result = self.claim(number, client, now, expires);
        *self.tally.entry(name(result)).or_default() += 1;
        if result != Ok(Claim::Replayed) {
            // The store has looked at the time.
            self.live.retain(|(kept_until, _), _| *kept_until >= now);
        }
        self.check(number, client, expires, result);
        if result == Ok(Claim::First) {
            let kept_until = expires.max(now + self.setting.floor);
            *self.live.entry((kept_until, client)).or_default() += 1;
            let used = Used {
                client,
                expires,
                kept_until,
            };
            match self.used.get_mut(number) {
                Some(again) => *again = used,
                None => self.used.push(used),
            }
        }
        self.check_counts();
    }

    fn again(&mut self, now: u64) -> Option<(usize, u64, u64)> {
        if self.used.is_empty() || self.below(3) > 0 {
            return None;
        }
        let recent = match self.below(2) {
            0 => self.used.len().min(20),
            _ => self.used.len(),
        };
        let back = self.below(recent as u64);
        let number = self.used.len() - 1 - usize::try_from(back).unwrap();
        let used = self.used[number];
        let expires = match self.below(3) {
            0 => used.kept_until,
            _ => used.expires,
        };
        (now <= expires && expires <= now + 100 * 365).then_some((number, used.client, expires))
    }

    /// A few make most of the claims.
    fn a_client(&mut self) -> u64 {
        match self.below(2) {
            0 => self.below(self.setting.clients.min(3)),
            _ => self.below(self.setting.clients),
        }
    }

    fn claim(
        &self,
        number: usize,
        client: u64,
        now: u64,
        expires: u64,
    ) -> Result<Claim, ReplayStoreError> {
        let (mut bytes, mut key) = ([0; 32], [0; 16]);
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        key[..8].copy_from_slice(&client.to_be_bytes());
        let [now, expires] = [now, expires].map(Timestamp::from_unix);
        let key = ReplayKey::from_parts(bytes, key);
        let proof = UsedProof::new(key, now, expires, self.store.epoch());
        match pin!(self.store.claim(proof)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(claimed) => claimed,
            Poll::Pending => panic!("a store in memory never waits"),
        }
    }

    fn check(
        &mut self,
        number: usize,
        client: u64,
        expires: u64,
        result: Result<Claim, ReplayStoreError>,
    ) {
        let setting = self.setting;
        let (live, held) = (self.live_records(), self.held_by(client));
        let share = setting.limit / self.live_clients().max(1);
        let fills_up = live >= setting.limit / 5 * 4;
        let used = self.used.get(number);
        match result {
            Ok(Claim::First) => {
                let is_replay = used.is_some_and(|used| expires <= used.kept_until);
                assert!(!is_replay, "a proof passes twice: {setting:?}");
                if !setting.counts_exactly() {
                    return;
                }
                assert!(live < setting.limit, "{setting:?}");
                assert!(held < setting.client_limit, "{setting:?}");
                assert!(!fills_up || held <= share, "{held} of {live}: {setting:?}");
            }
            Ok(Claim::Replayed) => assert!(used.is_some(), "{setting:?}"),
            Err(ReplayStoreError::ClientLimit) => {
                self.rejected += 1;
                // It counts records for up to a third longer.
                let most = held + self.expired_lately(client);
                let is_over = most >= setting.client_limit || fills_up && most > share;
                let is_exact = setting.counts_exactly();
                assert!(
                    is_over || !is_exact,
                    "{held} to {most} of {live}, {share}: {setting:?}"
                );
            }
            Err(ReplayStoreError::Full) => {
                self.rejected += 1;
                assert!(live >= setting.limit, "{live}: {setting:?}");
            }
            Err(ReplayStoreError::Unavailable) => {
                assert!(setting.steady > 0, "the clock runs forward: {setting:?}");
            }
            other => panic!("{other:?}: {setting:?}"),
        }
    }

    fn check_counts(&self) {
        let usage = self.store.usage();
        assert_eq!(usage.rejected, self.rejected, "{:?}", self.setting);
        let (live, clients) = (self.live_records(), self.live_clients());
        if self.setting.counts_exactly() {
            let counted = (usage.live, usage.clients);
            assert_eq!(counted, (live, clients), "{:?}", self.setting);
        } else {
            let is_within = usage.live <= live && usage.clients <= clients;
            assert!(
                is_within,
                "{usage:?}, {live}, {clients}: {:?}",
                self.setting
            );
        }
    }

    fn live_records(&self) -> usize {
        self.live.values().sum()
    }

    fn held_by(&self, client: u64) -> usize {
        let own = self.live.iter().filter(|((_, of), _)| *of == client);
        own.map(|(_, records)| *records).sum()
    }

    fn live_clients(&self) -> usize {
        let mut clients: Vec<u64> = self.live.keys().map(|(_, client)| *client).collect();
        clients.sort_unstable();
        clients.dedup();
        clients.len()
    }

    /// The records of this client that have expired within a third of the time for which it is kept.
    fn expired_lately(&self, client: u64) -> usize {
        let kept = self.setting.longest.max(self.setting.floor);
        let lately = self.now().saturating_sub(kept / 3 + 1)..self.now();
        let own = self.used.iter().filter(|used| used.client == client);
        if self.setting.steady > 0 {
            // Groups of records that are far apart can be joined.
            return own.count();
        }
        own.filter(|used| lately.contains(&used.kept_until)).count()
    }
}

const fn name(result: Result<Claim, ReplayStoreError>) -> &'static str {
    match result {
        Ok(Claim::First) => "first",
        Ok(Claim::Replayed) => "replayed",
        Err(ReplayStoreError::ClientLimit) => "client limit",
        Err(ReplayStoreError::Full) => "full",
        Err(_) => "unavailable",
    }
}

#[test]
fn claims_agree_with_a_model_that_keeps_every_record() {
    let mut tally: BTreeMap<&str, u64> = BTreeMap::new();
    let mut seed = 1;
    for (limit, client_limit, clients) in [
        (30, usize::MAX, 2),
        (64, usize::MAX, 40),
        (300, 40, 5),
        (300, usize::MAX, 100),
    ] {
        for (floor, longest) in [(0, 90), (120, 30)] {
            for steady in [0, 20, 100] {
                seed += 1;
                let setting = Setting {
                    limit,
                    client_limit,
                    clients,
                    floor,
                    longest,
                    steady,
                };
                let mut model = Model::new(setting, seed);
                for _ in 0..2_000 {
                    model.step();
                }
                for (name, count) in model.tally {
                    *tally.entry(name).or_default() += count;
                }
            }
        }
    }
    for name in ["first", "replayed", "client limit", "full", "unavailable"] {
        assert!(tally.get(name) > Some(&100), "{name}: {tally:?}");
    }
}
