//! Signing keys of every kind, generated or fixed.

use std::sync::LazyLock;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tower_dpop::Algorithm;
use tower_dpop::jose::SigningKey;
use tower_dpop::testing::{sign_jws, sign_text};

use crate::base64url;

/// A private key with its signing algorithm.
pub type Key = SigningKey;

/// The ES256 key of tests to which the key does not matter.
pub fn client() -> Key {
    static CLIENT: LazyLock<Key> = LazyLock::new(Key::es256);
    CLIENT.clone()
}

/// Constructors and operations that tests need.
pub trait KeyExt {
    fn es256() -> Self;
    fn es384() -> Self;
    fn es512() -> Self;
    /// `alg` is `Ed25519` or `EdDSA`.
    fn ed25519(alg: &str) -> Self;
    /// The same RSA key for the whole process, with 2048 bits.
    fn rsa(alg: &str) -> Self;
    fn alg(&self) -> &'static str;
    /// The public JWK, with its required members only.
    fn public_jwk(&self) -> Value;
    /// The RFC 7638 thumbprint, computed independently of the crate: serde_json writes members in
    /// lexicographic order.
    fn jkt(&self) -> String;
    fn signature(&self, message: &[u8]) -> Vec<u8>;
    /// A compact JWS of any two JSON values.
    fn sign(&self, header: &Value, claims: &Value) -> String;
    /// A compact JWS of any two texts, which need not be JSON.
    fn sign_text(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String;
}

impl KeyExt for Key {
    fn es256() -> Self {
        generate(Algorithm::Es256)
    }

    fn es384() -> Self {
        generate(Algorithm::Es384)
    }

    fn es512() -> Self {
        generate(Algorithm::Es512)
    }

    fn ed25519(alg: &str) -> Self {
        generate(alg.parse().unwrap())
    }

    fn rsa(alg: &str) -> Self {
        static RSA: LazyLock<Key> = LazyLock::new(|| generate(Algorithm::Ps256));
        RSA.clone().with_algorithm(alg.parse().unwrap()).unwrap()
    }

    fn alg(&self) -> &'static str {
        self.algorithm().name()
    }

    fn public_jwk(&self) -> Value {
        serde_json::to_value(self.public_key()).unwrap()
    }

    fn jkt(&self) -> String {
        base64url(Sha256::digest(self.public_jwk().to_string()))
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        self.sign_now(message).unwrap()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        sign_jws(self, header, claims)
    }

    fn sign_text(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        sign_text(self, header, payload)
    }
}

fn generate(algorithm: Algorithm) -> Key {
    Key::generate_for(algorithm).unwrap()
}
