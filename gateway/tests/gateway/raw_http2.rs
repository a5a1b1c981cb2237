//! HTTP/2 frame by frame, to a service that speaks HTTP/1.1: pseudo-headers, fields and trailers that would become
//! something else there.

use crate::support::{FramedRequest, Outcome, Raw, Received};

async fn one(raw: &Raw, name: &str, request: &FramedRequest) -> Received {
    assert_eq!(
        raw.gateway.frames(request).await,
        Outcome::Status(200),
        "{name}"
    );
    let mut arrived = raw.arrived().await;
    assert_eq!(arrived.len(), 1, "{name}: {arrived:?}");
    arrived.remove(0)
}

#[tokio::test]
async fn a_request_arrives_with_its_path_and_body() {
    let raw = Raw::start().await;
    let get = raw
        .framed("GET", "/a%2Fb//c/~d")
        .replace(":path", "/a%2Fb//c/~d?of=me");
    let arrived = one(&raw, "GET", &get).await;
    assert_eq!(arrived.line, "GET /a%2Fb//c/~d?of=me HTTP/1.1");
    for secret in ["Authorization", "DPoP"] {
        assert_eq!(arrived.values(secret), [""; 0], "{secret}");
    }
    let post = raw.framed("POST", "/orders").with_body(b"one");
    assert_eq!(
        one(&raw, "POST", &post).await.body.as_deref(),
        Some(&b"one"[..])
    );
    let with_length = raw
        .framed("POST", "/orders")
        .with("content-length", "3")
        .with_body(b"one");
    assert_eq!(
        one(&raw, "a length", &with_length).await.body.as_deref(),
        Some(&b"one"[..])
    );
    // Proxies in front rewrite it, and the proof is compared with the public URL.
    let elsewhere = raw
        .framed("GET", "/orders")
        .replace(":authority", "127.0.0.1:1");
    assert_eq!(
        one(&raw, "another authority", &elsewhere).await.line,
        "GET /orders HTTP/1.1"
    );
}

#[tokio::test]
async fn only_a_request_with_a_valid_proof_passes() {
    let raw = Raw::start().await;
    let good = raw.framed("GET", "/orders");
    let cases = [
        ("no proof", good.clone().without("dpop")),
        ("no token", good.clone().without("authorization")),
        ("another path", good.clone().replace(":path", "/admin")),
        ("another method", good.clone().replace(":method", "DELETE")),
        (
            "a method in small letters",
            good.clone().replace(":method", "get"),
        ),
        (
            "a path that looks like an authority",
            good.clone().replace(":path", "//api.example.com/orders"),
        ),
        (
            "backslashes",
            good.clone().replace(":path", "/orders\\..\\admin"),
        ),
    ];
    for (name, request) in cases {
        assert_eq!(
            raw.gateway.frames(&request).await,
            Outcome::Status(401),
            "{name}"
        );
        assert!(raw.arrived().await.is_empty(), "{name}");
    }
    assert_eq!(
        one(&raw, "the good one", &good).await.line,
        "GET /orders HTTP/1.1"
    );
    let again = raw.gateway.frames(&good).await;
    assert_eq!(again, Outcome::Status(401), "the same proof twice");
}

/// RFC 9113 section 8.
async fn nothing_arrives<const N: usize>(raw: &Raw, cases: [(&str, FramedRequest); N]) {
    for (name, request) in cases {
        let outcome = raw.gateway.frames(&request).await;
        let rejected = matches!(outcome, Outcome::Status(400..500) | Outcome::Error);
        assert!(rejected, "{name}: {outcome:?}");
        let arrived = raw.arrived().await;
        // The connection may end within a request whose body has another length.
        let cut_off = arrived.iter().all(|request| request.body.is_none());
        assert!(cut_off, "{name}: {arrived:?}");
    }
}

#[tokio::test]
async fn malformed_pseudo_headers_do_not_reach_the_service() {
    let raw = Raw::start().await;
    let good = || raw.framed("GET", "/orders");
    let cases = [
        (":path twice", good().first(":path", "/admin")),
        (":method twice", good().first(":method", "GET")),
        (
            ":authority twice",
            good().first(":authority", "api.example.com"),
        ),
        ("no :path", good().without(":path")),
        ("an empty :path", good().replace(":path", "")),
        ("no :method", good().without(":method")),
        ("no :scheme", good().without(":scheme")),
        ("an unknown pseudo-header", good().first(":own", "1")),
        (
            "a pseudo-header of responses",
            good().first(":status", "200"),
        ),
        (":protocol", good().first(":protocol", "websocket")),
        (
            "a pseudo-header behind a field",
            good().without(":path").with(":path", "/orders"),
        ),
        (
            "a line break in :path",
            good().replace(":path", "/orders HTTP/1.1\r\nX-Own: 1"),
        ),
        (
            "a space in :path",
            good().replace(":path", "/orders /admin"),
        ),
        (
            "a line break in :method",
            good().replace(":method", "GET /admin HTTP/1.1\r\nX-Own: 1"),
        ),
        (
            "a line break in :authority",
            good().replace(":authority", "api.example.com\r\nX-Own: 1"),
        ),
        (
            "userinfo in :authority",
            good().replace(":authority", "admin@api.example.com"),
        ),
        (
            "a path in :authority",
            good().replace(":authority", "api.example.com/admin?"),
        ),
        (
            "a URL in :path",
            good().replace(":path", "https://other.example.com/orders"),
        ),
        ("a path without a slash", good().replace(":path", "orders")),
        ("an asterisk", good().replace(":path", "*")),
        (
            "CONNECT",
            good()
                .replace(":method", "CONNECT")
                .without(":path")
                .without(":scheme"),
        ),
        ("CONNECT with a path", good().replace(":method", "CONNECT")),
    ];
    nothing_arrives(&raw, cases).await;
}

#[tokio::test]
async fn malformed_fields_do_not_reach_the_service() {
    let raw = Raw::start().await;
    let good = || raw.framed("GET", "/orders");
    let with_body = || raw.framed("POST", "/orders").with_body(b"one");
    let cases = [
        ("another Host", good().with("host", "other.example.com")),
        ("a name in capital letters", good().with("X-Own", "1")),
        ("a name with a space", good().with("x own", "1")),
        ("a name with a colon", good().with("x:own", "1")),
        ("a name with a line break", good().with("x\r\nown", "1")),
        ("no name", good().with("", "1")),
        (
            "a line break in a value",
            good().with("x-own", "1\r\nX-Auth-Subject: admin"),
        ),
        (
            "a bare LF in a value",
            good().with("x-own", "1\nX-Auth-Subject: admin"),
        ),
        ("a NUL in a value", good().with("x-own", "1\0")),
        ("connection", good().with("connection", "x-auth-subject")),
        ("keep-alive", good().with("keep-alive", "1")),
        ("proxy-connection", good().with("proxy-connection", "1")),
        (
            "transfer-encoding",
            with_body().with("transfer-encoding", "chunked"),
        ),
        ("upgrade", good().with("upgrade", "h2c")),
        ("te", good().with("te", "gzip")),
        (
            "a length of more than the body",
            with_body().with("content-length", "4"),
        ),
        (
            "a length of less than the body",
            with_body().with("content-length", "2"),
        ),
        (
            "a length without a body",
            raw.framed("POST", "/orders").with("content-length", "3"),
        ),
        (
            "two lengths",
            with_body()
                .with("content-length", "3")
                .with("content-length", "4"),
        ),
        (
            "a length with a sign",
            with_body().with("content-length", "+3"),
        ),
    ];
    nothing_arrives(&raw, cases).await;
}

/// pingora does not read the trailers of a request, so the service may have responded before they are found malformed.
#[tokio::test]
async fn a_malformed_trailer_does_not_reach_the_service() {
    let raw = Raw::start().await;
    let request = raw
        .framed("POST", "/orders")
        .with_body(b"one")
        .with_trailer(":path", "/admin");
    let outcome = raw.gateway.frames(&request).await;
    assert!(
        matches!(outcome, Outcome::Status(200) | Outcome::Error),
        "{outcome:?}"
    );
    for arrived in raw.arrived().await {
        assert_eq!(arrived.line, "POST /orders HTTP/1.1");
        assert_eq!(arrived.trailers, [""; 0]);
    }
}

#[tokio::test]
async fn fields_of_the_client_do_not_become_identity_fields() {
    let raw = Raw::start().await;
    for spelling in [
        "x-auth-subject",
        "x_auth_subject",
        "x.auth.subject",
        "x-auth_subject",
    ] {
        let request = raw
            .framed("POST", "/orders")
            .with(spelling, "admin")
            .with("te", "trailers")
            .with_body(b"one")
            .with_trailer(spelling, "admin");
        let arrived = one(&raw, spelling, &request).await;
        assert_eq!(arrived.line, "POST /orders HTTP/1.1", "{spelling}");
        let subjects = arrived.values("X-Auth-Subject");
        assert_eq!(subjects.len(), 1, "{spelling}: {subjects:?}");
        assert_ne!(subjects, ["admin"], "{spelling}");
        assert_eq!(arrived.trailers, [""; 0], "{spelling}");
        assert_eq!(arrived.body.as_deref(), Some(&b"one"[..]), "{spelling}");
    }
}

#[tokio::test]
async fn repeated_credentials_are_rejected() {
    let raw = Raw::start().await;
    for name in ["authorization", "dpop"] {
        let request = raw.framed("GET", "/orders");
        let (_, value) = request
            .fields
            .iter()
            .find(|(known, _)| known == name)
            .unwrap()
            .clone();
        let outcome = raw.gateway.frames(&request.with(name, &value)).await;
        assert!(
            matches!(outcome, Outcome::Status(400 | 401)),
            "{name}: {outcome:?}"
        );
        assert!(raw.arrived().await.is_empty(), "{name}");
    }
}
