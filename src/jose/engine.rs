//! The verification of signatures: the only file that names a cryptography crate for it.
//!
//! Two engines, one result: every case in which they differ is decided here or in `jwk.rs`, before
//! either engine is called.
//!
//! | case | AWS-LC | RustCrypto | here |
//! |---|---|---|---|
//! | ECDSA signature length | exact | exact | exact |
//! | high S (the examples in RFC 9449 have it) | accepted | accepted | accepted |
//! | RSA signature shorter than the modulus | rejected | rejected | exact length checked first |
//! | PSS salt | length of the hash | length of the hash | length of the hash |
//! | Ed25519: small-order key | accepted | rejected | rejected in `jwk.rs` |
//! | Ed25519: non-canonical key | accepted | accepted | rejected in `jwk.rs` |
//! | Ed25519: small-order R | accepted | rejected (`verify_strict`) | rejected |
//! | Ed25519: S not below L | rejected | rejected, unless another crate enables a feature | rejected |
//! | Ed25519: key not on the curve | detected when verifying | detected when parsing | detected when verifying |
//! | PSS: signature not below the modulus | rejected | accepted | rejected |
//! | PSS: first byte, with a modulus of 8k + 1 bits | checked | not checked | checked |
//!
//! With both features enabled, AWS-LC verifies. There is no process-wide choice.

use crate::jose::algorithm::Algorithm;
use crate::jose::ed25519;
use crate::jose::jwk::{Jwk, Material, SignatureRejected};

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
    /// Checks what reading the JWK could not check: that the key matches the algorithm, and that a
    /// point lies on its curve.
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
        if let (Algorithm::Ed25519 | Algorithm::EdDsa, Some(r), Some(s)) = (
            self.algorithm,
            signature.first_chunk(),
            signature.last_chunk(),
        ) && (ed25519::is_small_order(r) || !ed25519::is_reduced(s))
        {
            return Err(SignatureRejected);
        }
        self.key.verify(message, signature)
    }
}

impl Jwk {
    /// Verifies a signature with this key.
    ///
    /// ECDSA signatures are `r ‖ s` at full length (RFC 7518 section 3.4), never DER.
    ///
    /// # Errors
    ///
    /// The key does not match the algorithm, its point is not on the curve, or the signature is not
    /// a valid signature of this message by this key.
    ///
    /// # Security
    ///
    /// If the message itself names the key, a valid signature proves nothing about the sender.
    /// Compare the key's [`thumbprint`](Jwk::thumbprint) with one from another source.
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
        reason = "with both engines on, only the test that compares them uses this one"
    )
)]
mod rust_crypto {
    use p256::ecdsa::signature::Verifier as _;
    use rsa::sha2::{Digest as _, Sha256, Sha384, Sha512};
    use rsa::traits::PublicKeyParts as _;
    use rsa::{BigUint, Pkcs1v15Sign, Pss, RsaPublicKey};

    use super::{Algorithm, KeyRejected, Material, SignatureRejected};

    pub(super) enum Key {
        P256(Box<p256::ecdsa::VerifyingKey>),
        P384(Box<p384::ecdsa::VerifyingKey>),
        P521(Box<p521::ecdsa::VerifyingKey>),
        /// `None` if the point is not on the curve: AWS-LC detects that only when it verifies.
        Ed25519(Option<Box<ed25519_dalek::VerifyingKey>>),
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
                Material::Ed25519(x) => Ok(Self::Ed25519(
                    ed25519_dalek::VerifyingKey::from_bytes(x)
                        .ok()
                        .map(Box::new),
                )),
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
                Self::Ed25519(None) => false,
                Self::Ed25519(Some(key)) => ed25519_dalek::Signature::from_slice(signature)
                    .and_then(|signature| key.verify_strict(message, &signature))
                    .is_ok(),
                Self::Rsa(key, algorithm) if !rsa_is_in_range(key, *algorithm, signature) => false,
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

    /// RFC 8017 section 8.1.2, steps 2b and 2c, which the PSS of `rsa` omits: the signature is below
    /// the modulus, and the message representative fits into the length of an encoded message. That
    /// length is one byte shorter than the modulus if the modulus has 8k + 1 bits.
    fn rsa_is_in_range(key: &RsaPublicKey, algorithm: Algorithm, signature: &[u8]) -> bool {
        let (n, signature) = (key.n(), BigUint::from_bytes_be(signature));
        let pss = matches!(
            algorithm,
            Algorithm::Ps256 | Algorithm::Ps384 | Algorithm::Ps512
        );
        signature < *n
            && !(pss && n.bits() % 8 == 1 && signature.modpow(key.e(), n).bits() == n.bits())
    }
}

#[cfg(all(test, feature = "aws-lc-rs", feature = "rust-crypto"))]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
        ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
        KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
        RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    };

    use super::*;

    const MESSAGE: &[u8] = b"one result";

    fn ec(
        alg: Algorithm,
        signing: &'static EcdsaSigningAlgorithm,
    ) -> (Algorithm, Material, Vec<u8>) {
        let pair = EcdsaKeyPair::generate(signing).unwrap();
        let signature = pair
            .sign(&SystemRandom::new(), MESSAGE)
            .unwrap()
            .as_ref()
            .to_vec();
        let point = pair.public_key().as_ref();
        let material = match alg {
            Algorithm::Es256 => Material::P256(point.try_into().unwrap()),
            Algorithm::Es384 => Material::P384(point.try_into().unwrap()),
            _ => Material::P521(point.try_into().unwrap()),
        };
        (alg, material, signature)
    }

    fn rsa(alg: Algorithm, encoding: &'static dyn RsaEncoding) -> (Algorithm, Material, Vec<u8>) {
        let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &SystemRandom::new(), MESSAGE, &mut signature)
            .unwrap();
        let n = pair
            .public_key()
            .modulus()
            .big_endian_without_leading_zero()
            .to_vec();
        let e = pair
            .public_key()
            .exponent()
            .big_endian_without_leading_zero()
            .to_vec();
        (alg, Material::Rsa { n, e }, signature)
    }

    fn ed25519() -> (Algorithm, Material, Vec<u8>) {
        let pair = Ed25519KeyPair::generate().unwrap();
        let x = pair.public_key().as_ref().try_into().unwrap();
        (
            Algorithm::Ed25519,
            Material::Ed25519(x),
            pair.sign(MESSAGE).as_ref().to_vec(),
        )
    }

    /// The bytes of the key in which a bit can be flipped.
    fn bytes_of(material: &mut Material) -> &mut [u8] {
        match material {
            Material::P256(point) => &mut point[1..],
            Material::P384(point) => &mut point[1..],
            Material::P521(point) => &mut point[1..],
            Material::Ed25519(x) => x,
            Material::Rsa { n, .. } => n,
        }
    }

    /// Runs both engines in one process on the same keys and signatures: unchanged, and with one bit
    /// flipped.
    #[test]
    fn both_engines_give_one_result() {
        let pairs = [
            ec(Algorithm::Es256, &ECDSA_P256_SHA256_FIXED_SIGNING),
            ec(Algorithm::Es384, &ECDSA_P384_SHA384_FIXED_SIGNING),
            ec(Algorithm::Es512, &ECDSA_P521_SHA512_FIXED_SIGNING),
            ed25519(),
            rsa(Algorithm::Ps256, &RSA_PSS_SHA256),
            rsa(Algorithm::Ps384, &RSA_PSS_SHA384),
            rsa(Algorithm::Ps512, &RSA_PSS_SHA512),
            rsa(Algorithm::Rs256, &RSA_PKCS1_SHA256),
            rsa(Algorithm::Rs384, &RSA_PKCS1_SHA384),
            rsa(Algorithm::Rs512, &RSA_PKCS1_SHA512),
        ];
        for (algorithm, material, signature) in pairs {
            let results = |material: &Material, message: &[u8], signature: &[u8]| {
                let one = aws_lc::Key::parse(material, algorithm)
                    .is_ok_and(|key| key.verify(message, signature).is_ok());
                let other = rust_crypto::Key::parse(material, algorithm)
                    .is_ok_and(|key| key.verify(message, signature).is_ok());
                (one, other)
            };
            assert_eq!(
                results(&material, MESSAGE, &signature),
                (true, true),
                "{algorithm}"
            );
            assert_eq!(
                results(&material, b"another", &signature),
                (false, false),
                "{algorithm}"
            );
            let above_all = vec![0xff; signature.len()];
            assert_eq!(
                results(&material, MESSAGE, &above_all),
                (false, false),
                "{algorithm}: above the modulus or the order"
            );
            for bit in (0..signature.len() * 8).step_by(37) {
                let mut turned = signature.clone();
                turned[bit / 8] ^= 1 << (bit % 8);
                let results = results(&material, MESSAGE, &turned);
                assert_eq!(
                    results,
                    (false, false),
                    "{algorithm}: bit {bit} of the signature"
                );
            }
            let mut key = material.clone();
            for bit in (0..bytes_of(&mut key).len() * 8).step_by(37) {
                bytes_of(&mut key)[bit / 8] ^= 1 << (bit % 8);
                let results = results(&key, MESSAGE, &signature);
                assert_eq!(results, (false, false), "{algorithm}: bit {bit} of the key");
                bytes_of(&mut key)[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
