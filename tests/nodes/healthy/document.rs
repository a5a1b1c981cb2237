//! A verifier whose settings name a Redis server.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tower_dpop::Claims;
use tower_dpop::proof::{Claim, RedisLinkState};
use tower_dpop::settings::Settings;

use super::{claim, eventually, key, keys};
use crate::servers::{Redis, free_port};

const PASSWORD: &str = "marker-password-marker";

fn file(name: &str, content: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("document-{name}"));
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

fn document(redis: &Value) -> Value {
    json!({
        "public_url": common::AUDIENCE,
        "issuer": { "url": common::ISSUER, "jwks_file": file("keys", &common::issuer_jwks()) },
        "redis": redis,
    })
}

fn settings(redis: &Value) -> Settings {
    serde_json::from_value(document(redis)).unwrap()
}

#[tokio::test]
async fn settings_connect_with_a_password_and_a_prefix() {
    let redis = Redis::start();
    redis.run(&[
        "ACL",
        "SETUSER",
        "orders",
        "on",
        &format!(">{PASSWORD}"),
        "~orders:*",
        "+@all",
    ]);
    let password = file("password", &format!("{PASSWORD}\n"));
    let connected = json!({
        "url": redis.url(), "user": "orders", "password": { "file": password }, "prefix": "orders:",
    });
    let parts = settings(&connected).build_parts::<Claims>().await.unwrap();
    assert!(!format!("{parts:?}").contains(PASSWORD));
    let store = parts.redis.unwrap();
    assert_eq!(claim(&store, key(1)).await, Ok(Claim::First));
    assert_eq!(claim(&store, key(1)).await, Ok(Claim::Replayed));
    let keys = keys(&redis);
    assert!(
        keys.iter().all(|key| key.starts_with("orders:")),
        "{keys:?}"
    );

    let wrong = file("wrong-password", "marker-other-marker");
    let rejected = json!({ "url": redis.url(), "user": "orders", "password": { "file": wrong } });
    let error = settings(&rejected).build().await.unwrap_err();
    assert_eq!(error.setting(), "redis.password");
    let text = error.to_string();
    assert!(
        text.contains("WRONGPASS") && !text.contains("marker"),
        "{text}"
    );
}

#[tokio::test]
async fn settings_connect_in_the_background_if_the_start_does_not_wait() {
    let port = free_port();
    let url = format!("redis://127.0.0.1:{port}");
    let error = settings(&json!({ "url": url })).build().await.unwrap_err();
    assert_eq!(error.setting(), "redis.url");

    let mut document = document(&json!({ "url": url, "insecure_node_memory": true }));
    document["start_timeout_seconds"] = json!(0);
    let settings: Settings = serde_json::from_value(document).unwrap();
    let parts = settings.build_parts::<Claims>().await.unwrap();
    let store = parts.redis.unwrap();
    eventually("it is down", || {
        store.health().state == RedisLinkState::Down
    })
    .await;
}
