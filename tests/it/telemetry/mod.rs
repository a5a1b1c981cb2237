//! Metrics, and events and spans of `tracing`: enough for alerts, and no request data.

mod events;
#[cfg(feature = "axum")]
mod guide;
mod metrics;
mod operator;

use common::Attempt;

fn as_bearer(attempt: &mut Attempt) {
    attempt.authorization = Some(vec![format!("Bearer {}", attempt.token()).parse().unwrap()]);
}
