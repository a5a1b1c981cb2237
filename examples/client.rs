//! A client for any authorization server and any resource server: it discovers the token endpoint,
//! gets a token that is bound to its key (client credentials), and calls a resource with it.
//!
//! ```sh
//! cargo run --example client -- --issuer http://127.0.0.1:9000 \
//!     --client-id service --client-secret service-secret --resource http://127.0.0.1:8080/protected
//! ```
//!
//! It prints one JSON object per line: first the thumbprint and the algorithm of its key, then the
//! result of each call. Demands for nonces do not appear in the output.

use std::env;
use std::error::Error;
use std::process::ExitCode;

use reqwest::Url;
use serde_json::{Value, json};
use tower_dpop::client::{DpopClient, DpopClientBuilder};
use tower_dpop::jose::SigningKey;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const USAGE: &str = "\
usage: client --issuer URL --client-id ID --resource URL [OPTION]...

  --issuer URL              the authorization server
  --client-id ID            as registered there
  --client-secret SECRET    sent in the Authorization field (client_secret_basic)
  --resource URL            what to call
  --scope SCOPE             what to ask for
  --resource-indicator URI  whom the token is for (RFC 8707)
  --alg ALG                 what to sign proofs with (default: the first that both sides know)
  --count N                 how often to call the resource (default: 1)
  --post BYTES              call it with POST and a body of this length, instead of GET
";

#[tokio::main]
async fn main() -> ExitCode {
    let Some(options) = Options::parse(env::args().skip(1)) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let mut message = format!("client: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                message = format!("{message}: {error}");
                cause = error.source();
            }
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether every call succeeded.
async fn run(options: Options) -> Result<bool> {
    let client = options.builder()?.build().await?;
    println!(
        "{}",
        json!({ "jkt": client.thumbprint().to_string(), "alg": client.algorithm().name() })
    );
    let mut all_succeeded = true;
    for _ in 0..options.count {
        let request = match options.post {
            None => client.get(&options.resource),
            Some(length) => client.post(&options.resource).body(vec![b'x'; length]),
        };
        let response = request.send().await?;
        let status = response.status();
        let body = response.text().await?;
        let body: Value = serde_json::from_str(&body).unwrap_or(Value::String(body));
        println!("{}", json!({ "status": status.as_u16(), "body": body }));
        all_succeeded &= status.is_success();
    }
    Ok(all_succeeded)
}

struct Options {
    issuer: String,
    client_id: String,
    client_secret: Option<String>,
    resource: String,
    scope: Option<String>,
    resource_indicator: Option<String>,
    alg: Option<String>,
    count: usize,
    post: Option<usize>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let (mut issuer, mut client_id, mut resource) = (None, None, None);
        let (mut client_secret, mut scope, mut resource_indicator, mut alg) =
            (None, None, None, None);
        let (mut count, mut post) = (1, None);
        while let Some(name) = arguments.next() {
            let value = arguments.next()?;
            match name.as_str() {
                "--issuer" => issuer = Some(value),
                "--client-id" => client_id = Some(value),
                "--client-secret" => client_secret = Some(value),
                "--resource" => resource = Some(value),
                "--scope" => scope = Some(value),
                "--resource-indicator" => resource_indicator = Some(value),
                "--alg" => alg = Some(value),
                "--count" => count = value.parse().ok()?,
                "--post" => post = Some(value.parse().ok()?),
                _ => return None,
            }
        }
        Some(Self {
            issuer: issuer?,
            client_id: client_id?,
            client_secret,
            resource: resource?,
            scope,
            resource_indicator,
            alg,
            count,
            post,
        })
    }

    fn builder(&self) -> Result<DpopClientBuilder> {
        let resource: Url = self.resource.parse()?;
        let mut builder = DpopClient::builder()
            .with_issuer(self.issuer.parse()?)
            .add_server(resource.origin().ascii_serialization().parse()?);
        builder = match &self.client_secret {
            Some(secret) => builder.with_client_secret(&self.client_id, secret),
            None => builder.with_public_client(&self.client_id),
        };
        if let Some(scope) = &self.scope {
            builder = builder.with_scope(scope);
        }
        if let Some(uri) = &self.resource_indicator {
            builder = builder.add_resource(uri);
        }
        if let Some(alg) = &self.alg {
            builder = builder.with_key(SigningKey::generate_for(alg.parse()?)?);
        }
        Ok(builder)
    }
}
