//! Requests to resource servers: what is sent, and what is tried again.

use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use serde_json::json;
use tower_dpop::client::{ClientError, DpopClientError};
use tower_dpop::{Algorithm, jose::SigningKey};

use super::{ReadProof, World};

#[tokio::test]
async fn a_request_has_a_bound_token_and_nonces_of_both_servers() {
    let world = World::start().await;
    let client = world.client().await;
    let response = client
        .post(world.orders())
        .header("x-own", "kept")
        .header(AUTHORIZATION, "Basic replaced")
        .json(&json!({ "item": "tea" }))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.url().as_str(), world.orders());
    assert_eq!(response.text().await.unwrap(), r#"{"item":"tea"}"#);
    for _ in 0..3 {
        let response = client.get(world.orders()).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }

    let script = world.script();
    assert_eq!((script.issued, script.asked.len()), (1, 2), "C-21");
    assert_eq!(script.nonce_demands(), 1);
    // The first request, once more with the nonce, and three more.
    assert_eq!(script.resource_requests.len(), 5, "C-22");
    let [first, again, ..] = &script.resource_requests[..] else {
        unreachable!()
    };
    assert_eq!(again["x-own"], "kept");
    assert_eq!(again[CONTENT_TYPE], "application/json");
    let [first, again] = [first, again].map(|headers| ReadProof::of(&headers["dpop"]));
    assert_eq!(first.nonce(), None);
    assert!(again.nonce().is_some());
    assert_ne!(first.jti(), again.jti(), "C-20");
    assert_eq!(again.claim("htu"), Some(world.orders().as_str()));
    assert_eq!(again.thumbprint(), client.thumbprint());
    // The metadata list ES384, PS256 and HS256.
    assert_eq!(client.algorithm(), Algorithm::Es384, "C-18");
}

#[tokio::test]
async fn the_key_of_the_caller_signs_and_redirects_are_not_followed() {
    let world = World::start().await;
    let key = SigningKey::generate_for(Algorithm::Ed25519).unwrap();
    let following = reqwest::Client::builder().redirect(reqwest::redirect::Policy::limited(3));
    let client = world.builder().with_key(key.clone());
    let client = client.with_http(following).unwrap().build().await.unwrap();
    let response = client.get(format!("{}/moved", world.api)).send().await;
    let response = response.unwrap();
    assert_eq!(response.status(), 307, "C-31");
    assert_eq!(response.headers()[LOCATION], "/orders");
    assert_eq!(client.thumbprint(), key.thumbprint());
    assert_eq!(client.algorithm(), Algorithm::Ed25519);
    assert_eq!(world.script().resource_requests.len(), 2, "C-31");
}

/// No token is requested for it, either.
#[tokio::test]
async fn nothing_is_sent_to_a_server_that_was_not_named() {
    let (world, other) = (World::start().await, World::start().await);
    let client = world.client().await;
    // The issuer itself, another port, another name of the same address, and a text that is no URL.
    let rows = [
        world.issuer.clone(),
        other.orders(),
        world.orders().replace("127.0.0.1", "localhost"),
    ];
    for url in rows {
        let error = client.get(&url).send().await.unwrap_err();
        let text = "the request is for a server that was not named with add_server; named are: ";
        assert_eq!(error.to_string(), format!("{text}{}", world.api), "{url}");
        assert!(matches!(error, DpopClientError::OtherServer { .. }));
    }
    let error = client.get("orders").send().await.unwrap_err();
    assert!(matches!(error, DpopClientError::InvalidRequest(_)));
    let error = client
        .get(world.orders())
        .header("host", "other.example")
        .send()
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        DpopClientError::Request(ClientError::OtherHost)
    ));
    assert_eq!(world.script().asked.len(), 0);
    assert_eq!(world.script().resource_requests.len(), 0);
    assert_eq!(other.script().resource_requests.len(), 0, "C-31");
}

/// The token is for both servers, each below its path.
#[tokio::test]
async fn several_servers_share_the_token() {
    let (world, other) = (World::start().await, World::start().await);
    let below = format!("{}/v2", other.api).parse().unwrap();
    let client = world.builder().add_server(below).build().await.unwrap();
    client.get(world.orders()).send().await.unwrap();
    let url = format!("{}/v2/orders", other.api);
    // The other server does not know the issuer.
    let response = client.get(&url).send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(world.last_token(), other.last_token());
    assert!(client.get(other.orders()).send().await.is_err());
}

/// The token of the response expires sooner than the response says.
async fn world_with_a_rejected_token() -> (World, tower_dpop::client::DpopClient) {
    let world = World::start().await;
    world.script().expires_in = json!(3600);
    world.script().lifetime = 60;
    let client = world.client().await;
    client.get(world.orders()).send().await.unwrap();
    world.advance(200);
    (world, client)
}

#[tokio::test]
async fn a_rejected_token_is_renewed_once_and_the_request_sent_again() {
    let (world, client) = world_with_a_rejected_token().await;
    let first = world.last_token();
    let response = client.post(world.orders()).body("tea").send().await;
    let response = response.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await.unwrap(), "tea");
    assert_eq!(world.issued(), 2);
    assert_ne!(world.last_token(), first);
}

/// The caller gets the response. Each attempt presents the refresh token, so there is a pause.
#[tokio::test]
async fn a_failed_renewal_of_a_rejected_token_is_not_an_error() {
    let (world, client) = world_with_a_rejected_token().await;
    world.script().token_response = Some((503, ""));
    for (advance, token_requests) in [(0, 2), (0, 2), (9, 2), (1, 3)] {
        world.advance(advance);
        let response = client.get(world.orders()).send().await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(world.script().token_requests.len(), token_requests);
    }
    world.script().token_response = None;
    world.advance(10);
    let response = client.get(world.orders()).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

/// Both servers reject the session: the caller gets the response once, then the error.
#[tokio::test]
async fn a_session_that_was_revoked_ends() {
    let world = World::start().await;
    world.script().expires_in = json!(3600);
    world.script().lifetime = 60;
    let (client, _) = world.resumed(|_| ()).await;
    client.get(world.orders()).send().await.unwrap();
    world.script().refresh_token = None;
    world.advance(200);
    let response = client.get(world.orders()).send().await.unwrap();
    assert_eq!(response.status(), 401);
    for _ in 0..2 {
        let error = client.get(world.orders()).send().await.unwrap_err();
        assert!(
            matches!(&error, DpopClientError::Token(reason) if matches!(**reason, DpopClientError::LoginRequired)),
            "{error:?}"
        );
        world.advance(60);
    }
    assert_eq!(world.script().token_requests.len(), 2);
}

/// A server that rejects each token does not make the client request a token for each request.
#[tokio::test]
async fn a_token_that_is_rejected_at_once_is_not_renewed() {
    let world = World::start().await;
    world.script().audience = Some("https://other.example");
    let client = world.client().await;
    for (advance, issued) in [(0, 1), (9, 1), (1, 2), (0, 2), (9, 2), (1, 3)] {
        world.advance(advance);
        let response = client.get(world.orders()).send().await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(world.issued(), issued);
    }
}

#[tokio::test]
async fn concurrent_requests_with_a_rejected_token_share_one_renewal() {
    let (world, client) = world_with_a_rejected_token().await;
    let requests = (0..8).map(|_| tokio::spawn(client.get(world.orders()).send()));
    let requests: Vec<_> = requests.collect();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(world.issued(), 2);
}

/// The body is gone, so the caller must send the request again. The token and the nonce are there.
#[tokio::test]
async fn a_stream_is_not_sent_again() {
    let world = World::start().await;
    let client = world.client().await;
    let stream = || reqwest::Body::wrap(http_body_util::Full::new(bytes::Bytes::from("tea")));
    let send = async || client.post(world.orders()).body(stream()).send().await;
    let is_lost = |result: Result<reqwest::Response, DpopClientError>| {
        matches!(
            result,
            Err(DpopClientError::Request(ClientError::BodyNotCopyable))
        )
    };
    assert!(is_lost(send().await), "no nonce yet");
    assert_eq!(send().await.unwrap().text().await.unwrap(), "tea");

    let (world, client) = world_with_a_rejected_token().await;
    let send = async || client.post(world.orders()).body(stream()).send().await;
    assert!(is_lost(send().await), "the token was rejected");
    assert_eq!(world.issued(), 2);
    assert!(is_lost(send().await), "the nonce is too old as well");
    assert_eq!(send().await.unwrap().text().await.unwrap(), "tea");
}

#[tokio::test]
async fn other_clients_can_use_the_current_token() {
    let world = World::start().await;
    let client = world.client().await;
    let held = client.token_response().await.unwrap();
    let response = client.get(world.orders()).send().await.unwrap();
    assert_eq!((response.status().as_u16(), world.issued()), (200, 1));
    assert_eq!(world.last_token(), held.access_token().authorization());

    world.advance(held.expires_in().unwrap().as_secs());
    let renewed = client.token_response().await.unwrap();
    assert_ne!(
        renewed.access_token().as_str(),
        held.access_token().as_str()
    );
    assert_eq!(world.issued(), 2);
}
