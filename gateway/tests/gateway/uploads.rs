//! Bodies: of rejected requests, large ones, slow ones, and malformed ones.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use futures_util::StreamExt as _;
use http::Method;
use tokio::io::AsyncReadExt as _;

use crate::support::{
    Client, Gateway, Parties, Seen, Started, Upstream, Wire, forwarding_to, head,
};

const MIB: usize = 1024 * 1024;

/// Responds with the number of bytes in the body, which it does not keep.
fn counting() -> Router {
    Router::new().fallback(async |request: Request| {
        let mut parts = request.into_body().into_data_stream();
        let mut length = 0;
        while let Some(Ok(part)) = parts.next().await {
            length += part.len();
        }
        length.to_string()
    })
}

fn without_proof(head: &str) -> String {
    let kept = head
        .split_inclusive("\r\n")
        .filter(|line| !line.starts_with("dpop:"));
    kept.collect()
}

#[tokio::test]
async fn a_rejected_upload_gets_its_response_and_leaves_the_connection_usable() {
    let parties = Parties::new();
    let seen = Seen::default();
    let upstream = Upstream::serve(seen.echo()).await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    let upload = head(&parties.request(Method::POST, "/orders"), "/orders", "");
    let rejected = without_proof(&upload);
    let mut wire = Wire::connect(&gateway).await;
    for (name, framing, body) in [
        (
            "length",
            format!("content-length: {}\r\n\r\n", 8 * MIB),
            "x".repeat(8 * MIB),
        ),
        (
            "chunks",
            "transfer-encoding: chunked\r\n\r\n".to_owned(),
            format!("{:x}\r\n{}\r\n", MIB, "x".repeat(MIB)).repeat(8) + "0\r\n\r\n",
        ),
    ] {
        wire.send(rejected.clone() + &framing).await;
        wire.send(&body).await;
        let response = wire.response().await;
        assert_eq!(response.status(), 401, "{name}");
        assert!(!response.head.contains("connection: close"), "{name}");
    }
    wire.send(upload + "content-length: 4\r\n\r\nbody").await;
    assert_eq!(wire.response().await.body, b"body");
    assert_eq!(seen.requests().len(), 1);
}

#[tokio::test]
async fn a_rejected_upload_that_is_not_read_ends_the_connection() {
    let parties = Parties::new();
    let seen = Seen::default();
    let upstream = Upstream::serve(seen.echo()).await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    let rejected = without_proof(&head(
        &parties.request(Method::POST, "/orders"),
        "/orders",
        "",
    ));
    for (name, framing) in [
        (
            "expect",
            format!("expect: 100-continue\r\ncontent-length: {MIB}\r\n\r\n"),
        ),
        ("too much", format!("content-length: {}\r\n\r\n", 17 * MIB)),
        // After five seconds.
        ("too slow", "content-length: 2\r\n\r\n1".to_owned()),
    ] {
        let mut wire = Wire::connect(&gateway).await;
        wire.send(rejected.clone() + &framing).await;
        let response = wire.response().await;
        assert_eq!(response.status(), 401, "{name}");
        assert!(response.head.contains("connection: close"), "{name}");
        wire.closed().await;
    }
    assert!(seen.requests().is_empty());
}

#[tokio::test]
async fn an_upload_gets_its_response_if_there_is_no_service() {
    let parties = Parties::new();
    let upstream = Upstream::serve(counting()).await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    upstream.stop().await;
    let request = parties.request(Method::POST, "/orders");
    let mut wire = Wire::connect(&gateway).await;
    let length = format!("content-length: {}\r\n\r\n", 8 * MIB);
    wire.send(head(&request, "/orders", &length)).await;
    wire.send(vec![b'x'; 8 * MIB]).await;
    assert_eq!(wire.response().await.status(), 502);
}

/// It reads only the head, so the sockets between fill up.
#[tokio::test]
async fn a_service_that_does_not_read_is_not_waited_for() {
    let parties = Parties::new();
    let upstream = Upstream::script(async |mut stream, _| {
        stream.read_exact(&mut [0; 16]).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let config = format!(
        "servers = [\"{}\"]\nread_timeout_seconds = 1\nwrite_timeout_seconds = 1",
        upstream.url()
    );
    let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
    let request = parties.request(Method::POST, "/orders");
    let client = Client::http1(&gateway);
    let sent = client.request(&request).body(vec![b'x'; 15 * MIB]);
    assert_eq!(sent.send().await.unwrap().status(), 504);
}

/// A stream of HTTP/2 ends without its connection, so nothing is read.
#[tokio::test]
async fn a_rejected_upload_over_http_2_ends_only_its_stream() {
    let parties = Parties::new();
    let seen = Seen::default();
    let upstream = Upstream::serve(seen.echo()).await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    let client = Client::http2(&gateway);
    for _ in 0..20 {
        let mut request = parties.request(Method::POST, "/orders");
        request.dpop = Some(Vec::new());
        let response = client
            .request(&request)
            .body(vec![b'x'; 300_000])
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 401);
        assert!(response.text().await.unwrap().contains("\"status\":401"));
    }
    let request = parties.request(Method::POST, "/orders");
    let response = client.request(&request).body("body").send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "body");
}

/// In KiB.
fn peak_memory(gateway: &Started) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process.id())).unwrap();
    let (_, peak) = status.split_once("VmHWM:").unwrap();
    peak.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn large_bodies_take_no_memory() {
    const LENGTH: usize = 100 * MIB;
    let parties = Parties::new();
    let app = counting().route(
        "/download",
        axum::routing::get(async || {
            let parts = std::iter::repeat_n(Bytes::from(vec![b'x'; MIB]), 100);
            Body::from_stream(futures_util::stream::iter(
                parts.map(Ok::<_, std::io::Error>),
            ))
        }),
    );
    let upstream = Upstream::serve(app).await;
    for protocol in ["http1", "http2"] {
        let config = format!(
            "servers = [\"{}\"]\nprotocol = \"{protocol}\"",
            upstream.url()
        );
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        for client in [Client::http1(&gateway), Client::http2(&gateway)] {
            // What small requests need.
            let request = parties.request(Method::POST, "/upload");
            let small = client
                .request(&request)
                .body(vec![b'x'; MIB])
                .send()
                .await
                .unwrap();
            assert_eq!(small.text().await.unwrap(), MIB.to_string());
            let before = peak_memory(&gateway);

            let parts = std::iter::repeat_n(Bytes::from(vec![b'x'; MIB]), LENGTH / MIB);
            let parts = futures_util::stream::iter(parts.map(Ok::<_, std::io::Error>));
            let request = parties.request(Method::POST, "/upload");
            let upload = client
                .request(&request)
                .body(reqwest::Body::wrap_stream(parts));
            let response = upload.send().await.unwrap();
            assert_eq!(
                response.text().await.unwrap(),
                LENGTH.to_string(),
                "{protocol}"
            );

            let request = parties.request(Method::GET, "/download");
            let mut response = client.request(&request).send().await.unwrap();
            let mut length = 0;
            while let Some(part) = response.chunk().await.unwrap() {
                length += part.len();
            }
            assert_eq!(length, LENGTH, "{protocol}");
            let more = peak_memory(&gateway).saturating_sub(before);
            assert!(more < 24 * 1024, "{protocol}: {more} KiB more");
        }
    }
}

#[tokio::test]
async fn a_malformed_body_is_the_clients_fault() {
    let parties = Parties::new();
    for protocol in ["http1", "http2"] {
        let upstream = Upstream::serve(counting()).await;
        let config = format!(
            "servers = [\"{}\"]\nprotocol = \"{protocol}\"",
            upstream.url()
        );
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        for body in [
            "zz\r\nabc\r\n0\r\n\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "-3\r\nabc\r\n0\r\n\r\n",
        ] {
            let request = parties.request(Method::POST, "/orders");
            let mut wire = Wire::connect(&gateway).await;
            wire.send(head(&request, "/orders", "transfer-encoding: chunked\r\n\r\n") + body)
                .await;
            let response = wire.response().await;
            assert_eq!(response.status(), 400, "{protocol} {body:?}");
            assert!(response.head.contains("application/problem+json"));
            wire.closed().await;
        }
    }
}

#[tokio::test]
async fn a_cut_body_is_cut_for_the_service_as_well() {
    let parties = Parties::new();
    let (told, mut ends) = tokio::sync::mpsc::channel(1);
    let app = Router::new().fallback(async move |request: Request| {
        let mut parts = request.into_body().into_data_stream();
        let end = loop {
            match parts.next().await {
                Some(Ok(_)) => {}
                end => break end.is_none(),
            }
        };
        told.send(end).await.unwrap();
        Response::new(Body::empty())
    });
    let upstream = Upstream::serve(app).await;
    for protocol in ["http1", "http2"] {
        let config = format!(
            "servers = [\"{}\"]\nprotocol = \"{protocol}\"",
            upstream.url()
        );
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        for body in [
            "content-length: 10\r\n\r\npart",
            "transfer-encoding: chunked\r\n\r\n4\r\npart\r\n",
        ] {
            let request = parties.request(Method::POST, "/orders");
            let mut wire = Wire::connect(&gateway).await;
            wire.send(head(&request, "/orders", body)).await;
            drop(wire);
            let looks_complete = ends.recv().await.unwrap();
            assert!(!looks_complete, "{protocol} {body:?}");
        }
    }
}

#[tokio::test]
async fn slow_clients_do_not_hold_the_gateway() {
    let parties = Parties::new();
    let seen = Seen::default();
    let upstream = Upstream::serve(seen.echo()).await;
    let address = "address = \"127.0.0.1:0\"";
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()))
        .replace(address, &format!("{address}\nclient_timeout_seconds = 2"));
    let gateway = Gateway::new(&parties, &config).start();
    // A part of the header each second.
    let mut wire = Wire::connect(&gateway).await;
    let (mut read, mut write) = wire.0.split();
    let drip = async {
        use tokio::io::AsyncWriteExt as _;
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        for byte in b"GET / HTTP/1.1\r\nhost: a".iter().cycle() {
            ticks.tick().await;
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
    };
    let ended = async { matches!(read.read(&mut [0]).await, Ok(0) | Err(_)) };
    tokio::select! {
        ended = ended => assert!(ended, "the gateway responded to half a header"),
        () = drip => {}
    }
    // Nothing, or the beginning of HTTP/2 and no more.
    for start in ["", "P", "PRI * HTTP"] {
        let mut wire = Wire::connect(&gateway).await;
        wire.send(start).await;
        wire.closed().await;
    }
    // A part of the body.
    let request = parties.request(Method::POST, "/orders");
    let mut wire = Wire::connect(&gateway).await;
    wire.send(head(&request, "/orders", "content-length: 10\r\n\r\npart"))
        .await;
    assert_eq!(wire.response().await.status(), 408);
    wire.closed().await;
    // No other request.
    let mut wire = Wire::connect(&gateway).await;
    wire.send(head(
        &parties.request(Method::GET, "/orders"),
        "/orders",
        "\r\n",
    ))
    .await;
    assert_eq!(wire.response().await.status(), 200);
    wire.closed().await;
}

/// Longer than `read_timeout_seconds`, with parts that are closer together.
#[tokio::test]
async fn a_slow_upload_that_makes_progress_is_not_ended() {
    let parties = Parties::new();
    let upstream = Upstream::serve(counting()).await;
    for protocol in ["http1", "http2"] {
        let config = format!(
            "servers = [\"{}\"]\nprotocol = \"{protocol}\"\nread_timeout_seconds = 3",
            upstream.url()
        );
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        let clients = [Client::http1(&gateway), Client::http2(&gateway)];
        let uploads = clients.iter().map(async |client| {
            let ticks = tokio::time::interval(Duration::from_millis(350));
            let parts = tokio_stream::wrappers::IntervalStream::new(ticks).take(12);
            let parts = parts.map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"part")));
            let request = parties.request(Method::POST, "/orders");
            let upload = client
                .request(&request)
                .body(reqwest::Body::wrap_stream(parts));
            let response = upload.send().await.unwrap();
            assert_eq!(response.status(), 200, "{protocol}");
            assert_eq!(response.text().await.unwrap(), "48", "{protocol}");
        });
        futures_util::future::join_all(uploads).await;
    }
}
