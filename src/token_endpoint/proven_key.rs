//! The key that signed a proof, and the tokens, codes and refresh tokens bound to it.

use std::fmt;

use serde::Serialize;

use crate::jose::algorithm::Algorithm;
use crate::jose::thumbprint::{InvalidThumbprint, Thumbprint};
use crate::proof::nonce::Nonce;

/// The `token_type` of a bound access token ([RFC 9449 section
/// 5](https://www.rfc-editor.org/rfc/rfc9449#section-5)).
pub const TOKEN_TYPE: &str = "DPoP";

/// The key that signed a request's proof: the sender of the request holds it.
///
/// The layer puts it into the extensions of every request that it accepts with a proof. It cannot
/// be constructed outside this crate.
///
/// # Example
///
/// ```
/// use serde_json::{Value, json};
/// use tower_dpop::token_endpoint::ProvenKey;
///
/// /// The claims of an access token that only the holder of this key can use.
/// fn claims(subject: &str, key: &ProvenKey) -> Value {
///     json!({ "sub": subject, "cnf": key.cnf() }) // "cnf": {"jkt": "0ZcOCORZNYy-…"}
/// }
/// # let _ = claims;
/// ```
#[derive(Clone)]
pub struct ProvenKey {
    pub(super) thumbprint: Thumbprint,
    pub(super) algorithm: Algorithm,
    pub(super) next_nonce: Option<Nonce>,
}

impl ProvenKey {
    /// The thumbprint (`jkt`) of the key, for binding tokens to it.
    pub const fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    /// The algorithm that the proof was signed with.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The confirmation claim of an access token that is bound to the key.
    pub const fn cnf(&self) -> Cnf {
        Cnf {
            jkt: self.thumbprint,
        }
    }

    /// The nonce for the client's next requests, if the one it used is near the end of its lifetime
    /// ([RFC 9449 section 8.2](https://www.rfc-editor.org/rfc/rfc9449#section-8.2)). Send it with a
    /// successful response; the layer does so itself.
    pub const fn next_nonce(&self) -> Option<&Nonce> {
        self.next_nonce.as_ref()
    }
}

impl fmt::Debug for ProvenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProvenKey")
            .field("next_nonce", &self.next_nonce)
            .finish_non_exhaustive()
    }
}

/// Rejects a code that is bound to a key other than the one that signed the token request's proof
/// ([RFC 9449 section 10](https://www.rfc-editor.org/rfc/rfc9449#section-10)).
///
/// `bound_to` is the result of [`authorization_request_key`] at the authorization request. A
/// request without a proof cannot redeem a bound code.
pub fn check_code_binding(
    key: Option<&ProvenKey>,
    bound_to: Option<Thumbprint>,
) -> Result<(), GrantBindingError> {
    check_binding(key, bound_to, GrantBindingError::CodeOfOtherKey)
}

/// Rejects a refresh token that is bound to another key ([RFC 9449 section
/// 5](https://www.rfc-editor.org/rfc/rfc9449#section-5)).
///
/// `bound_to` is the key of the request that the token was issued for, if its client is public;
/// `None` if the client is confidential, because such a client may change its key.
pub fn check_refresh_binding(
    key: Option<&ProvenKey>,
    bound_to: Option<Thumbprint>,
) -> Result<(), GrantBindingError> {
    check_binding(key, bound_to, GrantBindingError::RefreshTokenOfOtherKey)
}

fn check_binding(
    key: Option<&ProvenKey>,
    bound_to: Option<Thumbprint>,
    of_other_key: GrantBindingError,
) -> Result<(), GrantBindingError> {
    match (key, bound_to) {
        (_, None) => Ok(()),
        (None, Some(_)) => Err(GrantBindingError::NoProof),
        (Some(key), Some(bound_to)) if key.thumbprint == bound_to => Ok(()),
        (Some(_), Some(_)) => Err(of_other_key),
    }
}

/// The key to which an authorization request binds its code. Store it with the code ([RFC 9449
/// section 10.1](https://www.rfc-editor.org/rfc/rfc9449#section-10.1)).
///
/// A pushed authorization request may carry a proof, the parameter `dpop_jkt`, or both; the proof
/// counts as if `dpop_jkt` named its key. An authorization request through the browser has only the parameter.
pub fn authorization_request_key(
    key: Option<&ProvenKey>,
    dpop_jkt: Option<&str>,
) -> Result<Option<Thumbprint>, DpopJktError> {
    let named: Option<Thumbprint> = dpop_jkt
        .map(str::parse)
        .transpose()
        .map_err(|InvalidThumbprint| DpopJktError::Malformed)?;
    match (key.map(ProvenKey::thumbprint), named) {
        (Some(proven), Some(named)) if proven != named => Err(DpopJktError::Contradictory),
        (proven, named) => Ok(proven.or(named)),
    }
}

/// The confirmation claim of a bound access token, `{"jkt":"…"}` ([RFC 9449 section
/// 6.1](https://www.rfc-editor.org/rfc/rfc9449#section-6.1)): the `cnf` of a JWT, and of an
/// introspection response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Cnf {
    /// The thumbprint of the key.
    pub jkt: Thumbprint,
}

impl From<Thumbprint> for Cnf {
    fn from(jkt: Thumbprint) -> Self {
        Self { jkt }
    }
}

/// Why the `dpop_jkt` of an authorization request is rejected ([RFC 9449 section
/// 10](https://www.rfc-editor.org/rfc/rfc9449#section-10)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DpopJktError {
    /// It names a key other than the one that signed the proof of the pushed request (section 10.1).
    #[error("dpop_jkt and the DPoP proof name different keys")]
    Contradictory,
    /// Not the 43 characters of a thumbprint.
    #[error("dpop_jkt is not a thumbprint")]
    Malformed,
}

/// The grant of a token request is bound to a key, and the request has no proof by that key (RFC
/// 9449 sections 5 and 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrantBindingError {
    /// The authorization code is bound to another key.
    #[error("the authorization code is bound to another key")]
    CodeOfOtherKey,
    /// The code or refresh token is bound to a key, and the request has no proof.
    #[error("the grant is bound to a key, and there is no DPoP proof")]
    NoProof,
    /// The refresh token is bound to another key.
    #[error("the refresh token is bound to another key")]
    RefreshTokenOfOtherKey,
}
