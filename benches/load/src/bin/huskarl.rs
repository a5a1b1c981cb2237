//! A resource server on huskarl-axum, for comparison. Its check for replays is off, as by default.
//!
//! ```text
//! huskarl PUBLIC-URL ISSUER JWKS-FILE
//! ```

use std::error::Error;
use std::fs;
use std::time::Duration;

use axum::routing::get;
use axum::{Json, Router};
use http::{Method, Uri};
use huskarl_axum::layers::ValidatorLayer;
use huskarl_axum::resource_server::validator::rfc9068::Rfc9068Validator;
use huskarl_reqwest::ReqwestClient;
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [public_url, issuer, file] = arguments.as_slice() else {
        return Err("usage: huskarl PUBLIC-URL ISSUER JWKS-FILE".into());
    };
    let validator: Rfc9068Validator = Rfc9068Validator::builder()
        .issuer(issuer.as_str())
        .audience(public_url.as_str())
        .jwks_uri(served(fs::read_to_string(file)?).await?.parse()?)
        .jwks_source(ReqwestClient::from(reqwest::Client::new()))
        .require_dpop(true)
        // As `run` sets it for the others.
        .max_dpop_proof_age(Duration::from_hours(1))
        .build()
        .await?;
    let layer = ValidatorLayer::builder()
        .validator(validator)
        .base_url(public_url)?
        .build();
    let app = Router::new()
        .route("/protected", get(protected))
        .layer(layer.authenticated())
        .route("/health", get(|| async {}));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

async fn protected(method: Method, uri: Uri) -> Json<Value> {
    Json(json!({ "method": method.as_str(), "path": uri.path() }))
}

/// The URL of a document.
async fn served(json: String) -> Result<String, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let app = Router::new().route("/", get(|| async { json }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}
