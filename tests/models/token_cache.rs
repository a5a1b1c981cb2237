//! `TokenCache`: no token that was verified under old rules is used after `clear`, and the capacity is not exceeded.

use std::sync::Arc;
use std::time::Duration;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use tower_dpop::Timestamp;
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, PresentedToken, TokenCache, TokenError,
};

use crate::{block_on, explore};

/// The claims of its tokens are the number of the rules under which it verified them. The atomics are those of loom, so
/// that rules can be replaced at any step.
#[derive(Clone, Default)]
struct Verifier {
    rules: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

impl AccessTokenVerifier for Verifier {
    type Claims = usize;

    async fn verify(
        &self,
        _: PresentedToken<'_>,
        _: Timestamp,
    ) -> Result<AccessToken<usize>, TokenError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let rules = self.rules.load(Ordering::SeqCst);
        Ok(AccessToken::new(Confirmation::Unbound, rules))
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

fn cache(verifier: &Verifier, bytes: u64) -> Arc<TokenCache<Verifier>> {
    let cache = TokenCache::new(verifier.clone(), Duration::from_secs(60));
    Arc::new(cache.with_capacity(bytes))
}

/// The rules under which the token was verified.
fn verify(cache: &TokenCache<Verifier>, token: &str) -> usize {
    let now = Timestamp::from_unix(1_700_000_000);
    let verified = block_on(cache.verify(PresentedToken::new(token), now));
    *verified.unwrap().claims()
}

#[test]
fn no_token_of_old_rules_is_used_after_the_cache_was_cleared() {
    explore("a request and new rules", 700, || {
        let verifier = Verifier::default();
        let cache = cache(&verifier, 10_000);
        let request = thread::spawn({
            let cache = cache.clone();
            move || verify(&cache, "a")
        });
        verifier.rules.store(1, Ordering::SeqCst);
        cache.clear();
        assert_eq!(verify(&cache, "a"), 1, "during the request");
        request.join().unwrap();
        assert_eq!(verify(&cache, "a"), 1, "after the request");
    });
}

#[test]
fn no_more_tokens_are_cached_than_the_capacity() {
    explore("two tokens and room for one", 40, || {
        let verifier = Verifier::default();
        // One token takes more than a thousand bytes.
        let cache = cache(&verifier, 2_000);
        let request = thread::spawn({
            let cache = cache.clone();
            move || verify(&cache, "a")
        });
        verify(&cache, "b");
        request.join().unwrap();
        let before = verifier.calls.load(Ordering::SeqCst);
        verify(&cache, "a");
        verify(&cache, "b");
        assert!(verifier.calls.load(Ordering::SeqCst) > before);
    });
}
