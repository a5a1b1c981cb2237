//! The signer of proofs.

use std::future::{Future, ready};

use crate::jose::algorithm::Algorithm;
use crate::jose::jwk::Jwk;
use crate::jose::signing_key::{SigningError, SigningKey};

/// Signs proofs, with a [`SigningKey`] or with a key that this process cannot read: in an HSM, a key
/// management service, or a platform's keystore.
///
/// The algorithm and the public key must not change during the signer's lifetime: tokens are bound
/// to the public key.
///
/// # Example
///
/// ```
/// use tower_dpop::client::ProofSigner;
/// use tower_dpop::jose::{Jwk, SigningError};
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
///         // r and s, 32 bytes each. If the service returns DER, convert it here.
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
    /// Returns the signature in the form that a JWS contains, before base64url encoding. ECDSA
    /// signatures are `r ‖ s` at full length ([RFC 7518 section
    /// 3.4](https://www.rfc-editor.org/rfc/rfc7518#section-3.4)), never DER.
    fn sign(
        &self,
        signing_input: &[u8],
    ) -> impl Future<Output = Result<Vec<u8>, SigningError>> + Send;
}

impl ProofSigner for SigningKey {
    fn algorithm(&self) -> Algorithm {
        SigningKey::algorithm(self)
    }

    fn public_key(&self) -> &Jwk {
        SigningKey::public_key(self)
    }

    fn sign(
        &self,
        signing_input: &[u8],
    ) -> impl Future<Output = Result<Vec<u8>, SigningError>> + Send {
        ready(self.sign_now(signing_input))
    }
}
