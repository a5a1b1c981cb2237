//! Requests that wait for the verifier of access tokens or the replay store, and requests that are dropped meanwhile.

use std::convert::Infallible;
use std::future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tower::Service as _;

use common::{Attempt, AttemptExt as _, ask, block_on, jwt_verifier};
use http::{Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tower::limit::ConcurrencyLimit;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::proof::{Claim, Epoch, ProofError, ReplayStoreError, UsedProof};
use tower_dpop::tokens::{AccessToken, AccessTokenVerifier, PresentedToken, TokenError};
use tower_dpop::{
    Claims, DpopLayer, JwtVerifier, KeySet, MemoryReplayStore, ReplayStore, Timestamp,
};

use super::{StrictService, layer, poll_ready, verifier_with};

type Tokens = JwtVerifier<KeySet>;

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Waits for a permit of the gate before each call of the inner part.
struct Gated<T> {
    gate: Arc<Semaphore>,
    inner: T,
}

impl<T> Gated<T> {
    fn new(gate: &Arc<Semaphore>, inner: T) -> Self {
        Self {
            gate: Arc::clone(gate),
            inner,
        }
    }

    async fn wait(&self) {
        self.gate.acquire().await.expect("never closed").forget();
    }
}

impl AccessTokenVerifier for Gated<Tokens> {
    type Claims = Claims;

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<AccessToken<Claims>, TokenError> {
        self.wait().await;
        self.inner.verify(token, now).await
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

impl ReplayStore for Gated<MemoryReplayStore> {
    async fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
        self.wait().await;
        self.inner.claim(proof).await
    }

    fn epoch(&self) -> Epoch {
        self.inner.epoch()
    }
}

#[test]
fn waits_for_the_token_verifier_and_then_for_the_replay_store() {
    block_on(async {
        let (token_gate, store_gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let store = MemoryReplayStore::default();
        let layer = DpopLayer::new(verifier_with(
            Gated::new(&token_gate, jwt_verifier()),
            Gated::new(&store_gate, store.clone()),
        ));
        let events = Arc::default();
        let service = layer.layer(StrictService {
            events: Arc::clone(&events),
            ..StrictService::default()
        });
        let request = Attempt::good().request();
        let running = tokio::spawn(service.oneshot(request));

        let settle = async || {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        };
        settle().await;
        assert!(!running.is_finished(), "the access token is being verified");
        token_gate.add_permits(1);
        settle().await;
        assert!(
            !running.is_finished(),
            "the use of the proof is being recorded"
        );
        assert_eq!(StrictService::calls(&events), 0);
        assert_eq!(store.usage().live, 0);
        store_gate.add_permits(1);
        let response = running.await.unwrap().unwrap();
        assert_eq!(response.body(), "served");
        assert_eq!(StrictService::calls(&events), 1);
        assert_eq!(store.usage().live, 1);
    });
}

#[test]
fn a_request_dropped_during_verification_leaves_its_proof_unused() {
    // T-17: the use of the `jti` is recorded last, so the client can send the same proof again.
    for (name, polls, token_permits) in [
        ("T-17: never polled", 0, 0),
        ("T-17: while the access token is verified", 1, 0),
        (
            "T-17: polled several times while the access token is verified",
            3,
            0,
        ),
        ("T-17: while the use of the proof is recorded", 1, 1),
    ] {
        let (token_gate, store_gate) = (
            Arc::new(Semaphore::new(token_permits)),
            Arc::new(Semaphore::new(0)),
        );
        let store = MemoryReplayStore::default();
        let layer = DpopLayer::new(verifier_with(
            Gated::new(&token_gate, jwt_verifier()),
            Gated::new(&store_gate, store.clone()),
        ));
        let permits = Arc::new(Semaphore::new(1));
        let events = Arc::default();
        let strict = StrictService {
            events: Arc::clone(&events),
            ..StrictService::default()
        };
        let mut service = layer.layer(ConcurrencyLimit::with_semaphore(
            strict,
            Arc::clone(&permits),
        ));
        let attempt = Attempt::good();
        let request = attempt.request();

        assert!(poll_ready(&mut service).is_ready(), "{name}");
        {
            let mut dropped = pin!(service.call(request.clone()));
            for _ in 0..polls {
                assert!(poll_once(dropped.as_mut()).is_pending(), "{name}");
            }
        }
        assert_eq!(token_gate.available_permits(), 0, "{name}");
        assert_eq!(store.usage().live, 0, "{name}");
        assert_eq!(StrictService::calls(&events), 0, "{name}");
        assert_eq!(permits.available_permits(), 1, "{name}");

        token_gate.add_permits(1);
        store_gate.add_permits(1);
        let response = block_on(async {
            service.ready().await.unwrap();
            service.call(request).await.unwrap()
        });
        assert_eq!(response.status(), StatusCode::OK, "{name}: the same proof");
        assert_eq!(store.usage().live, 1, "{name}");
    }
}

#[test]
fn a_request_dropped_inside_the_service_has_used_its_proof() {
    let layer = layer();
    let service = layer.layer(service_fn(|_: Request<String>| {
        future::pending::<Result<Response<()>, Infallible>>()
    }));
    let request = Attempt::good().request();
    {
        let mut dropped = pin!(service.oneshot(request.clone()));
        assert!(poll_once(dropped.as_mut()).is_pending());
    }
    let outcome = ask(&layer, request);
    outcome.assert_reason(
        "T-17, R-4.2: the request has reached the service",
        ProofError::Replayed,
    );
}
