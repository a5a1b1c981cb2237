//! A forward authentication server: a proxy asks it about each request (nginx `auth_request`,
//! Traefik ForwardAuth, Caddy `forward_auth`, Envoy `ext_authz`).
//!
//! ```sh
//! cargo run --release --example forward_auth -- --proxy nginx --listen 127.0.0.1:9001 \
//!     --issuer https://as.example.com --public-url https://example.com \
//!     --audience https://example.com --forward sub=X-Auth-Subject
//! curl -i -H 'X-Original-Method: GET' -H 'X-Original-URI: /orders' http://127.0.0.1:9001/
//! ```
//!
//! The response is 200 with the configured claims, or a rejection by the layer. Anyone who can ask
//! this server can name any method and URI, so only the proxy may ask: `--from` is its address, and
//! everyone else gets a bare 403. The application must be reachable through the proxy only.
//!
//! `docs/guide/forward-authentication.md` has the configuration of nginx, Traefik, Caddy and Envoy for it, and what each does
//! with header fields that a client invents.
//!
//! # Security
//!
//! Many applications treat `X_Auth_Subject` and `X.Auth.Subject` as `X-Auth-Subject`, but a proxy sets only the configured
//! name. If a proxy cannot drop the others, use `--forward sub=Subject`: a name of letters and digits has no other spelling.
//!
//! `RUST_LOG=tower_dpop=info` logs on standard error what requests must meet, why they are rejected, and why this
//! server responds with 500.

use std::env;
use std::error::Error;
use std::io::{self, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{StatusCode, Uri};
use serde_json::Value;
use tokio::net::TcpListener;
use tower_dpop::proof::{RequestTarget, TargetResolver};
use tower_dpop::tokens::{EndpointUrl, HttpClient};
use tower_dpop::{
    BoundToken, Claims, DpopLayer, JwtVerifier, NonceSecret, ProofRules, PublicUrl, RemoteKeys,
    StatelessNonces, Verifier,
};
use tracing_subscriber::EnvFilter;

/// The target of this server's own events: `RUST_LOG=tower_dpop=info` shows them, too.
const LOG: &str = "tower_dpop::forward_auth";

const USAGE: &str = "\
usage: forward_auth --proxy PROXY --public-url URL --issuer URL [OPTION]...

  --proxy PROXY          who asks: nginx, traefik, caddy or envoy
  --from IP              its address; may be given several times (default: 127.0.0.1)
  --path-prefix PREFIX   the path_prefix of envoy
  --public-url URL       how clients reach the proxy
  --issuer URL           the iss of access tokens, whose keys are discovered
  --jwks URL             the issuer's keys, instead of discovering them
  --audience AUD         the aud of access tokens (default: the public URL)
  --forward CLAIM=FIELD  returns this claim (or jkt, the thumbprint of the client's key) in this field
                         of the response; may be given several times
  --listen ADDRESS       where to listen (default: 127.0.0.1:9001; port 0 takes a free one)
  --nonces               require nonces
  --help                 show this

If a claim is absent, its field is absent too. If it cannot be a field (a list, an object, a fraction, an
empty text, anything but visible ASCII and single spaces within), the response is 500.
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
        Err(Unusable::Wrong(what)) => {
            eprint!("forward_auth: {what}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // Without RUST_LOG, only errors are logged.
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    match serve(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forward_auth: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options) -> Result<(), Box<dyn Error>> {
    let url: PublicUrl = options
        .public_url
        .parse()
        .map_err(|error| format!("--public-url {error}"))?;
    let keys = remote_keys(&options.issuer, options.jwks.as_deref()).await?;
    let audience = options.audience.unwrap_or_else(|| url.to_string());
    let mut rules = ProofRules::new(url).with_target_resolver(options.proxy);
    if options.nonces {
        rules = rules.with_nonces(StatelessNonces::new(NonceSecret::generate()));
    }
    let verifier = Verifier::new(rules, JwtVerifier::new(options.issuer, audience, keys));
    let app = Router::new()
        .fallback(forward)
        .with_state(options.forwarded.into())
        // Not `route_layer`: there are no routes, and everything is behind the layer.
        .layer(DpopLayer::new(verifier))
        // Outside of the layer: no one else can use up a proof, or learn whether a proof is valid.
        .layer(from_fn_with_state(options.from.into(), only_from));

    let listener = TcpListener::bind(&options.listen).await?;
    let stop = told_to_stop()?;
    println!("listening on http://{}", listener.local_addr()?);
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service)
        .with_graceful_shutdown(stop)
        .await?;
    Ok(())
}

/// The keys at a URL, or at the URL in the issuer's metadata.
async fn remote_keys(issuer: &str, jwks: Option<&str>) -> Result<RemoteKeys, Box<dyn Error>> {
    let http = HttpClient::new()?;
    let place = jwks.unwrap_or(issuer);
    let url: EndpointUrl = place.parse().map_err(|error| format!("{place}: {error}"))?;
    let keys = match jwks {
        Some(_) => RemoteKeys::at(url, http),
        None => RemoteKeys::discover(url, http),
    };
    // Wait up to ten seconds for an issuer that starts at the same time.
    let keys = keys.fetched_within(Duration::from_secs(10)).await;
    keys.map_err(|error| format!("{place}: {error}").into())
}

async fn only_from(
    State(proxies): State<Arc<[IpAddr]>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if proxies.contains(&peer.ip().to_canonical()) {
        next.run(request).await
    } else {
        StatusCode::FORBIDDEN.into_response()
    }
}

async fn forward(
    State(forwarded): State<Arc<[Forwarded]>>,
    Extension(token): Extension<BoundToken<Claims>>,
) -> Result<HeaderMap, StatusCode> {
    let mut headers = HeaderMap::new();
    for Forwarded { claim, field } in forwarded.iter() {
        let value = field_value(&token, claim).map_err(|Inexpressible| {
            tracing::error!(target: LOG, claim, status = 500, "the claim cannot be a header field");
            StatusCode::INTERNAL_SERVER_ERROR
        })?;
        if let Some(value) = value {
            headers.insert(field, value);
        }
    }
    Ok(headers)
}

/// A claim, and the header field that carries it.
struct Forwarded {
    claim: String,
    field: HeaderName,
}

/// The proxy that asks, which determines where the original request is described.
enum Proxy {
    Nginx,
    TraefikOrCaddy,
    Envoy { path_prefix: String },
}

impl TargetResolver for Proxy {
    /// The proxy sets each of these fields once, whatever the client sent. If a field is missing,
    /// repeated or malformed, the request is not from a proxy configured as above.
    fn resolve(&self, request: &Parts) -> Option<RequestTarget> {
        let (method, uri) = match self {
            Self::Nginx => ("x-original-method", "x-original-uri"),
            Self::TraefikOrCaddy => ("x-forwarded-method", "x-forwarded-uri"),
            // Envoy asks with the client's own method and path.
            Self::Envoy { path_prefix } => {
                let path = request.uri.path_and_query()?.as_str();
                let path = path.strip_prefix(path_prefix)?;
                return Some(RequestTarget::new(
                    request.method.clone(),
                    origin_form(path)?,
                ));
            }
        };
        let method = only(&request.headers, method)?.parse().ok()?;
        let uri = origin_form(only(&request.headers, uri)?)?;
        Some(RequestTarget::new(method, uri))
    }
}

fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut fields = headers.get_all(name).iter();
    let field = fields.next()?.to_str().ok()?;
    fields.next().is_none().then_some(field)
}

/// A path with an optional query.
fn origin_form(text: &str) -> Option<Uri> {
    text.starts_with('/').then(|| text.parse().ok())?
}

/// The claim exists, but no header field can express its value.
struct Inexpressible;

fn field_value(
    token: &BoundToken<Claims>,
    claim: &str,
) -> Result<Option<HeaderValue>, Inexpressible> {
    let claims = token.claims();
    let value = match claim {
        "jkt" => Some(token.thumbprint().to_string().into()),
        "sub" => claims.subject().map(Value::from),
        "client_id" => claims.client_id().map(Value::from),
        "scope" => {
            let scopes: Vec<_> = claims.scopes().collect();
            (!scopes.is_empty()).then(|| scopes.join(" ").into())
        }
        other => claims.claim(other),
    };
    let text = match value {
        None => return Ok(None),
        Some(Value::String(text)) => text,
        Some(Value::Bool(truth)) => truth.to_string(),
        // Large numbers were rounded when they were read.
        Some(Value::Number(number)) if !number.is_f64() => number.to_string(),
        Some(_) => return Err(Inexpressible),
    };
    // Repeated, leading or trailing spaces may get lost on the way, which changes the value.
    let words_stand = text
        .split(' ')
        .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic()));
    match HeaderValue::try_from(text) {
        Ok(value) if words_stand => Ok(Some(value)),
        _ => Err(Inexpressible),
    }
}

struct Options {
    listen: String,
    proxy: Proxy,
    from: Vec<IpAddr>,
    public_url: String,
    issuer: String,
    audience: Option<String>,
    jwks: Option<String>,
    forwarded: Vec<Forwarded>,
    nonces: bool,
}

/// Why the command line does not give [`Options`].
enum Unusable {
    HelpWanted,
    Wrong(String),
}

impl Options {
    /// Reads `--name value` and `--name=value`. If an option is given twice, the last one counts.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Unusable> {
        let (mut issuer, mut public_url, mut proxy) = (None, None, None);
        let mut path_prefix = String::new();
        let mut options = Self {
            listen: "127.0.0.1:9001".into(),
            proxy: Proxy::Nginx,
            from: Vec::new(),
            public_url: String::new(),
            issuer: String::new(),
            audience: None,
            jwks: None,
            forwarded: Vec::new(),
            nonces: false,
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
                "--proxy" => proxy = Some(value()?),
                "--from" => {
                    let text = value()?;
                    let address = text.parse();
                    options.from.push(address.map_err(|_| {
                        Unusable::Wrong(format!("--from {text}: not an IP address"))
                    })?);
                }
                "--path-prefix" => path_prefix = value()?,
                "--issuer" => issuer = Some(value()?),
                "--jwks" => options.jwks = Some(value()?),
                "--audience" => options.audience = Some(value()?),
                "--listen" => options.listen = value()?,
                "--public-url" => public_url = Some(value()?),
                "--forward" => options.forwarded.push(Forwarded::parse(&value()?)?),
                "--nonces" => options.nonces = true,
                "--help" | "-h" => return Err(Unusable::HelpWanted),
                _ => return Err(Unusable::Wrong(format!("{name} is not an option"))),
            }
            if attached.is_some() {
                return Err(Unusable::Wrong(format!("{name} takes no value")));
            }
        }
        let missing = |name| Unusable::Wrong(format!("{name} is missing"));
        options.issuer = issuer.ok_or_else(|| missing("--issuer"))?;
        options.public_url = public_url.ok_or_else(|| missing("--public-url"))?;
        let proxy = proxy.ok_or_else(|| missing("--proxy"))?;
        options.proxy = match (proxy.as_str(), path_prefix.as_str()) {
            ("envoy", _) => Proxy::Envoy { path_prefix },
            ("nginx", "") => Proxy::Nginx,
            ("traefik" | "caddy", "") => Proxy::TraefikOrCaddy,
            ("nginx" | "traefik" | "caddy", _) => {
                let what = format!("--path-prefix {path_prefix}: is for envoy");
                return Err(Unusable::Wrong(what));
            }
            _ => return Err(Unusable::Wrong(format!("--proxy {proxy} is not known"))),
        };
        if options.from.is_empty() {
            options.from.push(Ipv4Addr::LOCALHOST.into());
        }
        Ok(options)
    }
}

impl Forwarded {
    fn parse(text: &str) -> Result<Self, Unusable> {
        let (claim, field) = text.split_once('=').unwrap_or_default();
        match field.parse() {
            Ok(field) if !claim.is_empty() => Ok(Self {
                claim: claim.to_owned(),
                field,
            }),
            _ => Err(Unusable::Wrong(format!(
                "--forward {text}: not CLAIM=FIELD"
            ))),
        }
    }
}

/// Completes on ctrl-c or SIGTERM. Both are handled from this call on.
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
