//! Helpers for tests that change one thing in a valid proof.

mod checks;
mod freshness;
mod nonce;
mod nonce_secret;
mod public_url;
mod replay;
mod rules;
pub(crate) mod target;

use serde_json::json;
use sha2::{Digest, Sha256};
use tower_dpop::DpopLayer;
use tower_dpop::proof::ProofError;

use common::{Attempt, AttemptExt as _, KeyExt as _, Outcome, ath, base64url, verifier_by};

pub(crate) type Change = fn(&mut Attempt);
pub(crate) type EditJson = fn(String) -> Vec<u8>;
pub(crate) type EditText = fn(String) -> String;

/// `None` expects that the request passes.
#[track_caller]
pub(crate) fn assert_outcome(name: &str, outcome: &Outcome, expected: Option<ProofError>) {
    match expected {
        None => outcome.assert_passed(name),
        Some(error) => outcome.assert_reason(name, error),
    }
}

/// A layer that accepts every supported algorithm.
pub(crate) fn layer_with_every_algorithm() -> DpopLayer {
    let all = "ES256 ES384 ES512 PS256 PS384 PS512 Ed25519 EdDSA RS256 RS384 RS512";
    DpopLayer::new(verifier_by(|rules| {
        rules.with_algorithms(all.parse().unwrap())
    }))
}

/// Binds the token to the hash of the `jwk` as it stands in the proof's header.
pub(crate) fn bind_token_to_jwk(attempt: &mut Attempt) {
    let jwk = attempt.proof_header["jwk"].to_string();
    attempt.token_claims["cnf"]["jkt"] = json!(base64url(Sha256::digest(jwk)));
}

/// A good attempt, signed after the JSON texts of its header and payload were edited.
pub(crate) fn with_edited_json(header: EditJson, payload: EditJson) -> Attempt {
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

/// Inserts members at the start of an object.
pub(crate) fn with_members(json: &str, members: &str) -> Vec<u8> {
    json.replacen('{', &format!("{{{members},"), 1).into_bytes()
}

pub(crate) fn segments(proof: &str) -> [&str; 3] {
    proof.split('.').collect::<Vec<_>>().try_into().unwrap()
}

pub(crate) fn decode_base64url(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .unwrap()
}

pub(crate) fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|index| u8::from_str_radix(&text[index..index + 2], 16).unwrap())
        .collect()
}

fn with_nonce(nonce: &str, now: u64) -> Attempt {
    Attempt::but(|a| {
        a.proof_claims["nonce"] = json!(nonce);
        a.proof_claims["iat"] = json!(now);
    })
}
