//! The guide: how to run a service with this crate, where the documentation of one item is not enough.
//!
//! | page | read it if |
//! |---|---|
//! | [`several_nodes`] | several processes serve your public URL |
//!
//! The pages are the files of `docs/guide` in the repository. There is no code here.

/// Replay store, nonces and proxies of a service that runs on 2 to 200 nodes.
#[cfg_attr(
    any(not(doctest), feature = "redis"),
    doc = "",
    doc = include_str!("../docs/guide/several-nodes.md")
)]
/// # Items on this page
///
/// [`ReplayStore`](crate::ReplayStore), [`MemoryReplayStore`](crate::MemoryReplayStore),
/// [`WhileUnavailable`](crate::proof::WhileUnavailable), [`Epoch`](crate::proof::Epoch),
/// [`StatelessNonces`](crate::StatelessNonces), [`NonceSecrets`](crate::NonceSecrets),
/// [`ProofRules`](crate::ProofRules), [`Freshness`](crate::Freshness), [`telemetry`](crate::telemetry).
#[cfg_attr(
    feature = "redis",
    doc = "With the feature `redis`: [`RedisReplayStore`](crate::proof::RedisReplayStore),",
    doc = "[`RedisServer`](crate::proof::RedisServer)."
)]
// The page is in every build. Its code is compiled in builds with the feature `redis`, which half of it needs.
pub mod several_nodes {}
