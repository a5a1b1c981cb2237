//! The contract of `tower::Service`: readiness, reservations, errors, clones and the type of the future.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower::Service as _;

use common::{Attempt, AttemptExt as _, Outcome, ask, block_on, jwt_verifier, verifier};
use http::{Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tower::limit::ConcurrencyLimit;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_dpop::proof::{ProofError, ReplayStoreError};
use tower_dpop::resource::{
    Dpop, DpopFuture, MetadataLayer, ProblemDetailsLayer, ResourceMetadata,
};
use tower_dpop::tokens::TokenError;
use tower_dpop::{Claims, DpopLayer, Issuers, MemoryReplayStore, Rejection};

use super::{
    Event, FailingStore, RejectingTokens, ServiceError, StrictService, layer, poll_ready,
    rejected_attempts, verifier_with,
};

/// The types of the token verifier and the replay store are erased, so they can be chosen at run time.
#[test]
fn the_type_of_the_layer_does_not_depend_on_the_token_verifier_or_the_replay_store() {
    struct App {
        dpop: DpopLayer,
    }

    let failing = FailingStore(ReplayStoreError::Unavailable);
    let rows: [(&str, App, Option<Rejection>); 4] = [
        ("signed tokens", App { dpop: layer() }, None),
        (
            "several issuers",
            App {
                dpop: DpopLayer::new(verifier_with(
                    Issuers::new().add_issuer(jwt_verifier()),
                    MemoryReplayStore::default(),
                )),
            },
            None,
        ),
        (
            "a custom token verifier",
            App {
                dpop: DpopLayer::new(verifier_with(
                    RejectingTokens(TokenError::Invalid),
                    MemoryReplayStore::default(),
                )),
            },
            Some(TokenError::Invalid.into()),
        ),
        (
            "a custom replay store",
            App {
                dpop: DpopLayer::new(verifier_with(jwt_verifier(), failing)),
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
fn a_rejected_request_does_not_reach_the_service() {
    let events = Arc::default();
    let mut service = layer().layer(StrictService {
        events: Arc::clone(&events),
        ..StrictService::default()
    });
    for (name, attempt, reason) in rejected_attempts() {
        let response = block_on(async {
            service.ready().await.unwrap();
            service.call(attempt.request()).await.unwrap()
        });
        Outcome::of(&response).assert_reason(name, reason);
        assert_eq!(StrictService::calls(&events), 0, "{name}");
    }
    let request = Attempt::good().request();
    let first = block_on(async {
        service.ready().await.unwrap();
        service.call(request.clone()).await.unwrap()
    });
    assert_eq!(first.body(), "served");
    assert_eq!(StrictService::calls(&events), 1);
    let replay = block_on(async {
        service.ready().await.unwrap();
        service.call(request).await.unwrap()
    });
    Outcome::of(&replay).assert_reason("R-11.1.3: a replay", ProofError::Replayed);
    assert_eq!(StrictService::calls(&events), 1);
}

#[test]
fn calls_the_same_service_that_was_polled_ready() {
    let events = Arc::default();
    let mut service = layer().layer(StrictService {
        events: Arc::clone(&events),
        ..StrictService::default()
    });
    for _ in 0..2 {
        assert!(poll_ready(&mut service).is_ready());
        let response = block_on(service.call(Attempt::good().request())).unwrap();
        assert_eq!(response.body(), "served");
    }
    // Two requests in flight, each with its own reservation.
    assert!(poll_ready(&mut service).is_ready());
    let first = service.call(Attempt::good().request());
    assert!(poll_ready(&mut service).is_ready());
    let second = service.call(Attempt::good().request());
    block_on(async {
        second.await.unwrap();
        first.await.unwrap();
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

/// So are the layers that only add a response or a body.
#[test]
fn metadata_and_problem_details_are_ready_when_the_service_is() {
    let not_ready = || StrictService {
        scripted_readiness: [Poll::Pending, Poll::Ready(Err(ServiceError))].into(),
        ..StrictService::default()
    };
    let metadata = ResourceMetadata::of(&mut verifier());
    let mut with_metadata = MetadataLayer::new(&metadata).layer(not_ready());
    let mut with_problems = ProblemDetailsLayer::new().layer(not_ready());
    for expected in [
        Poll::Pending,
        Poll::Ready(Err(ServiceError)),
        Poll::Ready(Ok(())),
    ] {
        assert_eq!(poll_ready(&mut with_metadata), expected);
        assert_eq!(poll_ready(&mut with_problems), expected);
    }
}

#[test]
fn is_ready_when_the_service_is() {
    let events = Arc::default();
    let mut service = layer().layer(StrictService {
        scripted_readiness: [Poll::Pending, Poll::Ready(Err(ServiceError)), Poll::Pending].into(),
        events: Arc::clone(&events),
        ..StrictService::default()
    });
    assert_eq!(poll_ready(&mut service), Poll::Pending);
    assert_eq!(poll_ready(&mut service), Poll::Ready(Err(ServiceError)));
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
fn a_rejection_releases_the_reservation_at_once() {
    let permits = Arc::new(Semaphore::new(1));
    let limited = ConcurrencyLimit::with_semaphore(StrictService::default(), Arc::clone(&permits));
    let mut service = layer().layer(limited);
    for (name, attempt, reason) in rejected_attempts() {
        assert!(poll_ready(&mut service).is_ready(), "{name}");
        assert_eq!(permits.available_permits(), 0, "{name}");
        let mut future = Box::pin(service.call(attempt.request()));
        let response = block_on(future.as_mut()).unwrap();
        Outcome::of(&response).assert_reason(name, reason);
        assert_eq!(
            permits.available_permits(),
            1,
            "{name}: released before the future is dropped"
        );
    }
    assert!(poll_ready(&mut service).is_ready());
    let response = block_on(service.call(Attempt::good().request())).unwrap();
    assert_eq!(response.body(), "served");
    assert_eq!(permits.available_permits(), 1);
}

#[test]
fn a_request_keeps_its_reservation_while_it_is_verified() {
    let permits = Arc::new(Semaphore::new(1));
    let limited = ConcurrencyLimit::with_semaphore(StrictService::default(), Arc::clone(&permits));
    let mut service = layer().layer(limited);
    assert!(poll_ready(&mut service).is_ready());
    let waiting = service.call(Attempt::good().request());
    assert!(
        poll_ready(&mut service).is_pending(),
        "the limit counts requests that are being verified"
    );
    drop(waiting);
    assert!(poll_ready(&mut service).is_ready());
}

#[test]
fn an_error_of_the_service_passes_through() {
    #[derive(Debug, PartialEq)]
    struct Failure(Box<str>);

    let service = layer().layer(service_fn(async |_: Request<String>| {
        Err::<Response<()>, _>(Failure("disk full".into()))
    }));
    let result = block_on(service.clone().oneshot(Attempt::good().request()));
    assert_eq!(result.unwrap_err(), Failure("disk full".into()));
    for (name, attempt, reason) in rejected_attempts() {
        let response = block_on(service.clone().oneshot(attempt.request())).unwrap();
        Outcome::of(&response).assert_reason(name, reason);
    }
}

#[test]
fn the_future_is_send_if_its_parts_are() {
    fn is_send<T: Send + 'static>(value: T) -> T {
        value
    }
    fn is_sync<T: Send + Sync + 'static>(value: T) -> T {
        value
    }
    let layer = is_sync(layer());
    let mut service: Dpop<StrictService> = is_sync(layer.layer(StrictService::default()));
    assert!(poll_ready(&mut service).is_ready());
    let future: DpopFuture<StrictService, String, Claims> =
        is_send(service.call(Attempt::good().request()));
    let response = block_on(async { tokio::spawn(future).await.unwrap() }).unwrap();
    assert_eq!(response.body(), "served");
}

#[test]
fn the_future_of_the_service_is_not_boxed() {
    /// Larger than the layer's own future.
    struct Large([u8; 4096]);

    impl Future for Large {
        type Output = Result<Response<u8>, Infallible>;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            Poll::Ready(Ok(Response::new(self.0[4095])))
        }
    }

    let service = layer().layer(service_fn(|_: Request<String>| Large([7; 4096])));
    let future = service.clone().call(Attempt::good().request());
    assert!(size_of_val(&future) >= 4096);
    assert_eq!(*block_on(future).unwrap().body(), 7);

    // Not `Send`, so it cannot be in a `Box<dyn Future + Send>`.
    let not_send = Rc::new(Cell::new(0));
    let service = layer().layer(service_fn(async |_: Request<String>| {
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
fn clones_of_a_layer_share_the_replay_store() {
    // one store for all services and clones.
    let layer = layer();
    let service = layer.layer(StrictService::default());
    let others: [(&str, Dpop<StrictService>); 4] = [
        ("the same service", service.clone()),
        ("another service", layer.layer(StrictService::default())),
        (
            "a clone of the layer",
            layer.clone().layer(StrictService::default()),
        ),
        (
            "a clone with other settings",
            layer
                .clone()
                .with_preflight_pass_through()
                .layer(StrictService::default()),
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
    ask(&layer, request.clone()).assert_passed("a separate layer: first use");
    ask(&super::layer(), request).assert_passed("a separate layer has its own replay store");
}

#[test]
fn works_in_a_service_builder() {
    let service = ServiceBuilder::new()
        .map_request(|mut request: Request<String>| {
            request.headers_mut().remove("x-internal");
            request
        })
        .layer(layer())
        .concurrency_limit(1)
        .service(StrictService::default());
    let response = block_on(service.clone().oneshot(Attempt::good().request())).unwrap();
    assert_eq!(response.body(), "served");
    let boxed = service.boxed_clone();
    let response = block_on(boxed.oneshot(Attempt::good().request())).unwrap();
    assert_eq!(response.body(), "served");
}
