//! The public keys of an issuer of access tokens, and where they come from.

use std::fmt;
use std::future::{self, Future};
use std::str::FromStr;
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, KeyOperations, PublicKeyUse};
use serde::Deserialize;
use serde_json::Value;

use crate::jose::algorithm::Algorithm;
use crate::jose::jwk::{Jwk, Parameters, SignatureRejected};
use crate::jose::recurring_key::LastingKey;
use crate::time::Timestamp;
use crate::tokens::access_token::TokenError;

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
/// It is parsed from a JWK Set (`{"keys":[…]}`) or from a single JWK. Keys that cannot verify
/// access tokens (encryption keys, unknown types, RSA below 2048 bits) are ignored, as [RFC 7517
/// section 5](https://www.rfc-editor.org/rfc/rfc7517#section-5) says; a set without any other key
/// is an error.
///
/// A token names its key by `kid`. A token without `kid` is tried with the first four keys that fit
/// its algorithm. A token whose `kid` matches no key is tried in the same way with the keys that
/// have no `kid`.
#[derive(Clone)]
pub struct KeySet(Arc<[IssuerKey]>);

struct IssuerKey {
    kid: Option<String>,
    verifying: Vec<(Algorithm, LastingKey)>,
}

/// A token without `kid` is tried with at most this many keys, so that it cannot cause a
/// verification with every key of a large set.
const MAX_CANDIDATES: usize = 4;

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

impl FromStr for KeySet {
    type Err = InvalidKeySet;

    fn from_str(json: &str) -> Result<Self, InvalidKeySet> {
        let document: Value = serde_json::from_str(json).map_err(|_| InvalidKeySet::Malformed)?;
        let keys: Vec<_> = match document.get("keys") {
            Some(Value::Array(keys)) => keys.iter().filter_map(IssuerKey::from_json).collect(),
            Some(_) => return Err(InvalidKeySet::Malformed),
            None => IssuerKey::from_json(&document).into_iter().collect(),
        };
        if keys.is_empty() {
            Err(InvalidKeySet::NoUsableKey)
        } else {
            Ok(Self(keys.into()))
        }
    }
}

impl IssuerKey {
    fn from_json(json: &Value) -> Option<Self> {
        // The issuer's documents are trusted and vary widely, so they are read by a lenient parser,
        // one key at a time.
        let key = jsonwebtoken::jwk::Jwk::deserialize(json).ok()?;
        let verifies = key
            .common
            .public_key_use
            .is_none_or(|usage| usage == PublicKeyUse::Signature)
            && key
                .common
                .key_operations
                .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        // A private key in a public document is known to everyone.
        if !verifies || json.get("d").is_some() {
            return None;
        }
        let jwk = match &key.algorithm {
            AlgorithmParameters::EllipticCurve(ec) => Jwk::from_parameters(&Parameters {
                kty: Some("EC"),
                crv: curve_name(&ec.curve),
                x: Some(&ec.x),
                y: Some(&ec.y),
                ..Parameters::default()
            }),
            AlgorithmParameters::OctetKeyPair(okp) => Jwk::from_parameters(&Parameters {
                kty: Some("OKP"),
                crv: curve_name(&okp.curve),
                x: Some(&okp.x),
                ..Parameters::default()
            }),
            AlgorithmParameters::RSA(rsa) => Jwk::from_parameters(&Parameters {
                kty: Some("RSA"),
                n: Some(&rsa.n),
                e: Some(&rsa.e),
                ..Parameters::default()
            }),
            _ => return None,
        }
        .ok()?;
        // jsonwebtoken knows neither `Ed25519` nor `ES512` by name, so `alg` is read from the
        // document.
        let declared: Option<Option<Algorithm>> = json
            .get("alg")
            .map(|alg| alg.as_str().and_then(|alg| alg.parse().ok()));
        let usable = Algorithm::ALL
            .into_iter()
            .filter(|algorithm| match declared {
                None => true,
                Some(declared) => {
                    declared.is_some_and(|declared| declared.same_computation(*algorithm))
                }
            });
        let verifying: Vec<_> = usable
            .filter_map(|algorithm| Some((algorithm, LastingKey::parse(&jwk, algorithm).ok()?)))
            .collect();
        (!verifying.is_empty()).then_some(Self {
            kid: key.common.key_id,
            verifying,
        })
    }
}

fn curve_name(curve: &EllipticCurve) -> Option<&'static str> {
    match curve {
        EllipticCurve::P256 => Some("P-256"),
        EllipticCurve::P384 => Some("P-384"),
        EllipticCurve::P521 => Some("P-521"),
        EllipticCurve::Ed25519 => Some("Ed25519"),
        _ => None,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKeySet {
    /// Neither a JWK Set nor a JWK.
    #[error("neither a JWK Set nor a JWK")]
    Malformed,
    /// No key in it can verify access tokens.
    #[error("the key set holds no key that can verify access tokens")]
    NoUsableKey,
}
