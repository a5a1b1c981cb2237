//! Why an introspection request could not be sent, or got no usable response.

use http::StatusCode;

use crate::issuer::client_authentication::NoAssertion;
use crate::issuer::endpoint_url::EndpointUrl;
use crate::issuer::http::FetchError;
use crate::jose::json::{Text, object, read};
use crate::outage::{Outage, QUIET};
use crate::telemetry;
use crate::time::Timestamp;
use crate::tokens::introspection::signed_responses::InvalidSignedResponse;

object! {
    /// RFC 6749 section 5.2.
    struct ErrorResponse<'de> {
        error: Text<'de> = "error",
    }
}

/// RFC 7009 section 2.2.1.
pub(crate) fn is_unsupported_token_type(body: &[u8]) -> bool {
    let error = read(body)
        .ok()
        .and_then(|body: ErrorResponse<'_>| body.error);
    error.is_some_and(|error| error.as_str() == "unsupported_token_type")
}

/// Why the server could not decide whether a token is valid. For the log only: clients do not see
/// it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Assertion(#[from] NoAssertion),
    #[error("too many introspection requests are in flight")]
    TooManyInFlight,
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Signed(#[from] InvalidSignedResponse),
    #[error("the response is not an introspection response")]
    Malformed,
    #[error("the response has status {0}")]
    Status(StatusCode),
}

/// An introspection endpoint, and whether it works.
pub(crate) struct Endpoint {
    pub(crate) url: EndpointUrl,
    outage: Outage,
}

impl Endpoint {
    pub(crate) fn new(url: EndpointUrl) -> Self {
        Self {
            url,
            outage: Outage::new(),
        }
    }

    /// Counts a failure, and logs it if it is the first for its cause: each request is logged as rejected.
    pub(crate) fn failed(&self, failure: &Failure, now: Timestamp) {
        telemetry::introspection("failed");
        if !self.outage.failed(failure.to_string(), now) {
            return;
        }
        let host = self.url.url().host_str();
        // Other 4xx responses may be about the token, which may come from anyone.
        if let Failure::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) = failure {
            tracing::error!(host, reason = %failure, "the introspection endpoint does not accept this service's credentials");
        } else {
            tracing::warn!(host, reason = %failure, "an access token could not be introspected");
        }
    }

    /// Counts a response, and logs that it ends an outage.
    pub(crate) fn responded(&self, activity: &'static str, now: Timestamp) {
        telemetry::introspection(activity);
        if let Some(seconds) = self.outage.succeeded(QUIET, now) {
            let host = self.url.url().host_str();
            tracing::info!(host, seconds, "access tokens can be introspected again");
        }
    }
}
