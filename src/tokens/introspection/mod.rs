//! Opaque access tokens, asked about at the authorization server ([RFC
//! 7662](https://www.rfc-editor.org/rfc/rfc7662)).
//!
//! | the server says | a request with the token is |
//! |---|---|
//! | `"active": true`, and the other members allow it | let through, if its proof is by the key of `cnf.jkt` |
//! | `"active": false`, or 400 with the error `unsupported_token_type` | refused with 401: [`TokenError::Invalid`] |
//! | `"active": true`, with another `aud`, `exp` past, a `cnf` that is malformed … | refused with 401: the other [`TokenError`]s |
//! | nothing in time, another status than 200, not a JSON object without duplicate members of at most 64 KiB, one whose `active` is missing or is not a JSON boolean | refused with 503: [`TokenError::Unavailable`] |
//!
//! The last row is a fault of ours or of the server's, a 401 included: what it refuses then is this
//! service's own credentials. The log has it at `error` for 401 and 403, at `warn` otherwise,
//! and never shows a token or a secret.
//!
//! The client's proof is not sent to the server, which could not check it ([RFC 9449 section
//! 6.2](https://www.rfc-editor.org/rfc/rfc9449#section-6.2)): the binding is checked here.

pub(crate) mod client_authentication;
pub(crate) mod flights;
pub(crate) mod claims;
pub(crate) mod verifier;
