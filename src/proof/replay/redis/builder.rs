//! Configures a store, and connects it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::proof::replay::redis::dial::Dialer;
use crate::proof::replay::redis::line::Line;
use crate::proof::replay::redis::server::RedisServer;
use crate::proof::replay::redis::settings::{EvictionRule, Replicas, Settings};
use crate::proof::replay::redis::start_error::RedisStartError;
use crate::proof::replay::redis::store::RedisReplayStore;
use crate::proof::replay::redis::supervisor::Supervisor;
use crate::time::Clock;

impl RedisReplayStore {
    /// A store on this server, with the defaults of the builder's functions.
    pub fn at(server: RedisServer) -> RedisReplayStoreBuilder {
        RedisReplayStoreBuilder {
            server,
            settings: Settings::default(),
        }
    }
}

/// Configures a [`RedisReplayStore`].
#[derive(Clone, Debug)]
#[must_use]
pub struct RedisReplayStoreBuilder {
    server: RedisServer,
    settings: Settings,
}

impl RedisReplayStoreBuilder {
    /// Sets what all keys begin with. The default is `dpop:`. Services that share a server, but not their public URLs, need a
    /// prefix each.
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.settings.prefix);
        self
    }

    /// Sets the longest time of a claim, with all that it waits for: a reply, a new connection, and repetitions. The default is 250 ms:
    /// longer than every pause of a healthy server that was measured, and much shorter than clients wait for a response.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// Sets how far the clocks of the nodes may be apart. Records are kept for so much longer. The default is 30 s, which costs 25% more
    /// memory.
    pub fn with_clock_margin(mut self, margin: Duration) -> Self {
        self.settings.clock_margin = margin;
        self
    }

    /// Sets how many claims may wait at the same time. Further ones are rejected at once. The default is 10,000.
    pub fn with_max_waiting(mut self, claims: usize) -> Self {
        self.settings.max_waiting = claims;
        self
    }

    /// Sets the number of connections, which claims use in turn. The default is one, which carries more than 100,000 claims per second.
    pub fn with_connections(mut self, connections: NonZeroUsize) -> Self {
        self.settings.connections = connections;
        self
    }

    /// Waits with each claim until so many replicas have acknowledged the record (`WAIT`), for at most this long. By default, no replica
    /// is waited for.
    ///
    /// If too few acknowledge it, the request is rejected with 503. The record remains, so the client must sign a new proof. The
    /// same holds if the connection is cut after the record was made.
    ///
    /// One connection then carries a tenth of the claims: it stands still while it waits. `within` should be well below the
    /// deadline. The user needs `+wait`.
    ///
    /// # Security
    ///
    /// A failover then loses no record, if it is to a replica that acknowledged it: with two or more replicas, wait for all that can
    /// be promoted.
    pub fn with_replicas(mut self, replicas: u32, within: Duration) -> Self {
        self.settings.replicas = Some(Replicas {
            count: replicas,
            within,
        });
        self
    }

    /// Accepts a server that removes records when its memory is full (a `maxmemory-policy` other than `noeviction`).
    ///
    /// # Security
    ///
    /// The proof of a removed record can be used again. Nonces do not prevent it: they would all end each
    /// time that a record is removed, so the epoch does not depend on it.
    pub fn with_insecure_eviction(mut self) -> Self {
        self.settings.eviction = EvictionRule::Accepted;
        self
    }

    /// Connects to the server.
    ///
    /// # Errors
    ///
    /// The server is unreachable, or cannot be used. It is tried once, for at most 5 s, after at most half a second for each sentinel.
    pub async fn connect(self) -> Result<RedisReplayStore, RedisStartError> {
        if Handle::try_current().is_err() {
            return Err(RedisStartError::NoRuntime);
        }
        let mut parts = Parts::new(self);
        let line = parts.supervisor.start().await?;
        Ok(parts.run(Some(line)))
    }

    /// Connects in the background. Until the first connection is there, claims are rejected with 503.
    ///
    /// What is wrong with the server is in the log, and in [`health`](RedisReplayStore::health).
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn connect_lazily(self) -> RedisReplayStore {
        Parts::new(self).run(None)
    }
}

/// A store that is not running yet.
struct Parts {
    supervisor: Supervisor,
    settings: Arc<Settings>,
    waiting: Arc<AtomicUsize>,
}

impl Parts {
    fn new(builder: RedisReplayStoreBuilder) -> Self {
        let settings = Arc::new(builder.settings);
        let waiting = Arc::new(AtomicUsize::new(0));
        let supervisor = Supervisor::new(
            Dialer::new(builder.server),
            Arc::clone(&settings),
            Arc::clone(&waiting),
            Clock::default(),
        );
        Self {
            supervisor,
            settings,
            waiting,
        }
    }

    fn run(self, line: Option<Arc<Line>>) -> RedisReplayStore {
        let link = self.supervisor.link();
        let task = tokio::spawn(self.supervisor.run(line));
        RedisReplayStore::new(self.settings, link, self.waiting, task.abort_handle())
    }
}
