//! When tokens are renewed, and what requests do meanwhile.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use http::HeaderValue;
use serde_json::json;
use tower_dpop::client::{DpopClient, DpopClientError};

use super::{World, value};

async fn get(world: &World, client: &DpopClient) -> HeaderValue {
    let response = client.get(world.orders()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    world.last_token()
}

#[tokio::test]
async fn the_first_requests_share_one_token_request() {
    let world = World::start().await;
    let client = world.client().await;
    assert_eq!(world.issued(), 0, "nothing is requested before");
    let requests = (0..8).map(|_| tokio::spawn(client.get(world.orders()).send()));
    let requests: Vec<_> = requests.collect();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(world.issued(), 1);
}

/// Ten minutes: due 60 seconds before the end.
#[tokio::test]
async fn a_token_that_expires_soon_is_renewed_while_requests_go_on_with_it() {
    let world = World::start().await;
    let client = world.client().await;
    let first = get(&world, &client).await;
    world.advance(539);
    assert_eq!(get(&world, &client).await, first);
    assert_eq!(world.script().token_requests.len(), 1, "not due yet");

    world.advance(1);
    world.close();
    for _ in 0..5 {
        assert_eq!(get(&world, &client).await, first, "requests do not wait");
    }
    world.until(|script| script.token_requests.len() == 2).await;
    assert_eq!(get(&world, &client).await, first);
    assert_eq!(world.script().token_requests.len(), 2, "one for all");

    world.open();
    world.until(|script| script.issued == 2).await;
    let mut requests = 1..1000;
    while get(&world, &client).await == first {
        assert!(requests.next().is_some(), "the new token is used");
    }
    assert_eq!(world.issued(), 2);
}

/// A renewal outlives the request that started it: its refresh token must not be lost.
#[tokio::test]
async fn a_renewal_goes_on_when_its_request_is_dropped() {
    let world = World::start().await;
    let client = world.client().await;
    world.close();
    let request = tokio::spawn(client.get(world.orders()).send());
    world.until(|script| script.token_requests.len() == 1).await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    world.open();
    get(&world, &client).await;
    assert_eq!(world.issued(), 1);
}

/// The end of a runtime stops a renewal.
#[tokio::test]
async fn a_program_can_wait_for_the_renewal_before_it_ends() {
    let world = World::start().await;
    let (client, kept) = world.resumed(|_| ()).await;
    client.wait_for_renewal().await;
    get(&world, &client).await;
    world.advance(545);
    world.close();
    get(&world, &client).await;
    world.until(|script| script.token_requests.len() == 2).await;
    let mut done = pin!(client.wait_for_renewal());
    let first = poll_fn(|context| Poll::Ready(done.as_mut().poll(context))).await;
    assert!(first.is_pending());
    world.open();
    done.await;
    assert_eq!(
        *kept.lock().unwrap(),
        ["marker-refresh-1", "marker-refresh-2"]
    );
}

/// The old refresh token was used, so the new one must not be lost.
#[tokio::test]
async fn a_store_that_panics_loses_no_refresh_token() {
    let world = World::start().await;
    let (client, kept) = world
        .resumed(|token| assert_ne!(token, "marker-refresh-1", "the disk is full"))
        .await;
    let error = client.get(world.orders()).send().await.unwrap_err();
    let DpopClientError::Token(reason) = error else {
        panic!("{error:?}")
    };
    let text = reason.to_string();
    assert!(text.contains("with_refresh_token_store"), "{text}");
    get(&world, &client).await;
    assert_eq!(*kept.lock().unwrap(), ["marker-refresh-2"]);
    let script = world.script();
    let presented = script.token_requests.iter();
    let presented: Vec<_> = presented
        .map(|(_, form)| value(form, "refresh_token").unwrap())
        .collect();
    assert_eq!(presented, ["marker-refresh-0", "marker-refresh-1"]);
}

#[tokio::test]
async fn a_short_lifetime_is_renewed_in_its_last_fifth() {
    let world = World::start().await;
    world.script().expires_in = json!("10");
    let client = world.client().await;
    let first = get(&world, &client).await;
    world.advance(7);
    assert_eq!(get(&world, &client).await, first);
    assert_eq!(world.issued(), 1);
    world.advance(1);
    assert_eq!(get(&world, &client).await, first);
    world.until(|script| script.issued == 2).await;
}

#[tokio::test]
async fn an_expired_token_is_not_sent() {
    let world = World::start().await;
    let client = world.client().await;
    let first = get(&world, &client).await;
    world.advance(600);
    assert_ne!(get(&world, &client).await, first);
    let tokens: Vec<_> = world
        .script()
        .resource_requests
        .iter()
        .filter(|headers| headers["authorization"] == first)
        .map(|_| ())
        .collect();
    assert_eq!(tokens.len(), 2, "once without a nonce");
}

/// Without `expires_in`, the token is used until a server rejects it.
#[tokio::test]
async fn a_token_of_unknown_lifetime_is_used_until_it_is_rejected() {
    let world = World::start().await;
    world.script().expires_in = json!(null);
    let client = world.client().await;
    let first = get(&world, &client).await;
    world.advance(599);
    assert_eq!(get(&world, &client).await, first);
    world.advance(1000);
    assert_ne!(get(&world, &client).await, first);
    assert_eq!(world.issued(), 2);
}

/// After a failed renewal, the next attempt is made ten seconds later, and the valid token is used.
#[tokio::test]
async fn a_failed_renewal_is_not_an_error_while_the_token_is_valid() {
    let world = World::start().await;
    let client = world.client().await;
    let first = get(&world, &client).await;
    world.script().token_response = Some((503, ""));
    world.advance(545);
    for _ in 0..5 {
        assert_eq!(get(&world, &client).await, first);
        world.until(|script| script.token_requests.len() == 2).await;
    }
    world.advance(9);
    assert_eq!(get(&world, &client).await, first);
    assert_eq!(world.script().token_requests.len(), 2);
    // The pause begins when the client reads the response, which is before now.
    world.advance(10);
    get(&world, &client).await;
    world.until(|script| script.token_requests.len() == 3).await;

    world.advance(600);
    // Without a valid token, the next attempt is made one second later.
    for _ in 0..3 {
        let error = client.get(world.orders()).send().await.unwrap_err();
        let DpopClientError::Token(reason) = error else {
            panic!("{error:?}")
        };
        assert_eq!(
            reason.to_string(),
            "the authorization server rejected the request with 503: no error code"
        );
    }
    assert_eq!(world.script().token_requests.len(), 4);

    world.script().token_response = None;
    world.advance(1);
    assert_ne!(get(&world, &client).await, first);
}
