//! A clock that a test sets.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::time::Timestamp;

/// A clock that stands still until a test moves it. Clones share one time.
///
/// The default time is fixed, so that a test gives the same result every day. For a server whose clock
/// cannot be set, use `TestClock::from(SystemTime::now())`.
///
/// # Example
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_dpop::testing::TestClock;
///
/// let clock = TestClock::default();
/// let server = clock.read(); // for `with_clock`
///
/// clock.advance(Duration::from_secs(91));
/// assert_eq!(server(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_091));
/// ```
#[derive(Clone)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    /// A clock that shows this number of seconds after the Unix epoch.
    pub fn at(seconds: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seconds)))
    }

    /// The time that the clock shows.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.0.load(Ordering::SeqCst))
    }

    /// Sets the clock to this number of seconds after the Unix epoch, earlier or later than before.
    pub fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::SeqCst);
    }

    /// Moves the clock forward. Fractions of a second are ignored.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    /// The clock as a function that a server can call, for
    /// [`ProofRules::with_clock`](crate::ProofRules::with_clock).
    pub fn read(&self) -> impl Fn() -> SystemTime + Send + Sync + 'static {
        let clock = self.clone();
        move || UNIX_EPOCH + Duration::from_secs(clock.now().as_unix())
    }
}

impl Default for TestClock {
    /// November 14, 2023, 22:13:20 UTC.
    fn default() -> Self {
        Self::at(1_700_000_000)
    }
}

impl From<SystemTime> for TestClock {
    fn from(time: SystemTime) -> Self {
        Self::at(Timestamp::from(time).as_unix())
    }
}

impl fmt::Debug for TestClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TestClock")
            .field(&self.now().as_unix())
            .finish()
    }
}
