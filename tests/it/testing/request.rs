//! A request: what is signed, what is sent, and where.

use std::panic::{AssertUnwindSafe, catch_unwind};

use axum::Router;
use axum::body::Body;
use http::{Method, Request};
use tower::ServiceExt as _;
use tower_dpop::Rejection;
use tower_dpop::jose::SigningKey;
use tower_dpop::proof::ProofError;
use tower_dpop::resource::{BearerError, CredentialsError};
use tower_dpop::testing::{Defect, TestClient, TestRequest, TestResponse};
use tower_dpop::tokens::TokenError;

use common::{AUDIENCE, block_on};

use super::{ORDERS, app, issuer, verifier, verify};

#[test]
fn any_field_of_a_request_can_be_changed() {
    type Change = fn(&mut TestRequest);
    let rows: [(&str, Change, Option<Rejection>); 8] = [
        ("nothing", |_| {}, None),
        (
            "the method that is sent",
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
            "the header fields",
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
fn a_request_is_accepted_once_and_again_makes_a_new_one() {
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
fn sent_to_changes_the_target_but_not_htu() {
    let client = TestClient::new(&issuer());
    for (url, sent, htu) in [
        (ORDERS, "/orders?page=2", "https://api.example.com/orders"),
        (AUDIENCE, "/", "https://api.example.com/"),
        (
            "HTTPS://API.example.com:443/%7ea",
            "/%7ea",
            "https://api.example.com/~a",
        ),
    ] {
        let request = client.request(Method::GET, url);
        assert_eq!(request.build::<()>().uri(), sent, "{url}");
        assert_eq!(request.proof_claims["htu"], htu, "{url}");
        let to_local_server = request.sent_to("http://127.0.0.1:8080/");
        let built = to_local_server.build_with("a body");
        assert_eq!(
            built.uri().to_string(),
            format!("http://127.0.0.1:8080{sent}")
        );
        assert_eq!(
            (*built.body(), &to_local_server.proof_claims["htu"]),
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
fn as_bearer_is_accepted_only_where_bearer_is_allowed() {
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

    let request: Request<String> = good.build();
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
