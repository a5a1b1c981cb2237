//! The parsed keys of clients whose requests have passed.

use std::fmt;
use std::sync::Arc;

use moka::sync::Cache;

use crate::jose::algorithm::Algorithm;
use crate::jose::engine::{KeyRejected, VerificationKey};
use crate::jose::jwk::{Jwk, SignatureRejected, Thumbprint};

/// A bounded cache: parsing a point costs about a tenth of a verification (`benches/verify.rs`), and
/// a client uses one key for many requests.
///
/// Eviction harms nobody (the key is parsed again), and only requests that passed every check are
/// remembered, so a stranger cannot push the clients' keys out.
#[derive(Clone)]
pub(crate) struct KeyCache(Cache<(Thumbprint, Algorithm), Arc<VerificationKey>>);

/// A few KiB each at most, that of RSA keys.
const CAPACITY: u64 = 10_000;

impl KeyCache {
    pub(crate) fn new() -> Self {
        Self(Cache::new(CAPACITY))
    }

    /// The remembered key, or one parsed now and not remembered.
    pub(crate) fn get_or_parse(
        &self,
        jwk: &Jwk,
        thumbprint: Thumbprint,
        algorithm: Algorithm,
    ) -> Result<CachedKey, KeyRejected> {
        // Two JWKs of one key may differ in their own `alg`, which the thumbprint does not cover.
        if !jwk.goes_with(algorithm) {
            return Err(KeyRejected);
        }
        match self.0.get(&(thumbprint, algorithm)) {
            Some(key) => Ok(CachedKey::Known(key)),
            None => VerificationKey::parse(jwk, algorithm)
                .map(Arc::new)
                .map(CachedKey::New),
        }
    }

    /// Keeps the key of a request that passed.
    pub(crate) fn remember(&self, thumbprint: Thumbprint, algorithm: Algorithm, key: &CachedKey) {
        if let CachedKey::New(key) = key {
            self.0.insert((thumbprint, algorithm), Arc::clone(key));
        }
    }
}

/// A parsed key, and whether it was in the cache.
pub(crate) enum CachedKey {
    Known(Arc<VerificationKey>),
    New(Arc<VerificationKey>),
}

impl CachedKey {
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureRejected> {
        let (Self::Known(key) | Self::New(key)) = self;
        key.verify(message, signature)
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyCache(..)")
    }
}
