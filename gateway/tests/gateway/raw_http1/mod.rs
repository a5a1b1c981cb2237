//! HTTP/1.1 byte by byte: what reaches the service is what was decided about, and nothing else.

mod framing;
mod targets;

use crate::support::{Raw, RawRequest};

/// A case: its name, what is sent, the statuses of the responses, and the request lines and bodies that arrive.
type Case<'a> = (&'a str, Vec<u8>, &'a [u16], &'a [(&'a str, &'a str)]);

async fn check(raw: &Raw, (name, bytes, statuses, expected): Case<'_>) {
    assert_eq!(raw.gateway.exchange(&bytes).await, statuses, "{name}");
    let arrived = raw.arrived().await;
    let complete: Vec<_> = arrived
        .iter()
        .filter_map(|request| {
            let body = std::str::from_utf8(request.body.as_deref()?).unwrap();
            Some((request.line.as_str(), body))
        })
        .collect();
    assert_eq!(complete, expected, "{name}");
    for request in &arrived {
        let framing =
            ["Content-Length", "Transfer-Encoding"].map(|field| request.values(field).len());
        assert!(framing.iter().sum::<usize>() <= 1, "{name}: {request:?}");
        assert_eq!(request.trailers, [""; 0], "{name}");
        let names = request.fields.iter().all(|(name, _)| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        });
        assert!(names, "{name}: {request:?}");
    }
}

const ORDERS: &str = "POST /orders HTTP/1.1";

#[tokio::test]
async fn malformed_header_fields_are_rejected() {
    let raw = Raw::start().await;
    let good = || raw.request("GET", "/orders");
    let cases: Vec<(&str, RawRequest)> = vec![
        ("a folded line", good().with("X-Own: 1\r\n 2")),
        (
            "a folded identity field",
            good().with("X-Own: 1\r\n\tX-Auth-Subject: admin"),
        ),
        ("a line that begins with a space", good().with(" X-Own: 1")),
        (
            "a bare CR in a value",
            good().with("X-Own: 1\rX-Auth-Subject: admin"),
        ),
        ("a NUL in a value", good().with("X-Own: 1\x002")),
        ("a NUL in a name", good().with("X-\x00Own: 1")),
        ("no colon", good().with("X-Own")),
        ("no name", good().with(": 1")),
        ("a space in a name", good().with("X Own: 1")),
        ("a name that is not ASCII", good().with("X-Öwn: 1")),
        ("no Host", good().without("Host")),
        ("two Hosts", good().with("Host: api.example.com")),
        (
            "two Hosts that differ",
            good().with("Host: other.example.com"),
        ),
        (
            "a Host with userinfo",
            good().without("Host").with("Host: admin@api.example.com"),
        ),
        ("a pseudo-header", good().with(":path: /admin")),
        ("Connection names Host", good().with("Connection: Host")),
        (
            "Connection names a pseudo-header",
            good().with("Connection: :authority"),
        ),
        (
            "257 fields",
            (0..257).fold(good(), |request, n| request.with(&format!("X-{n}: 1"))),
        ),
        (
            "2 MiB of fields",
            good().with(&format!("X-Own: {}", "1".repeat(2 << 20))),
        ),
    ];
    for (name, request) in cases {
        check(&raw, (name, request.bytes(), &[400], &[])).await;
    }
    let large = good().with(&format!("X-Own: {}", "1".repeat(65 << 10)));
    check(&raw, ("65 KiB of fields", large.bytes(), &[431], &[])).await;
}

#[tokio::test]
async fn repeated_credentials_are_rejected() {
    let raw = Raw::start().await;
    let repeated = |name: &str| {
        let request = raw.request("GET", "/orders");
        let field = request
            .fields
            .iter()
            .find(|field| field.starts_with(name))
            .unwrap()
            .clone();
        (request, field)
    };
    for name in ["Authorization", "DPoP"] {
        let (request, field) = repeated(name);
        let statuses = raw.gateway.exchange(&request.with(&field).bytes()).await;
        assert!(
            matches!(statuses[..], [400 | 401]),
            "{name} twice: {statuses:?}"
        );
        let (request, field) = repeated(name);
        let value = field.split_once(": ").unwrap().1;
        let listed = request.without(name).with(&format!("{field}, {value}"));
        let statuses = raw.gateway.exchange(&listed.bytes()).await;
        assert!(
            matches!(statuses[..], [400 | 401]),
            "{name} as a list: {statuses:?}"
        );
        assert!(raw.arrived().await.is_empty(), "{name}");
    }
}

/// RFC 9112 section 2.2 allows to read a bare LF as the end of a line. The service gets what was read, with CRLF.
#[tokio::test]
async fn lines_that_end_with_a_bare_lf_are_lines() {
    let raw = Raw::start().await;
    let request = raw.request("POST", "/orders").with("Content-Length: 3");
    let lf = String::from_utf8(request.bytes())
        .unwrap()
        .replace('\r', "")
        + "one";
    let case = (
        "bare LF",
        lf.into_bytes(),
        &[200][..],
        &[(ORDERS, "one")][..],
    );
    check(&raw, case).await;
    let hidden = raw
        .request("GET", "/orders")
        .with("X-Own: 1\nX-Auth-Subject: admin\nTransfer-Encoding: xchunked");
    check(
        &raw,
        ("a coding behind a bare LF", hidden.bytes(), &[400], &[]),
    )
    .await;
    let hidden = raw
        .request("GET", "/orders")
        .with("X-Own: 1\nX-Auth-Subject: admin");
    assert_eq!(raw.gateway.exchange(&hidden.bytes()).await, [200]);
    let arrived = raw.arrived().await;
    assert_eq!(arrived[0].values("X-Own"), ["1"]);
    let subjects = arrived[0].values("X-Auth-Subject");
    assert_eq!(subjects.len(), 1);
    assert_ne!(subjects, ["admin"]);
}
