//! The keys of clients whose requests have passed: parsed, and prepared where they recur.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cache::Cache;
use crate::jose::algorithm::Algorithm;
use crate::jose::engine::{KeyRejected, VerificationKey};
use crate::jose::jwk::{Jwk, Material, SignatureRejected, Thumbprint};
use crate::jose::p256_table::P256Table;

/// A client uses one key for many requests. Parsing a point costs about a tenth of a verification,
/// and a table of its multiples makes each later one cheaper by four tenths (`benches/RESULTS.md`).
///
/// Both caches are bounded. Eviction harms nobody (the key is parsed again), and only requests that
/// passed every check are remembered, so a stranger cannot push the clients' keys out.
#[derive(Clone)]
pub(crate) struct KeyCache {
    parsed: Arc<Cache<(Thumbprint, Algorithm), Arc<ParsedKey>>>,
    /// For ES256. `None` where it is switched off.
    tables: Option<Arc<Cache<Thumbprint, Arc<P256Table>>>>,
}

/// Parsed keys. A few KiB each at most, those of RSA.
const CAPACITY: u64 = 10_000;

/// 16 MiB: some 1,300 keys.
pub(crate) const DEFAULT_TABLE_OCTETS: u64 = 16 * 1024 * 1024;

/// A table, and by estimate what the cache keeps beside it.
const OCTETS_A_TABLE: u64 = P256Table::OCTETS as u64 + 512;

/// A table costs as much as it saves in about ten requests, so it is made for a key that has passed
/// as often. Where there are more such keys than tables may be kept, one that was evicted is made
/// again only after twice as many requests.
const PASSED_BEFORE_A_TABLE: u32 = 8;

pub(crate) struct ParsedKey {
    key: VerificationKey,
    /// What a table is made of. `None` for other algorithms than ES256.
    point: Option<Box<[u8; 65]>>,
    /// Requests that passed by this entry.
    passed: AtomicU32,
}

impl KeyCache {
    /// With tables of at most this many octets in all.
    pub(crate) fn with_tables(octets: u64) -> Self {
        Self {
            parsed: Arc::new(Cache::new(CAPACITY, 1)),
            tables: (octets >= OCTETS_A_TABLE)
                .then(|| Arc::new(Cache::new(octets, OCTETS_A_TABLE))),
        }
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
        if let (Some(tables), Algorithm::Es256) = (&self.tables, algorithm)
            && let Some(table) = tables.get(&thumbprint)
        {
            return Ok(CachedKey::Precomputed(table));
        }
        if let Some(key) = self.parsed.get(&(thumbprint, algorithm)) {
            return Ok(CachedKey::Known(key));
        }
        let parsed = ParsedKey {
            key: VerificationKey::parse(jwk, algorithm)?,
            point: match jwk.material() {
                Material::P256(point) => Some(Box::new(*point)),
                _ => None,
            },
            passed: AtomicU32::new(0),
        };
        Ok(CachedKey::New(Arc::new(parsed)))
    }

    /// Keeps the key of a request that passed.
    pub(crate) fn remember(&self, thumbprint: Thumbprint, algorithm: Algorithm, key: &CachedKey) {
        match key {
            CachedKey::New(key) => {
                self.parsed
                    .insert((thumbprint, algorithm), Arc::clone(key), 1);
            }
            CachedKey::Known(key) => {
                let passed = key.passed.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                if let (Some(tables), Some(point)) = (&self.tables, &key.point)
                    && passed >= PASSED_BEFORE_A_TABLE
                    && passed.is_power_of_two()
                    && let Some(table) = P256Table::new(point)
                {
                    tables.insert(thumbprint, Arc::new(table), OCTETS_A_TABLE);
                }
            }
            CachedKey::Precomputed(_) => {}
        }
    }
}

/// A key that can verify, and where it was found.
pub(crate) enum CachedKey {
    New(Arc<ParsedKey>),
    Known(Arc<ParsedKey>),
    Precomputed(Arc<P256Table>),
}

impl CachedKey {
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureRejected> {
        match self {
            Self::New(key) | Self::Known(key) => key.key.verify(message, signature),
            Self::Precomputed(table) => table.verify(message, signature),
        }
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyCache(..)")
    }
}
