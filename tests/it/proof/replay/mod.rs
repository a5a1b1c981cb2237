//! The replay stores of this crate.

mod memory;
mod store;
