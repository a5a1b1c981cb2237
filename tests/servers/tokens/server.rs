//! An issuer's HTTP server on the loopback, whose answers a test sets and whose requests it counts.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
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

pub const KEYS: &str = "/jwks";
pub const OAUTH: &str = "/.well-known/oauth-authorization-server";
pub const OPENID: &str = "/.well-known/openid-configuration";

/// What is answered at one path.
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
        let mut reply = Self::default();
        *reply.response.status_mut() = StatusCode::from_u16(status).unwrap();
        reply
    }

    pub fn redirect(status: u16, to: &str) -> Self {
        Self::status(status).with_header("location", to)
    }

    pub fn metadata(issuer: &str, jwks_uri: &str) -> Self {
        Self::text(json!({ "issuer": issuer, "jwks_uri": jwks_uri }).to_string())
    }

    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        let value: HeaderValue = value.parse().unwrap();
        self.response.headers_mut().append(name, value);
        self
    }
}

/// How the server is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Answers,
    /// Connections are closed without an answer.
    HangsUp,
    /// Requests wait.
    Holds,
}

#[derive(Clone)]
pub struct Server {
    address: SocketAddr,
    scheme: &'static str,
    replies: Arc<Mutex<HashMap<String, Reply>>>,
    requests: watch::Sender<Vec<String>>,
    mood: watch::Sender<Mood>,
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
            mood: watch::Sender::new(Mood::Answers),
        };
        let serving = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (server, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => server.serve(stream).await,
                        // A client that does not trust us is what a test may want.
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
            async move { server.reply(request.uri().path().to_owned()).await }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // Fails when the server hangs up, and when the client does.
        let _ = connection.await;
    }

    async fn reply(self, path: String) -> Result<Response<Full<Bytes>>, io::Error> {
        self.requests
            .send_modify(|requests| requests.push(path.clone()));
        let mut mood = self.mood.subscribe();
        let mood = *mood.wait_for(|mood| *mood != Mood::Holds).await.unwrap();
        if mood == Mood::HangsUp {
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
    pub fn at(&self, path: &str) -> String {
        self.url() + path
    }

    pub fn set(&self, path: &str, reply: Reply) {
        self.replies.lock().unwrap().insert(path.to_owned(), reply);
    }

    pub fn outcome(&self) {
        self.mood.send_replace(Mood::Answers);
    }

    /// From now on requests are not answered, until the server is told to.
    pub fn hold(&self) {
        self.mood.send_replace(Mood::Holds);
    }

    /// From now on connections are closed without an answer.
    pub fn hang_up(&self) {
        self.mood.send_replace(Mood::HangsUp);
    }

    /// The paths that were asked for, in order.
    pub fn requests(&self) -> Vec<String> {
        self.requests.borrow().clone()
    }

    pub fn requests_to(&self, path: &str) -> usize {
        let requests = self.requests.borrow();
        requests.iter().filter(|asked| *asked == path).count()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.requests.send_replace(Vec::new());
    }

    /// Waits until a path was asked for this often.
    #[track_caller]
    pub fn asked(&self, path: &str, times: usize) -> impl Future<Output = ()> + use<> {
        let (mut requests, path) = (self.requests.subscribe(), path.to_owned());
        within_reason(async move {
            let often = |requests: &Vec<String>| {
                requests.iter().filter(|asked| **asked == path).count() >= times
            };
            requests.wait_for(often).await.unwrap();
        })
    }
}

/// Waits for what must happen. The limit is for what does not.
#[track_caller]
pub fn within_reason<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        tokio::time::timeout(Duration::from_secs(30), future)
            .await
            .unwrap_or_else(|_| panic!("{caller}: it did not happen"))
    }
}

/// Waits until something is so.
#[track_caller]
pub fn until(is_so: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let mut is_so = is_so;
    within_reason(async move {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}
