//! The state of the store, for health checks.

use std::sync::Arc;

use crate::proof::replay::epoch::Epoch;
use crate::proof::replay::redis::line::Line;
use crate::proof::replay::redis::start_error::RedisStartError;
use crate::time::Timestamp;

/// The state of a [`RedisReplayStore`](crate::proof::RedisReplayStore).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RedisHealth {
    /// Whether claims reach the primary.
    pub state: RedisLinkState,
    /// When this state began.
    pub since: Timestamp,
    /// The claims that wait for a response now.
    pub waiting: usize,
    /// Whether the server removes records when its memory is full; `None` if it does not say.
    pub eviction: Option<bool>,
    /// The epoch of the records on the server that was last connected.
    pub epoch: Epoch,
    /// Why the last attempt to connect failed; `None` if the state is `Up`.
    pub failure: Option<RedisStartError>,
}

/// Whether claims reach the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisLinkState {
    /// Claims go to the primary.
    Up,
    /// The connection was cut a moment ago, or there was none yet. Claims wait, within their deadline.
    Connecting,
    /// The last attempt to connect failed, or the server evicts records. Claims are rejected at once.
    Down,
}

/// What claims see of the connection. It changes as a whole.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) state: RedisLinkState,
    pub(crate) since: Timestamp,
    /// Present if the state is `Up`.
    pub(crate) line: Option<Arc<Line>>,
    pub(crate) eviction: Option<bool>,
    pub(crate) epoch: Epoch,
    pub(crate) failure: Option<RedisStartError>,
}

impl Link {
    /// Before the first attempt to connect. No server has this epoch, so no nonce of it is ever accepted.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            state: RedisLinkState::Connecting,
            since: now,
            line: None,
            eviction: None,
            epoch: Epoch::of(b"not connected yet"),
            failure: None,
        }
    }

    /// The line that takes claims now, if there is one.
    pub(crate) fn usable(&self) -> Option<(&Arc<Line>, Epoch)> {
        let line = self.line.as_ref().filter(|line| !line.is_lost())?;
        Some((line, self.epoch))
    }
}
