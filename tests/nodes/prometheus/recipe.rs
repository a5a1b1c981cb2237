//! Metrics for Prometheus.

use std::time::Duration;

use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use tower_dpop::telemetry;

/// How far clocks are off, in seconds. Proofs are accepted from -30 to 90 by default.
const SKEW: [f64; 16] = [
    -60.0, -30.0, -15.0, -5.0, -2.0, -1.0, 0.0, 1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 90.0, 300.0,
    3600.0,
];
/// How long Redis takes, in seconds. The deadline is 0.25.
const CLAIM: [f64; 9] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25];

/// Records metrics from now on, and serves them at `/metrics`. Call it once, before the verifier is made, and let
/// Prometheus reach the router on a port that clients cannot reach.
pub fn metrics() -> Result<Router, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(telemetry::CLOCK_SKEW.into()), &SKEW)?
        .set_buckets_for_metric(
            Matcher::Full(telemetry::REPLAY_CLAIM_SECONDS.into()),
            &CLAIM,
        )?
        .install_recorder()?;
    telemetry::describe();

    // Between two scrapes, histograms keep each value until this is called.
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    let text = [(CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok(Router::new().route("/metrics", get(async move || (text, handle.render()))))
}
