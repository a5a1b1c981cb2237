//! The cache inside `JwtVerifier`.

use super::*;

const FROM_THE_CACHE: usize = 0;

const VERIFIED: usize = 1;

/// What a second request with the same token gets, after one thing has changed: time, or keys.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn a_verdict_ends_with_its_token_and_with_its_keys() {
    struct Row {
        name: &'static str,
        meanwhile: fn(&Keys),
        now: u64,
        outcome: Result<(), TokenError>,
        verifications: usize,
    }
    let row = |name, meanwhile, now, outcome, verifications| Row {
        name,
        meanwhile,
        now,
        outcome,
        verifications,
    };
    let nothing: fn(&Keys) = |_| {};
    let rows = [
        row("nothing has changed", nothing, NOW, Ok(()), FROM_THE_CACHE),
        row("a minute", nothing, NOW + 60, Ok(()), FROM_THE_CACHE),
        row("exp", nothing, NOW + 600, Ok(()), FROM_THE_CACHE),
        row(
            "the last second of exp and leeway",
            nothing,
            NOW + 629,
            Ok(()),
            FROM_THE_CACHE,
        ),
        row(
            "exp and leeway",
            nothing,
            NOW + 630,
            Err(TokenError::Expired),
            FROM_THE_CACHE,
        ),
        row(
            "a clock that is back at nbf less leeway",
            nothing,
            NOW - 30,
            Ok(()),
            FROM_THE_CACHE,
        ),
        row(
            "a clock that is back before nbf less leeway",
            nothing,
            NOW - 31,
            Err(TokenError::NotYetValid),
            FROM_THE_CACHE,
        ),
        row(
            "the set was replaced by a clone of itself",
            |keys| {
                let set = keys.0.now.lock().unwrap().clone();
                keys.become_set(set);
            },
            NOW,
            Ok(()),
            FROM_THE_CACHE,
        ),
        row(
            "the set was read again, with the same keys",
            |keys| keys.become_set(Some(issuers_set())),
            NOW,
            Ok(()),
            VERIFIED,
        ),
        row(
            "a key was added",
            |keys| keys.become_set(Some(issuer().add_key("2", Key::es256()).key_set())),
            NOW,
            Ok(()),
            VERIFIED,
        ),
        row(
            "the key was removed",
            |keys| keys.become_set(Some(issuer().with_key("2", Key::es256()).key_set())),
            NOW,
            Err(TokenError::Key),
            FROM_THE_CACHE,
        ),
        row(
            "the kid has another key",
            |keys| keys.become_set(Some(issuer().with_key("issuer", Key::es256()).key_set())),
            NOW,
            Err(TokenError::Signature),
            FROM_THE_CACHE,
        ),
        row(
            "the kid has a key of another algorithm",
            |keys| {
                let key = Key::ed25519("Ed25519");
                keys.become_set(Some(issuer().with_key("issuer", key).key_set()));
            },
            NOW,
            Err(TokenError::Key),
            FROM_THE_CACHE,
        ),
        row(
            "the keys are out of reach",
            |keys| keys.become_set(None),
            NOW,
            Err(TokenError::Unavailable),
            FROM_THE_CACHE,
        ),
        row(
            "the keys are out of reach, and the token has expired",
            |keys| keys.become_set(None),
            NOW + 630,
            Err(TokenError::Expired),
            FROM_THE_CACHE,
        ),
    ];
    for row in rows {
        let keys = Keys::of(issuers_set());
        let tokens = jwt_verifier(keys.clone());
        let token = good_token().to_text();
        let first = verifications(|| outcome(&tokens, &token, NOW));
        assert_eq!(first, (Ok(()), VERIFIED), "{}: the first time", row.name);
        (row.meanwhile)(&keys);
        let second = verifications(|| outcome(&tokens, &token, row.now));
        assert_eq!(second, (row.outcome, row.verifications), "{}", row.name);
    }
}

/// The same boundaries hold for a token that was never seen, and for one that was.
#[test]
fn a_cache_changes_no_boundary() {
    let good = good_token();
    let rows = [
        ("exp", good.clone(), NOW + 600),
        (
            "a fraction of a second more",
            good.clone()
                .with_claim("exp", f64::from(u32::try_from(NOW).unwrap()) + 600.5),
            NOW + 600,
        ),
        ("without nbf", good.without_claim("nbf"), NOW + 600),
    ];
    for (name, token, exp) in rows {
        let token = token.to_text();
        let cached = jwt_verifier(issuers_set());
        assert_eq!(outcome(&cached, &token, NOW), Ok(()), "{name}");
        for now in exp + 25..exp + 35 {
            let again = outcome(&jwt_verifier(issuers_set()).without_cache(), &token, now);
            assert_eq!(outcome(&cached, &token, now), again, "{name}: {now}");
        }
        // A clock that is put right again.
        assert_eq!(outcome(&cached, &token, NOW), Ok(()), "{name}");
        for leeway in [0, 1, 300] {
            let tokens = jwt_verifier(issuers_set()).with_leeway(Duration::from_secs(leeway));
            assert_eq!(outcome(&tokens, &token, NOW), Ok(()), "{name}");
            let last = exp + leeway + u64::from(name.starts_with("a fraction"));
            assert_eq!(
                outcome(&tokens, &token, last - 1),
                Ok(()),
                "{name}: {leeway}"
            );
            let after = outcome(&tokens, &token, last);
            assert_eq!(after, Err(TokenError::Expired), "{name}: {leeway}");
        }
    }
}

/// "The source is asked with every request": it renews its keys when it is asked.
#[test]
fn the_source_of_keys_is_asked_with_every_request() {
    let keys = Keys::of(issuers_set());
    let tokens = jwt_verifier(keys.clone());
    let token = good_token().to_text();
    for requests in 1..=5 {
        assert_eq!(outcome(&tokens, &token, NOW), Ok(()));
        assert_eq!(keys.asked(), (requests, 0));
    }
    assert_eq!(
        outcome(&tokens, &token, NOW + 630),
        Err(TokenError::Expired)
    );
    assert_eq!(keys.asked(), (5, 0), "for a token that has expired");
}

#[test]
fn a_verdict_outlives_keys_that_are_out_of_reach_for_a_while() {
    let (set, other) = (issuers_set(), issuers_set());
    let keys = Keys::of(set.clone());
    let tokens = jwt_verifier(keys.clone());
    let token = good_token().to_text();
    assert_eq!(outcome(&tokens, &token, NOW), Ok(()));
    keys.become_set(None);
    assert_eq!(outcome(&tokens, &token, NOW), Err(TokenError::Unavailable));
    keys.become_set(Some(set.clone()));
    let back = verifications(|| outcome(&tokens, &token, NOW));
    assert_eq!(back, (Ok(()), FROM_THE_CACHE));
    // But not another set in between, if somebody asked meanwhile.
    keys.become_set(Some(other));
    assert_eq!(outcome(&tokens, &token, NOW), Ok(()));
    keys.become_set(Some(set));
    let back = verifications(|| outcome(&tokens, &token, NOW));
    assert_eq!(back, (Ok(()), VERIFIED));
}

/// A token that a newer key has verified: the verdict rests on the newer set.
#[test]
fn a_verdict_by_newer_keys_rests_on_them() {
    let old = issuer().with_key("old", Key::es256()).key_set();
    let keys = Keys::of(old.clone());
    let newer = issuers_set();
    *keys.0.newer.lock().unwrap() = Some(newer);
    let tokens = jwt_verifier(keys.clone());
    let token = good_token().to_text();
    let first = verifications(|| outcome(&tokens, &token, NOW));
    assert_eq!((first, keys.asked()), ((Ok(()), VERIFIED), (1, 1)));
    let second = verifications(|| outcome(&tokens, &token, NOW));
    assert_eq!((second, keys.asked()), ((Ok(()), FROM_THE_CACHE), (2, 1)));
    *keys.0.newer.lock().unwrap() = None;
    keys.become_set(Some(old));
    assert_eq!(outcome(&tokens, &token, NOW), Err(TokenError::Key));
}

/// A source whose answer the test holds back.
struct HeldBack {
    keys: Keys,
    answering: mpsc::UnboundedSender<()>,
    go_on: tokio::sync::Mutex<mpsc::UnboundedReceiver<()>>,
}

impl KeySource for HeldBack {
    async fn key_set(&self, now: Timestamp) -> Result<KeySet, KeySourceError> {
        let set = self.keys.key_set(now).await;
        self.answering.send(()).unwrap();
        self.go_on.lock().await.recv().await.unwrap();
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

/// The key is removed while a signature is being verified with it: that request may pass, no later
/// one does.
#[test]
fn a_verification_under_way_leaves_no_verdict_by_keys_of_before() {
    let keys = Keys::of(issuers_set());
    let (answering, mut outcomes) = mpsc::unbounded_channel();
    let (release, go_on) = mpsc::unbounded_channel();
    let tokens = jwt_verifier(HeldBack {
        keys: keys.clone(),
        answering,
        go_on: go_on.into(),
    });
    let token = good_token().to_text();
    let under_way = tokens.verify(PresentedToken::new(&token), Timestamp::from_unix(NOW));
    let (first, ()) = block_on(async {
        tokio::join!(under_way, async {
            outcomes.recv().await.unwrap();
            keys.become_set(Some(issuer().with_key("2", Key::es256()).key_set()));
            release.send(()).unwrap();
        })
    });
    assert!(first.is_ok());
    // One answer for the look at the verdict, one for the signature.
    release.send(()).unwrap();
    release.send(()).unwrap();
    assert_eq!(outcome(&tokens, &token, NOW), Err(TokenError::Key));
}

/// Settings that are changed after use: no verdict of before is left, whether the new rules accept
/// the token or not.
#[test]
fn a_verdict_does_not_outlive_its_rules() {
    type Tokens = JwtVerifier<KeySet, Counted>;
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
            FROM_THE_CACHE,
        ),
        (
            "no leeway",
            |tokens| tokens.with_leeway(Duration::ZERO),
            Err(TokenError::Expired),
            FROM_THE_CACHE,
        ),
        ("any typ", JwtVerifier::with_lenient_typ, Ok(()), VERIFIED),
        (
            "other claims of the same type",
            JwtVerifier::with_claims::<Counted>,
            Ok(()),
            VERIFIED,
        ),
        (
            "more memory",
            |tokens| tokens.with_cache_capacity(1 << 30),
            Ok(()),
            VERIFIED,
        ),
        ("no memory", JwtVerifier::without_cache, Ok(()), VERIFIED),
    ];
    let token = good_token().to_text();
    for (name, change, expected, again) in rows {
        let tokens = jwt_verifier(issuers_set());
        assert_eq!(outcome(&tokens, &token, NOW + 600), Ok(()), "{name}");
        let tokens = change(tokens);
        let second = verifications(|| outcome(&tokens, &token, NOW + 600));
        assert_eq!(second, (expected, again), "{name}");
    }
}

/// A type into which a token does not fit does not get what another type was read into.
#[test]
fn a_verdict_is_of_one_type() {
    #[derive(Debug, Deserialize)]
    struct Tenant {
        #[expect(dead_code, reason = "it is to be there")]
        tenant: u64,
    }
    let token = good_token().to_text();
    let tokens = jwt_verifier(issuers_set());
    assert_eq!(outcome(&tokens, &token, NOW), Ok(()));
    let tokens = tokens.with_claims::<Tenant>();
    for time in ["first", "second"] {
        assert_eq!(
            outcome(&tokens, &token, NOW),
            Err(TokenError::Claims),
            "{time}"
        );
    }
}

/// Verifiers that share keys share no verdicts.
#[test]
fn a_verdict_is_one_verifiers_own() {
    type Tokens = JwtVerifier<KeySet, Counted>;
    let keys = issuers_set();
    let token = good_token().to_text();
    let first = jwt_verifier(keys.clone());
    assert_eq!(outcome(&first, &token, NOW), Ok(()));
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
            FROM_THE_CACHE,
        ),
        (
            "another issuer",
            JwtVerifier::new("https://other.example.com", AUDIENCE, keys.clone()).with_claims(),
            Err(TokenError::Issuer),
            FROM_THE_CACHE,
        ),
        (
            "other keys",
            jwt_verifier(issuer().with_key("issuer", Key::es256()).key_set()),
            Err(TokenError::Signature),
            FROM_THE_CACHE,
        ),
    ];
    for (name, other, expected, count) in rows {
        let result = verifications(|| outcome(&other, &token, NOW));
        assert_eq!(result, (expected, count), "{name}");
        let own = verifications(|| outcome(&first, &token, NOW));
        assert_eq!(own, (Ok(()), FROM_THE_CACHE), "{name}");
    }
}

/// A token that differs in one character is another token.
#[test]
fn a_verdict_is_about_one_text() {
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
            "bits of the last character that are not part of the signature",
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
            "no signature",
            |token| format!("{}.", token.rsplit_once('.').unwrap().0),
            Err(TokenError::Signature),
        ),
        (
            "cut by a segment",
            |token| token.rsplit_once('.').unwrap().0.to_owned(),
            Err(TokenError::Malformed),
        ),
        (
            "one character less",
            |token| token[..token.len() - 1].to_owned(),
            Err(TokenError::Malformed),
        ),
        (
            "one segment more",
            |token| format!("{token}.AAAA"),
            Err(TokenError::Malformed),
        ),
        (
            "padding",
            |token| format!("{token}="),
            Err(TokenError::Malformed),
        ),
        (
            "two bytes more of a signature",
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
        let tokens = jwt_verifier(issuers_set());
        let token = good_token().to_text();
        assert_eq!(outcome(&tokens, &token, NOW), Ok(()), "{name}");
        let other = change(&token);
        let count = usize::from(expected.is_ok());
        for time in 0..2 {
            let result = verifications(|| outcome(&tokens, &other, NOW));
            let count = if time == 0 { count } else { FROM_THE_CACHE };
            assert_eq!(result, (expected.clone(), count), "{name}: {time}");
        }
        let own = verifications(|| outcome(&tokens, &token, NOW));
        assert_eq!(own, (Ok(()), FROM_THE_CACHE), "{name}");
    }
}

/// What is rejected is rejected again: a key that arrives later makes the token good.
#[test]
fn a_rejection_is_not_kept() {
    let keys = Keys::of(issuer().with_key("2", Key::es256()).key_set());
    let tokens = jwt_verifier(keys.clone());
    let token = good_token().to_text();
    for requests in 1..=3 {
        assert_eq!(outcome(&tokens, &token, NOW), Err(TokenError::Key));
        assert_eq!(keys.asked(), (requests, requests));
    }
    keys.become_set(Some(issuers_set()));
    let later = verifications(|| outcome(&tokens, &token, NOW));
    assert_eq!(later, (Ok(()), VERIFIED));
}

#[test]
fn without_a_cache_every_request_is_verified() {
    let token = good_token().to_text();
    let keys = Keys::of(issuers_set());
    let tokens = jwt_verifier(keys.clone()).without_cache();
    for requests in 1..=3 {
        let result = verifications(|| outcome(&tokens, &token, NOW));
        assert_eq!(result, (Ok(()), VERIFIED));
        assert_eq!(keys.asked(), (requests, 0));
    }
    let tokens = tokens.with_lenient_typ().with_claims::<Counted>();
    for _ in 0..2 {
        let result = verifications(|| outcome(&tokens, &token, NOW));
        assert_eq!(
            result,
            (Ok(()), VERIFIED),
            "other settings do not bring it back"
        );
    }
}

/// Some ten tokens of 300 fit; moka puts off the eviction of up to some hundred.
#[test]
fn a_cache_is_bounded_and_what_it_forgets_is_verified_again() {
    let tokens: Vec<String> = (0..300)
        .map(|number| good_token().with_claim("number", number).to_text())
        .collect();
    let small = jwt_verifier(issuers_set()).with_cache_capacity(25_000);
    let large = jwt_verifier(issuers_set());
    for (name, verifier, most, least) in [
        ("small", &small, 300, 150),
        ("the default", &large, FROM_THE_CACHE, FROM_THE_CACHE),
    ] {
        let round = || {
            for token in &tokens {
                assert_eq!(outcome(verifier, token, NOW), Ok(()), "{name}");
            }
        };
        assert_eq!(verifications(round).1, 300, "{name}");
        let again = verifications(round).1;
        assert!((least..=most).contains(&again), "{name}: {again}");
    }
    let nothing = jwt_verifier(issuers_set()).with_cache_capacity(0);
    for token in &tokens[..20] {
        assert_eq!(outcome(&nothing, token, NOW), Ok(()), "no memory at all");
    }
}

/// What stands around a cache runs with every request.
#[test]
fn a_rule_around_a_cache_runs_with_every_request() {
    struct Unless<V> {
        tokens: V,
        revoked: AtomicBool,
        asked: AtomicUsize,
    }

    impl<V: AccessTokenVerifier> AccessTokenVerifier for Unless<V> {
        type Claims = V::Claims;

        async fn verify(
            &self,
            token: PresentedToken<'_>,
            now: Timestamp,
        ) -> Result<AccessToken<V::Claims>, TokenError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
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

    let tokens = Unless {
        tokens: jwt_verifier(issuers_set()),
        revoked: AtomicBool::new(false),
        asked: AtomicUsize::new(0),
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
            assert_eq!(outcome(&tokens, &token, NOW), expected);
        }
    });
    assert_eq!((count, tokens.asked.load(Ordering::SeqCst)), (1, 5));
}

/// D13, and R-7.2.1: whatever is known of a token, the rest of a request is checked as ever.
#[test]
fn behind_the_layer_a_verdict_spares_the_signature_and_nothing_else() {
    let set: KeySet = issuer_jwks().parse().unwrap();
    let keys = Keys::of(set.clone());
    let verifier = Verifier::new(
        common::rules(),
        JwtVerifier::new(ISSUER, AUDIENCE, keys.clone()),
    );
    let layer = DpopLayer::new(verifier.allow_bearer());
    let good = Attempt::good();
    good.outcome_by(&layer).assert_passed("the first time");
    good.again()
        .outcome_by(&layer)
        .assert_passed("a second time");

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

    keys.become_set(None);
    good.again().outcome_by(&layer).assert_reason(
        "keys out of reach",
        Rejection::Unavailable(Unavailable::Token),
    );
    keys.become_set(Some(set));
    good.again()
        .outcome_by(&layer)
        .assert_passed("keys are back");
}
