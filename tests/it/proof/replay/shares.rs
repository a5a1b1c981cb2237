//! Fair shares of `MemoryReplayStore`: what a client gets beside others, by simulation.

use tower_dpop::proof::{Claim, ReplayKey, ReplayStoreError, UsedProof};
use tower_dpop::{DpopLayer, MemoryReplayStore, Rejection, ReplayStore, Timestamp};

use common::{Attempt, AttemptExt as _, NOW, block_on, verifier_by};

const LIMIT: usize = 10_000;
/// Seconds for which a record is kept.
const KEPT: u64 = 90;

/// What became of the claims of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    first: usize,
    client_limit: usize,
    full: usize,
}

/// A store, and clients that claim proofs of their own.
struct Simulation {
    store: MemoryReplayStore,
    /// Seconds since the start.
    second: u64,
    claims: u64,
    random: u64,
}

impl Simulation {
    fn new(store: MemoryReplayStore) -> Self {
        Self {
            store,
            second: 0,
            claims: 0,
            random: 1,
        }
    }

    /// A claim of a new proof by this client.
    fn claim(&mut self, client: usize) -> Result<Claim, ReplayStoreError> {
        let (mut bytes, mut key) = ([0; 32], [0; 16]);
        self.claims += 1;
        bytes[..8].copy_from_slice(&self.claims.to_be_bytes());
        key[..8].copy_from_slice(&client.to_be_bytes());
        let key = ReplayKey::from_parts(bytes, key);
        let now = Timestamp::from_unix(NOW + self.second);
        let proof = UsedProof::new(key, now, now.plus(KEPT), self.store.epoch());
        block_on(self.store.claim(proof))
    }

    /// A second in which each client makes this many claims, in random order.
    fn second(&mut self, rates: &[usize], tallies: &mut [Tally]) {
        let claims = rates.iter().enumerate();
        let mut clients: Vec<usize> = claims
            .flat_map(|(client, rate)| vec![client; *rate])
            .collect();
        for at in (1..clients.len()).rev() {
            self.random = self
                .random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let other = usize::try_from(self.random >> 33).unwrap() % (at + 1);
            clients.swap(at, other);
        }
        for client in clients {
            let tally = &mut tallies[client];
            match self.claim(client) {
                Ok(Claim::First) => tally.first += 1,
                Err(ReplayStoreError::ClientLimit) => tally.client_limit += 1,
                Err(ReplayStoreError::Full) => tally.full += 1,
                other => panic!("{other:?}"),
            }
            assert!(self.store.usage().live <= LIMIT);
        }
        self.second += 1;
    }

    fn seconds(&mut self, seconds: usize, rates: &[usize]) -> Vec<Tally> {
        let mut tallies = vec![Tally::default(); rates.len()];
        for _ in 0..seconds {
            self.second(rates, &mut tallies);
        }
        tallies
    }
}

/// Each of a thousand clients makes two claims in the time of a record, which need less than 20% of the store in
/// all; one makes as many as it can.
#[test]
fn a_flood_by_one_client_rejects_no_other() {
    let mut simulation = Simulation::new(MemoryReplayStore::with_limit(LIMIT));
    let mut tallies = vec![Tally::default(); 1_001];
    for second in 0..200 {
        let mut rates: Vec<usize> = (0..1_001)
            .map(|client| usize::from(client % 50 == second % 50))
            .collect();
        rates[0] = 200;
        simulation.second(&rates, &mut tallies);
    }
    let (flood, others) = tallies.split_first().unwrap();
    assert!(flood.client_limit > 15_000, "{flood:?}");
    assert!(
        flood.first > LIMIT * 15 / 10,
        "it gets what is left: {flood:?}"
    );
    for (client, tally) in others.iter().enumerate() {
        assert!(tally.first == 4, "{client}: {tally:?}");
        assert_eq!((tally.client_limit, tally.full), (0, 0), "{client}");
    }
}

#[test]
fn a_client_that_is_alone_has_the_whole_store() {
    let mut simulation = Simulation::new(MemoryReplayStore::with_limit(LIMIT));
    let tally = simulation.seconds(202, &[500])[0];
    assert_eq!(tally.client_limit, 0);
    // The store is full after 20 seconds, and again each time that these records have expired.
    assert_eq!(tally.first, 3 * LIMIT, "{tally:?}");
}

#[test]
fn ten_heavy_clients_get_equal_shares() {
    let mut simulation = Simulation::new(MemoryReplayStore::with_limit(LIMIT));
    let mut tallies = vec![Tally::default(); 10];
    for _ in 0..200 {
        simulation.second(&[20; 10], &mut tallies);
        let usage = simulation.store.usage();
        assert_eq!(usage.clients, 10);
    }
    let firsts = tallies.iter().map(|tally| tally.first);
    let (least, most) = (firsts.clone().min().unwrap(), firsts.clone().max().unwrap());
    assert!(most - least <= most / 10, "{least} to {most}: {tallies:?}");
    let total: usize = firsts.sum();
    assert!(total > 2 * LIMIT * 8 / 10, "the store is in use: {total}");
}

/// The store is full of one client's records when others arrive.
#[test]
fn room_that_expires_goes_to_those_who_have_less() {
    let mut simulation = Simulation::new(MemoryReplayStore::with_limit(LIMIT));
    simulation.seconds(120, &[120, 0]);
    assert_eq!(simulation.store.usage().live, LIMIT);
    let mut tallies = vec![Tally::default(); 2];
    simulation.second(&[120, 10], &mut tallies);
    let [heavy, light] = [tallies[0], tallies[1]];
    assert!(light.first > 0, "{tallies:?}");
    assert!(heavy.client_limit > 50, "{tallies:?}");
    let later = simulation.seconds(60, &[120, 10]);
    assert_eq!(
        later[1],
        Tally {
            first: 600,
            ..Tally::default()
        }
    );
    assert_ne!(heavy.first + later[0].first, 0, "{tallies:?} {later:?}");
}

/// With a limit per client, its share does not depend on others.
#[test]
fn no_client_exceeds_its_own_limit() {
    let store = MemoryReplayStore::with_limit(LIMIT).with_client_limit(100);
    let mut simulation = Simulation::new(store);
    let tallies = simulation.seconds(50, &[10, 1]);
    assert_eq!(
        tallies[0],
        Tally {
            first: 100,
            client_limit: 400,
            full: 0
        }
    );
    assert_eq!(
        tallies[1],
        Tally {
            first: 50,
            ..Tally::default()
        }
    );
    let usage = simulation.store.usage();
    assert_eq!((usage.live, usage.clients, usage.rejected), (150, 2, 400));
}

/// Clients are counted while they have records, in any order of expiry, and while the clock is set.
#[test]
fn counts_the_clients_with_records() {
    let store = MemoryReplayStore::with_limit(LIMIT);
    let claim = |client: u8, number: u8, now: u64, expires: u64| {
        let (now, expires) = (
            Timestamp::from_unix(NOW + now),
            Timestamp::from_unix(NOW + expires),
        );
        let key = ReplayKey::from_parts([number; 32], [client; 16]);
        let claim = block_on(store.claim(UsedProof::new(key, now, expires, store.epoch())));
        (claim, store.usage().live, store.usage().clients)
    };
    let first = Ok(Claim::First);
    assert_eq!(claim(1, 1, 0, 50), (first, 1, 1));
    assert_eq!(claim(1, 2, 0, 20), (first, 2, 1), "an earlier end");
    assert_eq!(claim(1, 2, 0, 20), (Ok(Claim::Replayed), 2, 1));
    assert_eq!(claim(2, 3, 0, 30), (first, 3, 2));
    assert_eq!(claim(2, 4, 10, 40), (first, 4, 2), "a later end");
    assert_eq!(
        claim(3, 5, 35, 99),
        (first, 3, 3),
        "the ends of 20 and 30 have passed"
    );
    assert_eq!(
        claim(3, 6, 45, 99),
        (first, 3, 2),
        "the second client has none left"
    );
    assert_eq!(claim(2, 7, 45, 99), (first, 4, 3), "and comes back");
    assert_eq!(
        claim(3, 8, 1_000, 1_090),
        (first, 1, 1),
        "the clock is set forward"
    );
    assert_eq!(claim(3, 9, 10, 100), (first, 2, 1), "and back");
    assert_eq!(claim(1, 10, 10, 101), (first, 3, 2));
}

/// D12: 429 with `Retry-After`, a reason of its own, and no challenge.
#[test]
fn a_client_over_its_share_is_rejected_with_429() {
    let store = MemoryReplayStore::default().with_client_limit(1);
    let layer = DpopLayer::new(verifier_by(|rules| rules.with_replay_store(store.clone())));
    let good = Attempt::good();
    good.outcome_by(&layer).assert_passed("the first");
    let outcome = Attempt::good().outcome_by(&layer);
    outcome.assert_reason("the second", Rejection::TooManyRequests);
    outcome.assert_rejected("the second", 429, None);
    assert_eq!(outcome.retry_after.as_deref(), Some("1"));
    let reason = Rejection::TooManyRequests;
    assert_eq!(
        (reason.reason(), reason.error_code()),
        ("too_many_requests", None)
    );
}

/// A client whose records have all expired is counted by its later ones alone, also if these end earlier because the clock was set back.
#[test]
fn counts_a_client_until_the_last_of_its_later_records() {
    let store = MemoryReplayStore::with_limit(30);
    let claim = |client: u8, number: u8, now: u64, expires: u64| {
        // The start of a period in which no client is dropped.
        let (now, expires) = (
            Timestamp::from_unix(1_600_000_000 + now),
            Timestamp::from_unix(1_600_000_000 + expires),
        );
        let key = ReplayKey::from_parts([number; 32], [client; 16]);
        let claim = block_on(store.claim(UsedProof::new(key, now, expires, store.epoch())));
        assert_eq!(claim, Ok(Claim::First), "{number}");
        store.usage().clients
    };
    assert_eq!(claim(1, 1, 1_600, 1_601), 1);
    assert_eq!(claim(1, 2, 1_602, 1_602), 1, "the first has expired");
    assert_eq!(claim(2, 3, 1_603, 1_690), 1, "the second, too");
    assert_eq!(claim(1, 4, 1_000, 1_005), 2, "the clock is set back");
    assert_eq!(claim(1, 5, 1_001, 1_090), 2);
    assert_eq!(claim(1, 6, 1_010, 1_090), 2, "one record has expired");
}

/// Records that a clock which was ahead has dropped are not counted after the correction.
#[test]
fn a_corrected_clock_gives_a_client_its_room_back() {
    let day = 24 * 60 * 60;
    let store = MemoryReplayStore::with_limit(30).with_client_limit(2);
    let claim = |client: u8, number: u8, now: u64| {
        let now = Timestamp::from_unix(NOW + now);
        let key = ReplayKey::from_parts([number; 32], [client; 16]);
        let proof = UsedProof::new(key, now, now.plus(KEPT), store.epoch());
        (block_on(store.claim(proof)), store.usage().clients)
    };
    let (first, limit) = (Ok(Claim::First), Err(ReplayStoreError::ClientLimit));
    for number in 0..2 {
        assert_eq!(claim(1, number, day), (first, 1), "ahead");
    }
    assert_eq!(claim(1, 2, day), (limit, 1), "its limit");
    assert_eq!(claim(2, 3, day + KEPT + 1), (first, 1), "all have expired");
    for number in 4..6 {
        assert_eq!(claim(1, number, 0), (first, 2), "corrected: {number}");
    }
    assert_eq!(claim(1, 6, 0), (limit, 2), "its limit");
    assert_eq!(claim(2, 7, KEPT + 1), (first, 1));
}

/// The records of a client that never pauses are subtracted as they expire.
#[test]
fn a_client_below_its_limit_is_never_rejected() {
    let store = MemoryReplayStore::with_limit(LIMIT).with_client_limit(2 * 120);
    let mut simulation = Simulation::new(store);
    let tally = simulation.seconds(1_000, &[2])[0];
    assert_eq!((tally.first, tally.client_limit), (2_000, 0), "{tally:?}");
}
