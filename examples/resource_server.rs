//! A configurable server for testing the layer with other implementations of clients and issuers.
//!
//! ```sh
//! cargo run --release --example resource_server -- --issuer https://as.example.com \
//!     --listen 127.0.0.1:8080 --public-url http://127.0.0.1:8080 --audience http://127.0.0.1:8080
//! curl -i http://127.0.0.1:8080/protected
//! ```
//!
//! `RUST_LOG=tower_dpop=info` logs on standard error why requests are rejected.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tower_dpop::resource::{ResourceMetadata, Scopes, cors_allow_headers, cors_expose_headers};
use tower_dpop::tokens::{
    AccessTokenVerifier, ClientAuthentication, EndpointUrl, HasScopes, HttpClient,
    IntrospectionVerifier, KeySource,
};
use tower_dpop::{
    AcceptedToken, Algorithms, BoundToken, DpopLayer, Freshness, Issuers, JwtVerifier, KeySet,
    NonceSecret, NonceSecrets, ProofRules, PublicUrl, RemoteKeys, RequireScopesLayer,
    StatelessNonces, Thumbprint, Verifier,
};
use tower_http::cors::CorsLayer;
use tracing_subscriber::EnvFilter;

const USAGE: &str = "\
usage: resource_server --issuer URL [OPTION]...
       resource_server --introspection URL --client-id ID --client-secret SECRET [OPTION]...

  --issuer URL           the iss of access tokens, whose keys are discovered
  --jwks FILE-or-URL     the issuer's keys, where they are not to be discovered
  --introspection URL    ask about tokens here: about all, or, with --issuer, those that are no JWTs
  --client-id ID         this server's name at the introspection endpoint
  --client-secret SECRET its secret (in production, do not put it on a command line)
  --audience AUD         the aud of access tokens (default: the public URL)
  --listen ADDRESS       where to listen (default: 127.0.0.1:8080; port 0 takes a free one)
  --public-url URL       how clients reach this server (default: http:// and the address)
  --algs \"ALG ...\"       the algorithms of proofs (default: ES256 ES384 PS256 Ed25519 EdDSA)
  --max-age SECONDS      the age up to which proofs are accepted (default: 60)
  --leeway SECONDS       how far the clocks of clients may be off (default: 30)
  --nonces               require nonces
  --nonce-secret-file FILE
                         the same, under the secrets in a file that several servers share: one per line
                         (openssl rand -hex 32), the first issues; read again on SIGHUP
  --insecure-one-use-per-node
                         accept nonces of all servers with the same secrets; each has a replay store of its
                         own, so a proof passes once on each
  --redis URL            record used proofs in Redis, which several servers share (in production, do not put a password
                         on a command line); with a file of nonce secrets, these are nodes of one service
  --redis-sentinels URL,...
                         the sentinels that know where the primary is, instead of --redis
  --redis-primary NAME   its name at the sentinels
                         (these three need a build with --features redis)
  --lenient-typ          accept access tokens whose typ is JWT or missing
  --allow-bearer         let tokens that are bound to nothing pass under the Bearer scheme
  --report-only          reject nothing, report on standard error what would have been rejected
  --scopes \"SCOPE ...\"   the scopes that /protected requires
  --metadata             serve RFC 9728 metadata, and point to them in challenges
  --allow-origin ORIGIN  let scripts of this origin call (CORS)
  --help                 show this

/protected and all paths below it respond to any method with a JSON object, /health needs no token.
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
            eprint!("resource_server: {what}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if env::var_os("RUST_LOG").is_some() || options.report_only {
        let filter = EnvFilter::try_from_default_env();
        tracing_subscriber::fmt()
            .with_env_filter(filter.unwrap_or_else(|_| EnvFilter::new("tower_dpop=info")))
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
    let listener = TcpListener::bind(&options.listen).await;
    let listener = listener.map_err(|error| format!("--listen {}: {error}", options.listen))?;
    let address = format!("http://{}", listener.local_addr()?);
    let url = options.public_url.as_deref().unwrap_or(&address);
    let url: PublicUrl = url
        .parse()
        .map_err(|error| format!("--public-url {error}"))?;
    let audience = options.audience.clone().unwrap_or_else(|| url.to_string());

    let nonces = nonces(&options)?;
    let rules = rules(&options, url, nonces).await?;
    let opaque = introspection(&options, &audience)?;
    let app = match (options.issuer.clone(), opaque) {
        (Some(issuer), opaque) => {
            let mut tokens = Issuers::new();
            match &options.jwks {
                Some(file) if !file.contains("://") => {
                    let keys: KeySet = fs::read_to_string(file)
                        .map_err(|error| format!("--jwks {file}: {error}"))?
                        .parse()?;
                    tokens = tokens.add_issuer(jwts(&options, issuer, audience, keys));
                }
                url => {
                    let keys = remote_keys(&issuer, url.as_deref()).await?;
                    tokens = tokens.add_issuer(jwts(&options, issuer, audience, keys));
                }
            }
            if let Some(opaque) = opaque {
                tokens = tokens.with_opaque_tokens(opaque);
            }
            application(&options, rules, tokens)
        }
        (None, Some(opaque)) => application(&options, rules, opaque),
        (None, None) => return Err("neither --issuer nor --introspection".into()),
    };
    let app = match &options.allow_origin {
        Some(origin) => {
            let origin = origin.parse();
            app.layer(cors(
                origin.map_err(|error| format!("--allow-origin {error}"))?,
            ))
        }
        None => app,
    };

    let stop = told_to_stop()?;
    println!("listening on {address}");
    axum::serve(listener, app)
        .with_graceful_shutdown(stop)
        .await?;
    Ok(())
}

fn jwts<K: KeySource>(
    options: &Options,
    issuer: String,
    audience: String,
    keys: K,
) -> JwtVerifier<K, TokenClaims> {
    let tokens = JwtVerifier::new(issuer, audience, keys).with_claims();
    if options.lenient_typ {
        tokens.with_lenient_typ()
    } else {
        tokens
    }
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

fn introspection(
    options: &Options,
    audience: &str,
) -> Result<Option<IntrospectionVerifier<TokenClaims>>, Box<dyn Error>> {
    let Some(endpoint) = &options.introspection else {
        return Ok(None);
    };
    let client = ClientAuthentication::basic(&options.client_id, options.client_secret.as_str());
    let endpoint = endpoint
        .parse()
        .map_err(|error| format!("--introspection {endpoint}: {error}"))?;
    let tokens = IntrospectionVerifier::new(endpoint, client, audience, HttpClient::new()?)
        // Many servers omit the audience of an opaque token. In production, have them state it.
        .with_optional_audience()
        .with_claims();
    Ok(Some(tokens))
}

fn nonces(options: &Options) -> Result<Option<StatelessNonces>, Box<dyn Error>> {
    let Some(file) = &options.nonce_secret_file else {
        let secret = options.nonces.then(NonceSecret::generate);
        return Ok(secret.map(StatelessNonces::new));
    };
    let secrets = NonceSecrets::from_file(file);
    let secrets = secrets.map_err(|error| format!("--nonce-secret-file: {error}"))?;
    let nonces = StatelessNonces::new(secrets);
    #[cfg(unix)]
    replace_on_hangup(nonces.clone(), file.clone())?;
    Ok(Some(nonces))
}

/// Reads the secrets again on each SIGHUP. If the file is invalid, they stay as they are.
#[cfg(unix)]
fn replace_on_hangup(nonces: StatelessNonces, file: String) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match NonceSecrets::from_file(&file) {
                Ok(secrets) => nonces.replace_secrets(secrets),
                Err(error) => eprintln!("resource_server: --nonce-secret-file: {error}"),
            }
        }
    });
    Ok(())
}

/// How proofs are checked, and where used ones are recorded.
async fn rules(
    options: &Options,
    url: PublicUrl,
    nonces: Option<StatelessNonces>,
) -> Result<ProofRules, Box<dyn Error>> {
    let mut rules = ProofRules::new(url)
        .with_algorithms(options.algorithms)
        .with_freshness(options.freshness);
    if let Some(nonces) = nonces {
        rules = rules.with_nonces(nonces);
    }
    if options.insecure_one_use_per_node {
        rules = rules.with_insecure_one_use_per_node();
    }
    if options.redis.is_none() && options.redis_sentinels.is_none() {
        return Ok(rules);
    }
    with_redis(rules, options).await
}

#[cfg(feature = "redis")]
async fn with_redis(rules: ProofRules, options: &Options) -> Result<ProofRules, Box<dyn Error>> {
    use tower_dpop::proof::{RedisReplayStore, RedisServer};

    let server = match (&options.redis, &options.redis_sentinels) {
        (Some(url), _) => RedisServer::url(url).map_err(|error| format!("--redis {error}"))?,
        (None, sentinels) => {
            let urls = sentinels.iter().flat_map(|urls| urls.split(','));
            RedisServer::sentinels(urls, &options.redis_primary)
                .map_err(|error| format!("--redis-sentinels {error}"))?
        }
    };
    let store = RedisReplayStore::at(server).connect().await?;
    Ok(rules.with_replay_store(store))
}

#[cfg(not(feature = "redis"))]
#[expect(clippy::unused_async, reason = "as with the feature")]
async fn with_redis(_: ProofRules, _: &Options) -> Result<ProofRules, Box<dyn Error>> {
    Err("--redis: this program was built without Redis (cargo run --features redis ...)".into())
}

fn application<V>(options: &Options, rules: ProofRules, tokens: V) -> Router
where
    V: AccessTokenVerifier<Claims = TokenClaims>,
{
    let mut verifier = Verifier::new(rules, tokens);
    if options.allow_bearer {
        verifier = verifier.allow_bearer();
    }
    if let Some(scopes) = &options.scopes {
        verifier = verifier.with_scope(scopes.clone());
    }
    let metadata = options
        .metadata
        .then(|| ResourceMetadata::of(&mut verifier));
    let mut layer = DpopLayer::new(verifier);
    if options.report_only {
        layer = layer.with_insecure_report_only();
    }

    let mut app = Router::new()
        .route("/protected", any(protected))
        .route("/protected/", any(protected))
        .route("/protected/{*below}", any(protected));
    if let Some(scopes) = &options.scopes {
        let required = RequireScopesLayer::all_of(scopes.clone());
        app = app.route_layer(required.with_claims::<TokenClaims>());
    }
    // Routes that are added after the layer are not behind it.
    app = app.route_layer(layer).route("/health", get(StatusCode::OK));
    if let Some(metadata) = metadata {
        app = app.route_service(metadata.path(), metadata.service());
    }
    app
}

/// Around the whole router: preflights have no token, and scripts read the challenges of rejections.
fn cors(origin: HeaderValue) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers(cors_allow_headers())
        .expose_headers(cors_expose_headers())
        .max_age(Duration::from_secs(600))
}

/// The claims that this server reads from a token of any kind.
#[derive(Deserialize)]
struct TokenClaims {
    sub: Option<String>,
    client_id: Option<String>,
    #[serde(default)]
    scope: String,
}

impl HasScopes for TokenClaims {
    fn has_scope(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|held| held == scope)
    }
}

/// What `/protected` responds with.
#[derive(Serialize)]
struct Answer<'a> {
    body_bytes: usize,
    jkt: Option<Thumbprint>,
    method: &'a str,
    path: &'a str,
    sub: Option<&'a str>,
}

async fn protected(request: Request) -> Result<Response, StatusCode> {
    let (head, mut body) = request.into_parts();
    // A response with a part of the body unread would end the connection.
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
        length += frame.data_ref().map_or(0, Bytes::len);
    }
    // In report-only mode there may be no token.
    let token = AcceptedToken::<TokenClaims>::of(&head.extensions);
    let claims = token.as_ref().map(AcceptedToken::claims);
    let bound = match &token {
        Some(AcceptedToken::Bound(token)) => Some(token),
        _ => None,
    };
    let answer = Answer {
        body_bytes: length,
        jkt: bound.map(BoundToken::thumbprint),
        method: head.method.as_str(),
        path: head.uri.path(),
        sub: claims.and_then(|claims| claims.sub.as_deref().or(claims.client_id.as_deref())),
    };
    Ok(Json(answer).into_response())
}

#[expect(clippy::struct_excessive_bools, reason = "one for each switch")]
struct Options {
    listen: String,
    public_url: Option<String>,
    issuer: Option<String>,
    audience: Option<String>,
    jwks: Option<String>,
    introspection: Option<String>,
    client_id: String,
    client_secret: String,
    algorithms: Algorithms,
    freshness: Freshness,
    scopes: Option<Scopes>,
    nonces: bool,
    nonce_secret_file: Option<String>,
    insecure_one_use_per_node: bool,
    redis: Option<String>,
    redis_sentinels: Option<String>,
    redis_primary: String,
    lenient_typ: bool,
    allow_bearer: bool,
    report_only: bool,
    metadata: bool,
    allow_origin: Option<String>,
}

/// Why the command line does not give [`Options`].
enum Unusable {
    HelpWanted,
    Wrong(String),
}

impl Options {
    /// Reads `--name value` and `--name=value`. If an option is given twice, the last one counts.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Unusable> {
        let mut options = Self {
            listen: "127.0.0.1:8080".into(),
            public_url: None,
            issuer: None,
            audience: None,
            jwks: None,
            introspection: None,
            client_id: String::new(),
            client_secret: String::new(),
            algorithms: Algorithms::default(),
            freshness: Freshness::default(),
            scopes: None,
            nonces: false,
            nonce_secret_file: None,
            insecure_one_use_per_node: false,
            redis: None,
            redis_sentinels: None,
            redis_primary: String::new(),
            lenient_typ: false,
            allow_bearer: false,
            report_only: false,
            metadata: false,
            allow_origin: None,
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
                "--issuer" => options.issuer = Some(value()?),
                "--jwks" => options.jwks = Some(value()?),
                "--introspection" => options.introspection = Some(value()?),
                "--client-id" => options.client_id = value()?,
                "--client-secret" => options.client_secret = value()?,
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
                "--nonce-secret-file" => options.nonce_secret_file = Some(value()?),
                "--insecure-one-use-per-node" => options.insecure_one_use_per_node = true,
                "--redis" => options.redis = Some(value()?),
                "--redis-sentinels" => options.redis_sentinels = Some(value()?),
                "--redis-primary" => options.redis_primary = value()?,
                "--lenient-typ" => options.lenient_typ = true,
                "--allow-bearer" => options.allow_bearer = true,
                "--report-only" => options.report_only = true,
                "--metadata" => options.metadata = true,
                "--allow-origin" => options.allow_origin = Some(value()?),
                "--scopes" => {
                    let names = value()?;
                    let scopes = names
                        .parse()
                        .map_err(|error| Unusable::Wrong(format!("--scopes {names}: {error}")))?;
                    options.scopes = Some(scopes);
                }
                "--help" | "-h" => return Err(Unusable::HelpWanted),
                _ => return Err(Unusable::Wrong(format!("{name} is not an option"))),
            }
            if attached.is_some() {
                return Err(Unusable::Wrong(format!("{name} takes no value")));
            }
        }
        if options.issuer.is_none() && options.introspection.is_none() {
            return Err(Unusable::Wrong(
                "--issuer or --introspection is missing".into(),
            ));
        }
        if options.introspection.is_some() && options.client_id.is_empty() {
            return Err(Unusable::Wrong("--client-id is missing".into()));
        }
        if options.redis_sentinels.is_some() == options.redis_primary.is_empty() {
            return Err(Unusable::Wrong(
                "--redis-sentinels and --redis-primary are given together".into(),
            ));
        }
        Ok(options)
    }
}

fn seconds(name: &str, text: &str) -> Result<Duration, Unusable> {
    text.parse()
        .map(Duration::from_secs)
        .map_err(|_| Unusable::Wrong(format!("{name} {text}: not a number of seconds")))
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
