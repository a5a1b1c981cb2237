//! What a store can be configured with, besides the server.

use std::num::NonZeroUsize;
use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) prefix: String,
    pub(crate) deadline: Duration,
    pub(crate) clock_margin: Duration,
    pub(crate) max_waiting: usize,
    pub(crate) connections: NonZeroUsize,
    pub(crate) replicas: Option<Replicas>,
    pub(crate) eviction: EvictionRule,
}

/// How many replicas must acknowledge a record, and within which time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replicas {
    pub(crate) count: u32,
    pub(crate) within: Duration,
}

/// What a server is good for that removes records when its memory is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EvictionRule {
    Accepted,
    Rejected,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: "dpop:".to_owned(),
            deadline: Duration::from_millis(250),
            clock_margin: Duration::from_secs(30),
            max_waiting: 10_000,
            connections: NonZeroUsize::MIN,
            replicas: None,
            eviction: EvictionRule::Rejected,
        }
    }
}
