//! Simultaneous requests with the same token share one introspection request.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tower_dpop::resource::Unavailable;
use tower_dpop::tokens::{AccessTokenVerifier as _, PresentedToken, TokenError};
use tower_dpop::{Rejection, Timestamp};

use super::{ConcurrentRequests, Server, TOKEN, changed_response, good_response, send};
use common::{NOW, block_on};

/// All of them get the outcome of the shared introspection request, whatever it is. Errors are not
/// cached.
#[test]
fn simultaneous_requests_with_one_token_share_one_introspection_request() {
    let server = Server::with_basic();
    block_on(async {
        let mut requests =
            ConcurrentRequests::new(server.verifier().with_cache_lifetime(Duration::ZERO));
        let rows: [(&str, StatusCode, Value, Result<(), Rejection>); 3] = [
            (
                "a server error",
                StatusCode::INTERNAL_SERVER_ERROR,
                json!({}),
                Err(Unavailable::Token.into()),
            ),
            (
                "inactive",
                StatusCode::OK,
                json!({ "active": false }),
                Err(TokenError::Invalid.into()),
            ),
            ("good", StatusCode::OK, good_response(), Ok(())),
        ];
        for (before, (name, status, body, expected)) in rows.into_iter().enumerate() {
            server.set_response_with_status(status, body.to_string());
            server.hold_responses();
            for _ in 0..64 {
                requests.send(TOKEN);
            }
            requests.until_started(64 * (before + 1)).await;
            server.until_requested(before + 1).await;
            server.release_responses();
            let outcomes = requests.outcomes().await;
            assert_eq!(outcomes.len(), 64, "{name}");
            for outcome in outcomes {
                assert_eq!(outcome.kit.rejection, expected.clone().err(), "{name}");
            }
            assert_eq!(server.request_count(), before + 1, "{name}");
        }
        send(&requests.layer, TOKEN).await.assert_passed("later");
        assert_eq!(server.request_count(), 4, "nothing was cached");
    });
}

#[test]
fn each_token_gets_its_own_introspection_request() {
    let server = Server::with_basic();
    block_on(async {
        let mut requests = ConcurrentRequests::new(server.verifier());
        server.hold_responses();
        for i in 0..8 {
            requests.send(format!("token-{i}"));
        }
        server.until_requested(8).await;
        server.release_responses();
        for outcome in requests.outcomes().await {
            outcome.assert_passed("each token");
        }
        assert_eq!(server.request_count(), 8);
    });
}

/// R-AT.5: each request checks the response at its own time, whichever of them sent the
/// introspection request.
#[test]
fn a_shared_response_is_checked_at_the_time_of_each_request() {
    let server = Server::with_basic();
    server.set_response(&changed_response(|r| {
        r["nbf"] = json!(NOW);
        r["exp"] = json!(NOW + 60);
    }));
    let tokens = server.verifier();
    let at = |second| tokens.verify(PresentedToken::new(TOKEN), Timestamp::from_unix(second));
    block_on(async {
        server.hold_responses();
        let (first, early, late, in_time, ()) = tokio::join!(
            biased;
            at(NOW),
            at(NOW - 31),
            at(NOW + 90),
            at(NOW + 89),
            async {
                server.until_requested(1).await;
                server.release_responses();
            },
        );
        assert!(first.is_ok() && in_time.is_ok());
        assert_eq!(early.unwrap_err(), TokenError::NotYetValid);
        assert_eq!(late.unwrap_err(), TokenError::Expired);
        assert_eq!(server.request_count(), 1);
    });
}

/// An error is shared by the requests that waited for it, even if they are slow to be polled. A
/// request that starts after the response asks again.
#[test]
fn a_request_does_not_join_a_completed_introspection_request() {
    let server = Server::with_basic();
    let tokens = server.verifier().with_cache_lifetime(Duration::ZERO);
    let verify = || tokens.verify(PresentedToken::new(TOKEN), Timestamp::from_unix(NOW));
    block_on(async {
        server.set_response_with_status(StatusCode::INTERNAL_SERVER_ERROR, "");
        server.hold_responses();
        let (mut first, mut waiting) = (pin!(verify()), pin!(verify()));
        start(first.as_mut()).await;
        start(waiting.as_mut()).await;
        server.release_responses();
        assert_eq!(first.await.unwrap_err(), TokenError::Unavailable);

        server.set_response(&good_response());
        server.hold_responses();
        let (mut second, mut joined) = (pin!(verify()), pin!(verify()));
        start(second.as_mut()).await;
        assert_eq!(waiting.await.unwrap_err(), TokenError::Unavailable);
        start(joined.as_mut()).await;
        server.release_responses();
        assert!(second.await.is_ok() && joined.await.is_ok());
        assert_eq!(server.request_count(), 2);
    });
}

/// Polls the future once; it must be pending.
async fn start(mut future: Pin<&mut impl Future>) {
    poll_fn(|context| {
        assert!(future.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}

/// When a client disconnects, its introspection request is dropped; another waiting request sends a
/// new one.
#[test]
fn a_dropped_request_does_not_affect_the_requests_that_wait_with_it() {
    let server = Server::with_basic();
    block_on(async {
        let mut requests = ConcurrentRequests::new(server.verifier());
        server.hold_responses();
        let mut tasks = vec![requests.send(TOKEN)];
        server.until_requested(1).await;
        for _ in 0..10 {
            tasks.push(requests.send(TOKEN));
        }
        requests.until_started(11).await;
        assert_eq!(server.request_count(), 1);
        for (dropped, task) in tasks[..10].iter().enumerate() {
            task.abort();
            server.until_requested(dropped + 2).await;
        }
        requests.send(TOKEN);
        requests.until_started(12).await;
        server.release_responses();
        let outcomes = requests.outcomes().await;
        assert_eq!(
            outcomes.len(),
            2,
            "one that was not dropped, and one that joined it"
        );
        for outcome in outcomes {
            outcome.assert_passed("each");
        }
        assert_eq!(server.request_count(), 11);
        send(&requests.layer, TOKEN)
            .await
            .assert_passed("afterwards");
        assert_eq!(server.request_count(), 11, "the response is cached");
    });
}

#[test]
fn after_its_only_request_was_dropped_a_token_is_introspected_again() {
    let server = Server::with_basic();
    block_on(async {
        let mut requests = ConcurrentRequests::new(server.verifier().with_concurrency(1));
        server.hold_responses();
        let task = requests.send(TOKEN);
        server.until_requested(1).await;
        task.abort();
        assert_eq!(requests.outcomes().await.len(), 0);
        server.release_responses();
        send(&requests.layer, TOKEN)
            .await
            .assert_passed("the dropped request does not count towards the limit");
        assert_eq!(server.request_count(), 2);
    });
}
