//! Helpers of the tests that change one thing in a valid proof.

mod checks;
mod freshness;
mod nonce;
mod replay;
mod rules;
pub(crate) mod target;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower_dpop::DpopLayer;
use tower_dpop::proof::ProofError;

use common::{Attempt, AttemptExt as _, KeyExt as _, Outcome, ath, base64url, verifier_by};

pub(crate) type Change = fn(&mut Attempt);
pub(crate) type Rewrite = fn(String) -> Vec<u8>;
pub(crate) type Respell = fn(String) -> String;

/// What comes of a good attempt with one thing changed: `None` is a pass.
#[track_caller]
pub(crate) fn assert_outcome(name: &str, outcome: &Outcome, expected: Option<ProofError>) {
    match expected {
        None => outcome.assert_passed(name),
        Some(error) => outcome.assert_reason(name, error),
    }
}

/// A layer that accepts every algorithm there is.
pub(crate) fn every_algorithm() -> DpopLayer {
    let all = "ES256 ES384 ES512 PS256 PS384 PS512 Ed25519 EdDSA RS256 RS384 RS512";
    DpopLayer::new(verifier_by(|rules| {
        rules.with_algorithms(all.parse().unwrap())
    }))
}

/// Binds the token to the key in the proof's header, whatever that key is.
pub(crate) fn bind(attempt: &mut Attempt) {
    let jwk = attempt.proof_header["jwk"].to_string();
    attempt.token_claims["cnf"]["jkt"] = json!(base64url(Sha256::digest(jwk)));
}

pub(crate) fn remove(object: &mut Value, member: &str) {
    object.as_object_mut().unwrap().remove(member).unwrap();
}

/// A good attempt whose header and payload are written by hand.
pub(crate) fn raw(header: Rewrite, payload: Rewrite) -> Attempt {
    Attempt::but(|a| {
        let token = a.token();
        a.proof_claims["ath"] = json!(ath(&token));
        let proof = a.key.sign_text(
            header(a.proof_header.to_string()),
            payload(a.proof_claims.to_string()),
        );
        a.dpop = Some(vec![proof.parse().unwrap()]);
        a.token = Some(token);
    })
}

/// Puts members in front of those of an object.
pub(crate) fn with_members(json: &str, members: &str) -> Vec<u8> {
    json.replacen('{', &format!("{{{members},"), 1).into_bytes()
}

pub(crate) fn segments(proof: &str) -> [&str; 3] {
    proof.split('.').collect::<Vec<_>>().try_into().unwrap()
}

pub(crate) fn base64url_bytes(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .unwrap()
}

pub(crate) fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|place| u8::from_str_radix(&text[place..place + 2], 16).unwrap())
        .collect()
}

pub(crate) fn with_nonce(nonce: &str, now: u64) -> Attempt {
    Attempt::but(|a| {
        a.proof_claims["nonce"] = json!(nonce);
        a.proof_claims["iat"] = json!(now);
    })
}
