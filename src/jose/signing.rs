//! Private keys: the only file that names a cryptography crate for signing.
//!
//! | key | signs with | why |
//! |---|---|---|
//! | P-256, P-384, P-521 | RustCrypto, whatever engine verifies | deterministic (RFC 6979): a poor random number cannot give the key away |
//! | Ed25519 | RustCrypto | deterministic by its standard (RFC 8032) |
//! | RSA | AWS-LC, where the feature `aws-lc-rs` is on | constant time |
//! | RSA | `rsa`, otherwise | the only one without C code |
//!
//! The last row has an open advisory, RUSTSEC-2023-0071 ("Marvin"): private operations of `rsa`
//! take a time that depends on the key, and whoever can measure many of them, over a network even,
//! may recover it. So AWS-LC signs where it is there; where it is not, every signature is blinded
//! with fresh randomness, which lessens the leak and does not close it. Other kinds of keys do not
//! have it.
//!
//! Both makers of RSA signatures take the same keys: what they would judge differently (the size,
//! the lengths of the primes) is decided here before either is asked.
//!
//! Every buffer of this file that has held private octets is wiped when it goes. Out of reach are:
//! what a value leaves behind on the stack when it is moved, the temporaries inside the
//! cryptography crates, and what the operating system swapped out or dumped.

use p256::ecdsa::signature::Signer as _;
use p256::elliptic_curve::Generate as _;
use pkcs1::RsaPrivateKeyRef;
use zeroize::Zeroizing;

use crate::jose::algorithm::{Algorithm, KeyType};
use crate::jose::base64url;
use crate::jose::jwk::{Jwk, JwkError, Parameters, Thumbprint, bits};

#[cfg(feature = "aws-lc-rs")]
use self::aws_lc as rsa_engine;
#[cfg(not(feature = "aws-lc-rs"))]
use self::rust_crypto as rsa_engine;

/// A private key and its public half, computed from it.
pub(crate) struct PrivateKey {
    half: Half,
    public: Jwk,
    thumbprint: Thumbprint,
}

/// The private half. Each kind wipes itself when it is dropped.
enum Half {
    Ec(Box<dyn EcKey>),
    Ed25519(Box<ed25519_dalek::SigningKey>),
    Rsa(Box<RsaKey>),
}

struct RsaKey {
    engine: rsa_engine::Key,
    /// The numbers, for exports: an engine does not hand all of them out again.
    pkcs1: Zeroizing<Vec<u8>>,
}

/// What tells one curve from another.
struct Curve {
    name: &'static str,
    /// The octets of a scalar, and of a coordinate.
    length: usize,
    generate: fn() -> Option<Box<dyn EcKey>>,
    /// `None` is a scalar of another length, zero, or not below the order.
    from_scalar: fn(&[u8]) -> Option<Box<dyn EcKey>>,
}

macro_rules! curves {
    ($($name:ident $curve:ident $crv:literal $length:literal,)*) => {$(
        static $name: Curve = Curve {
            name: $crv,
            length: $length,
            generate: || Some(Box::new($curve::ecdsa::SigningKey::try_generate().ok()?)),
            from_scalar: |scalar| Some(Box::new($curve::ecdsa::SigningKey::from_slice(scalar).ok()?)),
        };

        impl EcKey for $curve::ecdsa::SigningKey {
            fn scalar(&self) -> Zeroizing<Vec<u8>> {
                Zeroizing::new(Zeroizing::new(self.to_bytes()).to_vec())
            }

            fn point(&self) -> Vec<u8> {
                self.verifying_key().to_sec1_point(false).as_bytes().to_vec()
            }

            fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
                let signature: $curve::ecdsa::Signature = self.try_sign(message).ok()?;
                Some(signature.to_bytes().to_vec())
            }
        }
    )*};
}

curves! {
    P256 p256 "P-256" 32,
    P384 p384 "P-384" 48,
    P521 p521 "P-521" 66,
}

impl PrivateKey {
    /// `None` where the operating system gave no randomness, or the engine made no key of it.
    pub(crate) fn generate(key_type: KeyType) -> Option<Self> {
        let ec = |curve: &Curve| Self::ec(curve, (curve.generate)()?).ok();
        match key_type {
            KeyType::P256 => ec(&P256),
            KeyType::P384 => ec(&P384),
            KeyType::P521 => ec(&P521),
            KeyType::Ed25519 => {
                let mut seed = Zeroizing::new([0; 32]);
                getrandom::fill(seed.as_mut_slice()).ok()?;
                Self::ed25519(&seed).ok()
            }
            KeyType::Rsa => Self::rsa(&rsa_engine::generate()?).ok(),
        }
    }

    /// The key of the octets that [`secret`](Self::secret) gives out.
    pub(crate) fn from_secret(key_type: KeyType, secret: &[u8]) -> Result<Self, KeyRefused> {
        let ec = |curve: &Curve| {
            if secret.len() != curve.length {
                return Err(KeyRefused::Length);
            }
            Self::ec(
                curve,
                (curve.from_scalar)(secret).ok_or(KeyRefused::Scalar)?,
            )
        };
        match key_type {
            KeyType::P256 => ec(&P256),
            KeyType::P384 => ec(&P384),
            KeyType::P521 => ec(&P521),
            KeyType::Ed25519 => Self::ed25519(secret.try_into().map_err(|_| KeyRefused::Length)?),
            KeyType::Rsa => Self::rsa(secret),
        }
    }

    fn ec(curve: &Curve, key: Box<dyn EcKey>) -> Result<Self, KeyRefused> {
        let point = key.point();
        let (x, y) = point[1..].split_at(curve.length);
        let public = public(&Parameters {
            kty: Some("EC"),
            crv: Some(curve.name),
            x: Some(&base64url::encode(x)),
            y: Some(&base64url::encode(y)),
            ..Parameters::default()
        })?;
        Ok(Self::new(Half::Ec(key), public))
    }

    fn ed25519(seed: &[u8; 32]) -> Result<Self, KeyRefused> {
        let key = Box::new(ed25519_dalek::SigningKey::from_bytes(seed));
        let public = public(&Parameters {
            kty: Some("OKP"),
            crv: Some("Ed25519"),
            x: Some(&base64url::encode(key.verifying_key().as_bytes())),
            ..Parameters::default()
        })?;
        Ok(Self::new(Half::Ed25519(key), public))
    }

    fn rsa(pkcs1: &[u8]) -> Result<Self, KeyRefused> {
        let numbers = RsaPrivateKeyRef::try_from(pkcs1).map_err(|_| KeyRefused::Pkcs1)?;
        let (p, q) = (numbers.prime1.as_bytes(), numbers.prime2.as_bytes());
        // `rsa` counts up from q to p in steps of p.
        if numbers.other_prime_infos.is_some() || bits(p).abs_diff(bits(q)) > 1 {
            return Err(KeyRefused::Primes);
        }
        let (n, d) = (
            numbers.modulus.as_bytes(),
            numbers.private_exponent.as_bytes(),
        );
        let public = public(&Parameters {
            kty: Some("RSA"),
            n: Some(&base64url::encode(n)),
            e: Some(&base64url::encode(numbers.public_exponent.as_bytes())),
            ..Parameters::default()
        })?;
        if (d.len(), d) >= (n.len(), n) {
            return Err(KeyRefused::Mismatch);
        }
        let engine = rsa_engine::Key::parse(&numbers, pkcs1).ok_or(KeyRefused::Mismatch)?;
        // No engine asks whether the primes are prime. Both verify what they sign, and by a key
        // with others nothing verifies.
        engine
            .sign(Algorithm::Rs256, b"")
            .ok_or(KeyRefused::Mismatch)?;
        let pkcs1 = Zeroizing::new(pkcs1.to_vec());
        Ok(Self::new(
            Half::Rsa(Box::new(RsaKey { engine, pkcs1 })),
            public,
        ))
    }

    fn new(half: Half, public: Jwk) -> Self {
        Self {
            thumbprint: public.thumbprint(),
            half,
            public,
        }
    }

    /// The octets that the key is made of: an EC key's scalar at full length, the seed of Ed25519,
    /// an RSA key's `RSAPrivateKey` (RFC 8017 appendix A.1.2).
    pub(crate) fn secret(&self) -> Zeroizing<Vec<u8>> {
        match &self.half {
            Half::Ec(key) => key.scalar(),
            Half::Ed25519(key) => Zeroizing::new(key.as_bytes().to_vec()),
            Half::Rsa(key) => key.pkcs1.clone(),
        }
    }

    pub(crate) const fn public(&self) -> &Jwk {
        &self.public
    }

    pub(crate) const fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    pub(crate) const fn key_type(&self) -> KeyType {
        self.public.material().key_type()
    }

    /// The algorithm of a key that names none.
    pub(crate) const fn default_algorithm(&self) -> Algorithm {
        match self.key_type() {
            KeyType::P256 => Algorithm::Es256,
            KeyType::P384 => Algorithm::Es384,
            KeyType::P521 => Algorithm::Es512,
            KeyType::Ed25519 => Algorithm::Ed25519,
            KeyType::Rsa => Algorithm::Ps256,
        }
    }

    /// A raw JWS signature: `r ‖ s` for ECDSA (RFC 7518 section 3.4).
    pub(crate) fn sign(
        &self,
        algorithm: Algorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, SigningFailed> {
        if algorithm.key_type() != self.key_type() {
            return Err(SigningFailed);
        }
        self.half.sign(algorithm, message).ok_or(SigningFailed)
    }
}

impl Half {
    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Ec(key) => key.sign(message),
            Self::Ed25519(key) => Some(key.try_sign(message).ok()?.to_bytes().to_vec()),
            Self::Rsa(key) => key.engine.sign(algorithm, message),
        }
    }
}

/// An ECDSA key, whatever its curve.
trait EcKey: Send + Sync {
    fn scalar(&self) -> Zeroizing<Vec<u8>>;

    /// Uncompressed: `04 ‖ x ‖ y`.
    fn point(&self) -> Vec<u8>;

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>>;
}

fn public(parameters: &Parameters<'_>) -> Result<Jwk, KeyRefused> {
    Jwk::from_parameters(parameters).map_err(KeyRefused::Public)
}

/// Why octets make no private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyRefused {
    /// Neither a scalar of the curve's full length nor a seed of 32 octets.
    Length,
    /// The numbers of an RSA key do not belong together.
    Mismatch,
    /// Not an `RSAPrivateKey` in DER.
    Pkcs1,
    /// More than two primes, or two of unlike lengths.
    Primes,
    /// The public half would be refused in the header of a proof.
    Public(JwkError),
    /// The scalar is zero, or not below the order of the curve.
    Scalar,
}

/// The engine would not sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine made no signature")]
pub(crate) struct SigningFailed;

#[cfg(feature = "aws-lc-rs")]
mod aws_lc {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
        RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    };
    use pkcs1::RsaPrivateKeyRef;
    use pkcs8::PrivateKeyInfoRef;
    use zeroize::Zeroizing;

    use super::Algorithm;

    pub(super) struct Key(RsaKeyPair);

    /// The PKCS#1 of a new key of 2048 bits.
    pub(super) fn generate() -> Option<Zeroizing<Vec<u8>>> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).ok()?;
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().ok()?;
        let info = PrivateKeyInfoRef::try_from(pkcs8.as_ref()).ok()?;
        Some(Zeroizing::new(info.private_key.as_bytes().to_vec()))
    }

    impl Key {
        pub(super) fn parse(_: &RsaPrivateKeyRef<'_>, pkcs1: &[u8]) -> Option<Self> {
            RsaKeyPair::from_der(pkcs1).ok().map(Self)
        }

        pub(super) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Option<Vec<u8>> {
            let encoding: &'static dyn RsaEncoding = match algorithm {
                Algorithm::Ps256 => &RSA_PSS_SHA256,
                Algorithm::Ps384 => &RSA_PSS_SHA384,
                Algorithm::Ps512 => &RSA_PSS_SHA512,
                Algorithm::Rs256 => &RSA_PKCS1_SHA256,
                Algorithm::Rs384 => &RSA_PKCS1_SHA384,
                Algorithm::Rs512 => &RSA_PKCS1_SHA512,
                _ => return None,
            };
            let mut signature = vec![0; self.0.public_modulus_len()];
            self.0
                .sign(encoding, &SystemRandom::new(), message, &mut signature)
                .ok()?;
            Some(signature)
        }
    }
}

#[cfg(not(feature = "aws-lc-rs"))]
mod rust_crypto {
    use pkcs1::{RsaPrivateKeyRef, UintRef};
    use pkcs8::der::Encode as _;
    use rsa::rand_core::{CryptoRng, Error, RngCore, impls};
    use rsa::sha2::{Digest as _, Sha256, Sha384, Sha512};
    use rsa::traits::{PrivateKeyParts as _, PublicKeyParts as _};
    use rsa::{BigUint, Pkcs1v15Sign, Pss, RsaPrivateKey};
    use zeroize::Zeroizing;

    use super::Algorithm;

    pub(super) struct Key(RsaPrivateKey);

    /// The PKCS#1 of a new key of 2048 bits.
    pub(super) fn generate() -> Option<Zeroizing<Vec<u8>>> {
        let key = RsaPrivateKey::new(&mut OsRandom::new()?, 2048).ok()?;
        let [prime1, prime2] = key.primes() else {
            return None;
        };
        let coefficient = Zeroizing::new(key.crt_coefficient()?);
        let [
            modulus,
            public_exponent,
            private_exponent,
            prime1,
            prime2,
            exponent1,
            exponent2,
            coefficient,
        ] = [
            key.n(),
            key.e(),
            key.d(),
            prime1,
            prime2,
            key.dp()?,
            key.dq()?,
            &coefficient,
        ]
        .map(|number| Zeroizing::new(number.to_bytes_be()));
        let numbers = RsaPrivateKeyRef {
            modulus: UintRef::new(&modulus).ok()?,
            public_exponent: UintRef::new(&public_exponent).ok()?,
            private_exponent: UintRef::new(&private_exponent).ok()?,
            prime1: UintRef::new(&prime1).ok()?,
            prime2: UintRef::new(&prime2).ok()?,
            exponent1: UintRef::new(&exponent1).ok()?,
            exponent2: UintRef::new(&exponent2).ok()?,
            coefficient: UintRef::new(&coefficient).ok()?,
            other_prime_infos: None,
        };
        numbers.to_der().ok().map(Zeroizing::new)
    }

    impl Key {
        /// Checks what AWS-LC checks: that n = pq, that d is an inverse of e, and that the other
        /// three numbers follow from these.
        pub(super) fn parse(numbers: &RsaPrivateKeyRef<'_>, _: &[u8]) -> Option<Self> {
            let number = |octets: UintRef<'_>| BigUint::from_bytes_be(octets.as_bytes());
            let key = RsaPrivateKey::from_components(
                number(numbers.modulus),
                number(numbers.public_exponent),
                number(numbers.private_exponent),
                vec![number(numbers.prime1), number(numbers.prime2)],
            )
            .ok()?;
            let [dp, dq, qi] = [numbers.exponent1, numbers.exponent2, numbers.coefficient]
                .map(|octets| Zeroizing::new(number(octets)));
            let coefficient = Zeroizing::new(key.crt_coefficient()?);
            (key.dp() == Some(&*dp) && key.dq() == Some(&*dq) && *coefficient == *qi)
                .then_some(Self(key))
        }

        pub(super) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Option<Vec<u8>> {
            let key = &self.0;
            let mut random = OsRandom::new()?;
            match algorithm {
                Algorithm::Ps256 => key.sign_with_rng(
                    &mut random,
                    Pss::new_blinded::<Sha256>(),
                    &Sha256::digest(message),
                ),
                Algorithm::Ps384 => key.sign_with_rng(
                    &mut random,
                    Pss::new_blinded::<Sha384>(),
                    &Sha384::digest(message),
                ),
                Algorithm::Ps512 => key.sign_with_rng(
                    &mut random,
                    Pss::new_blinded::<Sha512>(),
                    &Sha512::digest(message),
                ),
                Algorithm::Rs256 => key.sign_with_rng(
                    &mut random,
                    Pkcs1v15Sign::new::<Sha256>(),
                    &Sha256::digest(message),
                ),
                Algorithm::Rs384 => key.sign_with_rng(
                    &mut random,
                    Pkcs1v15Sign::new::<Sha384>(),
                    &Sha384::digest(message),
                ),
                Algorithm::Rs512 => key.sign_with_rng(
                    &mut random,
                    Pkcs1v15Sign::new::<Sha512>(),
                    &Sha512::digest(message),
                ),
                _ => return None,
            }
            .ok()
        }
    }

    /// The operating system's randomness under the trait of `rsa`, which cannot report a failure.
    struct OsRandom;

    impl OsRandom {
        /// `None` where there is no randomness to be had. An operating system that has given some
        /// does not stop.
        fn new() -> Option<Self> {
            getrandom::fill(&mut [0]).ok().map(|()| Self)
        }
    }

    impl RngCore for OsRandom {
        fn next_u32(&mut self) -> u32 {
            impls::next_u32_via_fill(self)
        }

        fn next_u64(&mut self) -> u64 {
            impls::next_u64_via_fill(self)
        }

        fn fill_bytes(&mut self, octets: &mut [u8]) {
            getrandom::fill(octets).expect("the operating system goes on giving randomness");
        }

        fn try_fill_bytes(&mut self, octets: &mut [u8]) -> Result<(), Error> {
            self.fill_bytes(octets);
            Ok(())
        }
    }

    impl CryptoRng for OsRandom {}
}
