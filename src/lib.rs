//! DPoP ([RFC 9449](https://www.rfc-editor.org/rfc/rfc9449)) for resource servers, as a tower layer.

pub mod jose;
pub mod freshness;
pub mod credentials;
pub mod target;
pub mod nonce;
pub mod proof;
pub mod token;
pub mod jwt;
pub mod binding;
pub mod replay;
pub mod rejection;
pub mod verifier;
