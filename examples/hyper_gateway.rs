//! A small reverse proxy, for those who build their own: hyper serves, the layer decides, and hyper-util's client forwards.
//!
//! ```sh
//! cargo run --example hyper_gateway -- https://as.example.com https://api.example.com http://127.0.0.1:3000
//! curl -i http://127.0.0.1:8080/orders
//! ```
//!
//! The arguments are the issuer, the audience of its tokens, and the service. The service gets accepted requests without
//! the token and the proof, and with the subject in `X-Auth-Subject`. It must be reachable through this proxy only.
//!
//! `dpop-gateway`, the package `gateway/` of the repository, is the finished program. This example has no TLS, HTTP/2,
//! WebSocket, timeouts, `X-Forwarded-*`, or retries on stale connections (502), and a subject must be visible ASCII (500).

use std::{convert::Infallible, env, error::Error, time::Duration};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};
use tower_dpop::proof::DPOP;
use tower_dpop::tokens::HttpClient;
use tower_dpop::{BoundToken, DpopLayer, JwtVerifier, PublicUrl, RemoteKeys, Verifier};

type Body = BoxBody<Bytes, hyper::Error>;
type Upstream = Client<HttpConnector, Body>;

const SUBJECT: HeaderName = HeaderName::from_static("x-auth-subject");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [issuer, audience, upstream, address @ ..] = &arguments[..] else {
        return Err("usage: hyper_gateway ISSUER AUDIENCE UPSTREAM [ADDRESS]".into());
    };
    let upstream: Uri = upstream.parse()?;
    let listener = TcpListener::bind(address.first().map_or("127.0.0.1:8080", |a| a)).await?;
    // How clients reach us. On loopback it may be plain http; elsewhere it is https.
    let url = format!("http://{}", listener.local_addr()?);

    let keys = RemoteKeys::discover(issuer.parse()?, HttpClient::new()?);
    let keys = keys.fetched_within(Duration::from_secs(10)).await?;
    let tokens = JwtVerifier::new(issuer, audience, keys);
    let verifier = Verifier::new(url.parse::<PublicUrl>()?, tokens);
    let client = Client::builder(TokioExecutor::new()).build_http();
    let pass_on = service_fn(move |request| {
        let (client, upstream) = (client.clone(), upstream.clone());
        async move { Ok::<_, Infallible>(pass_on(client, upstream, request).await) }
    });
    let service = ServiceBuilder::new().layer(DpopLayer::new(verifier));
    let service = TowerToHyperService::new(service.service(pass_on));

    println!("listening on {url}");
    loop {
        let io = TokioIo::new(listener.accept().await?.0);
        // An error on one connection does not end the others.
        tokio::spawn(http1::Builder::new().serve_connection(io, service.clone()));
    }
}

async fn pass_on(client: Upstream, upstream: Uri, request: Request<Incoming>) -> Response<Body> {
    let status = match request_for(upstream, request) {
        Ok(request) => match client.request(request).await {
            // `Upgrade` was not passed on, so there is nothing to switch to.
            Ok(response) if response.status() != StatusCode::SWITCHING_PROTOCOLS => {
                let mut response = response.map(BodyExt::boxed);
                remove(response.headers_mut(), |_| false);
                return response;
            }
            _ => StatusCode::BAD_GATEWAY,
        },
        Err(status) => status,
    };
    let mut response = Response::<Body>::default();
    *response.status_mut() = status;
    response
}

/// The request for the service.
fn request_for(upstream: Uri, request: Request<Incoming>) -> Result<Request<Body>, StatusCode> {
    let (mut head, body) = request.into_parts();
    let token: BoundToken = head.extensions.remove().expect("set by the layer");
    let mut target = upstream.into_parts();
    target.path_and_query = head.uri.path_and_query().cloned();
    head.uri = Uri::from_parts(target).or(Err(StatusCode::BAD_REQUEST))?;
    // CGI, WSGI, PHP and others take `X_Auth_Subject` and `X.Auth.Subject` for our field.
    let folded = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    // The client sets the host of the service. `Connection` cannot name our field, which is written after this.
    remove(&mut head.headers, |name| {
        [AUTHORIZATION, DPOP, HOST].contains(name) || folded(name.as_str()) == SUBJECT.as_str()
    });
    if let Some(subject) = token.claims().subject() {
        let is_visible = !subject.is_empty() && subject.bytes().all(|byte| byte.is_ascii_graphic());
        let value = HeaderValue::from_str(subject).ok().filter(|_| is_visible);
        let value = value.ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
        head.headers.insert(SUBJECT, value);
    }
    Ok(Request::from_parts(head, body.boxed()))
}

/// Removes these fields, and those of the connection (RFC 9110 section 7.6.1). Without `Trailer`, no trailers are sent.
fn remove(headers: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) {
    let fields = headers.get_all(CONNECTION).iter();
    let fields: Vec<_> = fields.map(HeaderValue::as_bytes).collect();
    let named = String::from_utf8_lossy(&fields.join(&b',')).to_ascii_lowercase();
    let named = named + ",connection,keep-alive,te,trailer,transfer-encoding,upgrade";
    let is_named = |name: &str| named.split(',').any(|n| n.trim() == name);
    for name in headers.keys().cloned().collect::<Vec<_>>() {
        if is_unwanted(&name) || is_named(name.as_str()) || name.as_str().starts_with("proxy-") {
            headers.remove(name);
        }
    }
}
