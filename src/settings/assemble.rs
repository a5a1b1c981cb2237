//! Builds what the settings describe, in one order: first what needs no network, then what must be reached.

use std::fs;

use derive_where::derive_where;
use serde::de::DeserializeOwned;

use crate::proof::nonce::StatelessNonces;
use crate::proof::nonce_secret::NonceSecret;
use crate::proof::replay::memory::MemoryReplayStore;
#[cfg(feature = "redis")]
use crate::proof::replay::redis::server::RedisServer;
#[cfg(feature = "redis")]
use crate::proof::replay::redis::store::RedisReplayStore;
#[cfg(feature = "redis")]
use crate::proof::replay::while_unavailable::WhileUnavailable;
use crate::proof::rules::ProofRules;
use crate::resource::verifier::Verifier;
use crate::settings::document::{Document, Issuer, KeyPlace, Nonces, Redis};
use crate::settings::fault::Fault;
#[cfg(feature = "jwks")]
use crate::settings::lasting::KeyAccess;
use crate::settings::lasting::Lasting;
#[cfg(feature = "redis")]
use crate::settings::lasting::RedisAccess;
use crate::settings::secrets::Secrets;
use crate::time::Timestamp;
use crate::tokens::claims::Claims;
#[cfg(feature = "introspection")]
use crate::tokens::introspection::verifier::IntrospectionVerifier;
use crate::tokens::issuers::Issuers;
#[cfg(feature = "jwks")]
use crate::tokens::jwks::remote_keys::RemoteKeys;
use crate::tokens::jwt::JwtVerifier;
use crate::tokens::key_set::{KeySet, KeySource, KeySourceError};

/// A verifier that was built from settings, and handles to what it uses.
#[derive_where(Debug)]
#[non_exhaustive]
pub struct Parts<C = Claims> {
    /// The verifier.
    pub verifier: Verifier<C>,
    /// The source of nonces, if they are required: for replacing its secrets.
    pub nonces: Option<StatelessNonces>,
    /// The keys of each issuer that are fetched, in the order of the settings: for health checks. (Feature `jwks`.)
    #[cfg(feature = "jwks")]
    pub keys: Vec<RemoteKeys>,
    /// The replay store, if it is Redis: for health checks. (Feature `redis`.)
    #[cfg(feature = "redis")]
    pub redis: Option<RedisReplayStore>,
    pub(crate) lasting: Lasting,
}

/// The keys of an issuer, from a file or from the network.
enum Keys {
    Fixed(KeySet),
    #[cfg(feature = "jwks")]
    Fetched(RemoteKeys),
}

impl KeySource for Keys {
    async fn key_set(&self, now: Timestamp) -> Result<KeySet, KeySourceError> {
        match self {
            Self::Fixed(keys) => keys.key_set(now).await,
            #[cfg(feature = "jwks")]
            Self::Fetched(keys) => keys.key_set(now).await,
        }
    }

    async fn newer_key_set(
        &self,
        known: &KeySet,
        now: Timestamp,
    ) -> Result<Option<KeySet>, KeySourceError> {
        match self {
            Self::Fixed(keys) => keys.newer_key_set(known, now).await,
            #[cfg(feature = "jwks")]
            Self::Fetched(keys) => keys.newer_key_set(known, now).await,
        }
    }
}

impl Document {
    /// Takes over what it can from an earlier verifier.
    #[cfg_attr(
        not(any(feature = "jwks", feature = "redis")),
        expect(clippy::unused_async, reason = "as with the features")
    )]
    pub(crate) async fn assemble<C>(
        &self,
        secrets: &Secrets,
        previous: Option<&Lasting>,
    ) -> Result<Parts<C>, Fault>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        let Local {
            rules,
            tokens,
            nonces,
            memory,
            #[cfg(feature = "jwks")]
            remote,
            #[cfg(feature = "redis")]
            redis,
        } = self.local(secrets, previous)?;
        #[cfg(feature = "redis")]
        let (rules, redis) = self
            .with_redis(rules, memory.clone(), redis, previous)
            .await?;
        #[cfg(feature = "jwks")]
        self.fetch(&self.new_keys(&remote, previous)).await?;
        Ok(Parts {
            verifier: self.verifier(rules, tokens),
            lasting: Lasting {
                memory,
                generated_nonces: nonces
                    .clone()
                    .filter(|_| matches!(self.nonces, Nonces::Generated)),
                #[cfg(feature = "jwks")]
                keys: self.with_access(&remote),
                #[cfg(feature = "redis")]
                redis: redis
                    .as_ref()
                    .map(|(access, store)| (access.clone(), store.clone())),
            },
            nonces,
            #[cfg(feature = "jwks")]
            keys: remote.into_iter().map(|(_, keys)| keys).collect(),
            #[cfg(feature = "redis")]
            redis: redis.map(|(_, store)| store),
        })
    }

    /// All that needs no network. Files and secrets are read.
    pub(crate) fn local<C>(
        &self,
        secrets: &Secrets,
        previous: Option<&Lasting>,
    ) -> Result<Local<C>, Fault>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        let nonces = self.nonces(secrets, previous)?;
        let memory = self.memory(previous);
        let rules = self.rules(nonces.clone(), memory.clone())?;
        let mut keys = Vec::new();
        for (number, issuer) in self.issuer.iter().enumerate() {
            keys.push(self.keys(number, issuer, previous)?);
        }
        #[cfg(feature = "jwks")]
        let remote = remote(&keys);
        let tokens = self.issuers(keys)?;
        #[cfg(feature = "introspection")]
        let tokens = self.with_introspection(tokens, secrets)?;
        #[cfg(not(feature = "introspection"))]
        let tokens = Tokens::Issuers(tokens);
        #[cfg(feature = "redis")]
        let redis = self.redis.as_ref().map(|redis| {
            let access = redis.access(secrets)?;
            let server = redis.server_with(&access)?;
            Ok((access, server))
        });
        Ok(Local {
            rules,
            tokens,
            nonces,
            memory,
            #[cfg(feature = "jwks")]
            remote,
            #[cfg(feature = "redis")]
            redis: redis.transpose()?,
        })
    }

    fn nonces(
        &self,
        secrets: &Secrets,
        previous: Option<&Lasting>,
    ) -> Result<Option<StatelessNonces>, Fault> {
        let generated = previous.and_then(|previous| previous.generated_nonces.clone());
        Ok(match &self.nonces {
            Nonces::Off => None,
            Nonces::Generated => {
                Some(generated.unwrap_or_else(|| StatelessNonces::new(NonceSecret::generate())))
            }
            Nonces::Secrets(reference) => {
                let secrets = secrets.of_nonces("nonces", reference)?;
                Some(StatelessNonces::new(secrets))
            }
        })
    }

    fn rules(
        &self,
        nonces: Option<StatelessNonces>,
        memory: Option<MemoryReplayStore>,
    ) -> Result<ProofRules, Fault> {
        let mut urls = self.public_urls()?;
        let first = ProofRules::new(urls.remove(0));
        let mut rules = urls
            .into_iter()
            .fold(first, ProofRules::add_public_url)
            .with_algorithms(self.algorithms)
            .with_freshness(self.freshness);
        if let Some(nonces) = nonces {
            rules = rules.with_nonces(nonces);
        }
        if self.insecure_one_use_per_node {
            rules = rules.with_insecure_one_use_per_node();
        }
        if let Some(memory) = memory {
            rules = rules.with_replay_store(memory);
        }
        Ok(rules)
    }

    /// The replay store in memory. `None`: Redis alone.
    fn memory(&self, previous: Option<&Lasting>) -> Option<MemoryReplayStore> {
        let node_memory = |redis: &Redis| redis.insecure_node_memory;
        if !self.redis.as_ref().is_none_or(node_memory) {
            return None;
        }
        let memory = previous.and_then(|previous| previous.memory.clone());
        Some(memory.unwrap_or_else(|| {
            self.replay_memory_limit
                .map_or_else(MemoryReplayStore::default, MemoryReplayStore::with_limit)
        }))
    }

    #[cfg(feature = "redis")]
    async fn with_redis(
        &self,
        rules: ProofRules,
        memory: Option<MemoryReplayStore>,
        redis: Option<(RedisAccess, RedisServer)>,
        previous: Option<&Lasting>,
    ) -> Result<(ProofRules, Option<(RedisAccess, RedisReplayStore)>), Fault> {
        let (Some(settings), Some((access, server))) = (&self.redis, redis) else {
            return Ok((rules, None));
        };
        let store = match previous.and_then(|previous| previous.redis(&access)) {
            Some(store) => store,
            None => self.connect(settings, server).await?,
        };
        let handle = Some((access, store.clone()));
        let rules = match memory {
            Some(memory) => {
                let store = WhileUnavailable::insecurely_by_node_memory(store, memory);
                rules.with_replay_store(store)
            }
            None => rules.with_replay_store(store),
        };
        Ok((rules, handle))
    }

    #[cfg_attr(
        not(feature = "jwks"),
        expect(unused_variables, reason = "as with the feature")
    )]
    fn keys(
        &self,
        number: usize,
        issuer: &Issuer,
        previous: Option<&Lasting>,
    ) -> Result<Keys, Fault> {
        let KeyPlace::File(file) = &issuer.keys else {
            #[cfg(feature = "jwks")]
            {
                // Also if the keys are taken over: `http` is checked.
                let new = self.remote_keys(number, issuer, self.http.client()?)?;
                let access = KeyAccess::new(self, issuer);
                let known = previous.and_then(|previous| previous.keys(&access));
                return Ok(Keys::Fetched(known.unwrap_or(new)));
            }
            #[cfg(not(feature = "jwks"))]
            unreachable!("checked when the settings were read");
        };
        let failed = |error: &dyn std::fmt::Display| {
            let path = self.issuer_path(number, "jwks_file");
            Fault::at(path, format!("{}: {error}", file.display()))
        };
        let json = fs::read_to_string(file).map_err(|error| failed(&error))?;
        let keys = KeySet::read(&json, Some(&issuer.url)).map_err(|error| failed(&error))?;
        Ok(Keys::Fixed(keys))
    }

    /// Each of these keys with what it depends on.
    #[cfg(feature = "jwks")]
    fn with_access(&self, keys: &[(usize, RemoteKeys)]) -> Vec<(KeyAccess, RemoteKeys)> {
        let access = |number: usize| KeyAccess::new(self, &self.issuer[number]);
        let keys = keys.iter();
        keys.map(|(number, keys)| (access(*number), keys.clone()))
            .collect()
    }

    /// Those of the keys that were not taken over.
    #[cfg(feature = "jwks")]
    fn new_keys(
        &self,
        keys: &[(usize, RemoteKeys)],
        previous: Option<&Lasting>,
    ) -> Vec<(usize, RemoteKeys)> {
        let mut keys = keys.to_vec();
        if let Some(previous) = previous {
            keys.retain(|(number, _)| {
                let access = KeyAccess::new(self, &self.issuer[*number]);
                previous.keys(&access).is_none()
            });
        }
        keys
    }

    fn issuers<C>(&self, keys: Vec<Keys>) -> Result<Issuers<C>, Fault>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        let mut issuers = Issuers::new();
        for (issuer, keys) in self.issuer.iter().zip(keys) {
            issuers = issuers.add_issuer(self.jwt_verifier(issuer, keys)?);
        }
        Ok(issuers)
    }

    #[cfg(feature = "introspection")]
    fn with_introspection<C>(
        &self,
        issuers: Issuers<C>,
        secrets: &Secrets,
    ) -> Result<Tokens<C>, Fault>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        let Some(introspection) = &self.introspection else {
            return Ok(Tokens::Issuers(issuers));
        };
        let path = "introspection.client_secret";
        let secret = introspection.client_secret.as_ref();
        let secret = secret.ok_or_else(|| Fault::at(path, "must be set"))?;
        let secret = secrets.read(path, secret)?;
        let http = self.http.client()?;
        let tokens = self.introspection_verifier(introspection, &secret, http)?;
        Ok(if self.issuer.is_empty() {
            Tokens::Introspected(Box::new(tokens))
        } else {
            Tokens::Issuers(issuers.with_opaque_tokens(tokens))
        })
    }

    fn jwt_verifier<C>(&self, issuer: &Issuer, keys: Keys) -> Result<JwtVerifier<Keys, C>, Fault>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        let audiences = match issuer.audience.as_slice() {
            [] => self.audiences()?,
            own => own.to_vec(),
        };
        let mut audiences = audiences.into_iter();
        let first = audiences.next().unwrap_or_default();
        let tokens = JwtVerifier::new(&issuer.url, first, keys);
        let mut tokens = audiences.fold(tokens, JwtVerifier::add_audience);
        if let Some(profile) = issuer.profile {
            tokens = tokens.with_profile(profile);
        }
        if issuer.lenient_typ {
            tokens = tokens.with_lenient_typ();
        }
        if let Some(algorithms) = issuer.algorithms {
            tokens = tokens.with_algorithms(algorithms);
        }
        Ok(tokens.with_claims())
    }

    fn verifier<C: DeserializeOwned + Send + Sync + 'static>(
        &self,
        rules: ProofRules,
        tokens: Tokens<C>,
    ) -> Verifier<C> {
        let mut verifier = match tokens {
            Tokens::Issuers(tokens) => Verifier::new(rules, tokens),
            #[cfg(feature = "introspection")]
            Tokens::Introspected(tokens) => Verifier::new(rules, *tokens),
        };
        if self.allow_bearer {
            verifier = verifier.allow_bearer();
        }
        if self.insecure_unchecked_cnf {
            verifier = verifier.allow_insecure_unchecked_cnf();
        }
        if let Some(realm) = &self.realm {
            verifier = verifier.with_realm(realm.clone());
        }
        if let Some(scope) = &self.scope {
            verifier = verifier.with_scope(scope.clone());
        }
        if let Some(url) = &self.resource_metadata {
            verifier = verifier.with_resource_metadata(url.clone());
        }
        verifier
    }
}

/// What a verifier is built from, before a server is contacted.
pub(crate) struct Local<C> {
    rules: ProofRules,
    tokens: Tokens<C>,
    nonces: Option<StatelessNonces>,
    memory: Option<MemoryReplayStore>,
    /// With the numbers of their issuers.
    #[cfg(feature = "jwks")]
    remote: Vec<(usize, RemoteKeys)>,
    #[cfg(feature = "redis")]
    redis: Option<(RedisAccess, RedisServer)>,
}

/// The verifier of all tokens.
enum Tokens<C> {
    Issuers(Issuers<C>),
    #[cfg(feature = "introspection")]
    Introspected(Box<IntrospectionVerifier<C>>),
}

/// Handles to the keys that are fetched, with the numbers of their issuers.
#[cfg(feature = "jwks")]
fn remote(keys: &[Keys]) -> Vec<(usize, RemoteKeys)> {
    let numbered = keys.iter().enumerate();
    numbered
        .filter_map(|(number, keys)| match keys {
            Keys::Fixed(_) => None,
            Keys::Fetched(keys) => Some((number, keys.clone())),
        })
        .collect()
}
