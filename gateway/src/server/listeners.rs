//! The listening sockets, and what is served at them.

use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use pingora::listeners::tls::Acceptor;
use tokio::net::{TcpListener, TcpSocket};

use crate::certificates::{Certificate, Certificates};
use crate::config::{Document, Tls};
use crate::generation::Current;
use crate::server::connections::Connections;
use crate::server::http_app::HttpApp;
use crate::server::tls;
use crate::server::upgrade::Inherited;
use crate::{forward_auth, operations, proxy};

/// How many connections may wait to be accepted. The kernel caps this at `net.core.somaxconn`.
const BACKLOG: u32 = 4096;
/// For a scrape of metrics that has begun.
const OPERATIONS_DRAIN: Duration = Duration::from_secs(1);

pub(crate) struct Listeners {
    /// From clients, and from proxies that ask.
    connections: Connections,
    /// From operators, who watch while requests end.
    operations: Connections,
    sockets: Vec<Socket>,
}

/// A listening socket.
pub(crate) struct Socket {
    /// The address in the configuration, by which a new process finds the socket.
    configured: SocketAddr,
    listener: Arc<TcpListener>,
}

/// Listens at all addresses, with the sockets of the previous process if it had them, then serves. Returns the start-up line.
pub(crate) fn start(
    current: &Current,
    inherited: Inherited,
) -> Result<(Listeners, String), String> {
    let document = current.load().document.clone();
    let mut start = Start {
        current,
        inherited,
        listeners: Listeners {
            connections: Connections::new(),
            operations: Connections::new(),
            sockets: Vec::new(),
        },
        line: "listening:".to_owned(),
    };
    start.proxies(&document)?;
    start.forward_auth(&document)?;
    if let Some(address) = document.operations.address {
        let listener = start.listen("operations", "operations", address, None)?;
        let app = HttpApp::new(operations::router(current));
        start.listeners.operations.serve(listener, None, app);
    }
    // Sockets of the previous process that are no longer configured.
    drop(start.inherited);
    Ok((start.listeners, start.line))
}

struct Start<'a> {
    current: &'a Current,
    inherited: Inherited,
    listeners: Listeners,
    line: String,
}

impl Start<'_> {
    fn proxies(&mut self, document: &Document) -> Result<(), String> {
        for (number, listener) in document.listener.iter().enumerate() {
            let tls = listener.tls.as_ref();
            let socket = self.listen("proxy", "listener", listener.address, tls)?;
            let acceptor = self.acceptor(tls, move |all| all.listeners[number].clone())?;
            let running = self.listeners.connections.running().clone();
            let app = proxy::application(self.current, number, running);
            self.listeners.connections.serve(socket, acceptor, app);
        }
        Ok(())
    }

    fn forward_auth(&mut self, document: &Document) -> Result<(), String> {
        for (number, settings) in document.forward_auth.iter().enumerate() {
            let tls = settings.tls.as_ref();
            let socket = self.listen("forward_auth", "forward_auth", settings.address, tls)?;
            let acceptor = self.acceptor(tls, move |all| all.forward_auth[number].clone())?;
            let router: Router = forward_auth::router(self.current, number);
            let app = HttpApp::new(router);
            self.listeners.connections.serve(socket, acceptor, app);
        }
        Ok(())
    }

    fn acceptor(
        &self,
        tls: Option<&Tls>,
        certificate: impl Fn(&Certificates) -> Certificate + Send + Sync + 'static,
    ) -> Result<Option<Acceptor>, String> {
        if tls.is_none() {
            return Ok(None);
        }
        let acceptor = tls::acceptor(self.current, certificate);
        acceptor.map(Some).map_err(|error| error.to_string())
    }

    fn listen(
        &mut self,
        name: &str,
        setting: &str,
        configured: SocketAddr,
        tls: Option<&Tls>,
    ) -> Result<Arc<TcpListener>, String> {
        let listener = match self.inherited.take(configured) {
            Some(listener) => TcpListener::from_std(listener),
            None => bind(configured),
        };
        let listener = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = listener.map_err(|error| failed(setting, configured, &error))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let _ = write!(self.line, " {name}={scheme}://{address}");
        let listener = Arc::new(listener);
        self.listeners.sockets.push(Socket {
            configured,
            listener: Arc::clone(&listener),
        });
        Ok(listener)
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Otherwise connections of a process that has ended would block the address.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn failed(setting: &str, address: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => {
            ": stop the process that listens there, or choose another address (a running dpop-gateway is replaced by SIGUSR2)"
        }
        ErrorKind::AddrNotAvailable => ": no interface of this machine has this address",
        ErrorKind::PermissionDenied => {
            ": ports below 1024 need the capability CAP_NET_BIND_SERVICE, or choose another port"
        }
        _ => "",
    };
    format!("{setting} {address}: cannot listen: {error}{advice}")
}

impl Listeners {
    /// The listening sockets, each with its address in the configuration.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = (SocketAddr, BorrowedFd<'_>)> {
        let sockets = self.sockets.iter();
        sockets.map(|socket| (socket.configured, socket.listener.as_fd()))
    }

    /// Stops accepting connections, and waits until all requests have ended, or for this time. Returns how many are left.
    /// Until then, operators see that the process is not ready.
    pub(crate) async fn drain(self, limit: Duration) -> usize {
        drop(self.sockets);
        let left = self.connections.drain(limit).await;
        self.operations.drain(OPERATIONS_DRAIN).await;
        left
    }

    /// From now on, the new process responds to operators.
    pub(crate) fn leave_operations(&self) {
        self.operations.stop();
    }
}
