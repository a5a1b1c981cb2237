//! Where messages begin and end, and requests that no service may see.

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Client, Gateway, Parties, Seen, Upstream, Wire, forwarding_to, head};

#[tokio::test]
async fn a_malformed_request_never_reaches_the_service() {
    let parties = Parties::new();
    let seen = Seen::default();
    let upstream = Upstream::serve(seen.echo()).await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    let good = head(&parties.request(Method::POST, "/orders"), "/orders", "");
    let large = format!("x-large: {}\r\n", "x".repeat(70_000));
    for (name, request, status) in [
        ("not ascii", good.replace(" /orders", " /\u{e9}"), 400),
        ("not utf-8", good.replace(" /orders", " /FF"), 400),
        ("no path", good.replace(" /orders", " orders"), 400),
        ("only a query", good.replace(" /orders", " ?a"), 400),
        ("an asterisk", good.replace(" /orders", " *"), 400),
        (
            "no host",
            good.replace("host: api.example.com\r\n", ""),
            400,
        ),
        (
            "two hosts",
            format!("{good}host: evil.example.com\r\n"),
            400,
        ),
        (
            "another authority",
            good.replace(" /orders", " http://evil.example.com/orders"),
            400,
        ),
        (
            "host named by connection",
            format!("{good}connection: host\r\n"),
            400,
        ),
        (
            "two lengths",
            format!("{good}content-length: 1\r\ncontent-length: 2\r\n"),
            400,
        ),
        (
            "a negative length",
            format!("{good}content-length: -1\r\n"),
            400,
        ),
        (
            "another transfer coding",
            format!("{good}transfer-encoding: gzip, chunked\r\n"),
            501,
        ),
        (
            "chunked is not the last one",
            format!("{good}transfer-encoding: chunked, gzip\r\n"),
            400,
        ),
        ("a large header", format!("{good}{large}"), 431),
        (
            "connect",
            good.replace("POST /orders", "CONNECT api.example.com:443"),
            405,
        ),
    ] {
        let mut request = (request + "\r\n").into_bytes();
        if name == "not utf-8" {
            let place = request
                .windows(3)
                .position(|bytes| bytes == b"/FF")
                .unwrap();
            request[place + 1] = 0xff;
        }
        let mut wire = Wire::connect(&gateway).await;
        // A rejected header may be left unread.
        let _ = wire.0.write_all(&request).await;
        assert_eq!(wire.response().await.status(), status, "{name}");
    }
    assert!(seen.requests().is_empty(), "{:?}", seen.requests());
    // The good one, with as much as a large token and a large proof have.
    let good = head(&parties.request(Method::POST, "/orders"), "/orders", "");
    let mut wire = Wire::connect(&gateway).await;
    wire.send(format!(
        "{good}x-large: {}\r\ncontent-length: 0\r\n\r\n",
        "x".repeat(40 * 1024)
    ))
    .await;
    assert_eq!(wire.response().await.status(), 200);
}

#[tokio::test]
async fn responses_without_a_body_keep_the_connection() {
    let parties = Parties::new();
    let app = Router::new().fallback(async |request: axum::extract::Request| {
        let builder = Response::builder();
        match request.uri().path() {
            "/204" => builder.status(204).body(Body::empty()),
            "/304" => builder
                .status(304)
                .header("etag", "\"a\"")
                .body(Body::empty()),
            _ => builder
                .header("content-length", "7")
                .body(Body::from("content")),
        }
        .unwrap()
    });
    let upstream = Upstream::serve(app).await;
    for protocol in ["http1", "http2"] {
        let config = format!(
            "servers = [\"{}\"]\nprotocol = \"{protocol}\"",
            upstream.url()
        );
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        let mut wire = Wire::connect(&gateway).await;
        for (method, path, status, length) in [
            (Method::HEAD, "/200", 200, Some("content-length: 7\r\n")),
            (Method::GET, "/204", 204, None),
            (Method::GET, "/304", 304, None),
            (Method::HEAD, "/200", 200, Some("content-length: 7\r\n")),
        ] {
            wire.send(head(&parties.request(method.clone(), path), path, "\r\n"))
                .await;
            let head = wire.head().await;
            assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
            assert!(
                length.is_none_or(|length| head.contains(length)),
                "{protocol} {path}: {head}"
            );
            assert!(
                !head.contains("transfer-encoding"),
                "{protocol} {path}: {head}"
            );
        }
        wire.send(head(&parties.request(Method::GET, "/200"), "/200", "\r\n"))
            .await;
        assert_eq!(wire.response().await.body, b"content");
        let client = Client::http2(&gateway);
        for (method, path, status) in [
            (Method::HEAD, "/200", 200),
            (Method::GET, "/204", 204),
            (Method::GET, "/304", 304),
        ] {
            let request = parties.request(method, path);
            assert_eq!(client.status(&request).await, status, "{protocol} {path}");
        }
    }
}

#[tokio::test]
async fn each_request_of_a_pipeline_is_decided_about() {
    let parties = Parties::new();
    let seen = Seen::default();
    let upstream = Upstream::serve(seen.echo()).await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    let one = head(
        &parties.request(Method::POST, "/one"),
        "/one",
        "content-length: 1\r\n\r\n1",
    );
    let two = "GET /two HTTP/1.1\r\nhost: api.example.com\r\n\r\n";
    let three = head(&parties.request(Method::GET, "/three"), "/three", "\r\n");
    let mut wire = Wire::connect(&gateway).await;
    wire.send(format!("{one}{two}{three}")).await;
    assert_eq!(wire.response().await.status(), 200);
    assert_eq!(wire.response().await.status(), 401);
    assert_eq!(wire.response().await.status(), 200);
    let paths: Vec<_> = seen
        .requests()
        .iter()
        .map(|head| head.uri.path().to_owned())
        .collect();
    assert_eq!(paths, ["/one", "/three"]);
}

#[tokio::test]
async fn large_headers_of_http_2_pass_within_the_limit() {
    let parties = Parties::new();
    let seen = Seen::default();
    let upstream = Upstream::serve(seen.echo()).await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    let client = Client::http2(&gateway);
    for (size, status) in [(40 * 1024, 200), (70 * 1024, 431)] {
        let request = parties.request(Method::GET, "/orders");
        let sent = client.request(&request).header("x-large", "x".repeat(size));
        assert_eq!(sent.send().await.unwrap().status(), status, "{size}");
    }
}

/// The length is not that of the chunks: the service gets one of the two, and the connection ends.
#[tokio::test]
async fn two_framings_of_a_body_are_never_passed_on() {
    let parties = Parties::new();
    let seen = Seen::default();
    let upstream = Upstream::serve(seen.echo()).await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    let request = parties.request(Method::POST, "/orders");
    let framing = "content-length: 40\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut wire = Wire::connect(&gateway).await;
    wire.send(head(&request, "/orders", framing)).await;
    wire.send("3\r\nabc\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    assert_eq!(wire.response().await.body, b"abc");
    wire.closed().await;
    assert_eq!(seen.requests().len(), 1);
    assert!(!seen.requests()[0].headers.contains_key("content-length"));
}

#[tokio::test]
async fn clients_of_http_1_0_get_no_chunks() {
    let parties = Parties::new();
    let app = Router::new().fallback(async || {
        let parts = ["one", "two"].map(Ok::<_, std::io::Error>);
        Body::from_stream(futures_util::stream::iter(parts))
    });
    let upstream = Upstream::serve(app).await;
    for protocol in ["http1", "http2"] {
        let config = format!(
            "servers = [\"{}\"]\nprotocol = \"{protocol}\"",
            upstream.url()
        );
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        let request = parties.request(Method::GET, "/orders");
        let mut wire = Wire::connect(&gateway).await;
        wire.send(head(&request, "/orders", "\r\n").replace("HTTP/1.1", "HTTP/1.0"))
            .await;
        let head = wire.head().await;
        assert!(!head.contains("transfer-encoding"), "{head}");
        let mut body = String::new();
        wire.0.read_to_string(&mut body).await.unwrap();
        assert_eq!(body, "onetwo", "{protocol}");
        // It is shorter than the preface of HTTP/2.
        let mut wire = Wire::connect(&gateway).await;
        wire.send("GET / HTTP/1.0\r\n\r\n").await;
        assert_eq!(wire.response().await.status(), 401);
    }
}

/// Nobody can say where it ends, so what follows it is not read as a request (RFC 9112 section 6.3).
#[tokio::test]
async fn a_malformed_request_is_the_last_of_its_connection() {
    let parties = Parties::new();
    let seen = Seen::default();
    let upstream = Upstream::serve(seen.echo()).await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    for (fields, status) in [
        ("content-length: 3\r\ncontent-length: 3\r\n\r\none", 400),
        (
            "transfer-encoding: gzip, chunked\r\n\r\n3\r\none\r\n0\r\n\r\n",
            501,
        ),
    ] {
        let malformed = head(&parties.request(Method::POST, "/orders"), "/orders", fields);
        let next = head(&parties.request(Method::GET, "/orders"), "/orders", "\r\n");
        let mut wire = Wire::connect(&gateway).await;
        wire.send(malformed + &next).await;
        let response = wire.response().await;
        assert_eq!(response.status(), status);
        assert!(
            response.head.contains("connection: close"),
            "{}",
            response.head
        );
        wire.closed().await;
    }
    assert!(seen.requests().is_empty());
}
