//! The metrics, for Prometheus. No label comes from a request.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tower_dpop::telemetry;

use crate::generation::Generation;

const REQUESTS: &str = "dpop_gateway_requests_total";
const SECONDS: &str = "dpop_gateway_request_seconds";
const IN_FLIGHT: &str = "dpop_gateway_requests_in_flight";
const UPSTREAM_FAILURES: &str = "dpop_gateway_upstream_failures_total";
const HEALTHY_SERVERS: &str = "dpop_gateway_upstream_healthy_servers";
const RELOADS: &str = "dpop_gateway_reloads_total";
const CONFIG_LOADED: &str = "dpop_gateway_config_loaded_timestamp_seconds";
const BUILD_INFO: &str = "dpop_gateway_build_info";

/// How long requests take, the service included, in seconds. The gateway's own part is below a millisecond.
const REQUEST_BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0,
];
/// How far the clocks of clients are off, in seconds. Proofs are accepted from -30 to 90 by default.
const SKEW_BUCKETS: [f64; 16] = [
    -60.0, -30.0, -15.0, -5.0, -2.0, -1.0, 0.0, 1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 90.0, 300.0,
    3600.0,
];
/// How long Redis takes, in seconds. The deadline is 0.25.
const CLAIM_BUCKETS: [f64; 9] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25];

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Records metrics from now on. Called once, in the runtime, before anything is counted.
pub(crate) fn install() -> Result<(), BuildError> {
    let full = |name: &str| Matcher::Full(name.to_owned());
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(full(SECONDS), &REQUEST_BUCKETS)?
        .set_buckets_for_metric(full(telemetry::CLOCK_SKEW), &SKEW_BUCKETS)?
        .set_buckets_for_metric(full(telemetry::REPLAY_CLAIM_SECONDS), &CLAIM_BUCKETS)?
        .install_recorder()?;
    // Between two scrapes, histograms keep each value until this is called.
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(Duration::from_secs(5));
        loop {
            interval.tick().await;
            upkeep.run_upkeep();
        }
    });
    let _ = HANDLE.set(handle);
    describe();
    // `increase()` needs a value before the first failure.
    reloads("loaded").increment(0);
    reloads("failed").increment(0);
    in_flight().set(0.0);
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(())
}

fn describe() {
    telemetry::describe();
    metrics_process::Collector::default().describe();
    describe_counter!(REQUESTS, Unit::Count, "Requests, by route and decision");
    describe_histogram!(
        SECONDS,
        Unit::Seconds,
        "How long requests took, the service included"
    );
    describe_gauge!(IN_FLIGHT, Unit::Count, "Requests that have not ended");
    describe_counter!(
        UPSTREAM_FAILURES,
        Unit::Count,
        "Requests that failed at their service, after all retries"
    );
    describe_counter!(RELOADS, Unit::Count, "Reloads of the configuration");
    describe_gauge!(
        CONFIG_LOADED,
        Unit::Seconds,
        "When the current configuration was loaded"
    );
    describe_gauge!(BUILD_INFO, Unit::Count, "The version, as a label");
}

/// All metrics, in the text format of Prometheus.
pub(crate) fn render(generation: &Generation) -> String {
    metrics_process::Collector::default().collect();
    let mut text = HANDLE
        .get()
        .map(PrometheusHandle::render)
        .unwrap_or_default();
    // Not by the recorder, which would continue to report an upstream that a reload has removed.
    let _ = writeln!(
        text,
        "# HELP {HEALTHY_SERVERS} Addresses of an upstream that requests can be sent to\n# TYPE {HEALTHY_SERVERS} gauge"
    );
    // Names of upstreams have no character that would be escaped in a label.
    for (upstream, health) in generation.upstreams.health() {
        let healthy = health.healthy;
        let _ = writeln!(
            text,
            "{HEALTHY_SERVERS}{{upstream=\"{upstream}\"}} {healthy}"
        );
    }
    text
}

pub(crate) fn requests(
    route: Option<&str>,
    status: Option<StatusCode>,
    decision: &'static str,
) -> Counter {
    let class = match status.map(|status| status.as_u16() / 100) {
        Some(1) => "1xx",
        Some(2) => "2xx",
        Some(3) => "3xx",
        Some(4) => "4xx",
        Some(5) => "5xx",
        Some(_) => "other",
        None => "none",
    };
    counter!(REQUESTS, "route" => label(route), "status" => class, "decision" => decision)
}

pub(crate) fn seconds(route: Option<&str>) -> Histogram {
    histogram!(SECONDS, "route" => label(route))
}

fn label(route: Option<&str>) -> String {
    route.unwrap_or("none").to_owned()
}

pub(crate) fn in_flight() -> Gauge {
    gauge!(IN_FLIGHT)
}

pub(crate) fn upstream_failures(upstream: &str, reason: &'static str) -> Counter {
    counter!(UPSTREAM_FAILURES, "upstream" => upstream.to_owned(), "reason" => reason)
}

/// Reloads with this result: `loaded`, or `failed` if the previous configuration stays.
pub(crate) fn reloads(result: &'static str) -> Counter {
    counter!(RELOADS, "result" => result)
}

/// A configuration is in use from now on.
pub(crate) fn configured() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    gauge!(CONFIG_LOADED).set(now.unwrap_or_default().as_secs_f64());
}
