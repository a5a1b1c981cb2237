//! A clock that a test sets.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::time::Timestamp;

/// A clock that stands still until a test moves it. Clones are the same clock.
///
/// It starts at one fixed moment, so that a test says the same every day. A server whose clock
/// cannot be set is tested with a clock that starts now: `TestClock::from(SystemTime::now())`.
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
    /// A clock that shows this second after the Unix epoch.
    pub fn at(seconds: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seconds)))
    }

    /// What the clock shows.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.0.load(Ordering::SeqCst))
    }

    /// Shows this second after the Unix epoch from now on, be it earlier or later.
    pub fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::SeqCst);
    }

    /// Shows a later time from now on. Parts of a second are left out.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    /// The clock as a server asks it, for
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
