//! Decides whether a request is accepted. Proof and token are checked together here, and nowhere else.
//!
//! [`Verifier::verify`](crate::Verifier::verify) shows all steps of the decision;
//! [`DpopLayer`](crate::DpopLayer) offers it as a tower layer.

pub(crate) mod quoted_text;
pub(crate) mod requirement;
pub(crate) mod bound_token;
pub(crate) mod bearer;
pub(crate) mod rejection;
pub(crate) mod challenge;
pub(crate) mod facts;
pub(crate) mod policy;
pub(crate) mod verifier;
pub(crate) mod guard;
pub(crate) mod access;
pub(crate) mod cors;
pub(crate) mod layer;
pub(crate) mod authorization;
pub(crate) mod metadata;
pub(crate) mod problem_details;

pub use crate::credentials::{CredentialsError, Scheme};
pub use crate::resource::access::{Access, Denied};
pub use crate::resource::authorization::{
    Require, RequireAuthenticationLayer, RequireFuture, RequireLayer,
};
pub use crate::resource::bearer::BearerError;
pub use crate::resource::bound_token::BindingError;
pub use crate::resource::cors::{cors_allow_headers, cors_expose_headers};
pub use crate::resource::guard::ReportedRejection;
pub use crate::resource::layer::{Dpop, DpopFuture};
pub use crate::resource::metadata::{
    Metadata, MetadataFuture, MetadataLayer, MetadataService, ResourceMetadata,
};
pub use crate::resource::problem_details::{
    ProblemDetails, ProblemDetailsFuture, ProblemDetailsLayer,
};
pub use crate::resource::quoted_text::{InvalidQuotedText, QuotedText};
pub use crate::resource::rejection::Unavailable;
pub use crate::resource::requirement::{
    AcrValues, AuthenticationRequirement, AuthorizationError, Requirement, ScopeRequirement, Scopes,
};
pub use crate::resource::verifier::Verified;
