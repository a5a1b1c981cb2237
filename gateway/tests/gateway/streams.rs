//! Messages that do not end: gRPC, server-sent events, and halves that wait for each other.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::StreamExt as _;
use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{
    Client, Gateway, Parties, Seen, Started, Upstream, Wire, forwarding_to, head,
};

type Parts = Result<Bytes, std::io::Error>;

/// A body, and what sends it.
fn body() -> (mpsc::Sender<Parts>, ReceiverStream<Parts>) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, ReceiverStream::new(receiver))
}

#[tokio::test]
async fn an_upgrade_that_was_not_asked_for_is_a_broken_response() {
    let parties = Parties::new();
    let upstream = Upstream::script(async |mut stream, _| {
        read_head(&mut stream).await;
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(switch.as_bytes()).await.unwrap();
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    for fields in ["", "connection: upgrade\r\nupgrade: other\r\n"] {
        let request = parties.request(Method::GET, "/orders");
        let mut wire = Wire::connect(&gateway).await;
        wire.send(head(&request, "/orders", fields) + "\r\n").await;
        assert_eq!(wire.response().await.status(), 502, "{fields}");
    }
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn grpc_has_its_trailers_and_streams() {
    let parties = Parties::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("orders", tonic_health::ServingStatus::Serving)
        .await;
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming),
    );
    let config = format!("servers = [\"http://{address}\"]\nprotocol = \"http2\"");
    let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
    let channel = Endpoint::from_shared(gateway.url("proxy").to_owned()).unwrap();
    let client = HealthClient::new(channel.connect().await.unwrap());
    let call = |service: &str, method: &str| {
        let message = HealthCheckRequest {
            service: service.to_owned(),
        };
        let mut call = tonic::Request::new(message);
        let path = format!("/grpc.health.v1.Health/{method}");
        let request = parties.request(Method::POST, &path).build::<()>();
        for name in ["authorization", "dpop"] {
            let value = request.headers()[name].to_str().unwrap().parse().unwrap();
            call.metadata_mut().insert(name, value);
        }
        call
    };
    let checked = client.clone().check(call("orders", "Check")).await.unwrap();
    assert_eq!(checked.get_ref().status, 1);
    // These trailers come without a body, and with their own message.
    let unknown = client
        .clone()
        .check(call("unknown", "Check"))
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    let without_proof = HealthCheckRequest::default();
    let rejected = client.clone().check(without_proof).await.unwrap_err();
    assert_eq!(
        rejected.code(),
        tonic::Code::Unauthenticated,
        "{rejected:?}"
    );

    let watched = client.clone().watch(call("orders", "Watch")).await.unwrap();
    let mut watched = watched.into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status, 1);
    let not_serving = tonic_health::ServingStatus::NotServing;
    reporter.set_service_status("orders", not_serving).await;
    assert_eq!(watched.message().await.unwrap().unwrap().status, 2);
}

#[tokio::test]
async fn an_event_arrives_before_the_next_one_is_sent() {
    let parties = Parties::new();
    let (sender, events) = body();
    let events = Arc::new(tokio::sync::Mutex::new(Some(events)));
    let app = Router::new().fallback(async move || {
        let events = events.lock().await.take().unwrap();
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(Body::from_stream(events))
            .unwrap()
    });
    let upstream = Upstream::serve(app).await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    let request = parties.request(Method::GET, "/events");
    let client = Client::http1(&gateway);
    let mut response = client.request(&request).send().await.unwrap();
    for number in 0..3 {
        let event = format!("data: {number}\n\n");
        sender.send(Ok(Bytes::from(event.clone()))).await.unwrap();
        assert_eq!(response.chunk().await.unwrap().unwrap(), event);
    }
    drop(sender);
    assert!(response.chunk().await.unwrap().is_none());
}

#[tokio::test]
async fn the_halves_of_a_request_do_not_wait_for_each_other() {
    let parties = Parties::new();
    let app = Router::new().fallback(async |request: axum::extract::Request| {
        // The response begins before the body ends, and ends with it.
        Response::new(Body::new(request.into_body()))
    });
    let upstream = Upstream::serve(app).await;
    for protocol in ["http1", "http2"] {
        let config = format!(
            "servers = [\"{}\"]\nprotocol = \"{protocol}\"",
            upstream.url()
        );
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        for client in [Client::http1(&gateway), Client::http2(&gateway)] {
            let (sender, parts) = body();
            let request = parties.request(Method::POST, "/orders");
            let sent = client
                .request(&request)
                .body(reqwest::Body::wrap_stream(parts));
            sender.send(Ok(Bytes::from_static(b"0"))).await.unwrap();
            let mut response = sent.send().await.unwrap();
            assert_eq!(response.chunk().await.unwrap().unwrap(), "0", "{protocol}");
            for number in 1..5 {
                let part = Bytes::from(number.to_string());
                sender.send(Ok(part.clone())).await.unwrap();
                assert_eq!(response.chunk().await.unwrap().unwrap(), part, "{protocol}");
            }
            drop(sender);
            assert!(response.bytes().await.unwrap().is_empty(), "{protocol}");
        }
    }
}

#[tokio::test]
async fn interim_responses_are_passed_on() {
    let parties = Parties::new();
    let upstream = Upstream::script(async |mut stream, _| {
        let head = read_head(&mut stream).await;
        assert!(head.to_ascii_lowercase().contains("expect: 100-continue"));
        let interim = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
        stream.write_all(interim.as_bytes()).await.unwrap();
        let mut body = [0; 4];
        stream.read_exact(&mut body).await.unwrap();
        let response = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n";
        stream.write_all(response.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    let request = parties.request(Method::POST, "/orders");
    let mut wire = Wire::connect(&gateway).await;
    wire.send(head(
        &request,
        "/orders",
        "expect: 100-continue\r\ncontent-length: 4\r\n\r\n",
    ))
    .await;
    let hints = wire.head().await;
    assert!(
        hints.starts_with("http/1.1 103") && hints.contains("link: </a>"),
        "{hints}"
    );
    assert!(wire.head().await.starts_with("http/1.1 100"));
    wire.send("body").await;
    assert_eq!(wire.response().await.body, b"body");
}

/// A service of HTTP/2 sends its `100 Continue` to no one, so the gateway does.
#[tokio::test]
async fn a_client_that_expects_to_continue_does_not_wait_for_http_2() {
    let parties = Parties::new();
    let seen = Seen::default();
    let upstream = Upstream::serve(seen.echo()).await;
    let config = format!("servers = [\"{}\"]\nprotocol = \"http2\"", upstream.url());
    let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
    let request = parties.request(Method::POST, "/orders");
    let mut wire = Wire::connect(&gateway).await;
    wire.send(head(
        &request,
        "/orders",
        "expect: 100-continue\r\ncontent-length: 4\r\n\r\n",
    ))
    .await;
    assert!(wire.head().await.starts_with("http/1.1 100"));
    wire.send("body").await;
    assert_eq!(wire.response().await.body, b"body");
}

/// Tells the test when the request is dropped.
struct Told(mpsc::Sender<()>);
impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

/// One part, and no end.
fn async_stream_of(request: Body, told: Told) -> Body {
    let first = futures_util::stream::once(async { Ok::<_, std::io::Error>("first") });
    let endless = futures_util::stream::poll_fn(move |_| {
        let _ = (&request, &told);
        std::task::Poll::Pending
    });
    Body::from_stream(first.chain(endless))
}

#[tokio::test]
async fn the_service_sees_that_a_client_goes_away() {
    let parties = Parties::new();
    let (gone, mut clients) = mpsc::channel(8);
    let app = Router::new().fallback(async move |request: axum::extract::Request| {
        let told = Told(gone.clone());
        let body = async_stream_of(request.into_body(), told);
        Response::new(body)
    });
    let upstream = Upstream::serve(app).await;
    for protocol in ["http1", "http2"] {
        let config = format!(
            "servers = [\"{}\"]\nprotocol = \"{protocol}\"",
            upstream.url()
        );
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        for client in [Client::http1(&gateway), Client::http2(&gateway)] {
            let request = parties.request(Method::GET, "/orders");
            let mut response = client.request(&request).send().await.unwrap();
            assert_eq!(response.chunk().await.unwrap().unwrap(), "first");
            drop((response, client));
            let told = tokio::time::timeout(Duration::from_secs(30), clients.recv()).await;
            assert!(told.is_ok(), "{protocol}: the service was not told");
        }
    }
}

#[tokio::test]
async fn a_service_may_respond_before_it_has_read_the_body() {
    let parties = Parties::new();
    let app = Router::new().fallback(async || (http::StatusCode::PAYLOAD_TOO_LARGE, "too large"));
    let upstream = Upstream::serve(app).await;
    for protocol in ["http1", "http2"] {
        let config = format!(
            "servers = [\"{}\"]\nprotocol = \"{protocol}\"",
            upstream.url()
        );
        let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
        for client in [Client::http1(&gateway), Client::http2(&gateway)] {
            let (sender, parts) = body();
            let request = parties.request(Method::POST, "/orders");
            let sent = client
                .request(&request)
                .body(reqwest::Body::wrap_stream(parts));
            sender.send(Ok(Bytes::from_static(b"part"))).await.unwrap();
            // The body has not ended.
            let response = sent.send().await.unwrap();
            assert_eq!(response.status(), 413, "{protocol}");
            assert_eq!(response.text().await.unwrap(), "too large", "{protocol}");
            drop(sender);
        }
    }
}

#[tokio::test]
async fn a_broken_response_does_not_look_complete() {
    let parties = Parties::new();
    let upstream = Upstream::script(async |mut stream, _| {
        let head = read_head(&mut stream).await;
        let framing = if head.contains("/chunked") {
            "transfer-encoding: chunked"
        } else {
            "content-length: 100"
        };
        let response = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n4\r\npart\r\n");
        stream.write_all(response.as_bytes()).await.unwrap();
    })
    .await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    for client in [Client::http1(&gateway), Client::http2(&gateway)] {
        for path in ["/chunked", "/length"] {
            let request = parties.request(Method::POST, path);
            let response = client.request(&request).send().await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
            assert!(response.bytes().await.is_err(), "{path}");
        }
    }
}

/// Also if the service says in advance how long the response is.
#[tokio::test]
async fn what_a_service_has_sent_does_not_wait_for_the_rest() {
    let parties = Parties::new();
    let (arrived, has_arrived) = tokio::sync::watch::channel(false);
    let upstream = Upstream::script(move |mut stream, _| {
        let mut has_arrived = has_arrived.clone();
        async move {
            read_head(&mut stream).await;
            let half = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n1";
            stream.write_all(half).await.unwrap();
            has_arrived.wait_for(|arrived| *arrived).await.unwrap();
            stream.write_all(b"2").await.unwrap();
        }
    })
    .await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    for client in [Client::http1(&gateway), Client::http2(&gateway)] {
        arrived.send_replace(false);
        let request = parties.request(Method::GET, "/halves");
        let mut response = client.request(&request).send().await.unwrap();
        assert_eq!(response.chunk().await.unwrap().unwrap(), "1");
        arrived.send_replace(true);
        assert_eq!(response.chunk().await.unwrap().unwrap(), "2");
    }
}

#[tokio::test]
async fn one_client_that_does_not_read_stops_no_other() {
    let parties = Parties::new();
    let app = Router::new().fallback(async || {
        let parts = std::iter::repeat_n(Bytes::from(vec![b'x'; 64 * 1024]), 320);
        Body::from_stream(futures_util::stream::iter(parts.map(Parts::Ok)))
    });
    let upstream = Upstream::serve(app).await;
    let config = format!("servers = [\"{}\"]\nprotocol = \"http2\"", upstream.url());
    let gateway: Started = Gateway::new(&parties, &forwarding_to(&config)).start();
    let client = Client::http2(&gateway);
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let request = parties.request(Method::GET, "/large");
        stalled.push(client.request(&request).send().await.unwrap());
    }
    let other = Client::http1(&gateway);
    let request = parties.request(Method::GET, "/large");
    let read = other.request(&request).send().await.unwrap().bytes().await;
    assert_eq!(read.unwrap().len(), 20 * 1024 * 1024);
    drop(stalled);
}
