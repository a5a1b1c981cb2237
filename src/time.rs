//! Moments.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment, in whole seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment this many seconds after the Unix epoch.
    pub const fn from_unix(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Seconds since the Unix epoch.
    pub const fn as_unix(self) -> u64 {
        self.0
    }

    /// The moment this many seconds later, or the last there is.
    #[must_use]
    pub const fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// As a NumericDate, which JSON writes as a double. Exact for the next 285 million years.
    #[expect(
        clippy::cast_precision_loss,
        reason = "below 2^53 for the next 285 million years"
    )]
    pub(crate) const fn as_numeric_date(self) -> f64 {
        self.0 as f64
    }
}

impl From<SystemTime> for Timestamp {
    /// The second in which the moment lies; moments before 1970 become 1970.
    fn from(time: SystemTime) -> Self {
        Self(
            time.duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        )
    }
}
