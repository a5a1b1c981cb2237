//! The client's own identity fields, which never reach the service.

use crate::support::Raw;

/// How a client can write a field that services take for `X-Auth-Subject`.
const SPELLINGS: [&str; 8] = [
    "X-Auth-Subject",
    "x-auth-subject",
    "X_Auth_Subject",
    "X-Auth_Subject",
    "X.Auth.Subject",
    "X~Auth!Subject",
    "X|Auth'Subject",
    "x*auth+subject",
];

#[tokio::test]
async fn the_service_learns_the_subject_of_the_token_in_whatever_spelling_the_client_writes_another()
 {
    let raw = Raw::start().await;
    for spelling in SPELLINGS {
        let request = raw
            .request("GET", "/orders")
            .with(&format!("{spelling}: admin"))
            .with(&format!("{spelling}: root"))
            .with(&format!("{}: 1", spelling.replace("ubject", "UBJECT")));
        assert_eq!(
            raw.gateway.exchange(&request.bytes()).await,
            [200],
            "{spelling}"
        );
        let [arrived] = &raw.arrived().await[..] else {
            panic!("{spelling}: expected one request");
        };
        let subjects = arrived.values("X-Auth-Subject");
        assert_eq!(subjects.len(), 1, "{spelling}: {subjects:?}");
        assert!(
            !["admin", "root", "1"].contains(&subjects[0]),
            "{spelling}: {subjects:?}"
        );
    }
}

#[tokio::test]
async fn no_spelling_of_the_client_stands_in_for_a_claim_that_is_absent() {
    let raw = Raw::start().await;
    for spelling in SPELLINGS {
        let field = spelling
            .replace("Subject", "Tenant")
            .replace("subject", "tenant");
        let request = raw.request("GET", "/orders").with(&format!("{field}: 1"));
        assert_eq!(
            raw.gateway.exchange(&request.bytes()).await,
            [200],
            "{field}"
        );
        let [arrived] = &raw.arrived().await[..] else {
            panic!("{field}: expected one request");
        };
        assert_eq!(arrived.values("X-Auth-Tenant"), [""; 0], "{field}");
    }
}

/// RFC 9110 section 7.6.1: an intermediary removes the fields that `Connection` names. The client must not name ours.
#[tokio::test]
async fn connection_cannot_name_an_identity_field_of_the_gateway() {
    let raw = Raw::start().await;
    let connections = [
        "close, X-Auth-Subject, X-Own",
        "close, x-auth-subject, x-own",
        "X-Own,close,,X-Auth-Subject",
    ];
    for connection in connections {
        let request = raw
            .request("GET", "/orders")
            .without("Connection")
            .with(&format!("Connection: {connection}"))
            .with("X-Auth-Subject: admin")
            .with("X-Own: 1")
            .with("Keep-Alive: timeout=5")
            .with("Proxy-Connection: keep-alive")
            .with("Proxy-Authorization: Basic eDp5")
            .with("TE: trailers");
        assert_eq!(
            raw.gateway.exchange(&request.bytes()).await,
            [200],
            "{connection}"
        );
        let [arrived] = &raw.arrived().await[..] else {
            panic!("{connection}: expected one request");
        };
        let subjects = arrived.values("X-Auth-Subject");
        assert_eq!(subjects.len(), 1, "{connection}: {subjects:?}");
        assert_ne!(subjects[0], "admin", "{connection}");
        for removed in [
            "X-Own",
            "Keep-Alive",
            "Proxy-Connection",
            "Proxy-Authorization",
            "TE",
        ] {
            assert_eq!(arrived.values(removed), [""; 0], "{connection}: {removed}");
        }
    }
}

#[tokio::test]
async fn a_trailer_carries_no_identity_field() {
    let raw = Raw::start().await;
    for spelling in SPELLINGS {
        let request = raw
            .request("POST", "/orders")
            .with("Transfer-Encoding: chunked")
            .with(&format!("Trailer: {spelling}"))
            .with_body(format!("3\r\none\r\n0\r\n{spelling}: admin\r\n\r\n").as_bytes());
        assert_eq!(
            raw.gateway.exchange(&request.bytes()).await,
            [200],
            "{spelling}"
        );
        let [arrived] = &raw.arrived().await[..] else {
            panic!("{spelling}: expected one request");
        };
        assert_eq!(arrived.body.as_deref(), Some(&b"one"[..]), "{spelling}");
        assert_eq!(arrived.trailers, [""; 0], "{spelling}");
        assert_eq!(arrived.values("X-Auth-Subject").len(), 1, "{spelling}");
    }
}

/// Neither reaches the service, however often they are written.
#[tokio::test]
async fn token_and_proof_stay_with_the_gateway() {
    let raw = Raw::start().await;
    let request = raw.request("GET", "/orders");
    assert_eq!(raw.gateway.exchange(&request.bytes()).await, [200]);
    let [arrived] = &raw.arrived().await[..] else {
        panic!("expected one request");
    };
    for secret in ["Authorization", "DPoP"] {
        assert_eq!(arrived.values(secret), [""; 0], "{secret}");
    }
}
