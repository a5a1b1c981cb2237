//! The resource server: axum and the layer, with the authorization server's keys.

use axum::routing::get;
use axum::{Extension, Router};
use http::Request;
use tower_dpop::{BoundToken, Claims, DpopLayer, JwtVerifier, KeySet, PublicUrl, Verifier};

use crate::wire::{Result, send};

/// Fetches the issuer's keys, and has one resource, `/orders`.
///
/// `public_url` is how clients reach it, and the audience of tokens for it.
pub(crate) async fn router(public_url: &str, issuer: &str, jwks: &str) -> Result<Router> {
    let keys: KeySet = send(Request::get(jwks).body(String::new())?)
        .await?
        .body
        .parse()?;
    let verifier = Verifier::new(
        PublicUrl::http_on_loopback(public_url)?,
        JwtVerifier::new(issuer, public_url, keys),
    );
    Ok(Router::new()
        .route("/orders", get(orders))
        .layer(DpopLayer::new(verifier)))
}

async fn orders(Extension(token): Extension<BoundToken<Claims>>) -> String {
    format!("the orders of {}", token.claims().subject())
}
