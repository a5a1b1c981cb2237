//! The key pair of a client.

use std::error::Error;
use std::fmt;
use std::future::{Future, ready};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::jose::algorithm::Algorithm;
use crate::jose::jwk::{Jwk, Thumbprint};
use crate::jose::private_key;
use crate::jose::signing::PrivateKey;

pub use crate::jose::private_key::ProofKeyError;

/// A private key of this process, the algorithm it signs by, and its public half.
///
/// Clones share the key.
///
/// # Example
///
/// ```
/// use tower_dpop::client::ProofKey;
///
/// let key = ProofKey::generate()?;
/// let pem = key.to_pkcs8_pem()?; // keep it where only this client can read it
///
/// let again = ProofKey::from_pkcs8_pem(pem.as_str())?;
/// assert_eq!(again.thumbprint(), key.thumbprint());
///
/// let signature = again.sign_now(b"signing input")?;
/// assert!(key.public_key().verify(key.algorithm(), b"signing input", &signature).is_ok());
///
/// assert!(ProofKey::from_pkcs8_pem("-----BEGIN PUBLIC KEY-----").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Security
///
/// Whoever has the private key can use every token that is bound to it. A key that cannot leave its
/// place (an HSM, a platform's keystore) is safer than one in memory: implement [`ProofSigner`] for
/// it ([RFC 9449 section 11.4](https://www.rfc-editor.org/rfc/rfc9449#section-11.4)).
///
/// The private key is wiped from memory when the last clone is dropped, and so is every buffer of
/// this crate that it passed through, in imports and exports too. What cannot be promised: copies
/// that the compiler leaves on the stack when values move, the temporaries of the cryptography
/// crates, pages that were swapped out or dumped, and the text or octets that you imported from,
/// which are yours to wipe.
///
/// ECDSA signatures are deterministic ([RFC 6979](https://www.rfc-editor.org/rfc/rfc6979)). RSA
/// signs with AWS-LC where the feature `aws-lc-rs` is on; without it, the time that a signature
/// takes depends on the private key, blinding notwithstanding (RUSTSEC-2023-0071): prefer another
/// kind of key in such a build.
#[derive(Clone)]
pub struct ProofKey {
    algorithm: Algorithm,
    key: Arc<PrivateKey>,
}

/// What is taken of a server's list first: the list has no order of its own, and these are from
/// the quick to the slow.
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

impl ProofKey {
    /// Makes a new key for ES256, which every server with DPoP is likely to accept.
    pub fn generate() -> Result<Self, ProofKeyError> {
        Self::generate_for(Algorithm::Es256)
    }

    /// Makes a new key for the algorithm.
    ///
    /// RSA keys have 2048 bits and take a while: a tenth of a second, or seconds without AWS-LC.
    ///
    /// # Panics
    ///
    /// For RSA without AWS-LC: the operating system has given randomness, and stops while the key is
    /// being made. `rsa` cannot be told of it.
    pub fn generate_for(algorithm: Algorithm) -> Result<Self, ProofKeyError> {
        PrivateKey::generate(algorithm.key_type())
            .map(|key| Self {
                algorithm,
                key: Arc::new(key),
            })
            .ok_or(ProofKeyError::Generation)
    }

    /// Makes a new key for one of the algorithms that a server accepts: the `algs` of its challenge
    /// ([RFC 9449 section 7.1](https://www.rfc-editor.org/rfc/rfc9449#section-7.1)), or
    /// `dpop_signing_alg_values_supported` of its metadata, separated by spaces.
    ///
    /// Names that are unknown here are skipped. Of the others ES256 is preferred, then Ed25519,
    /// then the other curves, and RSA last.
    ///
    /// # Example
    ///
    /// ```
    /// use tower_dpop::client::{ProofKey, ProofKeyError};
    /// use tower_dpop::Algorithm;
    ///
    /// let key = ProofKey::generate_for_one_of("RS256 ES256 ML-DSA-44")?;
    /// assert_eq!(key.algorithm(), Algorithm::Es256);
    ///
    /// let refused = ProofKey::generate_for_one_of("none HS256").unwrap_err();
    /// assert_eq!(refused, ProofKeyError::NoCommonAlgorithm);
    /// # Ok::<(), ProofKeyError>(())
    /// ```
    pub fn generate_for_one_of(algs: &str) -> Result<Self, ProofKeyError> {
        let accepted: Vec<Algorithm> = PREFERENCE
            .into_iter()
            .filter(|algorithm| {
                algs.split_ascii_whitespace()
                    .any(|name| name == algorithm.name())
            })
            .collect();
        match accepted.first() {
            Some(algorithm) => Self::generate_for(*algorithm),
            None => Err(ProofKeyError::NoCommonAlgorithm),
        }
    }

    /// Reads an unencrypted PKCS#8 private key ([RFC
    /// 5958](https://www.rfc-editor.org/rfc/rfc5958)): EC with P-256, P-384 or P-521, Ed25519, or
    /// RSA of 2048 to 8192 bits.
    ///
    /// PKCS#8 does not name an algorithm: the key is for the ES algorithm of its curve, Ed25519, or
    /// PS256. See [`with_algorithm`](Self::with_algorithm).
    pub fn from_pkcs8_der(document: &[u8]) -> Result<Self, ProofKeyError> {
        private_key::from_pkcs8_der(document).map(|key| Self::imported(key, None))
    }

    /// Reads an unencrypted PKCS#8 private key in PEM, with the label `PRIVATE KEY` and lines of 64
    /// characters ([RFC 7468](https://www.rfc-editor.org/rfc/rfc7468)), as
    /// [`from_pkcs8_der`](Self::from_pkcs8_der) does.
    pub fn from_pkcs8_pem(document: &str) -> Result<Self, ProofKeyError> {
        private_key::from_pkcs8_pem(document).map(|key| Self::imported(key, None))
    }

    /// Reads a private JWK ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)), as strictly as a
    /// [`Jwk`] is read.
    ///
    /// Its `alg` is the key's algorithm; without one, the algorithm is that of
    /// [`from_pkcs8_der`](Self::from_pkcs8_der). Unknown members are ignored, `kid` among them.
    pub fn from_jwk(json: &str) -> Result<Self, ProofKeyError> {
        private_key::from_jwk(json).map(|(key, algorithm)| Self::imported(key, algorithm))
    }

    fn imported(key: PrivateKey, named: Option<Algorithm>) -> Self {
        let algorithm = named.unwrap_or_else(|| key.default_algorithm());
        Self {
            algorithm,
            key: Arc::new(key),
        }
    }

    /// Signs by another algorithm for the same type of key: RS256 in place of PS256, EdDSA in place
    /// of Ed25519.
    pub fn with_algorithm(self, algorithm: Algorithm) -> Result<Self, ProofKeyError> {
        if algorithm.key_type() == self.key.key_type() {
            Ok(Self { algorithm, ..self })
        } else {
            Err(ProofKeyError::Algorithm)
        }
    }

    /// The key as unencrypted PKCS#8, which does not name the algorithm.
    pub fn to_pkcs8_der(&self) -> Result<SecretBytes, ProofKeyError> {
        private_key::to_pkcs8_der(&self.key).map(SecretBytes)
    }

    /// The key as unencrypted PKCS#8 in PEM, which does not name the algorithm.
    pub fn to_pkcs8_pem(&self) -> Result<SecretText, ProofKeyError> {
        private_key::to_pkcs8_pem(&self.key).map(SecretText)
    }

    /// The key as a private JWK, with the algorithm in `alg`.
    pub fn to_jwk(&self) -> Result<SecretText, ProofKeyError> {
        private_key::to_jwk(&self.key, self.algorithm).map(SecretText)
    }

    /// The algorithm that the key signs by.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The public half, for the `jwk` of a proof's header.
    pub fn public_key(&self) -> &Jwk {
        self.key.public()
    }

    /// The thumbprint of the public half: `jkt` of the tokens that are bound to the key, and
    /// `dpop_jkt` of an authorization request.
    pub fn thumbprint(&self) -> Thumbprint {
        self.key.thumbprint()
    }

    /// Signs at once, in this thread.
    ///
    /// The signature is as a JWS has it ([RFC 7518 section
    /// 3](https://www.rfc-editor.org/rfc/rfc7518#section-3)), not yet base64url.
    ///
    /// # Panics
    ///
    /// For RSA without AWS-LC: as [`generate_for`](Self::generate_for), while the signature is being
    /// blinded.
    pub fn sign_now(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        self.key
            .sign(self.algorithm, message)
            .map_err(SigningError::new)
    }
}

impl ProofSigner for ProofKey {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn public_key(&self) -> &Jwk {
        self.key.public()
    }

    fn sign(
        &self,
        signing_input: &[u8],
    ) -> impl Future<Output = Result<Vec<u8>, SigningError>> + Send {
        ready(self.sign_now(signing_input))
    }
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProofKey")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// What signs proofs: a [`ProofKey`], or a key that this process cannot read, in an HSM, a key
/// management service, or a platform's keystore.
///
/// The algorithm and the public key must not change during the signer's life: tokens are bound to
/// the public key.
///
/// # Example
///
/// ```
/// use tower_dpop::client::{ProofSigner, SigningError};
/// use tower_dpop::jose::Jwk;
/// use tower_dpop::Algorithm;
///
/// struct KmsKey {
///     client: KmsClient,
///     key_id: String,
///     public_key: Jwk, // fetched once, at start-up
/// }
///
/// impl ProofSigner for KmsKey {
///     fn algorithm(&self) -> Algorithm {
///         Algorithm::Es256
///     }
///
///     fn public_key(&self) -> &Jwk {
///         &self.public_key
///     }
///
///     async fn sign(&self, signing_input: &[u8]) -> Result<Vec<u8>, SigningError> {
///         // r and s, 32 octets each: a service that answers in DER needs a conversion here.
///         self.client.sign(&self.key_id, signing_input).await.map_err(SigningError::new)
///     }
/// }
/// # struct KmsClient;
/// # impl KmsClient {
/// #     async fn sign(&self, _: &str, _: &[u8]) -> Result<Vec<u8>, std::io::Error> {
/// #         Err(std::io::ErrorKind::TimedOut.into())
/// #     }
/// # }
/// ```
pub trait ProofSigner: Send + Sync + 'static {
    /// The algorithm of the signatures.
    fn algorithm(&self) -> Algorithm;

    /// The public key that verifies them.
    fn public_key(&self) -> &Jwk;

    /// Signs the first two segments of a proof.
    ///
    /// The signature is as a JWS has it, not yet base64url. ECDSA signatures are `r ‖ s` at full
    /// length ([RFC 7518 section 3.4](https://www.rfc-editor.org/rfc/rfc7518#section-3.4)), never
    /// DER.
    fn sign(
        &self,
        signing_input: &[u8],
    ) -> impl Future<Output = Result<Vec<u8>, SigningError>> + Send;
}

/// Octets with a private key in them, wiped when they are dropped.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// The octets. A copy of them is yours to wipe.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

/// Text with a private key in it, wiped when it is dropped.
///
/// There is no `Display`, so that it does not end in a log by mistake.
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The text. A copy of it is yours to wipe.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// The key could not sign: a remote one was out of reach, say.
///
/// What its signer says of it is the [`source`](Error::source).
#[derive(Debug, thiserror::Error)]
#[error("the key could not sign")]
pub struct SigningError(#[source] Box<dyn Error + Send + Sync>);

impl SigningError {
    /// The failure with its cause.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}
