//! Introspection: the authorization server is asked about opaque access tokens ([RFC
//! 7662](https://www.rfc-editor.org/rfc/rfc7662)).
//!
//! The client's proof is not sent to the server, which could not check it ([RFC 9449 section
//! 6.2](https://www.rfc-editor.org/rfc/rfc9449#section-6.2)): the binding is checked here.

pub(crate) mod signed_responses;
pub(crate) mod failure;
pub(crate) mod response;
pub(crate) mod in_flight;
pub(crate) mod claims;
pub(crate) mod verifier;
