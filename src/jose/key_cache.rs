//! The parsed keys of clients whose requests have passed.

use std::fmt;
use std::sync::Arc;

use moka::sync::Cache;

use crate::jose::algorithm::Algorithm;
use crate::jose::engine::{KeyRejected, VerificationKey};
use crate::jose::jwk::{Jwk, Thumbprint};

/// A bounded cache: parsing a point costs about a fifth of a verification, and a client uses one
/// key for thousands of requests.
///
/// Eviction harms nobody (the key is parsed again), and only requests that passed every check are
/// remembered, so a stranger cannot push the clients' keys out.
#[derive(Clone)]
pub(crate) struct KeyCache(Cache<(Thumbprint, Algorithm), Arc<VerificationKey>>);

/// About 1 KiB each with the cache's own bookkeeping.
const CAPACITY: u64 = 10_000;

impl KeyCache {
    pub(crate) fn new() -> Self {
        Self(Cache::new(CAPACITY))
    }

    /// The remembered key, or one parsed now and not remembered.
    pub(crate) fn get_or_parse(
        &self,
        jwk: &Jwk,
        algorithm: Algorithm,
    ) -> Result<Arc<VerificationKey>, KeyRejected> {
        // Two JWKs of one key may differ in their own `alg`, which the thumbprint does not cover.
        if !jwk.goes_with(algorithm) {
            return Err(KeyRejected);
        }
        match self.0.get(&(jwk.thumbprint(), algorithm)) {
            Some(key) => Ok(key),
            None => VerificationKey::parse(jwk, algorithm).map(Arc::new),
        }
    }

    /// Keeps the key of a request that passed.
    pub(crate) fn remember(&self, jwk: &Jwk, algorithm: Algorithm, key: &Arc<VerificationKey>) {
        let name = (jwk.thumbprint(), algorithm);
        if !self.0.contains_key(&name) {
            self.0.insert(name, Arc::clone(key));
        }
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyCache(..)")
    }
}
