//! `RemoteKeys` against a server on loopback. The time is an argument of each call, so no test waits
//! for it to pass.

mod documents;
mod fetch;
mod remote_keys;
mod schedule;

use std::time::Duration;

use serde_json::json;
use tower_dpop::testing::{TestIssuer, TestToken};
use tower_dpop::tokens::{AccessTokenVerifier as _, PresentedToken, TokenError};
use tower_dpop::{JwtVerifier, RemoteKeys, Timestamp};

use crate::tokens::server::{KEYS, OAUTH, Reply, Server, http};
use common::{AUDIENCE, Key, KeyExt as _, NOW, base64url, keys};

/// This many seconds after the first fetch of the keys.
fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(NOW + seconds)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An issuer, and the server that publishes its metadata and its keys.
struct Fixture {
    server: Server,
    issuer: TestIssuer,
}

impl Fixture {
    async fn new() -> Self {
        let server = Server::start().await;
        let issuer = TestIssuer::new(server.url(), AUDIENCE);
        let fixture = Self { server, issuer };
        fixture.publish_metadata(KEYS);
        fixture.publish_keys();
        fixture
    }

    /// Publishes metadata that points to the keys at this path.
    fn publish_metadata(&self, jwks_path: &str) {
        let jwks_uri = self.server.url_of(jwks_path);
        let metadata = Reply::metadata(&self.server.url(), &jwks_uri);
        self.server.set(OAUTH, metadata);
    }

    fn publish_keys(&self) {
        self.server.set(KEYS, Reply::text(self.issuer.jwks()));
    }

    /// Replaces the signing key, in the published key set too.
    fn rotate(&mut self, kid: &str) {
        self.issuer = self.issuer.clone().with_key(kid, Key::es256());
        self.publish_keys();
    }

    /// The issuer's keys, not fetched yet.
    fn remote(&self) -> RemoteKeys {
        RemoteKeys::discover(self.server.url().parse().unwrap(), http())
            .with_clock(self.issuer.clock().read())
    }

    /// Keys that were fetched at second 0, with a lifetime of ten minutes. These requests are not
    /// counted.
    async fn keys(&self) -> RemoteKeys {
        let keys = self.remote().fetched().await.unwrap();
        self.server.clear_requests();
        keys
    }

    fn verifier(&self, keys: RemoteKeys) -> JwtVerifier<RemoteKeys> {
        JwtVerifier::new(self.server.url(), AUDIENCE, keys)
    }

    /// A valid token that does not expire during these tests.
    fn token(&self) -> TestToken {
        self.issuer
            .token_for(keys::client().thumbprint())
            .with_claim("exp", NOW + 1_000_000)
    }

    /// The number of requests for the key set.
    fn fetches(&self) -> usize {
        self.server.requests_to(KEYS)
    }
}

async fn verify(
    tokens: &JwtVerifier<RemoteKeys>,
    token: &str,
    now: Timestamp,
) -> Result<(), TokenError> {
    let result = tokens.verify(PresentedToken::new(token), now).await;
    result.map(drop)
}

/// A token with this `kid` and an invalid signature.
fn invented(fixture: &Fixture, kid: &str, number: usize) -> String {
    let header = json!({ "typ": "at+jwt", "alg": "ES256", "kid": kid });
    let claims = json!({
        "iss": fixture.server.url(), "aud": AUDIENCE, "sub": "mallory", "exp": NOW + 1_000_000, "jti": number,
    });
    let parts = [header.to_string(), claims.to_string(), "s".repeat(64)];
    parts.map(base64url).join(".")
}
