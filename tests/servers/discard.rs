//! Rejected uploads over HTTP/1.1: the client sees the response, and the connection takes another request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use common::{Attempt, AttemptExt as _, block_on, token_endpoint, verifier};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer, Service, service_fn};
use tower_dpop::resource::Scopes;
use tower_dpop::token_endpoint::TokenEndpointLayer;
use tower_dpop::{DpopLayer, RequireScopesLayer};

type FullBody = Full<Bytes>;

/// Responds with the length of the body.
async fn upload(request: Request<Incoming>) -> Result<Response<FullBody>, Infallible> {
    let length = request
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes()
        .len();
    Ok(Response::new(length.to_string().into()))
}

async fn serve<S>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<FullBody>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                // Clients may close the connection at any time.
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

/// One connection, byte by byte.
struct Client(TcpStream);

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next response: its head, and its body, whose length it must state.
    async fn response(&mut self) -> (String, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let (_, length) = head.split_once("content-length: ").unwrap();
        let (length, _) = length.split_once('\r').unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body).await.unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    /// Whether the server ends the connection now.
    async fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]).await, Ok(0) | Err(_))
    }
}

fn post(change: impl FnOnce(&mut Attempt)) -> Attempt {
    Attempt::but(|a| {
        a.method = http::Method::POST;
        a.proof_claims["htm"] = json!("POST");
        change(a);
    })
}

/// The head of a request, without the empty line at its end.
fn head(attempt: &Attempt, framing: &str) -> String {
    let request = attempt.request();
    let mut head = format!(
        "POST {} HTTP/1.1\r\nhost: orders.internal\r\n",
        request.uri()
    );
    for (name, value) in request.headers() {
        head = head + name.as_str() + ": " + value.to_str().unwrap() + "\r\n";
    }
    head + framing + "\r\n\r\n"
}

fn without_proof() -> Attempt {
    post(|a| a.dpop = Some(Vec::new()))
}

/// Sends a request that is rejected, with a body in segments of its own, and then a good one on the same connection.
async fn assert_survives(name: &str, address: SocketAddr, rejected: &Attempt, length: usize) {
    let mut client = Client::connect(address).await;
    client
        .send(head(rejected, &format!("content-length: {length}")))
        .await;
    let body = vec![b'x'; length];
    for part in body.chunks(64 * 1024) {
        client.send(part).await;
    }
    let (response, _) = client.response().await;
    assert!(response.starts_with("http/1.1 4"), "{name}: {response}");
    assert!(
        !response.contains("connection: close"),
        "{name}: {response}"
    );
    client.send(head(&post(|_| {}), "content-length: 5")).await;
    client.send("hello").await;
    let (response, body) = client.response().await;
    assert!(response.starts_with("http/1.1 200"), "{name}: {response}");
    assert_eq!(body, "5", "{name}");
}

#[test]
fn a_connection_survives_a_rejected_upload() {
    block_on(async {
        let address = serve(DpopLayer::new(verifier()).layer(service_fn(upload))).await;
        for (name, length) in [
            ("1 byte", 1),
            ("1 KB", 1000),
            ("3 MB", 3_000_000),
            ("the limit", 16 * 1024 * 1024),
        ] {
            assert_survives(name, address, &without_proof(), length).await;
        }
    });
}

#[test]
fn a_connection_survives_a_rejected_upload_in_chunks() {
    block_on(async {
        let address = serve(DpopLayer::new(verifier()).layer(service_fn(upload))).await;
        let mut client = Client::connect(address).await;
        client
            .send(head(&without_proof(), "transfer-encoding: chunked"))
            .await;
        for _ in 0..1000 {
            client
                .send(format!("3e8\r\n{}\r\n", "x".repeat(1000)))
                .await;
        }
        client.send("0\r\n\r\n").await;
        let (response, _) = client.response().await;
        assert!(response.starts_with("http/1.1 401"), "{response}");
        client.send(head(&post(|_| {}), "content-length: 0")).await;
        assert!(client.response().await.0.starts_with("http/1.1 200"));
    });
}

/// 403 instead of 401, and by a layer inside.
#[test]
fn a_connection_survives_an_upload_that_an_inner_layer_rejects() {
    block_on(async {
        let scopes: Scopes = "admin".parse().unwrap();
        let layers = (
            DpopLayer::new(verifier()),
            RequireScopesLayer::all_of(scopes),
        );
        let address = serve(layers.layer(service_fn(upload))).await;
        let mut client = Client::connect(address).await;
        for _ in 0..2 {
            client
                .send(head(&post(|_| {}), "content-length: 1000000"))
                .await;
            client.send(vec![b'x'; 1_000_000]).await;
            let (response, _) = client.response().await;
            assert!(response.starts_with("http/1.1 403"), "{response}");
        }
    });
}

#[test]
fn a_connection_survives_a_rejected_token_request() {
    block_on(async {
        let layer = TokenEndpointLayer::new(token_endpoint::endpoint());
        let service = layer.layer(service_fn(async |_: Request<Incoming>| {
            Ok::<_, Infallible>(Response::new(String::new()))
        }));
        let service = tower::ServiceExt::map_response(service, |response: Response<String>| {
            response.map(FullBody::from)
        });
        let mut client = Client::connect(serve(service).await).await;
        for _ in 0..2 {
            client
                .send("POST /token HTTP/1.1\r\nhost: as.internal\r\ncontent-length: 1000\r\n\r\n")
                .await;
            client.send(vec![b'x'; 1000]).await;
            let (response, _) = client.response().await;
            assert!(response.starts_with("http/1.1 400"), "{response}");
        }
    });
}

#[test]
fn past_the_limits_the_response_comes_first_and_the_connection_ends() {
    let limits = |bytes, time| DpopLayer::new(verifier()).with_discard_limits(bytes, time);
    let (short, long) = (Duration::from_millis(20), Duration::from_secs(60));
    #[rustfmt::skip]
    let rows = [
        ("a longer body is announced", limits(1000, long), "content-length: 1001", String::new()),
        ("a longer body in chunks", limits(1000, long), "transfer-encoding: chunked", format!("3e9\r\n{}\r\n", "x".repeat(1001))),
        ("a client that stops sending", limits(1000, short), "content-length: 1000", "x".repeat(999)),
        ("a client that sends nothing", limits(1000, short), "content-length: 1000", String::new()),
        ("a malformed chunk", limits(1000, long), "transfer-encoding: chunked", "no number\r\n".into()),
        ("a client that waits for 100 Continue", limits(1000, long), "content-length: 1000\r\nexpect: 100-continue", String::new()),
    ];
    block_on(async {
        for (name, layer, framing, body) in rows {
            let mut client = Client::connect(serve(layer.layer(service_fn(upload))).await).await;
            client.send(head(&without_proof(), framing)).await;
            client.send(body).await;
            let (response, _) = client.response().await;
            assert!(response.starts_with("http/1.1 401"), "{name}: {response}");
            assert!(response.contains("connection: close"), "{name}: {response}");
            assert!(client.is_closed().await, "{name}");
        }
    });
}
