//! `TokenCache`, around another verifier.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, watch};
use tower_dpop::resource::Unavailable;
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, PresentedToken, TokenCache, TokenError,
};
use tower_dpop::{Claims, DpopLayer, JwtVerifier, ProofRules, Timestamp, Verifier};

use super::{TestKeys, access_token, good_token, issuer, issuer_key_set, jwt_verifier, verify};
use common::{AUDIENCE, Attempt, AttemptExt as _, ISSUER, Key, KeyExt as _, NOW, at, block_on};

/// Accepts every token, unless a rejection is set. The claims are the number of calls so far.
#[derive(Default)]
struct Lookup {
    calls: AtomicUsize,
    expires: Option<u64>,
    rejection: Mutex<Option<TokenError>>,
}

impl AccessTokenVerifier for Lookup {
    type Claims = usize;

    async fn verify(
        &self,
        _token: PresentedToken<'_>,
        _now: Timestamp,
    ) -> Result<AccessToken<usize>, TokenError> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(rejection) = self.rejection.lock().unwrap().clone() {
            return Err(rejection);
        }
        let token = AccessToken::new(Confirmation::Unbound, number);
        Ok(match self.expires {
            Some(expires) => token.with_expiry(Timestamp::from_unix(expires)),
            None => token,
        })
    }

    fn issuers(&self) -> Vec<&str> {
        vec!["https://lists.example.com"]
    }
}

fn call_number<V: AccessTokenVerifier<Claims = usize>>(
    tokens: &V,
    token: &str,
    now: u64,
) -> Result<usize, TokenError> {
    access_token(tokens, token, now).map(|token| *token.claims())
}

#[test]
fn a_cached_token_expires_with_the_lifetime_of_the_cache_and_with_its_exp() {
    const FIRST: usize = 1;
    const SECOND: usize = 2;
    let ten = Duration::from_secs(10);
    let rows: [(&str, Duration, Option<u64>, u64, usize); 16] = [
        ("the same second", ten, None, NOW, FIRST),
        ("the last second", ten, None, NOW + 9, FIRST),
        ("the end of the lifetime", ten, None, NOW + 10, SECOND),
        ("a day later", ten, None, NOW + 86_400, SECOND),
        ("a clock that steps back", ten, None, NOW - 1, SECOND),
        ("before exp", ten, Some(NOW + 5), NOW + 4, FIRST),
        ("at exp", ten, Some(NOW + 5), NOW + 5, SECOND),
        (
            "exp beyond the lifetime",
            ten,
            Some(NOW + 60),
            NOW + 10,
            SECOND,
        ),
        ("exp at the first request", ten, Some(NOW), NOW, SECOND),
        ("exp long ago", ten, Some(0), NOW, SECOND),
        ("the maximum exp", ten, Some(u64::MAX), NOW + 9, FIRST),
        ("a lifetime of zero", Duration::ZERO, None, NOW, SECOND),
        (
            "a lifetime of half a second",
            Duration::from_millis(500),
            None,
            NOW,
            SECOND,
        ),
        (
            "a lifetime of a second and a half",
            Duration::from_millis(1500),
            None,
            NOW,
            FIRST,
        ),
        (
            "after a lifetime of a second and a half",
            Duration::from_millis(1500),
            None,
            NOW + 1,
            SECOND,
        ),
        (
            "an unlimited lifetime",
            Duration::MAX,
            None,
            u64::MAX - 1,
            FIRST,
        ),
    ];
    for (name, lifetime, expires, now, expected) in rows {
        let lookup = Lookup {
            expires,
            ..Lookup::default()
        };
        let cache = TokenCache::new(lookup, lifetime);
        assert_eq!(call_number(&cache, "token", NOW), Ok(FIRST), "{name}");
        assert_eq!(call_number(&cache, "token", now), Ok(expected), "{name}");
        let cached = access_token(&cache, "token", now).unwrap();
        assert_eq!(
            cached.expires(),
            expires.map(Timestamp::from_unix),
            "{name}"
        );
    }
}

#[test]
fn each_token_is_cached_separately() {
    let cache = TokenCache::new(Lookup::default(), Duration::from_secs(10));
    for (token, expected) in [("a", 1), ("ab", 2), ("A", 3), ("a", 1), ("ab", 2), ("A", 3)] {
        assert_eq!(call_number(&cache, token, NOW), Ok(expected), "{token}");
    }
}

#[test]
fn errors_are_never_cached() {
    use TokenError::{Expired, InsufficientScope, Invalid, NotYetValid, Unavailable};
    for error in [
        Expired,
        InsufficientScope,
        Invalid,
        NotYetValid,
        Unavailable,
    ] {
        let lookup = Arc::new(Lookup::default());
        let cache = TokenCache::new(Arc::clone(&lookup), Duration::from_secs(10));
        *lookup.rejection.lock().unwrap() = Some(error.clone());
        for _ in 0..2 {
            assert_eq!(call_number(&cache, "token", NOW), Err(error.clone()));
        }
        *lookup.rejection.lock().unwrap() = None;
        assert_eq!(call_number(&cache, "token", NOW), Ok(3), "{error:?}");
        assert_eq!(call_number(&cache, "token", NOW), Ok(3), "{error:?}");
        // As documented, a cached token stays valid for the lifetime, and not a second longer.
        *lookup.rejection.lock().unwrap() = Some(error.clone());
        assert_eq!(call_number(&cache, "token", NOW + 9), Ok(3), "{error:?}");
        for now in [NOW + 10, NOW + 11, NOW + 9, NOW] {
            assert_eq!(
                call_number(&cache, "token", now),
                Err(error.clone()),
                "{now}"
            );
        }
    }
}

#[test]
fn a_clock_that_steps_back_and_forth_does_not_extend_the_lifetime() {
    for (name, back) in [("a second back", NOW - 1), ("a day back", NOW - 86_400)] {
        let lookup = Arc::new(Lookup::default());
        let cache = TokenCache::new(Arc::clone(&lookup), Duration::from_secs(10));
        assert_eq!(call_number(&cache, "token", NOW), Ok(1), "{name}");
        *lookup.rejection.lock().unwrap() = Some(TokenError::Invalid);
        for now in [back, NOW, NOW + 5] {
            let rejected = call_number(&cache, "token", now);
            assert_eq!(rejected, Err(TokenError::Invalid), "{name}: {now}");
        }
    }
}

#[test]
fn clear_removes_every_token_cached_so_far() {
    let cache = TokenCache::new(Lookup::default(), Duration::from_secs(10));
    cache.clear();
    assert_eq!(call_number(&cache, "a", NOW), Ok(1));
    assert_eq!(call_number(&cache, "b", NOW), Ok(2));
    for round in 1..=3 {
        cache.clear();
        for (token, position) in [("a", 1), ("b", 2)] {
            let expected = Ok(2 * round + position);
            assert_eq!(
                call_number(&cache, token, NOW),
                expected,
                "{round}: {token}"
            );
            assert_eq!(
                call_number(&cache, token, NOW),
                expected,
                "{round}: {token}"
            );
        }
    }
}

/// The `Verifier` owns its token verifier, so the application keeps a clone of an `Arc` of the
/// cache.
#[test]
fn a_cache_in_use_can_be_cleared_through_an_arc() {
    fn issuers<T: AccessTokenVerifier>(tokens: &T) -> Vec<&str> {
        tokens.issuers()
    }

    let keys = TestKeys::of(issuer_key_set());
    let tokens = JwtVerifier::<_, Claims>::new(ISSUER, AUDIENCE, keys.clone());
    let cache = Arc::new(TokenCache::new(tokens, Duration::from_secs(60)));
    let public_url = AUDIENCE.parse().unwrap();
    let verifier = Verifier::new(
        ProofRules::new(public_url).with_clock(|| at(NOW)),
        Arc::clone(&cache),
    );
    let layer = DpopLayer::new(verifier);
    let attempt = Attempt::good();
    attempt
        .outcome_by(&layer)
        .assert_passed("the first request");
    keys.set_current(None);
    attempt.again().outcome_by(&layer).assert_passed("cached");
    cache.clear();
    let outcome = attempt.again().outcome_by(&layer);
    outcome.assert_reason("no longer cached", Unavailable::Token);
    assert_eq!(issuers(&cache), [ISSUER]);

    // Clones of the `Arc` share one cache.
    let lookup = Arc::new(Lookup::default());
    let cache = Arc::new(TokenCache::new(
        Arc::clone(&lookup),
        Duration::from_secs(10),
    ));
    let other = Arc::clone(&cache);
    assert_eq!(call_number(&cache, "token", NOW), Ok(1));
    assert_eq!(call_number(&other, "token", NOW), Ok(1));
    other.clear();
    assert_eq!(call_number(&cache, "token", NOW), Ok(2));
    assert_eq!(
        call_number(&lookup, "token", NOW),
        Ok(3),
        "no calls in between"
    );
    assert_eq!(issuers(&other), ["https://lists.example.com"]);
}

/// Looks tokens up at once, reports it to the test, and returns the token when the test releases
/// it.
struct DelayedLookup {
    lookup: Lookup,
    started: mpsc::UnboundedSender<usize>,
    released: watch::Receiver<Vec<usize>>,
}

impl AccessTokenVerifier for DelayedLookup {
    type Claims = usize;

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<AccessToken<usize>, TokenError> {
        let token = self.lookup.verify(token, now).await?;
        let number = *token.claims();
        self.started.send(number).unwrap();
        let mut released = self.released.clone();
        released
            .wait_for(|all| all.contains(&number))
            .await
            .unwrap();
        Ok(token)
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

struct ControlledCache {
    cache: TokenCache<DelayedLookup>,
    started: mpsc::UnboundedReceiver<usize>,
    released: watch::Sender<Vec<usize>>,
}

impl ControlledCache {
    fn new() -> Self {
        let (sender, started) = mpsc::unbounded_channel();
        let (released, receiver) = watch::channel(Vec::new());
        let lookup = DelayedLookup {
            lookup: Lookup::default(),
            started: sender,
            released: receiver,
        };
        Self {
            cache: TokenCache::new(lookup, Duration::from_secs(10)),
            started,
            released,
        }
    }
}

fn release(released: &watch::Sender<Vec<usize>>, number: usize) {
    released.send_modify(|all| all.push(number));
}

type Verification<'c> =
    Pin<Box<dyn Future<Output = Result<AccessToken<usize>, TokenError>> + Send + 'c>>;

/// Starts a verification, which waits to be released.
async fn start<'c>(
    cache: &'c TokenCache<DelayedLookup>,
    started: &mut mpsc::UnboundedReceiver<usize>,
    number: usize,
) -> Verification<'c> {
    let token = PresentedToken::new("token");
    let mut verification: Verification<'c> =
        Box::pin(cache.verify(token, Timestamp::from_unix(NOW)));
    tokio::select! {
        biased;
        _ = &mut verification => panic!("not yet released"),
        call = started.recv() => assert_eq!(call, Some(number)),
    }
    verification
}

#[test]
fn a_verification_started_before_clear_is_not_cached() {
    let mut control = ControlledCache::new();
    let first = block_on(async {
        let first = start(&control.cache, &mut control.started, 1).await;
        control.cache.clear();
        release(&control.released, 1);
        first.await
    });
    assert_eq!(*first.unwrap().claims(), 1);
    release(&control.released, 2);
    assert_eq!(
        call_number(&control.cache, "token", NOW),
        Ok(2),
        "verified again"
    );
    assert_eq!(call_number(&control.cache, "token", NOW), Ok(2), "cached");
}

/// One verification starts before `clear`, another after it.
#[test]
fn a_verification_started_before_clear_is_not_used_instead_of_a_later_one() {
    for (name, order, next) in [
        ("the old one ends first", [1, 2], 2),
        // The old entry, which is not used, has replaced the new one.
        ("the new one ends first", [2, 1], 3),
    ] {
        let mut control = ControlledCache::new();
        block_on(async {
            let old = start(&control.cache, &mut control.started, 1).await;
            control.cache.clear();
            let new = start(&control.cache, &mut control.started, 2).await;
            let mut verifications = [Some(old), Some(new)];
            for number in order {
                release(&control.released, number);
                let ended = verifications[number - 1].take().unwrap().await;
                assert_eq!(*ended.unwrap().claims(), number, "{name}");
            }
        });
        release(&control.released, 3);
        assert_eq!(
            call_number(&control.cache, "token", NOW),
            Ok(next),
            "{name}"
        );
        assert_eq!(
            call_number(&control.cache, "token", NOW),
            Ok(next),
            "{name}"
        );
    }
}

#[test]
fn a_dropped_verification_is_not_cached() {
    let mut control = ControlledCache::new();
    block_on(async {
        drop(start(&control.cache, &mut control.started, 1).await);
    });
    release(&control.released, 1);
    release(&control.released, 2);
    assert_eq!(call_number(&control.cache, "token", NOW), Ok(2));
    assert_eq!(call_number(&control.cache, "token", NOW), Ok(2));
}

/// Ten tokens fit: each is estimated at 1 KiB plus three times its length.
#[test]
fn the_cache_is_bounded() {
    let lookup = Arc::new(Lookup::default());
    let calls = || lookup.calls.load(Ordering::SeqCst);
    let lifetime = Duration::from_secs(10);
    let cache = TokenCache::new(Arc::clone(&lookup), lifetime).with_capacity(10 * 1100);
    let round = || {
        for token in 0..1000 {
            call_number(&cache, &format!("token-{token}"), NOW).unwrap();
        }
    };
    round();
    assert_eq!(calls(), 1000);
    round();
    assert!(calls() > 1700, "{}", calls());

    let cache = TokenCache::new(Lookup::default(), lifetime);
    assert_eq!(call_number(&cache, "token", NOW), Ok(1));
    let cache = cache.with_capacity(1 << 20);
    assert_eq!(call_number(&cache, "token", NOW), Ok(2));
}

/// The inner verifier, which checks the keys for every request, is not called while the token is
/// cached.
#[test]
fn around_a_jwt_verifier_the_cache_does_not_notice_changed_keys_until_it_is_cleared() {
    let keys = TestKeys::of(issuer_key_set());
    let cache = TokenCache::new(jwt_verifier(keys.clone()), Duration::from_secs(10));
    let token = good_token().to_text();
    assert_eq!(verify(&cache, &token, NOW), Ok(()));
    keys.set_current(Some(issuer().with_key("2", Key::es256()).key_set()));
    assert_eq!(verify(&cache, &token, NOW + 9), Ok(()));
    assert_eq!(verify(&cache, &token, NOW + 10), Err(TokenError::Key));
    keys.set_current(Some(issuer_key_set()));
    assert_eq!(verify(&cache, &token, NOW), Ok(()));
    keys.set_current(None);
    assert_eq!(verify(&cache, &token, NOW), Ok(()));
    cache.clear();
    assert_eq!(verify(&cache, &token, NOW), Err(TokenError::Unavailable));
}

/// After `exp`, the inner verifier decides, with its leeway.
#[test]
fn around_a_jwt_verifier_a_cached_token_ends_at_exp_and_the_leeway_still_applies() {
    let cache = TokenCache::new(jwt_verifier(issuer_key_set()), Duration::MAX);
    let token = good_token().to_text();
    for (now, expected) in [
        (NOW, Ok(())),
        (NOW + 599, Ok(())),
        (NOW + 629, Ok(())),
        (NOW + 630, Err(TokenError::Expired)),
    ] {
        assert_eq!(verify(&cache, &token, now), expected, "{now}");
    }
}

#[test]
fn reports_the_issuers_of_its_verifier_and_shows_no_tokens() {
    let cache = TokenCache::new(Lookup::default(), Duration::from_secs(10));
    call_number(&cache, "marker-token-marker", NOW).unwrap();
    assert_eq!(cache.issuers(), ["https://lists.example.com"]);
    assert_eq!(format!("{cache:?}"), "TokenCache { lifetime: 10s, .. }");
    let tokens = JwtVerifier::<_, Claims>::new(ISSUER, AUDIENCE, issuer_key_set());
    assert_eq!(verify(&tokens, &good_token().to_text(), NOW), Ok(()));
    let shown = format!("{tokens:?}");
    assert!(
        shown.starts_with("JwtVerifier {") && !shown.contains("alice"),
        "{shown}"
    );
    let cache = TokenCache::new(tokens, Duration::from_secs(10));
    assert_eq!(cache.issuers(), [ISSUER]);
    assert_eq!(json!(cache.issuers()), json!([ISSUER]));
}
