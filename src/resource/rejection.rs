//! Why a request was rejected, whose fault it is, and what the client learns.

use std::fmt;

use http::StatusCode;

use crate::credentials::{CredentialsError, Scheme};
use crate::proof::checks::ProofError;
use crate::proof::nonce::NonceError;
use crate::proof::replay::store::ReplayStoreError;
use crate::proof::rules::RuleError;
use crate::proof::target::TargetError;
use crate::resource::bearer::BearerError;
use crate::resource::bound_token::BindingError;
use crate::resource::requirement::AuthorizationError;
use crate::telemetry::Fault;
use crate::tokens::access_token::TokenError;

/// Why a request was rejected. It is in the extensions of every response to a rejected request, for
/// logs, metrics and bodies ([`ProblemDetailsLayer`](crate::resource::ProblemDetailsLayer)). The
/// variants are roughly in the order of the checks: the signature and the replay check of a proof come
/// after its token and nonce.
///
/// | cause | status | `error` |
/// |---|---|---|
/// | no access token | 401 | none |
/// | an access token under the Bearer scheme, if that is not allowed, or an access token longer than 32 KiB | 401 | `invalid_token` |
/// | malformed or several `Authorization` fields | 400 | `invalid_request` |
/// | the nonce is missing, stale, from the future or not from this server | 401 | `use_dpop_nonce`, with `DPoP-Nonce` and `Cache-Control: no-store` |
/// | the proof, or a request that no proof can be made for | 401 | `invalid_dpop_proof` |
/// | the access token, or its binding | 401 | `invalid_token` |
/// | a bound access token under the Bearer scheme | 401 | `invalid_token` |
/// | the access token does not allow the request | 403 | `insufficient_scope` |
/// | the user was not authenticated as required | 401 | `insufficient_user_authentication` |
/// | the client's share of the replay store is used up | 429 | no challenge, `Retry-After` |
/// | the server could not decide | 503 | no challenge, `Retry-After` |
///
/// ```text
/// challenge = "DPoP" 1*SP #auth-param
///
/// WWW-Authenticate: DPoP error="invalid_token", error_description="Invalid DPoP key binding",
///     algs="ES256 PS256"
/// ```
///
/// [RFC 9449 section 7.1](https://www.rfc-editor.org/rfc/rfc9449#section-7.1) defines the form of a
/// challenge. No request data is echoed in a challenge.
///
/// If Bearer is allowed, a 401 has a challenge for each scheme. The error is in the challenge of the
/// scheme that was used, or in both if the request leaves that open ([section
/// 7.2](https://www.rfc-editor.org/rfc/rfc9449#section-7.2), Figures 17 to 19). A valid token that does
/// not allow the request is reported in the scheme that was used only.
///
/// # Example
///
/// ```
/// use tower_dpop::Rejection;
///
/// fn body_for(response: &http::Response<()>) -> Option<String> {
///     response.extensions().get::<Rejection>().map(|rejection| format!("rejected: {rejection}"))
/// }
/// # let _ = body_for;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The header fields contain no access token, more than one, or one that is malformed, too long or
    /// under a scheme that is not allowed.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The request has no target that a proof can be made for.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The proof fails a check of RFC 9449 section 4.3.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The access token is not valid.
    #[error(transparent)]
    Token(TokenError),
    /// The access token is not bound to the key that signed the proof.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// The nonce is missing, stale, from the future or not from this server.
    #[error(transparent)]
    Nonce(#[from] NonceError),
    /// The access token under the Bearer scheme is not accepted.
    #[error(transparent)]
    Bearer(BearerError),
    /// The access token under the DPoP scheme is valid, but does not allow this request.
    #[error(transparent)]
    Authorization(#[from] AuthorizationError),
    /// The client has used its share of the replay store
    /// ([`ReplayStoreError::ClientLimit`], 429).
    #[error("too many requests by this client: its share of the replay store is used up")]
    TooManyRequests,
    /// The server could not decide (503). It is the server's fault, not the client's.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// What the server lacked to decide.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The replay store.
    #[error(transparent)]
    Replay(ReplayStoreError),
    /// The verifier of access tokens.
    #[error("access tokens cannot be verified now")]
    Token,
}

impl From<TokenError> for Rejection {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Unavailable => Self::Unavailable(Unavailable::Token),
            error => Self::Token(error),
        }
    }
}

impl From<BearerError> for Rejection {
    fn from(error: BearerError) -> Self {
        match error {
            BearerError::Token(TokenError::Unavailable) => Self::Unavailable(Unavailable::Token),
            error => Self::Bearer(error),
        }
    }
}

impl From<ReplayStoreError> for Rejection {
    fn from(error: ReplayStoreError) -> Self {
        match error {
            ReplayStoreError::ClientLimit => Self::TooManyRequests,
            error => Self::Unavailable(Unavailable::Replay(error)),
        }
    }
}

impl From<RuleError> for Rejection {
    fn from(error: RuleError) -> Self {
        match error {
            RuleError::Nonce(error) => error.into(),
            RuleError::Proof(error) => error.into(),
            RuleError::Replay(error) => error.into(),
        }
    }
}

impl Rejection {
    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Credentials(CredentialsError::Ambiguous | CredentialsError::Malformed) => {
                StatusCode::BAD_REQUEST
            }
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ if self.error_code() == Some("insufficient_scope") => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    /// The `error` of the challenge. There is none for a request without credentials (RFC 9449 section
    /// 7.2), nor for one that was rejected for a reason outside of its credentials (429, 503).
    pub const fn error_code(&self) -> Option<&'static str> {
        match self {
            Self::Credentials(CredentialsError::Missing)
            | Self::TooManyRequests
            | Self::Unavailable(_) => None,
            Self::Credentials(CredentialsError::Ambiguous | CredentialsError::Malformed) => {
                Some("invalid_request")
            }
            Self::Target(_) | Self::Proof(_) => Some("invalid_dpop_proof"),
            Self::Nonce(_) => Some("use_dpop_nonce"),
            Self::Authorization(error) | Self::Bearer(BearerError::Authorization(error)) => {
                Some(match error {
                    AuthorizationError::Authentication { .. } => "insufficient_user_authentication",
                    AuthorizationError::NotMet | AuthorizationError::Scope { .. } => {
                        "insufficient_scope"
                    }
                })
            }
            Self::Token(TokenError::InsufficientScope)
            | Self::Bearer(BearerError::Token(TokenError::InsufficientScope)) => {
                Some("insufficient_scope")
            }
            Self::Credentials(CredentialsError::Bearer | CredentialsError::TokenTooLong)
            | Self::Token(_)
            | Self::Binding(_)
            | Self::Bearer(_) => Some("invalid_token"),
        }
    }

    /// The scheme that the request used, if that is certain.
    pub const fn scheme(&self) -> Option<Scheme> {
        match self {
            Self::Credentials(CredentialsError::Bearer) | Self::Bearer(_) => Some(Scheme::Bearer),
            Self::Credentials(
                CredentialsError::Ambiguous
                | CredentialsError::Malformed
                | CredentialsError::Missing,
            )
            | Self::TooManyRequests
            | Self::Unavailable(_) => None,
            Self::Credentials(CredentialsError::TokenTooLong)
            | Self::Target(_)
            | Self::Proof(_)
            | Self::Token(_)
            | Self::Binding(_)
            | Self::Nonce(_)
            | Self::Authorization(_) => Some(Scheme::Dpop),
        }
    }

    /// A name for the reason, for metrics and alerts: one of a fixed set, lower case with
    /// underscores (`proof_replayed`, `token_expired`). The names are stable.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Credentials(error) => error.reason(),
            Self::Target(error) => error.reason(),
            Self::Proof(error) => error.reason(),
            Self::Token(error) => error.reason(),
            Self::Binding(error) => error.reason(),
            Self::Nonce(error) => error.reason(),
            Self::Bearer(error) => error.reason(),
            Self::Authorization(error) => error.reason(),
            Self::TooManyRequests => ReplayStoreError::ClientLimit.reason(),
            Self::Unavailable(Unavailable::Replay(error)) => error.reason(),
            Self::Unavailable(Unavailable::Token) => "unavailable_token",
        }
    }

    /// The text for the client, in the challenge and in a body. It contains no request data.
    pub(crate) fn description(&self) -> &dyn fmt::Display {
        match self {
            // The text of RFC 9449 section 9. The log says what was wrong with the nonce.
            Self::Nonce(_) => &"Resource server requires nonce in DPoP proof",
            rejection => rejection,
        }
    }

    /// What a valid token lacks.
    pub(crate) const fn authorization(&self) -> Option<&AuthorizationError> {
        match self {
            Self::Authorization(error) | Self::Bearer(BearerError::Authorization(error)) => {
                Some(error)
            }
            _ => None,
        }
    }

    /// Whose fault it is.
    pub(crate) const fn fault(&self) -> Fault {
        match self {
            Self::Unavailable(_) => Fault::Server,
            _ => Fault::Client,
        }
    }
}
