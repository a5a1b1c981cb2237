//! Signing keys of every kind, generated or fixed.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::encoding::{AsBigEndian, EcPublicKeyUncompressedBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::base64url;

/// A private key with the algorithm it signs by.
#[derive(Clone)]
pub struct Key(Arc<Pair>);

enum Pair {
    Ec {
        pair: EcdsaKeyPair,
        alg: &'static str,
        crv: &'static str,
    },
    Ed25519 {
        pair: Ed25519KeyPair,
        alg: &'static str,
    },
    Rsa {
        pair: RsaKeyPair,
        alg: &'static str,
    },
}

/// One ES256 key for all tests that do not care which.
pub fn client() -> Key {
    static CLIENT: LazyLock<Key> = LazyLock::new(Key::es256);
    CLIENT.clone()
}

impl Key {
    pub fn es256() -> Self {
        Self::ec(
            "ES256",
            "P-256",
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        )
    }

    pub fn es384() -> Self {
        Self::ec(
            "ES384",
            "P-384",
            &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        )
    }

    pub fn es512() -> Self {
        Self::ec(
            "ES512",
            "P-521",
            &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
        )
    }

    fn ec(
        alg: &'static str,
        crv: &'static str,
        algorithm: &'static signature::EcdsaSigningAlgorithm,
    ) -> Self {
        Self(Arc::new(Pair::Ec {
            pair: EcdsaKeyPair::generate(algorithm).unwrap(),
            alg,
            crv,
        }))
    }

    /// `alg` is `Ed25519` or `EdDSA`.
    pub fn ed25519(alg: &'static str) -> Self {
        Self(Arc::new(Pair::Ed25519 {
            pair: Ed25519KeyPair::generate().unwrap(),
            alg,
        }))
    }

    /// An RSA key of 2048 bits, generated once per process and algorithm.
    pub fn rsa(alg: &'static str) -> Self {
        Self::rsa_of_size(alg, KeySize::Rsa2048)
    }

    pub fn rsa_of_size(alg: &'static str, size: KeySize) -> Self {
        Self(Arc::new(Pair::Rsa {
            pair: RsaKeyPair::generate(size).unwrap(),
            alg,
        }))
    }

    pub fn alg(&self) -> &'static str {
        match &*self.0 {
            Pair::Ec { alg, .. } | Pair::Ed25519 { alg, .. } | Pair::Rsa { alg, .. } => alg,
        }
    }

    /// The public JWK, with its required members only.
    pub fn public_jwk(&self) -> Value {
        match &*self.0 {
            Pair::Ec { pair, crv, .. } => {
                let point: EcPublicKeyUncompressedBin<'_> =
                    pair.public_key().as_be_bytes().unwrap();
                let (x, y) = point.as_ref()[1..].split_at(point.as_ref().len() / 2);
                json!({ "kty": "EC", "crv": crv, "x": base64url(x), "y": base64url(y) })
            }
            Pair::Ed25519 { pair, .. } => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key()) })
            }
            Pair::Rsa { pair, .. } => {
                let PublicKeyComponents { n, e } =
                    PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({ "kty": "RSA", "n": base64url(n), "e": base64url(e) })
            }
        }
    }

    /// RFC 7638, computed another way than the crate does: serde_json writes maps in lexicographic
    /// order.
    pub fn thumbprint(&self) -> String {
        base64url(Sha256::digest(self.public_jwk().to_string()))
    }

    pub fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &*self.0 {
            Pair::Ec { pair, .. } => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed25519 { pair, .. } => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa { pair, alg } => {
                let encoding: &'static dyn signature::RsaEncoding = match *alg {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    alg => panic!("{alg} is not an RSA algorithm"),
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature)
                    .unwrap();
                signature
            }
        }
    }

    /// A compact JWS over any two JSON values.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(header.to_string(), claims.to_string())
    }

    /// A compact JWS over any two texts, JSON or not.
    pub fn sign_text(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        let input = format!("{}.{}", base64url(header), base64url(payload));
        let signature = base64url(self.signature(input.as_bytes()));
        format!("{input}.{signature}")
    }
}
