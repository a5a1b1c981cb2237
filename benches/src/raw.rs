//! The yardstick: one signature, verified by AWS-LC with a key that was parsed before.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{self, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// A signature as a library for signatures wants it.
pub struct Signed {
    /// The public key, parsed.
    pub key: Arc<ParsedPublicKey>,
    /// The `jwk` of the proof's header.
    pub jwk: Value,
    /// What was signed: the first two segments.
    pub message: Vec<u8>,
    /// As a JWS has it.
    pub signature: Vec<u8>,
}

impl Signed {
    /// One raw verification.
    pub fn verify(&self) {
        black_box(self.key.verify_sig(&self.message, &self.signature))
            .expect("the signature verifies");
    }
}

/// The signatures of these proofs. Each key is parsed once.
pub fn signed<'p>(proofs: impl IntoIterator<Item = &'p str>) -> Vec<Signed> {
    let mut keys: HashMap<String, Arc<ParsedPublicKey>> = HashMap::new();
    proofs
        .into_iter()
        .map(|proof| {
            let (message, signature) = proof.rsplit_once('.').expect("a compact JWS");
            let header = header(proof);
            let text = header.to_string();
            let key = keys
                .entry(text)
                .or_insert_with(|| Arc::new(parsed(&header)));
            Signed {
                key: Arc::clone(key),
                jwk: header["jwk"].clone(),
                message: message.as_bytes().to_vec(),
                signature: decode(signature),
            }
        })
        .collect()
}

/// The header of a proof, as JSON.
pub fn header(proof: &str) -> Value {
    let (header, _) = proof.split_once('.').expect("a compact JWS");
    serde_json::from_slice(&decode(header)).expect("a header in JSON")
}

/// The bytes of a member of a JWK.
pub fn member(jwk: &Value, name: &str) -> Vec<u8> {
    decode(jwk[name].as_str().expect("the JWK has the member"))
}

/// The uncompressed point of an EC key: `04 ‖ x ‖ y`.
pub fn point(jwk: &Value) -> Vec<u8> {
    [vec![4], member(jwk, "x"), member(jwk, "y")].concat()
}

fn parsed(header: &Value) -> ParsedPublicKey {
    let jwk = &header["jwk"];
    let rsa = || PublicKeyComponents {
        n: member(jwk, "n"),
        e: member(jwk, "e"),
    };
    match header["alg"]
        .as_str()
        .expect("the header names the algorithm")
    {
        "ES256" => ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point(jwk)),
        "ES384" => ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point(jwk)),
        "Ed25519" | "EdDSA" => ParsedPublicKey::new(&signature::ED25519, member(jwk, "x")),
        "PS256" => rsa().to_parsed_public_key(&signature::RSA_PSS_2048_8192_SHA256),
        "RS256" => rsa().to_parsed_public_key(&signature::RSA_PKCS1_2048_8192_SHA256),
        alg => panic!("{alg} is not measured"),
    }
    .expect("the key of a client can be parsed")
}

fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).expect("base64url")
}
