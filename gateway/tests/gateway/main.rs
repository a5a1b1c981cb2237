//! Tests of the program: each starts `dpop-gateway` with a configuration, real services behind it, and real clients.

#![allow(unreachable_pub, reason = "what the tests share is public within them")]

mod support;
/// A real Redis, as the tests of several nodes start it.
#[allow(dead_code, reason = "the tests of the crate need more of it")]
#[path = "../../../tests/nodes/resp.rs"]
mod resp;
#[allow(dead_code, reason = "the tests of the crate need more of it")]
#[path = "../../../tests/nodes/servers.rs"]
mod servers;

mod decisions;
mod outages;
mod process;
mod reload;
mod upgrade;
