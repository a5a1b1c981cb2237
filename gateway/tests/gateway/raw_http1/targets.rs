//! What a request is for.

use super::{ORDERS, check};
use crate::support::Raw;

/// The path that the proof names, the target that is sent, and the target that arrives.
const PASSES: &[(&str, &str, &str, &str)] = &[
    (
        "a query",
        "/orders",
        "/orders?of=me&at=http://other.example.com/",
        "/orders?of=me&at=http://other.example.com/",
    ),
    (
        "escapes, empty segments",
        "/a%2Fb//c/~d",
        "/a%2Fb//c/~d",
        "/a%2Fb//c/~d",
    ),
    (
        "a path that looks like an authority",
        "//other.example.com/orders",
        "//other.example.com/orders",
        "//other.example.com/orders",
    ),
    (
        "absolute-form",
        "/orders",
        "https://api.example.com/orders?a=b",
        "/orders?a=b",
    ),
    (
        "absolute-form without a path",
        "/",
        "https://api.example.com",
        "/",
    ),
    ("a fragment", "/orders", "/orders#/admin", "/orders"),
    (
        "a fragment after absolute-form",
        "/orders",
        "https://api.example.com/orders#@other",
        "/orders",
    ),
];

/// Targets that are sent with a proof for `/orders`.
const OTHER_TARGETS: &[(&str, &str, &[u16])] = &[
    ("another path", "/admin", &[401]),
    (
        "another authority",
        "https://other.example.com/orders",
        &[400],
    ),
    ("another scheme", "http://api.example.com/orders", &[401]),
    (
        "another port",
        "https://api.example.com:8443/orders",
        &[400],
    ),
    (
        "a scheme that is no HTTP",
        "ftp://api.example.com/orders",
        &[400],
    ),
    ("userinfo", "https://admin@api.example.com/orders", &[400]),
    (
        "userinfo that looks like the authority",
        "https://api.example.com@other.example.com/orders",
        &[400],
    ),
    ("an empty authority", "https:///orders", &[400]),
    ("a scheme without an authority", "https:/orders", &[400]),
    (
        "a backslash in the authority",
        "https://api.example.com\\@other.example.com/orders",
        &[400],
    ),
    ("authority-form", "api.example.com:443", &[400]),
    ("asterisk-form", "*", &[400]),
    ("a path without a slash", "orders", &[400]),
    ("a query alone", "?a=b", &[400]),
    ("a fragment alone", "#/orders", &[401]),
    (
        "an authority that is taken for a path",
        "//api.example.com/orders",
        &[401],
    ),
    ("backslashes", "/orders\\..\\admin", &[401]),
    ("another escape", "/%6frders%2F", &[401]),
    ("UTF-8", "/ordérs", &[400]),
];

#[tokio::test]
async fn the_service_gets_the_target_that_the_proof_names() {
    let raw = Raw::start().await;
    for (name, path, target, arrives) in PASSES {
        let request = raw
            .request("GET", path)
            .with_line(&format!("GET {target} HTTP/1.1"));
        let line = format!("GET {arrives} HTTP/1.1");
        check(&raw, (name, request.bytes(), &[200], &[(&line, "")])).await;
    }
    for (name, target, statuses) in OTHER_TARGETS {
        let request = raw
            .request("GET", "/orders")
            .with_line(&format!("GET {target} HTTP/1.1"));
        check(&raw, (name, request.bytes(), statuses, &[])).await;
    }
    let mut latin = raw.request("GET", "/orders").bytes();
    let at = latin.iter().position(|byte| *byte == b'o').unwrap();
    latin[at] = 0xf6;
    check(&raw, ("bytes that are no UTF-8", latin, &[400], &[])).await;
    let elsewhere = raw
        .request("GET", "/orders")
        .without("Host")
        .with("Host: other.example.com")
        .with_line("GET https://other.example.com/orders HTTP/1.1");
    check(
        &raw,
        (
            "another authority, and the same Host",
            elsewhere.bytes(),
            &[401],
            &[],
        ),
    )
    .await;
}

const REQUEST_LINES: &[(&str, &str, &[u16])] = &[
    ("CONNECT", "CONNECT api.example.com:443 HTTP/1.1", &[405]),
    ("CONNECT with a path", "CONNECT /orders HTTP/1.1", &[405]),
    (
        "CONNECT with a URL",
        "CONNECT https://api.example.com/orders HTTP/1.1",
        &[405],
    ),
    ("OPTIONS *", "OPTIONS * HTTP/1.1", &[404]),
    ("a method in small letters", "get /orders HTTP/1.1", &[401]),
    ("HTTP/0.9", "GET /orders", &[400]),
    ("HTTP/1.2", "GET /orders HTTP/1.2", &[400]),
    ("HTTP/2.0", "GET /orders HTTP/2.0", &[400]),
    ("a version in small letters", "GET /orders http/1.1", &[400]),
    ("no method", " /orders HTTP/1.1", &[400]),
    ("a method with a colon", "GE:T /orders HTTP/1.1", &[400]),
    ("two spaces", "GET  /orders HTTP/1.1", &[400]),
    ("a tab", "GET\t/orders HTTP/1.1", &[400]),
];

#[tokio::test]
async fn request_lines_of_other_kinds_are_rejected() {
    let raw = Raw::start().await;
    for (name, line, statuses) in REQUEST_LINES {
        let request = raw.request("GET", "/orders").with_line(line);
        check(&raw, (name, request.bytes(), statuses, &[])).await;
    }
    let old = raw
        .request("POST", "/orders")
        .with_line("POST /orders HTTP/1.0");
    let with_chunks = old
        .clone()
        .with("Transfer-Encoding: chunked")
        .with_body(b"3\r\none\r\n0\r\n\r\n");
    check(
        &raw,
        ("HTTP/1.0 with chunks", with_chunks.bytes(), &[400], &[]),
    )
    .await;
    let with_length = old.with("Content-Length: 3").with_body(b"one");
    check(
        &raw,
        (
            "HTTP/1.0 with a length",
            with_length.bytes(),
            &[200],
            &[(ORDERS, "one")],
        ),
    )
    .await;
}

/// pingora escapes the space if it has read the whole line, and the proof is for another path. Otherwise the line is malformed.
#[tokio::test]
async fn a_space_does_not_end_a_target() {
    let raw = Raw::start().await;
    for target in [
        "/orders /admin",
        "/orders HTTP/1.1",
        "/orders HTTP/1.1 HTTP/1.1",
    ] {
        let request = raw
            .request("GET", "/orders")
            .with_line(&format!("GET {target} HTTP/1.1"));
        let statuses = raw.gateway.exchange(&request.bytes()).await;
        assert!(
            matches!(statuses[..], [400 | 401]),
            "{target}: {statuses:?}"
        );
        assert!(raw.arrived().await.is_empty(), "{target}");
    }
}
