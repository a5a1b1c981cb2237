//! One check and its result.

use serde::Serialize;
use tower_dpop::Rejection;
use tower_dpop::token_endpoint::TokenRequestRejection;

/// One check of a request.
pub(crate) struct Check {
    pub(crate) section: Section,
    /// Its number in RFC 9449 section 4.3, if it has one.
    pub(crate) number: Option<u8>,
    /// What is checked: a stable name.
    pub(crate) name: &'static str,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Section {
    Request,
    Proof,
    Token,
    Binding,
}

pub(crate) enum Outcome {
    /// With what was found.
    Passed(String),
    Failed(Fault),
    /// With the reason.
    NotChecked(String),
}

/// Why a check failed.
pub(crate) struct Fault {
    /// The reason's name in logs and metrics, if it were the only one.
    pub(crate) reason: &'static str,
    /// The library's sentence.
    pub(crate) text: String,
    /// By how much, or which part.
    pub(crate) detail: Option<String>,
    pub(crate) found: Option<String>,
    pub(crate) expected: Option<String>,
}

/// What the library decided.
pub(crate) struct Rejected {
    pub(crate) reason: &'static str,
    pub(crate) text: String,
    pub(crate) status: u16,
    pub(crate) error: Option<&'static str>,
}

impl Check {
    pub(crate) const fn new(section: Section, name: &'static str, outcome: Outcome) -> Self {
        Self {
            section,
            number: None,
            name,
            outcome,
        }
    }

    /// A check of RFC 9449 section 4.3.
    pub(crate) const fn of_proof(number: u8, name: &'static str, outcome: Outcome) -> Self {
        Self {
            section: Section::Proof,
            number: Some(number),
            name,
            outcome,
        }
    }

    pub(crate) const fn has_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }
}

impl Outcome {
    pub(crate) fn passed(found: impl Into<String>) -> Self {
        Self::Passed(found.into())
    }

    pub(crate) fn not_checked(why: impl Into<String>) -> Self {
        Self::NotChecked(why.into())
    }
}

impl Fault {
    pub(crate) fn of(rejected: impl Into<Rejected>) -> Self {
        let Rejected { reason, text, .. } = rejected.into();
        Self {
            reason,
            text,
            detail: None,
            found: None,
            expected: None,
        }
    }

    pub(crate) fn detail(self, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..self
        }
    }

    pub(crate) fn found(self, found: impl Into<String>) -> Self {
        Self {
            found: Some(found.into()),
            ..self
        }
    }

    pub(crate) fn expected(self, expected: impl Into<String>) -> Self {
        Self {
            expected: Some(expected.into()),
            ..self
        }
    }
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

impl From<Rejection> for Rejected {
    fn from(rejection: Rejection) -> Self {
        Self {
            reason: rejection.reason(),
            text: rejection.to_string(),
            status: rejection.status().as_u16(),
            error: rejection.error_code(),
        }
    }
}

impl From<TokenRequestRejection> for Rejected {
    fn from(rejection: TokenRequestRejection) -> Self {
        Self {
            reason: rejection.reason(),
            text: rejection.to_string(),
            status: rejection.status().as_u16(),
            error: rejection.error_code(),
        }
    }
}
