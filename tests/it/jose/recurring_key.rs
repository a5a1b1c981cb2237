//! Keys that recur decide as they did the first time.
//!
//! For a P-256 key by which requests have passed, the server computes multiples of its point, and
//! verifies its next proofs by them: after the ninth request, and, where the multiples were dropped
//! since, after the 17th, the 33rd and so on (`src/jose/recurring_key.rs`). Nothing shows from outside
//! which way a proof was verified, so these tests go by the number of requests: whatever is asked is
//! asked of a key that is new, that is about to have a table, and that has had one for a while.

#![cfg(feature = "precomputed-keys")]

use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::Signature;
use serde_json::{Value, json};
use tower_dpop::jose::InvalidJwk;
use tower_dpop::proof::ProofError;
use tower_dpop::resource::BindingError;
use tower_dpop::{Algorithm, Algorithms, DpopLayer, JwtVerifier, KeySet, Rejection};

use common::{
    Attempt, AttemptExt as _, Key, KeyExt as _, Outcome, base64url, verifier, verifier_by,
};

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

/// How many requests by a key have passed before it is asked about.
const PASSED: [usize; 5] = [0, 1, 8, 9, 17];

#[track_caller]
fn pass(layer: &Layer, key: &Key, times: usize, name: &str) {
    for time in 0..times {
        let outcome = Attempt::with_key(key.clone()).outcome_by(layer);
        outcome.assert_passed(&format!("{name}, request {time}"));
    }
}

/// The signature of a proof changed, its signing input kept.
fn with_signature(proof: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let (input, signature) = proof.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    change(&mut signature);
    format!("{input}.{}", base64url(signature))
}

/// One segment of a proof changed, the signature kept.
fn with_member(proof: &str, segment: usize, name: &str, value: Value) -> String {
    let mut segments: Vec<String> = proof.split('.').map(str::to_owned).collect();
    let bytes = URL_SAFE_NO_PAD.decode(&segments[segment]).unwrap();
    let mut members: Value = serde_json::from_slice(&bytes).unwrap();
    members[name] = value;
    segments[segment] = base64url(members.to_string());
    segments.join(".")
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

mod issuers {
    //! The same for the key of an issuer: it has a table after eight tokens.

    use tower_dpop::Timestamp;
    use tower_dpop::testing::TestIssuer;
    use tower_dpop::tokens::{AccessTokenVerifier as _, PresentedToken, TokenError};

    use super::*;
    use common::{AUDIENCE, ISSUER, NOW, block_on};

    type Tokens = JwtVerifier<KeySet>;

    /// Nothing is remembered of a token, so each is verified.
    fn verifiers(issuer: &TestIssuer) -> [(&'static str, Tokens); 2] {
        let tokens = || issuer.jwt_verifier().without_cache();
        [
            ("by default", tokens()),
            ("without", tokens().without_precomputed_keys()),
        ]
    }

    fn issuer(key: &Key) -> TestIssuer {
        TestIssuer::new(ISSUER, AUDIENCE)
            .with_key("issuer", key.clone())
            .with_clock(common::TestClock::at(NOW))
    }

    /// A good token about somebody else each time.
    fn token(issuer: &TestIssuer) -> String {
        let token = issuer.token_for(common::keys::client().thumbprint());
        token.with_claim("sub", common::fresh_jti()).to_text()
    }

    fn outcome(tokens: &Tokens, token: &str) -> Result<(), TokenError> {
        let token = PresentedToken::new(token);
        block_on(tokens.verify(token, Timestamp::from_unix(NOW))).map(drop)
    }

    /// (name, how a good token is changed, whether its signature is then one)
    type Row = (&'static str, fn(&str) -> String, bool);

    fn rows() -> [Row; 9] {
        [
            ("nothing", str::to_owned, true),
            (
                "n - s for s, which ECDSA takes as well",
                |token| {
                    with_signature(token, |signature| {
                        let (r, s) = Signature::from_slice(signature).unwrap().split_scalars();
                        *signature = Signature::from_scalars(r.to_bytes(), (-s).to_bytes())
                            .unwrap()
                            .to_vec();
                    })
                },
                true,
            ),
            (
                "a bit of r",
                |token| with_signature(token, |signature| signature[0] ^= 1),
                false,
            ),
            (
                "a bit of s",
                |token| with_signature(token, |signature| signature[63] ^= 1),
                false,
            ),
            (
                "all zeros",
                |token| with_signature(token, |signature| signature.fill(0)),
                false,
            ),
            (
                "an byte more",
                |token| with_signature(token, |signature| signature.push(0)),
                false,
            ),
            (
                "no signature",
                |token| with_signature(token, Vec::clear),
                false,
            ),
            (
                "another payload under the same signature",
                |token| with_member(token, 1, "sub", json!("mallory")),
                false,
            ),
            (
                "another key's signature",
                |_| token(&issuer(&Key::es256())),
                false,
            ),
        ]
    }

    #[test]
    fn a_key_of_an_issuer_goes_on_to_decide_as_it_did() {
        for passed in PASSED {
            for (row, change, is_good) in rows() {
                let expected = is_good.then_some(()).ok_or(TokenError::Signature);
                // A key of its own, so that nothing was verified by it but what is counted.
                let issuer = issuer(&Key::es256());
                for (name, tokens) in verifiers(&issuer) {
                    let name = format!("{name}, {row}, after {passed} tokens");
                    for _ in 0..passed {
                        assert_eq!(outcome(&tokens, &token(&issuer)), Ok(()), "{name}");
                    }
                    let changed = change(&token(&issuer));
                    assert_eq!(outcome(&tokens, &changed), expected.clone(), "{name}");
                    assert_eq!(outcome(&tokens, &token(&issuer)), Ok(()), "{name}");
                }
            }
        }
    }

    /// A token without `kid` is tried with all of them, some with a table and some without.
    #[test]
    fn keys_of_a_set_do_not_stand_in_for_each_other() {
        let keys = [Key::es256(), Key::es256(), Key::es384()];
        let mut published = issuer(&keys[0]);
        for (i, key) in keys.iter().enumerate().skip(1) {
            published = published.add_key(format!("another-{i}"), key.clone());
        }
        for (name, tokens) in verifiers(&published) {
            for round in 0..40 {
                let signing = match round {
                    0..20 => 0,
                    20..30 => 1,
                    _ => round % 3,
                };
                let mut good =
                    issuer(&keys[signing]).token_for(common::keys::client().thumbprint());
                good.header.as_object_mut().unwrap().remove("kid");
                let good = good.to_text();
                let name = format!("{name}, round {round}");
                assert_eq!(outcome(&tokens, &good), Ok(()), "{name}");
                let spoiled = with_signature(&good, |signature| signature[40] ^= 1);
                let rejected = Err(TokenError::Signature);
                assert_eq!(outcome(&tokens, &spoiled), rejected, "{name}");
            }
        }
    }
}
