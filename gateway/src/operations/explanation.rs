//! Collects what `tower_dpop` logs about a decision, for the log line of the request.
//!
//! The crate emits one event per decision, with the target `tower_dpop`. Within [`listen`], the event has no line of its own:
//! its fields are kept in a task-local variable, and `request.rs` adds what only the gateway knows.

use std::cell::RefCell;
use std::fmt;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

/// Why the crate accepted or rejected a request. Nothing in it was sent by the client, except how many seconds a time is off
/// and which part of a URL differs. `tower_dpop::telemetry` describes the fields.
#[derive(Default)]
pub(crate) struct Explanation {
    /// The crate decided. It does not decide about public paths and preflights.
    pub(crate) is_decision: bool,
    pub(crate) reason: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) expected: Option<String>,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) scheme: Option<String>,
    pub(crate) jkt: Option<String>,
}

tokio::task_local! {
    static EXPLANATION: RefCell<Explanation>;
}

/// The outcome of this future, and what the crate logged meanwhile.
pub(crate) async fn listen<F: Future>(decision: F) -> (F::Output, Explanation) {
    let both = async {
        let outcome = decision.await;
        (outcome, EXPLANATION.with(RefCell::take))
    };
    EXPLANATION.scope(RefCell::default(), both).await
}

/// The layer that keeps the fields.
pub(crate) fn listener<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    // Without the hint, every event of every crate would be looked at.
    Listener.with_filter(filter_fn(is_decision).with_max_level_hint(LevelFilter::DEBUG))
}

/// All events but the decisions that are listened to.
pub(crate) struct NotListenedTo;

impl<S> Filter<S> for NotListenedTo {
    fn enabled(&self, event: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        !is_decision(event) || EXPLANATION.try_with(|_| ()).is_err()
    }

    fn callsite_enabled(&self, event: &'static Metadata<'static>) -> Interest {
        if is_decision(event) {
            Interest::sometimes()
        } else {
            Interest::always()
        }
    }
}

/// The warning about an issuer's key that cannot be used has the same target.
fn is_decision(event: &Metadata<'_>) -> bool {
    event.is_event() && event.target() == "tower_dpop" && *event.level() != Level::WARN
}

struct Listener;

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let _ = EXPLANATION.try_with(|explanation| {
            let mut explanation = explanation.borrow_mut();
            explanation.is_decision = true;
            event.record(&mut *explanation);
        });
    }
}

impl Explanation {
    fn member(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "reason" => &mut self.reason,
            "description" => &mut self.description,
            "expected" => &mut self.expected,
            "detail" => &mut self.detail,
            "hint" => &mut self.hint,
            "scheme" => &mut self.scheme,
            "jkt" => &mut self.jkt,
            _ => return None,
        })
    }
}

impl Visit for Explanation {
    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(member) = self.member(field.name()) {
            *member = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if let Some(member) = self.member(field.name()) {
            *member = Some(format!("{value:?}"));
        }
    }
}
