//! `minimal.rs` plus opaque access tokens, each verified by introspection (RFC 7662).
//!
//! ```sh
//! cargo run --example introspection -- https://as.example.com/introspect orders-api some-secret
//! curl -i http://127.0.0.1:8080/orders
//! ```
//!
//! The arguments are the URL of the introspection endpoint, and the id and the secret with which this
//! server is registered there. A fourth argument is the address to listen on. curl is rejected before
//! any introspection request. While the endpoint is unreachable, requests that need introspection get
//! `503`.

use std::env;
use std::error::Error;

use axum::routing::get;
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tower_dpop::tokens::{
    ClientAuthentication, HttpClient, IntrospectedClaims, IntrospectionVerifier,
};
use tower_dpop::{BoundToken, DpopLayer, PublicUrl, Verifier};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(endpoint), Some(id), Some(secret)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: introspection ENDPOINT CLIENT_ID CLIENT_SECRET [ADDRESS]".into());
    };
    let address = arguments.next().unwrap_or("127.0.0.1:8080".into());
    let listener = TcpListener::bind(address).await?;
    // How clients reach us. On loopback it may be plain http; elsewhere it is https.
    let url = format!("http://{}", listener.local_addr()?);

    let tokens = IntrospectionVerifier::new(
        endpoint.parse()?,
        ClientAuthentication::basic(id, secret),
        "https://api.example.com",
        HttpClient::new()?,
    );
    let verifier = Verifier::new(url.parse::<PublicUrl>()?, tokens);
    let app = Router::new()
        .route("/orders", get(orders))
        .route_layer(DpopLayer::new(verifier));

    println!("listening on {url}");
    axum::serve(listener, app).await?;
    Ok(())
}

async fn orders(Extension(token): Extension<BoundToken<IntrospectedClaims>>) -> String {
    // The authorization server may leave out any claim, even `sub`.
    let claims = token.claims();
    let whose = claims.subject().or(claims.client_id());
    format!("the orders of {}\n", whose.unwrap_or("somebody"))
}
