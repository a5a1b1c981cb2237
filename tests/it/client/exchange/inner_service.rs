//! The inner service (readiness, errors, connections), and outer layers for retries and redirects.

use std::collections::HashSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Empty;
use tower::limit::ConcurrencyLimitLayer;
use tower::retry::{Policy, RetryLayer};
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_dpop::client::{ClientError, DpopClientLayer, TokenClientLayer};
use tower_http::follow_redirect::FollowRedirectLayer;

use common::proofs::ReadProof;
use common::{AUDIENCE, ISSUER, block_on};

use crate::client::{
    Client, KINDS, MockResponse, MockServer, ORDERS, ServerKind, boxed, expect_error, expect_ready,
    key, manual_server, next_request, nonce_in, ok, ok_with_nonce, response_with, token, url,
};

/// A service that panics if it is called before it is ready. Every other poll is pending, and poll
/// number `fails_at` is an error.
struct StrictService {
    is_ready: bool,
    polls: Arc<AtomicUsize>,
    fails_at: usize,
    server: MockServer,
}

impl Clone for StrictService {
    fn clone(&self) -> Self {
        Self {
            is_ready: false,
            polls: Arc::clone(&self.polls),
            fails_at: self.fails_at,
            server: self.server.clone(),
        }
    }
}

impl Service<Request<String>> for StrictService {
    type Response = MockResponse;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<MockResponse, std::io::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        let poll = self.polls.fetch_add(1, Ordering::SeqCst) + 1;
        if poll == self.fails_at {
            return Poll::Ready(Err(std::io::Error::other("closed")));
        }
        if poll % 2 == 1 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        assert!(self.is_ready, "called before it was ready");
        self.is_ready = false;
        let response = ready_response(self.server.call(request));
        std::future::ready(Ok(response))
    }
}

fn ready_response(future: std::future::Ready<Result<MockResponse, Infallible>>) -> MockResponse {
    match future.into_inner() {
        Ok(response) => response,
    }
}

#[test]
fn calls_the_inner_service_only_when_it_is_ready() {
    let server = MockServer::new(|number, _| {
        if number % 3 == 0 {
            ok()
        } else {
            ServerKind::Resource.nonce_demand(&format!("n{number}"))
        }
    });
    let strict = StrictService {
        is_ready: false,
        polls: Arc::default(),
        fails_at: usize::MAX,
        server: server.clone(),
    };
    let mut service = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(strict);
    for round in 1..4 {
        let response = block_on(async {
            let ready = service.ready().await?;
            ready.call(ServerKind::Resource.request()).await
        });
        assert_eq!(response.unwrap().status(), 200);
        assert_eq!(server.request_count(), 3 * round);
    }
}

#[test]
fn a_readiness_error_is_a_transport_error() {
    for (fails_at, sent) in [(1, 0), (2, 0), (3, 1), (6, 2)] {
        let server =
            MockServer::new(|number, _| ServerKind::Token.nonce_demand(&format!("n{number}")));
        let strict = StrictService {
            is_ready: false,
            polls: Arc::default(),
            fails_at,
            server: server.clone(),
        };
        let service = TokenClientLayer::new(key(), url(ISSUER)).layer(strict);
        let error = expect_error(block_on(service.oneshot(ServerKind::Token.request())));
        let ClientError::Transport(cause) = error else {
            panic!("{error:?}");
        };
        assert_eq!(cause.to_string(), "closed");
        assert_eq!(server.request_count(), sent, "poll {fails_at}");
    }
}

#[test]
fn an_error_of_the_inner_service_is_a_transport_error() {
    let failing = service_fn(async |_: Request<String>| {
        Err::<MockResponse, _>(std::io::Error::other("connection reset"))
    });
    let request = Request::get(ORDERS).body(String::new()).unwrap();
    let service = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(failing);
    let error = expect_error(block_on(service.oneshot(request)));
    assert_eq!(error.to_string(), "the request could not be sent");
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "connection reset");
}

/// With a limit of one request, a retry uses the slot of the rejected attempt.
#[test]
fn a_retry_needs_no_second_concurrency_slot() {
    for kind in KINDS {
        let server = MockServer::with_responses([kind.nonce_demand("a"), kind.nonce_demand("b")]);
        let limited = ConcurrencyLimitLayer::new(1).layer(server.clone());
        let client: Client = match kind {
            ServerKind::Resource => {
                boxed(DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(limited))
            }
            _ => boxed(TokenClientLayer::new(key(), url(ISSUER)).layer(limited)),
        };
        for _ in 0..2 {
            let response = expect_ready(client.clone().oneshot(kind.request())).unwrap();
            assert_eq!(response.status(), 200, "{kind:?}");
        }
        assert_eq!(server.request_count(), 4, "{kind:?}");
    }
}

/// A response body that holds the connection of [`OneConnection`] until it is dropped.
struct ConnectionBody(Arc<AtomicBool>);

impl Drop for ConnectionBody {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Body for ConnectionBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}

/// A service that is ready again when the last response body is dropped, like an HTTP/1 connection.
#[derive(Clone)]
struct OneConnection {
    is_busy: Arc<AtomicBool>,
    server: MockServer,
}

impl Service<Request<String>> for OneConnection {
    type Response = Response<ConnectionBody>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<ConnectionBody>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.is_busy.load(Ordering::SeqCst) {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let was_busy = self.is_busy.swap(true, Ordering::SeqCst);
        assert!(!was_busy, "called while the connection is in use");
        let body = ConnectionBody(Arc::clone(&self.is_busy));
        let response = ready_response(self.server.call(request)).map(|_| body);
        std::future::ready(Ok(response))
    }
}

#[test]
fn releases_the_connection_before_a_retry() {
    let server = MockServer::with_responses([
        ServerKind::Resource.nonce_demand("a"),
        ServerKind::Resource.nonce_demand("b"),
    ]);
    let connection = OneConnection {
        is_busy: Arc::default(),
        server: server.clone(),
    };
    let service = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(connection);
    let response = expect_ready(service.oneshot(ServerKind::Resource.request())).unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(server.request_count(), 3);
}

/// C-31: a cancelled request does not affect later ones.
#[test]
fn requests_do_not_wait_for_each_other() {
    block_on(async {
        let (server, mut requests) = manual_server();
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(server);
        let spawn_request = || tokio::spawn(client.clone().oneshot(ServerKind::Resource.request()));
        let one = spawn_request();
        let (_, respond_to_one) = next_request(&mut requests).await;
        let two = spawn_request();
        let (_, respond_to_two) = next_request(&mut requests).await;
        respond_to_two.send(ok_with_nonce("n")).unwrap();
        assert_eq!(two.await.unwrap().unwrap().status(), 200);

        // Cancelled before the response, after a demand, and before it is sent.
        one.abort();
        assert!(one.await.unwrap_err().is_cancelled());
        drop(respond_to_one);
        let three = spawn_request();
        let (_, respond_to_three) = next_request(&mut requests).await;
        respond_to_three
            .send(ServerKind::Resource.nonce_demand("m"))
            .unwrap();
        let (head, _pending) = next_request(&mut requests).await;
        assert_eq!(nonce_in(&head).as_deref(), Some("m"));
        three.abort();
        drop(client.clone().oneshot(ServerKind::Resource.request()));

        let four = spawn_request();
        let (head, respond_to_four) = next_request(&mut requests).await;
        assert_eq!(nonce_in(&head).as_deref(), Some("m"), "C-22");
        respond_to_four.send(ok()).unwrap();
        assert_eq!(four.await.unwrap().unwrap().status(), 200);
    });
}

/// Retries after a 503, at most this number of times.
#[derive(Clone)]
struct RetryOn503(usize);

impl<E> Policy<Request<String>, MockResponse, E> for RetryOn503 {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<String>,
        result: &mut Result<MockResponse, E>,
    ) -> Option<Self::Future> {
        let failed = result
            .as_ref()
            .is_ok_and(|response| response.status() == 503);
        self.0 = self.0.checked_sub(usize::from(failed))?;
        failed.then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<String>) -> Option<Request<String>> {
        Some(request.clone())
    }
}

/// C-20
#[test]
fn every_attempt_of_a_retry_layer_has_its_own_proof() {
    let server = MockServer::new(|number, _| {
        if number < 4 {
            response_with(503, &[], "")
        } else {
            ok()
        }
    });
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryOn503(5)))
        .layer(DpopClientLayer::new(key(), token(), url(AUDIENCE)))
        .service(server.clone());
    let response = block_on(service.oneshot(ServerKind::Resource.request())).unwrap();
    assert_eq!(response.status(), 200);
    let jtis: HashSet<_> = server.proofs().iter().map(|p| p.jti().to_owned()).collect();
    assert_eq!(jtis.len(), 4, "C-20");
}

/// C-31: for the URL that the redirect leads to.
#[test]
fn a_redirect_on_the_same_server_gets_a_new_proof() {
    let server = MockServer::new(|_, head| match head.uri.path() {
        "/orders" => response_with(307, &[("location", "/v2/orders?x=1")], ""),
        "/v2/orders" => response_with(302, &[("location", "https://api.example.com:443/end")], ""),
        _ => ok(),
    });
    let service = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(DpopClientLayer::new(key(), token(), url(AUDIENCE)))
        .service(server.clone());
    let request = Request::get(ORDERS).body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(block_on(service.oneshot(request)).unwrap().status(), 200);
    let proofs = server.proofs();
    let htus: Vec<_> = proofs.iter().map(|p| p.claim("htu").unwrap()).collect();
    assert_eq!(
        htus,
        [
            ORDERS,
            "https://api.example.com/v2/orders",
            "https://api.example.com/end"
        ],
        "C-31"
    );
    let jtis: HashSet<_> = proofs.iter().map(ReadProof::jti).collect();
    assert_eq!(jtis.len(), 3, "C-2");
}
