//! A reverse proxy for services without DPoP support. It forwards only requests that the layer
//! accepts, and passes claims of their tokens to the service in header fields.
//!
//! ```sh
//! cargo run --release --example gateway -- --issuer https://as.example.com \
//!     --public-url https://example.com/api --audience https://example.com/api \
//!     --listen 127.0.0.1:8080 --upstream http://127.0.0.1:3000 \
//!     --forward sub=X-Auth-Subject --forward scope=X-Auth-Scope
//! curl -i http://127.0.0.1:8080/orders
//! ```
//!
//! curl cannot sign proofs, so its request is rejected and does not reach the service. The service
//! must be reachable through the gateway only. Terminate TLS in front of the gateway, for example
//! with nginx, here stripping `/api`:
//!
//! ```nginx
//! # The path as the client wrote it and as its proof contains it:
//! # `proxy_pass http://127.0.0.1:8080/` would decode %2F and merge slashes, and such requests would
//! # be rejected.
//! map $request_uri $below_api { ~^/api(?<below>/.*)$ $below; }
//! server {
//!     location /api/ {
//!         proxy_pass http://127.0.0.1:8080$below_api;
//!         proxy_http_version 1.1;
//!         proxy_set_header Connection "";
//!         proxy_request_buffering off;
//!         proxy_buffering off;
//!     }
//! }
//! ```
//!
//! `RUST_LOG=tower_dpop=info` logs on standard error what requests must meet, why they are rejected, and why the
//! gateway responds with 500, 502 or 504.

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::io::{self, IsTerminal};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tower::{ServiceBuilder, service_fn};
use tower_dpop::proof::DPOP;
use tower_dpop::tokens::{EndpointUrl, HttpClient};
use tower_dpop::{
    BoundToken, Claims, DpopLayer, JwtVerifier, NonceSecret, ProofRules, PublicUrl, RemoteKeys,
    StatelessNonces, Verifier,
};
use tracing_subscriber::EnvFilter;

/// The target of the gateway's own events: `RUST_LOG=tower_dpop=info` shows them, too.
const LOG: &str = "tower_dpop::gateway";

const USAGE: &str = "\
usage: gateway --public-url URL --upstream URL --issuer URL [OPTION]...

  --public-url URL       how clients reach this gateway, with the prefix that a proxy strips
  --upstream URL         the service behind it: http://host[:port]
  --issuer URL           the iss of access tokens, whose keys are discovered
  --jwks URL             the issuer's keys, where they are not to be discovered
  --audience AUD         the aud of access tokens (default: the public URL)
  --forward CLAIM=FIELD  sends the service this claim (or jkt, the thumbprint of the client's key)
                         in this header field; may be given several times
  --keep-authorization   leaves the access token in the request
  --timeout SECONDS      how long the service may take to respond (default: 60)
  --listen ADDRESS       where to listen (default: 127.0.0.1:8080; port 0 takes a free one)
  --nonces               require nonces
  --help                 show this

A field that is forwarded is first removed from the client's request, in all of its spellings. If a claim is
absent, its field is absent too. If it cannot be a field (a list, an object, a fraction, an empty text,
anything but visible ASCII and single spaces within), the response is 500.
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
            eprint!("gateway: {what}\n\n{USAGE}");
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
            eprintln!("gateway: {error}");
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
    let mut rules = ProofRules::new(url);
    if options.nonces {
        rules = rules.with_nonces(StatelessNonces::new(NonceSecret::generate()));
    }
    let verifier = Verifier::new(rules, JwtVerifier::new(options.issuer, audience, keys));

    let gateway = Arc::new(Gateway {
        client: Client::builder(TokioExecutor::new()).build_http(),
        upstream: options.upstream,
        forwarded: options.forwarded,
        authorization: options.authorization,
        patience: options.timeout,
    });
    let service = ServiceBuilder::new()
        .layer(DpopLayer::new(verifier))
        .service(service_fn(move |request| {
            let gateway = Arc::clone(&gateway);
            async move { Ok::<_, Infallible>(gateway.respond(request).await) }
        }));
    let service = TowerToHyperService::new(service);

    let listener = TcpListener::bind(&options.listen).await?;
    let mut stop = pin!(told_to_stop()?);
    println!("listening on http://{}", listener.local_addr()?);
    let server = auto::Builder::new(TokioExecutor::new());
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = server.serve_connection(TokioIo::new(stream), service.clone());
                // An error on one connection does not end the others.
                tokio::spawn(connections.watch(connection.into_owned()));
            }
            // The process may have no file descriptors left for a moment.
            Err(error) => {
                tracing::error!(target: LOG, %error, "no connection was accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    // Requests that are still in progress after that are aborted.
    let _ = timeout(Duration::from_secs(10), connections.shutdown()).await;
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

type Body = BoxBody<Bytes, hyper::Error>;

struct Gateway {
    client: Client<HttpConnector, Body>,
    upstream: Uri,
    forwarded: Vec<Forwarded>,
    authorization: Fate,
    patience: Duration,
}

/// A claim, and the header field that carries it.
struct Forwarded {
    claim: String,
    field: HeaderName,
}

/// What happens to the `Authorization` field.
#[derive(PartialEq)]
enum Fate {
    Kept,
    Removed,
}

impl Gateway {
    async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        let upstream = match self.prepare(request) {
            Ok((request, progress)) => self.pass_on(request, progress).await,
            Err(status) => Err(status),
        };
        upstream.unwrap_or_else(|status| {
            let mut response = Response::<Body>::default();
            *response.status_mut() = status;
            response
        })
    }

    /// The request to the service, and a receiver that changes whenever a part of the body is sent.
    fn prepare(
        &self,
        request: Request<Incoming>,
    ) -> Result<(Request<Body>, watch::Receiver<()>), StatusCode> {
        let (mut head, body) = request.into_parts();
        let token: BoundToken<Claims> = head.extensions.remove().expect("set by the layer");

        let mut target = self.upstream.clone().into_parts();
        target.path_and_query = head.uri.path_and_query().cloned();
        head.uri = Uri::from_parts(target).map_err(|_| StatusCode::BAD_REQUEST)?;
        head.version = Version::HTTP_11;
        // Before our own fields are written, so that the client's `Connection` cannot name them.
        remove_hop_by_hop(&mut head.headers);
        head.headers.remove(DPOP);
        // The HTTP client sets the host of the upstream.
        head.headers.remove(HOST);
        if self.authorization == Fate::Removed {
            head.headers.remove(AUTHORIZATION);
        }
        remove_fields(&mut head.headers, |name| {
            self.forwarded
                .iter()
                .any(|forwarded| could_be_read_as(name, &forwarded.field))
        });
        for Forwarded { claim, field } in &self.forwarded {
            let value = field_value(&token, claim).map_err(|Inexpressible| {
                tracing::error!(target: LOG, claim, status = 500, "request not forwarded: the claim cannot be a header field");
                StatusCode::INTERNAL_SERVER_ERROR
            })?;
            if let Some(value) = value {
                head.headers.insert(field, value);
            }
        }

        let (moved, progress) = watch::channel(());
        let body = body.map_frame(move |frame| {
            moved.send_replace(());
            frame
        });
        Ok((Request::from_parts(head, body.boxed()), progress))
    }

    /// The response of the service. The timeout starts again whenever a part of the request's body
    /// is sent.
    async fn pass_on(
        &self,
        request: Request<Body>,
        mut progress: watch::Receiver<()>,
    ) -> Result<Response<Body>, StatusCode> {
        let mut upstream = pin!(self.client.request(request));
        let mut moving = true;
        let upstream = loop {
            tokio::select! {
                upstream = &mut upstream => break upstream,
                moved = progress.changed(), if moving => moving = moved.is_ok(),
                () = sleep(self.patience) => {
                    let seconds = self.patience.as_secs();
                    tracing::error!(target: LOG, upstream = %self.upstream, seconds, status = 504, "no response from the upstream within --timeout");
                    return Err(StatusCode::GATEWAY_TIMEOUT);
                }
            }
        };
        let (mut head, body) = upstream
            .map_err(|error| {
                tracing::error!(target: LOG, upstream = %self.upstream, ?error, status = 502, "no response from the upstream");
                StatusCode::BAD_GATEWAY
            })?
            .into_parts();
        // `Upgrade` was not forwarded, so there is nothing to switch to.
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            tracing::error!(target: LOG, upstream = %self.upstream, status = 502, "the upstream switched protocols, which the gateway did not ask for");
            return Err(StatusCode::BAD_GATEWAY);
        }
        head.version = Version::HTTP_11;
        remove_hop_by_hop(&mut head.headers);
        Ok(Response::from_parts(head, body.boxed()))
    }
}

/// RFC 9110 section 7.6.1: removes the fields that concern the connection and not the message.
/// Removing `Trailer` removes the trailers, too, which could contain fields that were removed from
/// the header.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase())
        .collect();
    remove_fields(headers, |name| {
        let name = name.as_str();
        let connection = [
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ];
        connection.contains(&name)
            || name.starts_with("proxy-")
            || named.iter().any(|named| named == name)
    });
}

fn remove_fields(headers: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) {
    let names = headers.keys().filter(|name| is_unwanted(name)).cloned();
    for name in names.collect::<Vec<_>>() {
        headers.remove(name);
    }
}

/// Whether a service could confuse the two fields: CGI, WSGI, PHP and others turn names into
/// variables, and `X_Subject`, `X.Subject` and `X-Subject` become the same variable.
fn could_be_read_as(one: &HeaderName, other: &HeaderName) -> bool {
    // A HeaderName is in lower case.
    let folded = |name: &HeaderName| {
        name.as_str()
            .replace(|c: char| !c.is_ascii_alphanumeric(), "_")
    };
    folded(one) == folded(other)
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
    public_url: String,
    upstream: Uri,
    issuer: String,
    audience: Option<String>,
    jwks: Option<String>,
    forwarded: Vec<Forwarded>,
    authorization: Fate,
    timeout: Duration,
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
        let (mut issuer, mut public_url, mut upstream) = (None, None, None);
        let mut options = Self {
            listen: "127.0.0.1:8080".into(),
            public_url: String::new(),
            upstream: Uri::default(),
            issuer: String::new(),
            audience: None,
            jwks: None,
            forwarded: Vec::new(),
            authorization: Fate::Removed,
            timeout: Duration::from_secs(60),
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
                "--issuer" => issuer = Some(value()?),
                "--jwks" => options.jwks = Some(value()?),
                "--audience" => options.audience = Some(value()?),
                "--listen" => options.listen = value()?,
                "--public-url" => public_url = Some(value()?),
                "--upstream" => upstream = Some(origin(&value()?)?),
                "--forward" => options.forwarded.push(Forwarded::parse(&value()?)?),
                "--keep-authorization" => options.authorization = Fate::Kept,
                "--timeout" => {
                    let text = value()?;
                    options.timeout = text.parse().map(Duration::from_secs).map_err(|_| {
                        Unusable::Wrong(format!("{name} {text}: not a number of seconds"))
                    })?;
                }
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
        options.upstream = upstream.ok_or_else(|| missing("--upstream"))?;
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

fn origin(url: &str) -> Result<Uri, Unusable> {
    match url.parse::<Uri>() {
        Ok(uri)
            if uri.scheme_str() == Some("http")
                && uri.path_and_query().is_none_or(|path| path == "/")
                && !url.contains('@') =>
        {
            Ok(uri)
        }
        _ => Err(Unusable::Wrong(format!(
            "--upstream {url}: not of the form http://host[:port]"
        ))),
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
