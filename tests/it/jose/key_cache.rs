//! Client keys that recur. A table makes verification faster, and never changes its result.
//!
//! The server precomputes a table for a P-256 key after the ninth accepted request, and verifies later proofs with
//! it. If the table was evicted, it is computed again after the 17th request, the 33rd and so on
//! (`src/jose/recurring_key.rs`). A response does not show whether a table was used, so the tests count requests:
//! each case runs with a new key, with a key that is about to get a table, and with one that has had a table for a
//! while.

use std::thread;

use common::{Attempt, AttemptExt as _, Key, KeyExt as _, Outcome, verifier, verifier_by};
use p256::ecdsa::Signature;
use serde_json::json;
use tower_dpop::jose::InvalidJwk;
use tower_dpop::proof::ProofError;
use tower_dpop::resource::BindingError;
use tower_dpop::{Algorithm, Algorithms, DpopLayer, Rejection};

use super::recurring_key::{EARLIER_USES, with_member, with_signature};

/// The memory for one table and its entry in the cache.
const ONE_TABLE: u64 = 33_280;

/// Layers with different amounts of memory for tables.
fn layers() -> [(&'static str, DpopLayer); 6] {
    let with = |bytes| DpopLayer::new(verifier().with_precomputed_keys(bytes));
    [
        ("by default", DpopLayer::new(verifier())),
        (
            "without tables",
            DpopLayer::new(verifier().without_precomputed_keys()),
        ),
        ("no memory", with(0)),
        ("one byte less than one table", with(ONE_TABLE - 1)),
        ("one table", with(ONE_TABLE)),
        ("two tables", with(2 * ONE_TABLE)),
    ]
}

/// Sends valid requests.
#[track_caller]
fn assert_all_pass(layer: &DpopLayer, key: &Key, count: usize, name: &str) {
    for request in 0..count {
        let outcome = Attempt::with_key(key.clone()).outcome_by(layer);
        outcome.assert_passed(&format!("{name}, request {request}"));
    }
}

/// (name, the change to a valid request, the rejection)
type Row = (&'static str, fn(&mut Attempt), Option<Rejection>);

#[expect(clippy::too_many_lines, reason = "a table")]
fn rows() -> Vec<Row> {
    let signature = Some(ProofError::Signature.into());
    let algorithm = Some(ProofError::Key(InvalidJwk::Algorithm).into());
    vec![
        ("no change", |_| {}, None),
        (
            "n - s instead of s, which is valid in ECDSA",
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
            "a changed bit of r",
            |a| a.edit_proof = |proof| with_signature(&proof, |signature| signature[31] ^= 1),
            signature.clone(),
        ),
        (
            "a changed bit of s",
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
            "one byte less",
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
            "one byte more",
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
            "the signature of another key",
            |a| a.key = Key::es256(),
            signature.clone(),
        ),
        (
            "the proof of another key",
            |a| {
                a.key = Key::es256();
                a.proof_header["jwk"] = a.key.public_jwk();
            },
            Some(BindingError::OtherKey.into()),
        ),
        (
            "the algorithm of another curve",
            |a| a.proof_header["alg"] = json!("ES384"),
            algorithm.clone(),
        ),
        (
            "the algorithm of another key type",
            |a| a.proof_header["alg"] = json!("PS256"),
            algorithm.clone(),
        ),
        (
            "no algorithm",
            |a| a.proof_header["alg"] = json!("none"),
            Some(ProofError::Algorithm.into()),
        ),
        (
            "the key names its algorithm",
            |a| a.proof_header["jwk"]["alg"] = json!("ES256"),
            None,
        ),
        (
            "the key names another algorithm",
            |a| a.proof_header["jwk"]["alg"] = json!("ES384"),
            algorithm.clone(),
        ),
        (
            "the key names an unknown algorithm",
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

/// Each row has its own key, so that only the counted requests use it.
#[test]
fn a_recurring_key_is_checked_like_a_new_one() {
    let (name, layer) = &layers()[0];
    for uses in EARLIER_USES {
        for (row, change, rejection) in rows() {
            let key = Key::es256();
            assert_all_pass(layer, &key, uses, name);
            let mut attempt = Attempt::with_key(key.clone());
            change(&mut attempt);
            let name = format!("{row}, after {uses} requests");
            assert_outcome(&attempt.outcome_by(layer), &name, rejection.as_ref());
            // A rejected request does not affect the owner of the key.
            assert_all_pass(layer, &key, 1, &name);
        }
    }
}

/// Before the key has a table, when it gets one, and long after.
#[test]
fn a_table_changes_neither_the_bound_token_nor_the_replay_check() {
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
                token.claims().subject().unwrap(),
                attempt.token_claims["sub"],
                "{name}"
            );
            // The same proof again.
            let replayed = attempt.outcome_by(&layer);
            replayed.assert_reason(&name, ProofError::Replayed);
        }
    }
}

/// With twenty keys in turn, tables are computed, evicted, not cached, and computed again.
#[test]
fn the_memory_for_tables_does_not_change_results() {
    let keys: Vec<Key> = (0..20).map(|_| Key::es256()).collect();
    let rows = rows();
    for (name, layer) in layers() {
        for round in 0..18 {
            for (i, key) in keys.iter().enumerate() {
                let name = format!("{name}, round {round}, key {i}");
                assert_all_pass(&layer, key, 1, &name);
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
fn threads_can_share_the_cached_keys() {
    let keys: Vec<Key> = (0..3).map(|_| Key::es256()).collect();
    for (name, layer) in layers() {
        thread::scope(|scope| {
            for worker in 0..4 {
                let (keys, layer) = (&keys, &layer);
                scope.spawn(move || {
                    for request in 0..40 {
                        let key = &keys[request % keys.len()];
                        let name = format!("{name}, thread {worker}, request {request}");
                        assert_all_pass(layer, key, 1, &name);
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

/// Only P-256 keys get tables.
#[test]
fn keys_of_other_types_can_recur() {
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

#[test]
fn a_point_off_the_curve_is_rejected_each_time() {
    let layer = &layers()[0].1;
    let key = Key::es256();
    for request in 0..40 {
        let mut attempt = Attempt::with_key(key.clone());
        let mut jwk = attempt.key.public_jwk();
        jwk["y"] = jwk["x"].clone();
        let public: tower_dpop::jose::Jwk = jwk.to_string().parse().unwrap();
        attempt.token_claims["cnf"]["jkt"] = json!(public.thumbprint().to_string());
        attempt.proof_header["jwk"] = jwk;
        let outcome = attempt.outcome_by(layer);
        let name = format!("request {request}");
        outcome.assert_reason(&name, ProofError::Key(InvalidJwk::Coordinate));
    }
}

/// The header of an accepted proof is not read again. A header that differs from it is.
#[test]
fn a_known_header_accepts_no_other() {
    use http::Method;
    use tower_dpop::testing::{TestClient, TestIssuer};
    use tower_dpop::{ProofRules, PublicUrl, Verifier};

    let url = "https://api.example.com";
    let issuer = TestIssuer::new("https://as.example.com", url);
    let rules = ProofRules::new(url.parse::<PublicUrl>().unwrap());
    let rules = rules.with_clock(issuer.clock().read());
    let verifier = Verifier::new(rules, issuer.jwt_verifier());
    let client = TestClient::new(&issuer);
    let request = client.request(Method::GET, "https://api.example.com/orders");
    let verify = |request: tower_dpop::testing::TestRequest| {
        let (head, ()) = request.build().into_parts();
        let verifying = std::pin::pin!(verifier.verify(&head));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::future::Future::poll(verifying, &mut context) {
            std::task::Poll::Ready(verified) => verified.map(drop),
            std::task::Poll::Pending => panic!("nothing waits"),
        }
    };
    for defect in request.defects() {
        assert_eq!(verify(request.again()), Ok(()), "before {defect}");
        let rejection = Err(request.rejection_of(defect));
        assert_eq!(
            verify(request.again().with_defect(defect)),
            rejection,
            "{defect}"
        );
    }
}
