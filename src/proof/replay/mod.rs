//! The memory of proofs that were used ([RFC 9449 section
//! 11.1](https://www.rfc-editor.org/rfc/rfc9449#section-11.1)).
//!
//! A proof is good once. What is remembered is a hash of the client's key and the proof's `jti`:
//! not the proof itself, which has many spellings that verify alike, and not the `jti` alone, which
//! one client could burn for another.

pub(crate) mod store;
pub mod contract;
pub(crate) mod memory;
pub(crate) mod compact;
