//! Nonces at a token endpoint.

use super::*;

/// A-10, A-11, A-12, A-19: the demand comes before the code is looked at, so the retry still has it.
#[test]
fn a_nonce_is_demanded_before_the_code_is_consumed() {
    let layer = TokenEndpointLayer::new(with_nonces(&TestClock::at(NOW)));
    let server = Server::with_code("the-code");
    let mut attempt = Attempt::but(|a| a.form = "the-code".into());

    let outcome = attempt.outcome_by(&layer, &server);
    outcome.assert_rejected("A-10", NonceError::Missing, Some("use_dpop_nonce"));
    assert_eq!(
        outcome.body,
        r#"{"error":"use_dpop_nonce","error_description":"Authorization server requires nonce in DPoP proof"}"#,
        "RFC 9449, Figure 20"
    );
    assert_eq!(server.called(), 0, "A-19: nobody was asked");
    assert!(server.has_code("the-code"), "A-19");

    // The same jti: the rejection did not spend it.
    attempt.claims["nonce"] = json!(outcome.nonce());
    let outcome = attempt.outcome_by(&layer, &server);
    outcome.assert_bound("A-19: the same code", &attempt.key);
    assert!(!server.has_code("the-code"), "it is consumed now");
    assert_eq!(server.called(), 1);

    let again = attempt.outcome_by(&layer, &server);
    again.assert_rejected("A-15", ProofError::Replayed, Some("invalid_dpop_proof"));
    assert_eq!(server.called(), 1);
}

/// A-10, A-11, A-15: one answer to every nonce that is not ours and alive, and what it hands out
/// works.
#[test]
fn a_missing_foreign_or_stale_nonce_is_answered_with_another() {
    let clock = TestClock::at(NOW);
    let layer = TokenEndpointLayer::new(with_nonces(&clock));
    let start = NOW - NOW % 120;
    let issued = |byte: u8, seconds: u64| {
        let nonce = StatelessNonces::new(secret(byte)).issue(Timestamp::from_unix(seconds));
        nonce.as_header_value().to_str().unwrap().to_owned()
    };
    let rows = [
        ("A-15: none", None, NonceError::Missing),
        ("A-10: empty", Some(String::new()), NonceError::Foreign),
        ("A-10: garbage", Some("garbage".into()), NonceError::Foreign),
        (
            "A-11: of another secret",
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
        assert_eq!(server.called(), 0, "{name}");
        let next = Attempt::with_nonce(&outcome.nonce(), NOW).outcome_by(&layer, &server);
        next.assert_bound(name, &keys::client());
    }
}

/// A-10: a client without a proof is told at once, and a proof that is bad in another way of that.
#[test]
fn a_request_without_a_proof_is_asked_for_a_nonce() {
    let layer = TokenEndpointLayer::new(with_nonces(&TestClock::at(NOW)));
    let server = Server::default();
    Attempt::without_proof()
        .outcome_by(&layer, &server)
        .assert_rejected("A-10", NonceError::Missing, Some("use_dpop_nonce"));
    Attempt::but(|a| a.claims["htm"] = json!("GET"))
        .outcome_by(&layer, &server)
        .assert_rejected("A-1", ProofError::Method, Some("invalid_dpop_proof"));
    assert_eq!(server.called(), 0);
}

/// A-11, A-12: a success near the end of its nonce brings the next one, instead of whatever the
/// server behind has set.
#[test]
fn a_success_near_the_end_of_a_nonce_brings_the_next() {
    let start = NOW - NOW % 120;
    let clock = TestClock::at(start);
    // Rows in the order of time: a memory that has dropped records does not go back.
    let layer = TokenEndpointLayer::new(with_nonces(&clock));
    let nonce = Attempt::without_proof()
        .outcome_by(&layer, &Server::default())
        .nonce();
    let mut own = HeaderMap::new();
    own.insert("dpop-nonce", field(b"its-own"));
    own.insert("cache-control", field(b"max-age=600"));
    let its_own = Server {
        headers: own,
        ..Server::default()
    };
    let failing = Server {
        status: StatusCode::BAD_REQUEST,
        ..Server::default()
    };
    let rows = [
        ("young", 119, Server::default(), None),
        (
            "young, and one of its own",
            119,
            its_own.clone(),
            Some("its-own"),
        ),
        ("near its end", 120, Server::default(), Some("next")),
        (
            "A-11: near its end, and one of its own",
            120,
            its_own,
            Some("next"),
        ),
        ("near its end, and a failure", 120, failing, None),
        ("in its last second", 239, Server::default(), Some("next")),
    ];
    for (name, age, server, expected) in rows {
        clock.set(start + age);
        let outcome = Attempt::with_nonce(&nonce, start + age).outcome_by(&layer, &server);
        assert_eq!(outcome.rejection, None, "{name}");
        match expected {
            None => assert_eq!(outcome.all("dpop-nonce"), [""; 0], "{name}"),
            Some("its-own") => assert_eq!(outcome.nonce(), "its-own", "{name}"),
            Some(_) => {
                assert_ne!(outcome.nonce(), nonce, "{name}");
                assert_eq!(outcome.all("cache-control"), ["no-store"], "{name}: A-12");
                Attempt::with_nonce(&outcome.nonce(), start + age)
                    .outcome_by(&layer, &Server::default())
                    .assert_bound(name, &keys::client());
            }
        }
    }
}

/// A-10: nonces can be handed out elsewhere, and the plain function says when the next one is due.
#[test]
fn a_nonce_can_be_asked_for_directly() {
    let start = NOW - NOW % 120;
    let clock = TestClock::at(start);
    let endpoint = with_nonces(&clock);
    let nonce = endpoint.issue_nonce().unwrap();
    let text = nonce.as_header_value().to_str().unwrap();
    let verified = |now| {
        clock.set(now);
        Attempt::with_nonce(text, now).verified(&endpoint).unwrap()
    };
    assert!(verified(start).next_nonce().is_none());
    let next: Option<Nonce> = verified(start + 120).next_nonce().cloned();
    assert_eq!(next, endpoint.issue_nonce());
    assert_ne!(next, Some(nonce.clone()));
    assert!(self::endpoint().issue_nonce().is_none());
}

/// A-10, A-15: where the nonce decides instead of `iat`, it also decides how long a proof is
/// remembered; where no nonce is required, `iat` decides all the same.
#[test]
fn a_nonce_may_decide_instead_of_iat() {
    let clock = TestClock::at(NOW);
    let endpoint = TokenEndpoint::new(nonce_rules(&clock).with_freshness(Freshness::fapi2()));
    let nonce = endpoint.issue_nonce().unwrap();
    let nonce = nonce.as_header_value().to_str().unwrap().to_owned();
    for iat in [NOW - 3600, NOW + 3600] {
        let attempt = Attempt::with_nonce(&nonce, iat);
        assert!(attempt.verified(&endpoint).is_ok(), "{iat}");
        assert_eq!(
            attempt.verified(&endpoint).unwrap_err(),
            TokenRequestRejection::Proof(ProofError::Replayed),
            "{iat}"
        );
        let rejected = attempt
            .verified(&self::endpoint_by(|rules| {
                rules.with_freshness(Freshness::fapi2())
            }))
            .unwrap_err();
        assert!(
            matches!(rejected, TokenRequestRejection::Proof(ProofError::Iat(_))),
            "{iat}: without nonces: {rejected:?}"
        );
    }
}

/// A-17: a browser may read the nonce, and its preflight does not need one.
#[test]
fn a_cors_layer_outside_lets_scripts_read_the_nonce() {
    let cors = tower_http::cors::CorsLayer::new()
        .allow_origin(HeaderValue::from_static("https://app.example"))
        .allow_methods([Method::POST])
        .expose_headers(CORS_EXPOSE_HEADERS);
    let layer = TokenEndpointLayer::new(with_nonces(&TestClock::at(NOW)));
    let send = |request: Request<String>| {
        let service = service_fn(async |_: Request<String>| {
            Ok::<_, Infallible>(Response::new(String::new()))
        });
        let service = cors.clone().layer(layer.layer(service));
        Outcome::of(block_on(service.oneshot(request)).unwrap())
    };
    let mut request = Attempt::good().request();
    request
        .headers_mut()
        .insert("origin", field(b"https://app.example"));
    let outcome = send(request);
    outcome.assert_rejected("A-17", NonceError::Missing, Some("use_dpop_nonce"));
    assert_eq!(
        outcome.all("access-control-expose-headers"),
        ["www-authenticate,dpop-nonce"],
        "A-17"
    );
    let preflight = Request::options("/token")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .body(String::new())
        .unwrap();
    let outcome = send(preflight);
    assert_eq!(
        (outcome.status, outcome.rejection.clone()),
        (StatusCode::OK, None)
    );
}
