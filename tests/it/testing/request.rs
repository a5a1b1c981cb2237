//! Requests, tokens and clocks (`src/testing/{request,client,issuer,clock}.rs`).

use super::*;

#[test]
fn a_request_as_bearer_passes_where_bearer_is_allowed() {
    type Change = fn(&mut TestRequest);
    let issuer = issuer();
    let client = TestClient::new(&issuer).with_claim("scope", "orders.read");
    let response = |app: &Router, request: &TestRequest| {
        let request: Request<Body> = request.build();
        TestResponse::of(&block_on(app.clone().oneshot(request)).unwrap())
    };
    let (allowing, rejecting) = (
        app(verifier(&issuer).allow_bearer()),
        app(verifier(&issuer)),
    );
    let good = client.request(Method::GET, ORDERS).as_bearer();
    for time in ["once", "twice"] {
        response(&allowing, &good).assert_passed(time);
    }
    let rejected = response(&rejecting, &good);
    rejected.assert_reason("not allowed", CredentialsError::Bearer);

    let request: Request<()> = good.build();
    assert!(!request.headers().contains_key("dpop"));
    let field = &request.headers()["authorization"];
    assert!(field.is_sensitive());
    assert!(field.to_str().unwrap().starts_with("Bearer "));
    assert_eq!(good.token_claims["scope"], "orders.read");

    let key = client.key().thumbprint();
    let mut bound = good.clone();
    bound.token_claims["cnf"] = serde_json::json!({ "jkt": key });
    response(&allowing, &bound).assert_reason("bound", BearerError::Bound);
    let rows: [(&str, Change, TokenError); 3] = [
        (
            "expired",
            |r| r.token_claims["exp"] = 0.into(),
            TokenError::Expired,
        ),
        (
            "of another issuer",
            |r| r.token_claims["iss"] = "https://another.example".into(),
            TokenError::Issuer,
        ),
        (
            "by another key",
            |r| r.token_key = SigningKey::generate().unwrap(),
            TokenError::Signature,
        ),
    ];
    for (name, change, error) in rows {
        let mut request = good.again();
        change(&mut request);
        let rejected = response(&allowing, &request);
        rejected.assert_reason(name, BearerError::Token(error));
        rejected.assert_rejected(name, 401, Some("invalid_token"));
    }

    assert_eq!(good.defects().count(), 0);
    let none = catch_unwind(AssertUnwindSafe(|| {
        good.clone().with_defect(Defect::NoProof)
    }));
    assert!(none.is_err());
}

#[test]
fn any_field_of_a_request_can_be_changed() {
    type Change = fn(&mut TestRequest);
    let rows: [(&str, Change, Option<Rejection>); 8] = [
        ("nothing", |_| {}, None),
        (
            "what is sent",
            |r| r.method = Method::PUT,
            Some(ProofError::Method.into()),
        ),
        ("a claim", |r| r.proof_claims["extra"] = "x".into(), None),
        (
            "the proof",
            |r| r.edit_proof = |proof| format!("{proof}="),
            Some(ProofError::NotAJwt.into()),
        ),
        (
            "the fields",
            |r| (r.authorization, r.dpop) = (Some(vec![]), Some(vec![])),
            Some(CredentialsError::Missing.into()),
        ),
        (
            "the token",
            |r| r.token = Some("x".into()),
            Some(TokenError::Malformed.into()),
        ),
        (
            "the token's key",
            |r| r.token_key = r.key.clone(),
            Some(TokenError::Signature.into()),
        ),
        (
            "the proof's key",
            |r| r.key = SigningKey::generate().unwrap(),
            Some(ProofError::Signature.into()),
        ),
    ];
    let issuer = issuer();
    let verifier = verifier(&issuer);
    for (name, change, rejected) in rows {
        let mut request = TestClient::new(&issuer).request(Method::GET, ORDERS);
        change(&mut request);
        assert_eq!(verify(&verifier, &request).err(), rejected, "{name}");
    }
}

#[test]
fn a_request_is_sent_once_and_anew_as_often_as_one_likes() {
    let issuer = issuer();
    let verifier = verifier(&issuer);
    let request = TestClient::new(&issuer).request(Method::GET, ORDERS);
    assert_eq!(verify(&verifier, &request), Ok(()));
    assert_eq!(
        verify(&verifier, &request),
        Err(ProofError::Replayed.into())
    );
    assert_eq!(verify(&verifier, &request.again()), Ok(()));
}

#[test]
fn a_request_goes_where_it_is_sent_and_names_the_public_url() {
    let client = TestClient::new(&issuer());
    for (url, sent, htu) in [
        (ORDERS, "/orders?page=2", "https://api.example.com/orders"),
        (API, "/", "https://api.example.com/"),
        (
            "HTTPS://API.example.com:443/%7ea",
            "/%7ea",
            "https://api.example.com/~a",
        ),
    ] {
        let request = client.request(Method::GET, url);
        assert_eq!(request.build::<()>().uri(), sent, "{url}");
        assert_eq!(request.proof_claims["htu"], htu, "{url}");
        let elsewhere = request.sent_to("http://127.0.0.1:8080/");
        let built = elsewhere.build_with("a body");
        assert_eq!(
            built.uri().to_string(),
            format!("http://127.0.0.1:8080{sent}")
        );
        assert_eq!(
            (*built.body(), &elsewhere.proof_claims["htu"]),
            ("a body", &htu.into())
        );
    }
    for url in [
        "/orders",
        "ftp://example.com/",
        "https://user@example.com/",
        "https://a/ b",
    ] {
        let client = AssertUnwindSafe(&client);
        assert!(
            catch_unwind(|| client.request(Method::GET, url)).is_err(),
            "{url}"
        );
    }
}

#[test]
fn the_clock_is_one_for_service_issuer_and_client() {
    let clock = TestClock::default();
    let issuer = issuer().with_clock(clock.clone());
    let verifier = verifier(&issuer);
    let client = TestClient::new(&issuer);
    let early = client.request(Method::GET, ORDERS);
    clock.advance(Duration::from_secs(91));
    let too_old = ProofError::Iat(IatError::TooOld { by: 1 });
    assert_eq!(verify(&verifier, &early), Err(too_old.into()));
    assert_eq!(
        verify(&verifier, &client.request(Method::GET, ORDERS)),
        Ok(())
    );
    clock.set(1_700_000_090);
    assert_eq!(verify(&verifier, &early), Ok(()), "the last second");
    clock.advance(Duration::from_secs(3600));
    let fresh = client.request(Method::GET, ORDERS);
    assert_eq!(verify(&verifier, &fresh), Ok(()), "a token of then");

    // A client whose clock is wrong.
    let fast = client.with_clock(TestClock::at(clock.now().as_unix() + 31));
    let ahead = ProofError::Iat(IatError::InTheFuture { by: 1 });
    assert_eq!(
        verify(&verifier, &fast.request(Method::GET, ORDERS)),
        Err(ahead.into())
    );

    let of_a_server = UNIX_EPOCH + Duration::from_millis(1_234_567_890_500);
    let clock = TestClock::from(of_a_server);
    assert_eq!(clock.now().as_unix(), 1_234_567_890);
    let read: SystemTime = clock.read()();
    assert_eq!(read, UNIX_EPOCH + Duration::from_secs(1_234_567_890));
}

#[test]
fn an_issuer_rotates_its_keys() {
    let first = issuer();
    let second = first.clone().add_key("2", SigningKey::generate().unwrap());
    let third = second
        .clone()
        .with_key("3", SigningKey::generate().unwrap());
    let issuers = [first, second, third];
    let passes = |signer: &TestIssuer, verifying: &TestIssuer| {
        let request = TestClient::new(signer).request(Method::GET, ORDERS);
        verify(&verifier(verifying), &request)
    };
    let unknown = || Err(TokenError::Key.into());
    let rows = [
        ("before the rotation", [Ok(()), unknown(), unknown()]),
        ("while both are published", [Ok(()), Ok(()), unknown()]),
        ("after a break", [unknown(), unknown(), Ok(())]),
    ];
    for ((name, expected), verifying) in rows.into_iter().zip(&issuers) {
        let found = issuers.each_ref().map(|signer| passes(signer, verifying));
        assert_eq!(found, expected, "{name}");
    }
    let kids = |issuer: &TestIssuer| ["1", "2", "3"].map(|kid| issuer.key_set().has_kid(kid));
    assert_eq!(
        issuers.each_ref().map(kids),
        [
            [true, false, false],
            [true, true, false],
            [false, false, true]
        ]
    );
}

#[test]
fn a_token_can_be_changed_in_everything() {
    type Change = fn(TestToken) -> TestToken;
    let rows: [(&str, Change, Option<TokenError>); 9] = [
        ("nothing", |t| t, None),
        ("another claim", |t| t.with_claim("tenant", 7), None),
        (
            "a claim more",
            |t| t.with_claim("aud", [API, "https://another.example"]),
            None,
        ),
        (
            "a claim less",
            |t| t.without_claim("iss"),
            Some(TokenError::Issuer),
        ),
        (
            "the header",
            |t| t.with_header("typ", "JWT"),
            Some(TokenError::Type),
        ),
        (
            "a header less",
            |t| t.without_header("typ"),
            Some(TokenError::Type),
        ),
        (
            "a claim that is not there",
            |t| t.without_claim("nobody"),
            None,
        ),
        (
            "another key",
            |t| t.signed_by(SigningKey::generate().unwrap()),
            Some(TokenError::Signature),
        ),
        (
            "by hand",
            |mut t| {
                t.claims["exp"] = 1.into();
                t
            },
            Some(TokenError::Expired),
        ),
    ];
    let issuer = issuer();
    let key = SigningKey::generate().unwrap();
    for (name, change, rejected) in rows {
        let token = change(issuer.token_for(key.thumbprint())).to_text();
        let verified = block_on(
            issuer
                .jwt_verifier()
                .verify(PresentedToken::new(&token), issuer.clock().now()),
        );
        assert_eq!(verified.as_ref().err(), rejected.as_ref(), "{name}");
        if let Ok(verified) = verified {
            let bound_to = Confirmation::Thumbprint(key.thumbprint());
            assert_eq!(verified.confirmation(), bound_to, "{name}");
        }
    }
}

#[test]
fn a_client_has_its_claims_in_every_token() {
    let issuer = issuer();
    let client = TestClient::new(&issuer)
        .with_claim("scope", "orders.read")
        .with_claim("sub", "bob");
    let token = client.request(Method::GET, ORDERS).token();
    let verified = block_on(
        issuer
            .jwt_verifier()
            .verify(PresentedToken::new(&token), issuer.clock().now()),
    )
    .unwrap();
    assert!(verified.claims().has_scope("orders.read"));
    assert_eq!(verified.claims().subject(), "bob");
}

/// A source of nonces of the user's own, and a token by hand.
#[test]
fn parts_of_the_kit_work_by_themselves() {
    let nonces = nonces();
    let issuer = issuer();
    let verifier = verifier_by(&issuer, |rules| rules.with_nonces(nonces.clone()));
    let key = SigningKey::generate().unwrap();
    let by_hand = nonces.issue(issuer.clock().now());
    let client = TestClient::new(&issuer)
        .with_key(key.clone())
        .with_nonce(by_hand.as_str());
    assert_eq!(
        verify(&verifier, &client.request(Method::GET, ORDERS)),
        Ok(())
    );

    let thief = SigningKey::generate().unwrap();
    let stolen = issuer.token_for(key.thumbprint());
    let stolen = sign_jws(&stolen.key, &stolen.header, &stolen.claims);
    let thief = client.with_key(thief).with_token(stolen);
    assert_eq!(
        verify(&verifier, &thief.request(Method::GET, ORDERS)),
        Err(BindingError::OtherKey.into())
    );
}
