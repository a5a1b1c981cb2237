//! The listening sockets, and what is served at them.

use std::io;
use std::net::TcpListener;
use std::os::fd::IntoRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::HttpServerOptions;
use pingora::proxy::http_proxy_service;
use pingora::server::Fds;
use pingora::server::configuration::ServerConf;
use pingora::services::Service as _;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::proxy::Proxy;
use crate::server::Current;

pub(crate) struct Listeners {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    drain: Duration,
}

/// Binds all addresses, then serves them.
pub(crate) fn start(current: &Current) -> io::Result<Listeners> {
    let document = current.load().document.clone();
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let mut listening = Vec::new();
    let fds = Arc::new(parking_lot::Mutex::new(Fds::new()));
    let conf = Arc::new(ServerConf::default());
    for listener in &document.listener {
        let socket = TcpListener::bind(listener.address)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?.to_string();
        fds.lock().add(address.clone(), socket.into_raw_fd());
        let mut service = http_proxy_service(&conf, Proxy::new(Arc::clone(current)));
        if let Some(proxy) = service.app_logic_mut() {
            let mut options = HttpServerOptions::default();
            options.h2c = true;
            proxy.server_options = Some(options);
        }
        service.add_tcp(&address);
        let (fds, stopped) = (Arc::clone(&fds), stopped.clone());
        tasks.spawn(async move { service.start_service(Some(fds), stopped, 1).await });
        listening.push(format!("proxy=http://{address}"));
    }
    println!("listening: {}", listening.join(" "));
    Ok(Listeners {
        stop,
        tasks,
        drain: Duration::from_secs(document.process.drain_seconds),
    })
}

impl Listeners {
    pub(crate) async fn drain(mut self) {
        let _ = self.stop.send(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(self.drain, ended).await;
    }
}
