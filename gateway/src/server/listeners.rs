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
use crate::generation::Current;
use crate::server::http_app::HttpApp;
use crate::{forward_auth, operations, proxy};

pub(crate) struct Listeners {
    sockets: ListenFds,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    /// What the start-up line says of each: `proxy=http://127.0.0.1:8080`.
    listening: Vec<String>,
    drain: Duration,
}

/// Binds all addresses, then serves them.
pub(crate) fn start(current: &Current) -> io::Result<Listeners> {
    let document = current.load().document.clone();
    let mut listeners = Listeners {
        sockets: Arc::new(parking_lot::Mutex::new(Fds::new())),
        stop: watch::Sender::new(false),
        tasks: JoinSet::new(),
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
        let (sockets, stop) = (Arc::clone(&self.sockets), self.stop.subscribe());
        self.tasks
            .spawn(async move { service.start_service(Some(sockets), stop, 1).await });
        self.listening.push(format!("{name}=http://{address}"));
        Ok(())
    }

    pub(crate) async fn drain(mut self) {
        let _ = self.stop.send(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(self.drain, ended).await;
    }
}
