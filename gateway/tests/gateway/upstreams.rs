//! Servers: which of them gets a request, whether it is the right one, and what happens if it does not respond.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;

use crate::support::{
    Authority, Client, Gateway, Parties, Seen, Started, Upstream, Wire, eventually, forwarding_to,
    head,
};

fn named(name: &'static str) -> Router {
    Router::new().fallback(async move || name)
}

async fn status(gateway: &Started, parties: &Parties) -> u16 {
    let request = parties.request(Method::GET, "/orders");
    Client::http1(gateway).status(&request).await
}

async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn requests_are_shared_and_go_elsewhere_if_a_server_is_gone() {
    let parties = Parties::new();
    let (one, two) = (
        Upstream::serve(named("one")).await,
        Upstream::serve(named("two")).await,
    );
    let config = format!("servers = [\"{}\", \"{}\"]", one.url(), two.url());
    let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
    let client = Client::http1(&gateway);
    let mut of_one = 0;
    for _ in 0..20 {
        let request = parties.request(Method::GET, "/orders");
        let response = client.request(&request).send().await.unwrap();
        of_one += usize::from(response.text().await.unwrap() == "one");
    }
    assert_eq!(of_one, 10);
    one.stop().await;
    // No connection can be made, so a POST has not been seen either.
    for method in [Method::GET, Method::POST].iter().cycle().take(20) {
        let request = parties.request(method.clone(), "/orders");
        let response = client.request(&request).body("body").send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), "two");
    }
    two.stop().await;
    let request = parties.request(Method::GET, "/orders");
    assert_eq!(client.status(&request).await, 502);
}

#[tokio::test]
async fn a_server_that_fails_its_checks_gets_no_requests() {
    let parties = Parties::new();
    let seen = Seen::default();
    let healthy = Arc::new(AtomicBool::new(true));
    let is_healthy = Arc::clone(&healthy);
    let app = seen.echo().route(
        "/ready",
        axum::routing::get(async move || {
            if is_healthy.load(Ordering::SeqCst) {
                StatusCode::OK
            } else {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }),
    );
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, authority.pem()).unwrap();
    let certificate = authority.issue("127.0.0.1", |_| {});
    let tls = Authority::server(&certificate, &["h2", "http/1.1"], None);
    for (upstream, protocol) in [
        (Upstream::serve(app.clone()).await, "http1"),
        (Upstream::serve(app.clone()).await, "http2"),
        (Upstream::serve_tls(app.clone(), tls).await, "negotiated"),
    ] {
        let config = format!(
            "servers = [\"{}\"]\nprotocol = \"{protocol}\"\nroots_file = {roots:?}\n\
            health_check = {{ path = \"/ready\", interval_seconds = 1 }}",
            upstream.url()
        );
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        assert_eq!(status(&gateway, &parties).await, 200, "{protocol}");
        healthy.store(false, Ordering::SeqCst);
        eventually("it is unhealthy", async || {
            status(&gateway, &parties).await == 503
        })
        .await;
        let before = seen.requests().len();
        assert_eq!(status(&gateway, &parties).await, 503, "{protocol}");
        assert_eq!(seen.requests().len(), before, "{protocol}");
        healthy.store(true, Ordering::SeqCst);
        eventually("it is healthy", async || {
            status(&gateway, &parties).await == 200
        })
        .await;
    }
}

#[tokio::test]
async fn a_server_without_a_path_to_ask_must_accept_connections() {
    let parties = Parties::new();
    let upstream = Upstream::serve(named("one")).await;
    let config = format!(
        "servers = [\"{}\"]\nhealth_check = {{ interval_seconds = 1 }}",
        upstream.url()
    );
    let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
    assert_eq!(status(&gateway, &parties).await, 200);
    let address = upstream.stop().await;
    eventually("it is unhealthy", async || {
        status(&gateway, &parties).await == 503
    })
    .await;
    let _again = Upstream::serve_at(address, named("one")).await;
    eventually("it is healthy", async || {
        status(&gateway, &parties).await == 200
    })
    .await;
}

#[tokio::test]
async fn a_server_that_starts_again_gets_requests_again() {
    let parties = Parties::new();
    for protocol in ["http1", "http2"] {
        let upstream = Upstream::serve(named("one")).await;
        let config = format!(
            "servers = [\"{}\"]\nprotocol = \"{protocol}\"",
            upstream.url()
        );
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        assert_eq!(status(&gateway, &parties).await, 200, "{protocol}");
        let address = upstream.stop().await;
        assert_eq!(status(&gateway, &parties).await, 502, "{protocol}");
        let _again = Upstream::serve_at(address, named("one")).await;
        for method in [Method::GET, Method::POST] {
            let request = parties.request(method, "/orders");
            let status = Client::http1(&gateway).status(&request).await;
            assert_eq!(status, 200, "{protocol}");
        }
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_does_not_prevent_the_start() {
    let parties = Parties::new();
    let upstream = Upstream::serve(named("one")).await;
    let config = "servers = [\"http://no-such-host.invalid:80\"]";
    let gateway = Gateway::new(&parties, &forwarding_to(config)).start();
    assert_eq!(status(&gateway, &parties).await, 503);
    let config = format!(
        "servers = [\"http://no-such-host.invalid:80\", \"{}\"]",
        upstream.url_as("localhost")
    );
    let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
    assert_eq!(status(&gateway, &parties).await, 200);
}

/// One that closes each connection after its response, and does not say so.
#[tokio::test]
async fn connections_that_the_service_has_closed_are_not_used() {
    let parties = Parties::new();
    let (closed, mut ends) = mpsc::unbounded_channel();
    let upstream = Upstream::script(move |mut stream, _| {
        let closed = closed.clone();
        async move {
            if read_head(&mut stream).await.is_some() {
                stream.write_all(RESPONSE).await.unwrap();
                drop(stream);
                closed.send(()).unwrap();
            }
        }
    })
    .await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    let client = Client::http1(&gateway);
    for method in [Method::GET, Method::POST].iter().cycle().take(1000) {
        let request = parties.request(method.clone(), "/orders");
        assert_eq!(client.status(&request).await, 200, "{method}");
        ends.recv().await.unwrap();
    }
}

/// One that closes connections at any time. A request that can be repeated is.
#[tokio::test]
async fn requests_that_meet_the_end_of_a_connection_are_repeated_if_they_may_be() {
    let parties = Parties::new();
    let posts = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&posts);
    // The first request of a connection gets a response, the second one its end.
    let upstream = Upstream::script(move |mut stream, _| {
        let posts = Arc::clone(&posts);
        async move {
            for number in 0..2 {
                let Some(head) = read_head(&mut stream).await else {
                    return;
                };
                posts.fetch_add(usize::from(head.starts_with("POST")), Ordering::SeqCst);
                if number == 0 {
                    stream.write_all(RESPONSE).await.unwrap();
                }
            }
        }
    })
    .await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    let client = Client::http1(&gateway);
    for _ in 0..200 {
        let request = parties.request(Method::GET, "/orders");
        assert_eq!(client.status(&request).await, 200);
    }
    let mut failed = 0;
    for number in 1..=20 {
        let request = parties.request(Method::POST, "/orders");
        let response = client.request(&request).send().await.unwrap();
        failed += usize::from(response.status() == 502);
        assert_eq!(seen.load(Ordering::SeqCst), number, "a POST was repeated");
    }
    assert!(failed > 0, "no POST met the end of a connection");
}

#[tokio::test]
async fn a_service_that_does_not_respond_in_time_is_not_waited_for() {
    let parties = Parties::new();
    let silent = Upstream::serve(Router::new().fallback(async |body: axum::body::Bytes| {
        drop(body);
        std::future::pending::<()>().await;
    }))
    .await;
    for protocol in ["http1", "http2"] {
        let config = format!(
            "servers = [\"{}\"]\nprotocol = \"{protocol}\"\nread_timeout_seconds = 1",
            silent.url()
        );
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        for client in [Client::http1(&gateway), Client::http2(&gateway)] {
            let request = parties.request(Method::GET, "/orders");
            let response = client.request(&request).send().await.unwrap();
            assert_eq!(response.status(), 504, "{protocol}");
            assert_eq!(response.headers()["cache-control"], "no-store");
            assert_eq!(
                response.headers()["content-type"],
                "application/problem+json"
            );
            assert!(response.text().await.unwrap().contains("\"status\":504"));
            let request = parties.request(Method::POST, "/orders");
            let sent = client.request(&request).body("body");
            assert_eq!(sent.send().await.unwrap().status(), 504, "{protocol}");
            // How long an upload takes is not known, so pingora's timeout does not fit: over HTTP/2, the stream is dropped.
            let body = futures_util::stream::iter([Ok::<_, std::io::Error>("body")]);
            let request = parties.request(Method::POST, "/orders");
            let sent = client
                .request(&request)
                .body(reqwest::Body::wrap_stream(body));
            match (protocol, sent.send().await) {
                ("http1", response) => assert_eq!(response.unwrap().status(), 504),
                (_, response) => assert!(response.is_err(), "{response:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_accept_in_time_is_not_waited_for() {
    let parties = Parties::new();
    // Its queue is full.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    for _ in 0..8 {
        tokio::spawn(async move {
            let _waits = TcpStream::connect(address).await;
            std::future::pending::<()>().await;
        });
    }
    // It takes no part in the handshake.
    let silent =
        Upstream::script(
            async |mut stream, _| {
                while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
            },
        )
        .await;
    for url in [
        format!("http://{address}"),
        silent.url().replace("http:", "https:"),
    ] {
        let config = format!("servers = [\"{url}\"]\nconnect_timeout_seconds = 1");
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        eventually("its queue is full", async || {
            status(&gateway, &parties).await == 504
        })
        .await;
    }
}

#[tokio::test]
async fn a_response_that_is_none_is_a_502() {
    let parties = Parties::new();
    for (name, response) in [
        ("nothing", ""),
        ("not http", "hello\r\n\r\n"),
        ("a cut head", "HTTP/1.1 200 OK\r\ncontent-le"),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        ),
    ] {
        let upstream = Upstream::script(async move |mut stream, _| {
            if read_head(&mut stream).await.is_some() {
                stream.write_all(response.as_bytes()).await.unwrap();
            }
        })
        .await;
        let config = format!(
            "{}\n[cors]\nallow_origins = [\"https://app.example.com\"]\nallow_methods = [\"GET\"]",
            forwarding_to(&format!("servers = [\"{}\"]", upstream.url()))
        );
        let gateway = Gateway::new(&parties, &config).start();
        let request = parties.request(Method::GET, "/orders");
        let mut wire = Wire::connect(&gateway).await;
        let origin = "origin: https://app.example.com\r\n\r\n";
        wire.send(head(&request, "/orders?secret", origin)).await;
        let response = wire.response().await;
        assert_eq!(response.status(), 502, "{name}");
        assert!(response.head.contains("cache-control: no-store"), "{name}");
        assert!(response.head.contains("application/problem+json"), "{name}");
        assert!(
            response
                .head
                .contains("access-control-allow-origin: https://app.example.com"),
            "{name}"
        );
        let body = String::from_utf8(response.body).unwrap();
        assert!(
            !body.contains("secret") && !body.contains("hello"),
            "{name}: {body}"
        );
    }
}

#[tokio::test]
async fn the_log_names_the_service_and_repeats_nothing_of_the_request() {
    let parties = Parties::new();
    let broken = Upstream::script(async |mut stream, _| {
        if read_head(&mut stream).await.is_some() {
            let response = "HTTP/1.1 200 OK\r\nset-cookie: of-the-service\r\nno colon\r\n\r\n";
            stream.write_all(response.as_bytes()).await.unwrap();
        }
    })
    .await;
    let gone = Upstream::serve(named("gone")).await;
    let gone_url = gone.url();
    gone.stop().await;
    for (url, error) in [
        (broken.url(), "InvalidHTTPHeader"),
        (gone_url, "ConnectRefused"),
    ] {
        let config = forwarding_to(&format!("servers = [\"{url}\"]"));
        let (gateway, log) = Gateway::new(&parties, &config).start_logging();
        let request = parties.request(Method::GET, "/orders");
        let mut wire = Wire::connect(&gateway).await;
        wire.send(head(
            &request,
            "/orders?of-the-query",
            "cookie: of-the-client\r\n\r\n",
        ))
        .await;
        assert_eq!(wire.response().await.status(), 502, "{error}");
        let log = std::fs::read_to_string(log).unwrap();
        let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(errors.len(), 1, "{log}");
        for told in ["orders", "502", error] {
            assert!(errors[0].contains(told), "{told}: {log}");
        }
        let built = request.build::<()>();
        let secrets = ["authorization", "dpop"].map(|name| built.headers()[name].to_str().unwrap());
        for secret in secrets
            .into_iter()
            .chain(["of-the-query", "of-the-client", "of-the-service"])
        {
            assert!(!log.contains(secret), "{secret}: {log}");
        }
    }
}
