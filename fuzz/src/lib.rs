//! What targets compare the crate with. It compiles with a stable compiler, and `cargo test --lib` tests it.

pub mod rfc9449;
