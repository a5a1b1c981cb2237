//! Replay stores that several nodes share, on real servers and with the faults of real networks.

mod postgres;
