//! The binding of an access token to the key that signed the proof.

use std::fmt;
use std::sync::Arc;

use derive_where::derive_where;

use crate::credentials::PresentedToken;
use crate::jose::algorithm::Algorithm;
use crate::jose::thumbprint::Thumbprint;
use crate::proof::checks::{Proof, UnverifiedProof};
use crate::time::Timestamp;
use crate::tokens::access_token::{AccessToken, Confirmation};
use crate::tokens::claims::Claims;

/// An access token that was presented by the holder of the key it is bound to.
///
/// The layer inserts it into the extensions of every request that it accepts under the DPoP scheme. It
/// cannot be constructed outside this crate, so a handler that takes one is never called without it.
/// Cloning is cheap.
///
/// # Example
///
/// An axum handler takes it as an argument, with the feature `axum` (`token: BoundToken`) and without:
///
/// ```
/// use axum::Extension;
/// use tower_dpop::BoundToken;
///
/// async fn orders(Extension(token): Extension<BoundToken>) -> String {
///     let subject = token.claims().subject().unwrap_or("a machine");
///     let client = token.claims().client_id().unwrap_or("an unknown client");
///     format!("the orders of {subject}, for {client} with the key {}", token.thumbprint())
/// }
/// # let _ = orders;
/// ```
///
/// If the verifier reads tokens [into a type of your own](crate::JwtVerifier::with_claims), it is a `BoundToken<OrderClaims>`.
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

    /// The claims of the token.
    pub fn claims(&self) -> &C {
        &self.0.claims
    }

    /// The thumbprint (`jkt`) of the client's key. It identifies the key and is the same for all
    /// requests by it.
    pub fn thumbprint(&self) -> Thumbprint {
        self.0.thumbprint
    }

    /// The algorithm that the client used to sign its proof. A service that remembers keys can restrict
    /// each key to one algorithm (RFC 8725bis).
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// When the token expires, if its verifier reported that. A service that keeps a connection open
    /// (WebSocket, server-sent events, streaming gRPC) should close it then: the layer sees only the
    /// request that opened it.
    pub fn expires(&self) -> Option<Timestamp> {
        self.0.expires
    }
}

/// The same check before the signature is verified, because rejecting is cheaper then.
pub(crate) fn check_binding_early<C>(
    token: &AccessToken<C>,
    proof: &UnverifiedProof<'_, PresentedToken<'_>>,
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

/// The token is not bound to the key of the proof (RFC 9449 sections 6 and 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindingError {
    /// The token is bound to another key. The text is that of RFC 9449, Figure 16.
    #[error("Invalid DPoP key binding")]
    OtherKey,
    /// The token is not bound.
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
