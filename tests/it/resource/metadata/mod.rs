//! RFC 9728: the document about a service says what its verifier checks, is where clients look for
//! it, and every challenge points to it.

mod challenge;
mod document;

use axum::Router;
use axum::body::Body;
use axum::routing::{any, any_service};
use bytes::Bytes;
use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, Key, KeyExt as _, NOW, at, block_on, jwt_verifier,
    verifier, verifier_by,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_dpop::resource::{MetadataLayer, RequireAuthenticationLayer, ResourceMetadata};
use tower_dpop::testing::TestResponse;
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, KeySource, KeySourceError, PresentedToken, TokenCache,
    TokenError,
};
use tower_dpop::{
    Algorithm, Algorithms, Claims, DpopLayer, Issuers, JwtVerifier, KeySet, NonceSecret,
    ProofRules, PublicUrl, RequireScopesLayer, StatelessNonces, Timestamp, Verifier,
};

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

fn document(metadata: &ResourceMetadata) -> Value {
    serde_json::from_str(&metadata.to_json()).unwrap()
}

fn keys() -> KeySet {
    common::issuer_jwks().parse().unwrap()
}

/// A verifier of tokens under this public URL.
fn at_url(url: &str) -> Verifier {
    let public_url: PublicUrl = url.parse().unwrap();
    Verifier::new(
        ProofRules::new(public_url).with_clock(|| at(NOW)),
        jwt_verifier(),
    )
}
