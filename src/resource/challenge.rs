//! The challenges of a rejection: what the client learns, and under which scheme.

use std::fmt::{self, Write as _};

use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};

use crate::credentials::Scheme;
use crate::jose::algorithm::Algorithms;
use crate::proof::nonce::Nonce;
use crate::resource::bearer::BearerPolicy;
use crate::resource::quoted_text::QuotedText;
use crate::resource::rejection::Rejection;
use crate::resource::requirement::{AuthorizationError, Scopes};

/// What all challenges of a service have in common.
#[derive(Clone, Debug)]
pub(crate) struct Challenges {
    pub(crate) bearer: BearerPolicy,
    pub(crate) algorithms: Algorithms,
    pub(crate) realm: Option<QuotedText>,
    pub(crate) scope: Option<Scopes>,
    pub(crate) resource_metadata: Option<QuotedText>,
}

impl Challenges {
    /// The complete response to a rejected request, with an empty body.
    pub(crate) fn reject<B: Default>(
        &self,
        rejection: Rejection,
        nonce: Option<&Nonce>,
    ) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = rejection.status();
        let headers = response.headers_mut();
        if let Rejection::TooManyRequests | Rejection::Unavailable(_) = rejection {
            // A short time: records in a replay store expire every second, and other unreachable
            // services have their own timeouts.
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        } else {
            for challenge in self.render(&rejection) {
                headers.append(WWW_AUTHENTICATE, challenge);
            }
        }
        if let Some(nonce) = nonce {
            nonce.write_to(headers);
        }
        response.extensions_mut().insert(rejection);
        response
    }

    /// One field line per challenge, Bearer first (RFC 9110 section 11.6.1, RFC 9449 section 7.2).
    fn render(&self, rejection: &Rejection) -> Vec<HeaderValue> {
        let both = [Scheme::Bearer, Scheme::Dpop];
        both.into_iter()
            .filter(|scheme| *scheme == Scheme::Dpop || self.bearer != BearerPolicy::Rejected)
            // If a valid token is not sufficient, another scheme does not help.
            .filter(|scheme| !is_not_enough(rejection) || self.is_reported_in(rejection, *scheme))
            .map(|scheme| self.challenge(scheme, rejection))
            .collect()
    }

    fn challenge(&self, scheme: Scheme, rejection: &Rejection) -> HeaderValue {
        let mut challenge = Parameters::of(scheme);
        if let Some(realm) = &self.realm {
            challenge.add("realm", realm);
        }
        let mut scope = self.scope.as_ref();
        if let Some(code) = rejection
            .error_code()
            .filter(|_| self.is_reported_in(rejection, scheme))
        {
            challenge.add("error", &code);
            challenge.add("error_description", rejection.description());
            match rejection.authorization() {
                Some(AuthorizationError::Scope { required }) => scope = Some(required),
                Some(AuthorizationError::Authentication {
                    acr_values,
                    max_age,
                }) => {
                    if let Some(acr_values) = acr_values {
                        challenge.add("acr_values", acr_values);
                    }
                    if let Some(max_age) = max_age {
                        challenge.add("max_age", max_age);
                    }
                }
                Some(AuthorizationError::NotMet) | None => {}
            }
        }
        if let Some(scope) = scope {
            challenge.add("scope", scope);
        }
        if scheme == Scheme::Dpop {
            challenge.add("algs", &self.algorithms);
        }
        if let Some(url) = &self.resource_metadata {
            challenge.add("resource_metadata", url);
        }
        HeaderValue::from_str(&challenge.0)
            .expect("descriptions and QuotedText hold visible ASCII only")
    }

    /// Whether this scheme's challenge contains the error: the challenge of the scheme used does, or
    /// both, if the request leaves that open. If Bearer is not supported, the only challenge is DPoP's.
    fn is_reported_in(&self, rejection: &Rejection, scheme: Scheme) -> bool {
        self.bearer == BearerPolicy::Rejected
            || rejection.scheme().is_none_or(|used| used == scheme)
    }
}

/// Whether the token is valid, but does not allow the request.
fn is_not_enough(rejection: &Rejection) -> bool {
    rejection.authorization().is_some() || rejection.status() == StatusCode::FORBIDDEN
}

/// A challenge under construction.
struct Parameters(String);

impl Parameters {
    fn of(scheme: Scheme) -> Self {
        Self(String::from(match scheme {
            Scheme::Bearer => "Bearer",
            Scheme::Dpop => "DPoP",
        }))
    }

    fn add(&mut self, name: &str, value: &dyn fmt::Display) {
        let separator = if self.0.contains(' ') { "," } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(self.0, r#"{separator} {name}="{value}""#);
    }
}
