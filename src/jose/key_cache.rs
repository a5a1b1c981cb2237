//! The keys of clients whose requests were accepted: parsed, and precomputed if they recur.

use std::sync::Arc;

use crate::cache::Cache;
use crate::jose::algorithm::Algorithm;
use crate::jose::engine::KeyRejected;
use crate::jose::jwk::{Jwk, SignatureRejected};
#[cfg(feature = "precomputed-keys")]
use crate::jose::p256_table::P256Table;
use crate::jose::recurring_key::RecurringKey;
use crate::jose::thumbprint::Thumbprint;

/// A client uses one key for many requests. Parsing a point costs about 10% of a verification. A
/// table of its multiples (feature `precomputed-keys`) makes each later verification 60% cheaper
/// (`benches/RESULTS.md`).
///
/// The cache is bounded. Eviction is harmless (the key is parsed again). Only the keys of requests
/// that passed every check are cached, so anonymous traffic cannot evict the clients' keys.
pub(crate) struct KeyCache {
    parsed: Cache<(Thumbprint, Algorithm), Arc<RecurringKey>>,
    /// For ES256. `None` if tables are disabled.
    #[cfg(feature = "precomputed-keys")]
    tables: Option<Cache<Thumbprint, Arc<P256Table>>>,
}

/// The maximum number of parsed keys. The largest, RSA keys, take a few KiB each.
const CAPACITY: u64 = 10_000;

impl KeyCache {
    /// Returns the cached key, or parses the key without caching it.
    pub(crate) fn get_or_parse(
        &self,
        jwk: &Jwk,
        thumbprint: Thumbprint,
        algorithm: Algorithm,
    ) -> Result<CachedKey, KeyRejected> {
        // Two JWKs of the same key may differ in their own `alg`, which the thumbprint does not cover.
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

    /// Caches the key of a request that passed every check.
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
            parsed: Cache::new(CAPACITY, 1),
        }
    }
}

/// 32 MiB: about 1,000 keys.
#[cfg(feature = "precomputed-keys")]
const DEFAULT_TABLE_BYTES: u64 = 32 * 1024 * 1024;

/// The size of a table, plus an estimate of what the cache stores beside it.
#[cfg(feature = "precomputed-keys")]
const BYTES_PER_TABLE: u64 = P256Table::BYTES as u64 + 512;

#[cfg(feature = "precomputed-keys")]
impl KeyCache {
    /// A cache whose tables take at most this many bytes in total.
    pub(crate) fn with_tables(bytes: u64) -> Self {
        Self {
            parsed: Cache::new(CAPACITY, 1),
            tables: (bytes >= BYTES_PER_TABLE).then(|| Cache::new(bytes, BYTES_PER_TABLE)),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A proof with this JWK is rejected before; the cache does not rely on it.
    #[test]
    fn a_known_key_is_not_used_for_an_algorithm_that_the_jwk_rules_out() {
        let jwk = |alg: &str| -> Jwk {
            let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
            let json = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"{alg}}}"#);
            json.parse().unwrap()
        };
        let cache = KeyCache::default();
        let (plain, contrary) = (jwk(""), jwk(r#","alg":"ES256""#));
        let thumbprint = plain.thumbprint();
        assert_eq!(thumbprint, contrary.thumbprint());
        let key = cache.get_or_parse(&plain, thumbprint, Algorithm::Ed25519);
        cache.remember(thumbprint, Algorithm::Ed25519, &key.unwrap());
        let find = |jwk| cache.get_or_parse(jwk, thumbprint, Algorithm::Ed25519);
        assert!(matches!(find(&plain), Ok(CachedKey::Known(_))));
        assert!(matches!(find(&contrary), Err(KeyRejected)));
    }
}
