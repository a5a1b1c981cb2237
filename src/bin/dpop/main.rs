//! The tool `dpop`: keys, proofs, requests, and why a request was rejected. (Feature `cli`.)
//!
//! One file per command. It uses only the public API of the library.

mod terminal;
mod failure;
mod http_client;
mod input;
mod private_file;
mod keygen;
mod proof;
mod grant;
mod token;
mod curl;
mod explain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;

/// Keys, proofs and requests by DPoP (RFC 9449), and why a request was rejected.
#[derive(Parser)]
#[command(name = "dpop", version, max_term_width = 100, after_long_help = AFTER_HELP)]
struct Tool {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Keygen(keygen::Keygen),
    Proof(proof::Proof),
    Token(token::Token),
    Curl(curl::Curl),
    Explain(explain::Explain),
}

const AFTER_HELP: &str = "\
EXAMPLES
  A key, and a proof by it for one request:
    dpop keygen --out key.pem
    dpop proof --key key.pem --header -X POST https://as.example.com/token

  Why was this request rejected? Paste it, as `curl -v` shows it:
    dpop explain --request request.txt --public-url https://api.example.com

EXIT STATUS
  0   success
  1   `dpop explain`: the request is rejected
  2   the arguments are wrong
  3   it could not be done: a file, the network, the authorization server
  22  `dpop curl`: the status of the response is 400 or higher

ENVIRONMENT
  DPOP_CLIENT_SECRET  the secret of the client, for `dpop token` and `dpop curl`
  HTTPS_PROXY         the proxy for https URLs, with NO_PROXY; plain http is sent without a proxy
  NO_COLOR            no colours, if it is set and not empty
";

fn main() -> ExitCode {
    let done = match Tool::parse().command {
        Command::Keygen(keygen) => keygen.run(),
        Command::Proof(proof) => proof.run(),
        Command::Token(token) => token.run(),
        Command::Curl(curl) => curl.run(),
        Command::Explain(explain) => explain.run(),
    };
    done.unwrap_or_else(Failure::report)
}
