//! Nonces: how they are required, recognised and renewed, and how their secrets rotate.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tower_dpop::proof::{Epoch, Nonce, NonceError, NonceSource, ProofError};
use tower_dpop::{
    DpopLayer, Freshness, MemoryReplayStore, NonceSecret, NonceSecrets, Rejection, StatelessNonces,
    Timestamp, Verifier,
};

use super::with_nonce;
use common::{
    Attempt, AttemptExt as _, NOW, Outcome, TestClock, required_nonce, verifier, verifier_by,
};

fn secret(byte: u8) -> NonceSecret {
    NonceSecret::from_bytes(&[byte; 32]).unwrap()
}

/// A layer that requires nonces, with the time of the clock.
fn layer_with(nonces: StatelessNonces, clock: &TestClock) -> DpopLayer {
    node_of(&MemoryReplayStore::default(), nonces, clock)
}

/// The same for one of several nodes that share a replay store.
fn node_of(store: &MemoryReplayStore, nonces: StatelessNonces, clock: &TestClock) -> DpopLayer {
    DpopLayer::new(verifier_by(|rules| {
        rules
            .with_clock(clock.read())
            .with_nonces(nonces)
            .with_replay_store(store.clone())
    }))
}

/// Returns the nonce from the response.
#[track_caller]
fn assert_nonce_challenge(outcome: &Outcome, name: &str, reason: NonceError) -> String {
    outcome.assert_reason(name, reason);
    assert_eq!(outcome.status.as_u16(), 401, "{name}");
    assert_eq!(
        outcome.parameter("error").as_deref(),
        Some("use_dpop_nonce"),
        "{name}"
    );
    assert_eq!(
        outcome.cache_control.as_deref(),
        Some("no-store"),
        "{name}: R-8.2.3 X-3"
    );
    let [nonce] = outcome.nonces.as_slice() else {
        panic!("{name}: R-8.2 exactly one nonce: {outcome:?}")
    };
    let well_formed = nonce
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    assert!(!nonce.is_empty() && well_formed, "{name}: R-8.1.1");
    nonce.clone()
}

/// T-20, T-21: the response is the same in each
/// case, and a proof with the nonce from the response is accepted.
#[test]
fn demands_a_new_nonce_for_a_missing_foreign_or_stale_one() {
    let clock = TestClock::at(NOW);
    let store = MemoryReplayStore::default();
    let layer = node_of(&store, StatelessNonces::new(secret(1)), &clock);
    let valid = required_nonce(&layer).unwrap();
    let other_secret = node_of(&store, StatelessNonces::new(secret(2)), &clock);
    let foreign = required_nonce(&other_secret).unwrap();
    let tampered = {
        let swapped = if valid.ends_with('A') { "E" } else { "A" };
        format!("{}{swapped}", &valid[..valid.len() - 1])
    };
    let issued_at = |seconds: u64| {
        clock.set(seconds);
        let nonce = required_nonce(&layer).unwrap();
        clock.set(NOW);
        nonce
    };
    let start = NOW - NOW % 120;
    let rows: Vec<(&str, Value, NonceError)> = vec![
        ("R-8.3: no nonce", Value::Null, NonceError::Missing),
        ("R-8.4: empty", json!(""), NonceError::Foreign),
        ("R-8.4: blank", json!(" "), NonceError::Foreign),
        ("R-8.4: garbage", json!("garbage"), NonceError::Foreign),
        (
            "T-20 R-9.2: another server's",
            json!(foreign),
            NonceError::Foreign,
        ),
        (
            "R-8.4 T-21: tampered with",
            json!(tampered),
            NonceError::Foreign,
        ),
        (
            "T-21: padded",
            json!(format!("{valid}=")),
            NonceError::Foreign,
        ),
        (
            "T-21: cut short",
            json!(valid[..valid.len() - 4]),
            NonceError::Foreign,
        ),
        (
            "T-21: with more characters",
            json!(format!("{valid}AAAA")),
            NonceError::Foreign,
        ),
        (
            "R-8.4: very long",
            json!("A".repeat(4000)),
            NonceError::Foreign,
        ),
        (
            "R-8.4: stale",
            json!(issued_at(start - 121)),
            NonceError::Stale,
        ),
        (
            "R-8.4: from the future",
            json!(issued_at(start + 240)),
            NonceError::InTheFuture,
        ),
    ];
    for (name, nonce, reason) in rows {
        let attempt = Attempt::but(|a| {
            if nonce.is_string() {
                a.proof_claims["nonce"] = nonce;
            }
        });
        let next = assert_nonce_challenge(&attempt.outcome_by(&layer), name, reason);
        with_nonce(&next, NOW)
            .outcome_by(&layer)
            .assert_passed(name);
    }
}

/// D15: a request without a proof gets a nonce at once, which saves a round trip. A proof with another
/// error gets that error.
#[test]
fn a_request_without_a_proof_is_asked_for_a_nonce() {
    let clock = TestClock::at(NOW);
    let layer = layer_with(StatelessNonces::new(secret(1)), &clock);
    let outcome = Attempt::but(|a| a.dpop = Some(vec![])).outcome_by(&layer);
    assert_nonce_challenge(&outcome, "R-7.1.2", NonceError::Missing);
    let outcome = Attempt::but(|a| a.proof_claims["htm"] = json!("POST")).outcome_by(&layer);
    outcome.assert_reason("another error takes precedence", ProofError::Method);
    assert_eq!(outcome.nonces, [""; 0], "no nonce with another error");
}

/// T-17, R-11.1.6: the same jti is accepted after a nonce error, and one nonce is accepted in many
/// proofs.
#[test]
fn a_nonce_error_does_not_use_the_jti() {
    let clock = TestClock::at(NOW);
    let layer = layer_with(StatelessNonces::new(secret(1)), &clock);
    let mut attempt = Attempt::good();
    let nonce = assert_nonce_challenge(&attempt.outcome_by(&layer), "first", NonceError::Missing);
    attempt.proof_claims["nonce"] = json!(nonce);
    attempt
        .outcome_by(&layer)
        .assert_passed("T-17: the same jti with the nonce");
    attempt
        .outcome_by(&layer)
        .assert_reason("the same jti again", ProofError::Replayed);
    for _ in 0..3 {
        with_nonce(&nonce, NOW)
            .outcome_by(&layer)
            .assert_passed("R-11.1.6: the nonce again");
    }
}

/// T-19: RFC 9449 leaves this open. A client may send the nonce of another server.
#[test]
fn a_nonce_that_is_not_required_is_ignored() {
    let outcome = Attempt::but(|a| a.proof_claims["nonce"] = json!("whatever")).outcome();
    outcome.assert_passed("T-19");
    assert_eq!(outcome.nonces, [""; 0]);
}

/// T-21, T-23: a nonce is accepted in the period of its issue and in the next
/// one. In the next one, each successful response has a new nonce.
#[test]
fn an_old_nonce_is_renewed_on_success() {
    let start = NOW - NOW % 120;
    let clock = TestClock::at(start);
    let layer = layer_with(StatelessNonces::new(secret(1)), &clock);
    let first = required_nonce(&layer).unwrap();
    let rows = [
        (0, false),
        (1, false),
        (119, false),
        (120, true),
        (239, true),
    ];
    for (age, renewed) in rows {
        clock.set(start + age);
        let outcome = with_nonce(&first, start + age).outcome_by(&layer);
        outcome.assert_passed(&format!("{age} s old"));
        assert_eq!(outcome.nonces.len(), usize::from(renewed), "{age} s old");
        assert_eq!(
            outcome.cache_control.as_deref(),
            renewed.then_some("no-store"),
            "X-3: {age} s old"
        );
        if let Some(next) = outcome.nonces.first() {
            assert_ne!(*next, first);
            let outcome = with_nonce(next, start + age).outcome_by(&layer);
            outcome.assert_passed("the new nonce");
            assert_eq!(
                outcome.nonces, [""; 0],
                "R-8.2.1: the new nonce is not renewed yet"
            );
        }
    }
    clock.set(start + 240);
    assert_nonce_challenge(
        &with_nonce(&first, start + 240).outcome_by(&layer),
        "240 s old",
        NonceError::Stale,
    );
}

/// T-22, R-8.6: nodes whose clocks differ by no more than the leeway accept each other's nonces.
#[test]
fn nodes_with_the_same_secret_and_store_accept_each_others_nonces() {
    let start = NOW - NOW % 120;
    let store = MemoryReplayStore::default();
    let (early_clock, late_clock) = (TestClock::at(start - 30), TestClock::at(start));
    let (early, late) = (
        node_of(&store, StatelessNonces::new(secret(1)), &early_clock),
        node_of(&store, StatelessNonces::new(secret(1)), &late_clock),
    );
    let nonce_of_late = required_nonce(&late).unwrap();
    with_nonce(&nonce_of_late, start - 30)
        .outcome_by(&early)
        .assert_passed("T-22: from a node 30 s ahead");
    early_clock.set(start - 31);
    assert_nonce_challenge(
        &with_nonce(&nonce_of_late, start - 31).outcome_by(&early),
        "from a node 31 s ahead",
        NonceError::InTheFuture,
    );
    let nonce_of_early = required_nonce(&early).unwrap();
    with_nonce(&nonce_of_early, start)
        .outcome_by(&late)
        .assert_passed("T-22: from a node 31 s behind");
}

#[test]
fn secrets_rotate_without_rejections() {
    let clock = TestClock::at(NOW);
    let store = MemoryReplayStore::default();
    let old = node_of(&store, StatelessNonces::new(secret(1)), &clock);
    let both = StatelessNonces::new(NonceSecrets::from(secret(2)).add_accepted(secret(1)));
    let both = node_of(&store, both, &clock);
    let new = node_of(&store, StatelessNonces::new(secret(2)), &clock);
    let nonce_of = |layer: &DpopLayer| required_nonce(layer).unwrap();
    with_nonce(&nonce_of(&old), NOW)
        .outcome_by(&both)
        .assert_passed("a nonce of the old secret, during the rotation");
    with_nonce(&nonce_of(&both), NOW)
        .outcome_by(&new)
        .assert_passed("a nonce of the new secret, after the rotation");
    assert_nonce_challenge(
        &with_nonce(&nonce_of(&old), NOW).outcome_by(&new),
        "a nonce of the old secret, after the rotation",
        NonceError::Foreign,
    );
}

/// T-22: each step of a rotation, at a server that is not restarted.
#[test]
fn secrets_are_replaced_without_a_restart() {
    let both = |first, second| NonceSecrets::from(secret(first)).add_accepted(secret(second));
    let nonces = StatelessNonces::new(secret(1));
    let layer = layer_with(nonces.clone(), &TestClock::at(NOW));
    let nonce_of = |secrets: NonceSecrets| {
        nonces.replace_secrets(secrets);
        required_nonce(&layer).unwrap()
    };
    let old = required_nonce(&layer).unwrap();
    let new = nonce_of(secret(2).into());
    assert_ne!(old, new);
    let steps = [
        ("before", NonceSecrets::from(secret(1)), &old, [true, false]),
        ("1: both accepted", both(1, 2), &old, [true, true]),
        ("2: the new one issues", both(2, 1), &new, [true, true]),
        (
            "3: the old one is gone",
            secret(2).into(),
            &new,
            [false, true],
        ),
    ];
    for (name, secrets, issued, accepted) in steps {
        assert_eq!(nonce_of(secrets), *issued, "{name}");
        for (nonce, accepted) in [&old, &new].into_iter().zip(accepted) {
            let outcome = with_nonce(nonce, NOW).outcome_by(&layer);
            if accepted {
                outcome.assert_passed(name);
            } else {
                let next = assert_nonce_challenge(&outcome, name, NonceError::Foreign);
                assert_eq!(next, *issued, "{name}");
            }
        }
    }
}

/// At no moment of a replacement is a secret missing that is there before and after it.
#[test]
fn secrets_are_replaced_at_once() {
    let both = |first, second| NonceSecrets::from(secret(first)).add_accepted(secret(second));
    let (old, new) = (both(1, 2), both(2, 1));
    let nonces = StatelessNonces::new(old.clone());
    let layer = layer_with(nonces.clone(), &TestClock::at(NOW));
    let nonce = required_nonce(&layer).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                nonces.replace_secrets(new.clone());
                nonces.replace_secrets(old.clone());
            }
        });
        let rejected = (0..200)
            .map(|_| with_nonce(&nonce, NOW).outcome_by(&layer))
            .find(|outcome| outcome.rejection.is_some());
        done.store(true, Ordering::Relaxed);
        assert!(rejected.is_none(), "{rejected:?}");
    });
}

/// the MAC, which follows the key id and the time, cannot be predicted from other nonces.
#[test]
fn the_mac_differs_by_secret_period_and_epoch() {
    let mut macs = HashSet::new();
    for byte in 0..4 {
        let nonces = StatelessNonces::new(secret(byte));
        for period in 0..64 {
            for epoch in [
                Epoch::UNKNOWN,
                Epoch::of(b"a"),
                Epoch::of(b"b"),
                Epoch::random(),
            ] {
                let issued = Timestamp::from_unix(120 * period);
                let nonce = nonces.issue(issued, epoch);
                assert_eq!(nonces.issued_at(nonce.as_str(), epoch), Some(issued));
                let in_another = nonces.issued_at(nonce.as_str(), Epoch::of(b"another"));
                assert_eq!(in_another, None);
                macs.insert(nonce.as_str()[16..].to_owned());
            }
        }
    }
    assert_eq!(macs.len(), 4 * 64 * 4);
}

/// A source outside this crate.
#[test]
fn a_custom_nonce_source_is_used() {
    struct FixedNonce;

    impl NonceSource for FixedNonce {
        fn issue(&self, _: Timestamp, _: Epoch) -> Nonce {
            "fixed".parse().unwrap()
        }

        fn issued_at(&self, nonce: &str, _: Epoch) -> Option<Timestamp> {
            (nonce == "fixed").then_some(Timestamp::from_unix(NOW))
        }
    }

    let verifier: Verifier = verifier_by(|rules| {
        rules
            .with_nonces(FixedNonce)
            .with_freshness(Freshness::default())
    });
    let layer = DpopLayer::new(verifier);
    assert_eq!(Attempt::good().outcome_by(&layer).nonces, ["fixed"]);
    with_nonce("fixed", NOW)
        .outcome_by(&layer)
        .assert_passed("issued by the source");
    let outcome = with_nonce("other", NOW).outcome_by(&layer);
    assert_eq!(
        outcome.rejection,
        Some(Rejection::Nonce(NonceError::Foreign))
    );
}

/// a custom source cannot issue anything else.
#[test]
fn a_nonce_has_visible_characters_only() {
    for good in ["a", "eyJ7S_zG.eyJH0-Z.HX4w-7v", "!#[]^~"] {
        assert!(good.parse::<Nonce>().is_ok(), "{good}");
    }
    for bad in ["", "a b", "a\"b", "a\\b", "a\r\nb", "ä", "\u{7f}"] {
        assert!(bad.parse::<Nonce>().is_err(), "{bad:?}");
    }
}

/// Another response can carry a nonce, to save the client its first rejection.
#[test]
fn a_nonce_can_be_issued_directly() {
    let nonces = StatelessNonces::new(secret(1));
    let with: Verifier = verifier_by(|rules| rules.with_nonces(nonces));
    let mut headers = http::HeaderMap::new();
    with.issue_nonce().unwrap().write_to(&mut headers);
    let nonce = headers["dpop-nonce"].to_str().unwrap().to_owned();
    assert_eq!(headers["cache-control"], "no-store");
    with_nonce(&nonce, NOW)
        .outcome_by(&DpopLayer::new(with))
        .assert_passed("a nonce from another response");
    let without = verifier();
    assert!(without.issue_nonce().is_none());
}
