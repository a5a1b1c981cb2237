//! The identity of proofs, and the replay stores of this crate.

mod memory;
mod store;
