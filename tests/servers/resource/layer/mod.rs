//! `DpopLayer` in hyper servers on the loopback, with hyper clients and with plain TCP connections.

mod bodies;
mod cases;
mod connections;
mod grpc;
mod http1;
mod http2;
mod malformed;

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use common::{Attempt, AttemptExt as _, verifier};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::{ServiceBuilder, service_fn};
use tower_dpop::proof::{ProofError, UrlMismatch};
use tower_dpop::{BoundToken, Claims, DpopLayer, Rejection};

type ResponseBody = BoxBody<Bytes, hyper::Error>;

/// Responds with the subject of the token, and echoes the body: frame by frame, or as a whole after
/// `Expect: 100-continue`. Also upgrades connections.
async fn application(mut request: Request<Incoming>) -> Result<Response<ResponseBody>, Infallible> {
    let token: &BoundToken<Claims> = request.extensions().get().expect("set by the layer");
    let mut response = Response::builder()
        .header("x-subject", token.claims().subject().unwrap())
        .header("x-target", request.uri().to_string());
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        });
        response = response
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "echo");
        return Ok(response.body(ResponseBody::default()).unwrap());
    }
    if let Some(trailer) = request.headers().get("trailer") {
        response = response.header("trailer", trailer);
    }
    let body = if request.headers().contains_key("expect") {
        let all = request.into_body().collect().await.unwrap().to_bytes();
        Full::new(all).map_err(|never| match never {}).boxed()
    } else {
        request.into_body().boxed()
    };
    Ok(response.body(body).unwrap())
}

/// The address of a server for both versions of HTTP. Its outermost layer puts the reason of a rejection
/// into a header field for the tests.
async fn serve() -> SocketAddr {
    let service = ServiceBuilder::new()
        .map_response(|mut response: Response<ResponseBody>| {
            if let Some(rejection) = response.extensions().get::<Rejection>() {
                let reason = format!("{rejection:?}").parse().unwrap();
                response.headers_mut().insert("x-rejection", reason);
            }
            response
        })
        .layer(DpopLayer::new(verifier()))
        .service(service_fn(application));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http2().enable_connect_protocol();
                // Clients may close the connection at any time.
                let _ = server
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

async fn http1_client<B>(address: SocketAddr) -> conn::http1::SendRequest<B>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let stream = TokioIo::new(connect(address).await);
    let (sender, connection) = conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

async fn http2_client<B>(address: SocketAddr) -> conn::http2::SendRequest<B>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
{
    let stream = TokioIo::new(connect(address).await);
    let (sender, connection) = conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

/// A good attempt for this method and path.
fn attempt_at(method: &str, uri: &str, htu: &str) -> Attempt {
    Attempt::but(|a| {
        a.method = method.parse().unwrap();
        a.uri = uri.into();
        a.proof_claims["htm"] = json!(method);
        a.proof_claims["htu"] = json!(htu);
    })
}

type Expected = Result<(), Rejection>;

fn url_error(mismatch: UrlMismatch) -> Expected {
    Err(ProofError::Url(mismatch).into())
}

/// Asserts that the request reached the application, or was rejected by the layer for exactly this reason.
#[track_caller]
fn assert_response<B>(name: &str, response: &Response<B>, expected: Expected) {
    assert_head(name, response.status(), response.headers(), expected);
}

#[track_caller]
fn assert_head(name: &str, status: StatusCode, headers: &HeaderMap, expected: Expected) {
    let text = |field: &str| headers.get(field).map(|value| value.to_str().unwrap());
    match expected {
        Ok(()) => {
            assert_eq!(text("x-rejection"), None, "{name}");
            assert_eq!(status, StatusCode::OK, "{name}");
            assert_eq!(text("x-subject"), Some("alice"), "{name}");
        }
        Err(reason) => {
            let expected = format!("{reason:?}");
            assert_eq!(text("x-rejection"), Some(expected.as_str()), "{name}");
            assert_eq!(status, reason.status(), "{name}");
            assert_eq!(text("x-subject"), None, "{name}: reached the application");
            let challenges: Vec<_> = headers.get_all("www-authenticate").iter().collect();
            let [challenge] = challenges.as_slice() else {
                panic!("{name}: {challenges:?}");
            };
            let challenge = challenge.to_str().unwrap();
            assert!(challenge.starts_with("DPoP "), "{name}: {challenge}");
            if let Some(code) = reason.error_code() {
                let error = format!(r#"error="{code}""#);
                assert!(challenge.contains(&error), "{name}: {challenge}");
            }
        }
    }
}

const ORDERS: &str = "https://api.example.com/orders";

fn with_body(request: Request<String>) -> Request<Full<Bytes>> {
    let text = match *request.method() {
        Method::POST | Method::PUT | Method::PATCH => "a small body",
        _ => "",
    };
    request.map(|_| Full::new(Bytes::from(text)))
}
