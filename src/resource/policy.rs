//! What a resource server requires of requests, apart from the token itself, and how it responds to
//! rejected requests.

use http::Response;

use crate::credentials::Scheme;
use crate::proof::checks::ProofError;
use crate::proof::nonce::Nonce;
use crate::proof::rules::ProofRules;
use crate::resource::bearer::BearerPolicy;
use crate::resource::challenge::Challenges;
use crate::resource::rejection::Rejection;
use crate::telemetry::{Consequence, Decision, Server};
use crate::time::Timestamp;

/// It does not depend on the type of the claims, so all layers behind the verifier can share it.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) rules: ProofRules,
    pub(crate) challenges: Challenges,
}

impl Policy {
    /// The current time, for decisions after the verifier's.
    pub(crate) fn now(&self) -> Timestamp {
        self.rules.now()
    }

    pub(crate) fn allows_bearer(&self) -> bool {
        self.challenges.bearer != BearerPolicy::Rejected
    }

    /// The response to a rejected request. It also emits one event.
    pub(crate) fn reject<B: Default>(&self, rejection: Rejection) -> Response<B> {
        let nonce = self.report(&rejection, Consequence::Rejected);
        self.challenges.reject(rejection, nonce.as_ref())
    }

    /// Reports the decision against a request, and returns the nonce that the client needs, if it
    /// needs one.
    pub(crate) fn report(&self, rejection: &Rejection, consequence: Consequence) -> Option<Nonce> {
        let skew_seconds = match rejection {
            Rejection::Proof(ProofError::Iat(error)) => Some(self.rules.freshness().skew(*error)),
            _ => None,
        };
        let decision = Decision::Rejected {
            consequence,
            reason: rejection.reason(),
            error: rejection,
            fault: rejection.fault(),
            skew_seconds,
        };
        decision.report(Server::Resource {
            scheme: rejection.scheme().map_or("none", Scheme::name),
        });
        match rejection {
            Rejection::Nonce(_) => self.rules.issue_nonce(),
            _ => None,
        }
    }
}
