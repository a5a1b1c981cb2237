//! A client for any authorization server and any resource server: it discovers the token endpoint,
//! gets a token that is bound to its key (client credentials), and calls a resource with it.
//!
//! ```sh
//! cargo run --example client -- --issuer http://127.0.0.1:9000 \
//!     --client-id service --client-secret service-secret --resource http://127.0.0.1:8080/protected
//! ```
//!
//! It prints one JSON object per line: first the thumbprint and the algorithm of its key, then the
//! result of each call. The layers handle demands for nonces, which do not appear in the output.
//! Only `http` on loopback is supported; a real client puts the same layers around an HTTPS client.

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tower::{Layer, ServiceExt};
use tower_dpop::PublicUrl;
use tower_dpop::client::{
    AccessTokenText, DpopClientLayer, TokenClient, TokenClientLayer, TokenErrorResponse,
    TokenResponse, TokenSource, TokenSourceError,
};
use tower_dpop::jose::SigningKey;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;
type Http = Client<HttpConnector, Full<Bytes>>;

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
    let http: Http = Client::builder(TokioExecutor::new()).build_http();
    let server = discover(&http, &options.issuer).await?;
    let key = match &options.alg {
        Some(alg) => SigningKey::generate_for(alg.parse()?)?,
        // RFC 9449 section 5.1: use an algorithm that the server says it supports.
        None => match &server.dpop_signing_alg_values_supported {
            Some(algs) => SigningKey::generate_for_one_of(&algs.join(" "))?,
            None => SigningKey::generate()?,
        },
    };
    println!(
        "{}",
        json!({ "jkt": key.thumbprint().to_string(), "alg": key.algorithm().name() })
    );

    let token_endpoint: Uri = server.token_endpoint.parse()?;
    let tokens = Tokens {
        service: TokenClientLayer::new(key.clone(), server_of(&token_endpoint)?)
            .layer(http.clone()),
        request: options.token_request(&token_endpoint)?,
        latest: Mutex::new(None),
    };
    let resource: Uri = options.resource.parse()?;
    let client = DpopClientLayer::new(key, tokens, server_of(&resource)?).layer(http);

    let mut all_succeeded = true;
    for _ in 0..options.count {
        let request = match options.post {
            None => Request::get(resource.clone()).body(Full::default())?,
            Some(length) => Request::post(resource.clone()).body(vec![b'x'; length].into())?,
        };
        let response = client.clone().oneshot(request).await?;
        let status = response.status();
        let body = text(response).await?;
        let body: Value = serde_json::from_str(&body).unwrap_or(Value::String(body));
        println!("{}", json!({ "status": status.as_u16(), "body": body }));
        all_succeeded &= status.is_success();
    }
    Ok(all_succeeded)
}

/// The scheme, host and port of a URL.
fn server_of(url: &Uri) -> Result<PublicUrl> {
    let origin = format!(
        "{}://{}",
        url.scheme_str().ok_or("the URL must be absolute")?,
        url.authority().ok_or("the URL must be absolute")?
    );
    Ok(origin.parse()?)
}

/// RFC 8414 section 3.2, only the members that this client needs.
#[derive(Deserialize)]
struct ServerMetadata {
    issuer: String,
    token_endpoint: String,
    dpop_signing_alg_values_supported: Option<Vec<String>>,
}

/// RFC 8414 section 3.1, or OpenID Connect Discovery if there is no such document.
async fn discover(http: &Http, issuer: &str) -> Result<ServerMetadata> {
    let url: Uri = issuer.parse()?;
    let server = server_of(&url)?;
    let path = url.path().trim_end_matches('/');
    for document in [
        format!("{server}/.well-known/oauth-authorization-server{path}"),
        format!("{server}{path}/.well-known/openid-configuration"),
    ] {
        let response = http.get(document.parse()?).await?;
        if response.status() != StatusCode::OK {
            continue;
        }
        let metadata: ServerMetadata = serde_json::from_str(&text(response).await?)?;
        // RFC 8414 section 3.3.
        if metadata.issuer == issuer {
            return Ok(metadata);
        }
        return Err("the metadata is another issuer's".into());
    }
    Err("the issuer has no metadata".into())
}

/// A source that requests a token if it has none, or if its token expires soon. Concurrent requests
/// wait for the same response.
struct Tokens {
    service: TokenClient<Http, SigningKey>,
    request: Request<Full<Bytes>>,
    latest: Mutex<Option<(AccessTokenText, Instant)>>,
}

impl Tokens {
    async fn ask(&self) -> Result<(AccessTokenText, Instant)> {
        let response = self.service.clone().oneshot(self.request.clone()).await?;
        let status = response.status();
        let body = text(response).await?;
        if !status.is_success() {
            let rejected = TokenErrorResponse::from_json(body.as_bytes());
            let error = rejected
                .as_ref()
                .map_or("no error code", TokenErrorResponse::error);
            return Err(format!("the token endpoint responded with {status}: {error}").into());
        }
        let granted = TokenResponse::from_json(body.as_bytes())?;
        // Renew before the token expires, and within an hour, whatever the server says.
        let lifetime = granted.expires_in().unwrap_or(Duration::from_secs(60));
        let renewal = Instant::now() + lifetime.min(Duration::from_secs(3600)).mul_f32(0.8);
        Ok((granted.access_token().clone(), renewal))
    }
}

impl TokenSource for Tokens {
    async fn token(&self) -> Result<AccessTokenText, TokenSourceError> {
        let mut latest = self.latest.lock().await;
        match &*latest {
            Some((token, renewal)) if Instant::now() < *renewal => Ok(token.clone()),
            _ => {
                let (token, renewal) = self.ask().await.map_err(TokenSourceError::new)?;
                *latest = Some((token.clone(), renewal));
                Ok(token)
            }
        }
    }
}

async fn text<B>(response: Response<B>) -> Result<String>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    const LONGEST: usize = 1024 * 1024;
    let body = Limited::new(response.into_body(), LONGEST);
    Ok(String::from_utf8(body.collect().await?.to_bytes().into())?)
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

    /// RFC 6749 section 4.4.2. The layer adds the proof.
    fn token_request(&self, endpoint: &Uri) -> Result<Request<Full<Bytes>>> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        if let Some(resource) = &self.resource_indicator {
            form.append_pair("resource", resource);
        }
        let mut request = Request::post(endpoint.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(secret) = &self.client_secret {
            // RFC 6749 section 2.3.1: id and secret are form-encoded first.
            let encode = |text: &str| -> String {
                form_urlencoded::byte_serialize(text.as_bytes()).collect()
            };
            let credentials = format!("{}:{}", encode(&self.client_id), encode(secret));
            let credentials = format!("Basic {}", STANDARD.encode(credentials));
            let mut credentials = HeaderValue::try_from(credentials)?;
            credentials.set_sensitive(true);
            request = request.header(AUTHORIZATION, credentials);
        } else {
            form.append_pair("client_id", &self.client_id);
        }
        Ok(request.body(Full::from(form.finish()))?)
    }
}
