//! The metadata document over HTTP: which requests get it, and which get a rejection of the inner layer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::{any, any_service};
use bytes::Bytes;
use common::{AUDIENCE, Attempt, AttemptExt as _, block_on, verifier, verifier_by};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;
use tower_dpop::resource::{MetadataLayer, ResourceMetadata};
use tower_dpop::{DpopLayer, Verifier};

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The default verifier under this public URL.
fn at_url(url: &str) -> Verifier {
    verifier_by(|rules| rules.with_public_url(url.parse().unwrap()))
}

/// An axum server on the loopback interface.
struct Server {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
}

struct ReceivedResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Server {
    /// The metadata layer outside, the DPoP layer inside, and a handler that counts its calls.
    async fn of(verifier: Verifier, metadata: &ResourceMetadata) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let handler = any(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            async { "orders" }
        });
        let router = Router::new()
            .route("/orders", handler)
            .layer(DpopLayer::new(verifier))
            .layer(MetadataLayer::new(metadata));
        Self {
            address: serve(router).await,
            calls,
        }
    }

    async fn send(&self, request: Request<Empty<Bytes>>) -> ReceivedResponse {
        send(self.address, request).await
    }

    async fn get(&self, path: &str) -> ReceivedResponse {
        self.send(Request::get(path).body(Empty::new()).unwrap())
            .await
    }
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

async fn send(address: SocketAddr, mut request: Request<Empty<Bytes>>) -> ReceivedResponse {
    let host = HeaderValue::from_str(&address.to_string()).unwrap();
    request.headers_mut().insert("host", host);
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    received(sender.send_request(request).await.unwrap()).await
}

async fn received(response: Response<hyper::body::Incoming>) -> ReceivedResponse {
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    ReceivedResponse {
        status: head.status,
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

impl ReceivedResponse {
    fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[track_caller]
    fn assert_is_document(&self, name: &str, metadata: &ResourceMetadata) {
        assert_eq!(self.status, StatusCode::OK, "{name}");
        assert_eq!(
            self.field("content-type"),
            Some("application/json"),
            "{name}"
        );
        assert_eq!(self.field("cache-control"), Some("max-age=3600"), "{name}");
        assert_eq!(self.body, metadata.to_json(), "{name}");
        let found: Value = serde_json::from_str(&self.body).unwrap();
        let document: Value = serde_json::from_str(&metadata.to_json()).unwrap();
        assert_eq!(found, document, "{name}");
    }

    /// Checks that the DPoP layer rejected the request.
    #[track_caller]
    fn assert_rejected(&self, name: &str) {
        assert_eq!(self.status, StatusCode::UNAUTHORIZED, "{name}");
        let challenge = self.field("www-authenticate").unwrap();
        assert!(challenge.starts_with("DPoP algs="), "{name}: {challenge}");
        assert_eq!(self.body, "", "{name}");
    }
}

/// P-5, P-10, P-11: clients that have no token yet must be able to read it.
#[test]
fn only_the_document_is_served_without_a_token() {
    let rows: [(&str, &str, &[&str]); 2] = [
        (
            AUDIENCE,
            "/.well-known/oauth-protected-resource",
            &[
                "/",
                "/orders",
                "/.well-known",
                "/.well-known/",
                "/.well-known/oauth-protected-resourc",
                "/.well-known/oauth-protected-resources",
                "/.well-known/oauth-protected-resource/",
                "/.well-known/oauth-protected-resource/orders",
                "/.well-known/oauth-protected-resource/../../orders",
                "/.well-known/oauth-protected-resource%2F",
                "/.well-known/oauth-protected-resource;x",
                "/.well-known/OAuth-protected-resource",
                "/.well-known/%6Fauth-protected-resource",
                "//.well-known/oauth-protected-resource",
                "/orders/.well-known/oauth-protected-resource",
                "/./.well-known/oauth-protected-resource",
                "/orders?/.well-known/oauth-protected-resource",
            ],
        ),
        (
            "https://example.com/orders-api",
            "/.well-known/oauth-protected-resource/orders-api",
            &[
                "/orders",
                "/orders-api",
                "/.well-known/oauth-protected-resource",
                "/.well-known/oauth-protected-resource/",
                "/.well-known/oauth-protected-resource/orders-api/",
                "/.well-known/oauth-protected-resource/orders-ap",
                "/.well-known/oauth-protected-resource/orders-api2",
                "/.well-known/oauth-protected-resource/orders-api/orders",
                "/orders-api/.well-known/oauth-protected-resource",
            ],
        ),
    ];
    block_on(async {
        for (public_url, path, others) in rows {
            let mut verifier = at_url(public_url);
            let metadata = ResourceMetadata::of(&mut verifier).with_name("Orders");
            let server = Server::of(verifier, &metadata).await;
            server.get(path).await.assert_is_document(path, &metadata);
            let with_query = format!("{path}?a=/b&c");
            server
                .get(&with_query)
                .await
                .assert_is_document("with a query", &metadata);
            let absolute = format!("http://{}{path}", server.address);
            server
                .get(&absolute)
                .await
                .assert_is_document("an absolute request target", &metadata);
            for other in others {
                server.get(other).await.assert_rejected(other);
            }
            assert_eq!(server.calls.load(Ordering::SeqCst), 0, "{public_url}");
        }
    });
}

/// P-5
#[test]
fn only_get_and_head_are_allowed() {
    block_on(async {
        let metadata = ResourceMetadata::of(&mut verifier());
        let server = Server::of(verifier(), &metadata).await;
        let get = server.get(WELL_KNOWN).await;
        get.assert_is_document("GET", &metadata);
        let length = metadata.to_json().len().to_string();
        assert_eq!(get.field("content-length"), Some(length.as_str()));
        for method in [
            "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "get",
        ] {
            let request = Request::builder().method(method).uri(WELL_KNOWN);
            let response = server.send(request.body(Empty::new()).unwrap()).await;
            assert_eq!(response.body, "", "{method}");
            assert_eq!(response.field("www-authenticate"), None, "{method}");
            if method == "HEAD" {
                assert_eq!(response.status, StatusCode::OK);
                for field in ["content-type", "cache-control"] {
                    assert_eq!(response.field(field), get.field(field), "{method}: {field}");
                }
                // RFC 9110 section 8.6: it must be absent, or the length of the document.
                assert_eq!(response.field("content-length"), None, "{method}");
            } else {
                assert_eq!(response.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
                assert_eq!(response.field("allow"), Some("GET, HEAD"), "{method}");
                assert_eq!(response.field("cache-control"), None, "{method}");
            }
        }
    });
}

/// P-11: the inner layer does not get the request, so a proof is not recorded as used.
#[test]
fn ignores_credentials_on_requests_for_the_document() {
    let with_credentials = Attempt::but(|a| {
        a.uri = WELL_KNOWN.into();
        a.proof_claims["htu"] = json!(format!("{AUDIENCE}{WELL_KNOWN}"));
    });
    block_on(async {
        let metadata = ResourceMetadata::of(&mut verifier());
        let server = Server::of(verifier(), &metadata).await;
        for name in ["a first request", "the same request again"] {
            let request = with_credentials.build_with(Empty::<Bytes>::new());
            server
                .send(request)
                .await
                .assert_is_document(name, &metadata);
        }
        for authorization in ["DPoP", "DPoP a\"b", "Bearer x", "Basic eDp5"] {
            let mut request = Request::get(WELL_KNOWN).body(Empty::new()).unwrap();
            let field = HeaderValue::from_static(authorization);
            request.headers_mut().insert("authorization", field);
            server
                .send(request)
                .await
                .assert_is_document(authorization, &metadata);
        }
        let orders = Attempt::good().build_with(Empty::<Bytes>::new());
        let accepted = server.send(orders).await;
        assert_eq!(
            (accepted.status, accepted.body.as_str()),
            (StatusCode::OK, "orders")
        );
        assert_eq!(server.calls.load(Ordering::SeqCst), 1);
    });
}

/// P-7: the client computes the URL from the identifier, and must compare `resource` with it.
#[test]
fn the_resource_is_the_identifier_that_the_client_used() {
    for identifier in [
        AUDIENCE,
        "https://example.com/orders-api",
        "https://example.com/a/b",
    ] {
        let rest = identifier.strip_prefix("https://").unwrap();
        let path = rest.find('/').map_or("", |at| &rest[at..]);
        let path = format!("{WELL_KNOWN}{path}");
        block_on(async {
            let metadata = ResourceMetadata::of(&mut at_url(identifier));
            let server = Server::of(at_url(identifier), &metadata).await;
            let found: Value = serde_json::from_str(&server.get(&path).await.body).unwrap();
            assert_eq!(found["resource"], json!(identifier));
        });
    }
}

/// Without the metadata layer: as the service of a route, over HTTP/1.1 and HTTP/2.
#[test]
fn an_axum_router_can_serve_the_document() {
    let metadata = ResourceMetadata::of(&mut verifier());
    let router = Router::new()
        .route("/orders", any(async || "orders"))
        .layer(DpopLayer::new(verifier()))
        .route_service(metadata.path(), metadata.service())
        .route("/copy", any_service(metadata.service()));
    block_on(async {
        let address = serve(router).await;
        let send_to = async |method: Method, path: &str| {
            let request = Request::builder().method(method).uri(path);
            send(address, request.body(Empty::new()).unwrap()).await
        };
        send_to(Method::GET, WELL_KNOWN)
            .await
            .assert_is_document("the well-known path", &metadata);
        send_to(Method::GET, "/copy")
            .await
            .assert_is_document("another path", &metadata);
        let head = send_to(Method::HEAD, WELL_KNOWN).await;
        assert_eq!((head.status, head.body.as_str()), (StatusCode::OK, ""));
        assert_eq!(head.field("content-length"), None);
        let post = send_to(Method::POST, WELL_KNOWN).await;
        assert_eq!(post.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(post.field("allow"), Some("GET, HEAD"));
        send_to(Method::GET, "/orders")
            .await
            .assert_rejected("a route inside the DPoP layer");

        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        let url = format!("http://api.example.com{WELL_KNOWN}");
        let request = Request::get(&url).body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        received(response)
            .await
            .assert_is_document("HTTP/2", &metadata);
        let request = Request::head(url).body(Empty::new()).unwrap();
        let head = received(sender.send_request(request).await.unwrap()).await;
        assert_eq!(
            (head.status, head.field("content-length")),
            (StatusCode::OK, None)
        );
    });
    let alone = block_on(metadata.service().oneshot(Request::new(()))).unwrap();
    assert_eq!(*alone.body(), metadata.to_json());
}
