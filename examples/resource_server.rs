//! A configurable server, to try the layer against clients and issuers of other makes.
//!
//! ```sh
//! cargo run --release --example resource_server -- --issuer https://as.example.com --jwks jwks.json \
//!     --listen 127.0.0.1:8080 --public-url http://127.0.0.1:8080 --audience http://127.0.0.1:8080
//! curl -i http://127.0.0.1:8080/protected
//! ```
//!
//! `RUST_LOG=tower_dpop=info` tells on standard error why requests are refused.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, IsTerminal};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use axum::routing::{any, get};
use axum::{Extension, Json, Router};
use http::{Method, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_dpop::{
    Algorithms, BoundToken, Claims, DpopLayer, Freshness, JwtVerifier, KeySet, NonceSecret,
    PublicUrl, StatelessNonces, Verifier,
};
use tracing_subscriber::EnvFilter;

const USAGE: &str = "\
usage: resource_server --issuer URL --jwks FILE-or-URL [OPTION]...

  --issuer URL           the iss of access tokens
  --jwks FILE-or-URL     the issuer's keys: a file, or an http URL on loopback
  --audience AUD         the aud of access tokens (default: the public URL)
  --listen ADDRESS       where to listen (default: 127.0.0.1:8080; port 0 takes a free one)
  --public-url URL       how clients reach this server (default: http:// and the address)
  --algs \"ALG ...\"       the algorithms of proofs (default: ES256 ES384 PS256 Ed25519 EdDSA)
  --max-age SECONDS      the age up to which proofs are accepted (default: 60)
  --leeway SECONDS       how far the clocks of clients may be off (default: 30)
  --nonces               require nonces
  --lenient-typ          accept access tokens whose typ is JWT or missing
  --allow-bearer         reserved
  --help                 show this

/protected and all below it answer any method with a JSON object, /health needs no token.
";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let options = match Options::parse(arguments.skip(1)) {
        Ok(options) => options,
        Err(Unusable::HelpWanted) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(Unusable::NotSupported(what)) => {
            eprintln!("resource_server: {what} is not supported yet");
            return ExitCode::FAILURE;
        }
        Err(Unusable::Wrong(what)) => {
            eprint!("resource_server: {what}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::from_default_env())
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .init();
    }
    match serve(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("resource_server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    let keys: KeySet = read_jwks(&options.jwks).await?.parse()?;
    let listener = TcpListener::bind(&options.listen).await?;
    let address = format!("http://{}", listener.local_addr()?);
    let url = options.public_url.as_deref().unwrap_or(&address);
    let url = PublicUrl::http_on_loopback(url)
        .map_err(|error| format!("--public-url {url}: {error}, or http on loopback"))?;

    let audience = options.audience.unwrap_or_else(|| url.to_string());
    let mut tokens = JwtVerifier::new(options.issuer, audience, keys);
    if options.lenient_typ {
        tokens = tokens.with_lenient_typ();
    }
    let mut verifier = Verifier::new(url, tokens)
        .with_algorithms(options.algorithms)
        .with_freshness(options.freshness);
    if options.nonces {
        verifier = verifier.with_nonces(StatelessNonces::new(NonceSecret::generate()));
    }
    let app = Router::new()
        .route("/protected", any(protected))
        .route("/protected/", any(protected))
        .route("/protected/{*below}", any(protected))
        .layer(DpopLayer::new(verifier))
        // Routes that come after the layer are not behind it.
        .route("/health", get(StatusCode::OK));

    let stop = told_to_stop()?;
    println!("listening on {address}");
    axum::serve(listener, app)
        .with_graceful_shutdown(stop)
        .await?;
    Ok(())
}

async fn protected(
    Extension(token): Extension<BoundToken<Claims>>,
    method: Method,
    uri: Uri,
) -> Json<Value> {
    Json(json!({
        "sub": token.claims().subject(),
        "jkt": token.thumbprint().to_string(),
        "method": method.as_str(),
        "path": uri.path(),
    }))
}

struct Options {
    listen: String,
    public_url: Option<String>,
    issuer: String,
    audience: Option<String>,
    jwks: String,
    algorithms: Algorithms,
    freshness: Freshness,
    nonces: bool,
    lenient_typ: bool,
}

/// Why the command line holds no [`Options`].
enum Unusable {
    HelpWanted,
    NotSupported(&'static str),
    Wrong(String),
}

impl Options {
    /// `--name value` and `--name=value`; of an option given twice, the last counts.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Unusable> {
        let (mut issuer, mut jwks) = (None, None);
        let mut options = Self {
            listen: "127.0.0.1:8080".into(),
            public_url: None,
            issuer: String::new(),
            audience: None,
            jwks: String::new(),
            algorithms: Algorithms::default(),
            freshness: Freshness::default(),
            nonces: false,
            lenient_typ: false,
        };
        while let Some(argument) = arguments.next() {
            let (name, mut attached) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            let mut value = || {
                attached
                    .take()
                    .or_else(|| arguments.next())
                    .ok_or_else(|| Unusable::Wrong(format!("{name} needs a value")))
            };
            match name {
                "--issuer" => issuer = Some(value()?),
                "--jwks" => jwks = Some(value()?),
                "--audience" => options.audience = Some(value()?),
                "--listen" => options.listen = value()?,
                "--public-url" => options.public_url = Some(value()?),
                "--algs" => {
                    let names = value()?;
                    options.algorithms = names
                        .parse()
                        .map_err(|error| Unusable::Wrong(format!("--algs {names}: {error}")))?;
                }
                "--max-age" => {
                    options.freshness = options.freshness.with_max_age(seconds(name, &value()?)?);
                }
                "--leeway" => {
                    options.freshness = options.freshness.with_leeway(seconds(name, &value()?)?);
                }
                "--nonces" => options.nonces = true,
                "--lenient-typ" => options.lenient_typ = true,
                "--allow-bearer" => return Err(Unusable::NotSupported("--allow-bearer")),
                "--help" | "-h" => return Err(Unusable::HelpWanted),
                _ => return Err(Unusable::Wrong(format!("{name} is not an option"))),
            }
            if attached.is_some() {
                return Err(Unusable::Wrong(format!("{name} takes no value")));
            }
        }
        let missing = |name| Unusable::Wrong(format!("{name} is missing"));
        options.issuer = issuer.ok_or_else(|| missing("--issuer"))?;
        options.jwks = jwks.ok_or_else(|| missing("--jwks"))?;
        Ok(options)
    }
}

fn seconds(name: &str, text: &str) -> Result<Duration, Unusable> {
    text.parse()
        .map(Duration::from_secs)
        .map_err(|_| Unusable::Wrong(format!("{name} {text}: not a number of seconds")))
}

fn is_loopback(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    uri.as_ref().and_then(Uri::host).is_some_and(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost")
            || address
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback())
    })
}

/// Reads a file, or an http URL on loopback: keys that came in the clear from anywhere else could be
/// anyone's, and for https this example would need a TLS library.
async fn read_jwks(source: &str) -> Result<String, Box<dyn Error>> {
    if !source.contains("://") {
        return fs::read_to_string(source)
            .map_err(|error| format!("--jwks {source}: {error}").into());
    }
    if !source.starts_with("http://") || !is_loopback(source) {
        return Err(format!(
            "--jwks {source}: only http on loopback is fetched; download the JWK Set into a file"
        )
        .into());
    }
    fetch(source.parse()?)
        .await
        .map_err(|error| format!("--jwks {source}: {error}").into())
}

async fn fetch(url: Uri) -> Result<String, Box<dyn Error + Send + Sync>> {
    const LONGEST: usize = 1024 * 1024;
    let client: Client<_, String> = Client::builder(TokioExecutor::new()).build_http();
    let fetched = async {
        let response = client.get(url).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("answered {}", response.status()).into());
        }
        let body = Limited::new(response.into_body(), LONGEST);
        Ok(String::from_utf8(body.collect().await?.to_bytes().into())?)
    };
    tokio::time::timeout(Duration::from_secs(10), fetched).await?
}

/// Ends with ctrl-c or SIGTERM, which are heard from now on.
fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let (mut interrupted, mut terminated) = {
        use tokio::signal::unix::{SignalKind, signal};
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    #[cfg(windows)]
    let (mut interrupted, mut terminated) = {
        use tokio::signal::windows::{ctrl_break, ctrl_c};
        (ctrl_c()?, ctrl_break()?)
    };
    Ok(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    })
}
