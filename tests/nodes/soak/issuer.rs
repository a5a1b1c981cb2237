//! An issuer on a socket, whose keys are rotated and which has outages.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get;
use http::{StatusCode, header};
use tokio::net::TcpListener;
use tower_dpop::jose::SigningKey;
use tower_dpop::testing::{TestClock, TestIssuer};

use super::AUDIENCE;
use crate::proxy::Proxy;

/// The lifetime of tokens, in seconds: much longer than clients use them, and than a step of the clock.
const LIFETIME: u64 = 60;

pub(super) struct Issuer {
    url: String,
    /// The proxy in front of it, for outages of the network.
    pub(super) network: Proxy,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Signs tokens.
    signing: TestIssuer,
    /// The `kid` of its key.
    kid: u32,
    /// The first `kid` that is not withdrawn.
    oldest: u32,
    /// The key set on the socket.
    jwks: String,
    fails: bool,
}

/// An access token, and the `kid` of its key.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) kid: u32,
}

impl Issuer {
    pub(super) async fn start(clock: TestClock) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let network = Proxy::for_replication(listener.local_addr().unwrap().port());
        let url = format!("http://127.0.0.1:{}", network.port());
        let signing = TestIssuer::new(&url, AUDIENCE).with_clock(clock);
        let state = Arc::new(Mutex::new(State {
            jwks: signing.jwks(),
            signing,
            kid: 1,
            oldest: 1,
            fails: false,
        }));
        let metadata = serde_json::json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
        let (metadata, shared) = (metadata.to_string(), Arc::clone(&state));
        let keys = move || {
            let state = shared.lock().unwrap();
            let (status, body) = if state.fails {
                (StatusCode::INTERNAL_SERVER_ERROR, String::new())
            } else {
                (StatusCode::OK, state.jwks.clone())
            };
            async move { (status, json(), body) }
        };
        let app = Router::new()
            .route(
                "/.well-known/oauth-authorization-server",
                get(async move || (json(), metadata.clone())),
            )
            .route("/keys", get(keys));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            url,
            network,
            state,
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn token_for(&self, key: &SigningKey) -> Token {
        let state = self.state.lock().unwrap();
        let expiry = state.signing.clock().now().plus(LIFETIME).as_unix();
        let token = state.signing.token_for(key.thumbprint());
        Token {
            text: token.with_claim("exp", expiry).to_text(),
            kid: state.kid,
        }
    }

    /// Whether the token's key is still among the published ones.
    pub(super) fn publishes_key_of(&self, token: &Token) -> bool {
        token.kid >= self.state.lock().unwrap().oldest
    }

    /// Sets whether requests for the keys get a 500.
    pub(super) fn set_fails(&self, fails: bool) {
        self.state.lock().unwrap().fails = fails;
    }

    /// Publishes a further key. Returns the function that signs with it from then on.
    pub(super) fn publish_next(&self) -> impl FnOnce() + use<> {
        let mut state = self.state.lock().unwrap();
        let (kid, key) = (state.kid + 1, SigningKey::generate().unwrap());
        let next = state.signing.clone().add_key(kid.to_string(), key);
        state.jwks = next.jwks();
        let shared = Arc::clone(&self.state);
        move || {
            let mut state = shared.lock().unwrap();
            state.signing = next;
            state.kid = kid;
        }
    }

    /// Signs with a new key, and publishes no other.
    pub(super) fn withdraw(&self) {
        let mut state = self.state.lock().unwrap();
        let kid = state.kid + 1;
        let key = SigningKey::generate().unwrap();
        state.signing = state.signing.clone().with_key(kid.to_string(), key);
        (state.kid, state.oldest) = (kid, kid);
        state.jwks = state.signing.jwks();
    }
}

fn json() -> [(header::HeaderName, &'static str); 2] {
    [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "max-age=4"),
    ]
}
