//! The contract of `tower::Service`: readiness, reservations, errors, clones and the type of the future.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower::Service as _;

use common::{Attempt, AttemptExt as _, Outcome, ask, block_on, jwt_verifier};
use http::{Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tower::limit::ConcurrencyLimit;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_dpop::proof::{CompactReplayStore, ProofError, ReplayStoreError};
use tower_dpop::resource::{Dpop, DpopFuture};
use tower_dpop::tokens::TokenError;
use tower_dpop::{Claims, DpopLayer, Issuers, MemoryReplayStore, Rejection};

use super::{
    Broken, BrokenStore, Event, Says, Strict, layer, poll_ready, rejected_attempts, verifier_of,
};

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
    ask(&super::layer(), request).assert_passed("knows nothing of the other");
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
