//! A signer of any type, so that the client needs no type parameter for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::client::signer::ProofSigner;
use crate::jose::algorithm::Algorithm;
use crate::jose::jwk::Jwk;
use crate::jose::signing_key::SigningError;

/// Clones share the signer.
#[derive(Clone)]
pub(crate) struct AnySigner(Arc<dyn Erased>);

impl AnySigner {
    pub(crate) fn new(signer: impl ProofSigner) -> Self {
        Self(Arc::new(signer))
    }
}

type Signature<'s> = Pin<Box<dyn Future<Output = Result<Vec<u8>, SigningError>> + Send + 's>>;

/// [`ProofSigner`] with a boxed future.
trait Erased: Send + Sync + 'static {
    fn algorithm(&self) -> Algorithm;
    fn public_key(&self) -> &Jwk;
    fn sign<'s>(&'s self, signing_input: &'s [u8]) -> Signature<'s>;
}

impl<S: ProofSigner> Erased for S {
    fn algorithm(&self) -> Algorithm {
        ProofSigner::algorithm(self)
    }

    fn public_key(&self) -> &Jwk {
        ProofSigner::public_key(self)
    }

    fn sign<'s>(&'s self, signing_input: &'s [u8]) -> Signature<'s> {
        Box::pin(ProofSigner::sign(self, signing_input))
    }
}

impl ProofSigner for AnySigner {
    fn algorithm(&self) -> Algorithm {
        Erased::algorithm(self.0.as_ref())
    }

    fn public_key(&self) -> &Jwk {
        Erased::public_key(self.0.as_ref())
    }

    async fn sign(&self, signing_input: &[u8]) -> Result<Vec<u8>, SigningError> {
        Erased::sign(self.0.as_ref(), signing_input).await
    }
}
