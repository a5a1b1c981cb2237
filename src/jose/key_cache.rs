//! The keys of clients whose requests have passed: parsed, and prepared where they recur.

use std::fmt;
use std::sync::Arc;

use crate::cache::Cache;
use crate::jose::algorithm::Algorithm;
use crate::jose::engine::KeyRejected;
use crate::jose::jwk::{Jwk, SignatureRejected};
#[cfg(feature = "precomputed-keys")]
use crate::jose::p256_table::P256Table;
use crate::jose::recurring_key::RecurringKey;
use crate::jose::thumbprint::Thumbprint;

/// A client uses one key for many requests. Parsing a point costs about a tenth of a verification; a
/// table of its multiples (feature `precomputed-keys`) makes each later one cheaper by four tenths
/// (`benches/RESULTS.md`).
///
/// What is kept is bounded. Eviction does no harm (the key is parsed again), and only requests that
/// passed every check are remembered, so a stranger cannot push the clients' keys out.
#[derive(Clone)]
pub(crate) struct KeyCache {
    parsed: Arc<Cache<(Thumbprint, Algorithm), Arc<RecurringKey>>>,
    /// For ES256. `None` where it is switched off.
    #[cfg(feature = "precomputed-keys")]
    tables: Option<Arc<Cache<Thumbprint, Arc<P256Table>>>>,
}

/// Parsed keys. A few KiB each at most, those of RSA.
const CAPACITY: u64 = 10_000;

impl KeyCache {
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
        #[cfg(feature = "precomputed-keys")]
        if let (Some(tables), Algorithm::Es256) = (&self.tables, algorithm)
            && let Some(table) = tables.get(&thumbprint)
        {
            return Ok(CachedKey::Precomputed(table));
        }
        if let Some(key) = self.parsed.get(&(thumbprint, algorithm)) {
            return Ok(CachedKey::Known(key));
        }
        CachedKey::parse(jwk, algorithm)
    }

    /// Keeps the key of a request that passed.
    pub(crate) fn remember(&self, thumbprint: Thumbprint, algorithm: Algorithm, key: &CachedKey) {
        match key {
            CachedKey::New(key) => {
                self.parsed
                    .insert((thumbprint, algorithm), Arc::clone(key), 1);
            }
            #[cfg(not(feature = "precomputed-keys"))]
            CachedKey::Known(_) => {}
            #[cfg(feature = "precomputed-keys")]
            CachedKey::Known(key) => {
                if let Some(tables) = &self.tables
                    && let Some(table) = key.served()
                {
                    tables.insert(thumbprint, Arc::new(table), BYTES_PER_TABLE);
                }
            }
            #[cfg(feature = "precomputed-keys")]
            CachedKey::Precomputed(_) => {}
        }
    }
}

impl Default for KeyCache {
    fn default() -> Self {
        #[cfg(feature = "precomputed-keys")]
        {
            Self::with_tables(DEFAULT_TABLE_BYTES)
        }
        #[cfg(not(feature = "precomputed-keys"))]
        Self {
            parsed: Arc::new(Cache::new(CAPACITY, 1)),
        }
    }
}

/// 16 MiB: some 1,300 keys.
#[cfg(feature = "precomputed-keys")]
const DEFAULT_TABLE_BYTES: u64 = 16 * 1024 * 1024;

/// A table, and by estimate what the cache keeps beside it.
#[cfg(feature = "precomputed-keys")]
const BYTES_PER_TABLE: u64 = P256Table::BYTES as u64 + 512;

#[cfg(feature = "precomputed-keys")]
impl KeyCache {
    /// With tables of at most this many bytes in all.
    pub(crate) fn with_tables(bytes: u64) -> Self {
        Self {
            parsed: Arc::new(Cache::new(CAPACITY, 1)),
            tables: (bytes >= BYTES_PER_TABLE)
                .then(|| Arc::new(Cache::new(bytes, BYTES_PER_TABLE))),
        }
    }
}

/// A key that can verify, and where it was found.
pub(crate) enum CachedKey {
    New(Arc<RecurringKey>),
    Known(Arc<RecurringKey>),
    #[cfg(feature = "precomputed-keys")]
    Precomputed(Arc<P256Table>),
}

impl CachedKey {
    pub(crate) fn parse(jwk: &Jwk, algorithm: Algorithm) -> Result<Self, KeyRejected> {
        let key = RecurringKey::parse(jwk, algorithm)?;
        Ok(Self::New(Arc::new(key)))
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureRejected> {
        match self {
            Self::New(key) | Self::Known(key) => key.verify(message, signature),
            #[cfg(feature = "precomputed-keys")]
            Self::Precomputed(table) => table.verify(message, signature),
        }
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyCache(..)")
    }
}
