//! What is counted and measured, with which labels, and what is said in `tracing`: enough for an
//! alarm, and nothing of the request.

mod events;
mod counters;

use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, Key, KeyExt as _, NOW, TestClock, at, block_on,
    enable_tracing_callsites, jwt_verifier, verifier, verifier_by,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshot};
use serde_json::json;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt::{self, Write as _};
use std::time::Duration;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::telemetry::{
    CLOCK_SKEW, INTROSPECTIONS, KEY_FETCHES, REPLAY_LIMIT, REPLAY_RECORDS, REQUESTS, TOKEN_CACHE,
    TOKEN_REQUESTS,
};
use tower_dpop::testing::{Defect, TestClient, TestIssuer};
use tower_dpop::token_endpoint::TokenEndpoint;
use tower_dpop::tokens::TokenCache;
use tower_dpop::{
    DpopLayer, Freshness, MemoryReplayStore, NonceSecret, ProofRules, RequireScopesLayer,
    StatelessNonces, Verifier,
};
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber, span};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// One line per metric: its name, its labels in order, its value.
fn lines(snapshot: Snapshot) -> Vec<String> {
    let mut lines: Vec<String> = snapshot
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let (_, key) = key.into_parts();
            let mut labels: Vec<String> = key
                .labels()
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            labels.sort();
            let value = match value {
                DebugValue::Counter(count) => count.to_string(),
                DebugValue::Gauge(value) => value.to_string(),
                DebugValue::Histogram(values) => {
                    let values: Vec<f64> = values.into_iter().map(|value| value.0).collect();
                    format!("{values:?}")
                }
            };
            format!("{}{{{}}} {value}", key.name(), labels.join(","))
        })
        .collect();
    lines.sort();
    lines
}

/// What is recorded meanwhile, on this thread.
fn recorded<T>(of: impl FnOnce() -> T) -> (T, Vec<String>) {
    enable_tracing_callsites();
    let recorder = DebuggingRecorder::new();
    let result = metrics::with_local_recorder(&recorder, of);
    (result, lines(recorder.snapshotter().snapshot()))
}

fn cache(result: &str, count: u64) -> String {
    format!("{TOKEN_CACHE}{{result={result}}} {count}")
}

#[track_caller]
fn assert_lines(name: &str, found: &[String], expected: impl IntoIterator<Item = String>) {
    let mut expected: Vec<String> = expected.into_iter().collect();
    expected.sort();
    assert_eq!(found, expected, "{name}");
}

fn as_bearer(attempt: &mut Attempt) {
    attempt.authorization = Some(vec![format!("Bearer {}", attempt.token()).parse().unwrap()]);
}

/// The two metrics about authorization servers, asked on the loopback.
mod servers {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::routing::any;
    use tokio::net::TcpListener;
    use tower_dpop::tokens::{
        AccessTokenVerifier as _, ClientAuthentication, EndpointUrl, HttpClient,
        IntrospectionVerifier, KeySource as _, PresentedToken, TokenError,
    };
    use tower_dpop::{RemoteKeys, Timestamp};

    use super::*;

    /// What the server answers now.
    type Said = Arc<Mutex<(u16, String)>>;

    async fn serve(said: Said) -> EndpointUrl {
        let outcome = any(move || async move {
            let (status, body) = said.lock().unwrap().clone();
            let status = StatusCode::from_u16(status).unwrap();
            (status, [("content-type", "application/json")], body)
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let router = Router::new().route("/", outcome);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        url.parse().unwrap()
    }

    fn fetches(cause: &str, result: &str) -> String {
        format!("{KEY_FETCHES}{{cause={cause},result={result}}} 1")
    }

    #[test]
    fn fetches_of_keys_are_counted_by_cause_and_result() {
        enable_tracing_callsites();
        let said: Said = Arc::new(Mutex::new((200, common::issuer_jwks())));
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        // What was recorded since the last look; a counter that has not moved says 0.
        let since = || -> Vec<String> {
            let mut lines = lines(snapshotter.snapshot());
            lines.retain(|line| !line.ends_with(" 0"));
            lines
        };
        let other = TestIssuer::new(ISSUER, AUDIENCE).jwks();
        metrics::with_local_recorder(&recorder, || {
            block_on(async {
                let later = |seconds| Timestamp::from_unix(NOW + seconds);
                let url = serve(Arc::clone(&said)).await;
                let keys = RemoteKeys::at(url, HttpClient::new().unwrap()).with_clock(|| at(NOW));
                let keys = keys.fetched().await.unwrap();
                assert_eq!(since(), [fetches("start", "changed")]);
                let known = keys.key_set(later(1)).await.unwrap();
                assert_eq!(since(), [""; 0], "young keys");
                // Past their life of ten minutes.
                assert!(keys.key_set(later(700)).await.unwrap().is(&known));
                assert_eq!(since(), [fetches("scheduled", "unchanged")]);
                assert!(
                    keys.newer_key_set(&known, later(710))
                        .await
                        .unwrap()
                        .is_none()
                );
                assert_eq!(since(), [fetches("demanded", "unchanged")]);
                said.lock().unwrap().1 = other;
                let newer = keys.newer_key_set(&known, later(720)).await.unwrap();
                assert_eq!(since(), [fetches("demanded", "changed")]);
                said.lock().unwrap().0 = 500;
                let failed = keys.newer_key_set(&newer.unwrap(), later(730)).await;
                assert!(failed.is_err());
                assert_eq!(since(), [fetches("demanded", "failed")]);
                let url = serve(Arc::clone(&said)).await;
                let keys = RemoteKeys::at(url, HttpClient::new().unwrap()).with_clock(|| at(NOW));
                assert!(keys.fetched().await.is_err());
                assert_eq!(since(), [fetches("start", "failed")]);
            });
        });
    }

    #[test]
    fn questions_about_tokens_are_counted_by_their_answer() {
        let active = json!({ "active": true, "aud": AUDIENCE }).to_string();
        let rows = [
            ("active", 200, active.clone(), Ok(()), "active"),
            (
                "active, for another audience",
                200,
                json!({ "active": true, "aud": "marker" }).to_string(),
                Err(TokenError::Audience),
                "active",
            ),
            (
                "inactive",
                200,
                json!({ "active": false }).to_string(),
                Err(TokenError::Invalid),
                "inactive",
            ),
            (
                "an error",
                500,
                active,
                Err(TokenError::Unavailable),
                "failed",
            ),
            (
                "no answer",
                200,
                "marker".to_owned(),
                Err(TokenError::Unavailable),
                "failed",
            ),
        ];
        for (name, status, body, expected, result) in rows {
            let said: Said = Arc::new(Mutex::new((status, body)));
            let ((first, second), found) = recorded(|| {
                block_on(async {
                    let tokens = IntrospectionVerifier::new(
                        serve(said).await,
                        ClientAuthentication::basic("marker", "marker"),
                        AUDIENCE,
                        HttpClient::new().unwrap(),
                    );
                    let ask = async || {
                        let token = PresentedToken::new("marker");
                        tokens
                            .verify(token, Timestamp::from_unix(NOW))
                            .await
                            .map(drop)
                    };
                    (ask().await, ask().await)
                })
            });
            assert_eq!((&first, &second), (&expected, &expected), "{name}");
            let questions = if expected.is_ok() { 1 } else { 2 };
            let mut lines = vec![
                format!("{INTROSPECTIONS}{{result={result}}} {questions}"),
                cache("miss", questions),
            ];
            lines.extend(expected.is_ok().then(|| cache("hit", 1)));
            assert_lines(name, &found, lines);
        }
    }
}

/// An event, with the spans around it.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    level: Level,
    target: String,
    fields: BTreeMap<&'static str, String>,
    spans: Vec<&'static str>,
}

/// Keeps what is said on each thread.
struct Capture;

thread_local! {
    static CAPTURED: RefCell<Captured> = RefCell::default();
}

#[derive(Default)]
struct Captured {
    events: Vec<Event>,
    spans: Vec<(&'static str, String, Level, usize)>,
    /// What happened to spans, in its order.
    steps: Vec<String>,
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Capture {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        let metadata = attributes.metadata();
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let span = (
            metadata.name(),
            metadata.target().to_owned(),
            *metadata.level(),
            fields.0.len(),
        );
        CAPTURED.with_borrow_mut(|captured| captured.spans.push(span));
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let spans = context.event_scope(event).map_or_else(Vec::new, |scope| {
            scope.map(|span| span.metadata().name()).collect()
        });
        let message = fields.0.get("message").cloned().unwrap_or_default();
        let event = Event {
            level: *event.metadata().level(),
            target: event.metadata().target().to_owned(),
            fields: fields.0,
            spans,
        };
        CAPTURED.with_borrow_mut(|captured| {
            captured.steps.push(message);
            captured.events.push(event);
        });
    }

    fn on_enter(&self, id: &span::Id, context: Context<'_, S>) {
        step("enter", id, &context);
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        step("exit", id, &context);
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        step("close", &id, &context);
    }
}

fn step<S: Subscriber + for<'a> LookupSpan<'a>>(
    step: &str,
    id: &span::Id,
    context: &Context<'_, S>,
) {
    let name = context.span(id).unwrap().metadata().name();
    CAPTURED.with_borrow_mut(|captured| captured.steps.push(format!("{step} {name}")));
}

/// What is said meanwhile, on this thread, at every level.
fn said<T>(of: impl FnOnce() -> T) -> (T, Captured) {
    enable_tracing_callsites();
    CAPTURED.take();
    let subscriber = tracing_subscriber::registry().with(Capture);
    let result = tracing::subscriber::with_default(subscriber, of);
    (result, CAPTURED.take())
}

fn event(level: Level, spans: &[&'static str], fields: &[(&'static str, &str)]) -> Event {
    Event {
        level,
        target: "tower_dpop".into(),
        fields: fields
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect(),
        spans: spans.to_vec(),
    }
}
