//! Keys of issuers over the network, from a real server on the loopback. The time is the argument
//! that the source is asked with; nothing here waits for it to pass.

mod documents;
mod fetch;
mod remote_keys;
mod schedule;

use crate::tokens::server::{KEYS, OAUTH, OPENID, Reply, Server, until, within_reason};
use common::{
    AUDIENCE, Key, KeyExt as _, NOW, base64url, block_on, enable_tracing_callsites, keys,
};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::task::JoinSet;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::testing::{TestClient, TestIssuer, TestToken};
use tower_dpop::tokens::{
    AccessTokenVerifier as _, HttpClient, InvalidEndpointUrl, IssuerDocument, KeySource,
    KeySourceError, PresentedToken, RemoteKeysError, TokenError,
};
use tower_dpop::{
    DpopLayer, JwtVerifier, KeySet, ProofRules, Rejection, RemoteKeys, Timestamp, Verifier,
};
use tracing::subscriber::DefaultGuard;

/// So many seconds after the keys were first fetched.
fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(NOW + seconds)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An issuer that publishes metadata and keys.
struct World {
    server: Server,
    issuer: TestIssuer,
}

impl World {
    async fn new() -> Self {
        let server = Server::start().await;
        server.set(OAUTH, Reply::metadata(&server.url(), &server.at(KEYS)));
        let issuer = TestIssuer::new(server.url(), AUDIENCE);
        let world = Self { server, issuer };
        world.publish();
        world
    }

    fn publish(&self) {
        self.server.set(KEYS, Reply::text(self.issuer.jwks()));
    }

    /// From now on, another key signs. The one of before is gone.
    fn rotate(&mut self, kid: &str) {
        self.issuer = self.issuer.clone().with_key(kid, Key::es256());
        self.publish();
    }

    /// Nothing is fetched yet.
    fn remote(&self) -> RemoteKeys {
        RemoteKeys::discover(self.server.url().parse().unwrap(), http())
            .with_clock(self.issuer.clock().read())
    }

    /// Fetched at second 0, to live for ten minutes; those requests are forgotten.
    async fn keys(&self) -> RemoteKeys {
        let keys = self.remote().fetched().await.unwrap();
        self.server.forget();
        keys
    }

    fn verifier(&self, keys: RemoteKeys) -> JwtVerifier<RemoteKeys> {
        JwtVerifier::new(self.server.url(), AUDIENCE, keys)
    }

    /// A good token, that lives longer than any of these tests.
    fn token(&self) -> TestToken {
        self.issuer
            .token_for(keys::client().thumbprint())
            .with_claim("exp", NOW + 1_000_000)
    }

    /// How often keys were fetched.
    fn fetches(&self) -> usize {
        self.server.requests_to(KEYS)
    }
}

/// One for all, because to read the system's roots takes a while.
fn http() -> HttpClient {
    static HTTP: LazyLock<HttpClient> = LazyLock::new(|| HttpClient::new().unwrap());
    HTTP.clone()
}

async fn verify(
    tokens: &JwtVerifier<RemoteKeys>,
    token: &str,
    now: Timestamp,
) -> Result<(), TokenError> {
    let verdict = tokens.verify(PresentedToken::new(token), now).await;
    verdict.map(drop)
}

/// The issuer's keys as JSON, to be changed.
fn jwks(issuer: &TestIssuer) -> Value {
    serde_json::from_str(&issuer.jwks()).unwrap()
}

/// A token that nobody signed, by a key of this `kid`.
fn invented(world: &World, kid: &str, number: usize) -> String {
    let header = json!({ "typ": "at+jwt", "alg": "ES256", "kid": kid });
    let claims = json!({
        "iss": world.server.url(), "aud": AUDIENCE, "sub": "mallory", "exp": NOW + 1_000_000, "jti": number,
    });
    let parts = [header.to_string(), claims.to_string(), "s".repeat(64)];
    parts.map(base64url).join(".")
}

/// A sink for `tracing` output.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// What this thread logs until the guard is dropped.
    fn start() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("off,tower_dpop::tokens::jwks=info")
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        enable_tracing_callsites();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// The lines about one issuer.
    fn about(&self, issuer: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().filter(|line| line.contains(issuer));
        lines.map(str::to_owned).collect()
    }
}
