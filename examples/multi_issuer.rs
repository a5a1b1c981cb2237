//! `minimal.rs` plus a second issuer, with the keys of both from the network: discovered, kept up
//! to date, rotated.
//!
//! ```sh
//! cargo run --example multi_issuer -- https://as.example.com https://login.partner.example
//! curl -i http://127.0.0.1:8080/orders
//! ```
//!
//! It starts when it has the keys of both issuers. It tries for ten seconds, because issuers may
//! start at the same time. Later, it fetches keys again when they are old, and when none of them
//! verifies a token. A third argument is the address to listen on.

use std::env;
use std::error::Error;
use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tower_dpop::tokens::HttpClient;
use tower_dpop::{
    BoundToken, Claims, DpopLayer, Issuers, JwtVerifier, PublicUrl, RemoteKeys, Verifier,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(ours), Some(partner)) = (arguments.next(), arguments.next()) else {
        return Err("usage: multi_issuer ISSUER PARTNER [ADDRESS]".into());
    };
    let address = arguments.next().unwrap_or("127.0.0.1:8080".into());
    let listener = TcpListener::bind(address).await?;
    // How clients reach us. On loopback it may be plain http; elsewhere it is https.
    let url = format!("http://{}", listener.local_addr()?);

    let http = HttpClient::new()?;
    let (our_keys, their_keys) = tokio::try_join!(keys(&ours, &http), keys(&partner, &http))?;
    let tokens: Issuers<Claims> = Issuers::new()
        .add_issuer(JwtVerifier::new(ours, "https://api.example.com", our_keys))
        // The partner uses another audience for us, and does not set `typ` to `at+jwt`.
        .add_issuer(JwtVerifier::new(partner, "urn:orders", their_keys).with_lenient_typ());
    let verifier = Verifier::new(url.parse::<PublicUrl>()?, tokens);
    let app = Router::new()
        .route("/orders", get(orders))
        .route_layer(DpopLayer::new(verifier));

    println!("listening on {url}");
    axum::serve(listener, app).await?;
    Ok(())
}

async fn keys(issuer: &str, http: &HttpClient) -> Result<RemoteKeys, Box<dyn Error>> {
    let keys = RemoteKeys::discover(issuer.parse()?, http.clone());
    Ok(keys.fetched_within(Duration::from_secs(10)).await?)
}

async fn orders(Extension(token): Extension<BoundToken>) -> String {
    // alice of one issuer is not alice of the other.
    let issuer: Option<String> = token.claims().claim("iss");
    format!(
        "the orders of {}, whom {} identified\n",
        token.claims().subject().unwrap_or("a machine"),
        issuer.as_deref().unwrap_or("unknown"),
    )
}
