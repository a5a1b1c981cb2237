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
use tower_dpop::proof::{Claim, ProofError, ReplayKey, ReplayStoreError};
use tower_dpop::resource::CredentialsError;
use tower_dpop::tokens::{AccessToken, AccessTokenVerifier, PresentedToken, TokenError};
use tower_dpop::{Claims, DpopLayer, ProofRules, Rejection, ReplayStore, Timestamp, Verifier};

fn layer() -> DpopLayer {
    DpopLayer::new(verifier())
}

/// A verifier with parts of the test's own.
pub(super) fn verifier_of<C: Send + Sync + 'static>(
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

fn poll_ready<S: Service<Request<()>>>(service: &mut S) -> Poll<Result<(), S::Error>> {
    service.poll_ready(&mut Context::from_waker(Waker::noop()))
}

#[derive(Debug, PartialEq, Eq)]
struct Broken;

/// What happened to a [`Strict`] service and its clones, each known by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    PolledPending(usize),
    PolledFailed(usize),
    PolledReady(usize),
    Called(usize),
}

/// Keeps to tower's contract, and panics where its caller does not: a clone is not ready because
/// the original is.
#[derive(Default)]
struct Strict {
    number: usize,
    ready: bool,
    /// What `poll_ready` says before it says ready.
    first: VecDeque<Poll<Result<(), Broken>>>,
    next_number: Arc<AtomicUsize>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Strict {
    fn log(&self, event: fn(usize) -> Event) {
        self.events.lock().unwrap().push(event(self.number));
    }

    fn calls(events: &Mutex<Vec<Event>>) -> usize {
        let events = events.lock().unwrap();
        events
            .iter()
            .filter(|event| matches!(event, Event::Called(_)))
            .count()
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self {
            number: 1 + self.next_number.fetch_add(1, Ordering::Relaxed),
            ready: false,
            first: VecDeque::new(),
            next_number: Arc::clone(&self.next_number),
            events: Arc::clone(&self.events),
        }
    }
}

impl Service<Request<()>> for Strict {
    type Response = Response<String>;
    type Error = Broken;
    type Future = Ready<Result<Response<String>, Broken>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self.first.pop_front() {
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

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(self.ready, "called without having been polled ready");
        self.ready = false;
        self.log(Event::Called);
        future::ready(Ok(Response::new("served".to_owned())))
    }
}

/// Rejects every token for this reason.
pub(super) struct Says(pub(super) TokenError);

impl AccessTokenVerifier for Says {
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

/// Cannot say.
pub(super) struct BrokenStore(pub(super) ReplayStoreError);

impl ReplayStore for BrokenStore {
    async fn claim(
        &self,
        _: ReplayKey,
        _: Timestamp,
        _: Timestamp,
    ) -> Result<Claim, ReplayStoreError> {
        Err(self.0)
    }
}

/// One rejected request per kind of fault, each a good one with one thing changed.
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
