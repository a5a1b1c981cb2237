//! The private keys of clients: made, signed with, written and read.
//!
//! `keys/*.pem` are OpenSSL's (3.0); the first line of each is the command that made it.

mod jwk;
mod pkcs8;
mod signing;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::base64url;
use num_bigint::BigUint;
use serde_json::{Value, json};
use std::error::Error as _;
use std::fmt::Debug;
use std::sync::LazyLock;
use tower_dpop::client::ProofSigner;
use tower_dpop::jose::{InvalidJwk, Jwk, SigningError, SigningKey, SigningKeyError};
use tower_dpop::{Algorithm, Thumbprint};

const MESSAGE: &[u8] = b"a message";

const P256: &str = include_str!("../keys/p256.pem");

const RSA_2048: &str = include_str!("../keys/rsa2048.pem");

const X25519: &str = include_str!("../keys/x25519.pem");

/// RFC 8037 appendix A.1.
const RFC_8037: &str = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

/// RFC 7515 appendix A.3.1.
const RFC_7515: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;

/// One RSA key for all tests: they are dear to make.
fn rsa() -> SigningKey {
    static RSA: LazyLock<SigningKey> =
        LazyLock::new(|| SigningKey::generate_for(Algorithm::Ps256).unwrap());
    RSA.clone()
}

fn decoded(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn der(pem: &str) -> Vec<u8> {
    let key = SigningKey::from_pkcs8_pem(pem).unwrap();
    key.to_pkcs8_der().unwrap().as_bytes().to_vec()
}

fn jwk(key: &SigningKey) -> Value {
    serde_json::from_str(key.to_jwk().unwrap().as_str()).unwrap()
}

#[track_caller]
fn assert_signs(name: &str, key: &SigningKey, public: &Jwk) {
    let signature = key.sign_now(MESSAGE).unwrap();
    let verified = public.verify(key.algorithm(), MESSAGE, &signature);
    assert!(verified.is_ok(), "{name}");
    let other = public.verify(key.algorithm(), b"another", &signature);
    assert!(other.is_err(), "{name}: another message");
}

fn ec(crv: &str, d: &str, x: &str, y: &str) -> Value {
    let [d, x, y] = [d, x, y].map(|number| base64url(hex(number)));
    json!({ "kty": "EC", "crv": crv, "d": d, "x": x, "y": y })
}

fn okp(d: &str, x: &str) -> Value {
    let [d, x] = [d, x].map(|number| base64url(hex(number)));
    json!({ "kty": "OKP", "crv": "Ed25519", "d": d, "x": x })
}

/// Each row reads one document.
#[track_caller]
fn assert_rejected<D: AsRef<T>, T: ?Sized>(
    read: fn(&T) -> Result<SigningKey, SigningKeyError>,
    rows: impl IntoIterator<Item = (&'static str, D, SigningKeyError)>,
) {
    for (name, document, expected) in rows {
        assert_eq!(read(document.as_ref()).unwrap_err(), expected, "{name}");
    }
}

/// The order of P-256.
fn order() -> Vec<u8> {
    hex("FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551")
}

fn number(jwk: &Value, member: &str) -> Vec<u8> {
    decoded(jwk[member].as_str().unwrap())
}

fn but(jwk: &Value, member: &str, value: impl Into<Value>) -> String {
    let mut changed = jwk.clone();
    changed[member] = value.into();
    changed.to_string()
}

fn without(jwk: &Value, member: &str) -> String {
    let mut changed = jwk.clone();
    changed.as_object_mut().unwrap().remove(member).unwrap();
    changed.to_string()
}

/// With one bit of a number turned.
fn turned(jwk: &Value, member: &str) -> String {
    let mut bytes = number(jwk, member);
    bytes[20] ^= 1;
    but(jwk, member, base64url(bytes))
}
