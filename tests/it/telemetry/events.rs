//! Events and spans of `tracing`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::{self, Write as _};
use std::sync::LazyLock;

use http::{Request, Response, StatusCode};
use serde_json::json;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::testing::{TestClient, TestClock, TestRequest};
use tower_dpop::token_endpoint::TokenEndpoint;
use tower_dpop::{DpopLayer, MemoryReplayStore, ProofRules, RequireScopesLayer};
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber, span};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use super::as_bearer;
use common::metrics::recorded;
use common::{
    Attempt, AttemptExt as _, ISSUER, KeyExt as _, NOW, at, block_on, enable_tracing_callsites,
    verifier, verifier_by,
};

/// An event, and the spans that it is in.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    level: Level,
    target: String,
    fields: BTreeMap<&'static str, String>,
    spans: Vec<&'static str>,
}

/// Captures the events and spans of each thread.
struct Capture;

thread_local! {
    static CAPTURED: RefCell<Captured> = RefCell::default();
}

#[derive(Default)]
struct Captured {
    events: Vec<Event>,
    /// The name, the target, the level and the number of fields.
    spans: Vec<(&'static str, String, Level, usize)>,
    /// What happened to spans, and the messages of events, in order.
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
        record_step("enter", id, &context);
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        record_step("exit", id, &context);
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        record_step("close", &id, &context);
    }
}

fn record_step<S: Subscriber + for<'a> LookupSpan<'a>>(
    step: &str,
    id: &span::Id,
    context: &Context<'_, S>,
) {
    let name = context.span(id).unwrap().metadata().name();
    CAPTURED.with_borrow_mut(|captured| captured.steps.push(format!("{step} {name}")));
}

/// The result of the action, and what this thread logged during it, at every level.
fn logged<T>(action: impl FnOnce() -> T) -> (T, Captured) {
    enable_tracing_callsites();
    CAPTURED.take();
    let subscriber = tracing_subscriber::registry().with(Capture);
    let result = tracing::subscriber::with_default(subscriber, action);
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

fn events_of_this_crate(captured: &Captured) -> Vec<Event> {
    captured
        .events
        .iter()
        .filter(|event| event.target.starts_with("tower_dpop"))
        .cloned()
        .collect()
}

/// The events about decisions.
fn decisions(captured: &Captured) -> Vec<Event> {
    let mut events = events_of_this_crate(captured);
    events.retain(|event| event.target == "tower_dpop");
    events
}

/// The thumbprint of the key of good attempts.
static CLIENT_JKT: LazyLock<String> = LazyLock::new(|| common::keys::client().jkt());

const IN_THE_SPAN: &[&str] = &["dpop"];

/// D21: one event per decision, with a stable reason, in the span of the layer.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn every_decision_is_one_event() {
    type Change = fn(&mut Attempt);
    type MakeLayer = fn() -> DpopLayer;
    let default = || DpopLayer::new(verifier());
    let bearer_allowed = || DpopLayer::new(verifier().allow_bearer());
    let report_only = || DpopLayer::new(verifier()).with_insecure_report_only();
    let full = || {
        DpopLayer::new(verifier_by(|rules| {
            rules.with_replay_store(MemoryReplayStore::with_limit(0))
        }))
    };
    let rows: Vec<(&str, MakeLayer, Change, Event)> = vec![
        (
            "accepted",
            default,
            |a| a.proof_claims["iat"] = json!(NOW - 5),
            event(
                Level::DEBUG,
                IN_THE_SPAN,
                &[
                    ("message", "request accepted"),
                    ("scheme", "dpop"),
                    ("algorithm", "ES256"),
                    ("skew_seconds", "5.0"),
                ],
            ),
        ),
        (
            "accepted as Bearer",
            bearer_allowed,
            |a| {
                a.token_claims.as_object_mut().unwrap().remove("cnf");
                as_bearer(a);
            },
            event(
                Level::DEBUG,
                IN_THE_SPAN,
                &[("message", "request accepted"), ("scheme", "bearer")],
            ),
        ),
        (
            "rejected",
            default,
            |a| a.proof_claims["iat"] = json!(NOW - 100),
            event(
                Level::INFO,
                IN_THE_SPAN,
                &[
                    ("message", "request rejected"),
                    ("reason", "proof_iat_too_old"),
                    ("description", "the DPoP proof is too old"),
                    (
                        "expected",
                        "iat from 90 s before to 30 s after the time of this server",
                    ),
                    ("detail", "10 s too old"),
                    ("scheme", "dpop"),
                    ("method", "GET"),
                ],
            ),
        ),
        (
            "rejected without a token",
            default,
            |a| a.authorization = Some(vec![]),
            event(
                Level::INFO,
                IN_THE_SPAN,
                &[
                    ("message", "request rejected"),
                    ("reason", "credentials_missing"),
                    ("description", "no access token was presented"),
                    ("scheme", "none"),
                    ("method", "GET"),
                ],
            ),
        ),
        (
            "rejected as Bearer",
            bearer_allowed,
            as_bearer,
            event(
                Level::INFO,
                IN_THE_SPAN,
                &[
                    ("message", "request rejected"),
                    ("reason", "bearer_bound"),
                    (
                        "description",
                        "the access token is bound to a key and needs a DPoP proof",
                    ),
                    ("scheme", "bearer"),
                    ("method", "GET"),
                ],
            ),
        ),
        (
            "reported",
            report_only,
            |a| a.proof_claims["htm"] = json!("POST"),
            event(
                Level::INFO,
                IN_THE_SPAN,
                &[
                    ("message", "request would be rejected, and passes"),
                    ("reason", "proof_htm"),
                    ("description", "the DPoP proof is for another method"),
                    ("scheme", "dpop"),
                    ("method", "GET"),
                ],
            ),
        ),
        (
            "a server error",
            full,
            |_| {},
            event(
                Level::ERROR,
                IN_THE_SPAN,
                &[
                    ("message", "request rejected: cannot decide"),
                    ("reason", "unavailable_replay_full"),
                    ("description", "the replay store is full"),
                    ("scheme", "dpop"),
                    ("method", "GET"),
                    ("jkt", CLIENT_JKT.as_str()),
                ],
            ),
        ),
    ];
    for (name, layer, change, expected) in rows {
        let attempt = Attempt::but(change);
        let layer = layer();
        let (_, captured) = logged(|| attempt.outcome_by(&layer));
        assert_eq!(decisions(&captured), [expected], "{name}");
        let span = ("dpop", "tower_dpop".to_owned(), Level::DEBUG, 0);
        assert_eq!(captured.spans, [span], "{name}");
    }
}

/// D21: with the same target and the same names of reasons.
#[test]
fn every_decision_of_a_token_endpoint_is_one_event() {
    let endpoint =
        TokenEndpoint::new(ProofRules::new(ISSUER.parse().unwrap()).with_clock(|| at(NOW)));
    let client = TestClient::without_issuer(TestClock::at(NOW));
    let request = client.token_request("https://as.example.com/token");
    let (head, ()) = request.build::<()>().into_parts();
    let rows = [
        ("token request accepted", Level::DEBUG, None),
        (
            "token request rejected",
            Level::INFO,
            Some("proof_replayed"),
        ),
    ];
    for (message, level, reason) in rows {
        let (_, captured) = logged(|| {
            let outcome = block_on(endpoint.verify(&head));
            outcome.err().map(|error| endpoint.reject::<String>(error))
        });
        let [event] = decisions(&captured).try_into().unwrap();
        assert_eq!(event.fields["message"], message);
        assert_eq!(event.level, level, "{message}");
        assert_eq!(event.target, "tower_dpop", "{message}");
        let named = event.fields.get("reason").map(String::as_str);
        assert_eq!(named, reason, "{message}");
    }
}

/// As at a resource server: what would be accepted, and by how much the request differs.
#[test]
fn a_rejection_at_a_token_endpoint_shows_what_was_expected() {
    type Change = fn(&mut TestRequest);
    let endpoint =
        TokenEndpoint::new(ProofRules::new(ISSUER.parse().unwrap()).with_clock(|| at(NOW)));
    let client = TestClient::without_issuer(TestClock::at(NOW));
    let rows: [(&str, Change, [Option<&str>; 2]); 3] = [
        (
            "proof_iat_too_old",
            |request| request.proof_claims["iat"] = json!(NOW - 100),
            [
                Some("iat from 90 s before to 30 s after the time of this server"),
                Some("10 s too old"),
            ],
        ),
        (
            "target_misdirected",
            |request| request.uri = "https://other.example.com/token".into(),
            [Some(ISSUER), None],
        ),
        (
            "proof_missing",
            |request| request.dpop = Some(vec![]),
            [None; 2],
        ),
    ];
    for (reason, change, expected) in rows {
        let mut request = client.token_request("https://as.example.com/token");
        change(&mut request);
        let (head, ()) = request.build::<()>().into_parts();
        let rejection = block_on(endpoint.verify(&head)).unwrap_err();
        let (_, captured) = logged(|| endpoint.reject::<String>(rejection));
        let [event] = decisions(&captured).try_into().unwrap();
        let field = |name| event.fields.get(name).map(String::as_str);
        assert_eq!(field("reason"), Some(reason));
        assert_eq!(["expected", "detail"].map(field), expected, "{reason}");
    }
}

/// The span covers the decision only. Events of the service and of inner layers are outside it.
#[test]
fn the_span_ends_before_the_service_is_called() {
    let required = RequireScopesLayer::all_of("admin".parse().unwrap());
    let inner = service_fn(async |_: Request<String>| {
        tracing::info!(target: "application", "service");
        Ok::<_, Infallible>(Response::new(()))
    });
    let service = DpopLayer::new(verifier()).layer(inner);
    let request = Attempt::good().request();
    let (_, captured) = logged(|| block_on(service.oneshot(request)).unwrap());
    assert_eq!(
        captured.steps,
        [
            "enter dpop",
            "request accepted",
            "exit dpop",
            "close dpop",
            "service"
        ]
    );

    let service = DpopLayer::new(verifier()).layer(required.layer(inner));
    let request = Attempt::good().request();
    let (response, captured) = logged(|| block_on(service.oneshot(request)).unwrap());
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(
        decisions(&captured)[1],
        event(
            Level::INFO,
            &[],
            &[
                ("message", "request rejected"),
                ("reason", "authorization_scope"),
                ("description", "the access token lacks a scope"),
                ("expected", "admin"),
                ("scheme", "dpop"),
                ("method", "GET"),
                ("jkt", CLIENT_JKT.as_str()),
            ],
        )
    );
}

#[test]
fn the_span_is_inside_the_span_of_the_caller() {
    let layer = DpopLayer::new(verifier());
    let request = Attempt::good().request();
    let ((), captured) = logged(|| {
        tracing::info_span!("http").in_scope(|| common::ask(&layer, request));
    });
    assert_eq!(decisions(&captured)[0].spans, ["dpop", "http"]);
}

/// `tower_dpop=info` is a common filter in production.
#[test]
fn a_filter_by_the_crate_name_selects_rejections() {
    let filter = tracing_subscriber::EnvFilter::new("tower_dpop=info");
    let subscriber = tracing_subscriber::registry().with(filter).with(Capture);
    let ((), captured) = logged(|| {
        tracing::subscriber::with_default(subscriber, || {
            Attempt::good().outcome().assert_passed("a valid request");
            Attempt::but(|a| a.dpop = Some(vec![])).outcome();
        });
    });
    let names: Vec<_> = decisions(&captured)
        .iter()
        .map(|e| e.fields["reason"].clone())
        .collect();
    assert_eq!(names, ["proof_missing"]);
    assert_eq!(captured.spans, [], "the level of the span is debug");
}

/// Events and metrics contain no part of the token, the proof or the key.
#[test]
fn events_and_metrics_show_no_secret() {
    type Change = fn(&mut Attempt);
    let rows: [(&str, bool, Change); 5] = [
        ("accepted", false, |_| {}),
        ("accepted as Bearer", false, |a| {
            a.token_claims.as_object_mut().unwrap().remove("cnf");
            as_bearer(a);
        }),
        ("reported", true, |a| {
            a.proof_claims["htm"] = json!("marker-claim-marker");
        }),
        ("reported, another host", true, |a| {
            a.proof_claims["htu"] = json!("https://marker-claim-marker/orders");
        }),
        ("reported, as Bearer", true, |a| {
            a.token_claims["iss"] = json!("https://marker-claim-marker");
            as_bearer(a);
        }),
    ];
    for (name, report_only, change) in rows {
        let attempt = Attempt::but(|a| {
            a.proof_claims["jti"] = json!("marker-jti-marker");
            a.token_claims["private"] = json!("marker-claim-marker");
            a.token_claims["sub"] = json!("marker-subject-marker");
            a.uri = "/orders?marker-query-marker".into();
            change(a);
        });
        let mut layer = DpopLayer::new(verifier().allow_bearer());
        if report_only {
            layer = layer.with_insecure_report_only();
        }
        let request = attempt.request();
        let ((outcome, captured), metrics) = recorded(|| logged(|| common::ask(&layer, request)));
        assert_eq!(outcome.status, StatusCode::OK, "{name}");
        let mut shown = metrics.join("\n");
        for event in events_of_this_crate(&captured) {
            write!(shown, "{event:?}").unwrap();
        }
        assert!(shown.contains("decision="), "{name}: {shown}");
        let token = attempt.token();
        let proof = attempt.proof(&token);
        let mut secrets = vec![attempt.key.jkt(), common::ath(&token), "marker".into()];
        secrets.extend(token.split('.').chain(proof.split('.')).map(str::to_owned));
        for secret in secrets {
            let part = &secret[..secret.len().min(12)];
            assert!(!shown.contains(part), "{name} shows a secret: {shown}");
        }
    }
}
