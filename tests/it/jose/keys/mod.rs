//! Private keys for the tests of signing keys, and helpers.
//!
//! The `*.pem` files were written by OpenSSL 3.0. The first line of each is the command that made it.

use serde_json::Value;
use tower_dpop::Algorithm;
use tower_dpop::jose::{Jwk, SigningKey};

use crate::proof::decode_base64url;

pub(super) const MESSAGE: &[u8] = b"a message";

pub(super) const ALGORITHMS: [Algorithm; 11] = [
    Algorithm::Es256,
    Algorithm::Es384,
    Algorithm::Es512,
    Algorithm::Ed25519,
    Algorithm::EdDsa,
    Algorithm::Ps256,
    Algorithm::Ps384,
    Algorithm::Ps512,
    Algorithm::Rs256,
    Algorithm::Rs384,
    Algorithm::Rs512,
];

pub(super) const P256: &str = include_str!("p256.pem");

pub(super) const ED25519: &str = include_str!("ed25519.pem");

pub(super) const RSA_2048: &str = include_str!("rsa2048.pem");

/// RFC 8037 appendix A.1.
pub(super) const RFC_8037: &str = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

/// RFC 7515 appendix A.3.1.
pub(super) const RFC_7515: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;

pub(super) fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// The private JWK of the key.
pub(super) fn private_jwk(key: &SigningKey) -> Value {
    serde_json::from_str(key.to_jwk().unwrap().as_str()).unwrap()
}

/// The bytes of a member of a JWK.
pub(super) fn decode_member(jwk: &Value, member: &str) -> Vec<u8> {
    decode_base64url(jwk[member].as_str().unwrap())
}

/// Asserts that a signature by the key verifies with the public JWK.
#[track_caller]
pub(super) fn assert_signs(name: &str, key: &SigningKey, public: &Jwk) {
    let signature = key.sign_now(MESSAGE).unwrap();
    let verified = public.verify(key.algorithm(), MESSAGE, &signature);
    assert!(verified.is_ok(), "{name}");
    let other = public.verify(key.algorithm(), b"another", &signature);
    assert!(other.is_err(), "{name}: verifies another message");
}
