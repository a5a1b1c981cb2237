//! The identity of proofs, and the replay stores of this crate.

mod contract;
mod epoch;
mod memory;
mod model;
mod shares;
mod store;
mod while_unavailable;
