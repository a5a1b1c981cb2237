//! Values of JWTs, as they are shown.

use serde_json::Value;
use tower_dpop::Timestamp;

use crate::terminal::shown;

/// A value of JSON for one line.
pub(crate) fn value(value: Option<&Value>) -> String {
    match value {
        None => "none".to_owned(),
        Some(value) => shown(&value.to_string()),
    }
}

/// A text without its quotes, or another value of JSON.
pub(crate) fn text(found: Option<&Value>) -> String {
    match found {
        Some(Value::String(text)) => shown(text),
        found => value(found),
    }
}

/// A time claim, and how far it is from the time of the check.
pub(crate) fn time(found: Option<&Value>, now: Timestamp) -> String {
    let Some(seconds) = found.and_then(Value::as_f64) else {
        return value(found);
    };
    match date(seconds) {
        Some(date) => format!("{} ({date}), {}", value(found), distance(seconds, now)),
        None => format!("{}, {}", value(found), distance(seconds, now)),
    }
}

/// How far a time is from the time of the check.
pub(crate) fn distance(seconds: f64, now: Timestamp) -> String {
    let age = seconds_of(now) - seconds;
    if age == 0.0 {
        "now".to_owned()
    } else if age > 0.0 {
        format!("{age} s ago")
    } else {
        format!("in {} s", -age)
    }
}

/// A time in RFC 3339, if it is in any calendar.
pub(crate) fn date(seconds: f64) -> Option<String> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`as` saturates, and jiff checks"
    )]
    let seconds = seconds.floor() as i64;
    Some(jiff::Timestamp::from_second(seconds).ok()?.to_string())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact for 285 million years, as times in JSON are"
)]
pub(crate) const fn seconds_of(time: Timestamp) -> f64 {
    time.as_unix() as f64
}
