//! The cache of a `JwtVerifier`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::mpsc;
use tower_dpop::resource::{BindingError, Unavailable};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, KeySource, KeySourceError, PresentedToken, TokenError,
};
use tower_dpop::{
    Algorithm, Algorithms, DpopLayer, JwtVerifier, KeySet, Rejection, Timestamp, Verifier,
};

use super::{
    CountedClaims, READS, TestKeys, good_token, issuer, issuer_key_set, jwt_verifier, verify,
};
use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, Key, KeyExt as _, NOW, block_on, issuer_jwks,
};

/// Runs a function and counts the verifications in it.
fn verifications<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = READS.get();
    let result = run();
    (result, READS.get() - before)
}

const NOT_VERIFIED: usize = 0;
const VERIFIED: usize = 1;

/// Two requests with the same token; between them, the time or the keys change.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn a_cached_token_is_used_until_it_expires_or_its_keys_change() {
    struct Row {
        name: &'static str,
        change: fn(&TestKeys),
        now: u64,
        expected: Result<(), TokenError>,
        verifications: usize,
    }
    let row = |name, change, now, expected, verifications| Row {
        name,
        change,
        now,
        expected,
        verifications,
    };
    let nothing: fn(&TestKeys) = |_| {};
    let rows = [
        row("no change", nothing, NOW, Ok(()), NOT_VERIFIED),
        row("a minute later", nothing, NOW + 60, Ok(()), NOT_VERIFIED),
        row("at exp", nothing, NOW + 600, Ok(()), NOT_VERIFIED),
        row(
            "the last second before exp plus leeway",
            nothing,
            NOW + 629,
            Ok(()),
            NOT_VERIFIED,
        ),
        row(
            "exp plus leeway",
            nothing,
            NOW + 630,
            Err(TokenError::Expired),
            NOT_VERIFIED,
        ),
        row(
            "the clock steps back to nbf minus leeway",
            nothing,
            NOW - 30,
            Ok(()),
            NOT_VERIFIED,
        ),
        row(
            "the clock steps back to before nbf minus leeway",
            nothing,
            NOW - 31,
            Err(TokenError::NotYetValid),
            NOT_VERIFIED,
        ),
        row(
            "the key set is replaced by its clone",
            |keys| {
                let set = keys.0.current.lock().unwrap().clone();
                keys.set_current(set);
            },
            NOW,
            Ok(()),
            NOT_VERIFIED,
        ),
        row(
            "the key set is parsed again, with the same keys",
            |keys| keys.set_current(Some(issuer_key_set())),
            NOW,
            Ok(()),
            VERIFIED,
        ),
        row(
            "a key is added",
            |keys| keys.set_current(Some(issuer().add_key("2", Key::es256()).key_set())),
            NOW,
            Ok(()),
            VERIFIED,
        ),
        row(
            "the key is removed",
            |keys| keys.set_current(Some(issuer().with_key("2", Key::es256()).key_set())),
            NOW,
            Err(TokenError::Key),
            NOT_VERIFIED,
        ),
        row(
            "the kid names another key",
            |keys| keys.set_current(Some(issuer().with_key("issuer", Key::es256()).key_set())),
            NOW,
            Err(TokenError::Signature),
            NOT_VERIFIED,
        ),
        row(
            "the kid names a key of another algorithm",
            |keys| {
                let key = Key::ed25519("Ed25519");
                keys.set_current(Some(issuer().with_key("issuer", key).key_set()));
            },
            NOW,
            Err(TokenError::Key),
            NOT_VERIFIED,
        ),
        row(
            "the keys are unreachable",
            |keys| keys.set_current(None),
            NOW,
            Err(TokenError::Unavailable),
            NOT_VERIFIED,
        ),
        row(
            "the keys are unreachable, and the token has expired",
            |keys| keys.set_current(None),
            NOW + 630,
            Err(TokenError::Expired),
            NOT_VERIFIED,
        ),
    ];
    for row in rows {
        let keys = TestKeys::of(issuer_key_set());
        let tokens = jwt_verifier(keys.clone());
        let token = good_token().to_text();
        let first = verifications(|| verify(&tokens, &token, NOW));
        assert_eq!(first, (Ok(()), VERIFIED), "{}: the first request", row.name);
        (row.change)(&keys);
        let second = verifications(|| verify(&tokens, &token, row.now));
        assert_eq!(second, (row.expected, row.verifications), "{}", row.name);
    }
}

/// Compares the cached token with one that is verified for the first time.
#[test]
fn a_cached_token_has_the_same_time_limits_as_a_new_one() {
    let good = good_token();
    let rows = [
        ("a whole exp", good.clone(), NOW + 600),
        (
            "exp with a fraction",
            good.clone()
                .with_claim("exp", f64::from(u32::try_from(NOW).unwrap()) + 600.5),
            NOW + 600,
        ),
        ("without nbf", good.without_claim("nbf"), NOW + 600),
    ];
    for (name, token, exp) in rows {
        let token = token.to_text();
        let cached = jwt_verifier(issuer_key_set());
        assert_eq!(verify(&cached, &token, NOW), Ok(()), "{name}");
        for now in exp + 25..exp + 35 {
            let uncached = verify(&jwt_verifier(issuer_key_set()).without_cache(), &token, now);
            assert_eq!(verify(&cached, &token, now), uncached, "{name}: {now}");
        }
        // The clock may be corrected backwards.
        assert_eq!(verify(&cached, &token, NOW), Ok(()), "{name}");
        for leeway in [0, 1, 300] {
            let tokens = jwt_verifier(issuer_key_set()).with_leeway(Duration::from_secs(leeway));
            assert_eq!(verify(&tokens, &token, NOW), Ok(()), "{name}");
            let last = exp + leeway + u64::from(name.ends_with("a fraction"));
            assert_eq!(
                verify(&tokens, &token, last - 1),
                Ok(()),
                "{name}: {leeway}"
            );
            let after = verify(&tokens, &token, last);
            assert_eq!(after, Err(TokenError::Expired), "{name}: {leeway}");
        }
    }
}

/// "The source is asked with every request": it renews its keys only when it is asked.
#[test]
fn every_request_asks_the_key_source() {
    let keys = TestKeys::of(issuer_key_set());
    let tokens = jwt_verifier(keys.clone());
    let token = good_token().to_text();
    for requests in 1..=5 {
        assert_eq!(verify(&tokens, &token, NOW), Ok(()));
        assert_eq!(keys.request_counts(), (requests, 0));
    }
    assert_eq!(verify(&tokens, &token, NOW + 630), Err(TokenError::Expired));
    assert_eq!(keys.request_counts(), (5, 0), "not for an expired token");
}

#[test]
fn a_cached_token_is_used_again_when_the_same_key_set_is_back() {
    let (set, other) = (issuer_key_set(), issuer_key_set());
    let keys = TestKeys::of(set.clone());
    let tokens = jwt_verifier(keys.clone());
    let token = good_token().to_text();
    assert_eq!(verify(&tokens, &token, NOW), Ok(()));
    keys.set_current(None);
    assert_eq!(verify(&tokens, &token, NOW), Err(TokenError::Unavailable));
    keys.set_current(Some(set.clone()));
    let back = verifications(|| verify(&tokens, &token, NOW));
    assert_eq!(back, (Ok(()), NOT_VERIFIED));
    // Not if a request has seen another key set in between.
    keys.set_current(Some(other));
    assert_eq!(verify(&tokens, &token, NOW), Ok(()));
    keys.set_current(Some(set));
    let back = verifications(|| verify(&tokens, &token, NOW));
    assert_eq!(back, (Ok(()), VERIFIED));
}

#[test]
fn a_token_verified_with_a_newer_key_set_depends_on_that_set() {
    let old = issuer().with_key("old", Key::es256()).key_set();
    let keys = TestKeys::of(old.clone());
    let newer = issuer_key_set();
    *keys.0.newer.lock().unwrap() = Some(newer);
    let tokens = jwt_verifier(keys.clone());
    let token = good_token().to_text();
    let first = verifications(|| verify(&tokens, &token, NOW));
    assert_eq!((first, keys.request_counts()), ((Ok(()), VERIFIED), (1, 1)));
    let second = verifications(|| verify(&tokens, &token, NOW));
    assert_eq!(
        (second, keys.request_counts()),
        ((Ok(()), NOT_VERIFIED), (2, 1))
    );
    *keys.0.newer.lock().unwrap() = None;
    keys.set_current(Some(old));
    assert_eq!(verify(&tokens, &token, NOW), Err(TokenError::Key));
}

/// A key source whose responses wait until the test releases them.
struct DelayedKeys {
    keys: TestKeys,
    started: mpsc::UnboundedSender<()>,
    released: tokio::sync::Mutex<mpsc::UnboundedReceiver<()>>,
}

impl KeySource for DelayedKeys {
    async fn key_set(&self, now: Timestamp) -> Result<KeySet, KeySourceError> {
        let set = self.keys.key_set(now).await;
        self.started.send(()).unwrap();
        self.released.lock().await.recv().await.unwrap();
        set
    }

    async fn newer_key_set(
        &self,
        known: &KeySet,
        now: Timestamp,
    ) -> Result<Option<KeySet>, KeySourceError> {
        self.keys.newer_key_set(known, now).await
    }
}

/// The key is removed while a signature is verified with it: that request may pass, but no later
/// one.
#[test]
fn a_verification_with_a_removed_key_leaves_no_cached_token() {
    let keys = TestKeys::of(issuer_key_set());
    let (started, mut starts) = mpsc::unbounded_channel();
    let (release, released) = mpsc::unbounded_channel();
    let tokens = jwt_verifier(DelayedKeys {
        keys: keys.clone(),
        started,
        released: released.into(),
    });
    let token = good_token().to_text();
    let verification = tokens.verify(PresentedToken::new(&token), Timestamp::from_unix(NOW));
    let (first, ()) = block_on(async {
        tokio::join!(verification, async {
            starts.recv().await.unwrap();
            keys.set_current(Some(issuer().with_key("2", Key::es256()).key_set()));
            release.send(()).unwrap();
        })
    });
    assert!(first.is_ok());
    // One response for the cache lookup, one for the signature.
    release.send(()).unwrap();
    release.send(()).unwrap();
    assert_eq!(verify(&tokens, &token, NOW), Err(TokenError::Key));
}

/// Cached tokens are removed whether or not the new rules accept them.
#[test]
fn a_change_of_settings_empties_the_cache() {
    type Tokens = JwtVerifier<KeySet, CountedClaims>;
    type Change = fn(Tokens) -> Tokens;
    let rows: [(&str, Change, Result<(), TokenError>, usize); 7] = [
        (
            "another audience",
            |tokens| tokens.add_audience("more"),
            Ok(()),
            VERIFIED,
        ),
        (
            "other algorithms",
            |tokens| tokens.with_algorithms(Algorithms::only(Algorithm::EdDsa)),
            Err(TokenError::Algorithm),
            NOT_VERIFIED,
        ),
        (
            "no leeway",
            |tokens| tokens.with_leeway(Duration::ZERO),
            Err(TokenError::Expired),
            NOT_VERIFIED,
        ),
        ("any typ", JwtVerifier::with_lenient_typ, Ok(()), VERIFIED),
        (
            "the same claims type again",
            JwtVerifier::with_claims::<CountedClaims>,
            Ok(()),
            VERIFIED,
        ),
        (
            "a larger cache",
            |tokens| tokens.with_cache_capacity(1 << 30),
            Ok(()),
            VERIFIED,
        ),
        ("no cache", JwtVerifier::without_cache, Ok(()), VERIFIED),
    ];
    let token = good_token().to_text();
    for (name, change, expected, count) in rows {
        let tokens = jwt_verifier(issuer_key_set());
        assert_eq!(verify(&tokens, &token, NOW + 600), Ok(()), "{name}");
        let tokens = change(tokens);
        let second = verifications(|| verify(&tokens, &token, NOW + 600));
        assert_eq!(second, (expected, count), "{name}");
    }
}

/// A token that does not fit the new type must be rejected, although it is cached for the old one.
#[test]
fn a_change_of_the_claims_type_empties_the_cache() {
    #[derive(Debug, Deserialize)]
    struct OtherClaims {
        #[expect(dead_code, reason = "the claim must be present")]
        tenant: u64,
    }
    let token = good_token().to_text();
    let tokens = jwt_verifier(issuer_key_set());
    assert_eq!(verify(&tokens, &token, NOW), Ok(()));
    let tokens = tokens.with_claims::<OtherClaims>();
    for request in ["first", "second"] {
        assert_eq!(
            verify(&tokens, &token, NOW),
            Err(TokenError::Claims),
            "{request}"
        );
    }
}

#[test]
fn verifiers_with_the_same_keys_share_no_cached_tokens() {
    type Tokens = JwtVerifier<KeySet, CountedClaims>;
    let keys = issuer_key_set();
    let token = good_token().to_text();
    let first = jwt_verifier(keys.clone());
    assert_eq!(verify(&first, &token, NOW), Ok(()));
    let rows: [(&str, Tokens, Result<(), TokenError>, usize); 4] = [
        (
            "the same rules",
            jwt_verifier(keys.clone()),
            Ok(()),
            VERIFIED,
        ),
        (
            "another audience",
            JwtVerifier::new(ISSUER, "https://other.example.com", keys.clone()).with_claims(),
            Err(TokenError::Audience),
            NOT_VERIFIED,
        ),
        (
            "another issuer",
            JwtVerifier::new("https://other.example.com", AUDIENCE, keys.clone()).with_claims(),
            Err(TokenError::Issuer),
            NOT_VERIFIED,
        ),
        (
            "other keys",
            jwt_verifier(issuer().with_key("issuer", Key::es256()).key_set()),
            Err(TokenError::Signature),
            NOT_VERIFIED,
        ),
    ];
    for (name, other, expected, count) in rows {
        let result = verifications(|| verify(&other, &token, NOW));
        assert_eq!(result, (expected, count), "{name}");
        let original = verifications(|| verify(&first, &token, NOW));
        assert_eq!(original, (Ok(()), NOT_VERIFIED), "{name}");
    }
}

#[test]
fn a_changed_token_is_not_taken_for_the_cached_one() {
    fn with_last(text: &str, change: impl FnOnce(char) -> char) -> String {
        let mut text = text.to_owned();
        let last = text.pop().unwrap();
        text.push(change(last));
        text
    }
    type Change = fn(&str) -> String;
    let rows: [(&str, Change, Result<(), TokenError>); 9] = [
        (
            "the first character of the signature",
            |token| {
                let (input, signature) = token.rsplit_once('.').unwrap();
                let other = if signature.starts_with('A') { 'B' } else { 'A' };
                format!("{input}.{other}{}", &signature[1..])
            },
            Err(TokenError::Signature),
        ),
        (
            "unused bits of the last character",
            |token| {
                with_last(token, |last| match last {
                    'A' => 'B',
                    'Q' => 'R',
                    'g' => 'h',
                    _ => 'x',
                })
            },
            Err(TokenError::Malformed),
        ),
        (
            "an empty signature",
            |token| format!("{}.", token.rsplit_once('.').unwrap().0),
            Err(TokenError::Signature),
        ),
        (
            "without the last segment",
            |token| token.rsplit_once('.').unwrap().0.to_owned(),
            Err(TokenError::Malformed),
        ),
        (
            "one character missing",
            |token| token[..token.len() - 1].to_owned(),
            Err(TokenError::Malformed),
        ),
        (
            "an extra segment",
            |token| format!("{token}.AAAA"),
            Err(TokenError::Malformed),
        ),
        (
            "with padding",
            |token| format!("{token}="),
            Err(TokenError::Malformed),
        ),
        (
            "two extra bytes of signature",
            |token| format!("{token}AAA"),
            Err(TokenError::Malformed),
        ),
        (
            "other claims under the same header",
            |_| good_token().with_claim("sub", "bob").to_text(),
            Ok(()),
        ),
    ];
    for (name, change, expected) in rows {
        let tokens = jwt_verifier(issuer_key_set());
        let token = good_token().to_text();
        assert_eq!(verify(&tokens, &token, NOW), Ok(()), "{name}");
        let other = change(&token);
        let count = usize::from(expected.is_ok());
        for time in 0..2 {
            let result = verifications(|| verify(&tokens, &other, NOW));
            let count = if time == 0 { count } else { NOT_VERIFIED };
            assert_eq!(result, (expected.clone(), count), "{name}: {time}");
        }
        let original = verifications(|| verify(&tokens, &token, NOW));
        assert_eq!(original, (Ok(()), NOT_VERIFIED), "{name}");
    }
}

/// A key that arrives later makes the token valid.
#[test]
fn a_rejection_is_not_cached() {
    let keys = TestKeys::of(issuer().with_key("2", Key::es256()).key_set());
    let tokens = jwt_verifier(keys.clone());
    let token = good_token().to_text();
    for requests in 1..=3 {
        assert_eq!(verify(&tokens, &token, NOW), Err(TokenError::Key));
        assert_eq!(keys.request_counts(), (requests, requests));
    }
    keys.set_current(Some(issuer_key_set()));
    let later = verifications(|| verify(&tokens, &token, NOW));
    assert_eq!(later, (Ok(()), VERIFIED));
}

#[test]
fn without_a_cache_every_request_is_verified() {
    let token = good_token().to_text();
    let keys = TestKeys::of(issuer_key_set());
    let tokens = jwt_verifier(keys.clone()).without_cache();
    for requests in 1..=3 {
        let result = verifications(|| verify(&tokens, &token, NOW));
        assert_eq!(result, (Ok(()), VERIFIED));
        assert_eq!(keys.request_counts(), (requests, 0));
    }
    let tokens = tokens.with_lenient_typ().with_claims::<CountedClaims>();
    for _ in 0..2 {
        let result = verifications(|| verify(&tokens, &token, NOW));
        assert_eq!(
            result,
            (Ok(()), VERIFIED),
            "other settings do not enable the cache again"
        );
    }
}

/// About ten of 300 tokens fit into the small cache.
#[test]
fn the_cache_is_bounded_and_evicted_tokens_are_verified_again() {
    let tokens: Vec<String> = (0..300)
        .map(|number| good_token().with_claim("number", number).to_text())
        .collect();
    let small = jwt_verifier(issuer_key_set()).with_cache_capacity(25_000);
    let large = jwt_verifier(issuer_key_set());
    for (name, verifier, max, min) in [
        ("small", &small, 300, 150),
        ("the default", &large, NOT_VERIFIED, NOT_VERIFIED),
    ] {
        let round = || {
            for token in &tokens {
                assert_eq!(verify(verifier, token, NOW), Ok(()), "{name}");
            }
        };
        assert_eq!(verifications(round).1, 300, "{name}");
        let again = verifications(round).1;
        assert!((min..=max).contains(&again), "{name}: {again}");
    }
    let without_memory = jwt_verifier(issuer_key_set()).with_cache_capacity(0);
    for token in &tokens[..20] {
        assert_eq!(
            verify(&without_memory, token, NOW),
            Ok(()),
            "a capacity of zero"
        );
    }
}

/// As `TokenCache` documents: checks that must run for every request go around the cache.
#[test]
fn a_check_around_the_verifier_runs_for_every_request() {
    struct WithRevocation<V> {
        tokens: V,
        revoked: AtomicBool,
        calls: AtomicUsize,
    }

    impl<V: AccessTokenVerifier> AccessTokenVerifier for WithRevocation<V> {
        type Claims = V::Claims;

        async fn verify(
            &self,
            token: PresentedToken<'_>,
            now: Timestamp,
        ) -> Result<AccessToken<V::Claims>, TokenError> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let token = self.tokens.verify(token, now).await?;
            if self.revoked.load(Ordering::SeqCst) {
                Err(TokenError::Invalid)
            } else {
                Ok(token)
            }
        }

        fn issuers(&self) -> Vec<&str> {
            Vec::new()
        }
    }

    let tokens = WithRevocation {
        tokens: jwt_verifier(issuer_key_set()),
        revoked: AtomicBool::new(false),
        calls: AtomicUsize::new(0),
    };
    let token = good_token().to_text();
    let ((), count) = verifications(|| {
        for (revoked, expected) in [
            (false, Ok(())),
            (false, Ok(())),
            (true, Err(TokenError::Invalid)),
            (false, Ok(())),
            (true, Err(TokenError::Invalid)),
        ] {
            tokens.revoked.store(revoked, Ordering::SeqCst);
            assert_eq!(verify(&tokens, &token, NOW), expected);
        }
    });
    assert_eq!((count, tokens.calls.load(Ordering::SeqCst)), (1, 5));
}

/// D13, R-7.2.1: all other checks of a request are made as usual.
#[test]
fn a_cached_token_saves_only_the_signature_check() {
    let set: KeySet = issuer_jwks().parse().unwrap();
    let keys = TestKeys::of(set.clone());
    let verifier = Verifier::new(
        common::rules(),
        JwtVerifier::new(ISSUER, AUDIENCE, keys.clone()),
    );
    let layer = DpopLayer::new(verifier.allow_bearer());
    let good = Attempt::good();
    good.outcome_by(&layer).assert_passed("the first request");
    good.again()
        .outcome_by(&layer)
        .assert_passed("the second request");

    let mut stolen = good.again();
    stolen.key = Key::es256();
    stolen.proof_header["jwk"] = stolen.key.public_jwk();
    let outcome = stolen.outcome_by(&layer);
    assert_eq!(outcome.rejection, Some(BindingError::OtherKey.into()));

    let mut bearer = good.again();
    bearer.authorization = Some(vec![format!("Bearer {}", good.token()).parse().unwrap()]);
    let outcome = bearer.outcome_by(&layer);
    assert_eq!(outcome.status.as_u16(), 401);
    assert!(
        outcome.challenges[0].starts_with(r#"Bearer error="invalid_token""#),
        "{:?}",
        outcome.challenges
    );

    let replayed = good.outcome_by(&layer);
    replayed
        .kit
        .assert_reason("a replay", tower_dpop::proof::ProofError::Replayed);

    keys.set_current(None);
    good.again().outcome_by(&layer).assert_reason(
        "the keys are unreachable",
        Rejection::Unavailable(Unavailable::Token),
    );
    keys.set_current(Some(set));
    good.again()
        .outcome_by(&layer)
        .assert_passed("the keys are back");
}
