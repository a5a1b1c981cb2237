//! The checks of a token request (`src/token_endpoint/endpoint.rs`).

use super::*;

/// A-1, A-2, A-3: by every algorithm of the default, through the function and through the layer.
#[test]
fn a_good_proof_makes_a_bound_token() {
    let endpoint = Arc::new(endpoint());
    let layer = TokenEndpointLayer::new(Arc::clone(&endpoint));
    let every = [
        keys::client(),
        Key::es384(),
        Key::rsa("PS256"),
        Key::ed25519("Ed25519"),
        Key::ed25519("EdDSA"),
    ];
    for key in every {
        let name = key.alg();
        let attempt = || Attempt::with_key(key.clone());
        let proven = attempt().verified(&endpoint).unwrap();
        assert_eq!(proven.thumbprint(), jkt(&key), "{name}");
        assert!(proven.next_nonce().is_none(), "{name}");
        let outcome = attempt().outcome_by(&layer, &Server::default());
        outcome.assert_bound(name, &key);
        assert_eq!(outcome.all("dpop-nonce"), [""; 0], "{name}");
        assert_eq!(outcome.all("cache-control"), [""; 0], "{name}");
    }
}

/// A-1, A-15: rejected, before the server behind is asked, and by both ways of asking alike.
#[test]
fn rejects_a_proof_that_fails_a_check() {
    let mut seen: HashSet<Discriminant<ProofError>> = HashSet::new();
    for (name, change, reason) in bad_proofs() {
        let attempt = Attempt::but(change);
        assert_eq!(
            attempt.verified(&endpoint()).unwrap_err(),
            TokenRequestRejection::Proof(reason),
            "{name}"
        );
        let (layer, server) = (TokenEndpointLayer::new(endpoint()), Server::with_code("c"));
        let outcome = attempt.outcome_by(&layer, &server);
        outcome.assert_rejected(name, reason, Some("invalid_dpop_proof"));
        assert_eq!(server.called(), 0, "{name}: A-19");
        seen.insert(discriminant(&reason));
    }
    assert_eq!(seen.len(), 19, "all but TokenHash and Replayed");
    assert!(!seen.contains(&discriminant(&ProofError::TokenHash)));
    assert!(!seen.contains(&discriminant(&ProofError::Replayed)));
}

#[test]
fn rejects_a_request_that_no_proof_could_be_for() {
    let rows: [(&str, Change, TargetError); 2] = [
        (
            "another server's",
            |a| a.uri = "https://evil.example/token".into(),
            TargetError::Misdirected,
        ),
        (
            "a malformed path",
            |a| a.uri = "/token|".into(),
            TargetError::NotRfc3986,
        ),
    ];
    for (name, change, reason) in rows {
        let (layer, server) = (TokenEndpointLayer::new(endpoint()), Server::default());
        let outcome = Attempt::but(change).outcome_by(&layer, &server);
        outcome.assert_rejected(name, reason, Some("invalid_request"));
        assert_eq!(server.called(), 0, "{name}");
    }
}

/// A-21: there is no access token yet, so an `ath` says nothing.
#[test]
fn ath_is_not_looked_at() {
    let rows = [
        ("of some token", json!(common::ath("some token"))),
        ("no hash", json!("wrong")),
        ("empty", json!("")),
        ("long", json!("A".repeat(4_000))),
    ];
    for (name, ath) in rows {
        let attempt = Attempt::but(|a| a.claims["ath"] = ath);
        assert!(attempt.verified(&endpoint()).is_ok(), "A-21: {name}");
    }
}

/// A-18: clocks of clients that are 10 s ahead are accepted; the bounds of our own default.
#[test]
fn a_clock_that_is_a_little_ahead_is_accepted() {
    let rows: [(&str, Change); 5] = [
        ("A-18: 10 s ahead", |a| a.claims["iat"] = json!(NOW + 10)),
        ("A-18: nbf 10 s ahead", |a| {
            a.claims["nbf"] = json!(NOW + 10);
        }),
        ("30 s ahead", |a| a.claims["iat"] = json!(NOW + 30)),
        ("90 s old", |a| a.claims["iat"] = json!(NOW - 90)),
        ("a fraction", |a| a.claims["iat"] = json!(1_700_000_009.5)),
    ];
    for (name, change) in rows {
        let proven = Attempt::but(change).verified(&endpoint());
        assert!(proven.is_ok(), "{name}: {proven:?}");
    }
}

/// A-14: one object serves both endpoints, and a proof is for one of them.
#[test]
fn a_proof_is_for_the_token_endpoint_or_for_that_of_pushed_requests() {
    let layer = TokenEndpointLayer::new(endpoint());
    let (token, par) = ("https://as.example.com/token", "https://as.example.com/par");
    let rows = [
        ("token for token", "/token", token, true),
        ("par for par", "/par", par, true),
        ("token for par", "/par", token, false),
        ("par for token", "/token", par, false),
        ("with a query", "/par?request=1", par, true),
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

/// A-7: what is accepted is what the metadata says.
#[test]
fn metadata_names_the_algorithms() {
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
    assert!(Attempt::with_key(Key::es512()).verified(&es512).is_ok());
    assert_eq!(
        Attempt::good().verified(&es512).unwrap_err(),
        TokenRequestRejection::Proof(ProofError::Algorithm)
    );
}

#[test]
fn what_is_configured_is_heeded() {
    let other_name =
        endpoint_by(|rules| rules.add_public_url("https://login.example".parse().unwrap()));
    let at_login = || Attempt::but(|a| a.claims["htu"] = json!("https://login.example/token"));
    assert!(at_login().verified(&other_name).is_ok());
    assert!(Attempt::good().verified(&other_name).is_ok());
    assert!(at_login().verified(&endpoint()).is_err());

    let behind_a_prefix = TokenEndpoint::new(
        ProofRules::new("https://as.example.com/tenant".parse().unwrap()).with_clock(|| at(NOW)),
    );
    let with_prefix =
        Attempt::but(|a| a.claims["htu"] = json!("https://as.example.com/tenant/token"));
    assert!(with_prefix.verified(&behind_a_prefix).is_ok());
    assert!(Attempt::good().verified(&behind_a_prefix).is_err());

    let resolved = endpoint_by(|rules| {
        rules.with_target_resolver(|head: &Parts| {
            let uri = head.headers.get("x-original-uri")?.to_str().ok()?;
            Some(RequestTarget::new(Method::POST, uri.parse().ok()?))
        })
    });
    let mut head = Attempt::but(|a| a.uri = "/auth".into()).head();
    head.headers.insert("x-original-uri", field(b"/token"));
    assert!(block_on(resolved.verify(&head)).is_ok());
    assert_eq!(
        Attempt::good().verified(&resolved).unwrap_err(),
        TokenRequestRejection::Target(TargetError::Unresolved)
    );

    let strict = Freshness::default().with_leeway(Duration::from_secs(5));
    let ahead = Attempt::but(|a| a.claims["iat"] = json!(NOW + 6));
    assert!(ahead.verified(&endpoint()).is_ok());
    assert_eq!(
        ahead
            .verified(&endpoint_by(|rules| rules.with_freshness(strict)))
            .unwrap_err(),
        TokenRequestRejection::Proof(ProofError::Iat(IatError::InTheFuture { by: 1 }))
    );
}

#[test]
fn debug_shows_no_secret() {
    let start = NOW - NOW % 120;
    let clock = TestClock::at(start);
    let endpoint = Arc::new(with_nonces(&clock));
    let nonce = endpoint.issue_nonce().unwrap();
    let text = nonce.as_header_value().to_str().unwrap().to_owned();
    clock.set(start + 120);
    let attempt = Attempt::with_nonce(&text, start + 120);
    let key = attempt.verified(&endpoint).unwrap();
    let next = key.next_nonce().unwrap().as_header_value();
    let mut secrets = secrets_of(&attempt);
    secrets.push(text);
    secrets.push(next.to_str().unwrap().to_owned());

    let layer = TokenEndpointLayer::new(Arc::clone(&endpoint));
    let service = layer.layer(());
    let mut shown = String::new();
    let mut show = |value: &dyn Debug| write!(shown, "{value:?}\n{value:#?}\n").unwrap();
    show(&endpoint);
    show(&layer);
    show(&layer.clone());
    show(&service);
    show(&key);
    show(&key.clone());
    show(&key.cnf());
    show(&endpoint.metadata());
    show(&attempt.verified(&endpoint));
    show(&TokenRequestRejection::from(GrantBindingError::NoProof));
    assert!(shown.contains("ProvenKey") && shown.contains("nonces_required: true"));
    assert_shows_nothing("Debug", &shown, &secrets);
}
