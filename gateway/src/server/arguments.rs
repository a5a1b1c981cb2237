//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// A reverse proxy, and a server for the forward authentication of other proxies, that accepts a request only with a valid
/// DPoP proof (RFC 9449).
#[derive(Debug, Parser)]
#[command(name = "dpop-gateway", version)]
pub(crate) struct Arguments {
    /// The configuration, in TOML
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Checks the configuration, and says what is wrong and where
    #[arg(long)]
    pub(crate) check: bool,
    /// Given by the running process to the one that takes over (SIGUSR2)
    #[arg(long, hide = true)]
    pub(crate) upgrade: bool,
}
