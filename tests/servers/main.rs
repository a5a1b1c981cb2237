//! Tests over real sockets, all on the loopback.

mod tokens;
mod resource;
mod client;
