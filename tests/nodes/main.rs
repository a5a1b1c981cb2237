//! Replay stores that several nodes share, on real servers and with the faults of real networks.

// The tests of faults follow.
#![allow(dead_code)]

mod resp;
mod servers;
mod proxy;
mod harness;
mod healthy;
mod postgres;
