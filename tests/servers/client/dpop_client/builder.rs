//! What a client is built from: settings, metadata, and endpoints without metadata.

use serde_json::{Value, json};
use tower_dpop::client::{DpopClient, DpopClientError, RefreshToken};
use tower_dpop::jose::SigningKey;

use super::{REDIRECT_URI, SECRET, World};

#[tokio::test]
async fn metadata_must_be_those_of_the_issuer() {
    type Change = fn(&mut Value);
    let rows: [(&str, Change, &str); 7] = [
        (
            "another issuer",
            |m| m["issuer"] = json!("https://as.example"),
            "they name another issuer",
        ),
        (
            "a trailing slash",
            |m| m["issuer"] = json!(format!("{}/", m["issuer"].as_str().unwrap())),
            "they differ by the trailing slash",
        ),
        ("no issuer", |m| m["issuer"] = Value::Null, "malformed"),
        (
            "no metadata",
            |m| *m = Value::Null,
            "failed with status 404",
        ),
        (
            "no token endpoint",
            |m| m["token_endpoint"] = Value::Null,
            "malformed",
        ),
        (
            "plain http",
            |m| m["token_endpoint"] = json!("http://as.example/token"),
            "must be https",
        ),
        (
            "no URL",
            |m| m["pushed_authorization_request_endpoint"] = json!("/par"),
            "must be an absolute URL",
        ),
    ];
    for (name, change, expected) in rows {
        let world = World::start().await;
        change(&mut world.script().metadata);
        let error = world.builder().build().await.unwrap_err();
        assert!(matches!(error, DpopClientError::Discovery { .. }), "{name}");
        let text = error.to_string();
        assert!(text.contains(expected), "{name}: {text}");
        assert!(text.contains(&world.issuer), "{name}: {text}");
    }
}

#[tokio::test]
async fn an_unreachable_issuer_is_an_error() {
    let error = DpopClient::builder()
        .with_issuer("http://127.0.0.1:1".parse().unwrap())
        .with_client_secret("service", SECRET)
        .add_server("https://api.example.com".parse().unwrap())
        .build()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no connection"), "{error}");
}

#[tokio::test]
async fn a_key_needs_an_algorithm_of_both_sides() {
    let world = World::start().await;
    world.script().metadata["dpop_signing_alg_values_supported"] = json!(["HS256"]);
    let error = world.builder().build().await.unwrap_err();
    assert!(matches!(error, DpopClientError::Key(_)), "C-18: {error:?}");
    world.script().metadata["dpop_signing_alg_values_supported"] = Value::Null;
    world.builder().build().await.unwrap();
}

#[tokio::test]
async fn missing_settings_are_named() {
    let world = World::start().await;
    let complete = world.builder();
    let empty = DpopClient::builder;
    let issuer = || world.issuer.parse().unwrap();
    let server = || world.api.parse().unwrap();
    let rows = [
        ("add_server", empty().with_issuer(issuer()).build().await),
        (
            "with_client_secret",
            empty()
                .with_issuer(issuer())
                .add_server(server())
                .build()
                .await,
        ),
        (
            "with_issuer",
            empty()
                .with_client_secret("service", SECRET)
                .add_server(server())
                .build()
                .await,
        ),
        (
            "start_login",
            complete.clone().with_public_client("app").build().await,
        ),
        (
            "with_key",
            complete.resume(RefreshToken::new("marker")).await,
        ),
    ];
    for (expected, result) in rows {
        let error = result.unwrap_err();
        assert!(matches!(error, DpopClientError::Setting(_)), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }

    let start = async |member: &str, value: Value| {
        world.script().metadata[member] = value;
        let error = complete.start_login(REDIRECT_URI).await.unwrap_err();
        error.to_string()
    };
    let error = start("code_challenge_methods_supported", json!(["plain"])).await;
    assert!(error.contains("S256"), "{error}");
    let error = start("authorization_endpoint", Value::Null).await;
    assert!(error.contains("authorization endpoint"), "{error}");
}

/// No metadata are fetched.
#[tokio::test]
async fn endpoints_can_be_configured() {
    let world = World::start().await;
    world.script().metadata = Value::Null;
    let client = DpopClient::builder()
        .with_token_endpoint(format!("{}/token", world.issuer).parse().unwrap())
        .with_authorization_endpoint(format!("{}/authorize", world.issuer).parse().unwrap())
        .with_client_secret("service", SECRET)
        .with_key(SigningKey::generate().unwrap())
        .add_server(world.api.parse().unwrap())
        .with_clock(world.clock.read());
    let login = client.start_login(REDIRECT_URI).await.unwrap();
    assert!(login.url().contains("code_challenge="));
    let client = client.build().await.unwrap();
    let response = client.get(world.orders()).send().await.unwrap();
    assert_eq!(response.status(), 200);
}
