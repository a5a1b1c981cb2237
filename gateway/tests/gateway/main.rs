//! Tests of the program: each starts `dpop-gateway` with a configuration, real services behind it, and real clients.

#![allow(unreachable_pub, reason = "what the tests share is public within them")]

mod support;

mod access;
mod configuration;
mod cors;
mod decisions;
mod deploy;
mod forward_auth;
mod forward_auth_grpc;
mod framing;
mod health;
mod identity;
mod logs;
mod metrics;
mod protocols;
mod routes;
mod streams;
mod uploads;
mod upstreams;
mod verification;
mod websockets;
