//! What is known of one request, from its header to its end.

use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::l4::socket::SocketAddr;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::generation::Generation;
use crate::operations::Record;
use crate::policy::Passed;
use crate::proxy::bounded::{Limit, Waiting};
use crate::upstreams::Chosen;

pub(crate) struct Context {
    /// A reload does not affect a running request.
    pub(crate) generation: Arc<Generation>,
    /// For the log and the metrics.
    pub(super) record: Record,
    /// `None`: the policy has not accepted the request.
    pub(super) passed: Option<Passed>,
    /// The server of the last attempt.
    pub(super) chosen: Option<Chosen>,
    /// The addresses to which no connection could be made.
    pub(super) unreachable: Vec<SocketAddr>,
    pub(super) limit: Limit,
    /// If pingora's timeouts do not fit. Then `limit` is set again whenever something is read.
    read_timeout: Option<(Duration, Waiting)>,
    /// The process does not end before the request.
    _running: TaskTrackerToken,
}

impl Context {
    /// Of a request whose header has just been read.
    pub(super) fn new(
        generation: Arc<Generation>,
        limit: Limit,
        running: TaskTrackerToken,
    ) -> Self {
        limit.lift();
        Self {
            generation,
            record: Record::start("proxy"),
            passed: None,
            chosen: None,
            unreachable: Vec::new(),
            limit,
            read_timeout: None,
            _running: running,
        }
    }

    /// The name of the service, for logs and metrics.
    pub(crate) fn upstream(&self) -> Option<&str> {
        self.passed.as_ref()?.route.settings.upstream.as_deref()
    }

    /// Sets a read timeout that replaces pingora's own.
    pub(super) fn limit_reads(&mut self, timeout: Option<Duration>) {
        let upstream = self.upstream().unwrap_or_default();
        self.read_timeout = timeout.map(|timeout| (timeout, Some(Arc::from(upstream))));
        self.made_progress();
    }

    /// The service has responded, and a client of HTTP/2 has not sent all of the body. pingora would wait for it forever.
    pub(super) fn limit_upload(&mut self, client_timeout: Duration) {
        if self.read_timeout.is_some() {
            return;
        }
        // Both may still send something.
        let chosen = self.chosen.as_ref();
        let service = chosen.and_then(|chosen| chosen.server.read_timeout());
        self.read_timeout = Some((client_timeout.max(service.unwrap_or_default()), None));
        self.made_progress();
    }

    pub(super) fn upload_ended(&mut self) {
        if self
            .read_timeout
            .take_if(|(_, waiting)| waiting.is_none())
            .is_some()
        {
            self.limit.lift();
        }
    }

    pub(super) fn made_progress(&self) {
        if let Some((timeout, waiting)) = &self.read_timeout {
            self.limit.set(*timeout, waiting.clone());
        }
    }
}
