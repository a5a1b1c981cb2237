//! Replay stores that several nodes share, on real servers and with the faults of real networks.
//!
//! `REDIS_SERVER=/path/of/valkey-server cargo test -p tower-dpop-nodes` takes that server instead of `redis-server`. The
//! module `healthy::tls` needs one with TLS.

mod resp;
mod servers;
mod proxy;
mod harness;
mod healthy;
mod faults;
mod mcp;
mod postgres;
mod prometheus;
mod soak;
mod two_servers;
