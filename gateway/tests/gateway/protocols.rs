//! What services and clients get of each other's messages.

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::{
    Authority, Client, Gateway, Parties, Seen, Started, Upstream, Wire, forwarding_to, head,
};

#[tokio::test]
async fn http_1_and_http_2_are_translated_into_each_other() {
    let parties = Parties::new();
    let seen = Seen::default();
    let plain = Upstream::serve(seen.echo()).await;
    let authority = Authority::new();
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), authority.pem()).unwrap();
    let certificate = authority.issue("127.0.0.1", |_| {});
    let with_tls = async |alpn: &[&str]| {
        let config = Authority::server(&certificate, alpn, None);
        Upstream::serve_tls(seen.echo(), config).await
    };
    let (both, only_1) = (
        with_tls(&["h2", "http/1.1"]).await,
        with_tls(&["http/1.1"]).await,
    );
    let body = vec![b'x'; 4 * 1024 * 1024];
    for (name, upstream, protocol, version) in [
        ("plain, http1", &plain, "http1", "1.1"),
        ("plain, http2", &plain, "http2", "2"),
        ("plain, negotiated", &plain, "negotiated", "1.1"),
        ("tls, http1", &both, "http1", "1.1"),
        ("tls, http2", &both, "http2", "2"),
        ("tls, negotiated", &both, "negotiated", "2"),
        (
            "tls without http/2, negotiated",
            &only_1,
            "negotiated",
            "1.1",
        ),
    ] {
        let mut config = format!(
            "servers = [\"{}\"]\nprotocol = \"{protocol}\"",
            upstream.url()
        );
        if upstream.url().starts_with("https:") {
            config = format!("{config}\nroots_file = {:?}", roots.path());
        }
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        for client in [Client::http1(&gateway), Client::http2(&gateway)] {
            for _ in 0..2 {
                let request = parties.request(Method::POST, "/orders");
                let sent = client.request(&request).body(body.clone()).send();
                let response = sent.await.unwrap();
                assert_eq!(response.status(), 200, "{name}");
                assert_eq!(response.headers()["x-version"], version, "{name}");
                assert!(response.bytes().await.unwrap() == body, "{name}");
            }
            let request = parties.request(Method::GET, "/orders");
            let response = client.request(&request).send().await.unwrap();
            assert_eq!(response.status(), 200, "{name}");
        }
    }
}

#[tokio::test]
async fn a_service_learns_of_the_client_from_the_gateway_only() {
    let parties = Parties::new();
    let seen = Seen::default();
    let upstream = Upstream::serve(seen.echo()).await;
    for (number, protocol) in ["http1", "http2"].iter().enumerate() {
        let config = format!(
            "servers = [\"{}\"]\nprotocol = \"{protocol}\"",
            upstream.url()
        );
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        let request = parties.request(Method::POST, "/orders");
        let mut wire = Wire::connect(&gateway).await;
        let fields = "connection: keep-alive, x-named\r\nx-named: 1\r\nkeep-alive: 5\r\nproxy-authorization: x\r\n\
            te: trailers\r\ntrailer: x-auth-subject\r\nx-auth-subject: mallory\r\nx_auth_subject: mallory\r\n\
            x-auth.subject: mallory\r\nx-forwarded-for: 203.0.113.9\r\nx_forwarded_for: 203.0.113.9\r\nx-real-ip: 203.0.113.9\r\n\
            forwarded: for=203.0.113.9\r\nx-forwarded-user: mallory\r\n\
            x-original-url: /admin\r\nx_rewrite_url: /admin\r\nx-http-method-override: DELETE\r\nx-method-override: DELETE\r\nx-kept: yes\r\ntransfer-encoding: chunked\r\n\r\n";
        wire.send(head(&request, "/orders", fields)).await;
        wire.send("3\r\nabc\r\n0\r\nx-auth-subject: mallory\r\nx-kept-trailer: yes\r\n\r\n")
            .await;
        let response = wire.response().await;
        assert_eq!(response.status(), 200, "{protocol}");
        assert_eq!(response.body, b"abc");
        let received = &seen.requests()[number];
        let headers = &received.headers;
        for gone in [
            "dpop",
            "authorization",
            "x-named",
            "keep-alive",
            "proxy-authorization",
            "trailer",
            "x_auth_subject",
            "x-auth.subject",
            "x_forwarded_for",
            "x-real-ip",
            "x-forwarded-user",
            "x-original-url",
            "x_rewrite_url",
            "x-http-method-override",
            "x-method-override",
            "te",
        ] {
            assert!(!headers.contains_key(gone), "{protocol}: {gone}");
        }
        let subjects: Vec<_> = headers.get_all("x-auth-subject").iter().collect();
        assert_eq!(subjects.len(), 1, "{protocol}");
        assert_ne!(subjects[0], "mallory", "{protocol}");
        assert_eq!(headers["x-kept"], "yes");
        assert_eq!(headers["x-forwarded-for"], "127.0.0.1", "{protocol}");
        assert_eq!(headers["x-forwarded-host"], "api.example.com", "{protocol}");
        assert_eq!(headers["x-forwarded-proto"], "http", "{protocol}");
        assert_eq!(
            headers["forwarded"], "for=127.0.0.1;host=\"api.example.com\";proto=http",
            "{protocol}"
        );
        let host = headers.get("host").map_or_else(
            || received.uri.authority().unwrap().to_string(),
            |host| host.to_str().unwrap().to_owned(),
        );
        assert_eq!(host, upstream.address.to_string(), "{protocol}");
        assert_eq!(seen.trailers()[number], None, "{protocol}");
    }
}

type Sender<B> = hyper::client::conn::http2::SendRequest<B>;

async fn http2_connection<B>(gateway: &Started) -> Sender<B>
where
    B: hyper::body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let address = gateway.url("proxy").strip_prefix("http://").unwrap();
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn a_tunnel_is_rejected_over_http_2_as_well() {
    let parties = Parties::new();
    let seen = Seen::default();
    let upstream = Upstream::serve(seen.echo()).await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    let request = parties.request(Method::GET, "/orders");
    let (mut head, ()) = request.build::<()>().into_parts();
    head.method = Method::CONNECT;
    head.uri = "api.example.com:443".parse().unwrap();
    let body = http_body_util::Empty::<bytes::Bytes>::new();
    let mut sender = http2_connection(&gateway).await;
    let request = http::Request::from_parts(head, body);
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 405);
    assert!(seen.requests().is_empty());
}

#[tokio::test]
async fn trailers_of_http_2_do_not_reach_the_service() {
    let parties = Parties::new();
    let seen = Seen::default();
    let upstream = Upstream::serve(seen.echo()).await;
    for (number, protocol) in ["http1", "http2"].iter().enumerate() {
        let config = format!(
            "servers = [\"{}\"]\nprotocol = \"{protocol}\"",
            upstream.url()
        );
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        let mut sender = http2_connection(&gateway).await;
        let (mut head, ()) = parties
            .request(Method::POST, "/orders")
            .build::<()>()
            .into_parts();
        head.uri = "http://api.example.com/orders".parse().unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-auth-subject", "mallory".parse().unwrap());
        let body = http_body_util::Full::new(bytes::Bytes::from_static(b"abc"))
            .with_trailers(async { Some(Ok(trailers)) })
            .boxed();
        let response = sender
            .send_request(http::Request::from_parts(head, body))
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{protocol}");
        assert_eq!(seen.bodies()[number], b"abc", "{protocol}");
        assert_eq!(seen.trailers()[number], None, "{protocol}");
    }
}

#[tokio::test]
async fn the_target_is_passed_on_byte_for_byte() {
    let parties = Parties::new();
    let seen = Seen::default();
    let upstream = Upstream::serve(seen.echo()).await;
    let forward = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let strip = forward.replace("path = \"/\"", "path = \"/api\"\nstrip_prefix = \"/api\"");
    let (forward, strip) = (
        Gateway::new(&parties, &forward).start(),
        Gateway::new(&parties, &strip).start(),
    );
    for (gateway, sent, received) in [
        (&forward, "/a%2Fb", "/a%2Fb"),
        (&forward, "/a//b", "/a//b"),
        (&forward, "//a", "//a"),
        (&forward, "/%7Ea~/%41", "/%7Ea~/%41"),
        (&forward, "/a?", "/a?"),
        (&forward, "/a?b=%2F&c=/?d", "/a?b=%2F&c=/?d"),
        (&forward, "/a;b=1/./..", "/a;b=1/./.."),
        (&forward, "https://api.example.com/a%2F?b", "/a%2F?b"),
        (&strip, "/api", "/"),
        (&strip, "/api?b", "/?b"),
        (&strip, "/api/", "/"),
        (&strip, "/api//a%2F", "//a%2F"),
        (&strip, "/api/api/a", "/api/a"),
    ] {
        let path = sent.strip_prefix("https://api.example.com").unwrap_or(sent);
        let request = parties.request(Method::GET, path);
        let mut wire = Wire::connect(gateway).await;
        wire.send(head(&request, sent, "\r\n")).await;
        let response = wire.response().await;
        assert_eq!(response.status(), 200, "{sent}: {}", response.head);
        let last = seen.requests().pop().unwrap();
        assert_eq!(last.uri.to_string(), received, "{sent}");
        let prefix = last.headers.get("x-forwarded-prefix");
        assert_eq!(prefix.is_some(), sent.starts_with("/api"), "{sent}");
    }
}

#[tokio::test]
async fn proxies_that_are_trusted_say_where_a_request_came_from() {
    let parties = Parties::new();
    let seen = Seen::default();
    let upstream = Upstream::serve(seen.echo()).await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url())).replace(
        "address = \"127.0.0.1:0\"",
        "address = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.0/8\"]",
    );
    let config = config.replace("path = \"/\"", "path = \"/\"\npreserve_host = true");
    let gateway = Gateway::new(&parties, &config).start();
    let fields = "x-forwarded-for: 203.0.113.9\r\nx-forwarded-for: 203.0.113.10\r\nx-forwarded-proto: https\r\n\
        x-forwarded-host: shop.example.com\r\nx_forwarded_host: evil\r\nforwarded: for=203.0.113.9\r\n\r\n";
    let mut wire = Wire::connect(&gateway).await;
    wire.send(head(
        &parties.request(Method::GET, "/orders"),
        "/orders",
        fields,
    ))
    .await;
    assert_eq!(wire.response().await.status(), 200);
    let headers = &seen.requests()[0].headers;
    assert_eq!(
        headers["x-forwarded-for"],
        "203.0.113.9, 203.0.113.10, 127.0.0.1"
    );
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert_eq!(headers["x-forwarded-host"], "shop.example.com");
    assert!(!headers.contains_key("x_forwarded_host"));
    let forwarded = "for=203.0.113.9, for=127.0.0.1;host=\"api.example.com\";proto=http";
    assert_eq!(headers["forwarded"], forwarded);
    assert_eq!(headers["host"], "api.example.com");

    // Without `Forwarded` and the port, the gateway does not describe its own connection instead.
    let fields = "x-forwarded-for: 203.0.113.9\r\nx-forwarded-proto: https\r\n\r\n";
    let request = parties.request(Method::GET, "/orders");
    wire.send(head(&request, "/orders", fields)).await;
    assert_eq!(wire.response().await.status(), 200);
    let headers = &seen.requests()[1].headers;
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert!(!headers.contains_key("forwarded"), "{headers:?}");
    assert!(!headers.contains_key("x-forwarded-port"), "{headers:?}");
}

#[tokio::test]
async fn a_response_keeps_its_own_fields_but_those_of_the_connection() {
    let parties = Parties::new();
    let app = Router::new().fallback(async || {
        Response::builder()
            .status(StatusCode::FORBIDDEN)
            .header("dpop-nonce", "of-the-service")
            .header("www-authenticate", "DPoP error=\"insufficient_scope\"")
            .header("connection", "x-named, close")
            .header("x-named", "1")
            .header("proxy-authenticate", "Basic")
            .header("vary", "accept")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2")
            .body(Body::from("no"))
            .unwrap()
    });
    let upstream = Upstream::serve(app).await;
    let config = format!(
        "{}\n[cors]\nallow_origins = [\"https://app.example.com\"]\nallow_methods = [\"GET\"]",
        forwarding_to(&format!("servers = [\"{}\"]", upstream.url()))
    );
    let gateway = Gateway::new(&parties, &config).start();
    for client in [Client::http1(&gateway), Client::http2(&gateway)] {
        let request = parties.request(Method::GET, "/orders");
        let sent = client
            .request(&request)
            .header("origin", "https://app.example.com");
        let response = sent.send().await.unwrap();
        let headers = response.headers();
        assert_eq!(response.status(), 403);
        assert_eq!(headers["dpop-nonce"], "of-the-service");
        assert_eq!(
            headers["www-authenticate"],
            "DPoP error=\"insufficient_scope\""
        );
        assert_eq!(
            headers["access-control-allow-origin"],
            "https://app.example.com"
        );
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
        assert!(headers.get_all("vary").iter().any(|vary| vary == "accept"));
        assert!(!headers.contains_key("x-named"));
        assert!(!headers.contains_key("proxy-authenticate"));
        assert_eq!(response.text().await.unwrap(), "no");
    }
}
