//! A small but real authorization server that binds tokens to keys, for testing other
//! implementations of clients and resource servers.
//!
//! ```sh
//! cargo run --example authorization_server -- --listen 127.0.0.1:9000 --nonces
//! curl -s http://127.0.0.1:9000/.well-known/oauth-authorization-server
//! ```
//!
//! It has two clients, and both must send proofs: `service`, with the secret `service-secret`, for
//! client credentials; and `app`, a public client with the redirect URI
//! `http://127.0.0.1/callback`, for codes (PKCE, pushed requests, `dpop_jkt`) and refresh tokens.
//! Its one user, alice, consents to everything, so do not expose it to a network.
//!
//! With `--allow-origin`, it has a third client, `browser`: a page of that origin, which may call it across
//! origins. Its redirect URI is the origin and `/`, and alice is asked for her consent. `examples/browser` is
//! such a page.

mod server;

use std::env;
use std::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tower_dpop::Algorithms;
use tracing_subscriber::EnvFilter;

const USAGE: &str = "\
usage: authorization_server [OPTION]...

  --listen ADDRESS      where to listen (default: 127.0.0.1:9000; port 0 takes a free one)
  --issuer URL          how clients reach it (default: http:// and the address)
  --audience URI        whom access tokens are for (default: http://127.0.0.1:8080)
  --algs \"ALG ...\"      the algorithms of proofs (default: ES256 ES384 PS256 Ed25519 EdDSA)
  --nonces              require nonces
  --token-life SECONDS  how long access tokens live (default: 300)
  --allow-origin ORIGIN let scripts of this origin call, and register the client browser with the
                        redirect URI ORIGIN/

Clients: service (secret service-secret), for client credentials; app (public, redirect URI
http://127.0.0.1/callback), for authorization codes and refresh tokens.
";

#[tokio::main]
async fn main() -> ExitCode {
    let Some(options) = Options::parse(env::args().skip(1)) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
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
            eprintln!("authorization_server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options) -> Result<(), Box<dyn Error + Send + Sync>> {
    let listener = TcpListener::bind(&options.listen).await;
    let listener = listener.map_err(|error| format!("--listen {}: {error}", options.listen))?;
    let address = format!("http://{}", listener.local_addr()?);
    let app = server::router(server::Settings {
        issuer: options.issuer.unwrap_or_else(|| address.clone()),
        audience: options.audience,
        algorithms: options.algorithms,
        nonces: options.nonces,
        token_lifetime: options.token_lifetime,
        browser_origin: options.allow_origin,
    })?;
    eprintln!("clients: service (secret service-secret) and app (public); --help says more");
    println!("listening on {address}");
    axum::serve(listener, app).await?;
    Ok(())
}

struct Options {
    listen: String,
    issuer: Option<String>,
    audience: String,
    algorithms: Algorithms,
    nonces: bool,
    token_lifetime: Duration,
    allow_origin: Option<String>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self {
            listen: "127.0.0.1:9000".into(),
            issuer: None,
            audience: "http://127.0.0.1:8080".into(),
            algorithms: Algorithms::default(),
            nonces: false,
            token_lifetime: Duration::from_secs(300),
            allow_origin: None,
        };
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--listen" => options.listen = arguments.next()?,
                "--issuer" => options.issuer = Some(arguments.next()?),
                "--audience" => options.audience = arguments.next()?,
                "--algs" => options.algorithms = arguments.next()?.parse().ok()?,
                "--nonces" => options.nonces = true,
                "--allow-origin" => options.allow_origin = Some(arguments.next()?),
                "--token-life" => {
                    options.token_lifetime = Duration::from_secs(arguments.next()?.parse().ok()?);
                }
                _ => return None,
            }
        }
        Some(options)
    }
}
