//! What the layers behind [`DpopLayer`](crate::DpopLayer) need to answer in its name.

use std::sync::Arc;

use crate::resource::policy::Policy;
use crate::resource::rejection::Rejection;

/// By whom a request was let through. In the request's extensions.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) policy: Arc<Policy>,
    pub(crate) enforcement: Enforcement,
}

/// Whether what is decided against a request has consequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enforcement {
    Enforced,
    ReportOnly,
    /// Nothing was looked at: a preflight.
    Waived,
}

/// Why a request would have been refused, in report-only mode. In the extensions of the request and
/// of its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedRejection(pub(crate) Rejection);

impl ReportedRejection {
    /// Why.
    pub const fn rejection(&self) -> &Rejection {
        &self.0
    }
}
