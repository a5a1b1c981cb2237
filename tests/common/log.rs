//! What a test's thread logs.

use std::io;
use std::sync::{Arc, Mutex};

use tracing::subscriber::DefaultGuard;

use crate::enable_tracing_callsites;

/// The log of one thread.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Collects what this thread logs until the guard is dropped: the events that match the filter, which
    /// has the syntax of `RUST_LOG`.
    #[must_use]
    pub fn start(filter: &str) -> (Self, DefaultGuard) {
        enable_tracing_callsites();
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log of the work, at every level and from every crate.
pub fn logged<T>(work: impl FnOnce() -> T) -> (T, String) {
    let (log, _guard) = Log::start("trace");
    let result = work();
    (result, log.text())
}
