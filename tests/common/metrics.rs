//! Reads the metrics that a test records.

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshot};
use tower_dpop::telemetry::TOKEN_CACHE;

use crate::enable_tracing_callsites;

/// One line per metric, sorted: the name, the sorted labels, and the value.
pub fn lines(snapshot: Snapshot) -> Vec<String> {
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

/// The result of the action, and the metrics that this thread recorded during it.
pub fn recorded<T>(action: impl FnOnce() -> T) -> (T, Vec<String>) {
    enable_tracing_callsites();
    let recorder = DebuggingRecorder::new();
    let result = metrics::with_local_recorder(&recorder, action);
    (result, lines(recorder.snapshotter().snapshot()))
}

/// The line for lookups in the token cache.
pub fn cache_lookups(result: &str, count: u64) -> String {
    format!("{TOKEN_CACHE}{{result={result}}} {count}")
}

/// Compares with the expected lines in any order.
#[track_caller]
pub fn assert_lines(name: &str, found: &[String], expected: impl IntoIterator<Item = String>) {
    let mut expected: Vec<String> = expected.into_iter().collect();
    expected.sort();
    assert_eq!(found, expected, "{name}");
}
