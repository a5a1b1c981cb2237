//! A client for any authorization server and any resource server: it discovers the token endpoint,
//! gets a token that is bound to its key (client credentials, or a login), and calls a resource with it.
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
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use reqwest::Url;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use tower_dpop::client::{DpopClient, DpopClientBuilder, DpopClientError};
use tower_dpop::jose::SigningKey;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const USAGE: &str = "\
usage: client --issuer URL --client-id ID --resource URL [OPTION]...

  --issuer URL              the authorization server
  --client-id ID            as registered there
  --client-secret SECRET    sent in the Authorization field (client_secret_basic)
  --login PROGRAM           a user logs in: their browser is this program, with its arguments, and comes back
                            to http://127.0.0.1:PORT/callback
  --resource URL            what to call
  --scope SCOPE             what to ask for
  --resource-indicator URI  whom the token is for (RFC 8707)
  --alg ALG                 what to sign proofs with (default: the first that both sides know)
  --count N                 how often to call the resource (default: 1)
  --pause MILLISECONDS      how long to wait between two calls (default: 0)
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
    let builder = options.builder()?;
    let client = match &options.login {
        None => builder.build().await?,
        Some(browser) => log_in(&builder, browser).await?,
    };
    println!(
        "{}",
        json!({ "jkt": client.thumbprint().to_string(), "alg": client.algorithm().name() })
    );
    let mut all_succeeded = true;
    for call in 0..options.count {
        if call > 0 {
            sleep(options.pause).await;
        }
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
    client.wait_for_renewal().await;
    Ok(all_succeeded)
}

/// The authorization code grant with PKCE. The guide's page on the client explains it.
async fn log_in(app: &DpopClientBuilder, browser: &str) -> Result<DpopClient> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let login = app
        .start_login(format!("http://{}/callback", listener.local_addr()?))
        .await?;
    let mut words = browser.split_whitespace();
    let mut browser = Command::new(words.next().unwrap_or_default())
        .args(words)
        .arg(login.url())
        .stdout(Stdio::null())
        .spawn()?;
    loop {
        let (mut connection, _) = timeout(Duration::from_secs(300), listener.accept()).await??;
        let mut line = String::new();
        let read = BufReader::new((&mut connection).take(8192));
        let Ok(Ok(_)) = timeout(Duration::from_secs(2), { read }.read_line(&mut line)).await else {
            continue;
        };
        let finished = login
            .finish(line.split(' ').nth(1).unwrap_or_default())
            .await;
        let page = b"HTTP/1.1 200 OK\r\ncontent-length: 23\r\n\r\nYou can close this page";
        let _ = connection.write_all(page).await;
        drop(connection);
        match finished {
            Err(DpopClientError::Callback(_)) => {} // of another program
            finished => {
                browser.wait().await?;
                return Ok(finished?);
            }
        }
    }
}

struct Options {
    issuer: String,
    client_id: String,
    client_secret: Option<String>,
    login: Option<String>,
    resource: String,
    scope: Option<String>,
    resource_indicator: Option<String>,
    alg: Option<String>,
    count: usize,
    pause: Duration,
    post: Option<usize>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let (mut issuer, mut client_id, mut resource) = (None, None, None);
        let (mut client_secret, mut login, mut scope, mut resource_indicator, mut alg) =
            (None, None, None, None, None);
        let (mut count, mut pause, mut post) = (1, Duration::ZERO, None);
        while let Some(name) = arguments.next() {
            let value = arguments.next()?;
            match name.as_str() {
                "--issuer" => issuer = Some(value),
                "--client-id" => client_id = Some(value),
                "--client-secret" => client_secret = Some(value),
                "--resource" => resource = Some(value),
                "--login" => login = Some(value),
                "--scope" => scope = Some(value),
                "--resource-indicator" => resource_indicator = Some(value),
                "--alg" => alg = Some(value),
                "--count" => count = value.parse().ok()?,
                "--pause" => pause = Duration::from_millis(value.parse().ok()?),
                "--post" => post = Some(value.parse().ok()?),
                _ => return None,
            }
        }
        Some(Self {
            issuer: issuer?,
            client_id: client_id?,
            client_secret,
            login,
            resource: resource?,
            scope,
            resource_indicator,
            alg,
            count,
            pause,
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
