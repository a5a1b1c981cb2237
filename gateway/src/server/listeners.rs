//! The listening sockets, and what is served at them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use pingora::apps::ServerApp;
use pingora::server::{Fds, ListenFds};
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Tls;
use crate::server::Current;
use crate::server::http_app::HttpApp;
use crate::{forward_auth, operations, proxy};

pub(crate) struct Listeners {
    sockets: ListenFds,
    /// Of what serves requests.
    requests: Tasks,
    /// Of what operators watch while requests end.
    operations: Tasks,
    /// What the start-up line says of each: `proxy=http://127.0.0.1:8080`.
    listening: Vec<String>,
    drain: Duration,
}

struct Tasks {
    stop: watch::Sender<bool>,
    running: JoinSet<()>,
}

/// Binds all addresses, then serves them.
pub(crate) fn start(current: &Current) -> io::Result<Listeners> {
    let document = current.load().document.clone();
    let mut listeners = Listeners {
        sockets: Arc::new(parking_lot::Mutex::new(Fds::new())),
        requests: Tasks::new(),
        operations: Tasks::new(),
        listening: Vec::new(),
        drain: Duration::from_secs(document.process.drain_seconds),
    };
    for (number, listener) in document.listener.iter().enumerate() {
        let service = proxy::service(current, number);
        listeners.serve("proxy", listener.address, listener.tls.as_ref(), service)?;
    }
    for (number, forward_auth) in document.forward_auth.iter().enumerate() {
        let router = forward_auth::router(current, number);
        let (address, tls) = (forward_auth.address, forward_auth.tls.as_ref());
        listeners.serve_router("forward_auth", address, tls, router)?;
    }
    if let Some(address) = document.operations.address {
        listeners.serve_router("operations", address, None, operations::router(current))?;
    }
    println!("listening: {}", listeners.listening.join(" "));
    Ok(listeners)
}

impl Listeners {
    fn serve_router(
        &mut self,
        name: &'static str,
        address: SocketAddr,
        tls: Option<&Tls>,
        router: Router,
    ) -> io::Result<()> {
        let service = Service::new(name.to_owned(), HttpApp::new(router));
        self.serve(name, address, tls, service)
    }

    fn serve<A: ServerApp + Send + Sync + 'static>(
        &mut self,
        name: &'static str,
        address: SocketAddr,
        _tls: Option<&Tls>,
        mut service: Service<A>,
    ) -> io::Result<()> {
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?.to_string();
        self.sockets
            .lock()
            .add(address.clone(), socket.into_raw_fd());
        service.add_tcp(&address);
        let tasks = match name {
            "operations" => &mut self.operations,
            _ => &mut self.requests,
        };
        let (sockets, stop) = (Arc::clone(&self.sockets), tasks.stop.subscribe());
        tasks
            .running
            .spawn(async move { service.start_service(Some(sockets), stop, 1).await });
        self.listening.push(format!("{name}=http://{address}"));
        Ok(())
    }

    /// Requests may end in the time that is configured. Until then, operators see that the process is not ready.
    pub(crate) async fn drain(mut self) {
        let _ = tokio::time::timeout(self.drain, self.requests.end()).await;
        let _ = tokio::time::timeout(OPERATIONS_DRAIN, self.operations.end()).await;
    }
}

/// For a scrape of metrics that has begun.
const OPERATIONS_DRAIN: Duration = Duration::from_secs(1);

impl Tasks {
    fn new() -> Self {
        Self {
            stop: watch::Sender::new(false),
            running: JoinSet::new(),
        }
    }

    async fn end(&mut self) {
        let _ = self.stop.send(true);
        while self.running.join_next().await.is_some() {}
    }
}
