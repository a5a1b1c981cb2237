//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// A reverse proxy, and a server for the forward authentication of other proxies, that accepts a request only with a valid
/// DPoP proof (RFC 9449).
#[derive(Debug, Parser)]
#[command(name = "dpop-gateway", version, after_help = OPERATION)]
pub(crate) struct Arguments {
    /// The configuration file, in TOML
    #[arg(long, value_name = "FILE", env = "DPOP_GATEWAY_CONFIG")]
    pub(crate) config: PathBuf,
    /// Check the configuration and the files it refers to, and exit. Prints one line per problem:
    /// FILE:line:column: setting: problem. Does not listen, and contacts no issuer and no Redis
    #[arg(long)]
    pub(crate) check: bool,
    /// Passed by the running process to the one that takes over (SIGUSR2)
    #[arg(long, hide = true)]
    pub(crate) upgrade: bool,
}

const OPERATION: &str = "\
Signals:
  SIGHUP           reload the configuration; if the new one is invalid, the current one stays
  SIGTERM, SIGINT  stop: accept no more connections, and finish running requests (process.drain_seconds)
  SIGUSR2          pass the listening sockets to a new process, then stop in the same way

Exit statuses:
  0  it was told to stop, and stopped; with --check: the configuration is valid
  1  it could not start, or failed
  2  the command line or the configuration is wrong; standard error says where

The configuration contains no secrets: it names files or environment variables that contain them.
All settings: docs/guide/gateway-configuration.md";
