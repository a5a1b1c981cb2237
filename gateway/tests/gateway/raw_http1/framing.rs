//! Where a request ends.

use super::{ORDERS, check};
use crate::support::{Raw, RawRequest};

/// What an attacker wants the service to see.
const SMUGGLED: &str = "GET /admin HTTP/1.1\r\nHost: api.example.com\r\n\r\n";

fn chunked(raw: &Raw, body: &str) -> RawRequest {
    raw.request("POST", "/orders")
        .with("Transfer-Encoding: chunked")
        .with_body(body.as_bytes())
}

/// Header fields that say how long a body is, and are rejected.
const AMBIGUOUS: &[(&str, u16, &[&str])] = &[
    (
        "two lengths",
        400,
        &["Content-Length: 3", "Content-Length: 4"],
    ),
    (
        "the same length twice",
        400,
        &["Content-Length: 3", "Content-Length: 3"],
    ),
    (
        "the same length twice in one field",
        400,
        &["Content-Length: 3, 3"],
    ),
    ("two lengths in one field", 400, &["Content-Length: 3, 4"]),
    ("a length with a sign", 400, &["Content-Length: +3"]),
    ("a negative length", 400, &["Content-Length: -3"]),
    ("a hexadecimal length", 400, &["Content-Length: 0x3"]),
    ("an empty length", 400, &["Content-Length:"]),
    ("a length with a fraction", 400, &["Content-Length: 3.0"]),
    (
        "a length of 65 bits",
        400,
        &["Content-Length: 18446744073709551619"],
    ),
    ("xchunked", 400, &["Transfer-Encoding: xchunked"]),
    ("identity", 400, &["Transfer-Encoding: identity"]),
    (
        "chunked, then identity",
        400,
        &["Transfer-Encoding: chunked, identity"],
    ),
    (
        "chunked, and identity in another field",
        400,
        &["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    ),
    (
        "chunked twice",
        400,
        &["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    ),
    (
        "chunked twice in one field",
        501,
        &["Transfer-Encoding: chunked, chunked"],
    ),
    (
        "identity, then chunked",
        501,
        &["Transfer-Encoding: identity, chunked"],
    ),
    (
        "compressed chunks",
        501,
        &["Transfer-Encoding: gzip, chunked"],
    ),
    (
        "chunked with a parameter",
        400,
        &["Transfer-Encoding: chunked;q=1"],
    ),
    (
        "chunked in quotes",
        400,
        &["Transfer-Encoding: \"chunked\""],
    ),
    (
        "chunked after a vertical tab",
        400,
        &["Transfer-Encoding: \x0bchunked"],
    ),
    (
        "a length with an unknown coding",
        400,
        &["Content-Length: 3", "Transfer-Encoding: xchunked"],
    ),
    (
        "a space before the colon",
        400,
        &["Transfer-Encoding : chunked"],
    ),
    (
        "a space before the colon of a length",
        400,
        &["Content-Length : 3"],
    ),
    (
        "a tab before the colon",
        400,
        &["Transfer-Encoding\t: chunked"],
    ),
];

#[tokio::test]
async fn the_length_of_a_body_has_one_meaning() {
    let raw = Raw::start().await;
    let with = |fields: &[&str], body: &str| {
        let mut request = raw.request("POST", "/orders").with_body(body.as_bytes());
        for field in fields {
            request = request.with(field);
        }
        request.bytes()
    };
    let smuggling = format!("0\r\n\r\n{SMUGGLED}");
    let both = ["Content-Length: 6", "Transfer-Encoding: chunked"];
    for (name, status, fields) in AMBIGUOUS {
        check(&raw, (name, with(fields, &smuggling), &[*status], &[])).await;
    }
    // RFC 9112 section 6.1: the coding counts, and the connection ends.
    check(
        &raw,
        (
            "a length and chunks",
            with(&both, &smuggling),
            &[200],
            &[(ORDERS, "")],
        ),
    )
    .await;
    let [first, second] = both;
    check(
        &raw,
        (
            "chunks and a length",
            with(&[second, first], &smuggling),
            &[200],
            &[(ORDERS, "")],
        ),
    )
    .await;
    let cased = with(&["tRANSFER-eNCODING: cHUNKED"], "3\r\none\r\n0\r\n\r\n");
    check(
        &raw,
        ("in other letters", cased, &[200], &[(ORDERS, "one")]),
    )
    .await;
}

const MALFORMED_CHUNKS: &[(&str, &str)] = &[
    ("no number", "x\r\none\r\n0\r\n\r\n"),
    ("a sign", "+3\r\none\r\n0\r\n\r\n"),
    ("a prefix", "0x3\r\none\r\n0\r\n\r\n"),
    ("a size of 68 bits", "10000000000000003\r\none\r\n0\r\n\r\n"),
    ("a chunk longer than its size", "2\r\none\r\n0\r\n\r\n"),
    (
        "a chunk without an end",
        "3\r\none0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n",
    ),
    ("a size that ends with a bare CR", "3\rone\r\n0\r\n\r\n"),
];

#[tokio::test]
async fn chunks_are_read_strictly_and_written_anew() {
    let raw = Raw::start().await;
    let good: &[(&str, &str, &str)] = &[
        ("chunks", "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n", "onetwo"),
        ("an extension", "3;a=\"b\"\r\none\r\n0;c\r\n\r\n", "one"),
        ("leading zeros", "0003\r\none\r\n000\r\n\r\n", "one"),
        ("a trailer", "3\r\none\r\n0\r\nX-Own: 1\r\n\r\n", "one"),
        (
            "a request after the last chunk",
            &format!("3\r\none\r\n0\r\n\r\n{SMUGGLED}"),
            "one",
        ),
        (
            "a request in a chunk",
            &format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len()),
            SMUGGLED,
        ),
    ];
    for (name, sent, body) in good {
        let bytes = chunked(&raw, sent).bytes();
        check(&raw, (name, bytes, &[200], &[(ORDERS, body)])).await;
    }
    // httparse takes an empty size for 0. The service gets the empty body that the gateway read.
    let sizeless = chunked(&raw, "\r\none\r\n0\r\n\r\n").bytes();
    check(&raw, ("no size", sizeless, &[200], &[(ORDERS, "")])).await;
    // It is the client's fault, which a 502 would blame on the service.
    for (name, sent) in MALFORMED_CHUNKS {
        let bytes = chunked(&raw, sent).bytes();
        check(&raw, (name, bytes, &[400], &[])).await;
    }
}

#[tokio::test]
async fn a_request_behind_another_on_a_connection_needs_its_own_proof() {
    let raw = Raw::start().await;
    let first = || {
        raw.request("POST", "/orders")
            .without("Connection")
            .with("Content-Length: 3")
            .with_body(b"one")
    };
    let last = b"GET /admin HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n";
    let pipelined = [first().bytes(), last.to_vec()].concat();
    let statuses = raw.gateway.exchange(&pipelined).await;
    assert!(matches!(statuses[..], [200] | [200, 401]), "{statuses:?}");
    let arrived = raw.arrived().await;
    assert_eq!(arrived.len(), 1, "{arrived:?}");
    assert_eq!(arrived[0].body.as_deref(), Some(&b"one"[..]));

    // The same proof for both.
    let once = first();
    let pipelined = [once.bytes(), once.with("Connection: close").bytes()].concat();
    let statuses = raw.gateway.exchange(&pipelined).await;
    assert!(matches!(statuses[..], [200] | [200, 401]), "{statuses:?}");
    assert_eq!(raw.arrived().await.len(), 1);
}

/// Its body has a request with a valid proof of its own, which must not be taken for the next request.
#[tokio::test]
async fn the_body_of_a_rejected_request_is_not_a_request() {
    let raw = Raw::start().await;
    let inner = String::from_utf8(raw.request("GET", "/admin").bytes()).unwrap();
    let rejected = || {
        raw.request("POST", "/orders")
            .without("DPoP")
            .without("Connection")
    };
    let with_length = rejected()
        .with(&format!("Content-Length: {}", inner.len()))
        .with_body(inner.as_bytes());
    let in_chunks = rejected()
        .with("Transfer-Encoding: chunked")
        .with_body(format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len()).as_bytes());
    let continued = with_length.clone().with("Expect: 100-continue");
    let upgrading = with_length
        .clone()
        .with("Connection: Upgrade")
        .with("Upgrade: websocket");
    for (name, request) in [
        ("a length", with_length),
        ("chunks", in_chunks),
        ("Expect", continued),
        ("Upgrade", upgrading),
    ] {
        // It ends the connection, if that survives.
        let end = b"GET /end HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n";
        let bytes = [request.bytes(), end.to_vec()].concat();
        let statuses = raw.gateway.exchange(&bytes).await;
        assert!(
            matches!(statuses[..], [401] | [401, 401]),
            "{name}: {statuses:?}"
        );
        assert!(raw.arrived().await.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_service_that_does_not_switch_protocols_gets_nothing_more() {
    let raw = Raw::start().await;
    let settings = "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA";
    let upgrades: &[(&str, &[&str], &[&str])] = &[
        (
            "h2c",
            &[
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c",
                settings,
            ],
            &["Connection", "Upgrade", "HTTP2-Settings"],
        ),
        (
            "h2c that Connection does not name",
            &["Upgrade: h2c", settings],
            &["Upgrade", "HTTP2-Settings"],
        ),
        (
            "another protocol",
            &["Connection: Upgrade", "Upgrade: other"],
            &["Connection", "Upgrade"],
        ),
        (
            "a WebSocket",
            &[
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            ],
            &[],
        ),
    ];
    for (name, fields, removed) in upgrades {
        let mut request = raw
            .request("GET", "/orders")
            .without("Connection")
            .with_body(SMUGGLED.as_bytes());
        for field in *fields {
            request = request.with(field);
        }
        let end = b"GET /end HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n";
        let statuses = raw
            .gateway
            .exchange(&[request.bytes(), end.to_vec()].concat())
            .await;
        assert_eq!(statuses[0], 200, "{name}");
        assert!(
            statuses[1..].iter().all(|status| *status == 401),
            "{name}: {statuses:?}"
        );
        let arrived = raw.arrived().await;
        let lines: Vec<_> = arrived
            .iter()
            .map(|request| request.line.as_str())
            .collect();
        assert_eq!(lines, ["GET /orders HTTP/1.1"], "{name}");
        for field in *removed {
            assert_eq!(arrived[0].values(field), [""; 0], "{name}: {field}");
        }
    }
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_told_to_continue_only_if_its_request_passes() {
    let raw = Raw::start().await;
    let waiting = || {
        raw.request("POST", "/orders")
            .with("Expect: 100-continue")
            .with("Content-Length: 3")
    };
    let statuses = raw
        .gateway
        .exchange(&waiting().with_body(b"one").bytes())
        .await;
    assert_eq!(statuses.last(), Some(&200), "{statuses:?}");
    let arrived = raw.arrived().await;
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0].body.as_deref(), Some(&b"one"[..]));
    // Its body never comes.
    let rejected = waiting().without("DPoP").bytes();
    let response = String::from_utf8(raw.gateway.exchange_bytes(&rejected).await).unwrap();
    assert!(response.starts_with("HTTP/1.1 401 "), "{response}");
    assert!(raw.arrived().await.is_empty());
}

#[tokio::test]
async fn a_service_cannot_switch_protocols_unasked() {
    let raw = Raw::start().await;
    let plain = raw.request("GET", "/switches");
    assert_eq!(raw.gateway.exchange(&plain.bytes()).await, [502]);
    let other = raw
        .request("GET", "/switches/other")
        .without("Connection")
        .with("Connection: Upgrade")
        .with("Upgrade: other");
    assert_eq!(raw.gateway.exchange(&other.bytes()).await, [502]);
    let lines: Vec<_> = raw
        .arrived()
        .await
        .into_iter()
        .map(|request| request.line)
        .collect();
    assert_eq!(
        lines,
        ["GET /switches HTTP/1.1", "GET /switches/other HTTP/1.1"]
    );
}
