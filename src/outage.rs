//! Whether something that this service depends on works, so that the log says once when it fails and
//! once when it works again, however many requests that concerns.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::sync::Mutex;
use crate::time::Timestamp;

/// One dependency.
pub(crate) struct Outage {
    /// Read for every request, so without the lock.
    is_down: AtomicBool,
    failures: Mutex<Option<Failures>>,
}

struct Failures {
    began: Timestamp,
    last: Timestamp,
    /// Those that were logged.
    causes: Vec<String>,
}

/// Further causes within one outage are not logged.
const MAX_CAUSES: usize = 8;

impl Outage {
    pub(crate) fn new() -> Self {
        Self {
            is_down: AtomicBool::new(false),
            failures: Mutex::new(None),
        }
    }

    /// Notes a failure. Returns whether to log it: the first for this cause in this outage.
    pub(crate) fn failed(&self, cause: String, now: Timestamp) -> bool {
        let mut failures = self.failures.lock();
        let failures = failures.get_or_insert(Failures {
            began: now,
            last: now,
            causes: Vec::new(),
        });
        self.is_down.store(true, Ordering::Relaxed);
        failures.last = failures.last.max(now);
        let is_new = !failures.causes.contains(&cause) && failures.causes.len() < MAX_CAUSES;
        if is_new {
            failures.causes.push(cause);
        }
        is_new
    }

    /// Notes a success. If it ends an outage, returns how long that was, in seconds: the last failure must
    /// be at least `quiet` seconds ago, because a dependency that fails now and then must not fill the log.
    pub(crate) fn succeeded(&self, quiet: u64, now: Timestamp) -> Option<u64> {
        if !self.is_down.load(Ordering::Relaxed) {
            return None;
        }
        let mut failures = self.failures.lock();
        let ended = failures.take_if(|failures| now >= failures.last.plus(quiet))?;
        self.is_down.store(false, Ordering::Relaxed);
        Some(now.as_unix().saturating_sub(ended.began.as_unix()))
    }
}

/// For dependencies that requests use directly, in seconds.
pub(crate) const QUIET: u64 = 5;
