//! `dpop proof`: prints a proof for one request.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use http::{Method, Uri};
use tower_dpop::Timestamp;
use tower_dpop::client::{AccessTokenText, NewProof};
use tower_dpop::proof::Nonce;

use crate::failure::{Done, Failure};
use crate::input::{KeyFile, secret, wait_for};

/// Print a proof for one request
///
/// A proof is for one method and one URL. A server accepts it once, for a minute or two.
#[derive(Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Proof {
    #[command(flatten)]
    key: KeyFile,

    /// The method of the request
    #[arg(
        short = 'X',
        long = "method",
        value_name = "METHOD",
        default_value = "GET"
    )]
    method: Method,

    /// The access token that is sent with the proof: the token, @FILE, or `-` for standard input
    ///
    /// A request to a token endpoint has none. Other users of this machine can see the arguments of a
    /// command: use @FILE or `-` where there are any.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,

    /// The nonce of the server: the value of the `DPoP-Nonce` field in its latest response
    #[arg(long, value_name = "NONCE", allow_hyphen_values = true)]
    nonce: Option<Nonce>,

    /// Print the whole header field: `DPoP: ...`
    #[arg(long)]
    header: bool,

    /// The URL of the request; its query and fragment are not signed
    url: Uri,
}

const AFTER_HELP: &str = "\
EXAMPLES
  A request with a token, made by curl:
    curl -H \"Authorization: DPoP $(cat token)\" \\
         -H \"$(dpop proof --key key.pem --token @token --header https://api.example.com/orders)\" \\
         https://api.example.com/orders

  `dpop curl` does the same, and signs again if the server requires a nonce.
";

impl Proof {
    pub(crate) fn run(self) -> Done {
        let key = self.key.read()?;
        let mut proof = NewProof::new(&self.method, &self.url)
            .map_err(|error| Failure::usage(format_args!("{}: {error}", self.url)))?;
        if let Some(token) = &self.token {
            let token: AccessTokenText = secret(token)?
                .parse()
                .map_err(|error| Failure::usage(format_args!("--token: {error}")))?;
            proof = proof.with_access_token(&token);
        }
        if let Some(nonce) = self.nonce {
            proof = proof.with_nonce(nonce);
        }
        let now = Timestamp::from(SystemTime::now());
        let signed = proof.sign(&key, now);
        // A key in memory signs at once.
        let signed = wait_for(signed)?.map_err(Failure::work)?;
        let signed = signed.as_header_value().to_str().map_err(Failure::work)?;
        let field = if self.header { "DPoP: " } else { "" };
        writeln!(io::stdout().lock(), "{field}{signed}")
            .map_err(|error| Failure::output(&error))?;
        Ok(ExitCode::SUCCESS)
    }
}
