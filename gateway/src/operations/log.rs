//! The log: on standard error, as text or as JSON, one line per event.

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_log::LogTracer;
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

use crate::config::LogFormat;
use crate::operations::explanation::{self, NotListenedTo};

/// Starts the log. `RUST_LOG` selects the lines; the default is `info`.
pub(crate) fn start(format: LogFormat) -> Result<(), String> {
    let chosen = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()
        .map_err(|error| format!("RUST_LOG: {error}"))?;
    let printed = chosen
        .and(filter_fn(is_free_of_requests))
        .and(NotListenedTo);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
    };
    let log = tracing_subscriber::registry()
        .with(explanation::listener())
        .with(lines.with_filter(printed));
    tracing::subscriber::set_global_default(log).map_err(|error| error.to_string())?;
    // pingora uses the crate `log`.
    LogTracer::builder()
        .with_max_level(tracing_log::log::LevelFilter::Warn)
        .init()
        .map_err(|error| error.to_string())
}

/// Only lines of `request.rs` contain what a client sent. Other crates log header fields and URLs at the lower levels (pingora:
/// the value of `Content-Length`, as a warning), so those lines are never written, whatever `RUST_LOG` says.
fn is_free_of_requests(event: &Metadata<'_>) -> bool {
    let (target, level) = (event.target(), *event.level());
    if target.starts_with("dpop_gateway") || target.starts_with("tower_dpop") {
        true
    } else if target == "pingora_core::apps" {
        // A client that ends the handshake of HTTP/2. Anyone can do this, as often as they want.
        false
    } else if target.starts_with("pingora") {
        level <= Level::ERROR
    } else {
        level <= Level::WARN
    }
}
