//! The servers of both implementations, on free ports of the loopback.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use huskarl::core::Error;
use huskarl::core::crypto::seal::AeadV1Sealer;
use huskarl::core::dpop::SealedTimestampNonce;
use huskarl::core::jwk::{OctKey, SymmetricJwk};
use huskarl::core::jwt::JtiUniquenessChecker;
use huskarl::core::platform::MaybeSendBoxFuture;
use huskarl_axum::layers::ValidatorLayer;
use huskarl_axum::resource_server::validator::rfc9068::Rfc9068Validator;
use huskarl_crypto_native::aead::XChaChaKey;
use huskarl_reqwest::ReqwestClient;
use reqwest::Response;
use reqwest::header::WWW_AUTHENTICATE;
use tokio::net::TcpListener;
use tower_dpop::tokens::HttpClient;
use tower_dpop::{
    Algorithms, DpopLayer, JwtVerifier, NonceSecret, ProofRules, RemoteKeys, StatelessNonces,
    Verifier,
};

use crate::authorization_server;

pub(crate) const AUDIENCE: &str = "https://api.example.com";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nonces {
    None,
    Required,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replays {
    /// huskarl without further settings.
    Default,
    Detected,
}

/// Our authorization server, the example. Its URL is its issuer.
pub(crate) async fn our_authorization_server(nonces: Nonces) -> String {
    let (listener, issuer) = listen().await;
    let settings = authorization_server::Settings {
        issuer: issuer.clone(),
        audience: AUDIENCE.into(),
        algorithms: Algorithms::default(),
        nonces: nonces == Nonces::Required,
        token_lifetime: Duration::from_secs(300),
        browser_origin: None,
    };
    serve(listener, authorization_server::router(settings).unwrap());
    issuer
}

/// Our layer in front of a handler, for the tokens of this issuer.
pub(crate) async fn our_resource_server(issuer: &str, nonces: Nonces) -> String {
    let (listener, url) = listen().await;
    let keys = RemoteKeys::discover(issuer.parse().unwrap(), HttpClient::new().unwrap());
    let keys = keys.fetched_within(Duration::from_secs(10)).await.unwrap();
    let tokens = JwtVerifier::new(issuer, AUDIENCE, keys);
    let mut rules = ProofRules::new(url.parse().unwrap());
    if nonces == Nonces::Required {
        rules = rules.with_nonces(StatelessNonces::new(NonceSecret::generate()));
    }
    let layer = DpopLayer::new(Verifier::new(rules, tokens));
    serve(listener, orders().route_layer(layer));
    url
}

/// huskarl's layer in front of a handler, for tokens of this issuer, whose keys are at `jwks`.
pub(crate) async fn huskarl_resource_server(
    issuer: &str,
    jwks: &str,
    nonces: Nonces,
    replays: Replays,
) -> String {
    let (listener, url) = listen().await;
    let nonces = (nonces == Nonces::Required).then(|| {
        let key = SymmetricJwk::builder()
            .key(OctKey::builder().k([7; 32]).build())
            .build();
        let key = XChaChaKey::from_jwk(key).unwrap();
        SealedTimestampNonce::builder()
            .sealer(AeadV1Sealer::new(key))
            .build()
    });
    let seen = (replays == Replays::Detected).then(|| Arc::new(Seen::default()) as _);
    let validator: Rfc9068Validator = Rfc9068Validator::builder()
        .issuer(issuer)
        .audience(AUDIENCE)
        .jwks_uri(jwks.parse().unwrap())
        .jwks_source(ReqwestClient::from(http()))
        .require_dpop(true)
        .maybe_dpop_nonce_checker(nonces)
        .maybe_dpop_jti_checker(seen)
        .build()
        .await
        .unwrap();
    let layer = ValidatorLayer::builder()
        .validator(validator)
        .base_url(&url)
        .unwrap()
        .build();
    serve(listener, orders().layer(layer.authenticated()));
    url
}

/// A document at a URL.
pub(crate) async fn document(json: String) -> String {
    let (listener, url) = listen().await;
    serve(listener, Router::new().route("/", any(async || json)));
    url
}

fn orders() -> Router {
    Router::new().route("/orders", any(async || "the orders"))
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

fn serve(listener: TcpListener, app: Router) {
    tokio::spawn(async move { axum::serve(listener, app).await });
}

/// Without redirects, which would take a token and a proof to another server. It is built once, because that reads the
/// roots of the system. A connection lives in the runtime of its test, so none is kept for the next one.
pub(crate) fn http() -> reqwest::Client {
    static HTTP: LazyLock<reqwest::Client> = LazyLock::new(|| {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        http.pool_max_idle_per_host(0).build().unwrap()
    });
    HTTP.clone()
}

/// The status, and the error of the challenge or of the body.
pub(crate) async fn outcome(response: Response) -> String {
    let status = response.status().as_u16();
    let challenges = response.headers().get_all(WWW_AUTHENTICATE);
    let challenged = challenges.iter().find_map(|challenge| {
        let (_, error) = challenge.to_str().ok()?.split_once("error=\"")?;
        error.split('"').next().map(str::to_owned)
    });
    let body = response.text().await.unwrap();
    let error = challenged.or_else(|| {
        let body: serde_json::Value = serde_json::from_str(&body).ok()?;
        body["error"].as_str().map(str::to_owned)
    });
    error.map_or_else(|| status.to_string(), |error| format!("{status} {error}"))
}

/// The store of used proofs that a user of huskarl provides.
#[derive(Debug, Default)]
struct Seen(Mutex<HashSet<String>>);

impl JtiUniquenessChecker for Seen {
    fn check_and_mark_seen(&self, jti: &str) -> MaybeSendBoxFuture<'_, Result<bool, Error>> {
        let jti = jti.to_owned();
        Box::pin(async move {
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(!seen.insert(jti))
        })
    }
}
