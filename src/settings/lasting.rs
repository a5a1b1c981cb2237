//! What a verifier of later settings takes over from an earlier one.

use std::fmt;
#[cfg(any(feature = "jwks", feature = "redis"))]
use std::{fs, path::PathBuf};

#[cfg(feature = "redis")]
use zeroize::Zeroizing;

use crate::proof::nonce::StatelessNonces;
use crate::proof::replay::memory::MemoryReplayStore;
#[cfg(feature = "redis")]
use crate::proof::replay::redis::store::RedisReplayStore;
#[cfg(feature = "redis")]
use crate::settings::document::Redis;
#[cfg(feature = "jwks")]
use crate::settings::document::{Document, Http, Issuer, KeyPlace};
#[cfg(feature = "jwks")]
use crate::tokens::jwks::remote_keys::RemoteKeys;

/// Handles to what outlives a change of the settings, with the settings that each depends on.
#[derive(Default)]
pub(crate) struct Lasting {
    /// The replay store of this process. `None`: Redis alone.
    pub(crate) memory: Option<MemoryReplayStore>,
    /// Nonces under a secret that was generated.
    pub(crate) generated_nonces: Option<StatelessNonces>,
    #[cfg(feature = "redis")]
    pub(crate) redis: Option<(RedisAccess, RedisReplayStore)>,
    #[cfg(feature = "jwks")]
    pub(crate) keys: Vec<(KeyAccess, RemoteKeys)>,
}

/// All that a connection to Redis depends on.
#[cfg(feature = "redis")]
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RedisAccess {
    settings: Redis,
    password: Option<Zeroizing<String>>,
    roots: Option<Vec<u8>>,
}

/// All that the fetched keys of an issuer depend on.
#[cfg(feature = "jwks")]
#[derive(PartialEq, Eq)]
pub(crate) struct KeyAccess {
    issuer: String,
    keys: KeyPlace,
    insecure_http: bool,
    http: Http,
    roots: Option<Vec<u8>>,
}

#[cfg(feature = "redis")]
impl RedisAccess {
    pub(crate) fn new(settings: &Redis, password: Option<Zeroizing<String>>) -> Self {
        Self {
            settings: settings.clone(),
            password,
            roots: content(settings.roots_file.as_ref()),
        }
    }

    pub(crate) fn password(&self) -> Option<&str> {
        self.password.as_ref().map(|password| password.as_str())
    }
}

#[cfg(feature = "jwks")]
impl KeyAccess {
    pub(crate) fn new(document: &Document, issuer: &Issuer) -> Self {
        Self {
            issuer: issuer.name(),
            keys: issuer.keys.clone(),
            insecure_http: issuer.insecure_http,
            http: document.http.clone(),
            roots: content(document.http.roots_file.as_ref()),
        }
    }
}

/// The content of a file. If it cannot be read, the connection that needs it reports this.
#[cfg(any(feature = "jwks", feature = "redis"))]
fn content(file: Option<&PathBuf>) -> Option<Vec<u8>> {
    file.and_then(|file| fs::read(file).ok())
}

impl Lasting {
    /// The connection to this Redis.
    #[cfg(feature = "redis")]
    pub(crate) fn redis(&self, access: &RedisAccess) -> Option<RedisReplayStore> {
        let (known, store) = self.redis.as_ref()?;
        (known == access).then(|| store.clone())
    }

    /// The keys of this issuer.
    #[cfg(feature = "jwks")]
    pub(crate) fn keys(&self, access: &KeyAccess) -> Option<RemoteKeys> {
        let mut all = self.keys.iter();
        let found = all.find(|(known, _)| known == access);
        found.map(|(_, keys)| keys.clone())
    }
}

impl fmt::Debug for Lasting {
    /// Without the settings, of which one is a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lasting")
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}
