//! `dpop token`: gets an access token.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use tower_dpop::client::TokenResponse;
use tower_dpop::jose::SigningKey;

use crate::failure::{Done, Failure};
use crate::grant::Grant;
use crate::input::{OptionalKey, wait_for};
use crate::terminal::ascii_json;

/// Get an access token by client credentials, and print it
///
/// The token is bound to the client's key. If the server requires a nonce, the request is repeated with it.
#[derive(Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Token {
    #[command(flatten)]
    grant: Grant,

    #[command(flatten)]
    key: OptionalKey,

    /// Print JSON: the token, its lifetime, its scope, and the thumbprint of the key
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
EXAMPLES
  dpop keygen --out key.pem
  dpop token --issuer https://as.example.com --client-id service \\
      --client-secret-file secret.txt --key key.pem > token

EXIT STATUS
  0  success
  2  the arguments are wrong
  3  there is no token: a file, the network, or the authorization server rejects the request

ENVIRONMENT
  DPOP_CLIENT_SECRET  the secret of the client, if there is no --client-secret-file
  HTTPS_PROXY         the proxy for https URLs, with NO_PROXY; plain http is sent without a proxy
";

impl Token {
    pub(crate) fn run(self) -> Done {
        let key = if let Some(key) = self.key.read()? {
            key
        } else {
            eprintln!(
                "dpop: warning: without --key, the token is bound to a key that is lost after this run: no request can use it"
            );
            SigningKey::generate().map_err(Failure::work)?
        };
        let response = wait_for(self.grant.token(&key))??;
        let text = if self.json {
            ascii_json(&to_json(&response, &key))
        } else {
            response.access_token().as_str().to_owned()
        };
        writeln!(io::stdout().lock(), "{text}").map_err(|error| Failure::output(&error))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The members that are known, as RFC 6749 section 5.1 names them.
fn to_json(response: &TokenResponse, key: &SigningKey) -> String {
    let mut json = json!({
        "access_token": response.access_token().as_str(),
        "token_type": "DPoP",
        "jkt": key.thumbprint(),
    });
    if let Some(lifetime) = response.expires_in() {
        json["expires_in"] = lifetime.as_secs().into();
    }
    if let Some(scope) = response.scope() {
        json["scope"] = scope.into();
    }
    json.to_string()
}
