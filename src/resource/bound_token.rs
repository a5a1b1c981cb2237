//! The bond between an access token and the key that signed the proof.

use std::fmt;
use std::sync::Arc;

use derive_where::derive_where;

use crate::credentials::PresentedToken;
use crate::jose::algorithm::Algorithm;
use crate::jose::thumbprint::Thumbprint;
use crate::proof::checks::{ClaimedProof, Proof};
use crate::time::Timestamp;
use crate::tokens::access_token::{AccessToken, Confirmation};
use crate::tokens::claims::Claims;

/// An access token that was presented by the holder of the key it is bound to.
///
/// The layer puts it into the extensions of every request it lets through. It cannot be made by
/// hand, so a handler that takes one cannot be reached without it. Cloning is cheap.
#[derive_where(Clone)]
pub struct BoundToken<C = Claims>(Arc<Bound<C>>);

struct Bound<C> {
    claims: Arc<C>,
    thumbprint: Thumbprint,
    algorithm: Algorithm,
    expires: Option<Timestamp>,
}

impl<C> BoundToken<C> {
    /// RFC 9449 section 4.3, check 12, second half: "the public key to which the access token is
    /// bound matches the public key from the DPoP proof."
    pub(crate) fn bind(
        token: AccessToken<C>,
        proof: &Proof<PresentedToken<'_>>,
    ) -> Result<Self, BindingError> {
        check(&token, proof.thumbprint())?;
        Ok(Self(Arc::new(Bound {
            claims: token.claims,
            thumbprint: proof.thumbprint(),
            algorithm: proof.algorithm(),
            expires: token.expires,
        })))
    }

    /// What the token says.
    pub fn claims(&self) -> &C {
        &self.0.claims
    }

    /// The thumbprint (`jkt`) of the client's key: an identity of the client's key that is stable
    /// over its requests.
    pub fn thumbprint(&self) -> Thumbprint {
        self.0.thumbprint
    }

    /// The algorithm by which the client signed its proof. A service that remembers keys can hold
    /// each to one algorithm (RFC 8725bis).
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// When the token expires, where its verifier said so. A service that keeps a connection open
    /// (WebSocket, server-sent events, streaming gRPC) should end it then: the layer sees only the
    /// request that opened it.
    pub fn expires(&self) -> Option<Timestamp> {
        self.0.expires
    }
}

/// The same comparison before the signature is verified: the cheaper refusal.
pub(crate) fn check_binding_early<C>(
    token: &AccessToken<C>,
    proof: &ClaimedProof<'_, PresentedToken<'_>>,
) -> Result<(), BindingError> {
    check(token, proof.thumbprint())
}

fn check<C>(token: &AccessToken<C>, thumbprint: Thumbprint) -> Result<(), BindingError> {
    match token.confirmation {
        Confirmation::Thumbprint(jkt) if jkt == thumbprint => Ok(()),
        Confirmation::Thumbprint(_) => Err(BindingError::OtherKey),
        Confirmation::Unbound => Err(BindingError::Unbound),
        Confirmation::Unconfirmable => Err(BindingError::Unconfirmable),
    }
}

impl<C> fmt::Debug for BoundToken<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundToken")
            .field("expires", &self.0.expires)
            .finish_non_exhaustive()
    }
}

/// The token and the proof do not belong together (RFC 9449 sections 6 and 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindingError {
    /// The token is bound to another key. The sentence is that of RFC 9449, Figure 16.
    #[error("Invalid DPoP key binding")]
    OtherKey,
    /// The token is bound to nothing.
    #[error("the access token is not bound to a key")]
    Unbound,
    /// The token is bound by a method that cannot be confirmed here.
    #[error("the access token is bound in a way that is not supported")]
    Unconfirmable,
}

impl BindingError {
    /// A name for the reason, for metrics and logs: one of a fixed set.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::OtherKey => "binding_other_key",
            Self::Unbound => "binding_unbound",
            Self::Unconfirmable => "binding_unconfirmable",
        }
    }
}
