//! Keys that recur decide as they did the first time.
//!
//! For a P-256 key by which requests have passed, the server computes multiples of its point, and
//! verifies its next proofs by them: after the ninth request, and, where the multiples were dropped
//! since, after the 17th, the 33rd and so on (`src/jose/recurring_key.rs`). Nothing shows from outside
//! which way a proof was verified, so these tests go by the number of requests: whatever is asked is
//! asked of a key that is new, that is about to have a table, and that has had one for a while.

use std::thread;

use common::{Attempt, AttemptExt as _, Key, KeyExt as _, Outcome, verifier, verifier_by};
use p256::ecdsa::Signature;
use serde_json::json;
use tower_dpop::jose::InvalidJwk;
use tower_dpop::proof::ProofError;
use tower_dpop::resource::BindingError;
use tower_dpop::{Algorithm, Algorithms, DpopLayer, Rejection};

use super::recurring_key::{PASSED, with_member, with_signature};

type Layer = DpopLayer;

/// Memory for one table, with what is kept beside it.
const ONE_TABLE: u64 = 12_800;

/// By how much memory may go to tables.
fn layers() -> [(&'static str, Layer); 6] {
    let with = |bytes| DpopLayer::new(verifier().with_precomputed_keys(bytes));
    [
        ("by default", DpopLayer::new(verifier())),
        (
            "without",
            DpopLayer::new(verifier().without_precomputed_keys()),
        ),
        ("no memory", with(0)),
        ("an byte less than one table", with(ONE_TABLE - 1)),
        ("one table", with(ONE_TABLE)),
        ("two tables", with(2 * ONE_TABLE)),
    ]
}

#[track_caller]
fn pass(layer: &Layer, key: &Key, times: usize, name: &str) {
    for time in 0..times {
        let outcome = Attempt::with_key(key.clone()).outcome_by(layer);
        outcome.assert_passed(&format!("{name}, request {time}"));
    }
}

/// (name, how a good request is changed, why it is then rejected)
type Row = (&'static str, fn(&mut Attempt), Option<Rejection>);

#[expect(clippy::too_many_lines, reason = "a table")]
fn rows() -> Vec<Row> {
    let signature = Some(ProofError::Signature.into());
    let algorithm = Some(ProofError::Key(InvalidJwk::Algorithm).into());
    vec![
        ("nothing", |_| {}, None),
        (
            "n - s for s, which ECDSA takes as well",
            |a| {
                a.edit_proof = |proof| {
                    with_signature(&proof, |signature| {
                        let (r, s) = Signature::from_slice(signature).unwrap().split_scalars();
                        *signature = Signature::from_scalars(r.to_bytes(), (-s).to_bytes())
                            .unwrap()
                            .to_vec();
                    })
                }
            },
            None,
        ),
        (
            "a bit of r",
            |a| a.edit_proof = |proof| with_signature(&proof, |signature| signature[31] ^= 1),
            signature.clone(),
        ),
        (
            "a bit of s",
            |a| a.edit_proof = |proof| with_signature(&proof, |signature| signature[63] ^= 1),
            signature.clone(),
        ),
        (
            "r and s swapped",
            |a| {
                a.edit_proof =
                    |proof| with_signature(&proof, |signature| signature.rotate_left(32));
            },
            signature.clone(),
        ),
        (
            "all zeros",
            |a| a.edit_proof = |proof| with_signature(&proof, |signature| signature.fill(0)),
            signature.clone(),
        ),
        (
            "all ones",
            |a| a.edit_proof = |proof| with_signature(&proof, |signature| signature.fill(0xff)),
            signature.clone(),
        ),
        (
            "r = 0",
            |a| a.edit_proof = |proof| with_signature(&proof, |signature| signature[..32].fill(0)),
            signature.clone(),
        ),
        (
            "s = 0",
            |a| a.edit_proof = |proof| with_signature(&proof, |signature| signature[32..].fill(0)),
            signature.clone(),
        ),
        (
            "no signature",
            |a| a.edit_proof = |proof| with_signature(&proof, Vec::clear),
            signature.clone(),
        ),
        (
            "an byte less",
            |a| {
                a.edit_proof = |proof| {
                    with_signature(&proof, |signature| {
                        signature.pop();
                    })
                }
            },
            signature.clone(),
        ),
        (
            "an byte more",
            |a| a.edit_proof = |proof| with_signature(&proof, |signature| signature.push(0)),
            signature.clone(),
        ),
        (
            "the DER form",
            |a| {
                a.edit_proof = |proof| {
                    with_signature(&proof, |signature| {
                        let parsed = Signature::from_slice(signature).unwrap();
                        *signature = parsed.to_der().as_bytes().to_vec();
                    })
                }
            },
            signature.clone(),
        ),
        (
            "another payload under the same signature",
            |a| a.edit_proof = |proof| with_member(&proof, 1, "jti", json!(common::fresh_jti())),
            signature.clone(),
        ),
        (
            "another header under the same signature",
            |a| a.edit_proof = |proof| with_member(&proof, 0, "kid", json!("another")),
            signature.clone(),
        ),
        (
            "another key's signature under this key's name",
            |a| a.key = Key::es256(),
            signature.clone(),
        ),
        (
            "another key's proof with this key's token",
            |a| {
                a.key = Key::es256();
                a.proof_header["jwk"] = a.key.public_jwk();
            },
            Some(BindingError::OtherKey.into()),
        ),
        (
            "another algorithm, of another curve",
            |a| a.proof_header["alg"] = json!("ES384"),
            algorithm.clone(),
        ),
        (
            "another algorithm, of another key type",
            |a| a.proof_header["alg"] = json!("PS256"),
            algorithm.clone(),
        ),
        (
            "no algorithm",
            |a| a.proof_header["alg"] = json!("none"),
            Some(ProofError::Algorithm.into()),
        ),
        (
            "the key says its algorithm",
            |a| a.proof_header["jwk"]["alg"] = json!("ES256"),
            None,
        ),
        (
            "the key says another algorithm",
            |a| a.proof_header["jwk"]["alg"] = json!("ES384"),
            algorithm.clone(),
        ),
        (
            "the key says an unknown algorithm",
            |a| a.proof_header["jwk"]["alg"] = json!("ES256K"),
            algorithm,
        ),
        (
            "the key is for encryption",
            |a| a.proof_header["jwk"]["use"] = json!("enc"),
            Some(ProofError::Key(InvalidJwk::Use).into()),
        ),
        (
            "another method",
            |a| a.proof_claims["htm"] = json!("POST"),
            Some(ProofError::Method.into()),
        ),
    ]
}

#[track_caller]
fn assert_outcome(outcome: &Outcome, name: &str, rejection: Option<&Rejection>) {
    match rejection {
        None => outcome.assert_passed(name),
        Some(reason) => outcome.assert_reason(name, reason.clone()),
    }
}

/// Each row of a key of its own, so that nothing has passed by it but what is counted.
#[test]
fn a_key_that_recurs_is_asked_for_as_much_as_a_new_one() {
    let (name, layer) = &layers()[0];
    for passed in PASSED {
        for (row, change, rejection) in rows() {
            let key = Key::es256();
            pass(layer, &key, passed, name);
            let mut attempt = Attempt::with_key(key.clone());
            change(&mut attempt);
            let name = format!("{row}, after {passed} requests");
            assert_outcome(&attempt.outcome_by(layer), &name, rejection.as_ref());
            // What was rejected has changed nothing for the key's owner.
            pass(layer, &key, 1, &name);
        }
    }
}

/// Over the first requests, over the making of the table, and long after it.
#[test]
fn the_same_is_known_of_every_request_by_a_key() {
    for (name, layer) in layers() {
        let key = Key::es256();
        for request in 0..40 {
            let attempt = Attempt::with_key(key.clone());
            let outcome = attempt.outcome_by(&layer);
            let name = format!("{name}, request {request}");
            outcome.assert_passed(&name);
            let token = outcome.token.as_ref().unwrap();
            assert_eq!(token.algorithm(), Algorithm::Es256, "{name}");
            assert_eq!(token.thumbprint(), key.thumbprint(), "{name}");
            assert_eq!(
                token.claims().subject(),
                attempt.token_claims["sub"],
                "{name}"
            );
            // The same proof again.
            let replayed = attempt.outcome_by(&layer);
            replayed.assert_reason(&name, ProofError::Replayed);
        }
    }
}

/// Twenty keys in turn: tables are made, dropped, not let in, and made again.
#[test]
fn how_much_memory_there_is_decides_nothing() {
    let keys: Vec<Key> = (0..20).map(|_| Key::es256()).collect();
    let rows = rows();
    for (name, layer) in layers() {
        for round in 0..18 {
            for (i, key) in keys.iter().enumerate() {
                let name = format!("{name}, round {round}, key {i}");
                pass(&layer, key, 1, &name);
                if (round + i) % 4 == 0 {
                    let (row, change, rejection) = &rows[(round * 5 + i) % rows.len()];
                    let mut attempt = Attempt::with_key(key.clone());
                    change(&mut attempt);
                    let name = format!("{name}, {row}");
                    assert_outcome(&attempt.outcome_by(&layer), &name, rejection.as_ref());
                }
            }
        }
    }
}

#[test]
fn threads_share_the_keys() {
    let keys: Vec<Key> = (0..3).map(|_| Key::es256()).collect();
    for (name, layer) in layers() {
        thread::scope(|scope| {
            for worker in 0..4 {
                let (keys, layer) = (&keys, &layer);
                scope.spawn(move || {
                    for request in 0..40 {
                        let key = &keys[request % keys.len()];
                        let name = format!("{name}, thread {worker}, request {request}");
                        pass(layer, key, 1, &name);
                        let mut attempt = Attempt::with_key(key.clone());
                        attempt.key = keys[(request + 1) % keys.len()].clone();
                        let outcome = attempt.outcome_by(layer);
                        outcome.assert_reason(&name, ProofError::Signature);
                    }
                });
            }
        });
    }
}

/// There are no tables for these.
#[test]
fn keys_of_other_types_recur_as_well() {
    let keys = [
        Key::es384(),
        Key::es512(),
        Key::ed25519("Ed25519"),
        Key::ed25519("EdDSA"),
        Key::rsa("PS256"),
        Key::rsa("RS256"),
    ];
    for key in keys {
        let algorithms = Algorithms::only(key.algorithm());
        let layer = &DpopLayer::new(verifier_by(|rules| rules.with_algorithms(algorithms)));
        for request in 0..20 {
            let name = format!("{}, request {request}", key.alg());
            let outcome = Attempt::with_key(key.clone()).outcome_by(layer);
            outcome.assert_passed(&name);
            let token = outcome.token.as_ref().unwrap();
            assert_eq!(token.algorithm().name(), key.alg(), "{name}");
            let mut attempt = Attempt::with_key(key.clone());
            attempt.edit_proof = |proof| with_signature(&proof, |signature| signature[40] ^= 1);
            let outcome = attempt.outcome_by(layer);
            outcome.assert_reason(&name, ProofError::Signature);
        }
    }
}

/// Nobody has a private key of such a point, however often it is tried.
#[test]
fn a_point_off_the_curve_stays_rejected() {
    let layer = &layers()[0].1;
    let key = Key::es256();
    for time in 0..40 {
        let mut attempt = Attempt::with_key(key.clone());
        let mut jwk = attempt.key.public_jwk();
        jwk["y"] = jwk["x"].clone();
        let public: tower_dpop::jose::Jwk = jwk.to_string().parse().unwrap();
        attempt.token_claims["cnf"]["jkt"] = json!(public.thumbprint().to_string());
        attempt.proof_header["jwk"] = jwk;
        let outcome = attempt.outcome_by(layer);
        let name = format!("time {time}");
        outcome.assert_reason(&name, ProofError::Key(InvalidJwk::Coordinate));
    }
}
