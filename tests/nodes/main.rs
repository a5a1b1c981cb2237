//! Replay stores that several nodes share, on real servers and with the faults of real networks.

mod resp;
mod servers;
mod proxy;
mod harness;
mod healthy;
mod faults;
mod postgres;
mod two_servers;
