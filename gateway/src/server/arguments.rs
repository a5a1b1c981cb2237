//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// A reverse proxy, and a server for the forward authentication of other proxies, that accepts a request only with a valid
/// DPoP proof (RFC 9449).
#[derive(Debug, Parser)]
#[command(name = "dpop-gateway", version, after_help = OPERATION)]
pub(crate) struct Arguments {
    /// The configuration, in TOML
    #[arg(long, value_name = "FILE", env = "DPOP_GATEWAY_CONFIG")]
    pub(crate) config: PathBuf,
    /// Check the configuration and the files it refers to, and exit. Each problem is on a line of its own:
    /// FILE:line:column: setting: problem. Nothing listens, and no issuer and no Redis is contacted
    #[arg(long)]
    pub(crate) check: bool,
    /// Given by the running process to the one that takes over (SIGUSR2)
    #[arg(long, hide = true)]
    pub(crate) upgrade: bool,
}

const OPERATION: &str = "\
Signals:
  SIGHUP           read the configuration again; if it has a problem, the present one stays
  SIGTERM, SIGINT  stop: accept no more connections, and finish requests (process.drain_seconds)
  SIGUSR2          hand the listening sockets over to a new process, then stop in the same way

Exit statuses:
  0  it was told to stop, and stopped; with --check: the configuration is valid
  1  it could not start, or failed
  2  the command line or the configuration is wrong; standard error says where

Secrets are not in the configuration: it names files or environment variables that have them.
All settings: docs/guide/gateway-configuration.md";
