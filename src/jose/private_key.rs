//! Private keys. With `rsa_signing.rs`, the only files that name a cryptography crate for signing.
//!
//! | key | signs with | why |
//! |---|---|---|
//! | P-256, P-384, P-521 | RustCrypto in any build | deterministic (RFC 6979): weak randomness cannot reveal the key |
//! | Ed25519 | RustCrypto | deterministic by its standard (RFC 8032) |
//! | RSA | AWS-LC, if the feature `aws-lc-rs` is enabled | constant time |
//! | RSA | `rsa`, otherwise | the only one without C code |
//!
//! The last row has an open advisory, RUSTSEC-2023-0071 ("Marvin"): the time of private operations
//! of `rsa` depends on the key. An attacker who can measure many of them, even over a network, may
//! recover the key. So AWS-LC signs if it is available. Otherwise every signature is blinded with
//! fresh randomness, which reduces the leak but does not close it. Other kinds of keys do not have
//! this leak.
//!
//! Both RSA implementations accept the same keys: the checks on which they would differ (the size,
//! the lengths of the primes) are made here, before either is called.
//!
//! Every buffer in this file that has held private bytes is wiped when it is dropped. This does not
//! cover what a value leaves behind on the stack when it is moved, the temporaries inside the
//! cryptography crates, and what the operating system swapped out or dumped.

use p256::ecdsa::signature::Signer as _;
use p256::elliptic_curve::Generate as _;
use pkcs1::RsaPrivateKeyRef;
use zeroize::Zeroizing;

use crate::jose::algorithm::{Algorithm, KeyType};
use crate::jose::jwk::{InvalidJwk, Jwk, Parameters, bits};
use crate::jose::thumbprint::Thumbprint;
use crate::jose::{base64url, rsa_signing};

/// A private key, and the public half computed from it.
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
    engine: rsa_signing::Key,
    /// The numbers, for exports: an engine does not return all of them.
    pkcs1: Zeroizing<Vec<u8>>,
}

/// What differs between the curves.
struct Curve {
    name: &'static str,
    /// The length of a scalar, and of a coordinate, in bytes.
    length: usize,
    generate: fn() -> Option<Box<dyn EcKey>>,
    /// `None` if the scalar has another length, is zero, or is not below the order.
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
    /// `None` if the operating system provided no randomness, or the engine made no key from it.
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
            KeyType::Rsa => Self::rsa(&rsa_signing::generate()?).ok(),
        }
    }

    /// The key from the bytes that [`secret`](Self::secret) returns.
    pub(crate) fn from_secret(key_type: KeyType, secret: &[u8]) -> Result<Self, KeyRejected> {
        let ec = |curve: &Curve| {
            if secret.len() != curve.length {
                return Err(KeyRejected::Length);
            }
            Self::ec(
                curve,
                (curve.from_scalar)(secret).ok_or(KeyRejected::Scalar)?,
            )
        };
        match key_type {
            KeyType::P256 => ec(&P256),
            KeyType::P384 => ec(&P384),
            KeyType::P521 => ec(&P521),
            KeyType::Ed25519 => Self::ed25519(secret.try_into().map_err(|_| KeyRejected::Length)?),
            KeyType::Rsa => Self::rsa(secret),
        }
    }

    fn ec(curve: &Curve, key: Box<dyn EcKey>) -> Result<Self, KeyRejected> {
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

    fn ed25519(seed: &[u8; 32]) -> Result<Self, KeyRejected> {
        let key = Box::new(ed25519_dalek::SigningKey::from_bytes(seed));
        let public = public(&Parameters {
            kty: Some("OKP"),
            crv: Some("Ed25519"),
            x: Some(&base64url::encode(key.verifying_key().as_bytes())),
            ..Parameters::default()
        })?;
        Ok(Self::new(Half::Ed25519(key), public))
    }

    fn rsa(pkcs1: &[u8]) -> Result<Self, KeyRejected> {
        let numbers = RsaPrivateKeyRef::try_from(pkcs1).map_err(|_| KeyRejected::Pkcs1)?;
        let (p, q) = (numbers.prime1.as_bytes(), numbers.prime2.as_bytes());
        // When it signs, `rsa` adds p in a loop, up to about q / p times.
        if numbers.other_prime_infos.is_some() || bits(p).abs_diff(bits(q)) > 1 {
            return Err(KeyRejected::Primes);
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
            return Err(KeyRejected::Mismatch);
        }
        let engine = rsa_signing::Key::parse(&numbers, pkcs1).ok_or(KeyRejected::Mismatch)?;
        // No engine checks that the primes are prime. Both verify what they sign, and with a key
        // whose primes are not prime, nothing verifies.
        engine
            .sign(Algorithm::Rs256, b"")
            .ok_or(KeyRejected::Mismatch)?;
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

    /// The private bytes: the full-length scalar of an EC key, the seed of an Ed25519 key, the
    /// `RSAPrivateKey` of an RSA key (RFC 8017 appendix A.1.2).
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

    /// The algorithm for a key that does not name one.
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

/// An ECDSA key, regardless of its curve.
trait EcKey: Send + Sync {
    fn scalar(&self) -> Zeroizing<Vec<u8>>;

    /// Uncompressed: `04 ‖ x ‖ y`.
    fn point(&self) -> Vec<u8>;

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>>;
}

fn public(parameters: &Parameters<'_>) -> Result<Jwk, KeyRejected> {
    Jwk::from_parameters(parameters).map_err(KeyRejected::Public)
}

/// Why the bytes are not a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyRejected {
    /// Neither a scalar of the curve's full length nor a seed of 32 bytes.
    Length,
    /// The numbers of an RSA key do not match each other.
    Mismatch,
    /// Not an `RSAPrivateKey` in DER.
    Pkcs1,
    /// More than two primes, or two whose lengths differ by more than one bit.
    Primes,
    /// The public half would be rejected in the header of a proof.
    Public(InvalidJwk),
    /// The scalar is zero, or not below the order of the curve.
    Scalar,
}

/// The engine did not sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cryptography engine could not sign")]
pub(crate) struct SigningFailed;
