//! Nonces: demanded, recognised, renewed, rotated.

use std::collections::HashSet;

use serde_json::{Value, json};
use tower_dpop::proof::{InvalidNonceSecret, Nonce, NonceError, NonceSource, ProofError};
use tower_dpop::{
    DpopLayer, Freshness, NonceSecret, Rejection, StatelessNonces, Timestamp, Verifier,
};

use super::with_nonce;
use common::{
    Attempt, AttemptExt as _, NOW, Outcome, TestClock, required_nonce, verifier, verifier_by,
};

fn secret(byte: u8) -> NonceSecret {
    NonceSecret::from_bytes(&[byte; 32]).unwrap()
}

/// A server under a shared secret at a time of the test's choice.
fn server(nonces: StatelessNonces, clock: &TestClock) -> DpopLayer {
    DpopLayer::new(verifier_by(|rules| {
        rules.with_clock(clock.read()).with_nonces(nonces)
    }))
}

#[track_caller]
fn demanded(outcome: &Outcome, name: &str, reason: NonceError) -> String {
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

/// T-20, T-21: one answer to all of them, and
/// what it hands out works.
#[test]
fn demands_a_nonce_instead_of_a_missing_foreign_or_stale_one() {
    let clock = TestClock::at(NOW);
    let layer = server(StatelessNonces::new(secret(1)), &clock);
    let ours = required_nonce(&layer).unwrap();
    let foreign = required_nonce(&server(StatelessNonces::new(secret(2)), &clock)).unwrap();
    let tampered = {
        let swapped = if ours.ends_with('A') { "E" } else { "A" };
        format!("{}{swapped}", &ours[..ours.len() - 1])
    };
    let of_time = |seconds: u64| {
        clock.set(seconds);
        let nonce = required_nonce(&layer).unwrap();
        clock.set(NOW);
        nonce
    };
    let start = NOW - NOW % 120;
    let rows: Vec<(&str, Value, NonceError)> = vec![
        ("R-8.3: none", Value::Null, NonceError::Missing),
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
            json!(format!("{ours}=")),
            NonceError::Foreign,
        ),
        (
            "T-21: a prefix",
            json!(ours[..ours.len() - 4]),
            NonceError::Foreign,
        ),
        (
            "T-21: with a tail",
            json!(format!("{ours}AAAA")),
            NonceError::Foreign,
        ),
        (
            "R-8.4: very long",
            json!("A".repeat(4000)),
            NonceError::Foreign,
        ),
        (
            "R-8.4: stale",
            json!(of_time(start - 121)),
            NonceError::Stale,
        ),
        (
            "R-8.4: from the future",
            json!(of_time(start + 240)),
            NonceError::InTheFuture,
        ),
    ];
    for (name, nonce, reason) in rows {
        let attempt = Attempt::but(|a| {
            if nonce.is_string() {
                a.proof_claims["nonce"] = nonce;
            }
        });
        let next = demanded(&attempt.outcome_by(&layer), name, reason);
        with_nonce(&next, NOW)
            .outcome_by(&layer)
            .assert_passed(name);
    }
}

/// D15: a token without a proof is told of the nonce at once, and a proof that is bad in another
/// way is told of that.
#[test]
fn a_token_without_a_proof_is_asked_for_a_nonce() {
    let clock = TestClock::at(NOW);
    let layer = server(StatelessNonces::new(secret(1)), &clock);
    let answer = Attempt::but(|a| a.dpop = Some(vec![])).outcome_by(&layer);
    demanded(&answer, "R-7.1.2", NonceError::Missing);
    let answer = Attempt::but(|a| a.proof_claims["htm"] = json!("POST")).outcome_by(&layer);
    answer.assert_reason("another fault first", ProofError::Method);
    assert_eq!(answer.nonces, [""; 0], "no nonce where none is demanded");
}

/// T-17, R-11.1.6: the same jti may come again after a nonce was demanded, and one nonce serves
/// many proofs.
#[test]
fn a_nonce_failure_spends_no_jti() {
    let clock = TestClock::at(NOW);
    let layer = server(StatelessNonces::new(secret(1)), &clock);
    let mut attempt = Attempt::good();
    let nonce = demanded(&attempt.outcome_by(&layer), "first", NonceError::Missing);
    attempt.proof_claims["nonce"] = json!(nonce);
    attempt
        .outcome_by(&layer)
        .assert_passed("T-17: the same jti with the nonce");
    attempt
        .outcome_by(&layer)
        .assert_reason("but only once", ProofError::Replayed);
    for _ in 0..3 {
        with_nonce(&nonce, NOW)
            .outcome_by(&layer)
            .assert_passed("R-11.1.6: the nonce again");
    }
}

/// T-19: RFC 9449 leaves it open; a client that talks to two servers is not punished for it.
#[test]
fn a_nonce_that_nobody_asked_for_is_ignored() {
    let answer = Attempt::but(|a| a.proof_claims["nonce"] = json!("whatever")).outcome();
    answer.assert_passed("T-19");
    assert_eq!(answer.nonces, [""; 0]);
}

/// T-21, T-23: a nonce lives for the period of its issue and the next, and
/// in the next a success brings its successor.
#[test]
fn a_success_near_the_end_of_a_nonce_brings_the_next() {
    let start = NOW - NOW % 120;
    let clock = TestClock::at(start);
    let layer = server(StatelessNonces::new(secret(1)), &clock);
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
        let answer = with_nonce(&first, start + age).outcome_by(&layer);
        answer.assert_passed(&format!("{age} s old"));
        assert_eq!(answer.nonces.len(), usize::from(renewed), "{age} s old");
        assert_eq!(
            answer.cache_control.as_deref(),
            renewed.then_some("no-store"),
            "X-3: {age} s old"
        );
        if let Some(next) = answer.nonces.first() {
            assert_ne!(*next, first);
            let answer = with_nonce(next, start + age).outcome_by(&layer);
            answer.assert_passed("the successor");
            assert_eq!(answer.nonces, [""; 0], "R-8.2.1: the successor is young");
        }
    }
    clock.set(start + 240);
    demanded(
        &with_nonce(&first, start + 240).outcome_by(&layer),
        "240 s old",
        NonceError::Stale,
    );
}

/// T-22, R-8.6: nodes whose clocks differ by no more than the leeway accept each other's nonces.
#[test]
fn nodes_with_the_same_secret_accept_each_others_nonces() {
    let start = NOW - NOW % 120;
    let (early, late) = (TestClock::at(start - 30), TestClock::at(start));
    let (one, other) = (
        server(StatelessNonces::new(secret(1)), &early),
        server(StatelessNonces::new(secret(1)), &late),
    );
    let of_late = required_nonce(&other).unwrap();
    with_nonce(&of_late, start - 30)
        .outcome_by(&one)
        .assert_passed("T-22: from a node 30 s ahead");
    early.set(start - 31);
    demanded(
        &with_nonce(&of_late, start - 31).outcome_by(&one),
        "31 s ahead",
        NonceError::InTheFuture,
    );
    let of_early = required_nonce(&one).unwrap();
    with_nonce(&of_early, start)
        .outcome_by(&other)
        .assert_passed("T-22: from a node behind");
}

#[test]
fn secrets_rotate_without_a_rejection() {
    let clock = TestClock::at(NOW);
    let old = server(StatelessNonces::new(secret(1)), &clock);
    let both = server(
        StatelessNonces::new(secret(2)).add_accepted(secret(1)),
        &clock,
    );
    let new = server(StatelessNonces::new(secret(2)), &clock);
    let of = |layer: &DpopLayer| required_nonce(layer).unwrap();
    with_nonce(&of(&old), NOW)
        .outcome_by(&both)
        .assert_passed("the old secret's, during the rotation");
    with_nonce(&of(&both), NOW)
        .outcome_by(&new)
        .assert_passed("the new secret's, after it");
    demanded(
        &with_nonce(&of(&old), NOW).outcome_by(&new),
        "the old secret's, after it",
        NonceError::Foreign,
    );
}

/// without the secret, the nonce of no period follows from those of others.
#[test]
fn nonces_differ_by_secret_and_period_in_every_part_but_the_time() {
    let tags: HashSet<String> = (0..4_u8)
        .flat_map(|byte| (0..64_u64).map(move |period| (byte, period)))
        .map(|(byte, period)| {
            let layer = server(
                StatelessNonces::new(secret(byte)),
                &TestClock::at(NOW + 120 * period),
            );
            let nonce = required_nonce(&layer).unwrap();
            nonce[16..].to_owned()
        })
        .collect();
    assert_eq!(tags.len(), 256);
}

#[test]
fn a_secret_that_is_too_short_is_rejected_at_start_up() {
    for length in [0, 1, 31] {
        assert_eq!(
            NonceSecret::from_bytes(&vec![7; length]).unwrap_err(),
            InvalidNonceSecret::TooShort
        );
    }
    assert!(NonceSecret::from_bytes(&[7; 32]).is_ok());
    assert!(NonceSecret::from_bytes(&[7; 200]).is_ok());
}

/// A source that remembers, as an example of one that is not ours.
#[test]
fn a_source_of_ones_own_is_asked() {
    struct Fixed;

    impl NonceSource for Fixed {
        fn issue(&self, _issued: Timestamp) -> Nonce {
            "fixed".parse().unwrap()
        }

        fn issued_at(&self, nonce: &str) -> Option<Timestamp> {
            (nonce == "fixed").then_some(Timestamp::from_unix(NOW))
        }
    }

    let verifier: Verifier = verifier_by(|rules| {
        rules
            .with_nonces(Fixed)
            .with_freshness(Freshness::default())
    });
    let layer = DpopLayer::new(verifier);
    assert_eq!(Attempt::good().outcome_by(&layer).nonces, ["fixed"]);
    with_nonce("fixed", NOW)
        .outcome_by(&layer)
        .assert_passed("known to the source");
    let outcome = with_nonce("other", NOW).outcome_by(&layer);
    assert_eq!(
        outcome.rejection,
        Some(Rejection::Nonce(NonceError::Foreign))
    );
}

/// what a source of one's own may hand out.
#[test]
fn a_nonce_has_visible_characters_only() {
    for good in ["a", "eyJ7S_zG.eyJH0-Z.HX4w-7v", "!#[]^~"] {
        assert!(good.parse::<Nonce>().is_ok(), "{good}");
    }
    for bad in ["", "a b", "a\"b", "a\\b", "a\r\nb", "ä", "\u{7f}"] {
        assert!(bad.parse::<Nonce>().is_err(), "{bad:?}");
    }
}

/// Nonces can be handed out elsewhere, to spare a client its first rejection.
#[test]
fn a_nonce_can_be_asked_for_directly() {
    let nonces = StatelessNonces::new(secret(1));
    let with: Verifier = verifier_by(|rules| rules.with_nonces(nonces));
    let mut headers = http::HeaderMap::new();
    with.issue_nonce().unwrap().write_to(&mut headers);
    let nonce = headers["dpop-nonce"].to_str().unwrap().to_owned();
    assert_eq!(headers["cache-control"], "no-store");
    with_nonce(&nonce, NOW)
        .outcome_by(&DpopLayer::new(with))
        .assert_passed("handed out elsewhere");
    let without = verifier();
    assert!(without.issue_nonce().is_none());
}
