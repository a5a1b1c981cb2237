//! Limits of time that pingora does not have.
//!
//! - It gives a client time for each part of a header, and no limit for the whole.
//! - Over HTTP/2, it gives a service time from the request's header to the response's, and does not see that the body of the
//!   request makes progress meanwhile.
//!
//! If such a limit passes, the request is dropped without a response: a stream of HTTP/2 is reset, a connection of HTTP/1.1 is
//! closed.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::proxy::Proxy;

pub(crate) struct Bounded {
    proxy: Arc<HttpProxy<Proxy>>,
    /// For a header, and for the time between two requests on a connection.
    header: Duration,
}

impl Bounded {
    pub(super) fn new(proxy: HttpProxy<Proxy>, header: Duration) -> Self {
        Self {
            proxy: Arc::new(proxy),
            header,
        }
    }
}

#[async_trait]
impl HttpServerApp for Bounded {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let limit = Limit(Arc::new(watch::Sender::new(None)));
        limit.set(self.header);
        let passed = limit.clone();
        let request = self.proxy.process_new_http(session, shutdown);
        tokio::select! {
            reused = LIMIT.scope(limit, request) => reused,
            () = passed.has_passed() => None,
        }
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.proxy.server_options()
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
pub(super) struct Limit(Arc<watch::Sender<Option<Instant>>>);

impl Limit {
    /// That of the current task.
    ///
    /// # Panics
    ///
    /// Outside [`Bounded`].
    pub(super) fn current() -> Self {
        LIMIT.get()
    }

    /// From now on.
    pub(super) fn set(&self, duration: Duration) {
        self.0.send_replace(Some(Instant::now() + duration));
    }

    pub(super) fn lift(&self) {
        self.0.send_replace(None);
    }

    async fn has_passed(&self) {
        let mut changes = self.0.subscribe();
        loop {
            let limit = *changes.borrow_and_update();
            let passes = async {
                match limit {
                    Some(limit) => sleep_until(limit).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = passes => return,
                // The sender is `self`.
                _ = changes.changed() => {}
            }
        }
    }
}
