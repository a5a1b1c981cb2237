//! The response of the service under test, and assertions about it.

use std::fmt::{self, Write as _};

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde_json::Value;

use crate::client::challenge::Challenge;
use crate::credentials::Scheme;
use crate::proof::checks::ProofError;
use crate::proof::freshness::IatError;
use crate::proof::nonce::DPOP_NONCE;
use crate::resource::rejection::Rejection;
use crate::token_endpoint::TokenRequestRejection;

/// The head of a response, with assertions that compare it with the expected one.
///
/// Each assertion takes a name, for example that of a table row or of a
/// [`Defect`](crate::testing::Defect). Its message begins with this name. No message shows more of
/// the response than its status and what it says about the error.
///
/// # Example
///
/// ```
/// use http::Response;
/// use tower_dpop::proof::ProofError;
/// use tower_dpop::testing::TestResponse;
///
/// let rejected = Response::builder()
///     .status(401)
///     .header(
///         "www-authenticate",
///         r#"DPoP error="invalid_dpop_proof", error_description="the DPoP proof was used before", algs="ES256""#,
///     )
///     .body(())?;
/// let response = TestResponse::of(&rejected);
/// response.assert_rejected("the second time", 401, Some("invalid_dpop_proof"));
/// response.assert_reason("the second time", ProofError::Replayed);
/// assert!(std::panic::catch_unwind(|| response.assert_passed("the second time")).is_err());
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct TestResponse {
    /// The status.
    pub status: StatusCode,
    /// The `WWW-Authenticate` fields.
    pub challenges: Vec<String>,
    /// The `DPoP-Nonce` fields.
    pub nonces: Vec<String>,
    /// The last `Cache-Control` field.
    pub cache_control: Option<String>,
    /// The last `Retry-After` field.
    pub retry_after: Option<String>,
    /// Why the layer rejected the request. It is not on the wire: it is in the extensions of a
    /// response of this process.
    pub rejection: Option<Rejection>,
    /// Why the layer of a token endpoint rejected the request, from the same place.
    pub token_request_rejection: Option<TokenRequestRejection>,
    parsed: Vec<Challenge>,
    content_type: Option<String>,
}

impl TestResponse {
    /// Reads the head of a response, from over the wire or from this process.
    pub fn of<B>(response: &Response<B>) -> Self {
        let headers = response.headers();
        let texts = |name: HeaderName| -> Vec<String> {
            headers
                .get_all(name)
                .iter()
                .map(|field| String::from_utf8_lossy(field.as_bytes()).into_owned())
                .collect()
        };
        Self {
            status: response.status(),
            challenges: texts(WWW_AUTHENTICATE),
            nonces: texts(DPOP_NONCE),
            cache_control: texts(CACHE_CONTROL).pop(),
            retry_after: texts(RETRY_AFTER).pop(),
            rejection: response.extensions().get().cloned(),
            token_request_rejection: response.extensions().get().cloned(),
            parsed: Challenge::from_headers(headers),
            content_type: texts(CONTENT_TYPE).pop(),
        }
    }

    /// The value of a parameter of the DPoP challenge. `None` if there is no such challenge, or
    /// more than one.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameter_in(Scheme::Dpop, name)
    }

    fn parameter_in(&self, scheme: Scheme, name: &str) -> Option<&str> {
        let mut challenges = self.challenges_of(scheme);
        match (challenges.next(), challenges.next()) {
            (Some(challenge), None) => challenge.parameter(name),
            _ => None,
        }
    }

    fn challenges_of(&self, scheme: Scheme) -> impl Iterator<Item = &Challenge> {
        let scheme = match scheme {
            Scheme::Bearer => "Bearer",
            Scheme::Dpop => "DPoP",
        };
        self.parsed
            .iter()
            .filter(move |challenge| challenge.is_scheme(scheme))
    }

    /// The scheme whose challenge reports the error: DPoP, unless only the Bearer challenge has one
    /// (RFC 9449 section 7.2).
    fn reported_in(&self) -> Scheme {
        let is_reported_in = |scheme| self.parameter_in(scheme, "error").is_some();
        if is_reported_in(Scheme::Bearer) && !is_reported_in(Scheme::Dpop) {
            Scheme::Bearer
        } else {
            Scheme::Dpop
        }
    }

    /// Asserts that the request reached the service and succeeded.
    ///
    /// # Panics
    ///
    /// Panics if it did not.
    #[track_caller]
    pub fn assert_passed(&self, name: &str) {
        assert!(
            self.status.is_success() && self.found().is_none(),
            "{name}: ought to pass, but {self}"
        );
    }

    /// Asserts that the request was rejected with this status and this `error`, in exactly one DPoP
    /// challenge, which names the algorithms. Challenges of other schemes are ignored. A 429 or 503 has none.
    ///
    /// If the Bearer challenge has the error, there must be one, and one DPoP challenge without an error;
    /// no DPoP challenge if the token is valid but not sufficient.
    ///
    /// # Panics
    ///
    /// Panics if it was not.
    #[track_caller]
    pub fn assert_rejected(&self, name: &str, status: u16, error: Option<&str>) {
        let expected = Expected {
            status,
            error,
            description: None,
        };
        assert!(
            self.status.as_u16() == status,
            "{name}: ought to get {expected}, but {self}"
        );
        let count = |scheme| self.challenges_of(scheme).count();
        if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
            assert!(
                count(Scheme::Bearer) + count(Scheme::Dpop) == 0,
                "{name}: ought to get no challenge, but {self}"
            );
            return;
        }
        let reported_in = self.reported_in();
        let is_not_enough = matches!(
            error,
            Some("insufficient_scope" | "insufficient_user_authentication")
        );
        let needs_dpop = reported_in == Scheme::Dpop || !is_not_enough;
        assert!(
            count(reported_in) == 1 && count(Scheme::Dpop) == usize::from(needs_dpop),
            "{name}: ought to get one DPoP challenge, but {self}"
        );
        assert!(
            self.parameter_in(reported_in, "error") == error
                && self
                    .parameter_in(reported_in, "error_description")
                    .is_some()
                    == error.is_some(),
            "{name}: ought to get {expected}, but {self}"
        );
        assert!(
            self.parameter("algs").is_some() == needs_dpop,
            "{name}: the challenge ought to name the algorithms, but {self}"
        );
    }

    /// Asserts that the request was rejected for exactly this reason: the response has its status,
    /// `error` and `error_description`; a demand for a nonce has a nonce, and forbids caching; the
    /// reason in the extensions (if the response is from this process) is the same. How many seconds a
    /// time is off is not compared.
    ///
    /// # Panics
    ///
    /// Panics if it was not.
    #[track_caller]
    pub fn assert_reason(&self, name: &str, reason: impl Into<Rejection>) {
        let reason = reason.into();
        if let Some(found) = &self.rejection {
            assert!(
                is_same(found, &reason),
                "{name}: ought to be rejected for {reason:?}, but {self}"
            );
        }
        let (status, error) = (reason.status().as_u16(), reason.error_code());
        self.assert_rejected(name, status, error);
        self.assert_place(name, &reason);
        if error.is_some() {
            let description = match &reason {
                Rejection::Nonce(_) => "Resource server requires nonce in DPoP proof".to_owned(),
                reason => reason.to_string(),
            };
            let expected = Expected {
                status,
                error,
                description: Some(&description),
            };
            assert!(
                self.parameter_in(self.reported_in(), "error_description")
                    == Some(description.as_str()),
                "{name}: ought to get {expected}, but {self}"
            );
        }
        if let Rejection::Nonce(_) = reason {
            self.assert_nonce(name);
        }
    }

    /// If there is a Bearer challenge, the error is in the challenge of the scheme that was used,
    /// and not in the other.
    #[track_caller]
    fn assert_place(&self, name: &str, reason: &Rejection) {
        let Some(used) = reason.scheme() else {
            return;
        };
        if self.challenges_of(Scheme::Bearer).next().is_none() {
            return;
        }
        for scheme in [Scheme::Bearer, Scheme::Dpop] {
            let expected = reason.error_code().filter(|_| used == scheme);
            assert!(
                self.parameter_in(scheme, "error") == expected,
                "{name}: the error ought to stand in the challenge of the scheme used, but {self}"
            );
        }
    }

    /// Asserts that the request to a token endpoint, whose response has this body, was rejected for
    /// exactly this reason. The body is the JSON of [RFC 6749 section
    /// 5.2](https://www.rfc-editor.org/rfc/rfc6749#section-5.2), and the response must not be
    /// cached. A 429 or 503 has no such body.
    ///
    /// # Panics
    ///
    /// Panics if it was not.
    #[track_caller]
    pub fn assert_token_request_reason(
        &self,
        name: &str,
        body: impl AsRef<[u8]>,
        reason: impl Into<TokenRequestRejection>,
    ) {
        let reason = reason.into();
        if let Some(found) = &self.token_request_rejection {
            assert!(
                is_same_at_token_endpoint(found, &reason),
                "{name}: ought to be rejected for {reason:?}, but {self}"
            );
        }
        let wanted: Value = serde_json::from_str(&reason.body()).unwrap_or_default();
        let body: Value = serde_json::from_slice(body.as_ref()).unwrap_or_default();
        let texts = |status: StatusCode, body: &Value| {
            let text = |name: &str| body[name].as_str().map(str::to_owned);
            (status.as_u16(), text("error"), text("error_description"))
        };
        let (wanted, found) = (texts(reason.status(), &wanted), texts(self.status, &body));
        assert!(
            wanted == found,
            "{name}: ought to get {} in a JSON object, but {self}; the body says {}",
            Expected::of(&wanted),
            Expected::of(&found),
        );
        assert!(
            wanted.1.is_none()
                || self
                    .content_type
                    .as_deref()
                    .is_some_and(|found| found.starts_with("application/json")),
            "{name}: the body ought to be said to be JSON"
        );
        assert!(
            self.cache_control.as_deref() == Some("no-store"),
            "{name}: the response must forbid caching"
        );
        if let TokenRequestRejection::Nonce(_) = reason {
            self.assert_nonce(name);
        }
    }

    /// Asserts that a demand for a nonce comes with one, in a response that must not be cached.
    #[track_caller]
    fn assert_nonce(&self, name: &str) {
        assert!(
            self.nonces.len() == 1,
            "{name}: a demand for a nonce ought to come with one"
        );
        assert!(
            self.cache_control.as_deref() == Some("no-store"),
            "{name}: a nonce ought to say that it may not be cached"
        );
    }

    /// The reason in the extensions, from either kind of server.
    fn found(&self) -> Option<&dyn fmt::Debug> {
        let at_resource = self.rejection.as_ref().map(|reason| reason as _);
        at_resource.or(self
            .token_request_rejection
            .as_ref()
            .map(|reason| reason as _))
    }
}

/// Ignores the seconds, which depend on the [`Freshness`](crate::Freshness) of the service.
fn is_same(found: &Rejection, expected: &Rejection) -> bool {
    match (found, expected) {
        (Rejection::Proof(found), Rejection::Proof(expected)) => is_same_error(*found, *expected),
        (found, expected) => found == expected,
    }
}

fn is_same_at_token_endpoint(
    found: &TokenRequestRejection,
    expected: &TokenRequestRejection,
) -> bool {
    use TokenRequestRejection::Proof;
    match (found, expected) {
        (Proof(found), Proof(expected)) => is_same_error(*found, *expected),
        (found, expected) => found == expected,
    }
}

fn is_same_error(found: ProofError, expected: ProofError) -> bool {
    use IatError::{InTheFuture, TooOld};
    use ProofError::Iat;
    match (found, expected) {
        (Iat(TooOld { .. }), Iat(TooOld { .. }))
        | (Iat(InTheFuture { .. }), Iat(InTheFuture { .. })) => true,
        (found, expected) => found == expected,
    }
}

/// What was expected, for a message.
struct Expected<'e> {
    status: u16,
    error: Option<&'e str>,
    description: Option<&'e str>,
}

impl<'e> Expected<'e> {
    fn of((status, error, description): &'e (u16, Option<String>, Option<String>)) -> Self {
        Self {
            status: *status,
            error: error.as_deref(),
            description: description.as_deref(),
        }
    }
}

impl fmt::Display for Expected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        match self.error {
            Some(error) => write!(f, " {error}")?,
            None => f.write_str(" without an error")?,
        }
        match self.description {
            Some(description) => write!(f, " ({description})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for TestResponse {
    /// How a message describes the response: "it got 200 …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Expected {
            status: self.status.as_u16(),
            error: self.parameter_in(self.reported_in(), "error"),
            description: self.parameter_in(self.reported_in(), "error_description"),
        };
        write!(f, "it got {found}")?;
        match self.challenges_of(Scheme::Dpop).count() {
            0 => f.write_str(", no DPoP challenge")?,
            1 => {}
            several => write!(f, ", {several} DPoP challenges")?,
        }
        match self.found() {
            Some(reason) => write!(f, ", for {reason:?}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for TestResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut summary = String::new();
        // Writing to a String does not fail.
        let _ = write!(summary, "{self}");
        f.debug_tuple("TestResponse").field(&summary).finish()
    }
}
