//! Verdicts about access tokens that are kept: what ends one, and who never sees it.

mod jwt;
mod token_cache;

use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, ISSUER_KEY, Key, KeyExt as _, NOW, TestClock, at,
    block_on, issuer_jwks,
};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::cell::Cell;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tower_dpop::resource::{BindingError, Unavailable};
use tower_dpop::testing::{TestIssuer, TestToken};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, KeySource, KeySourceError, PresentedToken,
    TokenCache, TokenError,
};
use tower_dpop::{
    Algorithm, Algorithms, Claims, DpopLayer, JwtVerifier, KeySet, ProofRules, Rejection,
    Timestamp, Verifier,
};

/// Claims that tell how often they were read: once with each verification, and never out of a
/// cache.
struct Counted;

thread_local! {
    static READ: Cell<usize> = const { Cell::new(0) };
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer)?;
        READ.set(READ.get() + 1);
        Ok(Self)
    }
}

/// How many verifications there were meanwhile.
fn verifications<T>(of: impl FnOnce() -> T) -> (T, usize) {
    let before = READ.get();
    let result = of();
    (result, READ.get() - before)
}

/// The issuer's keys, in the test's hands.
#[derive(Clone, Default)]
struct Keys(Arc<Held>);

#[derive(Default)]
struct Held {
    /// None of them: out of reach.
    now: Mutex<Option<KeySet>>,
    newer: Mutex<Option<KeySet>>,
    asked: AtomicUsize,
    asked_for_newer: AtomicUsize,
}

impl Keys {
    fn of(set: KeySet) -> Self {
        let keys = Self::default();
        keys.become_set(Some(set));
        keys
    }

    fn become_set(&self, set: Option<KeySet>) {
        *self.0.now.lock().unwrap() = set;
    }

    fn asked(&self) -> (usize, usize) {
        let count = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        (count(&self.0.asked), count(&self.0.asked_for_newer))
    }
}

impl KeySource for Keys {
    async fn key_set(&self, _now: Timestamp) -> Result<KeySet, KeySourceError> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        self.0.now.lock().unwrap().clone().ok_or(KeySourceError)
    }

    async fn newer_key_set(
        &self,
        _known: &KeySet,
        _now: Timestamp,
    ) -> Result<Option<KeySet>, KeySourceError> {
        self.0.asked_for_newer.fetch_add(1, Ordering::SeqCst);
        let newer = self.0.newer.lock().unwrap().clone();
        if newer.is_some() {
            self.become_set(newer.clone());
        }
        Ok(newer)
    }
}

fn issuer() -> TestIssuer {
    TestIssuer::new(ISSUER, AUDIENCE)
        .with_key("issuer", ISSUER_KEY.clone())
        .with_clock(TestClock::at(NOW))
}

/// Good from `NOW` to `NOW + 600`.
fn good_token() -> TestToken {
    issuer()
        .token_for(Key::es256().thumbprint())
        .with_claim("nbf", NOW)
}

fn issuers_set() -> KeySet {
    issuer().key_set()
}

fn jwt_verifier<K: KeySource>(keys: K) -> JwtVerifier<K, Counted> {
    JwtVerifier::new(ISSUER, AUDIENCE, keys).with_claims()
}

fn outcome<V: AccessTokenVerifier>(tokens: &V, token: &str, now: u64) -> Result<(), TokenError> {
    claims(tokens, token, now).map(drop)
}

fn claims<V: AccessTokenVerifier>(
    tokens: &V,
    token: &str,
    now: u64,
) -> Result<AccessToken<V::Claims>, TokenError> {
    block_on(tokens.verify(PresentedToken::new(token), Timestamp::from_unix(now)))
}

/// Looks tokens up in a list of its own; says with each good token the how manieth question it was.
#[derive(Default)]
struct Lookup {
    asked: AtomicUsize,
    expires: Option<u64>,
    rejection: Mutex<Option<TokenError>>,
}

impl AccessTokenVerifier for Lookup {
    type Claims = usize;

    async fn verify(
        &self,
        _token: PresentedToken<'_>,
        _now: Timestamp,
    ) -> Result<AccessToken<usize>, TokenError> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(rejection) = self.rejection.lock().unwrap().clone() {
            return Err(rejection);
        }
        let token = AccessToken::new(Confirmation::Unbound, number);
        Ok(match self.expires {
            Some(expires) => token.with_expiry(Timestamp::from_unix(expires)),
            None => token,
        })
    }

    fn issuers(&self) -> Vec<&str> {
        vec!["https://lists.example.com"]
    }
}

fn number<V: AccessTokenVerifier<Claims = usize>>(
    tokens: &V,
    token: &str,
    now: u64,
) -> Result<usize, TokenError> {
    claims(tokens, token, now).map(|token| *token.claims())
}

/// Looks up at once, says so, and holds each answer back until the test lets it go.
struct Slow {
    lookup: Lookup,
    asked: mpsc::UnboundedSender<usize>,
    released: watch::Receiver<Vec<usize>>,
}

impl AccessTokenVerifier for Slow {
    type Claims = usize;

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<AccessToken<usize>, TokenError> {
        let verdict = self.lookup.verify(token, now).await?;
        let number = *verdict.claims();
        self.asked.send(number).unwrap();
        let mut released = self.released.clone();
        released
            .wait_for(|all| all.contains(&number))
            .await
            .unwrap();
        Ok(verdict)
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

fn release(released: &watch::Sender<Vec<usize>>, number: usize) {
    released.send_modify(|all| all.push(number));
}

type UnderWay<'c> =
    Pin<Box<dyn Future<Output = Result<AccessToken<usize>, TokenError>> + Send + 'c>>;

/// A verification, begun and held back.
async fn begin<'c>(
    cache: &'c TokenCache<Slow>,
    asked: &mut mpsc::UnboundedReceiver<usize>,
    number: usize,
) -> UnderWay<'c> {
    let token = PresentedToken::new("token");
    let mut under_way: UnderWay<'c> = Box::pin(cache.verify(token, Timestamp::from_unix(NOW)));
    tokio::select! {
        biased;
        _ = &mut under_way => panic!("it was held back"),
        begun = asked.recv() => assert_eq!(begun, Some(number)),
    }
    under_way
}
