//! The public keys of an issuer of access tokens, and where they come from.

use std::fmt;
use std::future::{self, Future};
use std::str::FromStr;
use std::sync::Arc;

use serde_json::Value;

use crate::jose::algorithm::Algorithm;
use crate::jose::jwk::SignatureRejected;
use crate::jose::recurring_key::LastingKey;
use crate::telemetry::TARGET;
use crate::time::Timestamp;
use crate::tokens::access_token::TokenError;
use crate::tokens::issuer_key::{IssuerKey, Unusable, shown_kid};

/// Where the issuer's keys come from. A [`KeySet`] is a source that never changes; other sources
/// fetch the keys.
///
/// # Example
///
/// Keys that other code keeps up to date:
///
/// ```
/// use std::sync::{Arc, PoisonError, RwLock};
/// use tower_dpop::tokens::{KeySource, KeySourceError};
/// use tower_dpop::{KeySet, Timestamp};
///
/// struct Shared(Arc<RwLock<KeySet>>);
///
/// impl KeySource for Shared {
///     async fn key_set(&self, _now: Timestamp) -> Result<KeySet, KeySourceError> {
///         Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
///     }
///
///     // Somebody else's task: there is nothing to fetch here.
///     async fn newer_key_set(
///         &self,
///         _known: &KeySet,
///         _now: Timestamp,
///     ) -> Result<Option<KeySet>, KeySourceError> {
///         Ok(None)
///     }
/// }
/// ```
pub trait KeySource: Send + Sync + 'static {
    /// The issuer's keys, as currently known.
    ///
    /// This is called for every token that passes the checks that need no key, including cached tokens. While nothing has
    /// changed, return the same set (a clone of it): cached tokens stay valid with the same set and
    /// are discarded with another one.
    fn key_set(
        &self,
        now: Timestamp,
    ) -> impl Future<Output = Result<KeySet, KeySourceError>> + Send;

    /// Another set of the issuer's keys, if there is one, after no key of `known` has verified a
    /// token.
    ///
    /// Anyone can invent such a token: do not let it cause unbounded work.
    fn newer_key_set(
        &self,
        known: &KeySet,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<KeySet>, KeySourceError>> + Send;
}

/// The issuer's keys are unreachable. The request is rejected with 503. The source should log the
/// reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the issuer's keys are not available")]
pub struct KeySourceError;

/// The public keys of an issuer, parsed once. Cloning is cheap.
///
/// It is parsed from a JWK Set (`{"keys":[…]}`) or from a single JWK. The issuer is trusted, so its keys are read as
/// issuers write them: in base64url or standard base64, padded or not; integers with leading zeros, and coordinates
/// without them; members that are `null` are absent, and unknown members are ignored.
///
/// Keys that cannot verify access tokens (unknown types, RSA below 2048 bits) are skipped, as [RFC 7517
/// section 5](https://www.rfc-editor.org/rfc/rfc7517#section-5) says. Each causes one event of the level `warn` with
/// its `kid` and the reason; of the level `debug` if `use` or `key_ops` says that it is for something else (an
/// encryption key). A set without any other key is an error.
///
/// A token names its key by `kid`. A token without `kid` is tried with the first four keys that fit
/// its algorithm. A token whose `kid` matches no key is tried in the same way with the keys that
/// have no `kid`.
///
/// # Example
///
/// ```
/// use tower_dpop::KeySet;
///
/// let keys: KeySet = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#.parse()?;
/// assert!(keys.has_kid("1"));
///
/// // A set without a key that can verify tokens is an error, which says what is wrong with each.
/// let error = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#.parse::<KeySet>().unwrap_err();
/// assert!(error.to_string().contains("oct"), "{error}");
/// # Ok::<(), tower_dpop::tokens::InvalidKeySet>(())
/// ```
#[derive(Clone)]
pub struct KeySet(Arc<[IssuerKey]>);

/// A token without `kid` is tried with at most this many keys, so that it cannot cause a
/// verification with every key of a large set.
const MAX_CANDIDATES: usize = 4;

/// An error lists at most this many keys.
const MAX_REASONS: usize = 8;

impl KeySet {
    /// Whether `other` is the same set: this value, or a clone of it.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The number of keys in the set, all of which can verify access tokens.
    #[expect(clippy::len_without_is_empty, reason = "a set is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a key of the set has this `kid`.
    pub fn has_kid(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    /// Reads a JWK Set or a JWK of this issuer, if it is known, and logs which keys are skipped.
    pub(crate) fn read(
        json: &str,
        issuer: Option<&dyn fmt::Display>,
    ) -> Result<Self, InvalidKeySet> {
        let document: Value = serde_json::from_str(json).map_err(|_| InvalidKeySet::Malformed)?;
        let published = match document.get("keys") {
            Some(Value::Array(keys)) => keys,
            Some(_) => return Err(InvalidKeySet::Malformed),
            None => std::slice::from_ref(&document),
        };
        let (mut keys, mut skipped) = (Vec::new(), Vec::new());
        for (index, json) in published.iter().enumerate() {
            match IssuerKey::read(json) {
                Ok(key) => keys.push(key),
                Err(reason) => skipped.push(Skipped {
                    index,
                    kid: shown_kid(json),
                    reason,
                }),
            }
        }
        if keys.is_empty() {
            return Err(InvalidKeySet::NoUsableKey(reasons(&skipped)));
        }
        for key in &skipped {
            key.report(issuer);
        }
        Ok(Self(keys.into()))
    }

    /// Calls `verify` with the keys that may have signed the token, until one verifies its
    /// signature.
    pub(crate) fn verify(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        verify: impl Fn(&LastingKey) -> Result<(), SignatureRejected>,
    ) -> Result<(), TokenError> {
        let mut outcome = Err(TokenError::Key);
        for key in self.candidates(kid, algorithm).take(MAX_CANDIDATES) {
            if verify(key).is_ok() {
                return Ok(());
            }
            outcome = Err(TokenError::Signature);
        }
        outcome
    }

    /// The keys that may have signed the token: first those with its `kid`, then those without one.
    /// For a token without `kid`, every key.
    fn candidates(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &LastingKey> {
        let named = self
            .0
            .iter()
            .filter(move |key| kid.is_some() && key.kid.as_deref() == kid);
        let others = self
            .0
            .iter()
            .filter(move |key| kid.is_none() || key.kid.is_none());
        named
            .chain(others)
            .flat_map(|key| &key.verifying)
            .filter(move |(usable, _)| *usable == algorithm)
            .map(|(_, key)| key)
    }
}

/// A key that cannot verify access tokens.
struct Skipped {
    /// Its place in the set, from 0: some keys have no `kid`.
    index: usize,
    kid: Option<String>,
    reason: Unusable,
}

impl Skipped {
    fn report(&self, issuer: Option<&dyn fmt::Display>) {
        let Self { index, kid, reason } = self;
        let issuer = issuer.map(tracing::field::display);
        let kid = kid.as_ref().map(tracing::field::debug);
        if reason.is_intended() {
            tracing::debug!(target: TARGET, issuer, index, kid, %reason, "a key of the issuer is for something else, and is skipped");
        } else {
            tracing::warn!(target: TARGET, issuer, index, kid, %reason, "a key of the issuer cannot be used, and is skipped: tokens signed with it are rejected");
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kid {
            Some(kid) => write!(f, "kid {kid:?}: {}", self.reason),
            None => write!(f, "key {} without kid: {}", self.index, self.reason),
        }
    }
}

/// The reasons why no key of a set can be used.
fn reasons(skipped: &[Skipped]) -> String {
    if skipped.is_empty() {
        return "it is empty".to_owned();
    }
    let shown = skipped.iter().take(MAX_REASONS);
    let mut reasons: Vec<_> = shown.map(Skipped::to_string).collect();
    if skipped.len() > MAX_REASONS {
        reasons.push(format!("and {} more", skipped.len() - MAX_REASONS));
    }
    reasons.join("; ")
}

impl FromStr for KeySet {
    type Err = InvalidKeySet;

    fn from_str(json: &str) -> Result<Self, InvalidKeySet> {
        Self::read(json, None)
    }
}

impl KeySource for KeySet {
    fn key_set(
        &self,
        _now: Timestamp,
    ) -> impl Future<Output = Result<KeySet, KeySourceError>> + Send {
        future::ready(Ok(self.clone()))
    }

    fn newer_key_set(
        &self,
        _known: &KeySet,
        _now: Timestamp,
    ) -> impl Future<Output = Result<Option<KeySet>, KeySourceError>> + Send {
        future::ready(Ok(None))
    }
}

/// The keys that verify a signature: the current ones or, if they do not, newer ones.
pub(crate) async fn verifying_keys(
    source: &impl KeySource,
    now: Timestamp,
    verify: impl Fn(&KeySet) -> Result<(), TokenError>,
) -> Result<KeySet, TokenError> {
    let unavailable = |KeySourceError: KeySourceError| TokenError::Unavailable;
    let keys = source.key_set(now).await.map_err(unavailable)?;
    let Err(error) = verify(&keys) else {
        return Ok(keys);
    };
    let newer = source.newer_key_set(&keys, now).await;
    let newer = newer.map_err(unavailable)?.ok_or(error)?;
    verify(&newer)?;
    Ok(newer)
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet")
            .field("keys", &self.0.len())
            .finish_non_exhaustive()
    }
}

/// Why a document is not a usable key set. A configuration error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKeySet {
    /// Neither a JWK Set nor a JWK.
    #[error("neither a JWK Set nor a JWK")]
    Malformed,
    /// No key in it can verify access tokens. Holds the reason for each key, by its `kid`.
    #[error("the key set holds no key that can verify access tokens: {0}")]
    NoUsableKey(String),
}
