//! Timestamps and validity periods. `now` is an argument everywhere; only a server, a client and a
//! key source hold a [`Clock`].

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time, in whole seconds since the Unix epoch.
///
/// # Example
///
/// ```
/// use std::time::SystemTime;
/// use tower_dpop::Timestamp;
///
/// let now: Timestamp = SystemTime::now().into();
/// assert!(now < now.plus(60));
/// assert_eq!(Timestamp::from_unix(1_562_262_616).as_unix(), 1_562_262_616);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The time this many seconds after the Unix epoch.
    pub const fn from_unix(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Seconds since the Unix epoch.
    pub const fn as_unix(self) -> u64 {
        self.0
    }

    /// The time this many seconds later, or the latest that can be represented.
    #[must_use]
    pub const fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Truncates a NumericDate (RFC 7519 section 2), which may have a fraction, to whole seconds.
    pub(crate) const fn from_numeric_date(date: f64) -> Self {
        Self(whole_seconds(date))
    }

    /// Converts to a NumericDate, which is a double in JSON.
    pub(crate) const fn as_numeric_date(self) -> f64 {
        seconds(self.0)
    }
}

impl From<SystemTime> for Timestamp {
    /// Truncates to whole seconds. Times before 1970 become the start of 1970.
    fn from(time: SystemTime) -> Self {
        Self(
            time.duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        )
    }
}

/// The whole part of a number of seconds. Negative numbers and NaN become zero; numbers that are too
/// large become the largest integer.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates"
)]
const fn whole_seconds(seconds: f64) -> u64 {
    seconds as u64
}

/// Converts whole seconds to the type of a NumericDate. Exact for the next 285 million years.
#[expect(
    clippy::cast_precision_loss,
    reason = "below 2^53 for the next 285 million years"
)]
pub(crate) const fn seconds(seconds: u64) -> f64 {
    seconds as f64
}

/// `nbf` and `exp` (RFC 7519 sections 4.1.4 and 4.1.5), each if present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity {
    pub(crate) not_before: Option<f64>,
    pub(crate) expires: Option<f64>,
}

/// Why the current time is outside a validity period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutOfTime {
    Expired,
    NotYetValid,
}

impl Validity {
    /// Checks that `now` is within the period. Clocks may differ by the leeway.
    pub(crate) fn check(&self, now: Timestamp, leeway: Duration) -> Result<(), OutOfTime> {
        let (now, leeway) = (now.as_numeric_date(), leeway.as_secs_f64());
        if self.expires.is_some_and(|expires| now - leeway >= expires) {
            Err(OutOfTime::Expired)
        } else if self.not_before.is_some_and(|nbf| now + leeway < nbf) {
            Err(OutOfTime::NotYetValid)
        } else {
            Ok(())
        }
    }
}

/// Measures how long something takes.
#[cfg(feature = "redis")]
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch(std::time::Instant);

#[cfg(feature = "redis")]
impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// The source of the time: the operating system, except in tests.
#[derive(Clone)]
pub(crate) struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    pub(crate) fn new(clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(clock))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.read().into()
    }

    /// The current time, including fractions of a second.
    pub(crate) fn read(&self) -> SystemTime {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(SystemTime::now)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock(..)")
    }
}
