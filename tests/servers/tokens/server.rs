//! The HTTP server of an issuer, on loopback. A test sets its responses and counts its requests.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tower_dpop::tokens::HttpClient;

pub const KEYS: &str = "/jwks";
pub const OAUTH: &str = "/.well-known/oauth-authorization-server";
pub const OPENID: &str = "/.well-known/openid-configuration";

/// The response to every request for one path.
#[derive(Clone, Default)]
pub struct Reply {
    response: Response<Bytes>,
}

impl Reply {
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self {
            response: Response::new(body.into()),
        }
    }

    pub fn status(status: u16) -> Self {
        Self::default().with_status(status)
    }

    pub fn redirect(status: u16, to: &str) -> Self {
        Self::status(status).with_header("location", to)
    }

    pub fn metadata(issuer: &str, jwks_uri: &str) -> Self {
        Self::text(json!({ "issuer": issuer, "jwks_uri": jwks_uri }).to_string())
    }

    pub fn with_status(mut self, status: u16) -> Self {
        *self.response.status_mut() = StatusCode::from_u16(status).unwrap();
        self
    }

    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        let value: HeaderValue = value.parse().unwrap();
        self.response.headers_mut().append(name, value);
        self
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Responds,
    /// Closes connections without a response.
    HangsUp,
    /// Keeps requests waiting.
    Holds,
}

#[derive(Clone)]
pub struct Server {
    address: SocketAddr,
    scheme: &'static str,
    replies: Arc<Mutex<HashMap<String, Reply>>>,
    requests: watch::Sender<Vec<String>>,
    /// The `Authorization` of each of them.
    authorizations: Arc<Mutex<Vec<Option<HeaderValue>>>>,
    mode: watch::Sender<Mode>,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    pub async fn start_tls(acceptor: TlsAcceptor) -> Self {
        Self::start_with(Some(acceptor)).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            scheme: if tls.is_some() { "https" } else { "http" },
            replies: Arc::default(),
            requests: watch::Sender::default(),
            authorizations: Arc::default(),
            mode: watch::Sender::new(Mode::Responds),
        };
        let serving = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (server, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => server.serve(stream).await,
                        // The handshake fails if a test's client does not trust the certificate.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                server.serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(|request: Request<Incoming>| {
            let server = self.clone();
            let authorization = request.headers().get(AUTHORIZATION).cloned();
            server.authorizations.lock().unwrap().push(authorization);
            async move { server.reply(request.uri().path().to_owned()).await }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // Fails if the server or the client hangs up.
        let _ = connection.await;
    }

    async fn reply(self, path: String) -> Result<Response<Full<Bytes>>, io::Error> {
        self.requests
            .send_modify(|requests| requests.push(path.clone()));
        let mut mode = self.mode.subscribe();
        let mode = *mode.wait_for(|mode| *mode != Mode::Holds).await.unwrap();
        if mode == Mode::HangsUp {
            return Err(io::Error::other("hung up"));
        }
        let reply = self.replies.lock().unwrap().get(&path).cloned();
        Ok(reply
            .unwrap_or_else(|| Reply::status(404))
            .response
            .map(Full::new))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Without a path: `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The URL of a path.
    pub fn url_of(&self, path: &str) -> String {
        self.url() + path
    }

    pub fn set(&self, path: &str, reply: Reply) {
        self.replies.lock().unwrap().insert(path.to_owned(), reply);
    }

    /// Responds again, also to requests that wait.
    pub fn resume(&self) {
        self.mode.send_replace(Mode::Responds);
    }

    /// From now on, requests wait until [`resume`](Self::resume).
    pub fn hold(&self) {
        self.mode.send_replace(Mode::Holds);
    }

    /// From now on, connections are closed without a response.
    pub fn hang_up(&self) {
        self.mode.send_replace(Mode::HangsUp);
    }

    /// The requested paths, in order.
    pub fn requests(&self) -> Vec<String> {
        self.requests.borrow().clone()
    }

    pub fn requests_to(&self, path: &str) -> usize {
        let requests = self.requests.borrow();
        requests
            .iter()
            .filter(|requested| *requested == path)
            .count()
    }

    /// The path and the `Authorization` of each request, in order.
    pub fn authorizations(&self) -> Vec<(String, Option<HeaderValue>)> {
        let authorizations = self.authorizations.lock().unwrap().clone();
        self.requests().into_iter().zip(authorizations).collect()
    }

    pub fn clear_requests(&self) {
        self.authorizations.lock().unwrap().clear();
        self.requests.send_replace(Vec::new());
    }

    /// Waits until a path has been requested this often.
    #[track_caller]
    pub fn wait_for_requests(&self, path: &str, times: usize) -> impl Future<Output = ()> + use<> {
        let (mut requests, path) = (self.requests.subscribe(), path.to_owned());
        in_time(async move {
            let is_received = |requests: &Vec<String>| {
                requests
                    .iter()
                    .filter(|requested| **requested == path)
                    .count()
                    >= times
            };
            requests.wait_for(is_received).await.unwrap();
        })
    }
}

/// One client for all tests, because reading the system's root certificates is slow.
pub fn http() -> HttpClient {
    static HTTP: LazyLock<HttpClient> = LazyLock::new(|| HttpClient::new().unwrap());
    HTTP.clone()
}

/// Waits for a future, and panics if it takes too long.
#[track_caller]
pub fn in_time<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        tokio::time::timeout(Duration::from_secs(30), future)
            .await
            .unwrap_or_else(|_| panic!("{caller}: timed out"))
    }
}

/// Waits until the condition is true.
#[track_caller]
pub fn wait_until(mut condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    in_time(async move {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}
