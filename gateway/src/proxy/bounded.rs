//! Time limits that pingora does not have.
//!
//! - It gives a client time for each part of a header, and no limit for the whole.
//! - It waits without a limit for the first bytes of a connection, also for the preface of HTTP/2 after a TLS handshake.
//! - Over HTTP/2, it gives a service time from the request's header to the response's, and does not see that the body of the
//!   request makes progress meanwhile.
//! - Over HTTP/2, it waits without a limit for the body of a client, also if the service has responded.
//!
//! If such a limit is exceeded, the request is dropped without a response: a stream of HTTP/2 is reset, a connection of HTTP/1.1 is
//! closed.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::Version;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::operations::metrics;
use crate::proxy::Proxy;

/// The connections to one listener.
pub(crate) struct BoundedConnections {
    proxy: Arc<HttpProxy<Proxy>>,
    /// For a header, and for the time between two requests on a connection. A reload changes it for new connections.
    header: Box<dyn Fn() -> Duration + Send + Sync>,
}

/// The requests of one connection.
struct Bounded {
    proxy: Arc<HttpProxy<Proxy>>,
    options: HttpServerOptions,
    header: Duration,
    /// For the preface of HTTP/2.
    preface: Limit,
    /// pingora has begun to wait for the preface.
    awaits_preface: AtomicBool,
}

impl BoundedConnections {
    pub(super) fn new(
        proxy: HttpProxy<Proxy>,
        header: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        Self {
            proxy: Arc::new(proxy),
            header: Box::new(header),
        }
    }

    /// Of a connection. With TLS, the handshake says which version of HTTP follows.
    fn requests(&self, without_tls: Version, header: Duration) -> Bounded {
        let mut options = HttpServerOptions::default();
        options.h2c = without_tls == Version::HTTP_2;
        options.h2_idle_timeout = Some(header);
        Bounded {
            proxy: Arc::clone(&self.proxy),
            options,
            header,
            preface: Limit::none(),
            awaits_preface: AtomicBool::new(false),
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
        let header = (self.header)();
        let without_tls = if stream.get_ssl_digest().is_some() {
            Version::HTTP_11
        } else {
            timeout(header, version(&mut stream)).await.ok()??
        };
        let requests = Arc::new(self.requests(without_tls, header));
        tokio::select! {
            next = requests.process_new(stream, shutdown) => next,
            _ = requests.preface.has_passed() => None,
        }
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
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
        let limit = Limit::none();
        limit.set(self.header, None);
        let passed = limit.clone();
        let request = self.proxy.process_new_http(session, shutdown);
        tokio::select! {
            reused = LIMIT.scope(limit, request) => reused,
            upstream = passed.has_passed() => {
                if let Some(upstream) = upstream {
                    metrics::upstream_failures(&upstream, "timeout").increment(1);
                    tracing::error!(upstream = &*upstream, "the service did not respond in time: the request is dropped");
                }
                None
            }
        }
    }

    /// Called before the preface is read.
    fn h2_options(&self) -> Option<H2Options> {
        self.preface.set(self.header, None);
        self.awaits_preface.store(true, Ordering::Relaxed);
        None
    }

    /// Called before that, and when the preface has been read.
    fn server_options(&self) -> Option<&HttpServerOptions> {
        if self.awaits_preface.load(Ordering::Relaxed) {
            self.preface.lift();
        }
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
pub(super) type Waiting = Option<Arc<str>>;

impl Limit {
    fn none() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// That of the current task.
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
