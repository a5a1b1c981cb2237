//! `minimal.rs` without axum: the layer around any tower service, served by hyper.
//!
//! ```sh
//! cargo run --example hyper
//! curl -i http://127.0.0.1:8080/orders
//! ```

use std::convert::Infallible;
use std::env;
use std::error::Error;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};
use tower_dpop::{BoundToken, DpopLayer, JwtVerifier, KeySet, PublicUrl, Verifier};

/// Replace this with your issuer's JWK Set. This key is from RFC 8037 appendix A, which publishes its
/// private half, too.
const JWKS: &str = r#"{"keys":[
    {"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
]}"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let listener = TcpListener::bind(address).await?;
    // How clients reach us. On loopback it may be plain http; elsewhere it is https.
    let url = format!("http://{}", listener.local_addr()?);

    let keys: KeySet = JWKS.parse()?;
    let verifier = Verifier::new(
        url.parse::<PublicUrl>()?,
        JwtVerifier::new("https://as.example.com", "https://api.example.com", keys),
    );
    let service = ServiceBuilder::new()
        .layer(DpopLayer::new(verifier))
        .service(service_fn(orders));
    let service = TowerToHyperService::new(service);

    println!("listening on {url}");
    let server = auto::Builder::new(TokioExecutor::new());
    loop {
        let (stream, _) = listener.accept().await?;
        let connection = server.serve_connection(TokioIo::new(stream), service.clone());
        // An error on one connection does not end the others.
        tokio::spawn(connection.into_owned());
    }
}

async fn orders(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let token: &BoundToken = request.extensions().get().expect("set by the layer");
    let text = format!(
        "the orders of {}\n",
        token.claims().subject().unwrap_or("a machine")
    );
    Ok(Response::new(text.into()))
}
