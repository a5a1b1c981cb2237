//! The lines of the log on the guide's page are those that are logged.

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use common::log::Log;
use common::{Attempt, AttemptExt as _, NOW, block_on, enable_tracing_callsites};
use http::Request;
use serde_json::json;
use tower::ServiceExt as _;
use tower_dpop::DpopLayer;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

const PAGE: &str = include_str!("../../../docs/guide/logs-metrics-alerts.md");
/// The thumbprint on the page, which is that of RFC 9449's examples.
const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";

/// A service that starts, and three rejections: a replay, a proof that is too old, and one for another path.
fn served() {
    let app = Router::new()
        .route("/orders/{id}", any(async || "an order"))
        .route_layer(DpopLayer::new(common::verifier()));
    let order = |change: fn(&mut Attempt)| {
        let mut attempt = Attempt::good();
        attempt.uri = "/orders/7".into();
        attempt.proof_claims["htu"] = json!("https://api.example.com/orders/7");
        change(&mut attempt);
        attempt
    };
    let used = order(|_| {});
    let attempts = [
        used.clone(),
        used,
        order(|attempt| attempt.proof_claims["iat"] = json!(NOW - 132)),
        order(|attempt| attempt.proof_claims["htu"] = json!("https://api.example.com/v1/orders/7")),
    ];
    for attempt in attempts {
        let request: Request<Body> = attempt.build();
        block_on(app.clone().oneshot(request)).unwrap();
    }
}

fn logged<S: Subscriber + Send + Sync + 'static>(subscriber: impl FnOnce(Log) -> S) -> String {
    enable_tracing_callsites();
    let log = Log::default();
    let guard = tracing::subscriber::set_default(subscriber(log.clone()));
    served();
    drop(guard);
    let key = common::keys::client().thumbprint().to_string();
    log.text().replace(&key, JKT)
}

/// The lines of the page's only block in a language that has such a line.
fn on_the_page(language: &str, with: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let blocks = PAGE.split(fence.as_str()).skip(1);
    let mut blocks = blocks.map(|rest| rest.split("```").next().unwrap());
    let block = blocks.find(|block| block.contains(with));
    let block = block.unwrap_or_else(|| panic!("no block {language} with {with}"));
    block.lines().collect()
}

impl<'w> MakeWriter<'w> for Writer {
    type Writer = Log;

    fn make_writer(&'w self) -> Log {
        self.0.clone()
    }
}

struct Writer(Log);

#[test]
fn text_is_logged_as_on_the_page() {
    let text = logged(|log| {
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("tower_dpop=info"))
            .with_ansi(false)
            .without_time()
            .with_writer(Writer(log))
            .finish()
    });
    let page = on_the_page("text", "request rejected");
    // Each line has a time, which is another one.
    let page: Vec<_> = page
        .iter()
        .map(|line| line.split_once("Z ").unwrap().1)
        .collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), page);
}

#[test]
fn json_is_logged_as_on_the_page() {
    let text = logged(|log| {
        tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_env_filter(EnvFilter::new("tower_dpop=info"))
            .without_time()
            .with_writer(Writer(log))
            .finish()
    });
    let page = on_the_page("json", "proof_replayed");
    let parsed = |line: &str| -> serde_json::Value {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("timestamp");
        line
    };
    let replayed = text
        .lines()
        .find(|line| line.contains("proof_replayed"))
        .unwrap();
    assert_eq!(parsed(replayed), parsed(&page.concat()));
}
