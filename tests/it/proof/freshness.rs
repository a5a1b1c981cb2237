//! The window of `iat`, and that no proof is accepted after its replay record was dropped.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tower_dpop::proof::{Claim, Epoch, IatError, ProofError, ReplayStoreError, UsedProof};
use tower_dpop::{
    DpopLayer, Freshness, NonceSecret, Rejection, ReplayStore, StatelessNonces, Timestamp,
};

use common::{
    Attempt, AttemptExt as _, KeyExt as _, NOW, TestClock, at, required_nonce, verifier_by,
};

fn outcome_with(freshness: Freshness, iat: Value) -> common::Outcome {
    let layer = DpopLayer::new(verifier_by(|rules| rules.with_freshness(freshness)));
    Attempt::but(|a| a.proof_claims["iat"] = iat).outcome_by(&layer)
}

fn too_old(by: u64) -> Rejection {
    ProofError::Iat(IatError::TooOld { by }).into()
}

fn in_the_future(by: u64) -> Rejection {
    ProofError::Iat(IatError::InTheFuture { by }).into()
}

#[test]
fn the_iat_window_includes_both_ends() {
    let default = Freshness::default();
    let strict = default
        .with_max_age(Duration::from_secs(20))
        .with_leeway(Duration::from_secs(10));
    let (fapi2, mcp) = (Freshness::fapi2(), Freshness::mcp());
    let rows: Vec<(&str, Freshness, i64, Option<Rejection>)> = vec![
        ("T-8: now", default, 0, None),
        ("T-8 T-7: the oldest", default, -90, None),
        ("T-8: older than the oldest", default, -91, Some(too_old(1))),
        ("T-8 T-6 R-11.1.2: the newest", default, 30, None),
        (
            "T-8: newer than the newest",
            default,
            31,
            Some(in_the_future(1)),
        ),
        ("T-7: an hour old", default, -3600, Some(too_old(3510))),
        (
            "T-6: an hour ahead",
            default,
            3600,
            Some(in_the_future(3570)),
        ),
        (
            "T-6: FAPI requires 10 s ahead to be accepted",
            fapi2,
            10,
            None,
        ),
        ("T-7: FAPI accepts 10 s behind", fapi2, -10, None),
        (
            "T-6: FAPI requires more than 60 s ahead to be rejected",
            fapi2,
            61,
            Some(in_the_future(31)),
        ),
        ("T-7: MCP accepts 300 s behind", mcp, -300, None),
        ("T-7: MCP rejects 303 s behind", mcp, -303, Some(too_old(3))),
        ("T-6: MCP accepts 300 s ahead", mcp, 300, None),
        (
            "T-6: MCP rejects 303 s ahead",
            mcp,
            303,
            Some(in_the_future(3)),
        ),
        ("a custom policy, oldest", strict, -30, None),
        ("a custom policy, older", strict, -31, Some(too_old(1))),
        ("a custom policy, newest", strict, 10, None),
        ("a custom policy, newer", strict, 11, Some(in_the_future(1))),
    ];
    for (name, freshness, offset, rejected) in rows {
        let outcome = outcome_with(freshness, json!(NOW.cast_signed() + offset));
        assert_eq!(outcome.rejection, rejected, "{name}");
    }
}

/// T-9, T-10: every form of JSON number is accepted, and none overflows.
#[test]
fn iat_must_be_a_finite_number() {
    let out_of_the_window = |outcome: &common::Outcome| {
        matches!(
            outcome.rejection,
            Some(Rejection::Proof(ProofError::Iat(_)))
        )
    };
    for (name, iat) in [
        ("T-9: a fraction", "1700000000.5"),
        ("T-9: an exponent", "1.7e9"),
        ("T-9: a fraction at the start of the window", "1699999910.0"),
        ("T-9: a fraction at the end of the window", "1700000030.0"),
    ] {
        outcome_with_iat_text(iat).assert_passed(name);
    }
    for (name, iat) in [
        ("T-9: a fraction too old", "1699999909.9"),
        ("T-9: a fraction too far in the future", "1700000030.1"),
        ("T-10: negative", "-1700000000"),
        ("T-10: zero", "0"),
        ("T-10: milliseconds", "1700000000000"),
        ("T-10: the largest integer", "18446744073709551615"),
        ("T-10: the smallest integer", "-9223372036854775808"),
        ("T-10: larger than any integer", "1e300"),
        ("T-10: smaller than any integer", "-1e300"),
    ] {
        assert!(out_of_the_window(&outcome_with_iat_text(iat)), "{name}");
    }
    for (name, iat) in [
        ("T-9: larger than any double", "1e400"),
        ("T-9: a string", r#""1700000000""#),
        ("T-9: true", "true"),
        ("T-9: an array", "[1700000000]"),
        (
            "T-9: an object",
            r#"{"$serde_json::private::Number":"1700000000"}"#,
        ),
        ("T-9: not a number", "NaN"),
    ] {
        outcome_with_iat_text(iat).assert_reason(name, ProofError::PayloadNotJson);
    }
    outcome_with_iat_text("null").assert_reason("T-9: null", ProofError::ClaimMissing);
}

/// Sends a proof whose payload has this JSON text as `iat`.
fn outcome_with_iat_text(iat: &str) -> common::Outcome {
    Attempt::but(|a| {
        let token = a.token();
        a.proof_claims["ath"] = json!(common::ath(&token));
        a.proof_claims["iat"] = json!("HERE");
        let payload = a.proof_claims.to_string().replace(r#""HERE""#, iat);
        a.dpop = Some(vec![
            a.key
                .sign_text(a.proof_header.to_string(), payload)
                .parse()
                .unwrap(),
        ]);
        a.token = Some(token);
    })
    .outcome()
}

/// T-5, R-11.1.5: the policy decides whether the time of the nonce is enough.
#[test]
fn a_nonce_replaces_iat_only_if_the_policy_allows_it() {
    let outcome_with_iat = |freshness: Freshness, iat: u64| {
        let layer = DpopLayer::new(verifier_by(|rules| {
            rules
                .with_freshness(freshness)
                .with_nonces(StatelessNonces::new(NonceSecret::generate()))
        }));
        let nonce = required_nonce(&layer).unwrap();
        let attempt = Attempt::but(|a| {
            a.proof_claims["iat"] = json!(iat);
            a.proof_claims["nonce"] = json!(nonce);
        });
        attempt.outcome_by(&layer)
    };
    assert_eq!(
        outcome_with_iat(Freshness::default(), NOW - 3600).rejection,
        Some(too_old(3510)),
        "T-5: both are checked by default"
    );
    for iat in [NOW - 3600, NOW + 3600, 0] {
        outcome_with_iat(Freshness::fapi2(), iat)
            .assert_passed("T-5: the FAPI conformance suite expects a pass");
        outcome_with_iat(Freshness::default().with_nonce_instead_of_iat(), iat)
            .assert_passed("T-5");
    }
    let without_nonces = outcome_with(Freshness::fapi2(), json!(NOW - 3600));
    assert_eq!(
        without_nonces.rejection,
        Some(too_old(3510)),
        "T-5: without nonces, iat is checked by every policy"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// T-16, R-11.1.3, R-11.1.6: with every policy, a proof that passed once does not pass again at any
    /// later second, while other requests make the store drop expired records.
    #[test]
    fn no_proof_is_accepted_twice(
        max_age in 0_u64..12,
        leeway in 0_u64..12,
        period in 1_u64..10,
        nonces in any::<bool>(),
        instead_of_iat in any::<bool>(),
        offset in -24.0_f64..12.0,
        start in 0_u64..10,
    ) {
        let mut freshness = Freshness::default()
            .with_max_age(Duration::from_secs(max_age))
            .with_leeway(Duration::from_secs(leeway))
            .with_nonce_period(Duration::from_secs(period));
        if instead_of_iat {
            freshness = freshness.with_nonce_instead_of_iat();
        }
        let clock = TestClock::at(NOW + start);
        let layer = DpopLayer::new(verifier_by(|rules| {
            let rules = rules.with_freshness(freshness).with_clock(clock.read());
            if nonces {
                rules.with_nonces(StatelessNonces::new(NonceSecret::generate()))
            } else {
                rules
            }
        }));
        let fresh_nonce = || required_nonce(&layer).unwrap_or_default();

        let nonce = fresh_nonce();
        let iat = f64::from(u32::try_from(NOW + start).unwrap()) + offset;
        let attempt = Attempt::but(|a| {
            a.proof_claims["iat"] = json!(iat);
            a.proof_claims["nonce"] = json!(nonce);
        });
        let mut uses = 0;
        for second in NOW..NOW + start + 2 * (max_age + leeway + period) + 3 {
            // The proof is first used at the start, or at the first later second at which it is accepted.
            if second >= NOW + start {
                clock.set(second);
                if attempt.outcome_by(&layer).status == 200 {
                    uses += 1;
                }
                let other_nonce = fresh_nonce();
                let other = Attempt::but(|a| {
                    a.proof_claims["iat"] = json!(second);
                    a.proof_claims["nonce"] = json!(other_nonce);
                });
                other.outcome_by(&layer).assert_passed("other traffic");
            }
        }
        prop_assert!(uses <= 1, "the proof passed {uses} times");
    }
}

/// If the store dropped the record one second early, the second attempt would pass.
#[test]
fn a_replay_is_detected_through_the_last_accepted_second() {
    for (name, iat, last) in [
        ("iat is now", NOW, NOW + 90),
        ("iat is in the future", NOW + 30, NOW + 120),
        ("iat is 90 s ago", NOW - 90, NOW),
    ] {
        let clock = TestClock::at(NOW);
        let layer = DpopLayer::new(verifier_by(|rules| rules.with_clock(clock.read())));
        let attempt = Attempt::but(|a| a.proof_claims["iat"] = json!(iat));
        attempt.outcome_by(&layer).assert_passed(name);
        clock.set(last);
        attempt
            .outcome_by(&layer)
            .assert_reason(name, ProofError::Replayed);
        clock.set(last + 1);
        assert_eq!(
            attempt.outcome_by(&layer).rejection,
            Some(too_old(1)),
            "{name}"
        );
    }
}

/// The last second for a store: with nonces, that of the check which still applies.
#[test]
fn a_record_is_kept_for_as_long_as_the_time_that_decides() {
    #[derive(Clone, Default)]
    struct Recording(Arc<Mutex<Option<Timestamp>>>);

    impl ReplayStore for Recording {
        async fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
            *self.0.lock().unwrap() = Some(proof.expires);
            Ok(Claim::First)
        }

        fn epoch(&self) -> Epoch {
            Epoch::UNKNOWN
        }
    }

    let both = Freshness::default().with_nonce_period(Duration::from_secs(100));
    let nonce = both.with_nonce_instead_of_iat();
    let issued = NOW - NOW % 100;
    for (name, freshness, nonces, expected) in [
        ("iat, without nonces", both, false, NOW + 10 + 90),
        ("iat, with nonces", both, true, NOW + 10 + 90),
        ("the nonce would decide", nonce, false, NOW + 10 + 90),
        ("the nonce decides", nonce, true, issued + 2 * 100),
    ] {
        let store = Recording::default();
        let layer = DpopLayer::new(verifier_by(|rules| {
            let rules = rules
                .with_freshness(freshness)
                .with_replay_store(store.clone());
            if nonces {
                rules.with_nonces(StatelessNonces::new(NonceSecret::generate()))
            } else {
                rules
            }
        }));
        let attempt = Attempt::but(|a| {
            a.proof_claims["iat"] = json!(NOW + 10);
            a.proof_claims["nonce"] = json!(required_nonce(&layer));
        });
        attempt.outcome_by(&layer).assert_passed(name);
        let expires = store.0.lock().unwrap().unwrap();
        assert_eq!(expires, Timestamp::from(at(expected)), "{name}");
    }
}

/// From the arrival of a proof to the end of the last second in which it is accepted.
#[test]
fn retention_is_the_longest_time_for_which_a_proof_is_accepted() {
    let seconds = Duration::from_secs;
    let default = Freshness::default()
        .with_max_age(seconds(60))
        .with_leeway(seconds(30))
        .with_nonce_period(seconds(120));
    let by_nonce = default.with_nonce_instead_of_iat();
    for (name, freshness, expected) in [
        ("iat is 30 s ahead", default, 30 + 90 + 1),
        ("the nonce is 30 s ahead", by_nonce, 30 + 2 * 120),
        (
            "without nonces, iat decides, and longer than a nonce would",
            by_nonce.with_nonce_period(seconds(7)),
            30 + 90 + 1,
        ),
        (
            "an age and a leeway are at most a day",
            default
                .with_max_age(seconds(86_401))
                .with_leeway(seconds(1_000_000)),
            86_400 + 2 * 86_400 + 1,
        ),
        (
            "the shortest period is one second",
            by_nonce
                .with_max_age(seconds(0))
                .with_leeway(seconds(0))
                .with_nonce_period(seconds(0)),
            2,
        ),
    ] {
        assert_eq!(freshness.retention(), seconds(expected), "{name}");
    }
}
