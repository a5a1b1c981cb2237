//! Why a request was refused, whose fault it is, and what the client is told.
//!
//! | fault | status | `error` |
//! |---|---|---|
//! | no access token | 401 | none |
//! | an access token under the Bearer scheme, or longer than 32 KiB | 401 | `invalid_token` |
//! | broken or several `Authorization` fields | 400 | `invalid_request` |
//! | nonce missing, stale or foreign | 401 | `use_dpop_nonce`, with `DPoP-Nonce` and `Cache-Control: no-store` |
//! | the proof, or a request that no proof could be for | 401 | `invalid_dpop_proof` |
//! | the access token, or its binding | 401 | `invalid_token` |
//! | the access token's scope | 403 | `insufficient_scope` |
//! | ours | 503 | no challenge, `Retry-After` |
//!
//! ```text
//! challenge = "DPoP" 1*SP #auth-param
//!
//! WWW-Authenticate: DPoP error="invalid_token", error_description="Invalid DPoP key binding",
//!     algs="ES256 PS256"
//! ```
//!
//! [RFC 9449 section 7.1](https://www.rfc-editor.org/rfc/rfc9449#section-7.1) has the form of a
//! challenge. Nothing of the request is ever repeated in one.

use std::fmt::{self, Write as _};

use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};

use crate::binding::BindingError;
use crate::credentials::CredentialsError;
use crate::jose::algorithm::Algorithms;
use crate::nonce::{Nonce, NonceError};
use crate::proof::ProofError;
use crate::proof_policy::PolicyError;
use crate::replay::ReplayStoreError;
use crate::target::TargetError;
use crate::token::TokenError;

/// Why a request was refused. Found in the extensions of every refused response, for logs, metrics
/// and bodies. The variants stand in the order in which a request is checked.
///
/// # Example
///
/// ```
/// use tower_dpop::rejection::Rejection;
///
/// fn body_for(response: &http::Response<()>) -> Option<String> {
///     response.extensions().get::<Rejection>().map(|rejection| format!("refused: {rejection}"))
/// }
/// # let _ = body_for;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The header fields hold no access token, or not just one.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The request addresses nothing that a proof could be for.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The proof fails a check of RFC 9449 section 4.3.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The access token is not good.
    #[error(transparent)]
    Token(TokenError),
    /// The access token is not bound to the key that signed the proof.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// The nonce is missing, stale or not ours.
    #[error(transparent)]
    Nonce(#[from] NonceError),
    /// We could not say. Our fault, not the client's.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// What we lacked to decide.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The replay memory.
    #[error(transparent)]
    Replay(ReplayStoreError),
    /// What verifies access tokens.
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

impl From<ReplayStoreError> for Rejection {
    fn from(error: ReplayStoreError) -> Self {
        Self::Unavailable(Unavailable::Replay(error))
    }
}

impl From<PolicyError> for Rejection {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::Nonce(error) => error.into(),
            PolicyError::Proof(error) => error.into(),
            PolicyError::Replay(error) => error.into(),
        }
    }
}

impl Rejection {
    /// The status of the response.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Credentials(CredentialsError::Ambiguous | CredentialsError::Malformed) => {
                StatusCode::BAD_REQUEST
            }
            Self::Token(TokenError::InsufficientScope) => StatusCode::FORBIDDEN,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Credentials(_)
            | Self::Target(_)
            | Self::Nonce(_)
            | Self::Proof(_)
            | Self::Token(_)
            | Self::Binding(_) => StatusCode::UNAUTHORIZED,
        }
    }

    /// The `error` of the challenge. A request without credentials gets none (RFC 9449 section
    /// 7.2), nor does a fault of ours.
    pub const fn error_code(&self) -> Option<&'static str> {
        match self {
            Self::Credentials(CredentialsError::Missing) | Self::Unavailable(_) => None,
            Self::Credentials(CredentialsError::Ambiguous | CredentialsError::Malformed) => {
                Some("invalid_request")
            }
            Self::Target(_) | Self::Proof(_) => Some("invalid_dpop_proof"),
            Self::Nonce(_) => Some("use_dpop_nonce"),
            Self::Token(TokenError::InsufficientScope) => Some("insufficient_scope"),
            Self::Credentials(CredentialsError::Bearer | CredentialsError::TokenTooLong)
            | Self::Token(_)
            | Self::Binding(_) => Some("invalid_token"),
        }
    }

    /// One event per refusal. A rejection holds nothing of the request but by how much a time is off
    /// and which part of the URL differs.
    pub(crate) fn report(&self) {
        if let Self::Unavailable(_) = self {
            tracing::error!(reason = %self, detail = ?self, "request refused: cannot decide");
        } else {
            tracing::info!(reason = %self, detail = ?self, "request refused");
        }
    }
}

/// What every challenge of a service says.
#[derive(Clone, Debug)]
pub(crate) struct Challenge {
    pub(crate) algorithms: Algorithms,
    pub(crate) realm: Option<QuotedText>,
    pub(crate) scope: Option<QuotedText>,
    pub(crate) resource_metadata: Option<QuotedText>,
}

impl Challenge {
    /// The whole answer to a refused request, with an empty body.
    pub(crate) fn refuse<B: Default>(
        &self,
        rejection: Rejection,
        nonce: Option<&Nonce>,
    ) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = rejection.status();
        let headers = response.headers_mut();
        if let Rejection::Unavailable(_) = rejection {
            // Soon: a full memory empties with every second, and whatever else is out of reach has
            // timeouts of its own.
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        } else {
            headers.insert(WWW_AUTHENTICATE, self.render(&rejection));
        }
        if let Some(nonce) = nonce {
            nonce.write_to(headers);
        }
        response.extensions_mut().insert(rejection);
        response
    }

    fn render(&self, rejection: &Rejection) -> HeaderValue {
        let mut challenge = String::from("DPoP ");
        let mut parameter = |name: &str, value: &dyn fmt::Display| {
            let separator = if challenge.ends_with(' ') { "" } else { ", " };
            // Writing to a String does not fail.
            let _ = write!(challenge, r#"{separator}{name}="{value}""#);
        };
        if let Some(realm) = &self.realm {
            parameter("realm", realm);
        }
        if let Some(code) = rejection.error_code() {
            parameter("error", &code);
            match rejection {
                // The sentence of RFC 9449 section 9; the log says what was wrong with the nonce.
                Rejection::Nonce(_) => parameter(
                    "error_description",
                    &"Resource server requires nonce in DPoP proof",
                ),
                rejection => parameter("error_description", rejection),
            }
        }
        if let Some(scope) = &self.scope {
            parameter("scope", scope);
        }
        parameter("algs", &self.algorithms);
        if let Some(url) = &self.resource_metadata {
            parameter("resource_metadata", url);
        }
        HeaderValue::from_str(&challenge)
            .expect("descriptions and QuotedText hold visible ASCII only")
    }
}

/// Text that can stand between quotes in a challenge as it is: visible ASCII and spaces, without
/// `"` and `\` (RFC 6750 section 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotedText(String);

impl std::str::FromStr for QuotedText {
    type Err = NotQuotable;

    fn from_str(text: &str) -> Result<Self, NotQuotable> {
        let quotable = text
            .bytes()
            .all(|octet| (octet == b' ' || octet.is_ascii_graphic()) && !b"\"\\".contains(&octet));
        if quotable {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotQuotable)
        }
    }
}

impl fmt::Display for QuotedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text holds a quote, a backslash, or something that is not visible ASCII. The deployer's
/// mistake, seen at start-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a challenge can hold visible ASCII without quotes and backslashes only")]
pub struct NotQuotable;
