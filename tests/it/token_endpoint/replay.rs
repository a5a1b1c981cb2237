//! Used proofs, and a replay store that cannot decide.

use super::*;

/// a proof is good once, at either endpoint.
#[test]
fn rejects_a_proof_that_was_used_before() {
    let (layer, server) = (TokenEndpointLayer::new(endpoint()), Server::default());
    let attempt = Attempt::good();
    let key = keys::client();
    attempt
        .outcome_by(&layer, &server)
        .assert_bound("first", &key);
    attempt.outcome_by(&layer, &server).assert_rejected(
        "again",
        ProofError::Replayed,
        Some("invalid_dpop_proof"),
    );
    let signed_anew = Attempt::but(|a| a.claims["jti"] = attempt.claims["jti"].clone());
    signed_anew.outcome_by(&layer, &server).assert_rejected(
        "its jti again",
        ProofError::Replayed,
        Some("invalid_dpop_proof"),
    );
    let by_another = {
        let mut other = Attempt::with_key(Key::es256());
        other.claims["jti"] = attempt.claims["jti"].clone();
        other
    };
    by_another
        .outcome_by(&layer, &server)
        .assert_bound("its jti by another key", &by_another.key);
    assert_eq!(server.called(), 2);
}

/// a proof that is only checked takes no place in the memory, so a server can look at
/// client and grant before it spends the proof.
#[test]
fn a_proof_is_spent_when_the_server_says_so() {
    struct Counting(Arc<AtomicUsize>, MemoryReplayStore);

    impl ReplayStore for Counting {
        async fn claim(
            &self,
            key: ReplayKey,
            now: Timestamp,
            expires: Timestamp,
        ) -> Result<Claim, ReplayStoreError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            self.1.claim(key, now, expires).await
        }
    }

    let (claims, clock) = (Arc::new(AtomicUsize::new(0)), TestClock::at(NOW));
    let endpoint = endpoint_by(|rules| {
        rules
            .with_clock(clock.read())
            .with_replay_store(Counting(claims.clone(), MemoryReplayStore::default()))
    });
    let (attempt, other) = (Attempt::good(), Attempt::with_key(Key::es256()));
    let checked = endpoint.check(&attempt.head()).unwrap();
    let again = endpoint.check(&attempt.head()).unwrap();
    assert_eq!(checked.thumbprint(), jkt(&keys::client()));
    assert!(endpoint.check(&other.head()).is_ok());
    let rejected = endpoint
        .check(&Attempt::without_proof().head())
        .unwrap_err();
    assert_eq!(rejected, ProofError::Missing.into());
    assert_eq!(
        claims.load(Ordering::SeqCst),
        0,
        "nothing is remembered yet"
    );
    assert_eq!(format!("{checked:?}"), "UnrecordedProof(..)");

    let key = block_on(checked.record_use()).unwrap();
    assert_eq!(key.thumbprint(), jkt(&keys::client()));
    assert_eq!(key.algorithm(), Algorithm::Es256);
    let replayed = block_on(again.record_use()).unwrap_err();
    assert_eq!(replayed, ProofError::Replayed.into());
    assert_eq!(claims.load(Ordering::SeqCst), 2);

    for (seconds, spent) in [(90, true), (91, false)] {
        let (attempt, before) = (Attempt::good(), claims.load(Ordering::SeqCst));
        clock.set(NOW);
        let checked = endpoint.check(&attempt.head()).unwrap();
        clock.set(NOW + seconds);
        let outcome = block_on(checked.record_use()).map(|key| key.algorithm());
        let expected = if spent {
            Ok(Algorithm::Es256)
        } else {
            Err(ProofError::Expired.into())
        };
        assert_eq!(outcome, expected, "{seconds}");
        let made = claims.load(Ordering::SeqCst) - before;
        assert_eq!(made, usize::from(spent), "{seconds}: places taken");
    }
}

/// The replay memory may be chosen last: nothing else changes.
#[test]
fn what_was_configured_before_the_replay_memory_stays() {
    let memory = MemoryReplayStore::default;
    let ps256 = rules().with_algorithms(Algorithms::only(Algorithm::Ps256));
    assert_eq!(
        Attempt::good()
            .verified(&TokenEndpoint::new(ps256.with_replay_store(memory())))
            .unwrap_err(),
        TokenRequestRejection::Proof(ProofError::Algorithm)
    );
    let strict = Freshness::default().with_leeway(Duration::from_secs(5));
    let strict = rules().with_freshness(strict);
    assert_eq!(
        Attempt::but(|a| a.claims["iat"] = json!(NOW + 6))
            .verified(&TokenEndpoint::new(strict.with_replay_store(memory())))
            .unwrap_err(),
        TokenRequestRejection::Proof(ProofError::Iat(IatError::InTheFuture { by: 1 }))
    );
    let with_nonces =
        TokenEndpoint::new(nonce_rules(&TestClock::at(NOW)).with_replay_store(memory()));
    assert_eq!(
        Attempt::good().verified(&with_nonces).unwrap_err(),
        TokenRequestRejection::Nonce(NonceError::Missing),
        "A-10"
    );
    let other_name = endpoint_by(|rules| {
        rules
            .add_public_url("https://login.example".parse().unwrap())
            .with_replay_store(memory())
    });
    let at_login = Attempt::but(|a| a.claims["htu"] = json!("https://login.example/token"));
    assert!(at_login.verified(&other_name).is_ok());
}

/// D12, D13: who cannot say rejects, and nothing is consumed.
#[test]
fn a_replay_memory_that_cannot_say_is_a_fault_of_ours() {
    struct Away;

    impl ReplayStore for Away {
        async fn claim(
            &self,
            _key: ReplayKey,
            _now: Timestamp,
            _expires: Timestamp,
        ) -> Result<Claim, ReplayStoreError> {
            Err(ReplayStoreError::Unavailable)
        }
    }

    let server = Server::with_code("the-code");
    let attempt = Attempt::but(|a| a.form = "the-code".into());
    let away = TokenEndpointLayer::new(endpoint_by(|rules| rules.with_replay_store(Away)));
    let full = TokenEndpointLayer::new(endpoint_by(|rules| {
        rules.with_replay_store(MemoryReplayStore::with_limit(0))
    }));
    let outcomes = [
        (
            attempt.outcome_by(&away, &server),
            ReplayStoreError::Unavailable,
        ),
        (attempt.outcome_by(&full, &server), ReplayStoreError::Full),
    ];
    for (outcome, reason) in outcomes {
        outcome.assert_rejected("D13", reason, None);
    }
    assert!(server.called() == 0 && server.has_code("the-code"), "A-19");
}

/// a claim that took so long that an earlier one may have been forgotten is no first use.
#[test]
fn a_proof_that_ran_out_while_the_memory_was_asked_is_rejected() {
    struct Slow(TestClock);

    impl ReplayStore for Slow {
        async fn claim(
            &self,
            _key: ReplayKey,
            now: Timestamp,
            _expires: Timestamp,
        ) -> Result<Claim, ReplayStoreError> {
            self.0.set(now.as_unix() + 91);
            Ok(Claim::First)
        }
    }

    let clock = TestClock::at(NOW);
    let endpoint = endpoint_by(|rules| {
        rules
            .with_clock(clock.read())
            .with_replay_store(Slow(clock.clone()))
    });
    assert_eq!(
        Attempt::good().verified(&endpoint).unwrap_err(),
        TokenRequestRejection::Proof(ProofError::Expired)
    );
}

/// a proof that ran out between the two halves takes no place in the memory; in the last second
/// of its time it is still good.
#[test]
fn a_proof_that_ran_out_before_it_was_spent_is_not_remembered() {
    struct Counting(Arc<AtomicUsize>);

    impl ReplayStore for Counting {
        async fn claim(
            &self,
            _key: ReplayKey,
            _now: Timestamp,
            _expires: Timestamp,
        ) -> Result<Claim, ReplayStoreError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(Claim::First)
        }
    }

    let (clock, claims) = (TestClock::at(NOW), Arc::new(AtomicUsize::new(0)));
    let endpoint = endpoint_by(|rules| {
        rules
            .with_clock(clock.read())
            .with_replay_store(Counting(claims.clone()))
    });
    let head = Attempt::good().head();
    let (in_time, late) = (endpoint.check(&head), endpoint.check(&head));
    clock.set(NOW + 90);
    assert!(block_on(in_time.unwrap().record_use()).is_ok());
    clock.set(NOW + 91);
    let rejected = block_on(late.unwrap().record_use()).unwrap_err();
    assert_eq!(rejected, ProofError::Expired.into());
    assert_eq!(claims.load(Ordering::SeqCst), 1);
}
