//! Introspection requests in flight. The crate's file is compiled here, because the feature `introspection` brings an
//! HTTP client. tokio's `OnceCell` is not loom's: each call of it is one step.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use loom::thread;

use crate::in_flight::InFlight;
use crate::{block_on, explore};

/// An issuer that numbers its responses, and receives at most one request at a time.
#[derive(Default)]
struct Issuer {
    in_flight: InFlight<usize>,
    requests: AtomicUsize,
    responses: AtomicUsize,
}

impl Issuer {
    async fn share(&self) -> usize {
        self.in_flight.share(&[1; 32], self.introspect()).await
    }

    async fn introspect(&self) -> usize {
        let _request = Request::to(self);
        wait_once().await;
        1 + self.responses.fetch_add(1, Ordering::SeqCst)
    }
}

/// A request, until it has a response or is dropped.
struct Request<'i>(&'i Issuer);

impl<'i> Request<'i> {
    fn to(issuer: &'i Issuer) -> Self {
        let others = issuer.requests.fetch_add(1, Ordering::SeqCst);
        assert_eq!(others, 0, "two requests at once");
        Self(issuer)
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Is pending once.
async fn wait_once() {
    let mut polls = 0..1;
    poll_fn(|_| match polls.next() {
        Some(_) => Poll::Pending,
        None => Poll::Ready(()),
    })
    .await;
}

/// Two requests after each other: the second does not share the response of the first.
fn ask_twice(issuer: &Issuer) {
    let first = block_on(issuer.share());
    let second = block_on(issuer.share());
    assert!(first < second, "{first} and {second}");
}

#[test]
fn simultaneous_requests_share_one_and_later_ones_ask_again() {
    explore("two requests and two others", 50_000, || {
        let issuer = Arc::new(Issuer::default());
        let others = [0, 1].map(|_| {
            let issuer = issuer.clone();
            thread::spawn(move || block_on(issuer.share()))
        });
        ask_twice(&issuer);
        for other in others {
            other.join().unwrap();
        }
    });
}

/// The client of one request disconnects after the first step of the request.
#[test]
fn a_dropped_request_leaves_its_place_to_another() {
    explore("a dropped request and three others", 200, || {
        let issuer = Arc::new(Issuer::default());
        let other = thread::spawn({
            let issuer = issuer.clone();
            move || {
                let _ = pin!(issuer.share()).poll(&mut Context::from_waker(Waker::noop()));
                block_on(issuer.share())
            }
        });
        ask_twice(&issuer);
        other.join().unwrap();
    });
}
