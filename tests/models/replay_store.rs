//! `MemoryReplayStore`: three threads, in every order in which they can take their locks.

use loom::thread;
use tower_dpop::proof::{Claim, ReplayKey, ReplayStoreError, UsedProof};
use tower_dpop::{MemoryReplayStore, ReplayStore, Timestamp};

use crate::{block_on, explore};

type Claimed = Result<Claim, ReplayStoreError>;

const NOW: u64 = 1_700_000_000;

/// A claim of a proof by a client in the second `now`. The proof expires in the second `expires`.
#[derive(Clone, Copy)]
struct Use {
    proof: u8,
    client: u8,
    now: u64,
    expires: u64,
}

impl Use {
    fn claim(self, store: &MemoryReplayStore) -> Claimed {
        let key = ReplayKey::from_parts([self.proof; 32], [self.client; 16]);
        let [now, expires] = [self.now, self.expires].map(|s| Timestamp::from_unix(NOW + s));
        block_on(store.claim(UsedProof::new(key, now, expires, store.epoch())))
    }
}

/// Runs the three claims in every order, after the claims in `before`, and checks their outcomes.
fn check(
    store: fn() -> MemoryReplayStore,
    before: &[Use],
    claims: [Use; 3],
    check: fn(&MemoryReplayStore, [Claimed; 3]),
) {
    let before = before.to_vec();
    explore("three claims", 80, move || {
        let store = store();
        for claim in &before {
            assert_eq!(claim.claim(&store), Ok(Claim::First));
        }
        let [one, two, three] = claims;
        let threads = [one, two].map(|claim| {
            let store = store.clone();
            thread::spawn(move || claim.claim(&store))
        });
        let third = three.claim(&store);
        let [one, two] = threads.map(|thread| thread.join().unwrap());
        check(&store, [one, two, third]);
    });
}

/// Two lists of records, and two lists of clients.
fn two_lists() -> MemoryReplayStore {
    MemoryReplayStore::with_limit(64)
}

fn firsts(claims: [Claimed; 3]) -> usize {
    claims
        .iter()
        .filter(|claim| **claim == Ok(Claim::First))
        .count()
}

const A: Use = Use {
    proof: 1,
    client: 1,
    now: 0,
    expires: 9,
};

#[test]
fn one_of_three_claims_of_a_proof_is_first() {
    check(two_lists, &[], [A; 3], |store, claims| {
        assert_eq!(firsts(claims), 1);
        assert_eq!((store.usage().live, store.usage().clients), (1, 1));
    });
}

#[test]
fn claims_of_different_proofs_are_all_counted() {
    let claims = [
        A,
        Use { proof: 2, ..A },
        Use {
            proof: 3,
            client: 2,
            ..A
        },
    ];
    check(two_lists, &[], claims, |store, claims| {
        assert_eq!(firsts(claims), 3);
        assert_eq!((store.usage().live, store.usage().clients), (3, 2));
    });
}

/// Two threads claim a proof in its last second; a third reads a later second, and drops what has expired.
#[test]
fn a_record_that_is_dropped_meanwhile_lets_no_proof_pass_twice() {
    let last = Use { now: 9, ..A };
    let later = Use {
        proof: 4,
        client: 2,
        now: 10,
        expires: 19,
    };
    check(two_lists, &[], [last, last, later], |_, claims| {
        assert!(
            firsts([claims[0], claims[1], Err(ReplayStoreError::Full)]) <= 1,
            "{claims:?}"
        );
        assert_eq!(claims[2], Ok(Claim::First));
    });
    check(two_lists, &[A], [last, later, last], |_, claims| {
        assert_ne!(claims[0], Ok(Claim::First));
        assert_ne!(claims[2], Ok(Claim::First));
    });
}

/// The last place of a full store is given once.
#[test]
fn no_more_records_are_counted_than_the_limit() {
    let claims = [
        A,
        Use { proof: 2, ..A },
        Use {
            proof: 3,
            client: 2,
            ..A
        },
    ];
    let one = || MemoryReplayStore::with_limit(1);
    check(one, &[], claims, |store, claims| {
        assert_eq!(firsts(claims), 1, "{claims:?}");
        assert_eq!((store.usage().live, store.usage().rejected), (1, 2));
    });
}

/// A client's last place is given once.
#[test]
fn no_client_exceeds_its_limit() {
    let claims = [
        A,
        Use { proof: 2, ..A },
        Use {
            proof: 3,
            client: 2,
            ..A
        },
    ];
    let one_each = || two_lists().with_client_limit(1);
    check(one_each, &[], claims, |store, claims| {
        assert_eq!(
            firsts([claims[0], claims[1], Err(ReplayStoreError::Full)]),
            1,
            "{claims:?}"
        );
        assert_eq!(claims[2], Ok(Claim::First));
        assert_eq!((store.usage().live, store.usage().clients), (2, 2));
    });
}
