//! The keys of clients whose requests were accepted: parsed, and precomputed if they recur.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use crate::cache::Cache;
use crate::jose::algorithm::Algorithm;
use crate::jose::engine::KeyRejected;
use crate::jose::jwk::{Jwk, SignatureRejected};
#[cfg(feature = "precomputed-keys")]
use crate::jose::p256_table::P256Table;
use crate::jose::recurring_key::RecurringKey;
use crate::jose::thumbprint::Thumbprint;
use crate::sync::RandomState;

/// A client uses one key for many requests, and its proofs have the same header, with the key in it. So a key
/// is found by the header, which need not be decoded, read and checked again. That would cost 2% of a
/// verification, and parsing the point as much again. A table of the point's multiples (feature
/// `precomputed-keys`) makes each later verification 60% cheaper (`benches/RESULTS.md`).
///
/// The cache is bounded. Eviction is harmless (the header is read again). Only the keys of requests
/// that passed every check are cached, so anonymous traffic cannot evict the clients' keys.
pub(crate) struct KeyCache {
    /// By a keyed hash of the header.
    known: Cache<u64, Arc<KnownKey>>,
    hasher: RandomState,
    /// For ES256. `None` if tables are disabled.
    #[cfg(feature = "precomputed-keys")]
    tables: Option<Cache<Thumbprint, Arc<P256Table>>>,
}

/// A parsed key, and the header of the proofs that name it.
pub(crate) struct KnownKey {
    /// As it was sent: in base64url.
    header: Box<str>,
    thumbprint: Thumbprint,
    algorithm: Algorithm,
    key: RecurringKey,
}

/// 16 MiB: about 11,000 keys of ES256.
const CAPACITY: u64 = 16 * 1024 * 1024;

/// An estimate of what is stored beside the header. RSA keys take a few KiB.
const BYTES_PER_KEY: u64 = 1024;

/// The length of a header with a P-256 key.
const TYPICAL_HEADER: u64 = 330;

impl KeyCache {
    /// The key of an accepted proof with this header, compared as it was sent.
    pub(crate) fn find(&self, header: &str) -> Option<ClientKey> {
        let known = self.known.get(&self.hasher.hash_one(header))?;
        if *known.header != *header {
            return None;
        }
        Some(ClientKey {
            #[cfg(feature = "precomputed-keys")]
            table: self.table_of(&known),
            known,
            is_new: false,
        })
    }

    #[cfg(feature = "precomputed-keys")]
    fn table_of(&self, key: &KnownKey) -> Option<Arc<P256Table>> {
        let tables = self.tables.as_ref()?;
        (key.algorithm == Algorithm::Es256)
            .then(|| tables.get(&key.thumbprint))
            .flatten()
    }

    /// Caches the key of a request that passed every check.
    pub(crate) fn remember(&self, key: &ClientKey) {
        let known = &key.known;
        if key.is_new {
            let weight = known.header.len() as u64 + BYTES_PER_KEY;
            let hash = self.hasher.hash_one(&*known.header);
            self.known.insert(hash, Arc::clone(known), weight);
        }
        #[cfg(feature = "precomputed-keys")]
        if let (Some(tables), false, None) = (&self.tables, key.is_new, &key.table)
            && let Some(table) = known.key.served()
        {
            tables.insert(known.thumbprint, Arc::new(table), BYTES_PER_TABLE);
        }
    }

    fn known() -> Cache<u64, Arc<KnownKey>> {
        Cache::new(CAPACITY, BYTES_PER_KEY + TYPICAL_HEADER)
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
            known: Self::known(),
            hasher: RandomState::default(),
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
            known: Self::known(),
            hasher: RandomState::default(),
            tables: (bytes >= BYTES_PER_TABLE).then(|| Cache::new(bytes, BYTES_PER_TABLE)),
        }
    }
}

/// A client's key that can verify.
pub(crate) struct ClientKey {
    known: Arc<KnownKey>,
    is_new: bool,
    #[cfg(feature = "precomputed-keys")]
    table: Option<Arc<P256Table>>,
}

impl ClientKey {
    /// The key of a header that was read and checked.
    pub(crate) fn parse(
        header: &str,
        jwk: &Jwk,
        thumbprint: Thumbprint,
        algorithm: Algorithm,
    ) -> Result<Self, KeyRejected> {
        Ok(Self {
            known: Arc::new(KnownKey {
                header: header.into(),
                thumbprint,
                algorithm,
                key: RecurringKey::parse(jwk, algorithm)?,
            }),
            is_new: true,
            #[cfg(feature = "precomputed-keys")]
            table: None,
        })
    }

    pub(crate) fn thumbprint(&self) -> Thumbprint {
        self.known.thumbprint
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.known.algorithm
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureRejected> {
        #[cfg(feature = "precomputed-keys")]
        if let Some(table) = &self.table {
            return table.verify(message, signature);
        }
        self.known.key.verify(message, signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_header_of_an_accepted_proof_is_known() {
        let jwk: Jwk =
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#
                .parse()
                .unwrap();
        let cache = KeyCache::default();
        let key = ClientKey::parse("one", &jwk, jwk.thumbprint(), Algorithm::Ed25519).unwrap();
        assert!(cache.find("one").is_none());
        cache.remember(&key);
        assert_eq!(cache.find("one").unwrap().thumbprint(), jwk.thumbprint());
        for other in ["", "on", "One", "ones"] {
            assert!(cache.find(other).is_none(), "{other}");
        }
        // Another header whose hash were the same.
        cache
            .known
            .insert(cache.hasher.hash_one("other"), key.known, 1);
        assert!(cache.find("other").is_none());
    }
    #[cfg(feature = "precomputed-keys")]
    #[test]
    fn a_p256_key_that_recurs_has_a_table_if_there_is_room_for_one() {
        // RFC 7515 appendix A.3.1, RFC 8037 appendix A.2.
        let p256 = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
        let ed25519 =
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        for (jwk, algorithm, bytes, expected) in [
            (p256, Algorithm::Es256, DEFAULT_TABLE_BYTES, true),
            (p256, Algorithm::Es256, BYTES_PER_TABLE - 1, false),
            (p256, Algorithm::Es256, 0, false),
            (ed25519, Algorithm::Ed25519, DEFAULT_TABLE_BYTES, false),
        ] {
            let jwk: Jwk = jwk.parse().unwrap();
            let cache = KeyCache::with_tables(bytes);
            cache.remember(&ClientKey::parse("one", &jwk, jwk.thumbprint(), algorithm).unwrap());
            for _ in 0..7 {
                let key = cache.find("one").unwrap();
                assert!(key.table.is_none());
                cache.remember(&key);
            }
            cache.remember(&cache.find("one").unwrap());
            let key = cache.find("one").unwrap();
            assert_eq!(key.table.is_some(), expected, "{algorithm}, {bytes} bytes");
        }
    }
}
