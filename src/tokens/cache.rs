//! Caches of valid tokens, so that a token is verified once and not for every request.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::cache::Cache;
use crate::credentials::PresentedToken;
use crate::sync::AtomicU64;
use crate::telemetry::{self, Cached};
use crate::time::Timestamp;
use crate::tokens::access_token::{AccessToken, AccessTokenVerifier, TokenError};
use derive_where::derive_where;

/// Caches the valid tokens of another verifier for a while.
///
/// [`JwtVerifier`](crate::JwtVerifier) and introspection have their own caches: this one is for
/// verifiers that you implement.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower_dpop::tokens::{AccessTokenVerifier, TokenCache};
///
/// fn cached<V: AccessTokenVerifier>(lookup: V) -> TokenCache<V> {
///     TokenCache::new(lookup, Duration::from_secs(10))
/// }
/// # let _ = cached::<tower_dpop::JwtVerifier<tower_dpop::KeySet>>;
/// ```
///
/// # Revocation
///
/// A JWT is valid until it expires, cached or not: no one is asked about it. Where tokens can be
/// revoked, use introspection, and choose the lifetime of a cached token as the time for which a
/// revoked token may still be accepted.
///
/// # Concurrency
///
/// Requests do not wait for each other: if many requests with one new token arrive at once, the inner
/// verifier is called for each of them until the first call returns. For a JWT that is one signature per
/// request, and only once per token, which costs less than making requests wait. A verifier that asks
/// another server should combine concurrent calls itself, as introspection does.
///
/// # Security
///
/// While a token is cached, the inner verifier is not called for it: neither revocations nor
/// changed keys are noticed. Choose the lifetime accordingly, put checks that must run for every
/// request around the cache, and call [`clear`](Self::clear) when the rules change (give the
/// [`Verifier`](crate::Verifier) an `Arc` of the cache, and keep a clone).
pub struct TokenCache<V: AccessTokenVerifier> {
    verifier: V,
    cached_tokens: CachedTokens<CachedToken<V::Claims>>,
    lifetime: Duration,
    /// Cached tokens of an older generation are no longer used, not even those that were still
    /// being verified when the cache was cleared.
    generation: AtomicU64,
}

#[derive_where(Clone)]
struct CachedToken<C> {
    token: AccessToken<C>,
    since: Timestamp,
    generation: u64,
}

impl<V: AccessTokenVerifier> TokenCache<V> {
    /// Caches the valid tokens of this verifier for this long (whole seconds), and never beyond the
    /// token's expiry.
    pub fn new(verifier: V, lifetime: Duration) -> Self {
        Self {
            verifier,
            cached_tokens: CachedTokens::with_capacity(DEFAULT_CAPACITY),
            lifetime,
            generation: AtomicU64::new(0),
        }
    }

    /// How much memory the cached tokens may take, in bytes (an estimate). The default is 16 MiB.
    #[must_use]
    pub fn with_capacity(mut self, bytes: u64) -> Self {
        self.cached_tokens = CachedTokens::with_capacity(bytes);
        self
    }

    /// Removes every cached token.
    pub fn clear(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.cached_tokens.clear();
    }

    fn recall(&self, token: &PresentedToken<'_>, now: Timestamp) -> Option<AccessToken<V::Claims>> {
        let cached = self.cached_tokens.get(token)?;
        let until = cached.since.plus(self.lifetime.as_secs());
        let lives = cached.generation == self.generation.load(Ordering::SeqCst)
            && cached.since <= now
            && now < until
            && cached.token.expires.is_none_or(|expires| now < expires);
        if lives {
            Some(cached.token)
        } else {
            // A clock that steps back and forth must not make the token valid again: the inner
            // verifier may have rejected it in the meantime.
            self.cached_tokens.forget(token);
            None
        }
    }
}

impl<V: AccessTokenVerifier> AccessTokenVerifier for TokenCache<V> {
    type Claims = V::Claims;

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<AccessToken<V::Claims>, TokenError> {
        if let Some(known) = self.recall(&token, now) {
            telemetry::token_cache(Cached::Hit);
            return Ok(known);
        }
        telemetry::token_cache(Cached::Miss);
        let generation = self.generation.load(Ordering::SeqCst);
        let good = self.verifier.verify(token, now).await?;
        let cached = CachedToken {
            token: good.clone(),
            since: now,
            generation,
        };
        self.cached_tokens
            .keep(&token, token.as_str().len(), cached);
        Ok(good)
    }

    fn issuers(&self) -> Vec<&str> {
        self.verifier.issuers()
    }

    fn expected(&self, error: &TokenError) -> Option<String> {
        self.verifier.expected(error)
    }
}

impl<V: AccessTokenVerifier> fmt::Debug for TokenCache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// 16 MiB: about 6,000 tokens of 600 characters.
pub(crate) const DEFAULT_CAPACITY: u64 = 16 * 1024 * 1024;

const TYPICAL_LENGTH: usize = 600;

/// The estimated memory of a parsed text of this many bytes: three times the text for its members,
/// plus the structures around them.
const fn weight(bytes: usize) -> u64 {
    1024 + 3 * bytes as u64
}

/// A bounded map of valid tokens, by their SHA-256. Its owner decides whether a token is still
/// valid.
pub(crate) struct CachedTokens<T> {
    cache: Cache<[u8; 32], T>,
    capacity: u64,
}

impl<T: Clone + Send + Sync + 'static> CachedTokens<T> {
    pub(crate) fn with_capacity(bytes: u64) -> Self {
        Self {
            cache: Cache::new(bytes, weight(TYPICAL_LENGTH)),
            capacity: bytes,
        }
    }

    pub(crate) fn get(&self, token: &PresentedToken<'_>) -> Option<T> {
        self.cache.get(token.sha256())
    }

    /// Caches what was parsed from a text of this many bytes.
    pub(crate) fn keep(&self, token: &PresentedToken<'_>, bytes: usize, cached: T) {
        self.cache.insert(*token.sha256(), cached, weight(bytes));
    }

    pub(crate) fn forget(&self, token: &PresentedToken<'_>) {
        self.cache.remove(token.sha256());
    }

    pub(crate) fn clear(&self) {
        self.cache.clear();
    }

    /// An empty map of the same capacity.
    pub(crate) fn renewed<U: Clone + Send + Sync + 'static>(&self) -> CachedTokens<U> {
        CachedTokens::with_capacity(self.capacity)
    }
}
