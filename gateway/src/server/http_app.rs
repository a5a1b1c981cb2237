//! axum's routers at pingora's listeners: forward authentication and operations. So all listeners have the same TLS, and the
//! same hand-over to a new process.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tower::ServiceExt as _;

const MAX_HEADER_LIST: u32 = 64 * 1024;

pub(crate) struct HttpApp(Router);

impl HttpApp {
    /// Requests have the address of their peer in a [`ConnectInfo`].
    pub(crate) const fn new(router: Router) -> Self {
        Self(router)
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
        let router = self.0.clone();
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let mut request: Request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            router.clone().oneshot(request)
        });
        let mut server = auto::Builder::new(TokioExecutor::new());
        // The same over HTTP/2 as over HTTP/1.1: access tokens have up to 32 KiB.
        server.http2().max_header_list_size(MAX_HEADER_LIST);
        let connection = server.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut shutdown = shutdown.clone();
        tokio::select! {
            _ = connection.as_mut() => return None,
            _ = shutdown.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
        }
        // An error on one connection does not concern the others.
        let _ = connection.await;
        None
    }
}

fn peer(stream: &Stream) -> Option<SocketAddr> {
    let digest = stream.get_socket_digest()?;
    digest.peer_addr()?.as_inet().copied()
}
