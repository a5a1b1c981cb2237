//! `DpopLayer` as a tower layer: services, bodies, cancellation, preflights, nonces and report-only mode.

mod bodies;
mod cancellation;
mod nonces;
mod preflight;
mod report_only;
mod service;

use std::collections::VecDeque;
use std::future::{self, Ready};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use common::{Attempt, AttemptExt as _, NOW, at, verifier};
use http::{HeaderValue, Request, Response};
use serde_json::json;
use tower::Service;
use tower_dpop::proof::{Claim, Epoch, ProofError, ReplayStoreError, UsedProof};
use tower_dpop::resource::CredentialsError;
use tower_dpop::tokens::{AccessToken, AccessTokenVerifier, PresentedToken, TokenError};
use tower_dpop::{Claims, DpopLayer, ProofRules, Rejection, ReplayStore, Timestamp, Verifier};

fn layer() -> DpopLayer {
    DpopLayer::new(verifier())
}

/// A good [`Attempt`]'s verifier, with another token verifier and another replay store.
pub(super) fn verifier_with<C: Send + Sync + 'static>(
    tokens: impl AccessTokenVerifier<Claims = C>,
    replays: impl ReplayStore,
) -> Verifier<C> {
    Verifier::new(
        ProofRules::new(common::AUDIENCE.parse().unwrap())
            .with_clock(|| at(NOW))
            .with_replay_store(replays),
        tokens,
    )
}

pub(super) fn poll_ready<S: Service<Request<String>>>(
    service: &mut S,
) -> Poll<Result<(), S::Error>> {
    service.poll_ready(&mut Context::from_waker(Waker::noop()))
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServiceError;

/// What happened to a [`StrictService`] or to one of its clones, with the id of that clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    PolledPending(usize),
    PolledFailed(usize),
    PolledReady(usize),
    Called(usize),
}

/// Panics if its caller breaks the contract of `tower::Service`. A clone is not ready just because the
/// original is.
#[derive(Default)]
pub(super) struct StrictService {
    pub(super) id: usize,
    pub(super) ready: bool,
    /// What `poll_ready` returns first. Then it is always ready.
    pub(super) scripted_readiness: VecDeque<Poll<Result<(), ServiceError>>>,
    pub(super) next_id: Arc<AtomicUsize>,
    pub(super) events: Arc<Mutex<Vec<Event>>>,
}

impl StrictService {
    fn log(&self, event: fn(usize) -> Event) {
        self.events.lock().unwrap().push(event(self.id));
    }

    pub(super) fn calls(events: &Mutex<Vec<Event>>) -> usize {
        let events = events.lock().unwrap();
        events
            .iter()
            .filter(|event| matches!(event, Event::Called(_)))
            .count()
    }
}

impl Clone for StrictService {
    fn clone(&self) -> Self {
        Self {
            id: 1 + self.next_id.fetch_add(1, Ordering::Relaxed),
            ready: false,
            scripted_readiness: VecDeque::new(),
            next_id: Arc::clone(&self.next_id),
            events: Arc::clone(&self.events),
        }
    }
}

impl Service<Request<String>> for StrictService {
    type Response = Response<String>;
    type Error = ServiceError;
    type Future = Ready<Result<Response<String>, ServiceError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ServiceError>> {
        match self.scripted_readiness.pop_front() {
            Some(Poll::Pending) => {
                self.log(Event::PolledPending);
                Poll::Pending
            }
            Some(Poll::Ready(Err(error))) => {
                self.log(Event::PolledFailed);
                Poll::Ready(Err(error))
            }
            Some(Poll::Ready(Ok(()))) | None => {
                self.log(Event::PolledReady);
                self.ready = true;
                Poll::Ready(Ok(()))
            }
        }
    }

    fn call(&mut self, _: Request<String>) -> Self::Future {
        assert!(self.ready, "called before it was polled ready");
        self.ready = false;
        self.log(Event::Called);
        future::ready(Ok(Response::new("served".to_owned())))
    }
}

/// A token verifier that rejects every token for this reason.
pub(super) struct RejectingTokens(pub(super) TokenError);

impl AccessTokenVerifier for RejectingTokens {
    type Claims = Claims;

    async fn verify(
        &self,
        _: PresentedToken<'_>,
        _: Timestamp,
    ) -> Result<AccessToken<Claims>, TokenError> {
        Err(self.0.clone())
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// A replay store that fails with this error.
pub(super) struct FailingStore(pub(super) ReplayStoreError);

impl ReplayStore for FailingStore {
    async fn claim(&self, _: UsedProof) -> Result<Claim, ReplayStoreError> {
        Err(self.0)
    }

    fn epoch(&self) -> Epoch {
        Epoch::UNKNOWN
    }
}

/// One rejected request per kind of error, each a good one with one change.
fn rejected_attempts() -> Vec<(&'static str, Attempt, Rejection)> {
    vec![
        (
            "R-7.1.1: no credentials",
            Attempt::but(|a| a.authorization = Some(vec![])),
            CredentialsError::Missing.into(),
        ),
        (
            "F-4: two Authorization fields",
            Attempt::but(|a| {
                let field: HeaderValue = format!("DPoP {}", a.token()).parse().unwrap();
                a.authorization = Some(vec![field.clone(), field]);
            }),
            CredentialsError::Ambiguous.into(),
        ),
        (
            "R-7.1.2: no proof",
            Attempt::but(|a| a.dpop = Some(vec![])),
            ProofError::Missing.into(),
        ),
        (
            "R-4.3.8: a proof for another method",
            Attempt::but(|a| a.proof_claims["htm"] = json!("POST")),
            ProofError::Method.into(),
        ),
        (
            "R-AT.5: an expired token",
            Attempt::but(|a| a.token_claims["exp"] = json!(NOW - 60)),
            TokenError::Expired.into(),
        ),
    ]
}
