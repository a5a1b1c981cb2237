//! The replay store: which proofs were used ([RFC 9449 section
//! 11.1](https://www.rfc-editor.org/rfc/rfc9449#section-11.1)).
//!
//! A proof can be used once. The store keeps a hash of the client's key and the proof's `jti`: not
//! the proof itself, which has many encodings that verify alike, and not the `jti` alone, because
//! one client could use up the `jti` of another.

pub(crate) mod epoch;
pub(crate) mod store;
pub mod contract;
mod forgotten;
mod clients;
mod ledger;
pub(crate) mod memory;
pub(crate) mod while_unavailable;
#[cfg(feature = "redis")]
pub(crate) mod redis;
