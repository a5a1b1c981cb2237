//! The service inside of the layer, and the layers outside of it: readiness, connections, retries,
//! redirects.

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
    Answered, Client, KINDS, Kind, ORDERS, Server, answer, at_once, boxed, by_hand, error_of,
    fresh, key, next, nonce_of, ok, token, url,
};

/// A service that insists on being asked whether it is ready, and says no now and then.
struct Strict {
    is_ready: bool,
    polls: Arc<AtomicUsize>,
    fails_at: usize,
    server: Server,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self {
            is_ready: false,
            polls: Arc::clone(&self.polls),
            fails_at: self.fails_at,
            server: self.server.clone(),
        }
    }
}

impl Service<Request<String>> for Strict {
    type Response = Answered;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<Answered, std::io::Error>>;

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
        let outcome = block_on_ready(self.server.call(request));
        std::future::ready(Ok(outcome))
    }
}

fn block_on_ready(future: std::future::Ready<Result<Answered, Infallible>>) -> Answered {
    match future.into_inner() {
        Ok(outcome) => outcome,
    }
}

#[test]
fn the_inner_service_is_called_only_when_it_is_ready() {
    let server = Server::new(|number, _| {
        if number % 3 == 0 {
            ok()
        } else {
            Kind::Resource.demand(&format!("n{number}"))
        }
    });
    let strict = Strict {
        is_ready: false,
        polls: Arc::default(),
        fails_at: usize::MAX,
        server: server.clone(),
    };
    let mut service = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(strict);
    for round in 1..4 {
        let response = block_on(async {
            let ready = service.ready().await?;
            ready.call(Kind::Resource.request()).await
        });
        assert_eq!(response.unwrap().status(), 200);
        assert_eq!(server.count(), 3 * round);
    }
}

#[test]
fn a_service_that_fails_to_become_ready_is_a_transport_error() {
    for (fails_at, sent) in [(1, 0), (2, 0), (3, 1), (6, 2)] {
        let server = Server::new(|number, _| Kind::Token.demand(&format!("n{number}")));
        let strict = Strict {
            is_ready: false,
            polls: Arc::default(),
            fails_at,
            server: server.clone(),
        };
        let service = TokenClientLayer::new(key(), url(ISSUER)).layer(strict);
        let error = error_of(block_on(service.oneshot(Kind::Token.request())));
        let ClientError::Transport(cause) = error else {
            panic!("{error:?}");
        };
        assert_eq!(cause.to_string(), "closed");
        assert_eq!(server.count(), sent, "poll {fails_at}");
    }
}

#[test]
fn a_failure_of_the_inner_service_is_a_transport_error() {
    let failing = service_fn(async |_: Request<()>| {
        Err::<Answered, _>(std::io::Error::other("connection reset"))
    });
    let request = Request::get(ORDERS).body(()).unwrap();
    let service = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(failing);
    let error = error_of(block_on(service.oneshot(request)));
    assert_eq!(error.to_string(), "the request could not be sent");
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "connection reset");
}

/// With room for one request, a retry takes the room of the attempt before.
#[test]
fn a_retry_fits_where_one_request_does() {
    for kind in KINDS {
        let server = Server::with_answers([kind.demand("a"), kind.demand("b")]);
        let limited = ConcurrencyLimitLayer::new(1).layer(server.clone());
        let client: Client = match kind {
            Kind::Resource => {
                boxed(DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(limited))
            }
            _ => boxed(TokenClientLayer::new(key(), url(ISSUER)).layer(limited)),
        };
        for _ in 0..2 {
            let response = at_once(client.clone().oneshot(kind.request())).unwrap();
            assert_eq!(response.status(), 200, "{kind:?}");
        }
        assert_eq!(server.count(), 4, "{kind:?}");
    }
}

/// The one connection of [`OneConnection`], until it is dropped.
struct Busy(Arc<AtomicBool>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Body for Busy {
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

/// A service that is ready again when the last response's body is gone, as an HTTP/1 connection is.
#[derive(Clone)]
struct OneConnection {
    is_busy: Arc<AtomicBool>,
    server: Server,
}

impl Service<Request<String>> for OneConnection {
    type Response = Response<Busy>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Busy>, Infallible>>;

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
        let busy = Busy(Arc::clone(&self.is_busy));
        let response = block_on_ready(self.server.call(request)).map(|_| busy);
        std::future::ready(Ok(response))
    }
}

#[test]
fn a_rejected_response_gives_its_connection_back_before_the_retry() {
    let server = Server::with_answers([Kind::Resource.demand("a"), Kind::Resource.demand("b")]);
    let connection = OneConnection {
        is_busy: Arc::default(),
        server: server.clone(),
    };
    let service = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(connection);
    let response = at_once(service.oneshot(Kind::Resource.request())).unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(server.count(), 3);
}

/// C-31: nobody waits for anybody, and a request that is given up leaves nothing behind.
#[test]
fn requests_do_not_wait_for_each_other() {
    block_on(async {
        let (server, mut calls) = by_hand();
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(server);
        let send = || tokio::spawn(client.clone().oneshot(Kind::Resource.request()));
        let one = send();
        let (_, first) = next(&mut calls).await;
        let two = send();
        let (_, second) = next(&mut calls).await;
        second.send(fresh("n")).unwrap();
        assert_eq!(two.await.unwrap().unwrap().status(), 200);

        // Given up while the server thinks, while it demands, and before it is sent.
        one.abort();
        assert!(one.await.unwrap_err().is_cancelled());
        drop(first);
        let three = send();
        let (_, third) = next(&mut calls).await;
        third.send(Kind::Resource.demand("m")).unwrap();
        let (head, _unanswered) = next(&mut calls).await;
        assert_eq!(nonce_of(&head).as_deref(), Some("m"));
        three.abort();
        drop(client.clone().oneshot(Kind::Resource.request()));

        let four = send();
        let (head, fourth) = next(&mut calls).await;
        assert_eq!(nonce_of(&head).as_deref(), Some("m"), "C-22");
        fourth.send(ok()).unwrap();
        assert_eq!(four.await.unwrap().unwrap().status(), 200);
    });
}

/// Tries again after every 503.
#[derive(Clone)]
struct Again(usize);

impl<E> Policy<Request<String>, Answered, E> for Again {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<String>,
        result: &mut Result<Answered, E>,
    ) -> Option<Self::Future> {
        let failed = result.as_ref().is_ok_and(|outcome| outcome.status() == 503);
        self.0 = self.0.checked_sub(usize::from(failed))?;
        failed.then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<String>) -> Option<Request<String>> {
        Some(request.clone())
    }
}

/// C-20
#[test]
fn every_try_of_a_retry_layer_has_a_proof_of_its_own() {
    let server = Server::new(|number, _| {
        if number < 4 {
            answer(503, &[], "")
        } else {
            ok()
        }
    });
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(Again(5)))
        .layer(DpopClientLayer::new(key(), token(), url(AUDIENCE)))
        .service(server.clone());
    let response = block_on(service.oneshot(Kind::Resource.request())).unwrap();
    assert_eq!(response.status(), 200);
    let jtis: HashSet<_> = server.proofs().iter().map(|p| p.jti().to_owned()).collect();
    assert_eq!(jtis.len(), 4, "C-20");
}

/// C-31: a redirect gets a proof of its own for where it leads.
#[test]
fn a_redirect_on_the_same_server_gets_a_new_proof() {
    let server = Server::new(|_, head| match head.uri.path() {
        "/orders" => answer(307, &[("location", "/v2/orders?x=1")], ""),
        "/v2/orders" => answer(302, &[("location", "https://api.example.com:443/end")], ""),
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
