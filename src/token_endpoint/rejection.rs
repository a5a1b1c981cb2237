//! Why a token request was rejected, and the response to the client.

use http::StatusCode;
use serde_json::json;

use crate::proof::checks::ProofError;
use crate::proof::nonce::NonceError;
use crate::proof::replay::store::ReplayStoreError;
use crate::proof::rules::RuleError;
use crate::proof::target::TargetError;
use crate::telemetry::Fault;
use crate::token_endpoint::proven_key::{DpopJktError, GrantBindingError};

/// Why a token request, or a pushed authorization request, was rejected: in the extensions of every
/// response to a rejected request, for logs and metrics. The [module](crate::token_endpoint) lists the
/// responses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenRequestRejection {
    /// The request has no target that a proof could name.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The proof fails a check of RFC 9449 section 4.3.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The nonce is missing, stale, from the future or not from this server.
    #[error(transparent)]
    Nonce(#[from] NonceError),
    /// The `dpop_jkt` of the authorization request is invalid.
    #[error(transparent)]
    DpopJkt(#[from] DpopJktError),
    /// The code or refresh token is bound to a key, and the request has no proof by that key.
    #[error(transparent)]
    GrantBinding(#[from] GrantBindingError),
    /// The client has used its share of the replay store
    /// ([`ReplayStoreError::ClientLimit`], 429).
    #[error("too many requests by this client: its share of the replay store is used up")]
    TooManyRequests,
    /// The replay store could not decide: a server error, not a client error.
    #[error(transparent)]
    Unavailable(ReplayStoreError),
}

impl From<ReplayStoreError> for TokenRequestRejection {
    fn from(error: ReplayStoreError) -> Self {
        match error {
            ReplayStoreError::ClientLimit => Self::TooManyRequests,
            error => Self::Unavailable(error),
        }
    }
}

impl From<RuleError> for TokenRequestRejection {
    fn from(error: RuleError) -> Self {
        match error {
            RuleError::Nonce(error) => error.into(),
            RuleError::Proof(error) => error.into(),
            RuleError::Replay(error) => error.into(),
        }
    }
}

impl TokenRequestRejection {
    /// The status of the response.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Target(_)
            | Self::Proof(_)
            | Self::Nonce(_)
            | Self::DpopJkt(_)
            | Self::GrantBinding(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// The `error` of the response. Responses with 429 and 503 have none.
    pub const fn error_code(&self) -> Option<&'static str> {
        match self {
            Self::Proof(_) | Self::GrantBinding(GrantBindingError::NoProof) => {
                Some("invalid_dpop_proof")
            }
            Self::Nonce(_) => Some("use_dpop_nonce"),
            Self::GrantBinding(_) => Some("invalid_grant"),
            Self::Target(_) | Self::DpopJkt(_) => Some("invalid_request"),
            Self::TooManyRequests | Self::Unavailable(_) => None,
        }
    }

    /// The JSON of RFC 6749 section 5.2, or an empty string if there is no `error`. A description is
    /// used as it is: it contains no request data.
    pub(crate) fn body(&self) -> String {
        let Some(error) = self.error_code() else {
            return String::new();
        };
        let description = match self {
            // The sentence of RFC 9449, Figure 20; the log states what was wrong with the nonce.
            Self::Nonce(_) => "Authorization server requires nonce in DPoP proof".to_owned(),
            rejection => rejection.to_string(),
        };
        json!({ "error": error, "error_description": description }).to_string()
    }

    /// A name for the reason, for metrics and alerts: one of a fixed set, lower case with
    /// underscores (`proof_replayed`, `grant_no_proof`). The names are stable.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Target(error) => error.reason(),
            Self::Proof(error) => error.reason(),
            Self::Nonce(error) => error.reason(),
            Self::DpopJkt(error) => match error {
                DpopJktError::Contradictory => "dpop_jkt_contradictory",
                DpopJktError::Malformed => "dpop_jkt_malformed",
            },
            Self::GrantBinding(error) => match error {
                GrantBindingError::CodeOfOtherKey => "grant_code_of_other_key",
                GrantBindingError::NoProof => "grant_no_proof",
                GrantBindingError::RefreshTokenOfOtherKey => "grant_refresh_token_of_other_key",
            },
            Self::TooManyRequests => ReplayStoreError::ClientLimit.reason(),
            Self::Unavailable(error) => error.reason(),
        }
    }

    /// Whether the client or the server is at fault.
    pub(crate) const fn fault(&self) -> Fault {
        match self {
            Self::Unavailable(_) => Fault::Server,
            _ => Fault::Client,
        }
    }
}
