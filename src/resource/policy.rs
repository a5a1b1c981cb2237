//! What a resource server requires of requests, apart from the token itself, and how it responds to
//! rejected requests.

use std::sync::Arc;

use http::request::Parts;
use http::{Extensions, Method, Response};

use crate::proof::checks::ProofError;
use crate::proof::nonce::Nonce;
use crate::proof::rules::ProofRules;
use crate::proof::target::TargetError;
use crate::resource::bearer::{BearerError, BearerPolicy};
use crate::resource::challenge::Challenges;
use crate::resource::facts::RequestFacts;
use crate::resource::rejection::Rejection;
use crate::telemetry::{Consequence, Decision, Explanation, Server, short_type_name};
use crate::time::Timestamp;
use crate::tokens::access_token::{TokenError, TokenExpectations};

/// It does not depend on the type of the claims, so all layers behind the verifier can share it.
#[derive(Clone)]
pub(crate) struct Policy {
    pub(crate) rules: ProofRules,
    pub(crate) challenges: Challenges,
    pub(crate) tokens: Arc<dyn TokenExpectations>,
}

impl Policy {
    /// The current time, for decisions after the verifier's.
    pub(crate) fn now(&self) -> Timestamp {
        self.rules.now()
    }

    pub(crate) fn allows_bearer(&self) -> bool {
        self.challenges.bearer != BearerPolicy::Rejected
    }

    /// What is known about a request before it is verified.
    pub(crate) fn facts(&self, method: &Method, extensions: &Extensions) -> RequestFacts {
        RequestFacts::of(self.rules.targets().received_method(method), extensions)
    }

    /// The same, for the head of a request.
    pub(crate) fn facts_of(&self, request: &Parts) -> RequestFacts {
        self.facts(&request.method, &request.extensions)
    }

    /// The response to a rejected request. It also emits one event.
    pub(crate) fn reject<B: Default>(
        &self,
        rejection: Rejection,
        facts: &RequestFacts,
    ) -> Response<B> {
        let nonce = self.report(&rejection, facts, Consequence::Rejected);
        self.challenges.reject(rejection, nonce.as_ref())
    }

    /// Reports the decision against a request, and returns the nonce that the client needs, if it
    /// needs one.
    pub(crate) fn report(
        &self,
        rejection: &Rejection,
        facts: &RequestFacts,
        consequence: Consequence,
    ) -> Option<Nonce> {
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
            explain: &|| self.explain(rejection),
        };
        decision.report(Server::Resource(facts.reported(rejection.scheme())));
        match rejection {
            Rejection::Nonce(_) => self.rules.issue_nonce(),
            _ => None,
        }
    }

    /// What the log says about a rejection besides its reason.
    fn explain(&self, rejection: &Rejection) -> Explanation {
        match rejection {
            Rejection::Proof(error) => self.rules.explain(error),
            Rejection::Target(TargetError::Misdirected) => {
                Explanation::expected(Some(self.rules.targets().to_string()))
            }
            Rejection::Token(error) | Rejection::Bearer(BearerError::Token(error)) => {
                Explanation::expected(self.tokens.expected(error))
            }
            Rejection::Authorization(error)
            | Rejection::Bearer(BearerError::Authorization(error)) => {
                Explanation::expected(error.expected())
            }
            _ => Explanation::default(),
        }
    }

    /// Logs what requests must meet.
    pub(crate) fn announce(&self) {
        let rules = &self.rules;
        let issuers = self.tokens.issuers();
        let issuers = (!issuers.is_empty()).then(|| issuers.join(" "));
        tracing::info!(
            public_urls = %rules.targets(),
            issuers,
            audience = self.tokens.expected(&TokenError::Audience),
            token_typ = self.tokens.expected(&TokenError::Type),
            token_algorithms = self.tokens.expected(&TokenError::Algorithm),
            proof_algorithms = %rules.algorithms(),
            proof_iat = rules.describe_iat(),
            nonces = rules.describe_nonces(),
            replay_store = short_type_name(rules.replay_store()),
            bearer = match self.challenges.bearer {
                BearerPolicy::Rejected => "rejected",
                BearerPolicy::Unbound => "unbound tokens are accepted",
                BearerPolicy::UncheckedCnf => "unbound tokens and unchecked bindings are accepted",
            },
            "requests must have an access token and a DPoP proof"
        );
        for weakness in rules.weaknesses() {
            tracing::warn!(public_urls = %rules.targets(), "{weakness}");
        }
        if self.challenges.bearer == BearerPolicy::UncheckedCnf {
            tracing::warn!(
                "tokens that are bound by another method are accepted without a check of their binding (Verifier::allow_insecure_unchecked_cnf)"
            );
        }
    }
}
