//! Tests of the program: each starts `dpop-gateway` with a configuration, real services behind it, and real clients.

#![allow(unreachable_pub, reason = "what the tests share is public within them")]

mod support;

mod decisions;
mod forward_auth;
mod forward_auth_grpc;
mod identity_fields;
mod raw_http1;
mod raw_http2;
mod framing;
mod protocols;
mod streams;
mod uploads;
mod upstreams;
mod verification;
