//! `TokenCache`, around any verifier.

use super::*;

#[test]
fn a_verdict_of_another_verifier_lives_as_long_as_it_was_told_and_as_its_token() {
    const FIRST: usize = 1;
    const SECOND: usize = 2;
    let ten = Duration::from_secs(10);
    let rows: [(&str, Duration, Option<u64>, u64, usize); 16] = [
        ("at once", ten, None, NOW, FIRST),
        ("the last second", ten, None, NOW + 9, FIRST),
        ("its life", ten, None, NOW + 10, SECOND),
        ("a day", ten, None, NOW + 86_400, SECOND),
        ("a clock that steps back", ten, None, NOW - 1, SECOND),
        ("before exp", ten, Some(NOW + 5), NOW + 4, FIRST),
        ("exp", ten, Some(NOW + 5), NOW + 5, SECOND),
        ("exp beyond the life", ten, Some(NOW + 60), NOW + 10, SECOND),
        ("exp of before", ten, Some(NOW), NOW, SECOND),
        ("exp long ago", ten, Some(0), NOW, SECOND),
        ("exp never", ten, Some(u64::MAX), NOW + 9, FIRST),
        ("no life", Duration::ZERO, None, NOW, SECOND),
        (
            "half a second",
            Duration::from_millis(500),
            None,
            NOW,
            SECOND,
        ),
        (
            "a second and a half",
            Duration::from_millis(1500),
            None,
            NOW,
            FIRST,
        ),
        (
            "a second and a half, later",
            Duration::from_millis(1500),
            None,
            NOW + 1,
            SECOND,
        ),
        ("without end", Duration::MAX, None, u64::MAX - 1, FIRST),
    ];
    for (name, lifetime, expires, now, expected) in rows {
        let lookup = Lookup {
            expires,
            ..Lookup::default()
        };
        let cache = TokenCache::new(lookup, lifetime);
        assert_eq!(number(&cache, "token", NOW), Ok(FIRST), "{name}");
        assert_eq!(number(&cache, "token", now), Ok(expected), "{name}");
        let kept = claims(&cache, "token", now).unwrap();
        assert_eq!(kept.expires(), expires.map(Timestamp::from_unix), "{name}");
    }
}

#[test]
fn a_cache_keeps_tokens_apart() {
    let cache = TokenCache::new(Lookup::default(), Duration::from_secs(10));
    for (token, expected) in [("a", 1), ("ab", 2), ("A", 3), ("a", 1), ("ab", 2), ("A", 3)] {
        assert_eq!(number(&cache, token, NOW), Ok(expected), "{token}");
    }
}

/// A handle that the test keeps.
struct Shared(Arc<Lookup>);

impl AccessTokenVerifier for Shared {
    type Claims = usize;

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<AccessToken<usize>, TokenError> {
        self.0.verify(token, now).await
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

#[test]
fn errors_are_never_kept() {
    use TokenError::{Expired, InsufficientScope, Invalid, NotYetValid, Unavailable};
    for error in [
        Expired,
        InsufficientScope,
        Invalid,
        NotYetValid,
        Unavailable,
    ] {
        let lookup = Arc::new(Lookup::default());
        let cache = TokenCache::new(Shared(Arc::clone(&lookup)), Duration::from_secs(10));
        *lookup.rejection.lock().unwrap() = Some(error.clone());
        for _ in 0..2 {
            assert_eq!(number(&cache, "token", NOW), Err(error.clone()));
        }
        *lookup.rejection.lock().unwrap() = None;
        assert_eq!(number(&cache, "token", NOW), Ok(3), "{error:?}");
        assert_eq!(number(&cache, "token", NOW), Ok(3), "{error:?}");
        // What is known lives on, as documented, and not a second longer.
        *lookup.rejection.lock().unwrap() = Some(error.clone());
        assert_eq!(number(&cache, "token", NOW + 9), Ok(3), "{error:?}");
        for now in [NOW + 10, NOW + 11, NOW + 9, NOW] {
            assert_eq!(number(&cache, "token", now), Err(error.clone()), "{now}");
        }
    }
}

/// A clock that steps back and forth does not lengthen a lifetime.
#[test]
fn a_verdict_that_was_past_once_stays_so() {
    for (name, back) in [("a second", NOW - 1), ("a day", NOW - 86_400)] {
        let lookup = Arc::new(Lookup::default());
        let cache = TokenCache::new(Shared(Arc::clone(&lookup)), Duration::from_secs(10));
        assert_eq!(number(&cache, "token", NOW), Ok(1), "{name}");
        *lookup.rejection.lock().unwrap() = Some(TokenError::Invalid);
        for now in [back, NOW, NOW + 5] {
            let rejected = number(&cache, "token", now);
            assert_eq!(rejected, Err(TokenError::Invalid), "{name}: {now}");
        }
    }
}

#[test]
fn clear_forgets_everything_and_nothing_of_later() {
    let cache = TokenCache::new(Lookup::default(), Duration::from_secs(10));
    cache.clear();
    assert_eq!(number(&cache, "a", NOW), Ok(1));
    assert_eq!(number(&cache, "b", NOW), Ok(2));
    for round in 1..=3 {
        cache.clear();
        for (token, place) in [("a", 1), ("b", 2)] {
            let expected = Ok(2 * round + place);
            assert_eq!(number(&cache, token, NOW), expected, "{round}: {token}");
            assert_eq!(number(&cache, token, NOW), expected, "{round}: {token}");
        }
    }
}

/// A verifier that is in use is in somebody else's hands: what was kept of its cache clears it.
#[test]
fn clear_reaches_the_cache_of_a_verifier_that_is_in_use() {
    fn issuers<T: AccessTokenVerifier>(tokens: &T) -> Vec<&str> {
        tokens.issuers()
    }

    let keys = Keys::of(issuers_set());
    let tokens = JwtVerifier::<_, Claims>::new(ISSUER, AUDIENCE, keys.clone());
    let cache = Arc::new(TokenCache::new(tokens, Duration::from_secs(60)));
    let public_url = AUDIENCE.parse().unwrap();
    let verifier = Verifier::new(
        ProofRules::new(public_url).with_clock(|| at(NOW)),
        Arc::clone(&cache),
    );
    let layer = DpopLayer::new(verifier);
    let attempt = Attempt::good();
    attempt.outcome_by(&layer).assert_passed("at first");
    keys.become_set(None);
    attempt
        .again()
        .outcome_by(&layer)
        .assert_passed("a verdict");
    cache.clear();
    let outcome = attempt.again().outcome_by(&layer);
    outcome.assert_reason("no verdict any more", Unavailable::Token);
    assert_eq!(issuers(&cache), [ISSUER]);

    // Two that share one, share its verdicts.
    let lookup = Arc::new(Lookup::default());
    let cache = Arc::new(TokenCache::new(
        Arc::clone(&lookup),
        Duration::from_secs(10),
    ));
    let other = Arc::clone(&cache);
    assert_eq!(number(&cache, "token", NOW), Ok(1));
    assert_eq!(number(&other, "token", NOW), Ok(1));
    other.clear();
    assert_eq!(number(&cache, "token", NOW), Ok(2));
    assert_eq!(number(&lookup, "token", NOW), Ok(3), "nothing in between");
    assert_eq!(issuers(&other), ["https://lists.example.com"]);
}

struct UnderControl {
    cache: TokenCache<Slow>,
    asked: mpsc::UnboundedReceiver<usize>,
    released: watch::Sender<Vec<usize>>,
}

impl UnderControl {
    fn new() -> Self {
        let (sender, asked) = mpsc::unbounded_channel();
        let (released, receiver) = watch::channel(Vec::new());
        let slow = Slow {
            lookup: Lookup::default(),
            asked: sender,
            released: receiver,
        };
        Self {
            cache: TokenCache::new(slow, Duration::from_secs(10)),
            asked,
            released,
        }
    }
}

/// What was looked up before the rules changed is not kept after.
#[test]
fn a_verification_under_way_does_not_outlive_clear() {
    let mut control = UnderControl::new();
    let first = block_on(async {
        let first = begin(&control.cache, &mut control.asked, 1).await;
        control.cache.clear();
        release(&control.released, 1);
        first.await
    });
    assert_eq!(*first.unwrap().claims(), 1);
    release(&control.released, 2);
    assert_eq!(
        number(&control.cache, "token", NOW),
        Ok(2),
        "looked up again"
    );
    assert_eq!(number(&control.cache, "token", NOW), Ok(2), "and kept");
}

/// Two verifications under way, one from before `clear` and one from after it.
#[test]
fn a_verification_from_before_clear_is_not_taken_for_a_later_one() {
    for (name, order, next) in [
        ("the old one ends first", [1, 2], 2),
        // What it leaves is of no use, and has taken the place of the new one.
        ("the new one ends first", [2, 1], 3),
    ] {
        let mut control = UnderControl::new();
        block_on(async {
            let old = begin(&control.cache, &mut control.asked, 1).await;
            control.cache.clear();
            let new = begin(&control.cache, &mut control.asked, 2).await;
            let mut under_way = [Some(old), Some(new)];
            for number in order {
                release(&control.released, number);
                let ended = under_way[number - 1].take().unwrap().await;
                assert_eq!(*ended.unwrap().claims(), number, "{name}");
            }
        });
        release(&control.released, 3);
        assert_eq!(number(&control.cache, "token", NOW), Ok(next), "{name}");
        assert_eq!(number(&control.cache, "token", NOW), Ok(next), "{name}");
    }
}

/// A future that is dropped leaves nothing behind.
#[test]
fn a_verification_that_is_dropped_is_as_if_never_begun() {
    let mut control = UnderControl::new();
    block_on(async {
        drop(begin(&control.cache, &mut control.asked, 1).await);
    });
    release(&control.released, 1);
    release(&control.released, 2);
    assert_eq!(number(&control.cache, "token", NOW), Ok(2));
    assert_eq!(number(&control.cache, "token", NOW), Ok(2));
}

/// By the estimate of a kibibyte and three times the token, ten fit.
#[test]
fn a_cache_of_another_verifiers_verdicts_is_bounded_too() {
    let lookup = Arc::new(Lookup::default());
    let asked = || lookup.asked.load(Ordering::SeqCst);
    let lifetime = Duration::from_secs(10);
    let cache = TokenCache::new(Shared(Arc::clone(&lookup)), lifetime).with_capacity(10 * 1100);
    let round = || {
        for token in 0..1000 {
            number(&cache, &format!("token-{token}"), NOW).unwrap();
        }
    };
    round();
    assert_eq!(asked(), 1000);
    round();
    assert!(asked() > 1700, "{}", asked());

    let forgotten = TokenCache::new(Lookup::default(), lifetime);
    assert_eq!(number(&forgotten, "token", NOW), Ok(1));
    let forgotten = forgotten.with_capacity(1 << 20);
    assert_eq!(number(&forgotten, "token", NOW), Ok(2));
}

/// Around a verifier that has a cache of its own, the outer one decides, and `clear` ends it.
#[test]
fn a_cache_around_jwts_does_not_see_keys_change_until_it_is_cleared() {
    let keys = Keys::of(issuers_set());
    let cache = TokenCache::new(jwt_verifier(keys.clone()), Duration::from_secs(10));
    let token = good_token().to_text();
    assert_eq!(outcome(&cache, &token, NOW), Ok(()));
    keys.become_set(Some(issuer().with_key("2", Key::es256()).key_set()));
    assert_eq!(outcome(&cache, &token, NOW + 9), Ok(()));
    assert_eq!(outcome(&cache, &token, NOW + 10), Err(TokenError::Key));
    keys.become_set(Some(issuers_set()));
    assert_eq!(outcome(&cache, &token, NOW), Ok(()));
    keys.become_set(None);
    assert_eq!(outcome(&cache, &token, NOW), Ok(()));
    cache.clear();
    assert_eq!(outcome(&cache, &token, NOW), Err(TokenError::Unavailable));
}

/// The leeway of the verifier inside begins where the life of the verdict ends.
#[test]
fn a_cache_around_jwts_ends_with_exp_and_leaves_the_leeway_to_them() {
    let cache = TokenCache::new(jwt_verifier(issuers_set()), Duration::MAX);
    let token = good_token().to_text();
    for (now, expected) in [
        (NOW, Ok(())),
        (NOW + 599, Ok(())),
        (NOW + 629, Ok(())),
        (NOW + 630, Err(TokenError::Expired)),
    ] {
        assert_eq!(outcome(&cache, &token, now), expected, "{now}");
    }
}

#[test]
fn a_cache_has_the_issuers_of_its_verifier_and_shows_nothing_else() {
    let cache = TokenCache::new(Lookup::default(), Duration::from_secs(10));
    number(&cache, "marker-token-marker", NOW).unwrap();
    assert_eq!(cache.issuers(), ["https://lists.example.com"]);
    assert_eq!(format!("{cache:?}"), "TokenCache { lifetime: 10s, .. }");
    let tokens = JwtVerifier::<_, Claims>::new(ISSUER, AUDIENCE, issuers_set());
    assert_eq!(outcome(&tokens, &good_token().to_text(), NOW), Ok(()));
    let shown = format!("{tokens:?}");
    assert!(
        shown.starts_with("JwtVerifier {") && !shown.contains("alice"),
        "{shown}"
    );
    let cache = TokenCache::new(tokens, Duration::from_secs(10));
    assert_eq!(cache.issuers(), [ISSUER]);
    assert_eq!(json!(cache.issuers()), json!([ISSUER]));
}
