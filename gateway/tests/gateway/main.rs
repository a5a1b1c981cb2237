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

mod access;
mod configuration;
mod cors;
mod decisions;
mod deploy;
mod forward_auth;
mod forward_auth_grpc;
mod identity_fields;
mod raw_http1;
mod raw_http2;
mod framing;
mod health;
mod identity;
mod logs;
mod metrics;
mod outages;
mod process;
mod protocols;
mod reload;
mod routes;
mod slow_clients;
mod streams;
mod upgrade;
mod uploads;
mod upstreams;
mod verification;
mod websockets;
