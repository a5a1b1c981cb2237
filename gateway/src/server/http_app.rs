//! Serves axum's routers (forward authentication and operations) at the same kind of listener as the proxy, so that TLS and
//! upgrades work in the same way at all listeners.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::Request;
use http::Version;
use http::header::{CONNECTION, HeaderValue};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

const MAX_HEADER_LIST: u32 = 64 * 1024;

/// How long a connection may wait for a request, or for the rest of its header. Longer than proxies keep idle connections
/// (nginx: 60 seconds), so that the proxy closes them, and does not send a request on a closed one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How often a peer of HTTP/2 is asked whether it is still there. It has twenty seconds to respond.
const PING_INTERVAL: Duration = Duration::from_secs(60);

pub(crate) struct HttpApp {
    router: Router,
    close: CancellationToken,
    /// For the first request. hyper has no limit until it knows which version of HTTP this is, and none over HTTP/2.
    first: Duration,
}

impl HttpApp {
    /// Requests have the address of their peer in a [`ConnectInfo`].
    pub(crate) fn new(router: Router) -> Self {
        Self {
            router,
            close: CancellationToken::new(),
            first: HEAD_TIMEOUT,
        }
    }
}

#[async_trait]
impl ServerApp for HttpApp {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let peer = peer(&stream)?;
        let router = self.router.clone();
        let stop = shutdown.clone();
        let begun = CancellationToken::new();
        let begins = begun.clone();
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            begins.cancel();
            let is_http1 = request.version() < Version::HTTP_2;
            let mut request: Request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            let response = router.clone().oneshot(request);
            let stop = stop.clone();
            async move {
                let mut response = response.await?;
                // The client sends no other request on a connection that is about to be closed.
                if is_http1 && *stop.borrow() {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut server = auto::Builder::new(TokioExecutor::new());
        server
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT);
        // The same over HTTP/2 as over HTTP/1.1: access tokens have up to 32 KiB.
        server
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(PING_INTERVAL))
            .max_header_list_size(MAX_HEADER_LIST);
        let connection = server.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return None,
            Err(_) = timeout(self.first, begun.cancelled()) => return None,
            () = self.close.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        // An error on one connection does not concern the others.
        let _ = connection.await;
        None
    }

    /// Closes connections without a request.
    async fn cleanup(&self) {
        self.close.cancel();
    }
}

fn peer(stream: &Stream) -> Option<SocketAddr> {
    let digest = stream.get_socket_digest()?;
    digest.peer_addr()?.as_inet().copied()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;

    use super::*;
    use crate::server::stream::TcpConnection;

    #[tokio::test]
    async fn a_connection_without_a_request_ends() {
        let app = Arc::new(HttpApp {
            first: Duration::from_millis(100),
            ..HttpApp::new(Router::new())
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (_running, shutdown) = watch::channel(false);
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        for start in ["P", "GET / HTTP/1.1\r\n", preface] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap())
                .await
                .unwrap();
            client.write_all(start.as_bytes()).await.unwrap();
            let (stream, peer) = listener.accept().await.unwrap();
            let stream = Box::new(TcpConnection::new(stream, peer));
            let served = timeout(Duration::from_secs(30), app.process_new(stream, &shutdown));
            assert!(served.await.is_ok(), "{start:?}");
            let mut sent = Vec::new();
            let _ = client.read_to_end(&mut sent).await;
        }
    }
}
