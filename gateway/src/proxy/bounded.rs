//! Time limits that pingora does not have.
//!
//! - It limits the time for each part of a header, but not for the whole header.
//! - It does not limit the time for the first bytes of a connection.
//! - Over HTTP/2, it limits the time from the header of the request to the header of the response, even while the body of the
//!   request makes progress.
//!
//! If such a limit is exceeded, the request is dropped without a response: a stream of HTTP/2 is reset, a connection of HTTP/1.1 is
//! closed.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Version;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::proxy::Proxy;

/// The connections to one listener.
pub(crate) struct BoundedConnections {
    /// Also for HTTP/2 over TLS, where the handshake chooses the version.
    http1: Arc<Bounded>,
    /// For HTTP/2 without TLS.
    http2: Arc<Bounded>,
}

/// The requests.
struct Bounded {
    proxy: Arc<HttpProxy<Proxy>>,
    options: HttpServerOptions,
    /// For a header, and for the time between two requests on a connection.
    header: Duration,
}

impl BoundedConnections {
    pub(super) fn new(proxy: HttpProxy<Proxy>, header: Duration) -> Self {
        let proxy = Arc::new(proxy);
        let requests = |without_tls: Version| {
            let mut options = HttpServerOptions::default();
            options.h2c = without_tls == Version::HTTP_2;
            options.h2_idle_timeout = Some(header);
            Arc::new(Bounded {
                proxy: Arc::clone(&proxy),
                options,
                header,
            })
        };
        Self {
            http1: requests(Version::HTTP_11),
            http2: requests(Version::HTTP_2),
        }
    }
}

#[async_trait]
impl ServerApp for BoundedConnections {
    async fn process_new(
        self: &Arc<Self>,
        mut stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        if stream.get_ssl_digest().is_some() {
            return self.http1.process_new(stream, shutdown).await;
        }
        let version = timeout(self.http1.header, version(&mut stream))
            .await
            .ok()??;
        let requests = match version {
            Version::HTTP_2 => &self.http2,
            _ => &self.http1,
        };
        requests.process_new(stream, shutdown).await
    }

    async fn cleanup(&self) {
        self.http1.http_cleanup().await;
    }
}

/// HTTP/2 with prior knowledge begins with a preface. `None`: the connection has ended.
async fn version(stream: &mut Stream) -> Option<Version> {
    let mut start = [0; PREFACE.len()];
    stream.try_peek(&mut start).await.ok()?;
    Some(if start == *PREFACE {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    })
}

/// [RFC 9113 section 3.4](https://www.rfc-editor.org/rfc/rfc9113#section-3.4)
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[async_trait]
impl HttpServerApp for Bounded {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let limit = Limit(Arc::new(watch::Sender::new(None)));
        limit.set(self.header, None);
        let passed = limit.clone();
        let request = self.proxy.process_new_http(session, shutdown);
        tokio::select! {
            reused = LIMIT.scope(limit, request) => reused,
            upstream = passed.has_passed() => {
                if let Some(upstream) = upstream {
                    tracing::error!(upstream = &*upstream, "the service did not respond in time: the request is dropped");
                }
                None
            }
        }
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    async fn http_cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

tokio::task_local! {
    static LIMIT: Limit;
}

/// When the request that the current task handles is dropped.
#[derive(Clone)]
pub(super) struct Limit(Arc<watch::Sender<Option<(Instant, Waiting)>>>);

/// The name of the service that is waited for, or `None` for the client.
type Waiting = Option<Arc<str>>;

impl Limit {
    /// The limit of the current task.
    ///
    /// # Panics
    ///
    /// Outside of a request of [`BoundedConnections`].
    pub(super) fn current() -> Self {
        LIMIT.get()
    }

    /// Starts the limit now.
    pub(super) fn set(&self, duration: Duration, waiting: Waiting) {
        self.0
            .send_replace(Some((Instant::now() + duration, waiting)));
    }

    pub(super) fn lift(&self) {
        self.0.send_replace(None);
    }

    async fn has_passed(&self) -> Waiting {
        let mut changes = self.0.subscribe();
        loop {
            let limit = changes.borrow_and_update().clone();
            let passes = async {
                match limit {
                    Some((limit, waiting)) => {
                        sleep_until(limit).await;
                        waiting
                    }
                    None => pending().await,
                }
            };
            tokio::select! {
                waiting = passes => return waiting,
                // The sender is `self`.
                _ = changes.changed() => {}
            }
        }
    }
}
