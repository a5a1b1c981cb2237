//! Token requests: what is sent, how the client authenticates, and what responses are rejected.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tower_dpop::Algorithm;
use tower_dpop::client::{DpopClientBuilder, DpopClientError, RefreshToken};
use tower_dpop::jose::SigningKey;

use super::{SECRET, World, value};

async fn get(world: &World, builder: &DpopClientBuilder) -> Result<(), DpopClientError> {
    let client = builder.build().await?;
    let response = client.get(world.orders()).send().await?;
    assert_eq!(response.status(), 200);
    Ok(())
}

/// The reason why there is no token.
async fn reason(world: &World) -> DpopClientError {
    match get(world, &world.builder()).await.unwrap_err() {
        DpopClientError::Token(reason) => Arc::into_inner(reason).unwrap(),
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn client_credentials_have_scope_resources_and_parameters() {
    let world = World::start().await;
    let builder = world
        .builder()
        .with_scope("orders.read orders.write")
        .add_resource("https://one.example")
        .add_resource("https://two.example")
        .add_parameter("audience", "orders & more");
    get(&world, &builder).await.unwrap();
    let script = world.script();
    let [(headers, form)] = &script.token_requests[..] else {
        panic!()
    };
    let sent: Vec<_> = form
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let expected = [
        ("grant_type", "client_credentials"),
        ("scope", "orders.read orders.write"),
        ("resource", "https://one.example"),
        ("resource", "https://two.example"),
        ("audience", "orders & more"),
    ];
    assert_eq!(sent, expected);
    assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(headers["accept"], "application/json");
    // RFC 6749 section 2.3.1: both parts are form-urlencoded.
    let basic = STANDARD.encode("service:marker%2Fsecret%3Amarker");
    assert_eq!(headers["authorization"], format!("Basic {basic}"));
}

#[tokio::test]
async fn the_metadata_decide_how_a_secret_is_sent() {
    let rows = [
        ("nothing is listed", Value::Null, false),
        ("basic only", json!(["client_secret_basic"]), false),
        (
            "both",
            json!(["client_secret_post", "client_secret_basic"]),
            false,
        ),
        (
            "post only",
            json!(["private_key_jwt", "client_secret_post"]),
            true,
        ),
        ("neither", json!(["private_key_jwt"]), false),
    ];
    for (name, methods, in_form) in rows {
        let world = World::start().await;
        world.script().metadata["token_endpoint_auth_methods_supported"] = methods;
        get(&world, &world.builder()).await.unwrap();
        let builder = world.builder().with_client_secret_post("service", SECRET);
        get(&world, &builder).await.unwrap();
        let script = world.script();
        let [(headers, form), (post_headers, post)] = &script.token_requests[..] else {
            panic!("{name}")
        };
        let secret = value(form, "client_secret");
        assert_eq!(secret, in_form.then_some(SECRET), "{name}");
        assert_eq!(headers.contains_key("authorization"), !in_form, "{name}");
        assert_eq!(value(post, "client_secret"), Some(SECRET), "{name}");
        assert_eq!(value(post, "client_id"), Some("service"), "{name}");
        assert!(!post_headers.contains_key("authorization"), "{name}");
    }
}

/// An assertion is accepted once, so the request that is repeated with the nonce has another one.
#[tokio::test]
async fn each_request_has_an_assertion_of_its_own() {
    let world = World::start().await;
    let key = SigningKey::generate().unwrap().with_key_id("2026-11");
    let builder = world.builder().with_client_key("service", key.clone());
    get(&world, &builder).await.unwrap();
    get(&world, &builder.add_resource("https://one.example"))
        .await
        .unwrap();
    let script = world.script();
    let mut identifiers = BTreeSet::new();
    for (headers, form) in &script.token_requests {
        assert!(!headers.contains_key("authorization"));
        assert_eq!(
            value(form, "client_assertion_type"),
            Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
        );
        let assertion = value(form, "client_assertion").unwrap();
        let (input, signature) = assertion.rsplit_once('.').unwrap();
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let verified =
            key.public_key()
                .verify(Algorithm::Es256, input.as_bytes(), &decode(signature));
        assert!(verified.is_ok());
        let (_, claims) = input.split_once('.').unwrap();
        let claims: Value = serde_json::from_slice(&decode(claims)).unwrap();
        assert_eq!(claims["aud"], json!(world.issuer));
        assert_eq!(claims["iss"], "service");
        assert!(identifiers.insert(claims["jti"].to_string()));
    }
    assert_eq!(identifiers.len(), 2);
    assert_eq!((script.asked.len(), script.nonce_demands()), (4, 2));
}

#[tokio::test]
async fn error_responses_are_reported_with_their_code() {
    let long = "x".repeat(100);
    let long: &'static str = format!(r#"{{"error":"{long}"}}"#).leak();
    let rows = [
        (
            401,
            r#"{"error":"invalid_client","error_description":"marker"}"#,
            "invalid_client",
        ),
        (400, r#"{"error":"invalid_scope"}"#, "invalid_scope"),
        (400, r#"{"error":"a\"b\\c\nd"}"#, "abcd"),
        (400, long, &long[10..74]),
        (400, "<html>", "no error code"),
        (500, "", "no error code"),
        (302, "", "no error code"),
    ];
    for (status, body, code) in rows {
        let world = World::start().await;
        world.script().token_response = Some((status, body));
        let reason = reason(&world).await;
        assert_eq!(
            reason.to_string(),
            format!("the authorization server rejected the request with {status}: {code}"),
        );
        assert!(matches!(reason, DpopClientError::TokenRequest { .. }));
        let world = world.script();
        assert_eq!(world.token_requests.len(), 1, "{body}: not repeated");
        assert_eq!(world.resource_requests.len(), 0, "{body}: nothing is sent");
    }
}

#[tokio::test]
async fn a_response_without_a_bound_token_is_rejected() {
    let too_long: &'static str = " ".repeat(256 * 1024 + 1).leak();
    let not_bound =
        "the response of the token endpoint is rejected: the access token is not bound to a key";
    let malformed = "the response of the token endpoint is rejected: not a token response";
    let rows = [
        (
            "Bearer",
            r#"{"access_token":"abcdefgh","token_type":"Bearer"}"#,
            not_bound,
        ),
        ("no type", r#"{"access_token":"abcdefgh"}"#, malformed),
        (
            "no token68",
            r#"{"access_token":"a b","token_type":"DPoP"}"#,
            malformed,
        ),
        ("an array", r#"["abcdefgh","DPoP"]"#, malformed),
        (
            "too long",
            too_long,
            "no response of the authorization server: the response is too long",
        ),
    ];
    for (name, body, expected) in rows {
        let world = World::start().await;
        world.script().token_response = Some((200, body));
        assert_eq!(reason(&world).await.to_string(), expected, "{name}");
        assert_eq!(world.script().resource_requests.len(), 0, "{name}");
    }
}

/// Each refresh token is used once, and the store has the latest one.
#[tokio::test]
async fn refresh_tokens_rotate() {
    let world = World::start().await;
    let key = SigningKey::generate().unwrap();
    let refresh_token = "marker-refresh-0".to_owned();
    world.script().refresh_token = Some((refresh_token.clone(), key.thumbprint()));
    let kept: Arc<Mutex<Vec<String>>> = Arc::default();
    let store = Arc::clone(&kept);
    let client = world
        .builder()
        .with_key(key)
        .with_scope("orders.read")
        .with_refresh_token_store(move |token| store.lock().unwrap().push(token.as_str().into()))
        .resume(RefreshToken::new(refresh_token))
        .await
        .unwrap();
    for _ in 0..3 {
        let response = client.get(world.orders()).send().await.unwrap();
        assert_eq!(response.status(), 200);
        world.advance(600);
    }
    let kept = kept.lock().unwrap().clone();
    assert_eq!(
        kept,
        ["marker-refresh-1", "marker-refresh-2", "marker-refresh-3"]
    );
    let script = world.script();
    let used: Vec<_> = script
        .token_requests
        .iter()
        .map(|(_, form)| value(form, "refresh_token").unwrap())
        .collect();
    assert_eq!(
        used,
        ["marker-refresh-0", "marker-refresh-1", "marker-refresh-2"]
    );
    assert_eq!(value(&script.token_requests[0].1, "scope"), None);
}

/// A server that does not rotate accepts the same one again.
#[tokio::test]
async fn a_refresh_token_without_a_successor_is_kept() {
    let world = World::start().await;
    let key = SigningKey::generate().unwrap();
    world.script().rotates = false;
    world.script().refresh_token = Some(("marker-refresh-0".into(), key.thumbprint()));
    let builder = world.builder().with_key(key);
    let client = builder.resume(RefreshToken::new("marker-refresh-0")).await;
    let client = client.unwrap();
    for _ in 0..2 {
        let response = client.get(world.orders()).send().await.unwrap();
        assert_eq!(response.status(), 200);
        world.advance(600);
    }
    assert_eq!(world.issued(), 2);
}

/// The server is not asked again and again for a session that has ended.
#[tokio::test]
async fn a_rejected_refresh_token_ends_the_session() {
    let world = World::start().await;
    let builder = world.builder().with_key(SigningKey::generate().unwrap());
    let client = builder.resume(RefreshToken::new("unknown")).await.unwrap();
    for _ in 0..3 {
        let error = client.get(world.orders()).send().await.unwrap_err();
        let DpopClientError::Token(reason) = error else {
            panic!("{error:?}")
        };
        assert!(matches!(*reason, DpopClientError::LoginRequired));
    }
    assert_eq!(world.script().token_requests.len(), 1);
}
