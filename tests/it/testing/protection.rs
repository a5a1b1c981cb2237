//! Services under test (`src/testing/protection.rs`).

use super::*;

#[test]
fn a_router_rejects_each_defect() {
    let issuer = issuer();
    let nonces = nonces();
    for (verifier, client) in [
        (verifier(&issuer), TestClient::new(&issuer)),
        (
            verifier_by(&issuer, |rules| rules.with_nonces(nonces.clone())),
            TestClient::new(&issuer).with_nonces(nonces),
        ),
    ] {
        let app = app(verifier);
        let send = async |request: Request<Body>| app.clone().oneshot(request).await.unwrap();
        block_on(async {
            for method in [Method::GET, Method::POST] {
                assert_protected(&client.request(method, ORDERS), send).await;
            }
        });
    }
}

/// A service that takes bearer tokens has two challenges, and another reason to reject bound ones.
#[test]
fn a_service_that_takes_bearer_tokens_rejects_each_defect() {
    let issuer = issuer();
    let nonces = nonces();
    for (verifier, client) in [
        (verifier(&issuer), TestClient::new(&issuer)),
        (
            verifier_by(&issuer, |rules| rules.with_nonces(nonces.clone())),
            TestClient::new(&issuer).with_nonces(nonces),
        ),
    ] {
        let app = app(verifier.allow_bearer());
        let send = async |request: Request<Body>| app.clone().oneshot(request).await.unwrap();
        let on_the_wire = async |request: Request<Body>| {
            let mut response = send(request).await;
            response.extensions_mut().clear();
            response
        };
        let knowing = client.clone().with_bearer_allowed();
        let request = knowing.request(Method::GET, ORDERS);
        let downgraded = request.rejection_of(Defect::BearerScheme);
        assert_eq!(downgraded, BearerError::Bound.into());
        block_on(async {
            assert_protected(&request, send).await;
            assert_protected(&request, on_the_wire).await;
        });

        // That a service takes bearer tokens unknown to its tests is found out.
        let request = client.request(Method::GET, ORDERS);
        for by in ["reason", "description"] {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                block_on(async {
                    match by {
                        "reason" => assert_protected(&request, send).await,
                        _ => assert_protected(&request, on_the_wire).await,
                    }
                });
            }));
            let message = *outcome.expect_err(by).downcast::<String>().unwrap();
            assert!(message.starts_with("the Bearer scheme: "), "{message}");
        }
    }
    // And so is one that is said to and does not.
    let client = TestClient::new(&issuer).with_bearer_allowed();
    let app = app(verifier(&issuer));
    let send = async |request: Request<Body>| app.clone().oneshot(request).await.unwrap();
    let request = client.request(Method::GET, ORDERS);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        block_on(assert_protected(&request, send));
    }));
    let message = *outcome.expect_err("rejected").downcast::<String>().unwrap();
    assert!(message.starts_with("the Bearer scheme: "), "{message}");
}

/// Over the wire the reason goes by status, code and description.
#[test]
fn a_server_rejects_each_defect() {
    let issuer = issuer();
    let nonces = nonces();
    for (verifier, client) in [
        (verifier(&issuer), TestClient::new(&issuer)),
        (
            verifier_by(&issuer, |rules| rules.with_nonces(nonces.clone())),
            TestClient::new(&issuer).with_nonces(nonces),
        ),
    ] {
        block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let origin = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(axum::serve(listener, app(verifier)).into_future());
            let http: Client<_, Full<bytes::Bytes>> =
                Client::builder(TokioExecutor::new()).build_http();
            let request = client.request(Method::GET, ORDERS).sent_to(&origin);
            assert_protected(&request, async |request| {
                let response = http.request(request).await.unwrap();
                assert!(response.extensions().get::<Rejection>().is_none());
                response
            })
            .await;
        });
    }
}

fn message_of(check: impl Future<Output = ()>) -> String {
    let outcome = catch_unwind(AssertUnwindSafe(|| block_on(check)));
    *outcome.expect_err("a panic").downcast::<String>().unwrap()
}

/// What a service leaves to its configuration can be left out, and nothing else is left out with it.
#[test]
fn a_service_of_another_policy_is_held_to_what_it_checks() {
    let (issuer, nonces) = (issuer(), nonces());
    let by_nonce = app(verifier_by(&issuer, |rules| {
        rules
            .with_nonces(nonces.clone())
            .with_freshness(Freshness::fapi2())
    }));
    let client = TestClient::new(&issuer).with_nonces(nonces);
    let request = client.request(Method::GET, ORDERS);
    let all = request.defects().count();
    let request = request.without_defects([Defect::TooOld, Defect::FromTheFuture]);
    assert_eq!(request.defects().count(), all - 2);
    block_on(assert_protected(
        &request,
        async |request: Request<Body>| by_nonce.clone().oneshot(request).await.unwrap(),
    ));
    let whole = client.request(Method::GET, ORDERS);
    let message = message_of(assert_protected(&whole, async |request: Request<Body>| {
        by_nonce.clone().oneshot(request).await.unwrap()
    }));
    assert!(
        message.starts_with("a proof that is too old: "),
        "{message}"
    );
}

#[test]
fn a_token_endpoint_rejects_each_defect_of_a_proof() {
    let nonces = nonces();
    let client = TestClient::without_issuer(TestClock::default());
    for (endpoint, client) in [
        (token_endpoint(), client.clone()),
        (
            token_endpoint_by(|rules| rules.with_nonces(nonces.clone())),
            client.with_nonces(nonces),
        ),
    ] {
        let layer = TokenEndpointLayer::new(endpoint);
        let request = client.token_request("https://as.example.com/token");
        assert!(
            !request
                .build::<()>()
                .headers()
                .contains_key("authorization")
        );
        let defects: BTreeSet<Defect> = request.defects().collect();
        assert!(!defects.contains(&Defect::NoAth) && defects.contains(&Defect::NoJti));
        let send = async |request: Request<String>| {
            let service = layer.layer(service_fn(async |request: Request<String>| {
                Ok::<_, Infallible>(Response::new(request.into_body()))
            }));
            service.oneshot(request).await.unwrap()
        };
        block_on(async {
            assert_token_endpoint_protected(&request, send).await;
            // As over the wire.
            assert_token_endpoint_protected(&request.again(), async |request| {
                let mut response = send(request).await;
                response.extensions_mut().clear();
                response
            })
            .await;
        });
    }
}

/// What the kit is for: services that are not behind the layer as they ought to be.
#[test]
fn a_service_that_is_not_protected_is_found_out() {
    let issuer = issuer();
    let client = TestClient::new(&issuer);
    let request = client.request(Method::GET, ORDERS);
    let open = Router::new().route("/orders", get(async || "orders"));
    let elsewhere: PublicUrl = "https://internal.example".parse().unwrap();
    let misconfigured = Verifier::new(
        ProofRules::new(elsewhere).with_clock(issuer.clock().read()),
        issuer.jwt_verifier(),
    );
    let lenient = issuer.jwt_verifier().with_claims::<serde_json::Value>();
    let lenient = Verifier::new(
        ProofRules::new(public_url()).with_clock(issuer.clock().read()),
        lenient,
    );
    let rows = [
        ("no layer", open, "the same request again: "),
        ("another public URL", app(misconfigured), "a good request: "),
        ("claims without sub", app(lenient), "a token without sub: "),
    ];
    for (name, app, expected) in rows {
        let message = message_of(assert_protected(
            &request.again(),
            async |request: Request<Body>| app.clone().oneshot(request).await.unwrap(),
        ));
        assert!(message.starts_with(expected), "{name}: {message}");
        assert_shows_nothing(name, &message, &request.proof(&request.token()));
    }

    let request = client.token_request("https://as.example.com/token");
    let message = message_of(assert_token_endpoint_protected(
        &request,
        async |request: Request<String>| Response::new(request.into_body()),
    ));
    assert!(message.starts_with("the same request again: "), "{message}");
}
