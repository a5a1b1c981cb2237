//! `dpop curl`: sends a request with a token and a proof.
//!
//! - `transport`: reqwest as a service, which can show what is sent;
//! - `rejected`: what the response to a rejected request says.

mod transport;
mod rejected;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use tower_dpop::client::{AccessTokenText, ClientError, DpopClientLayer};
use tower_dpop::jose::SigningKey;
use tower_layer::Layer as _;

use crate::curl::transport::{Transport, call};
use crate::failure::{Done, Failure};
use crate::grant::{Grant, with_causes};
use crate::input::{OptionalKey, certificate_hint, read_bytes, secret, wait_for};

/// Send a request with an access token and a proof, and print the body of the response
///
/// The token is the given one, or is requested by client credentials. If a server requires a nonce, the request is
/// repeated with it. Redirects are not followed.
#[derive(Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Curl {
    #[command(flatten)]
    grant: Grant,

    /// The access token instead: the token, @FILE, or `-` for standard input. It needs --key
    ///
    /// Other users of this machine can see the arguments of a command: use @FILE or `-` where there are any.
    #[arg(long, value_name = "TOKEN", requires = "path", conflicts_with_all = ["issuer", "token_endpoint"])]
    token: Option<String>,

    #[command(flatten)]
    key: OptionalKey,

    /// The method [default: GET, or POST with -d]
    #[arg(short = 'X', long, value_name = "METHOD")]
    method: Option<Method>,

    /// A header field: `name: value`
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = parse_field)]
    headers: Vec<(HeaderName, HeaderValue)>,

    /// The body: the text, @FILE, or `@-` for standard input
    ///
    /// As with curl, it is a form unless -H sets another Content-Type. Unlike with curl, the bytes of a file are not
    /// changed.
    #[arg(short, long, value_name = "BODY")]
    data: Option<String>,

    /// Print the status and the header fields of the response, too
    #[arg(short, long)]
    include: bool,

    /// Show on standard error what is sent and received, with token and proof shortened
    #[arg(short, long)]
    verbose: bool,

    /// Write the head of the request to this file, for `dpop explain --request`
    ///
    /// It has the access token and the proof: treat the file as a password. Only its owner can read it (mode 600). If
    /// the request is repeated with a nonce, the file has the last one. A file that is there is replaced.
    #[arg(long, value_name = "FILE")]
    save_request: Option<PathBuf>,

    /// The URL of the request
    url: Uri,
}

const AFTER_HELP: &str = "\
EXAMPLES
  With a token from the authorization server, and a key for this one run:
    dpop curl --issuer http://127.0.0.1:9000 --client-id service \\
        --client-secret-file secret.txt http://127.0.0.1:8080/orders

  With a token and its key:
    dpop curl --token @token --key key.pem -H 'content-type: application/json' -d @order.json \\
        https://api.example.com/orders

  Why was it rejected?
    dpop curl --token @token --key key.pem --save-request request.txt https://api.example.com/orders
    dpop explain --request request.txt

EXIT STATUS
  0   the status of the response is below 400
  2   the arguments are wrong
  3   there is no response: a file, the network, or the authorization server rejects the request
  22  the status of the response is 400 or higher

ENVIRONMENT
  DPOP_CLIENT_SECRET  the secret of the client, if there is no --client-secret-file
  HTTPS_PROXY         the proxy for https URLs, with NO_PROXY; plain http is sent without a proxy
";

fn parse_field(field: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = field.split_once(':').ok_or("expected `name: value`")?;
    let name: HeaderName = name
        .trim()
        .parse()
        .map_err(|_| "not the name of a header field")?;
    if name == http::header::AUTHORIZATION || name == tower_dpop::proof::DPOP {
        return Err("this field is set by the tool".to_owned());
    }
    let value = value
        .trim()
        .parse()
        .map_err(|_| "not the value of a header field")?;
    Ok((name, value))
}

impl Curl {
    pub(crate) fn run(self) -> Done {
        let server = self.grant.server_of(&self.url)?;
        let request = self.request()?;
        if self.token.is_none() && !self.grant.is_given() {
            return Err(Failure::usage("no token: give --issuer or --token"));
        }
        let key = match self.key.read()? {
            Some(key) => key,
            None => SigningKey::generate().map_err(Failure::work)?,
        };
        wait_for(async {
            let token = self.access_token(&key).await?;
            let layer = DpopClientLayer::new(key, token, server);
            let service = layer.layer(self.transport()?);
            let response = call(service, request).await;
            let response = response.map_err(|error| failure(&error))?;
            let response = reqwest::Response::from(response.map(reqwest::Body::wrap));
            self.print(response).await
        })?
    }

    fn transport(&self) -> Result<Transport, Failure> {
        let http = self.grant.roots.client()?;
        Transport::new(http, self.verbose, self.save_request.clone())
    }

    fn request(&self) -> Result<Request<Bytes>, Failure> {
        let body = match &self.data {
            None => Bytes::new(),
            Some(data) => match data.strip_prefix('@') {
                Some(path) => read_bytes(path)?.into(),
                None => data.clone().into(),
            },
        };
        let mut request = Request::new(body);
        *request.uri_mut() = self.url.clone();
        let default = match self.data {
            Some(_) => Method::POST,
            None => Method::GET,
        };
        *request.method_mut() = self.method.clone().unwrap_or(default);
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        if self.data.is_some() {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            request.headers_mut().entry(CONTENT_TYPE).or_insert(form);
        }
        Ok(request)
    }

    async fn access_token(&self, key: &SigningKey) -> Result<AccessTokenText, Failure> {
        match &self.token {
            Some(token) => secret(token)?
                .parse()
                .map_err(|error| Failure::usage(format_args!("--token: {error}"))),
            None => Ok(self.grant.token(key).await?.access_token().clone()),
        }
    }

    /// The body as it arrives. It is not escaped: as with curl, it may go to a file.
    async fn print(&self, mut response: reqwest::Response) -> Done {
        let mut out = io::stdout().lock();
        let written = |result: io::Result<()>| result.map_err(|error| Failure::output(&error));
        if self.include {
            written(write!(out, "{}", transport::head(&response)))?;
        }
        let mut last = None;
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| Failure::work(with_causes(&error)))?
        {
            written(out.write_all(&chunk))?;
            last = chunk.last().copied().or(last);
        }
        if needs_newline(last, out.is_terminal()) {
            written(writeln!(out))?;
        }
        written(out.flush())?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            eprintln!(
                "{}",
                rejected::describe(&response, self.save_request.as_deref())
            );
            return Ok(ExitCode::from(22));
        }
        if status.is_redirection() {
            eprintln!(
                "dpop: {status}: redirects are not followed: the next URL needs another proof"
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Whether the next line, of this tool or of the shell, would stick to the body. A file gets the bytes as they are.
fn needs_newline(last: Option<u8>, is_terminal: bool) -> bool {
    is_terminal && last.is_some_and(|byte| byte != b'\n')
}

fn failure(error: &ClientError) -> Failure {
    let text = with_causes(error);
    let hint = certificate_hint(&text);
    Failure::work(format_args!("{text}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newline_is_added_on_a_terminal_only() {
        assert!(needs_newline(Some(b'}'), true));
        for (last, is_terminal) in [(Some(b'\n'), true), (None, true), (Some(b'}'), false)] {
            assert!(!needs_newline(last, is_terminal), "{last:?} {is_terminal}");
        }
    }
}
