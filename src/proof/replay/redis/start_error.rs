//! Why there is no usable connection to a Redis primary.

/// Why a [`RedisReplayStore`](crate::proof::RedisReplayStore) cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedisStartError {
    /// The server is a node of a Redis Cluster. All claims must go to one primary, because its identity is part of
    /// what nonces are bound to ([`Epoch`](crate::proof::Epoch)); and the client library's cluster connection was
    /// seen to stall for good when connections are killed while it reconnects. The test in `tests/nodes/faults/cluster.rs` of
    /// the repository shows this.
    #[error(
        "{address} is a node of a Redis Cluster: the replay store needs one primary for all keys (cluster-enabled no)"
    )]
    ClusterMode {
        /// The address of the server.
        address: String,
    },
    /// The server removes records when its memory is full, so that proofs could be used again.
    #[error(
        "{address} evicts records when its memory is full (maxmemory-policy {policy}): set maxmemory-policy noeviction"
    )]
    EvictsRecords {
        /// The address of the server.
        address: String,
        /// Its `maxmemory-policy`.
        policy: String,
    },
    /// There is no tokio runtime.
    #[error("there is no tokio runtime")]
    NoRuntime,
    /// The server is a replica.
    #[error("{address} is a replica: the replay store needs the primary")]
    NotAPrimary {
        /// The address of the server.
        address: String,
    },
    /// The server takes no writes now.
    #[error("{address} takes no writes: it responds with {code}")]
    NotWritable {
        /// The address of the server.
        address: String,
        /// The first word of the server's error, such as `LOADING` or `NOREPLICAS`.
        code: String,
    },
    /// A sentinel named a primary on another host, and the sentinels' URLs do not use TLS.
    #[error("{address} is on another host, and the sentinels' URLs are not rediss://")]
    Plaintext {
        /// The address of the primary.
        address: String,
    },
    /// The credentials are wrong, or their user may not run the commands of the store.
    #[error(
        "{address} rejects the credentials, or does not permit SET on the store's keys: {code}"
    )]
    Rejected {
        /// The address of the server.
        address: String,
        /// The first word of the server's error, such as `WRONGPASS`, `NOAUTH` or `NOPERM`.
        code: String,
    },
    /// `SET` has no `NX GET`, which is new in Redis 7.0.
    #[error(
        "{address} does not know SET with NX and GET: Redis 7.0 or later, or Valkey, is needed"
    )]
    TooOld {
        /// The address of the server.
        address: String,
    },
    /// The sentinels do not know a primary of this name.
    #[error("the sentinels know no primary with the name {name:?}")]
    UnknownPrimary {
        /// The name.
        name: String,
    },
    /// No connection, or no response on it.
    #[error("{address} is unreachable: {reason}")]
    Unreachable {
        /// The address of the server.
        address: String,
        /// What the operating system, or TLS, reports.
        reason: String,
    },
}
