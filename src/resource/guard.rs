//! What the layers behind [`DpopLayer`](crate::DpopLayer) need to respond on its behalf.

use std::sync::Arc;

use crate::discard::DiscardLimits;
use crate::resource::policy::Policy;
use crate::resource::rejection::Rejection;

/// Describes the layer that let a request through. It is in the request's extensions.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) policy: Arc<Policy>,
    pub(crate) enforcement: Enforcement,
    pub(crate) discard: DiscardLimits,
}

/// Whether a decision against a request has consequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enforcement {
    Enforced,
    ReportOnly,
    /// Nothing was verified: the request is a preflight.
    Waived,
}

/// Why a request would have been rejected, in report-only mode. It is in the extensions of the request
/// and of its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedRejection(pub(crate) Rejection);

impl ReportedRejection {
    /// Why the request would have been rejected.
    pub const fn rejection(&self) -> &Rejection {
        &self.0
    }
}
