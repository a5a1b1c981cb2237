//! The private keys that this process signs with: a client's for proofs, a service's for client assertions.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::jose::algorithm::Algorithm;
use crate::jose::jwk::Jwk;
use crate::jose::key_documents::{self, SigningKeyError};
use crate::jose::private_key::PrivateKey;
use crate::jose::thumbprint::Thumbprint;

/// A private key of this process, its algorithm, and its public half. A client signs with it: its
/// proofs, and its assertions at an authorization server (`private_key_jwt`, [RFC 7523 section
/// 2.2](https://www.rfc-editor.org/rfc/rfc7523#section-2.2)). (Features `client` and `introspection`.)
///
/// Use each key for one purpose. Anyone who holds a key for proofs can use every token that is bound to
/// it. Anyone who holds a key for assertions can act in the client's name.
///
/// Clones share the key.
///
/// # Example
///
/// ```
/// use tower_dpop::jose::SigningKey;
///
/// let key = SigningKey::generate()?;
/// let pem = key.to_pkcs8_pem()?; // keep it where only this client can read it
///
/// let again = SigningKey::from_pkcs8_pem(pem.as_str())?;
/// assert_eq!(again.thumbprint(), key.thumbprint());
///
/// let signature = again.sign_now(b"signing input")?;
/// assert!(key.public_key().verify(key.algorithm(), b"signing input", &signature).is_ok());
///
/// assert!(SigningKey::from_pkcs8_pem("-----BEGIN PUBLIC KEY-----").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Security
///
/// Anyone who holds the private key can use every token that is bound to it. A key that cannot be
/// exported (from an HSM, or a platform's keystore) is safer than one in memory: implement
/// `client::ProofSigner` for it ([RFC 9449 section 11.4](https://www.rfc-editor.org/rfc/rfc9449#section-11.4)).
///
/// The private key is wiped from memory when the last clone is dropped. Every buffer of this crate
/// that it passed through is wiped too, in imports and exports as well. This does not cover copies
/// that the compiler leaves on the stack when values move, the temporaries of the cryptography
/// crates, and pages that were swapped out or dumped. You must wipe the text or bytes that you
/// imported from.
///
/// ECDSA signatures are deterministic ([RFC 6979](https://www.rfc-editor.org/rfc/rfc6979)). RSA
/// signs with AWS-LC if the feature `aws-lc-rs` is enabled. Without it, the time of a signature
/// depends on the private key, despite blinding (RUSTSEC-2023-0071). In that case, prefer another kind
/// of key.
#[derive(Clone)]
pub struct SigningKey {
    algorithm: Algorithm,
    key: Arc<PrivateKey>,
    key_id: Option<String>,
}

/// The order in which algorithms are chosen from a server's list, from fast to slow. The server's
/// list has no order of its own.
const PREFERENCE: [Algorithm; 11] = [
    Algorithm::Es256,
    Algorithm::Ed25519,
    Algorithm::EdDsa,
    Algorithm::Es384,
    Algorithm::Es512,
    Algorithm::Ps256,
    Algorithm::Ps384,
    Algorithm::Ps512,
    Algorithm::Rs256,
    Algorithm::Rs384,
    Algorithm::Rs512,
];

impl SigningKey {
    /// Generates a new key for ES256, which every server with DPoP is likely to accept.
    pub fn generate() -> Result<Self, SigningKeyError> {
        Self::generate_for(Algorithm::Es256)
    }

    /// Generates a new key for the algorithm.
    ///
    /// RSA keys have 2048 bits. Generating one takes about 0.1 seconds, or seconds without AWS-LC.
    ///
    /// # Panics
    ///
    /// For RSA without AWS-LC: if the operating system provides randomness at first, and stops while
    /// the key is being generated. `rsa` has no way to report it.
    pub fn generate_for(algorithm: Algorithm) -> Result<Self, SigningKeyError> {
        PrivateKey::generate(algorithm.key_type())
            .map(|key| Self {
                algorithm,
                key: Arc::new(key),
                key_id: None,
            })
            .ok_or(SigningKeyError::Generation)
    }

    /// Generates a new key for one of the algorithms that a server accepts: the `algs` of its challenge
    /// ([RFC 9449 section 7.1](https://www.rfc-editor.org/rfc/rfc9449#section-7.1)), or
    /// `dpop_signing_alg_values_supported` of its metadata, separated by spaces.
    ///
    /// Unknown names are skipped. Of the others, ES256 is preferred, then Ed25519, then the other
    /// curves, and RSA last.
    ///
    /// # Example
    ///
    /// ```
    /// use tower_dpop::jose::{SigningKey, SigningKeyError};
    /// use tower_dpop::Algorithm;
    ///
    /// let key = SigningKey::generate_for_one_of("RS256 ES256 ML-DSA-44")?;
    /// assert_eq!(key.algorithm(), Algorithm::Es256);
    ///
    /// let rejected = SigningKey::generate_for_one_of("none HS256").unwrap_err();
    /// assert_eq!(rejected, SigningKeyError::NoCommonAlgorithm);
    /// # Ok::<(), SigningKeyError>(())
    /// ```
    pub fn generate_for_one_of(algs: &str) -> Result<Self, SigningKeyError> {
        let accepted: Vec<Algorithm> = PREFERENCE
            .into_iter()
            .filter(|algorithm| {
                algs.split_ascii_whitespace()
                    .any(|name| name == algorithm.name())
            })
            .collect();
        match accepted.first() {
            Some(algorithm) => Self::generate_for(*algorithm),
            None => Err(SigningKeyError::NoCommonAlgorithm),
        }
    }

    /// Reads an unencrypted PKCS#8 private key ([RFC
    /// 5958](https://www.rfc-editor.org/rfc/rfc5958)): EC with P-256, P-384 or P-521, Ed25519, or
    /// RSA of 2048 to 8192 bits.
    ///
    /// PKCS#8 does not name an algorithm. The key signs with the ES algorithm of its curve, Ed25519,
    /// or PS256. See [`with_algorithm`](Self::with_algorithm).
    pub fn from_pkcs8_der(document: &[u8]) -> Result<Self, SigningKeyError> {
        key_documents::from_pkcs8_der(document).map(|key| Self::imported(key, None))
    }

    /// Reads an unencrypted PKCS#8 private key in PEM, with the label `PRIVATE KEY` and lines of 64
    /// characters ([RFC 7468](https://www.rfc-editor.org/rfc/rfc7468)), as
    /// [`from_pkcs8_der`](Self::from_pkcs8_der) does.
    pub fn from_pkcs8_pem(document: &str) -> Result<Self, SigningKeyError> {
        key_documents::from_pkcs8_pem(document).map(|key| Self::imported(key, None))
    }

    /// Reads a private JWK ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)), as strictly as a
    /// [`Jwk`] is read.
    ///
    /// Its `alg` is the key's algorithm; without one, the algorithm is that of
    /// [`from_pkcs8_der`](Self::from_pkcs8_der). Unknown members are ignored, including `kid`: see
    /// [`with_key_id`](Self::with_key_id).
    pub fn from_jwk(json: &str) -> Result<Self, SigningKeyError> {
        key_documents::from_jwk(json).map(|(key, algorithm)| Self::imported(key, algorithm))
    }

    fn imported(key: PrivateKey, named: Option<Algorithm>) -> Self {
        let algorithm = named.unwrap_or_else(|| key.default_algorithm());
        Self {
            algorithm,
            key: Arc::new(key),
            key_id: None,
        }
    }

    /// Signs with another algorithm for the same type of key: RS256 instead of PS256, EdDSA instead
    /// of Ed25519.
    pub fn with_algorithm(self, algorithm: Algorithm) -> Result<Self, SigningKeyError> {
        if algorithm.key_type() == self.key.key_type() {
            Ok(Self { algorithm, ..self })
        } else {
            Err(SigningKeyError::Algorithm)
        }
    }

    /// Sets the `kid` under which the key is registered at an authorization server, for client
    /// assertions. A proof has no `kid`: it carries the public key itself.
    #[must_use]
    pub fn with_key_id(self, key_id: impl Into<String>) -> Self {
        Self {
            key_id: Some(key_id.into()),
            ..self
        }
    }

    /// The key as unencrypted PKCS#8, which does not name the algorithm.
    pub fn to_pkcs8_der(&self) -> Result<SecretBytes, SigningKeyError> {
        key_documents::to_pkcs8_der(&self.key).map(SecretBytes)
    }

    /// The key as unencrypted PKCS#8 in PEM, which does not name the algorithm.
    pub fn to_pkcs8_pem(&self) -> Result<SecretText, SigningKeyError> {
        key_documents::to_pkcs8_pem(&self.key).map(SecretText)
    }

    /// The key as a private JWK, with the algorithm in `alg`.
    pub fn to_jwk(&self) -> Result<SecretText, SigningKeyError> {
        key_documents::to_jwk(&self.key, self.algorithm).map(SecretText)
    }

    /// The algorithm that the key signs with.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The `kid` in client assertions.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The public half, for the `jwk` of a proof's header.
    pub fn public_key(&self) -> &Jwk {
        self.key.public()
    }

    /// The thumbprint of the public half: the `jkt` of the tokens that are bound to the key, and the
    /// `dpop_jkt` of an authorization request.
    pub fn thumbprint(&self) -> Thumbprint {
        self.key.thumbprint()
    }

    /// Signs synchronously, on the current thread.
    ///
    /// The signature has the form that a JWS uses ([RFC 7518 section
    /// 3](https://www.rfc-editor.org/rfc/rfc7518#section-3)), not yet base64url.
    ///
    /// # Panics
    ///
    /// For RSA without AWS-LC: as in [`generate_for`](Self::generate_for), while the signature is being
    /// blinded.
    pub fn sign_now(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        self.key
            .sign(self.algorithm, message)
            .map_err(SigningError::new)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// Bytes that contain a private key, wiped when they are dropped.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// The bytes. If you copy them, you must wipe the copy.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

/// Text that contains a private key, wiped when it is dropped.
///
/// There is no `Display`, so that it does not end up in a log by mistake.
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The text. If you copy it, you must wipe the copy.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// The key could not sign: for example, a remote key was unreachable.
///
/// The signer's own error is the [`source`](Error::source).
#[derive(Debug, thiserror::Error)]
#[error("the key could not sign")]
pub struct SigningError(#[source] Box<dyn Error + Send + Sync>);

impl SigningError {
    /// A failure with its cause.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}
