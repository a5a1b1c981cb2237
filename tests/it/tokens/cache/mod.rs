//! Cached access tokens: when they expire, and what invalidates them.

mod jwt_verifier;
mod token_cache;

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tower_dpop::testing::{TestIssuer, TestToken};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, KeySource, KeySourceError, PresentedToken, TokenError,
};
use tower_dpop::{JwtVerifier, KeySet, Timestamp};

use common::{AUDIENCE, ISSUER, ISSUER_KEY, Key, KeyExt as _, NOW, TestClock, block_on};

/// Claims that count how often they are deserialized: once per verification, and never when the
/// token is cached.
struct CountedClaims;

thread_local! {
    static READS: Cell<usize> = const { Cell::new(0) };
}

impl<'de> Deserialize<'de> for CountedClaims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer)?;
        READS.set(READS.get() + 1);
        Ok(Self)
    }
}

/// A key source whose keys the test sets.
#[derive(Clone, Default)]
struct TestKeys(Arc<KeysState>);

#[derive(Default)]
struct KeysState {
    /// `None` if unreachable.
    current: Mutex<Option<KeySet>>,
    newer: Mutex<Option<KeySet>>,
    requests: AtomicUsize,
    newer_requests: AtomicUsize,
}

impl TestKeys {
    fn of(set: KeySet) -> Self {
        let keys = Self::default();
        keys.set_current(Some(set));
        keys
    }

    fn set_current(&self, set: Option<KeySet>) {
        *self.0.current.lock().unwrap() = set;
    }

    /// How often the keys were requested, and how often newer ones.
    fn request_counts(&self) -> (usize, usize) {
        let count = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        (count(&self.0.requests), count(&self.0.newer_requests))
    }
}

impl KeySource for TestKeys {
    async fn key_set(&self, _now: Timestamp) -> Result<KeySet, KeySourceError> {
        self.0.requests.fetch_add(1, Ordering::SeqCst);
        self.0.current.lock().unwrap().clone().ok_or(KeySourceError)
    }

    async fn newer_key_set(
        &self,
        _known: &KeySet,
        _now: Timestamp,
    ) -> Result<Option<KeySet>, KeySourceError> {
        self.0.newer_requests.fetch_add(1, Ordering::SeqCst);
        let newer = self.0.newer.lock().unwrap().clone();
        if newer.is_some() {
            self.set_current(newer.clone());
        }
        Ok(newer)
    }
}

fn issuer() -> TestIssuer {
    TestIssuer::new(ISSUER, AUDIENCE)
        .with_key("issuer", ISSUER_KEY.clone())
        .with_clock(TestClock::at(NOW))
}

/// Valid from `NOW` to `NOW + 600`.
fn good_token() -> TestToken {
    issuer()
        .token_for(Key::es256().thumbprint())
        .with_claim("nbf", NOW)
}

fn issuer_key_set() -> KeySet {
    issuer().key_set()
}

fn jwt_verifier<K: KeySource>(keys: K) -> JwtVerifier<K, CountedClaims> {
    JwtVerifier::new(ISSUER, AUDIENCE, keys).with_claims()
}

fn verify<V: AccessTokenVerifier>(tokens: &V, token: &str, now: u64) -> Result<(), TokenError> {
    access_token(tokens, token, now).map(drop)
}

fn access_token<V: AccessTokenVerifier>(
    tokens: &V,
    token: &str,
    now: u64,
) -> Result<AccessToken<V::Claims>, TokenError> {
    block_on(tokens.verify(PresentedToken::new(token), Timestamp::from_unix(now)))
}
