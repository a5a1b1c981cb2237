//! Whether this process can decide about requests.
//!
//! The state of services does not count: a gateway that is not ready because one service is down takes down all of them.

use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};
use tower_dpop::Timestamp;
use tower_dpop::proof::RedisLinkState;
use tower_dpop::tokens::{KeySource as _, RemoteKeysStatus};

use crate::config::Document;
use crate::generation::{Current, Generation};

static DRAINING: AtomicBool = AtomicBool::new(false);

/// The process takes no new requests from now on.
pub(crate) fn draining() {
    DRAINING.store(true, Ordering::Relaxed);
}

/// 200, or 503 and what is missing.
pub(crate) fn readiness(current: &Current) -> Response {
    let generation = current.load();
    let mut missing = keys(&generation);
    missing.extend(redis(&generation));
    if DRAINING.load(Ordering::Relaxed) {
        missing.push(json!({ "what": "time", "problem": "the process is about to end" }));
    }
    let status = if missing.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({ "ready": missing.is_empty(), "missing": missing });
    let kind = [(CONTENT_TYPE, "application/json")];
    (status, kind, body.to_string()).into_response()
}

/// The issuers without usable keys. Keys are fetched only when they are needed, so this starts a fetch: otherwise the gateway
/// would wait for requests, and its load balancer for readiness. The crate fetches at most once per five seconds.
fn keys(generation: &Generation) -> Vec<Value> {
    let now = SystemTime::now().into();
    let issuers = fetched_issuers(&generation.document);
    let mut missing = Vec::new();
    for (number, keys) in generation.parts.keys.iter().enumerate() {
        let status = keys.status();
        if is_usable(&status, now) {
            continue;
        }
        let asked = keys.clone();
        tokio::spawn(async move { asked.key_set(now).await });
        missing.push(json!({
            "what": "keys",
            "issuer": issuers.get(number),
            "problem": problem(&status),
        }));
    }
    missing
}

fn is_usable(status: &RemoteKeysStatus, now: Timestamp) -> bool {
    status.keys > 0 && status.usable_until.is_some_and(|until| now < until)
}

fn problem(status: &RemoteKeysStatus) -> String {
    match (&status.failure, status.keys) {
        (Some(failure), _) => failure.to_string(),
        (None, 0) => "not fetched yet".to_owned(),
        (None, _) => "too old to be used".to_owned(),
    }
}

/// The issuers whose keys are fetched, in the order of the settings, as those keys are.
fn fetched_issuers(document: &Document) -> Vec<&str> {
    let issuers = match document.dpop.get("issuer") {
        Some(toml::Value::Array(all)) => all.as_slice(),
        Some(one) => slice::from_ref(one),
        None => &[],
    };
    let fetched = issuers.iter().filter_map(|issuer| match issuer {
        toml::Value::Table(table) if table.contains_key("jwks_file") => None,
        toml::Value::Table(table) => table.get("url")?.as_str(),
        other => other.as_str(),
    });
    fetched.collect()
}

/// With `redis.insecure_node_memory`, requests are decided without Redis.
fn redis(generation: &Generation) -> Option<Value> {
    let settings = generation.document.dpop.get("redis")?;
    let decides_alone = settings.get("insecure_node_memory");
    if decides_alone.and_then(toml::Value::as_bool) == Some(true) {
        return None;
    }
    let health = generation.parts.redis.as_ref()?.health();
    if health.state == RedisLinkState::Up {
        return None;
    }
    let failure = health.failure.map(|failure| failure.to_string());
    Some(json!({
        "what": "redis",
        "problem": failure.unwrap_or_else(|| "connecting".to_owned()),
    }))
}
