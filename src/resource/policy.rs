//! What a resource server asks of requests but for the token itself, and how it answers those that
//! it refuses.

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

/// It knows nothing of claims, so layers behind the verifier share it whatever their type.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) rules: ProofRules,
    pub(crate) challenges: Challenges,
}

impl Policy {
    /// What time it is, for decisions that come after the verifier's.
    pub(crate) fn now(&self) -> Timestamp {
        self.rules.now()
    }

    pub(crate) fn allows_bearer(&self) -> bool {
        self.challenges.bearer != BearerPolicy::Refused
    }

    /// The response to a refused request. Says so in one event, too.
    pub(crate) fn refuse<B: Default>(&self, rejection: Rejection) -> Response<B> {
        let nonce = self.report(&rejection, Consequence::Refused);
        self.challenges.refuse(rejection, nonce.as_ref())
    }

    /// Says what was decided against a request, and gives the nonce that the client needs, if it
    /// needs one.
    pub(crate) fn report(&self, rejection: &Rejection, consequence: Consequence) -> Option<Nonce> {
        let skew_seconds = match rejection {
            Rejection::Proof(ProofError::Iat(error)) => Some(self.rules.freshness().skew(*error)),
            _ => None,
        };
        let decision = Decision::Refused {
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
