//! The endpoint itself: which proofs it accepts, what it records, which nonces it requires.

use std::collections::HashSet;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use http::request::Parts;
use serde_json::json;
use tower_dpop::proof::{
    Claim, Epoch, IatError, Nonce, NonceError, NonceSource as _, ProofError, ReplayStoreError,
    RequestTarget, TargetError, UrlMismatch, UsedProof,
};
use tower_dpop::token_endpoint::{
    AuthorizationServerMetadata, TokenEndpoint, TokenEndpointLayer, TokenRequestRejection,
};
use tower_dpop::{
    Algorithm, Algorithms, Freshness, MemoryReplayStore, ProofRules, ReplayStore, StatelessNonces,
    Timestamp,
};

use common::token_endpoint::{Attempt, Server, endpoint, nonce_secret, rules};
use common::{ISSUER, Key, KeyExt as _, NOW, TestClock, at, block_on, field, keys};

use super::{Change, bad_proofs, endpoint_with_nonces, jkt, nonce_rules};

/// [`endpoint`] with other rules.
fn endpoint_by(change: impl FnOnce(ProofRules) -> ProofRules) -> TokenEndpoint {
    TokenEndpoint::new(change(rules()))
}

/// A-1, A-2, A-3: with every default algorithm, directly and through the layer.
#[test]
fn a_valid_proof_gets_a_bound_token() {
    let endpoint = Arc::new(endpoint());
    let layer = TokenEndpointLayer::new(Arc::clone(&endpoint));
    let keys = [
        keys::client(),
        Key::es384(),
        Key::rsa("PS256"),
        Key::ed25519("Ed25519"),
        Key::ed25519("EdDSA"),
    ];
    for key in keys {
        let name = key.alg();
        let attempt = || Attempt::with_key(key.clone());
        let proven = attempt().verify(&endpoint).unwrap();
        assert_eq!(proven.thumbprint(), jkt(&key), "{name}");
        assert!(proven.next_nonce().is_none(), "{name}");
        let outcome = attempt().outcome_by(&layer, &Server::default());
        outcome.assert_bound(name, &key);
        assert_eq!(outcome.values("dpop-nonce"), [""; 0], "{name}");
        assert_eq!(outcome.values("cache-control"), [""; 0], "{name}");
    }
}

/// A-1, A-15: directly, and through the layer before the service is called.
#[test]
fn rejects_a_proof_that_fails_a_check() {
    let mut seen: HashSet<Discriminant<ProofError>> = HashSet::new();
    for (name, change, reason) in bad_proofs() {
        let attempt = Attempt::but(change);
        assert_eq!(
            attempt.verify(&endpoint()).unwrap_err(),
            TokenRequestRejection::Proof(reason),
            "{name}"
        );
        let (layer, server) = (TokenEndpointLayer::new(endpoint()), Server::with_code("c"));
        let outcome = attempt.outcome_by(&layer, &server);
        outcome.assert_rejected(name, reason, Some("invalid_dpop_proof"));
        assert_eq!(server.calls(), 0, "{name}: A-19");
        seen.insert(discriminant(&reason));
    }
    assert_eq!(
        seen.len(),
        19,
        "every ProofError except TokenHash and Replayed"
    );
    assert!(!seen.contains(&discriminant(&ProofError::TokenHash)));
    assert!(!seen.contains(&discriminant(&ProofError::Replayed)));
}

#[test]
fn rejects_a_request_without_a_valid_target() {
    let rows: [(&str, Change, TargetError); 2] = [
        (
            "a target on another server",
            |a| a.uri = "https://evil.example/token".into(),
            TargetError::Misdirected,
        ),
        (
            "a malformed path",
            |a| a.uri = "/tokén".into(),
            TargetError::NotRfc3986,
        ),
    ];
    for (name, change, reason) in rows {
        let (layer, server) = (TokenEndpointLayer::new(endpoint()), Server::default());
        let outcome = Attempt::but(change).outcome_by(&layer, &server);
        outcome.assert_rejected(name, reason, Some("invalid_request"));
        assert_eq!(server.calls(), 0, "{name}");
    }
}

/// A-14: one `TokenEndpoint` serves the token endpoint and the endpoint of pushed authorization
/// requests (PAR).
#[test]
fn rejects_a_proof_for_the_other_endpoint() {
    let layer = TokenEndpointLayer::new(endpoint());
    let (token, par) = ("https://as.example.com/token", "https://as.example.com/par");
    let rows = [
        ("a token proof at the token endpoint", "/token", token, true),
        ("a PAR proof at the PAR endpoint", "/par", par, true),
        ("a token proof at the PAR endpoint", "/par", token, false),
        ("a PAR proof at the token endpoint", "/token", par, false),
        ("a PAR request with a query", "/par?request=1", par, true),
    ];
    for (name, uri, htu, passes) in rows {
        let attempt = Attempt::but(|a| {
            a.uri = uri.into();
            a.claims["htu"] = json!(htu);
        });
        let outcome = attempt.outcome_by(&layer, &Server::default());
        if passes {
            outcome.assert_bound(name, &attempt.key);
        } else {
            outcome.assert_rejected(
                name,
                ProofError::Url(UrlMismatch::Path),
                Some("invalid_dpop_proof"),
            );
        }
    }
}

/// A-21: there is no access token yet that `ath` could be the hash of.
#[test]
fn ignores_ath() {
    let rows = [
        ("the hash of some token", json!(common::ath("some token"))),
        ("not a hash", json!("wrong")),
        ("empty", json!("")),
        ("long", json!("A".repeat(4_000))),
    ];
    for (name, ath) in rows {
        let attempt = Attempt::but(|a| a.claims["ath"] = ath);
        assert!(attempt.verify(&endpoint()).is_ok(), "A-21: {name}");
    }
}

/// A-18: a client's clock may be 10 s ahead. The default allows 30 s ahead and 90 s behind.
#[test]
fn accepts_times_within_the_default_limits() {
    let rows: [(&str, Change); 5] = [
        ("A-18: iat 10 s ahead", |a| {
            a.claims["iat"] = json!(NOW + 10);
        }),
        ("A-18: nbf 10 s ahead", |a| {
            a.claims["nbf"] = json!(NOW + 10);
        }),
        ("iat 30 s ahead", |a| a.claims["iat"] = json!(NOW + 30)),
        ("iat 90 s ago", |a| a.claims["iat"] = json!(NOW - 90)),
        ("a fraction of a second", |a| {
            a.claims["iat"] = json!(1_700_000_009.5);
        }),
    ];
    for (name, change) in rows {
        let proven = Attempt::but(change).verify(&endpoint());
        assert!(proven.is_ok(), "{name}: {proven:?}");
    }
}

/// A-7: the metadata lists exactly the algorithms that the endpoint accepts.
#[test]
fn metadata_lists_the_accepted_algorithms() {
    #[derive(serde::Serialize)]
    struct Metadata {
        issuer: &'static str,
        #[serde(flatten)]
        dpop: AuthorizationServerMetadata,
    }

    assert_eq!(
        serde_json::to_string(&endpoint().metadata()).unwrap(),
        r#"{"dpop_signing_alg_values_supported":["ES256","ES384","PS256","Ed25519","EdDSA"]}"#,
        "A-7"
    );
    let es512 = endpoint_by(|rules| rules.with_algorithms(Algorithms::only(Algorithm::Es512)));
    let metadata = Metadata {
        issuer: ISSUER,
        dpop: es512.metadata(),
    };
    assert_eq!(
        serde_json::to_string(&metadata).unwrap(),
        r#"{"issuer":"https://as.example.com","dpop_signing_alg_values_supported":["ES512"]}"#,
        "A-7"
    );
    assert!(Attempt::with_key(Key::es512()).verify(&es512).is_ok());
    assert_eq!(
        Attempt::good().verify(&es512).unwrap_err(),
        TokenRequestRejection::Proof(ProofError::Algorithm)
    );
}

#[test]
fn applies_the_configured_rules() {
    let with_login_url =
        endpoint_by(|rules| rules.add_public_url("https://login.example".parse().unwrap()));
    let at_login = || Attempt::but(|a| a.claims["htu"] = json!("https://login.example/token"));
    assert!(at_login().verify(&with_login_url).is_ok());
    assert!(Attempt::good().verify(&with_login_url).is_ok());
    assert!(at_login().verify(&endpoint()).is_err());

    let behind_a_prefix = TokenEndpoint::new(
        ProofRules::new("https://as.example.com/tenant".parse().unwrap()).with_clock(|| at(NOW)),
    );
    let with_prefix =
        Attempt::but(|a| a.claims["htu"] = json!("https://as.example.com/tenant/token"));
    assert!(with_prefix.verify(&behind_a_prefix).is_ok());
    assert!(Attempt::good().verify(&behind_a_prefix).is_err());

    let with_resolver = endpoint_by(|rules| {
        rules.with_target_resolver(|head: &Parts| {
            let uri = head.headers.get("x-original-uri")?.to_str().ok()?;
            Some(RequestTarget::new(Method::POST, uri.parse().ok()?))
        })
    });
    let mut head = Attempt::but(|a| a.uri = "/auth".into()).head();
    head.headers.insert("x-original-uri", field(b"/token"));
    assert!(block_on(with_resolver.verify(&head)).is_ok());
    assert_eq!(
        Attempt::good().verify(&with_resolver).unwrap_err(),
        TokenRequestRejection::Target(TargetError::Unresolved)
    );

    let short_leeway = Freshness::default().with_leeway(Duration::from_secs(5));
    let ahead = Attempt::but(|a| a.claims["iat"] = json!(NOW + 6));
    assert!(ahead.verify(&endpoint()).is_ok());
    assert_eq!(
        ahead
            .verify(&endpoint_by(|rules| rules.with_freshness(short_leeway)))
            .unwrap_err(),
        TokenRequestRejection::Proof(ProofError::Iat(IatError::InTheFuture { by: 1 }))
    );
}

/// A-15: a proof is accepted once.
#[test]
fn rejects_a_proof_that_was_used_before() {
    let (layer, server) = (TokenEndpointLayer::new(endpoint()), Server::default());
    let attempt = Attempt::good();
    let key = keys::client();
    attempt
        .outcome_by(&layer, &server)
        .assert_bound("the first use", &key);
    attempt.outcome_by(&layer, &server).assert_rejected(
        "the same proof again",
        ProofError::Replayed,
        Some("invalid_dpop_proof"),
    );
    let same_jti = Attempt::but(|a| a.claims["jti"] = attempt.claims["jti"].clone());
    same_jti.outcome_by(&layer, &server).assert_rejected(
        "another proof with the same jti",
        ProofError::Replayed,
        Some("invalid_dpop_proof"),
    );
    let same_jti_by_other_key = {
        let mut other = Attempt::with_key(Key::es256());
        other.claims["jti"] = attempt.claims["jti"].clone();
        other
    };
    same_jti_by_other_key
        .outcome_by(&layer, &server)
        .assert_bound("the same jti, by another key", &same_jti_by_other_key.key);
    assert_eq!(server.calls(), 2);
}

/// A-15, A-19: so a server can check the client and the grant before it records the proof.
#[test]
fn check_does_not_record_a_proof_and_record_use_does() {
    struct CountingStore(Arc<AtomicUsize>, MemoryReplayStore);

    impl ReplayStore for CountingStore {
        async fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            self.1.claim(proof).await
        }

        fn epoch(&self) -> Epoch {
            self.1.epoch()
        }
    }

    let (calls, clock) = (Arc::new(AtomicUsize::new(0)), TestClock::at(NOW));
    let endpoint = endpoint_by(|rules| {
        rules
            .with_clock(clock.read())
            .with_replay_store(CountingStore(calls.clone(), MemoryReplayStore::default()))
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
    assert_eq!(calls.load(Ordering::SeqCst), 0, "nothing is recorded yet");
    assert_eq!(format!("{checked:?}"), "UnrecordedProof(..)");

    let key = block_on(checked.record_use()).unwrap();
    assert_eq!(key.thumbprint(), jkt(&keys::client()));
    assert_eq!(key.algorithm(), Algorithm::Es256);
    let replayed = block_on(again.record_use()).unwrap_err();
    assert_eq!(replayed, ProofError::Replayed.into());
    assert_eq!(calls.load(Ordering::SeqCst), 2);

    for (seconds, in_time) in [(90, true), (91, false)] {
        let (attempt, before) = (Attempt::good(), calls.load(Ordering::SeqCst));
        clock.set(NOW);
        let checked = endpoint.check(&attempt.head()).unwrap();
        clock.set(NOW + seconds);
        let result = block_on(checked.record_use()).map(|key| key.algorithm());
        let expected = if in_time {
            Ok(Algorithm::Es256)
        } else {
            Err(ProofError::Expired.into())
        };
        assert_eq!(result, expected, "{seconds}");
        let recorded = calls.load(Ordering::SeqCst) - before;
        assert_eq!(recorded, usize::from(in_time), "{seconds}: records");
    }
}

#[test]
fn with_replay_store_keeps_the_other_rules() {
    let store = MemoryReplayStore::default;
    let ps256 = rules().with_algorithms(Algorithms::only(Algorithm::Ps256));
    assert_eq!(
        Attempt::good()
            .verify(&TokenEndpoint::new(ps256.with_replay_store(store())))
            .unwrap_err(),
        TokenRequestRejection::Proof(ProofError::Algorithm)
    );
    let short_leeway = Freshness::default().with_leeway(Duration::from_secs(5));
    let short_leeway = rules().with_freshness(short_leeway);
    assert_eq!(
        Attempt::but(|a| a.claims["iat"] = json!(NOW + 6))
            .verify(&TokenEndpoint::new(short_leeway.with_replay_store(store())))
            .unwrap_err(),
        TokenRequestRejection::Proof(ProofError::Iat(IatError::InTheFuture { by: 1 }))
    );
    let with_nonces =
        TokenEndpoint::new(nonce_rules(&TestClock::at(NOW)).with_replay_store(store()));
    assert_eq!(
        Attempt::good().verify(&with_nonces).unwrap_err(),
        TokenRequestRejection::Nonce(NonceError::Missing),
        "A-10"
    );
    let with_login_url = endpoint_by(|rules| {
        rules
            .add_public_url("https://login.example".parse().unwrap())
            .with_replay_store(store())
    });
    let at_login = Attempt::but(|a| a.claims["htu"] = json!("https://login.example/token"));
    assert!(at_login.verify(&with_login_url).is_ok());
}

/// D12, D13: the request is rejected, and nothing is consumed.
#[test]
fn a_replay_store_that_cannot_decide_is_a_server_error() {
    struct UnavailableStore;

    impl ReplayStore for UnavailableStore {
        async fn claim(&self, _: UsedProof) -> Result<Claim, ReplayStoreError> {
            Err(ReplayStoreError::Unavailable)
        }

        fn epoch(&self) -> Epoch {
            Epoch::UNKNOWN
        }
    }

    let server = Server::with_code("the-code");
    let attempt = Attempt::but(|a| a.form = "the-code".into());
    let unavailable = TokenEndpointLayer::new(endpoint_by(|rules| {
        rules.with_replay_store(UnavailableStore)
    }));
    let full = TokenEndpointLayer::new(endpoint_by(|rules| {
        rules.with_replay_store(MemoryReplayStore::with_limit(0))
    }));
    let no_share = TokenEndpointLayer::new(endpoint_by(|rules| {
        rules.with_replay_store(MemoryReplayStore::default().with_client_limit(0))
    }));
    let outcomes = [
        (
            attempt.outcome_by(&unavailable, &server),
            TokenRequestRejection::Unavailable(ReplayStoreError::Unavailable),
        ),
        (
            attempt.outcome_by(&full, &server),
            TokenRequestRejection::Unavailable(ReplayStoreError::Full),
        ),
        (
            attempt.outcome_by(&no_share, &server),
            TokenRequestRejection::TooManyRequests,
        ),
    ];
    for (outcome, reason) in outcomes {
        outcome.assert_rejected("D13", reason, None);
    }
    assert!(server.calls() == 0 && server.has_code("the-code"), "A-19");
}

/// A-15: a store that takes this long may have dropped an earlier record of the proof.
#[test]
fn rejects_a_proof_that_expires_while_the_store_records_it() {
    struct SlowStore(TestClock);

    impl ReplayStore for SlowStore {
        async fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
            self.0.set(proof.now.as_unix() + 91);
            Ok(Claim::First)
        }

        fn epoch(&self) -> Epoch {
            Epoch::UNKNOWN
        }
    }

    let clock = TestClock::at(NOW);
    let endpoint = endpoint_by(|rules| {
        rules
            .with_clock(clock.read())
            .with_replay_store(SlowStore(clock.clone()))
    });
    assert_eq!(
        Attempt::good().verify(&endpoint).unwrap_err(),
        TokenRequestRejection::Proof(ProofError::Expired)
    );
}

/// A-10, A-11, A-12, A-19: so the client can retry with the same code.
#[test]
fn requires_a_nonce_before_the_code_is_consumed() {
    let layer = TokenEndpointLayer::new(endpoint_with_nonces(&TestClock::at(NOW)));
    let server = Server::with_code("the-code");
    let mut attempt = Attempt::but(|a| a.form = "the-code".into());

    let outcome = attempt.outcome_by(&layer, &server);
    outcome.assert_rejected("A-10", NonceError::Missing, Some("use_dpop_nonce"));
    assert_eq!(
        outcome.body,
        r#"{"error":"use_dpop_nonce","error_description":"Authorization server requires nonce in DPoP proof"}"#,
        "RFC 9449, Figure 20"
    );
    assert_eq!(server.calls(), 0, "A-19: the server was not called");
    assert!(server.has_code("the-code"), "A-19");

    // The same jti again: the rejected request did not record it.
    attempt.claims["nonce"] = json!(outcome.nonce());
    let outcome = attempt.outcome_by(&layer, &server);
    outcome.assert_bound("A-19: the same code", &attempt.key);
    assert!(!server.has_code("the-code"), "the code is consumed");
    assert_eq!(server.calls(), 1);

    let again = attempt.outcome_by(&layer, &server);
    again.assert_rejected("A-15", ProofError::Replayed, Some("invalid_dpop_proof"));
    assert_eq!(server.calls(), 1);
}

/// A-10, A-11, A-15: the response is the same for each, and the server accepts the nonce in it.
#[test]
fn rejects_a_missing_foreign_or_stale_nonce_and_sends_a_fresh_one() {
    let clock = TestClock::at(NOW);
    let store = MemoryReplayStore::default();
    let epoch = store.epoch();
    let rules = nonce_rules(&clock).with_replay_store(store);
    let layer = TokenEndpointLayer::new(TokenEndpoint::new(rules));
    let start = NOW - NOW % 120;
    let issued = |byte: u8, seconds: u64| {
        let nonces = StatelessNonces::new(nonce_secret(byte));
        let nonce = nonces.issue(Timestamp::from_unix(seconds), epoch);
        nonce.as_header_value().to_str().unwrap().to_owned()
    };
    let rows = [
        ("A-15: no nonce", None, NonceError::Missing),
        (
            "A-10: an empty nonce",
            Some(String::new()),
            NonceError::Foreign,
        ),
        (
            "A-10: not a nonce of any server",
            Some("garbage".into()),
            NonceError::Foreign,
        ),
        (
            "A-11: made with another secret",
            Some(issued(2, start)),
            NonceError::Foreign,
        ),
        (
            "A-11: tampered with",
            Some(format!("B{}", &issued(1, start)[1..])),
            NonceError::Foreign,
        ),
        (
            "A-10: stale",
            Some(issued(1, start - 240)),
            NonceError::Stale,
        ),
        (
            "A-10: from the future",
            Some(issued(1, start + 120)),
            NonceError::InTheFuture,
        ),
    ];
    for (name, nonce, reason) in rows {
        let server = Server::default();
        let attempt = Attempt::but(|a| {
            if let Some(nonce) = nonce {
                a.claims["nonce"] = json!(nonce);
            }
        });
        let outcome = attempt.outcome_by(&layer, &server);
        outcome.assert_rejected(name, reason, Some("use_dpop_nonce"));
        assert_eq!(server.calls(), 0, "{name}");
        let next = Attempt::with_nonce(&outcome.nonce(), NOW).outcome_by(&layer, &server);
        next.assert_bound(name, &keys::client());
    }
}

/// A-10: other defects of a proof are reported before its missing nonce.
#[test]
fn a_request_without_a_proof_gets_a_nonce() {
    let layer = TokenEndpointLayer::new(endpoint_with_nonces(&TestClock::at(NOW)));
    let server = Server::default();
    Attempt::without_proof()
        .outcome_by(&layer, &server)
        .assert_rejected("A-10", NonceError::Missing, Some("use_dpop_nonce"));
    Attempt::but(|a| a.claims["htm"] = json!("GET"))
        .outcome_by(&layer, &server)
        .assert_rejected("A-1", ProofError::Method, Some("invalid_dpop_proof"));
    assert_eq!(server.calls(), 0);
}

/// A-10: another endpoint can send the nonce, and `verify` returns the next one when it is due.
#[test]
fn issues_nonces_for_other_endpoints() {
    let start = NOW - NOW % 120;
    let clock = TestClock::at(start);
    let endpoint = endpoint_with_nonces(&clock);
    let nonce = endpoint.issue_nonce().unwrap();
    let text = nonce.as_header_value().to_str().unwrap();
    let verified = |now| {
        clock.set(now);
        Attempt::with_nonce(text, now).verify(&endpoint).unwrap()
    };
    assert!(verified(start).next_nonce().is_none());
    let next: Option<Nonce> = verified(start + 120).next_nonce().cloned();
    assert_eq!(next, endpoint.issue_nonce());
    assert_ne!(next, Some(nonce.clone()));
    assert!(self::endpoint().issue_nonce().is_none());
}

/// A-10, A-15: the nonce then also determines how long a proof stays recorded. Without nonces, `iat`
/// is still checked.
#[test]
fn fapi2_checks_the_nonce_instead_of_iat() {
    let clock = TestClock::at(NOW);
    let endpoint = TokenEndpoint::new(nonce_rules(&clock).with_freshness(Freshness::fapi2()));
    let nonce = endpoint.issue_nonce().unwrap();
    let nonce = nonce.as_header_value().to_str().unwrap().to_owned();
    for iat in [NOW - 3600, NOW + 3600] {
        let attempt = Attempt::with_nonce(&nonce, iat);
        assert!(attempt.verify(&endpoint).is_ok(), "{iat}");
        assert_eq!(
            attempt.verify(&endpoint).unwrap_err(),
            TokenRequestRejection::Proof(ProofError::Replayed),
            "{iat}"
        );
        let rejected = attempt
            .verify(&self::endpoint_by(|rules| {
                rules.with_freshness(Freshness::fapi2())
            }))
            .unwrap_err();
        assert!(
            matches!(rejected, TokenRequestRejection::Proof(ProofError::Iat(_))),
            "{iat}: without nonces: {rejected:?}"
        );
    }
}
