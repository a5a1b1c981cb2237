//! Accepts connections, and knows which of them are still open when the process is told to stop.
//!
//! pingora's `Service` accepts connections, too, but its tasks cannot be counted: the process would always have to wait for the
//! whole drain time.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::ServerApp;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::server::stream::TcpConnection;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// The default of `client_timeout_seconds`.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long connections without a request stay open when the process stops. A client that has just sent a request on one of them
/// gets its response, with `Connection: close`. If they were closed at once, this request would fail (RFC 9112 section 9.5).
const IDLE_AT_THE_END: Duration = Duration::from_secs(2);
/// After an error of the process, such as too many open files: meanwhile, other connections may end.
const PAUSE: Duration = Duration::from_secs(1);

/// All connections of the process. The process ends in three steps: it accepts no more connections (`stop`), closes those
/// without a request (`close`), and waits for the last request.
pub(crate) struct Connections {
    stop: watch::Sender<bool>,
    close: CancellationToken,
    running: TaskTracker,
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self {
            stop: watch::Sender::new(false),
            close: CancellationToken::new(),
            running: TaskTracker::new(),
        }
    }

    /// Counts requests, too: those of HTTP/2 are tasks of their own, and may end after their connection.
    pub(crate) fn running(&self) -> &TaskTracker {
        &self.running
    }

    /// Gives the connections of this listener to the application.
    pub(crate) fn serve<A>(&self, listener: Arc<TcpListener>, tls: Option<Acceptor>, app: A)
    where
        A: ServerApp + Send + Sync + 'static,
    {
        let endpoint = Endpoint {
            app: Arc::new(app),
            tls,
            stop: self.stop.subscribe(),
            close: self.close.clone(),
            running: self.running.clone(),
        };
        tokio::spawn(Arc::new(endpoint).accept(listener));
    }

    /// Stops accepting connections.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until all requests have ended, or for this time. Returns how many connections and requests are left.
    pub(crate) async fn drain(&self, limit: Duration) -> usize {
        self.stop();
        self.running.close();
        let ended = async {
            if timeout(IDLE_AT_THE_END, self.running.wait()).await.is_err() {
                self.close.cancel();
                self.running.wait().await;
            }
        };
        let _ = timeout(limit, ended).await;
        self.running.len()
    }
}

/// What the connections of one listener have in common.
struct Endpoint<A> {
    app: Arc<A>,
    tls: Option<Acceptor>,
    stop: ShutdownWatch,
    close: CancellationToken,
    running: TaskTracker,
}

impl<A: ServerApp + Send + Sync + 'static> Endpoint<A> {
    async fn accept(self: Arc<Self>, listener: Arc<TcpListener>) {
        let mut stop = self.stop.clone();
        let stopped = async move { _ = stop.wait_for(|stop| *stop).await };
        tokio::select! {
            () = stopped => {}
            () = self.accept_all(&listener) => {}
        }
        drop(listener);
        self.close.cancelled().await;
        self.app.cleanup().await;
    }

    async fn accept_all(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    self.running.spawn(Arc::clone(self).serve(stream, peer));
                }
                Err(error) if is_of_the_client(error.kind()) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections: is the limit of open files reached?");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let begun = tokio::select! {
            begun = self.begin(stream, peer) => begun,
            () = self.close.cancelled() => None,
        };
        let mut next = begun;
        while let Some(stream) = next {
            next = self.app.process_new(stream, &self.stop).await;
        }
    }

    /// With TLS, makes the handshake. Without it, waits for the first byte, so that a connection on which nothing was sent yet
    /// can be closed.
    async fn begin(&self, stream: TcpStream, peer: SocketAddr) -> Option<Stream> {
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            let readable = timeout(FIRST_BYTE_TIMEOUT, stream.readable());
            readable.await.ok()?.ok()?;
            return Some(Box::new(TcpConnection::new(stream, peer)));
        };
        let stream = TcpConnection::new(stream, peer);
        match timeout(HANDSHAKE_TIMEOUT, tls.tls_handshake(stream)).await {
            Ok(Ok(stream)) => Some(Box::new(stream)),
            Ok(Err(error)) => {
                // Port scanners make many of these.
                tracing::debug!(%peer, %error, "TLS handshake failed");
                None
            }
            Err(_) => {
                tracing::debug!(%peer, "TLS handshake timed out");
                None
            }
        }
    }
}

fn is_of_the_client(error: ErrorKind) -> bool {
    matches!(
        error,
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
    )
}
