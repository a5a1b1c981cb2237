//! Verifies proofs: the checks of [RFC 9449 section
//! 4.3](https://www.rfc-editor.org/rfc/rfc9449#section-4.3), and the rules that both servers share.

pub(crate) mod freshness;
pub(crate) mod public_url;
pub(crate) mod target;
pub(crate) mod replay;
pub(crate) mod nonce_secret;
pub(crate) mod nonce;
pub(crate) mod checks;
pub(crate) mod rules;

pub use crate::credentials::DPOP;
pub use crate::proof::checks::ProofError;
pub use crate::proof::freshness::IatError;
pub use crate::proof::nonce::{DPOP_NONCE, InvalidNonce, Nonce, NonceError, NonceSource};
pub use crate::proof::nonce_secret::{InvalidNonceSecret, InvalidNonceSecrets};
pub use crate::proof::public_url::InvalidPublicUrl;
pub use crate::proof::replay::contract as replay_contract;
pub use crate::proof::replay::epoch::Epoch;
pub use crate::proof::replay::memory::MemoryUsage;
#[cfg(feature = "redis")]
pub use crate::proof::replay::redis::{
    builder::RedisReplayStoreBuilder, health::RedisHealth, health::RedisLinkState,
    server::InvalidRedisUrl, server::RedisServer, start_error::RedisStartError,
    store::RedisReplayStore, tls::InvalidTlsPem,
};
pub use crate::proof::replay::store::{Claim, ReplayKey, ReplayStoreError, UsedProof};
pub use crate::proof::replay::while_unavailable::WhileUnavailable;
pub use crate::proof::target::{RequestTarget, TargetError, TargetResolver, UrlMismatch};
