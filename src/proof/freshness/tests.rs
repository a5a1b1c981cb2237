//! For every policy, `iat` and clock: an accepted proof is remembered for as long as it is accepted.
//!
//! A proof has one last second in its record (`accepted_until`), whenever it is used. So the rule is: in each second
//! that accepts the proof, the record has not ended. Why the cases below stand for all:
//!
//! - `check_iat` compares the floor and the ceiling of `iat` with sums of integers. For one `iat` and one policy, the
//!   seconds that accept are one interval. It is enough to look around its two ends, and at the ends of the clock.
//! - A double is a sign, an exponent and 52 bits. Its floor and ceiling depend on which of the bits are below the
//!   point. Every exponent of either sign is here with no bit, the lowest, the highest, all but the lowest, and all;
//!   and where a double may have a fraction, or is exact, with each bit alone and with all bits up to it.
//! - JSON has no NaN and no infinity; a parser makes neither (T-9 in `tests/it/proof/freshness.rs`).

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::proof::replay::memory::MemoryReplayStore;
use crate::proof::replay::store::{Claim, ReplayKey, ReplayStore, UsedProof};

/// Maximum age and leeway.
const POLICIES: [(u64, u64); 8] = [
    (0, 0),
    (0, 1),
    (1, 0),
    (60, 30),
    (0, 300),
    (LONGEST, 0),
    (0, LONGEST),
    (LONGEST, LONGEST),
];

/// Seconds of the clock at which arithmetic may change.
const CLOCKS: [u64; 12] = [
    0,
    1,
    1_700_000_000,
    (1 << 53) - 1,
    1 << 53,
    (1 << 53) + 1,
    (1 << 60) + 1,
    (1 << 63) - 1,
    1 << 63,
    (1 << 63) + 1,
    u64::MAX - 1,
    u64::MAX,
];

fn policy((max_age, leeway): (u64, u64)) -> Freshness {
    Freshness::default()
        .with_max_age(Duration::from_secs(max_age))
        .with_leeway(Duration::from_secs(leeway))
}

/// The floor and the ceiling of a double, from its bits.
fn exact(iat: f64) -> (i128, i128) {
    let bits = iat.to_bits();
    let exponent = i32::try_from(bits >> 52 & 0x7ff).unwrap();
    let mantissa = bits & ((1 << 52) - 1);
    let hidden = u64::from(exponent != 0) << 52;
    let mantissa = i128::from(mantissa | hidden);
    let shift = exponent.max(1) - 1075;
    let (whole, has_fraction) = match shift {
        // Beyond every sum of the clock and a policy.
        20.. => (i128::from(mantissa != 0) << 72, false),
        0..20 => (mantissa << shift, false),
        -63..0 => (mantissa >> -shift, mantissa & ((1 << -shift) - 1) != 0),
        _ => (0, mantissa != 0),
    };
    let further = whole + i128::from(has_fraction);
    if iat.is_sign_negative() {
        (-further, -whole)
    } else {
        (whole, further)
    }
}

fn doubles() -> Vec<f64> {
    const ALL: u64 = (1 << 52) - 1;
    let every_exponent = (0..2047_u64)
        .flat_map(|exponent| [0, 1, 1 << 51, ALL - 1, ALL].map(|m| exponent << 52 | m));
    // From 2^-2 to 2^66.
    let every_bit = (1021..1090_u64).flat_map(|exponent| {
        (0..52).flat_map(move |bit| {
            [1_u64 << bit, (2 << bit) - 1].map(|mantissa| exponent << 52 | mantissa)
        })
    });
    let positive: Vec<f64> = every_exponent
        .chain(every_bit)
        .map(f64::from_bits)
        .collect();
    let negative = positive.iter().map(|double| -double);
    negative.chain(positive.iter().copied()).collect()
}

/// The seconds of the clock at which a proof with this `iat` may begin or cease to be accepted.
fn seconds_around(freshness: Freshness, iat: f64) -> impl Iterator<Item = u64> {
    let (floor, ceiling) = exact(iat);
    let ends = [
        ceiling - i128::from(freshness.leeway),
        floor + i128::from(freshness.window()),
    ];
    ends.into_iter()
        .flat_map(|end| end - 2..=end + 2)
        .filter_map(|second| u64::try_from(second).ok())
        .chain(CLOCKS)
}

/// Returns how many seconds were tried, and how many accepted the proof.
fn check(freshness: Freshness, iat: f64) -> (usize, usize) {
    let (floor, ceiling) = exact(iat);
    let until = freshness.accepted_until(iat, None);
    let (mut tried, mut accepted) = (0, 0);
    for second in seconds_around(freshness, iat) {
        let (now, at) = (Timestamp::from_unix(second), i128::from(second));
        let oldest = at - i128::from(freshness.window());
        let newest = at + i128::from(freshness.leeway);
        let by = |seconds: i128| u64::try_from(seconds).unwrap_or(u64::MAX);
        match freshness.check_iat(iat, now) {
            Ok(()) => {
                assert!(oldest <= floor && ceiling <= newest, "{iat:e} at {second}");
                assert!(now <= until, "{iat:e}: forgotten before {second}");
                let kept = Duration::from_secs(until.as_unix() - second);
                assert!(kept <= freshness.retention(), "{iat:e} at {second}");
                accepted += 1;
            }
            Err(IatError::TooOld { by: seconds }) => {
                assert!(floor < oldest, "{iat:e} at {second}");
                // What `exact` shortens is beyond every integer of 64 bits.
                assert_eq!(seconds, by(oldest - floor), "{iat:e} at {second}");
            }
            Err(IatError::InTheFuture { by: seconds }) => {
                assert!(newest < ceiling, "{iat:e} at {second}");
                assert_eq!(seconds, by(ceiling - newest), "{iat:e} at {second}");
            }
        }
        tried += 1;
    }
    (tried, accepted)
}

fn check_all(policies: &[(u64, u64)], doubles: &[f64]) -> (usize, usize) {
    let (mut tried, mut accepted) = (0, 0);
    for iat in doubles {
        for ages in policies {
            let counts = check(policy(*ages), *iat);
            tried += counts.0;
            accepted += counts.1;
        }
    }
    (tried, accepted)
}

#[test]
fn an_accepted_iat_is_remembered_whatever_its_exponent_and_bits() {
    let counts = check_all(&POLICIES, &doubles());
    println!("{counts:?} seconds tried and accepted");
    assert!(counts.0 > 4_000_000 && counts.1 > 500_000, "{counts:?}");
}

/// 65,536 doubles in a row at each place where something changes.
#[test]
fn an_accepted_iat_is_remembered_in_dense_neighbourhoods() {
    let middles = [
        1_f64,
        90.0,
        1.7e9,
        2_f64.powi(53),
        2_f64.powi(63),
        2_f64.powi(64),
    ];
    let mut doubles: Vec<f64> = (0..=1 << 15)
        .map(f64::from_bits)
        .flat_map(|double| [-double, double])
        .collect();
    for middle in middles {
        let first = middle.to_bits() - (1 << 15);
        let row = (first..first + (1 << 16)).map(f64::from_bits);
        doubles.extend(row.flat_map(|double| [-double, double]));
    }
    let counts = check_all(&[(60, 30)], &doubles);
    println!("{counts:?} seconds tried and accepted");
    assert!(counts.0 > 5_000_000 && counts.1 > 500_000, "{counts:?}");
}

/// If nonces are required: the policy decides whether `iat` counts as well.
#[test]
fn a_proof_with_an_accepted_nonce_is_remembered() {
    let mut accepted = 0;
    let near = |middle: u64| (middle.saturating_sub(3)..=middle.saturating_add(3)).collect();
    for ages in POLICIES {
        for period in [1, 2, 120, LONGEST] {
            let both = policy(ages).with_nonce_period(Duration::from_secs(period));
            for freshness in [both, both.with_nonce_instead_of_iat()] {
                for issued in CLOCKS.into_iter().flat_map::<Vec<u64>, _>(near) {
                    let ends = [
                        issued.saturating_sub(freshness.leeway),
                        issued.saturating_add(period),
                        issued.saturating_add(2 * period),
                    ];
                    for second in ends.into_iter().chain(CLOCKS).flat_map::<Vec<u64>, _>(near) {
                        accepted += check_with_nonce(freshness, issued, second);
                    }
                }
            }
        }
    }
    println!("{accepted} accepted");
    assert!(accepted > 100_000, "{accepted}");
}

fn check_with_nonce(freshness: Freshness, issued: u64, second: u64) -> usize {
    let [issued, now] = [issued, second].map(Timestamp::from_unix);
    if freshness.check_nonce(issued, now).is_err() {
        return 0;
    }
    let second = seconds(second);
    let iats = [0.0, -1e308, 1e308, second - 0.5, second, second + 0.5];
    let mut accepted = 0;
    for iat in iats {
        if !freshness.decides_by_iat(true) || freshness.check_iat(iat, now).is_ok() {
            let until = freshness.accepted_until(iat, Some(issued));
            assert!(now <= until, "{freshness:?} {issued:?} {now:?} {iat:e}");
            let kept = Duration::from_secs(until.as_unix() - now.as_unix());
            assert!(
                kept <= freshness.retention(),
                "{freshness:?} {issued:?} {now:?} {iat:e}"
            );
            accepted += 1;
        }
    }
    accepted
}

/// The store drops what has expired with each claim, so another proof is claimed before the replay.
#[test]
fn the_store_in_memory_keeps_each_record_to_the_last_second() {
    let mut replays = 0;
    for iat in doubles() {
        for (ages, floor) in [
            ((0, 0), 0),
            ((60, 30), 0),
            ((60, 30), 5),
            ((60, 30), LONGEST),
        ] {
            let freshness = policy(ages);
            let accepts = |second: &u64| {
                let now = Timestamp::from_unix(*second);
                freshness.check_iat(iat, now).is_ok()
            };
            let mut accepted: Vec<u64> = seconds_around(freshness, iat).filter(accepts).collect();
            accepted.sort_unstable();
            let (Some(first), Some(last)) = (accepted.first(), accepted.last()) else {
                continue;
            };
            let store =
                MemoryReplayStore::with_limit(64).with_retention_floor(Duration::from_secs(floor));
            let until = freshness.accepted_until(iat, None);
            assert_eq!(claim(&store, 1, *first, until), Claim::First, "{iat:e}");
            let other = Timestamp::from_unix(last.saturating_add(200));
            assert_eq!(claim(&store, 2, *last, other), Claim::First, "{iat:e}");
            assert_eq!(claim(&store, 1, *last, until), Claim::Replayed, "{iat:e}");
            replays += 1;
        }
    }
    println!("{replays} replays");
    assert!(replays > 10_000, "{replays}");
}

fn claim(store: &MemoryReplayStore, proof: u8, second: u64, expires: Timestamp) -> Claim {
    let key = ReplayKey::from_parts([proof; 32], [proof; 16]);
    let proof = UsedProof::new(key, Timestamp::from_unix(second), expires, store.epoch());
    let claimed = pin!(store.claim(proof)).poll(&mut Context::from_waker(Waker::noop()));
    match claimed {
        Poll::Ready(claimed) => claimed.unwrap(),
        Poll::Pending => panic!("a store in memory never waits"),
    }
}
