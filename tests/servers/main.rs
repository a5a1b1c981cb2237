//! Tests over real sockets, all on the loopback.

mod tokens;
mod resource;
mod settings;
mod token_endpoint;
mod client;
#[cfg(feature = "axum")]
mod extract;
mod testing;
mod discard;
mod telemetry;
