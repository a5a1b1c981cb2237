//! Problem details over HTTP: axum and plain hyper, HTTP/1.1 and HTTP/2, `GET` and `HEAD`.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use common::{Attempt, AttemptExt as _, block_on, verifier};
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer as _, ServiceBuilder, service_fn};
use tower_dpop::DpopLayer;
use tower_dpop::resource::ProblemDetailsLayer;

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn orders() -> Router {
    Router::new()
        .route("/orders", get(async || "orders"))
        .layer(DpopLayer::new(verifier()))
}

async fn serve_axum() -> SocketAddr {
    let (listener, address) = listen().await;
    let app = orders().layer(ProblemDetailsLayer::new());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// Around the finished router, which has already written the length of the empty body.
async fn serve_around_axum() -> SocketAddr {
    let (listener, address) = listen().await;
    let app = ProblemDetailsLayer::new().layer(orders());
    let app = Router::new().fallback_service(app);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

async fn serve_hyper() -> SocketAddr {
    let service = ServiceBuilder::new()
        .layer(ProblemDetailsLayer::new())
        .layer(DpopLayer::new(verifier()))
        .service(service_fn(async |_: Request<Incoming>| {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("orders"))))
        }));
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                // Clients may close the connection at any time.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// Sends the requests over one connection, so that a wrong length would spoil the next response.
async fn send(
    address: SocketAddr,
    version: Version,
    requests: [Request<Empty<Bytes>>; 3],
) -> Vec<Response<String>> {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let mut responses = Vec::new();
    if version == Version::HTTP_2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        for request in requests {
            responses.push(received(sender.send_request(request).await.unwrap()).await);
        }
    } else {
        let (mut sender, connection) = http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for request in requests {
            sender.ready().await.unwrap();
            responses.push(received(sender.send_request(request).await.unwrap()).await);
        }
    }
    responses
}

async fn received(response: Response<Incoming>) -> Response<String> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Response::from_parts(head, String::from_utf8(body.to_vec()).unwrap())
}

/// A request with an expired token.
fn request(version: Version, method: &Method) -> Request<Empty<Bytes>> {
    let attempt = Attempt::but(|a| {
        a.method = method.clone();
        a.proof_claims["htm"] = json!(method.as_str());
        a.token_claims["exp"] = json!(0);
    });
    let mut request = attempt.request().map(|_| Empty::new());
    if version == Version::HTTP_2 {
        *request.uri_mut() = "http://api.example.com/orders".parse().unwrap();
        *request.version_mut() = version;
    } else {
        let host = "api.example.com".parse().unwrap();
        request.headers_mut().insert("host", host);
    }
    request
}

#[test]
fn servers_send_the_document_and_its_length() {
    block_on(async {
        let servers = [
            ("axum", serve_axum().await),
            ("around axum", serve_around_axum().await),
            ("hyper", serve_hyper().await),
        ];
        for (name, address) in servers {
            for version in [Version::HTTP_11, Version::HTTP_2] {
                let name = format!("{name}, {version:?}");
                let requests = [Method::GET, Method::HEAD, Method::GET]
                    .map(|method| request(version, &method));
                let responses = send(address, version, requests).await;
                let [first, head, last] = responses.as_slice() else {
                    panic!("{name}: {responses:?}");
                };
                for response in &responses {
                    let headers = response.headers();
                    assert_eq!(response.status(), 401, "{name}");
                    assert_eq!(
                        headers["content-type"], "application/problem+json",
                        "{name}"
                    );
                    let lengths: Vec<_> = headers.get_all("content-length").iter().collect();
                    let length = last.body().len().to_string();
                    assert_eq!(lengths, [length.as_str()], "{name}");
                    assert!(headers.contains_key("www-authenticate"), "{name}");
                }
                let document: Value = serde_json::from_str(first.body()).unwrap();
                assert_eq!(document["title"], "Invalid access token", "{name}");
                assert_eq!(
                    (head.body().as_str(), last.body()),
                    ("", first.body()),
                    "{name}"
                );
            }
        }
    });
}
