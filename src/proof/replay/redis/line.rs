//! The connections to one primary, which are replaced together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use redis::{Pipeline, Value};
use tokio::sync::watch;

use crate::proof::replay::redis::dial::Connection;

/// One or more connections to the same server.
pub(crate) struct Line {
    connections: Vec<Connection>,
    next: AtomicUsize,
    /// Claims in a row without a response.
    unanswered: AtomicU32,
    has_answered: AtomicBool,
    trouble: Arc<Trouble>,
}

/// After so many claims in a row without a response, the line is replaced: a network that drops packets reports no error.
const MAX_UNANSWERED: u32 = 8;

/// Why a line is replaced, the least serious first. It is still used while it is only silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// Responses are missing.
    Silent,
    /// What the server says about itself is wrong.
    Probe,
    /// The server takes no writes.
    ReadOnly,
    /// A connection ended.
    Cut,
    /// There was no line before.
    Start,
}

impl Cause {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Probe => "probe",
            Self::ReadOnly => "readonly",
            Self::Cut => "cut",
            Self::Start => "start",
        }
    }
}

/// What is wrong with a line.
pub(crate) struct Trouble(watch::Sender<Option<Cause>>);

impl Trouble {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(crate) fn report(&self, cause: Cause) {
        self.0.send_if_modified(|known| {
            let is_worse = Some(cause) > *known;
            if is_worse {
                *known = Some(cause);
            }
            is_worse
        });
    }

    /// Waits until there is trouble.
    pub(crate) async fn reported(&self) -> Cause {
        let mut causes = self.0.subscribe();
        match causes.wait_for(Option::is_some).await {
            Ok(cause) => cause.unwrap_or(Cause::Cut),
            Err(_) => Cause::Cut,
        }
    }

    /// The line responds again.
    fn is_over(&self) {
        self.0.send_if_modified(|known| {
            let was_silent = *known == Some(Cause::Silent);
            if was_silent {
                *known = None;
            }
            was_silent
        });
    }
}

/// The connection was cut, before or after the server saw the request.
pub(crate) struct Cut;

impl Line {
    pub(crate) fn new(connections: Vec<Connection>, trouble: Arc<Trouble>) -> Self {
        Self {
            connections,
            next: AtomicUsize::new(0),
            unanswered: AtomicU32::new(0),
            has_answered: AtomicBool::new(false),
            trouble,
        }
    }

    /// Sends these commands together and returns their replies, of which each may be an error of the server.
    pub(crate) async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>, Cut> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = &self.connections[next % self.connections.len()];
        let replies = exchange(connection, commands).await;
        let Ok(replies) = replies else {
            self.report(Cause::Cut);
            return Err(Cut);
        };
        // Written only if it changes: all requests share it.
        if self.unanswered.load(Ordering::Relaxed) != 0 {
            self.unanswered.store(0, Ordering::Relaxed);
        }
        if !self.has_answered.load(Ordering::Relaxed) {
            self.has_answered.store(true, Ordering::Relaxed);
        }
        Ok(replies)
    }

    /// A claim ended without a response.
    pub(crate) fn did_not_answer(&self) {
        if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_UNANSWERED {
            self.report(Cause::Silent);
        }
    }

    pub(crate) fn report(&self, cause: Cause) {
        self.trouble.report(cause);
    }

    pub(crate) async fn trouble(&self) -> Cause {
        self.trouble.reported().await
    }

    /// Whether no request must be sent here any more.
    pub(crate) fn is_lost(&self) -> bool {
        *self.trouble.0.borrow() > Some(Cause::Silent)
    }

    /// From now on, a response is new.
    pub(crate) fn listen(&self) {
        self.has_answered.store(false, Ordering::Relaxed);
    }

    /// Whether there was a response since [`listen`](Self::listen) was called. If so, the line is not silent any more.
    pub(crate) fn has_recovered(&self) -> bool {
        let has_recovered = self.has_answered.load(Ordering::Relaxed) && !self.is_lost();
        if has_recovered {
            self.trouble.is_over();
        }
        has_recovered
    }
}

/// The replies to these commands, on one connection.
pub(crate) async fn exchange(
    connection: &Connection,
    commands: &Pipeline,
) -> redis::RedisResult<Vec<Value>> {
    let mut requests = connection.requests.clone();
    requests
        .send_packed_commands(commands, 0, commands.len())
        .await
}
