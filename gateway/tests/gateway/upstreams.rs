//! Servers: which of them gets a request, whether it is the right one, and what happens if it does not respond.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use http::Method;
use rcgen::{CertificateParams, date_time_ymd};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

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
    let tls = authority.server(&certificate, &["h2", "http/1.1"], None);
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

#[tokio::test]
async fn the_certificate_of_a_server_is_verified() {
    let parties = Parties::new();
    let (authority, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("{:?}", path.display().to_string())
    };
    let roots = file("roots.pem", &authority.pem());
    let others = file("others.pem", &other.pem());
    let client = authority.issue("gateway.internal", |_| {});
    let (certificate, key) = (file("client.pem", &client.0), file("client.key", &client.1));
    let stranger = other.issue("gateway.internal", |_| {});
    let stranger = (
        file("stranger.pem", &stranger.0),
        file("stranger.key", &stranger.1),
    );
    let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2024, 1, 1);
    let server = async |name: &str, change: fn(&mut CertificateParams), clients| {
        let config = authority.server(&authority.issue(name, change), &[], clients);
        Upstream::serve_tls(named("one"), config).await
    };
    let (address, localhost, internal, expired, mutual) = (
        server("127.0.0.1", |_| {}, None).await,
        server("localhost", |_| {}, None).await,
        server("orders.internal", |_| {}, None).await,
        server("127.0.0.1", expired, None).await,
        server("127.0.0.1", |_| {}, Some(&authority)).await,
    );
    let our_roots = format!("roots_file = {roots}");
    let with = |more: &str| format!("{our_roots}\n{more}");
    let mutual_by = |certificate: &str, key: &str| {
        with(&format!(
            "client_certificate = {{ certificate_file = {certificate}, key_file = {key} }}"
        ))
    };
    for (name, url, settings, status_) in [
        ("an address", address.url(), with(""), 200),
        ("a name", localhost.url_as("localhost"), with(""), 200),
        (
            "another name that is set",
            internal.url(),
            with("server_name = \"orders.internal\""),
            200,
        ),
        ("the name is another one", internal.url(), with(""), 502),
        (
            "the name is set to another one",
            address.url(),
            with("server_name = \"orders.internal\""),
            502,
        ),
        ("no name for the address", localhost.url(), with(""), 502),
        (
            "unknown authority",
            address.url(),
            format!("roots_file = {others}"),
            502,
        ),
        (
            "not an authority of the system",
            address.url(),
            String::new(),
            502,
        ),
        ("expired", expired.url(), with(""), 502),
        (
            "plain text",
            address.url().replace("https", "http"),
            String::new(),
            502,
        ),
        (
            "client certificate",
            mutual.url(),
            mutual_by(&certificate, &key),
            200,
        ),
        ("no client certificate", mutual.url(), with(""), 502),
        (
            "client certificate of others",
            mutual.url(),
            mutual_by(&stranger.0, &stranger.1),
            502,
        ),
    ] {
        let config = format!("servers = [\"{url}\"]\n{settings}");
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        for _ in 0..2 {
            assert_eq!(status(&gateway, &parties).await, status_, "{name}");
        }
    }
}

/// A connection that one upstream has verified is of no use to another one with other roots.
#[tokio::test]
async fn upstreams_share_no_connections() {
    let parties = Parties::new();
    let (authority, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let (roots, others) = (
        folder.path().join("roots.pem"),
        folder.path().join("others.pem"),
    );
    std::fs::write(&roots, authority.pem()).unwrap();
    std::fs::write(&others, other.pem()).unwrap();
    let tls = authority.server(&authority.issue("127.0.0.1", |_| {}), &[], None);
    let upstream = Upstream::serve_tls(named("one"), tls).await;
    let url = upstream.url();
    let config = format!(
        "{}\n[upstream.others]\nservers = [\"{url}\"]\nroots_file = {others:?}\n\
        [[route]]\npath = \"/others\"\nupstream = \"others\"",
        forwarding_to(&format!("servers = [\"{url}\"]\nroots_file = {roots:?}"))
    );
    let gateway = Gateway::new(&parties, &config).start();
    for _ in 0..2 {
        assert_eq!(status(&gateway, &parties).await, 200);
        let request = parties.request(Method::GET, "/others");
        assert_eq!(Client::http1(&gateway).status(&request).await, 502);
    }
}

async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// One that closes each connection after its response, and does not say so.
#[tokio::test]
async fn connections_that_the_service_has_closed_are_not_used() {
    let parties = Parties::new();
    let upstream = Upstream::script(async |mut stream, _| {
        if read_head(&mut stream).await.is_some() {
            stream.write_all(RESPONSE).await.unwrap();
        }
    })
    .await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    let client = Client::http1(&gateway);
    for method in [Method::GET, Method::POST].iter().cycle().take(1000) {
        let request = parties.request(method.clone(), "/orders");
        assert_eq!(client.status(&request).await, 200, "{method}");
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
            // After an upload over HTTP/2, without a response.
            let request = parties.request(Method::POST, "/orders");
            let response = client.request(&request).body("body").send().await;
            assert!(response.is_ok_and(|one| one.status() == 504) || protocol == "http2");
        }
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
async fn a_configuration_that_would_verify_nothing_is_rejected() {
    let parties = Parties::new();
    let folder = tempfile::tempdir().unwrap();
    let not_pem = folder.path().join("not.pem");
    std::fs::write(&not_pem, "not a certificate").unwrap();
    for (name, settings) in [
        ("no server", "servers = []".to_owned()),
        (
            "another scheme",
            "servers = [\"ftp://127.0.0.1\"]".to_owned(),
        ),
        (
            "two schemes",
            "servers = [\"http://127.0.0.1\", \"https://127.0.0.1\"]".to_owned(),
        ),
        ("a path", "servers = [\"http://127.0.0.1/path\"]".to_owned()),
        (
            "credentials",
            "servers = [\"http://a@127.0.0.1\"]".to_owned(),
        ),
        ("no host", "servers = [\"http://:80\"]".to_owned()),
        (
            "an empty server_name",
            "servers = [\"https://127.0.0.1\"]\nserver_name = \"\"".to_owned(),
        ),
        (
            "an underscore",
            "servers = [\"https://a_b.internal.example\"]".to_owned(),
        ),
        (
            "no roots",
            format!("servers = [\"https://127.0.0.1\"]\nroots_file = {not_pem:?}"),
        ),
        (
            "roots do not exist",
            "servers = [\"https://127.0.0.1\"]\nroots_file = \"/nowhere\"".to_owned(),
        ),
    ] {
        let gateway = Gateway::new(&parties, &forwarding_to(&settings));
        let started = std::panic::AssertUnwindSafe(|| gateway.start());
        assert!(std::panic::catch_unwind(started).is_err(), "{name}");
    }
}
