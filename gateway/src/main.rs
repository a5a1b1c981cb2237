//! `dpop-gateway`: a reverse proxy, and a server for the forward authentication of other proxies, that accepts a request
//! only with a valid DPoP proof. Each module answers one question.

/// What is configured?
mod config;
/// May the request pass, and what does its service learn of the client?
mod policy;
/// Which server of a service is next?
mod upstreams;
/// Which certificates do clients see?
mod certificates;
/// What is built from a configuration, until a reload replaces it?
mod generation;
/// What do operators see?
mod operations;
/// How does a request reach its service?
mod proxy;
/// How do other proxies ask?
mod forward_auth;
/// How does the process start, reload, and end?
mod server;

use std::process::ExitCode;

fn main() -> ExitCode {
    server::main()
}
