//! What the layers behind [`DpopLayer`](crate::DpopLayer) need to respond on its behalf.

use std::any;
use std::sync::Arc;

use http::Response;

use crate::discard::DiscardLimits;
use crate::resource::facts::RequestFacts;
use crate::resource::policy::Policy;
use crate::resource::rejection::Rejection;
use crate::resource::verifier::Verifier;
use crate::telemetry::Consequence;

/// Describes the layer that let a request through. It is in the request's extensions.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) policy: Arc<Policy>,
    pub(crate) enforcement: Enforcement,
    pub(crate) discard: DiscardLimits,
    facts: RequestFacts,
    /// The name of the type of the claims.
    pub(crate) claims: &'static str,
}

impl Guard {
    pub(crate) fn new<C>(
        verifier: &Verifier<C>,
        enforcement: Enforcement,
        discard: DiscardLimits,
        facts: RequestFacts,
    ) -> Self {
        Self {
            policy: Arc::clone(verifier.policy()),
            enforcement,
            discard,
            facts,
            claims: any::type_name::<C>(),
        }
    }

    /// The response to a request that is rejected behind the layer. It also emits one event.
    pub(crate) fn reject<B: Default>(&self, rejection: Rejection) -> Response<B> {
        self.policy.reject(rejection, &self.facts)
    }

    /// Reports a rejection that has no consequences.
    pub(crate) fn report(&self, rejection: &Rejection) {
        self.policy
            .report(rejection, &self.facts, Consequence::Reported);
    }
}

/// Whether a decision against a request has consequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enforcement {
    Enforced,
    ReportOnly,
    /// Nothing was verified: the request is a preflight.
    Waived,
}

impl Enforcement {
    pub(crate) fn consequence(self) -> Consequence {
        match self {
            Self::ReportOnly => Consequence::Reported,
            Self::Enforced | Self::Waived => Consequence::Rejected,
        }
    }
}

/// Why a request would have been rejected, in report-only mode. It is in the extensions of the request
/// and of its response.
///
/// # Example
///
/// ```
/// use axum::Extension;
/// use tower_dpop::resource::ReportedRejection;
///
/// async fn orders(reported: Option<Extension<ReportedRejection>>) -> String {
///     match reported {
///         Some(Extension(reported)) => format!("would be rejected: {}", reported.rejection().reason()),
///         None => "would be accepted".into(),
///     }
/// }
/// # let _ = orders;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedRejection(pub(crate) Rejection);

impl ReportedRejection {
    /// Why the request would have been rejected.
    pub const fn rejection(&self) -> &Rejection {
        &self.0
    }
}
