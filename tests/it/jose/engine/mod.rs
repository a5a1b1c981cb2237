//! Keys and signatures in unusual forms. The engines behind `Jwk::verify` treat some of them differently, so
//! the same tables run in a build with each.
//!
//! Many rows would verify without a specific check: their signatures are computed from the private key, or the
//! key is computed from the signature.

mod ecdsa;
mod ed25519;
mod rsa;

use std::fmt::Debug;

use Verification::{InvalidKey, InvalidSignature, Verified};
use common::{Attempt, AttemptExt as _, Key, KeyExt as _, base64url};
use num_bigint::BigUint;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tower_dpop::Algorithm;
use tower_dpop::jose::{InvalidJwk, Jwk};
use tower_dpop::proof::ProofError;

use crate::jose::keys::MESSAGE;
use crate::proof::decode_base64url;

/// The result of a verification.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verification {
    /// The JWK was rejected.
    InvalidKey(InvalidJwk),
    /// The JWK was accepted, but the signature does not verify.
    InvalidSignature,
    Verified,
}

/// A message, its signature, and the JWK to verify it with.
#[derive(Clone)]
struct Signed {
    algorithm: Algorithm,
    jwk: Value,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Signed {
    fn by(key: &Key) -> Self {
        let message = MESSAGE.to_vec();
        Self {
            algorithm: key.alg().parse().unwrap(),
            jwk: key.public_jwk(),
            signature: key.signature(&message),
            message,
        }
    }

    /// The proof in a figure of RFC 9449.
    fn of_rfc_9449(figure: &str) -> Self {
        let proof = vectors()["rfc9449"][figure]["jwt"]
            .as_str()
            .unwrap()
            .to_owned();
        let (input, signature) = proof.rsplit_once('.').unwrap();
        Self {
            algorithm: Algorithm::Es256,
            jwk: vectors()["rfc9449"]["proof_public_jwk"].clone(),
            message: input.into(),
            signature: decode_base64url(signature),
        }
    }

    fn verify(&self) -> Verification {
        match self.jwk.to_string().parse::<Jwk>() {
            Err(error) => InvalidKey(error),
            Ok(jwk) => match jwk.verify(self.algorithm, &self.message, &self.signature) {
                Err(_) => InvalidSignature,
                Ok(()) => Verified,
            },
        }
    }

    /// Verifies another signature.
    #[track_caller]
    fn assert_signature(&self, name: &str, signature: impl Into<Vec<u8>>, expected: Verification) {
        let signature = signature.into();
        let changed = Self {
            signature,
            ..self.clone()
        };
        assert_eq!(changed.verify(), expected, "{}: {name}", self.algorithm);
    }

    /// Verifies with another value of one member of the JWK, or without the member.
    #[track_caller]
    fn assert_member(
        &self,
        name: &str,
        member: &str,
        value: Option<impl AsRef<[u8]>>,
        expected: Verification,
    ) {
        let mut changed = self.clone();
        let members = changed.jwk.as_object_mut().unwrap();
        match value {
            None => members.remove(member),
            Some(bytes) => members.insert(member.to_owned(), json!(base64url(bytes))),
        };
        assert_eq!(changed.verify(), expected, "{}: {name}", self.algorithm);
    }

    fn member(&self, name: &str) -> Vec<u8> {
        decode_base64url(self.jwk[name].as_str().unwrap())
    }
}

/// The engine takes the curve and the hash from the key, so it would verify.
#[test]
fn a_key_does_not_verify_with_another_algorithm() {
    for key in [Key::es256(), Key::rsa("PS256")] {
        let signed = Signed::by(&key);
        let with = |algorithm: Algorithm, alg: Option<&str>| {
            let mut jwk = signed.jwk.clone();
            let members = jwk.as_object_mut().unwrap();
            members.remove("alg");
            members.extend(alg.map(|alg| ("alg".to_owned(), json!(alg))));
            Signed {
                algorithm,
                jwk,
                ..signed.clone()
            }
            .verify()
        };
        assert_eq!(with(signed.algorithm, None), Verified);
        assert_eq!(with(signed.algorithm, Some(key.alg())), Verified);
        assert_eq!(with(Algorithm::Es384, None), InvalidSignature);
    }
    let mut rsa = Signed::by(&Key::rsa("PS256"));
    rsa.jwk["alg"] = json!("RS256");
    assert_eq!(rsa.verify(), InvalidSignature, "alg of the JWK");
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../vectors.json")).unwrap()
}

fn integer(digits: &str) -> BigUint {
    BigUint::parse_bytes(digits.as_bytes(), 16).unwrap()
}

fn power_of_2(exponent: u32) -> BigUint {
    BigUint::from(2_u8).pow(exponent)
}

fn from_bytes(bytes: &[u8]) -> BigUint {
    BigUint::from_bytes_be(bytes)
}

/// I2OSP (RFC 8017 section 4.1).
#[track_caller]
fn bytes(integer: &BigUint, length: usize) -> Vec<u8> {
    let minimal = integer.to_bytes_be();
    let zeros = length
        .checked_sub(minimal.len())
        .expect("the integer fits the length");
    [vec![0; zeros], minimal].concat()
}

/// No point of Ed25519's curve has y = 2.
const OFF_THE_CURVE: [u8; 32] = {
    let mut y = [0; 32];
    y[0] = 2;
    y
};

#[test]
fn a_point_off_the_curve_is_rejected_for_the_same_reason_by_each_engine() {
    let key = ProofError::Key(InvalidJwk::Coordinate);
    for (name, signer, member, expected) in [
        ("J-19: P-256", Key::es256(), "y", key),
        ("J-19: P-384", Key::es384(), "y", key),
        // AWS-LC checks the point only when it verifies a signature.
        (
            "J-24: Ed25519",
            Key::ed25519("Ed25519"),
            "x",
            ProofError::Signature,
        ),
    ] {
        let mut attempt = Attempt::with_key(signer);
        let jwk = &mut attempt.proof_header["jwk"];
        let mut coordinate = decode_base64url(jwk[member].as_str().unwrap());
        if member == "x" {
            coordinate = OFF_THE_CURVE.to_vec();
        } else {
            *coordinate.last_mut().unwrap() ^= 1;
        }
        jwk[member] = json!(base64url(coordinate));
        let thumbprint = base64url(Sha256::digest(jwk.to_string()));
        attempt.token_claims["cnf"]["jkt"] = json!(thumbprint);
        attempt.outcome().assert_reason(name, expected);
    }
}
