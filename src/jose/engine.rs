//! The verification of signatures: the only file that names a cryptography crate for it.
//!
//! Two engines, one verdict: everything in which they differ is decided here or in `jwk.rs`, before
//! either is asked.
//!
//! | question | AWS-LC | RustCrypto | here |
//! |---|---|---|---|
//! | ECDSA signature length | exact | exact | exact |
//! | high S (RFC 9449's own examples have it) | accepted | accepted | accepted |
//! | RSA signature shorter than the modulus | refused | refused | exact length asked first |
//! | PSS salt | length of the hash | length of the hash | length of the hash |
//! | Ed25519: small-order key, non-canonical key | accepted | refused, accepted | refused in `jwk.rs` |
//! | Ed25519: small-order R | accepted | refused (`verify_strict`) | refused |
//!
//! With both features on, AWS-LC verifies; there is no process-wide choice.

use crate::jose::algorithm::Algorithm;
use crate::jose::jwk::{Jwk, Material, ed25519_is_small_order};

#[cfg(not(any(feature = "aws-lc-rs", feature = "rust-crypto")))]
compile_error!(
    "tower-dpop needs an engine that verifies signatures: switch on the feature `aws-lc-rs` (default) or `rust-crypto`"
);

#[cfg(feature = "aws-lc-rs")]
use self::aws_lc::Key;
#[cfg(not(feature = "aws-lc-rs"))]
use self::rust_crypto::Key;

/// A public key that the engine has parsed for one algorithm.
pub(crate) struct VerificationKey {
    key: Key,
    algorithm: Algorithm,
    signature_length: usize,
}

impl VerificationKey {
    /// Checks what the form could not show: that the key goes with the algorithm, that a point lies
    /// on its curve.
    pub(crate) fn parse(jwk: &Jwk, algorithm: Algorithm) -> Result<Self, KeyRejected> {
        if !jwk.goes_with(algorithm) {
            return Err(KeyRejected);
        }
        let signature_length = match jwk.material() {
            Material::P256(_) | Material::Ed25519(_) => 64,
            Material::P384(_) => 96,
            Material::P521(_) => 132,
            Material::Rsa { n, .. } => n.len(),
        };
        Ok(Self {
            key: Key::parse(jwk.material(), algorithm)?,
            algorithm,
            signature_length,
        })
    }

    /// RFC 7515 section 5.2, step 8.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureRejected> {
        if signature.len() != self.signature_length {
            return Err(SignatureRejected);
        }
        if let (Algorithm::Ed25519 | Algorithm::EdDsa, Some(r)) =
            (self.algorithm, signature.first_chunk())
            && ed25519_is_small_order(r)
        {
            return Err(SignatureRejected);
        }
        self.key.verify(message, signature)
    }
}

impl Jwk {
    /// Verifies a signature by this key: what
    /// [`Verifier::verify`](crate::verifier::Verifier::verify) does with a proof's, last of all its
    /// checks.
    ///
    /// ECDSA signatures are `r ‖ s` at full length (RFC 7518 section 3.4), never DER.
    ///
    /// # Errors
    ///
    /// The key does not go with the algorithm, its point is not on the curve, or the signature is
    /// not one of this message by this key.
    ///
    /// # Security
    ///
    /// A signature by the key that a message itself names proves nothing about the sender. Compare
    /// the key's [`thumbprint`](Jwk::thumbprint) with one you have from somewhere else.
    pub fn verify(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureRejected> {
        let key =
            VerificationKey::parse(self, algorithm).map_err(|KeyRejected| SignatureRejected)?;
        key.verify(message, signature)
    }
}

/// The key cannot verify anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyRejected;

/// The signature does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct SignatureRejected;

#[cfg(feature = "aws-lc-rs")]
mod aws_lc {
    use aws_lc_rs::rsa::PublicKeyComponents;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
        ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
        RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
        RSA_PSS_2048_8192_SHA512,
    };

    use super::{Algorithm, KeyRejected, Material, SignatureRejected};

    pub(super) struct Key(ParsedPublicKey);

    impl Key {
        pub(super) fn parse(
            material: &Material,
            algorithm: Algorithm,
        ) -> Result<Self, KeyRejected> {
            let parsed = match material {
                Material::P256(point) => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point),
                Material::P384(point) => ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point),
                Material::P521(point) => ParsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point),
                Material::Ed25519(x) => ParsedPublicKey::new(&ED25519, x),
                Material::Rsa { n, e } => {
                    let parameters = match algorithm {
                        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
                        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
                        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
                        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
                        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
                        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
                        _ => return Err(KeyRejected),
                    };
                    PublicKeyComponents { n, e }.to_parsed_public_key(parameters)
                }
            };
            parsed.map(Self).map_err(|_| KeyRejected)
        }

        pub(super) fn verify(
            &self,
            message: &[u8],
            signature: &[u8],
        ) -> Result<(), SignatureRejected> {
            self.0
                .verify_sig(message, signature)
                .map_err(|_| SignatureRejected)
        }
    }
}

#[cfg(feature = "rust-crypto")]
#[cfg_attr(
    feature = "aws-lc-rs",
    allow(
        dead_code,
        reason = "with both engines on, only the tests that compare them use this one"
    )
)]
mod rust_crypto {
    use p256::ecdsa::signature::Verifier as _;
    use rsa::sha2::{Digest as _, Sha256, Sha384, Sha512};
    use rsa::{BigUint, Pkcs1v15Sign, Pss, RsaPublicKey};

    use super::{Algorithm, KeyRejected, Material, SignatureRejected};

    pub(super) enum Key {
        P256(Box<p256::ecdsa::VerifyingKey>),
        P384(Box<p384::ecdsa::VerifyingKey>),
        P521(Box<p521::ecdsa::VerifyingKey>),
        Ed25519(Box<ed25519_dalek::VerifyingKey>),
        Rsa(Box<RsaPublicKey>, Algorithm),
    }

    impl Key {
        pub(super) fn parse(
            material: &Material,
            algorithm: Algorithm,
        ) -> Result<Self, KeyRejected> {
            match material {
                Material::P256(point) => p256::ecdsa::VerifyingKey::from_sec1_bytes(point)
                    .map(Box::new)
                    .map(Self::P256)
                    .map_err(|_| KeyRejected),
                Material::P384(point) => p384::ecdsa::VerifyingKey::from_sec1_bytes(point)
                    .map(Box::new)
                    .map(Self::P384)
                    .map_err(|_| KeyRejected),
                Material::P521(point) => p521::ecdsa::VerifyingKey::from_sec1_bytes(point)
                    .map(Box::new)
                    .map(Self::P521)
                    .map_err(|_| KeyRejected),
                Material::Ed25519(x) => ed25519_dalek::VerifyingKey::from_bytes(x)
                    .map(Box::new)
                    .map(Self::Ed25519)
                    .map_err(|_| KeyRejected),
                Material::Rsa { n, e } => RsaPublicKey::new_with_max_size(
                    BigUint::from_bytes_be(n),
                    BigUint::from_bytes_be(e),
                    8192,
                )
                .map(|key| Self::Rsa(Box::new(key), algorithm))
                .map_err(|_| KeyRejected),
            }
        }

        pub(super) fn verify(
            &self,
            message: &[u8],
            signature: &[u8],
        ) -> Result<(), SignatureRejected> {
            let verified = match self {
                Self::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                    .and_then(|signature| key.verify(message, &signature))
                    .is_ok(),
                Self::P384(key) => p384::ecdsa::Signature::from_slice(signature)
                    .and_then(|signature| key.verify(message, &signature))
                    .is_ok(),
                Self::P521(key) => p521::ecdsa::Signature::from_slice(signature)
                    .and_then(|signature| key.verify(message, &signature))
                    .is_ok(),
                Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                    .and_then(|signature| key.verify_strict(message, &signature))
                    .is_ok(),
                Self::Rsa(key, algorithm) => match algorithm {
                    Algorithm::Rs256 => key.verify(
                        Pkcs1v15Sign::new::<Sha256>(),
                        &Sha256::digest(message),
                        signature,
                    ),
                    Algorithm::Rs384 => key.verify(
                        Pkcs1v15Sign::new::<Sha384>(),
                        &Sha384::digest(message),
                        signature,
                    ),
                    Algorithm::Rs512 => key.verify(
                        Pkcs1v15Sign::new::<Sha512>(),
                        &Sha512::digest(message),
                        signature,
                    ),
                    Algorithm::Ps256 => {
                        key.verify(Pss::new::<Sha256>(), &Sha256::digest(message), signature)
                    }
                    Algorithm::Ps384 => {
                        key.verify(Pss::new::<Sha384>(), &Sha384::digest(message), signature)
                    }
                    Algorithm::Ps512 => {
                        key.verify(Pss::new::<Sha512>(), &Sha512::digest(message), signature)
                    }
                    _ => return Err(SignatureRejected),
                }
                .is_ok(),
            };
            if verified {
                Ok(())
            } else {
                Err(SignatureRejected)
            }
        }
    }
}
