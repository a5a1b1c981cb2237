//! The layer as a citizen of tower: any service, any body, readiness, cancellation, the response.

use std::cell::Cell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{self, Ready};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use common::{
    Attempt, AttemptExt as _, KeyExt as _, NOW, Outcome, TestClock, ask, at, block_on,
    jwt_verifier, verifier, verifier_by,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{Empty, Full};
use serde_json::json;
use tokio::sync::Semaphore;
use tower::limit::ConcurrencyLimit;
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_dpop::proof::{Claim, CompactReplayStore, ProofError, ReplayKey, ReplayStoreError};
use tower_dpop::resource::{CredentialsError, Dpop, DpopFuture, Unavailable};
use tower_dpop::tokens::{AccessToken, AccessTokenVerifier, PresentedToken, TokenError};
use tower_dpop::{
    BoundToken, Claims, DpopLayer, Issuers, JwtVerifier, KeySet, MemoryReplayStore, NonceSecret,
    ProofRules, Rejection, ReplayStore, StatelessNonces, Timestamp, Verifier,
};

type Tokens = JwtVerifier<KeySet>;

fn layer() -> DpopLayer {
    DpopLayer::new(verifier())
}

/// A verifier with parts of the test's own.
fn verifier_of<C: Send + Sync + 'static>(
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

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
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

/// Does what the inner part does, for each permit that the gate is given.
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

    async fn pass(&self) {
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
        self.pass().await;
        self.inner.verify(token, now).await
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

impl ReplayStore for Gated<MemoryReplayStore> {
    async fn claim(
        &self,
        key: ReplayKey,
        now: Timestamp,
        expires: Timestamp,
    ) -> Result<Claim, ReplayStoreError> {
        self.pass().await;
        self.inner.claim(key, now, expires).await
    }
}

/// Rejects every token for this reason.
struct Says(TokenError);

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
struct BrokenStore(ReplayStoreError);

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

/// What is chosen at run time shows in no type: one struct holds the layer, whatever verifies tokens and remembers
/// proofs.
#[test]
fn one_type_holds_the_layer_whatever_is_chosen() {
    struct App {
        dpop: DpopLayer,
    }

    let broken = BrokenStore(ReplayStoreError::Unavailable);
    let rows: [(&str, App, Option<Rejection>); 4] = [
        ("signed tokens", App { dpop: layer() }, None),
        (
            "several issuers",
            App {
                dpop: DpopLayer::new(verifier_of(
                    Issuers::new().add_issuer(jwt_verifier()),
                    CompactReplayStore::default(),
                )),
            },
            None,
        ),
        (
            "a verifier of one's own",
            App {
                dpop: DpopLayer::new(verifier_of(
                    Says(TokenError::Invalid),
                    MemoryReplayStore::default(),
                )),
            },
            Some(TokenError::Invalid.into()),
        ),
        (
            "a store of one's own",
            App {
                dpop: DpopLayer::new(verifier_of(jwt_verifier(), broken)),
            },
            Some(ReplayStoreError::Unavailable.into()),
        ),
    ];
    for (name, app, rejection) in rows {
        let outcome = Attempt::good().outcome_by(&app.dpop);
        assert_eq!(outcome.rejection, rejection, "{name}");
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

/// Any pair of body types, as long as a response body can be empty.
fn serves<B, D: Default>(name: &str, request_body: impl Fn() -> B, response_body: fn() -> D) {
    let service = layer().layer(service_fn(async |_: Request<B>| {
        Ok::<_, Infallible>(Response::new(response_body()))
    }));
    let send = |attempt: Attempt| {
        let request = attempt.request().map(|()| request_body());
        block_on(service.clone().oneshot(request)).unwrap()
    };
    assert_eq!(send(Attempt::good()).status(), StatusCode::OK, "{name}");
    for (fault, attempt, reason) in rejected_attempts() {
        let outcome = Outcome::of(&send(attempt));
        outcome.assert_reason(&format!("{name}, {fault}"), reason);
    }
}

#[test]
fn serves_any_body_types() {
    struct NotClone;
    serves("nothing", || (), || ());
    serves("texts", String::new, || "served".to_owned());
    serves("bytes", Vec::<u8>::new, || vec![1_u8]);
    serves("static text", || "text", || "served");
    serves("an option", || Some(1), || Some(NotClone));
    serves("a request body that is not Clone", || NotClone, || ());
    serves(
        "a request body that is not Send",
        || Rc::new(Cell::new(1)),
        || (),
    );
    serves(
        "a response body that is not Send",
        || (),
        || Some(Rc::new(1)),
    );
    serves("full bodies", Full::<Bytes>::default, || {
        Full::new(Bytes::from("served"))
    });
    serves("empty bodies", Empty::<Bytes>::new, Empty::<Bytes>::new);
    serves(
        "boxed bodies",
        BoxBody::<Bytes, Infallible>::default,
        || BoxBody::new(Full::new(Bytes::from("served"))),
    );
    serves("axum's body", axum::body::Body::empty, || {
        axum::body::Body::from("served")
    });
}

#[test]
fn rejects_with_the_default_body_and_passes_the_services_own() {
    let service = layer().layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(Some("served")))
    }));
    let response = block_on(service.clone().oneshot(Attempt::good().request())).unwrap();
    assert_eq!(response.into_body(), Some("served"));
    for (name, attempt, reason) in rejected_attempts() {
        let response = block_on(service.clone().oneshot(attempt.request())).unwrap();
        Outcome::of(&response).assert_reason(name, reason);
        assert_eq!(response.into_body(), None, "{name}");
    }
}

#[test]
fn the_service_gets_the_request_as_it_came_and_the_token_in_its_extensions() {
    #[derive(Clone, Debug, PartialEq)]
    struct FromOutside(u8);

    let attempt = Attempt::but(|a| {
        a.method = Method::PUT;
        a.uri = "/orders/1?x=%20".into();
        a.version = Version::HTTP_2;
        a.proof_claims["htm"] = json!("PUT");
        a.proof_claims["htu"] = json!("https://api.example.com/orders/1");
        a.extra_headers = vec![
            ("x-one", HeaderValue::from_static("1")),
            ("x-one", HeaderValue::from_static("2")),
        ];
    });
    let mut request = attempt.request().map(|()| "the body");
    request.extensions_mut().insert(FromOutside(7));
    let (sent, _) = request.clone().into_parts();

    let service = layer().layer(service_fn(async |request: Request<&'static str>| {
        Ok::<_, Infallible>(Response::new(Some(request)))
    }));
    let response = block_on(service.oneshot(request)).unwrap();
    let (got, body) = response.into_body().unwrap().into_parts();
    assert_eq!(body, "the body");
    assert_eq!(got.method, sent.method);
    assert_eq!(got.uri, sent.uri);
    assert_eq!(got.version, sent.version);
    assert_eq!(got.headers, sent.headers);
    assert_eq!(got.extensions.get(), Some(&FromOutside(7)));

    let token: &BoundToken<Claims> = got.extensions.get().unwrap();
    assert_eq!(token.claims().subject(), "alice");
    assert_eq!(token.thumbprint().to_string(), attempt.key.jkt());
    assert_eq!(token.algorithm().name(), attempt.key.alg());
    assert_eq!(token.expires(), Some(Timestamp::from_unix(NOW + 600)));
}

#[test]
fn a_rejected_request_never_reaches_the_service() {
    let events = Arc::default();
    let mut service = layer().layer(Strict {
        events: Arc::clone(&events),
        ..Strict::default()
    });
    for (name, attempt, reason) in rejected_attempts() {
        let response = block_on(async {
            service.ready().await.unwrap();
            service.call(attempt.request()).await.unwrap()
        });
        Outcome::of(&response).assert_reason(name, reason);
        assert_eq!(Strict::calls(&events), 0, "{name}");
    }
    let request = Attempt::good().request();
    let first = block_on(async {
        service.ready().await.unwrap();
        service.call(request.clone()).await.unwrap()
    });
    assert_eq!(first.body(), "served");
    assert_eq!(Strict::calls(&events), 1);
    let replay = block_on(async {
        service.ready().await.unwrap();
        service.call(request).await.unwrap()
    });
    Outcome::of(&replay).assert_reason("R-11.1.3: a replay", ProofError::Replayed);
    assert_eq!(Strict::calls(&events), 1);
}

#[test]
fn the_very_service_that_was_polled_ready_is_called() {
    let events = Arc::default();
    let mut service = layer().layer(Strict {
        events: Arc::clone(&events),
        ..Strict::default()
    });
    for _ in 0..2 {
        assert!(poll_ready(&mut service).is_ready());
        let response = block_on(service.call(Attempt::good().request())).unwrap();
        assert_eq!(response.body(), "served");
    }
    // Two requests on their way at once, each with a reservation of its own.
    assert!(poll_ready(&mut service).is_ready());
    let one = service.call(Attempt::good().request());
    assert!(poll_ready(&mut service).is_ready());
    let other = service.call(Attempt::good().request());
    block_on(async {
        other.await.unwrap();
        one.await.unwrap();
    });
    assert_eq!(
        *events.lock().unwrap(),
        [
            Event::PolledReady(0),
            Event::Called(0),
            Event::PolledReady(1),
            Event::Called(1),
            Event::PolledReady(2),
            Event::PolledReady(3),
            Event::Called(3),
            Event::Called(2),
        ]
    );
}

#[test]
fn a_preflight_that_is_let_through_keeps_to_the_same_contract() {
    let events = Arc::default();
    let mut service = layer().with_preflight_pass_through().layer(Strict {
        events: Arc::clone(&events),
        ..Strict::default()
    });
    for _ in 0..2 {
        assert!(poll_ready(&mut service).is_ready());
        let request = preflight(|_| {});
        assert_eq!(block_on(service.call(request)).unwrap().body(), "served");
    }
    assert_eq!(
        *events.lock().unwrap(),
        [
            Event::PolledReady(0),
            Event::Called(0),
            Event::PolledReady(1),
            Event::Called(1),
        ]
    );
}

#[test]
fn readiness_is_that_of_the_service() {
    let events = Arc::default();
    let mut service = layer().layer(Strict {
        first: [Poll::Pending, Poll::Ready(Err(Broken)), Poll::Pending].into(),
        events: Arc::clone(&events),
        ..Strict::default()
    });
    assert_eq!(poll_ready(&mut service), Poll::Pending);
    assert_eq!(poll_ready(&mut service), Poll::Ready(Err(Broken)));
    assert_eq!(poll_ready(&mut service), Poll::Pending);
    assert_eq!(poll_ready(&mut service), Poll::Ready(Ok(())));
    let response = block_on(service.call(Attempt::good().request())).unwrap();
    assert_eq!(response.body(), "served");
    assert_eq!(
        *events.lock().unwrap(),
        [
            Event::PolledPending(0),
            Event::PolledFailed(0),
            Event::PolledPending(0),
            Event::PolledReady(0),
            Event::Called(0),
        ]
    );
}

#[test]
fn a_rejected_request_gives_its_reservation_back() {
    let permits = Arc::new(Semaphore::new(1));
    let limited = ConcurrencyLimit::with_semaphore(Strict::default(), Arc::clone(&permits));
    let mut service = layer().layer(limited);
    for (name, attempt, reason) in rejected_attempts() {
        assert!(poll_ready(&mut service).is_ready(), "{name}");
        assert_eq!(permits.available_permits(), 0, "{name}");
        let mut answering = Box::pin(service.call(attempt.request()));
        let response = block_on(answering.as_mut()).unwrap();
        Outcome::of(&response).assert_reason(name, reason);
        assert_eq!(
            permits.available_permits(),
            1,
            "{name}: the future is still there"
        );
    }
    assert!(poll_ready(&mut service).is_ready());
    let response = block_on(service.call(Attempt::good().request())).unwrap();
    assert_eq!(response.body(), "served");
    assert_eq!(permits.available_permits(), 1);
}

#[test]
fn a_request_holds_its_reservation_while_it_is_verified() {
    let permits = Arc::new(Semaphore::new(1));
    let limited = ConcurrencyLimit::with_semaphore(Strict::default(), Arc::clone(&permits));
    let mut service = layer().layer(limited);
    assert!(poll_ready(&mut service).is_ready());
    let waiting = service.call(Attempt::good().request());
    assert!(
        poll_ready(&mut service).is_pending(),
        "the limit counts it, or more would be let in than can be served"
    );
    drop(waiting);
    assert!(poll_ready(&mut service).is_ready());
}

#[test]
fn errors_of_the_service_pass_through() {
    #[derive(Debug, PartialEq)]
    struct Failure(Box<str>);

    let service = layer().layer(service_fn(async |_: Request<()>| {
        Err::<Response<()>, _>(Failure("disk full".into()))
    }));
    let outcome = block_on(service.clone().oneshot(Attempt::good().request()));
    assert_eq!(outcome.unwrap_err(), Failure("disk full".into()));
    for (name, attempt, reason) in rejected_attempts() {
        let response = block_on(service.clone().oneshot(attempt.request())).unwrap();
        Outcome::of(&response).assert_reason(name, reason);
    }
}

#[test]
fn the_future_is_send_when_its_parts_are() {
    fn is_send<T: Send + 'static>(value: T) -> T {
        value
    }
    fn is_sync<T: Send + Sync + 'static>(value: T) -> T {
        value
    }
    let layer = is_sync(layer());
    let mut service: Dpop<Strict> = is_sync(layer.layer(Strict::default()));
    assert!(poll_ready(&mut service).is_ready());
    let future: DpopFuture<Strict, (), Claims> = is_send(service.call(Attempt::good().request()));
    let response = block_on(async { tokio::spawn(future).await.unwrap() }).unwrap();
    assert_eq!(response.body(), "served");
}

#[test]
fn the_future_of_the_service_is_held_in_place() {
    /// A future of a size that would show.
    struct Large([u8; 4096]);

    impl Future for Large {
        type Output = Result<Response<u8>, Infallible>;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            Poll::Ready(Ok(Response::new(self.0[4095])))
        }
    }

    let service = layer().layer(service_fn(|_: Request<()>| Large([7; 4096])));
    let future = service.clone().call(Attempt::good().request());
    assert!(size_of_val(&future) >= 4096);
    assert_eq!(*block_on(future).unwrap().body(), 7);

    // Neither Send nor Unpin: no `Box<dyn Future + Send>` could hold it.
    let not_send = Rc::new(Cell::new(0));
    let service = layer().layer(service_fn(async |_: Request<()>| {
        let counter = Rc::clone(&not_send);
        tokio::task::yield_now().await;
        counter.set(counter.get() + 1);
        Ok::<_, Infallible>(Response::new(()))
    }));
    let response = block_on(service.oneshot(Attempt::good().request())).unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(not_send.get(), 1);
}

#[test]
fn waits_for_a_token_verifier_and_a_store_that_answer_later() {
    block_on(async {
        let (token_gate, store_gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let memory = MemoryReplayStore::default();
        let layer = DpopLayer::new(verifier_of(
            Gated::new(&token_gate, jwt_verifier()),
            Gated::new(&store_gate, memory.clone()),
        ));
        let events = Arc::default();
        let service = layer.layer(Strict {
            events: Arc::clone(&events),
            ..Strict::default()
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
        assert!(!running.is_finished(), "the replay memory is being asked");
        assert_eq!(Strict::calls(&events), 0);
        assert_eq!(memory.usage().live, 0);
        store_gate.add_permits(1);
        let response = running.await.unwrap().unwrap();
        assert_eq!(response.body(), "served");
        assert_eq!(Strict::calls(&events), 1);
        assert_eq!(memory.usage().live, 1);
    });
}

#[test]
fn a_request_that_is_given_up_while_it_is_verified_leaves_nothing_behind() {
    // T-17: the `jti` is spent last, so the client may send the same proof again.
    for (name, polls, token_permits) in [
        ("T-17: never polled", 0, 0),
        ("T-17: while the access token is verified", 1, 0),
        ("T-17: polled in vain more than once", 3, 0),
        ("T-17: while the replay memory is asked", 1, 1),
    ] {
        let (token_gate, store_gate) = (
            Arc::new(Semaphore::new(token_permits)),
            Arc::new(Semaphore::new(0)),
        );
        let memory = MemoryReplayStore::default();
        let layer = DpopLayer::new(verifier_of(
            Gated::new(&token_gate, jwt_verifier()),
            Gated::new(&store_gate, memory.clone()),
        ));
        let permits = Arc::new(Semaphore::new(1));
        let events = Arc::default();
        let strict = Strict {
            events: Arc::clone(&events),
            ..Strict::default()
        };
        let mut service = layer.layer(ConcurrencyLimit::with_semaphore(
            strict,
            Arc::clone(&permits),
        ));
        let attempt = Attempt::good();
        let request = attempt.request();

        assert!(poll_ready(&mut service).is_ready(), "{name}");
        {
            let mut given_up = pin!(service.call(request.clone()));
            for _ in 0..polls {
                assert!(poll_once(given_up.as_mut()).is_pending(), "{name}");
            }
        }
        assert_eq!(token_gate.available_permits(), 0, "{name}");
        assert_eq!(memory.usage().live, 0, "{name}");
        assert_eq!(Strict::calls(&events), 0, "{name}");
        assert_eq!(permits.available_permits(), 1, "{name}");

        token_gate.add_permits(1);
        store_gate.add_permits(1);
        let response = block_on(async {
            service.ready().await.unwrap();
            service.call(request).await.unwrap()
        });
        assert_eq!(response.status(), StatusCode::OK, "{name}: the same proof");
        assert_eq!(memory.usage().live, 1, "{name}");
    }
}

#[test]
fn a_request_that_is_given_up_inside_the_service_has_spent_its_proof() {
    let layer = layer();
    let service = layer.layer(service_fn(|_: Request<()>| {
        future::pending::<Result<Response<()>, Infallible>>()
    }));
    let request = Attempt::good().request();
    {
        let mut given_up = pin!(service.oneshot(request.clone()));
        assert!(poll_once(given_up.as_mut()).is_pending());
    }
    let outcome = ask(&layer, request);
    outcome.assert_reason("T-17, R-4.2: the service has seen it", ProofError::Replayed);
}

#[test]
fn an_unreachable_part_is_our_fault_and_rejects() {
    for (name, error) in [
        ("T-18: full", ReplayStoreError::Full),
        ("T-18: out of reach", ReplayStoreError::Unavailable),
    ] {
        let layer = DpopLayer::new(verifier_of(jwt_verifier(), BrokenStore(error)));
        let outcome = Attempt::good().outcome_by(&layer);
        outcome.assert_reason(name, Unavailable::Replay(error));
        assert_eq!(outcome.status, StatusCode::SERVICE_UNAVAILABLE, "{name}");
        assert_eq!(outcome.challenges, [""; 0], "{name}");
        assert_eq!(outcome.retry_after.as_deref(), Some("1"), "{name}");
    }

    let name = "R-6.1: whoever verifies tokens cannot say";
    let layer = DpopLayer::new(verifier_of(
        Says(TokenError::Unavailable),
        MemoryReplayStore::default(),
    ));
    let outcome = Attempt::good().outcome_by(&layer);
    outcome.assert_reason(name, Unavailable::Token);
    assert_eq!(outcome.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(outcome.challenges, [""; 0]);
    assert_eq!(outcome.retry_after.as_deref(), Some("1"));
}

#[test]
fn a_full_memory_rejects_before_the_service_is_reached() {
    let memory = MemoryReplayStore::with_limit(1);
    let layer = DpopLayer::new(verifier_of(jwt_verifier(), memory.clone()));
    let first = Attempt::good();
    first
        .outcome_by(&layer)
        .assert_passed("T-18: there is room");
    let second = Attempt::good();
    let outcome = second.outcome_by(&layer);
    outcome.assert_reason(
        "T-18: there is none",
        Unavailable::Replay(ReplayStoreError::Full),
    );
    assert_eq!(memory.usage().rejected, 1);
}

#[test]
fn a_token_verifiers_verdict_decides_the_answer() {
    for (name, error, status, code) in [
        (
            "R-7.1.9: too little scope",
            TokenError::InsufficientScope,
            403,
            "insufficient_scope",
        ),
        (
            "R-6.2.4: revoked",
            TokenError::Invalid,
            401,
            "invalid_token",
        ),
        ("R-AT.5: expired", TokenError::Expired, 401, "invalid_token"),
        (
            "R-AT.6: another audience",
            TokenError::Audience,
            401,
            "invalid_token",
        ),
        (
            "R-AT.6: not a token",
            TokenError::Malformed,
            401,
            "invalid_token",
        ),
    ] {
        let memory = MemoryReplayStore::default();
        let layer = DpopLayer::new(verifier_of(Says(error.clone()), memory.clone()));
        let outcome = Attempt::good().outcome_by(&layer);
        outcome.assert_reason(name, Rejection::Token(error));
        outcome.assert_rejected(name, status, Some(code));
        assert_eq!(outcome.retry_after, None, "{name}");
        assert_eq!(memory.usage().live, 0, "{name}: the proof is not spent");
    }
}

#[test]
fn clones_of_a_layer_share_the_replay_memory() {
    // one memory, however many services and clones ask it.
    let layer = layer();
    let service = layer.layer(Strict::default());
    let others: [(&str, Dpop<Strict>); 4] = [
        ("the same service", service.clone()),
        ("another service", layer.layer(Strict::default())),
        (
            "a clone of the layer",
            layer.clone().layer(Strict::default()),
        ),
        (
            "a layer set otherwise",
            layer
                .clone()
                .with_preflight_pass_through()
                .layer(Strict::default()),
        ),
    ];
    for (name, other) in others {
        let request = Attempt::good().request();
        let first = block_on(service.clone().oneshot(request.clone())).unwrap();
        assert_eq!(first.status(), StatusCode::OK, "{name}");
        let second = block_on(other.oneshot(request)).unwrap();
        Outcome::of(&second).assert_reason(name, ProofError::Replayed);
    }

    let request = Attempt::good().request();
    ask(&layer, request.clone()).assert_passed("a layer of its own");
    ask(&self::layer(), request).assert_passed("knows nothing of the other");
}

#[test]
fn stands_in_a_service_builder() {
    let service = ServiceBuilder::new()
        .map_request(|mut request: Request<()>| {
            request.headers_mut().remove("x-internal");
            request
        })
        .layer(layer())
        .concurrency_limit(1)
        .service(Strict::default());
    let response = block_on(service.clone().oneshot(Attempt::good().request())).unwrap();
    assert_eq!(response.body(), "served");
    let boxed = service.boxed_clone();
    let response = block_on(boxed.oneshot(Attempt::good().request())).unwrap();
    assert_eq!(response.body(), "served");
}

fn preflight(change: impl FnOnce(&mut Request<()>)) -> Request<()> {
    let mut request = Request::options("/orders")
        .header("origin", "https://app.example.com")
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "authorization,dpop")
        .body(())
        .unwrap();
    change(&mut request);
    request
}

#[test]
fn lets_preflights_through_only_when_told_to() {
    let strict = layer();
    let lenient = layer().with_preflight_pass_through();
    let token: HeaderValue = format!("DPoP {}", Attempt::good().token()).parse().unwrap();

    let outcome = ask(&strict, preflight(|_| {}));
    outcome.assert_reason("T-4: by default", CredentialsError::Missing);
    let outcome = ask(&lenient, preflight(|_| {}));
    assert_eq!(
        (outcome.status, outcome.rejection.clone()),
        (StatusCode::OK, None)
    );
    assert!(outcome.token.is_none(), "T-4: a preflight has no token");

    let cases: [(&str, Request<()>, Rejection); 4] = [
        (
            "T-4: with Authorization",
            preflight(|request| {
                request.headers_mut().insert("authorization", token);
            }),
            ProofError::Missing.into(),
        ),
        (
            "T-4: with an empty Authorization",
            preflight(|request| {
                let empty = HeaderValue::from_static("");
                request.headers_mut().insert("authorization", empty);
            }),
            CredentialsError::Malformed.into(),
        ),
        (
            "T-4: another method",
            preflight(|request| *request.method_mut() = Method::GET),
            CredentialsError::Missing.into(),
        ),
        (
            "T-4: OPTIONS that is no preflight",
            preflight(|request| {
                request
                    .headers_mut()
                    .remove("access-control-request-method");
            }),
            CredentialsError::Missing.into(),
        ),
    ];
    for (name, request, reason) in cases {
        ask(&lenient, request).assert_reason(name, reason);
    }
}

/// A service whose response has a nonce and a cache policy of its own, behind a layer that has a
/// next nonce to give when `now` is in the nonce's second period.
struct WithNonces {
    layer: DpopLayer,
    clock: TestClock,
    /// As it was issued at [`NOW`].
    nonce: String,
}

/// The start of the nonce period after the one of [`NOW`].
const NEXT_PERIOD: u64 = NOW - NOW % 120 + 120;

impl WithNonces {
    fn new() -> Self {
        let clock = TestClock::at(NOW);
        let nonces = StatelessNonces::new(NonceSecret::from_bytes(&[7; 32]).unwrap());
        let verifier = verifier_by(|rules| rules.with_nonces(nonces).with_clock(clock.read()));
        let nonce = written(&verifier.issue_nonce().unwrap());
        Self {
            layer: DpopLayer::new(verifier),
            clock,
            nonce,
        }
    }

    fn attempt(&self, now: u64) -> Attempt {
        self.clock.set(now);
        Attempt::but(|a| {
            a.proof_claims["iat"] = json!(now);
            a.proof_claims["nonce"] = json!(self.nonce);
        })
    }

    fn response_to(
        &self,
        attempt: &Attempt,
        inner: fn(StatusCode) -> Response<String>,
        status: u16,
    ) -> Response<String> {
        let status = StatusCode::from_u16(status).unwrap();
        let service = self.layer.layer(service_fn(async |_: Request<()>| {
            Ok::<_, Infallible>(inner(status))
        }));
        block_on(service.oneshot(attempt.request())).unwrap()
    }
}

fn written(nonce: &tower_dpop::proof::Nonce) -> String {
    let mut headers = HeaderMap::new();
    nonce.write_to(&mut headers);
    headers["dpop-nonce"].to_str().unwrap().to_owned()
}

#[derive(Clone, Debug, PartialEq)]
struct Marker;

fn opinionated(status: StatusCode) -> Response<String> {
    Response::builder()
        .status(status)
        .version(Version::HTTP_2)
        .header("cache-control", "public")
        .header("cache-control", "max-age=60")
        .header("dpop-nonce", "inner-1")
        .header("dpop-nonce", "inner-2")
        .header("set-cookie", "a=1")
        .header("set-cookie", "b=2")
        .header("www-authenticate", "Basic")
        .extension(Marker)
        .body("served".to_owned())
        .unwrap()
}

#[test]
fn gives_the_next_nonce_with_a_success_only() {
    let server = WithNonces::new();
    server.clock.set(NEXT_PERIOD);
    let next = written(&verifier_nonce_at(NEXT_PERIOD));
    assert_ne!(next, server.nonce);
    for (name, status, is_success) in [
        ("R-8.2.2: OK", 200, true),
        ("R-8.2.2: Created", 201, true),
        ("R-8.2.2: No Content", 204, true),
        ("R-8.2.2: the last success", 299, true),
        ("R-8.2.2: Switching Protocols", 101, true),
        ("R-8.2.2: Continue", 100, false),
        ("R-8.2.2: Processing", 102, false),
        ("R-8.2.2: Multiple Choices", 300, false),
        ("R-8.2.2: Not Modified", 304, false),
        ("R-8.2.2: Bad Request", 400, false),
        ("R-8.2.2: Unauthorized, by the service", 401, false),
        ("R-8.2.2: Internal Server Error", 500, false),
    ] {
        let response = server.response_to(&server.attempt(NEXT_PERIOD), opinionated, status);
        let untouched = opinionated(StatusCode::from_u16(status).unwrap());
        let mut expected = untouched.headers().clone();
        if is_success {
            // T-23, X-3: one nonce, uncacheable, whatever the service has set.
            expected.insert("dpop-nonce", next.parse().unwrap());
            expected.insert("cache-control", HeaderValue::from_static("no-store"));
        }
        assert_eq!(response.headers(), &expected, "{name}");
        assert_eq!(response.status(), untouched.status(), "{name}");
        assert_eq!(response.version(), untouched.version(), "{name}");
        assert_eq!(response.body(), untouched.body(), "{name}");
        assert_eq!(response.extensions().get(), Some(&Marker), "{name}");
        assert_eq!(response.extensions().get::<Rejection>(), None, "{name}");
    }
}

/// The nonce that a server with the same secret issues at another time.
fn verifier_nonce_at(now: u64) -> tower_dpop::proof::Nonce {
    let nonces = StatelessNonces::new(NonceSecret::from_bytes(&[7; 32]).unwrap());
    verifier_by(|rules| rules.with_nonces(nonces).with_clock(move || at(now)))
        .issue_nonce()
        .unwrap()
}

#[test]
fn leaves_the_response_alone_while_the_nonce_is_young_or_none_is_used() {
    let server = WithNonces::new();
    for (name, now) in [
        ("T-23: just issued", NOW),
        ("T-23: the last second of its first period", NEXT_PERIOD - 1),
    ] {
        let response = server.response_to(&server.attempt(now), opinionated, 200);
        let untouched = opinionated(StatusCode::OK);
        assert_eq!(response.headers(), untouched.headers(), "{name}");
    }

    let service = layer().layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(opinionated(StatusCode::OK))
    }));
    let response = block_on(service.oneshot(Attempt::good().request())).unwrap();
    assert_eq!(response.headers(), opinionated(StatusCode::OK).headers());
    assert_eq!(response.extensions().get(), Some(&Marker));
}

#[test]
fn an_error_of_the_service_takes_the_next_nonce_with_it() {
    let server = WithNonces::new();
    let service = server.layer.layer(service_fn(async |_: Request<()>| {
        Err::<Response<()>, _>(Broken)
    }));
    let attempt = server.attempt(NEXT_PERIOD);
    assert_eq!(
        block_on(service.oneshot(attempt.request())).unwrap_err(),
        Broken
    );
}

#[test]
fn a_body_is_passed_on_unread_and_dropped_unread() {
    /// Panics when it is read.
    struct Unread(Arc<AtomicUsize>);

    impl hyper::body::Body for Unread {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
            panic!("the layer reads no body (R-11.7.1)");
        }
    }

    impl Drop for Unread {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let dropped = Arc::new(AtomicUsize::new(0));
    let service = layer().layer(service_fn(async |request: Request<Unread>| {
        Ok::<_, Infallible>(Response::new(Some(request.into_body())))
    }));
    let send = |attempt: Attempt| {
        let request = attempt.request().map(|()| Unread(Arc::clone(&dropped)));
        block_on(service.clone().oneshot(request)).unwrap()
    };
    let response = send(Attempt::good());
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
    assert!(
        response
            .into_body()
            .is_some_and(|body| body.0.load(Ordering::Relaxed) == 0)
    );
    for (count, (name, attempt, reason)) in rejected_attempts().into_iter().enumerate() {
        Outcome::of(&send(attempt)).assert_reason(name, reason);
        assert_eq!(dropped.load(Ordering::Relaxed), count + 2, "{name}");
    }
}
