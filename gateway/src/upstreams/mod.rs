//! The services: their servers, and which of them is next.

mod health;
mod names;
mod tls;
mod tunnel;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use pingora::lb::selection::RoundRobin;
use pingora::lb::{Backend, Backends, LoadBalancer};
use pingora::prelude::HttpPeer;
use pingora::protocols::l4::socket::SocketAddr;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use crate::config::{self, ConfigError, Document, HealthCheck, Protocol, Upstream};
use crate::upstreams::health::Check;
use crate::upstreams::names::Names;
use crate::upstreams::tls::Trust;
use crate::upstreams::tunnel::WriteFirst;

/// How long the start waits for the addresses of all servers. The others are resolved in the background.
const FIRST_RESOLUTION: Duration = Duration::from_secs(3);

/// After a failed connection, how long an address is used only if there is no other.
const AVOIDED: Duration = Duration::from_secs(10);

/// How many requests share a connection of HTTP/2. With the windows below, stalled clients cannot block the other requests of
/// the connection.
const STREAMS_PER_CONNECTION: usize = 16;
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * STREAM_WINDOW;

pub(crate) struct Upstreams(BTreeMap<String, Service>);

/// A service, whose servers are resolved and checked until it is dropped.
pub(crate) struct Service {
    servers: Arc<LoadBalancer<RoundRobin>>,
    /// Addresses to which no connection could be made, and when.
    failed: Mutex<HashMap<SocketAddr, Instant>>,
    background: AbortHandle,
}

/// A server as it is configured. It may have several addresses.
pub(crate) struct Server {
    /// `host:port`, for logs.
    pub(crate) name: String,
    /// The value of `Host` in requests to it.
    pub(crate) authority: HeaderValue,
    host: String,
    port: u16,
    protocol: Protocol,
    /// All but the address.
    peer: HttpPeer,
}

/// The server for one attempt of a request.
pub(crate) struct Chosen {
    pub(crate) server: Arc<Server>,
    pub(crate) protocol: Protocol,
}

/// How many addresses get requests, and how many there are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Health {
    pub(crate) healthy: usize,
    pub(crate) known: usize,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} addresses are healthy",
            self.healthy, self.known
        )
    }
}

impl Upstreams {
    /// Reads certificates and keys, and begins to resolve and check the servers. A name that cannot be resolved is logged, and
    /// its service is unavailable until it can be.
    pub(crate) async fn new(document: &Document) -> Result<Self, ConfigError> {
        let deadline = Instant::now() + FIRST_RESOLUTION;
        let mut services = BTreeMap::new();
        for (name, settings) in &document.upstream {
            let service = Service::start(name, settings, deadline).await?;
            services.insert(name.clone(), service);
        }
        Ok(Self(services))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Service> {
        self.0.get(name)
    }

    /// The health of each service, by its name.
    pub(crate) fn health(&self) -> impl Iterator<Item = (&str, Health)> {
        self.0
            .iter()
            .map(|(name, service)| (name.as_str(), service.health()))
    }
}

impl Service {
    async fn start(
        name: &str,
        settings: &Upstream,
        deadline: Instant,
    ) -> Result<Self, ConfigError> {
        let servers = servers(name, settings)?;
        let names = Names::new(name, servers);
        let update_frequency = names.update_frequency();
        let mut backends = Backends::new(Box::new(names));
        if let Some(check) = &settings.health_check {
            backends.set_health_check(Box::new(Check::new(name, check)?));
        }
        let mut balancer = LoadBalancer::from_backends(backends);
        balancer.update_frequency = update_frequency;
        balancer.parallel_health_check = true;
        let interval = settings.health_check.as_ref().map(HealthCheck::interval);
        // Without a check, its loop has nothing to do.
        balancer.health_check_frequency = interval;
        let _ = timeout_at(deadline, balancer.update()).await;
        let balancer = Arc::new(balancer);
        let in_background = Arc::clone(&balancer);
        let background = tokio::spawn(async move {
            let (_keeps_running, shutdown) = watch::channel(false);
            in_background.run(shutdown, None).await;
        });
        Ok(Self {
            servers: balancer,
            failed: Mutex::default(),
            background: background.abort_handle(),
        })
    }

    /// The next healthy address, except for these.
    pub(crate) fn choose(&self, except: &[SocketAddr]) -> Option<(Chosen, HttpPeer)> {
        let select = |avoided: &[SocketAddr]| {
            self.servers.select_with(b"", 256, |backend, healthy| {
                let address = &backend.addr;
                healthy && !except.contains(address) && !avoided.contains(address)
            })
        };
        let avoided = self.avoided();
        let mut backend = select(&avoided);
        if backend.is_none() && !avoided.is_empty() {
            backend = select(&[]);
        }
        let backend = backend?;
        let server = server_of(&backend)?;
        let peer = server.peer_at(&backend);
        let protocol = server.protocol;
        Some((Chosen { server, protocol }, peer))
    }

    /// No connection could be made to this address.
    pub(crate) fn avoid(&self, address: SocketAddr) {
        self.failed.lock().insert(address, Instant::now());
    }

    fn avoided(&self) -> Vec<SocketAddr> {
        let mut failed = self.failed.lock();
        failed.retain(|_, when| when.elapsed() < AVOIDED);
        failed.keys().cloned().collect()
    }

    pub(crate) fn health(&self) -> Health {
        let backends = self.servers.backends();
        let known = backends.get_backend();
        Health {
            healthy: known.iter().filter(|one| backends.ready(one)).count(),
            known: known.len(),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.background.abort();
    }
}

impl Chosen {
    /// For WebSocket, which pingora has over HTTP/1.1 only. Its connections are kept apart from all others.
    pub(crate) fn as_tunnel(&mut self, peer: &mut HttpPeer) {
        peer.options.custom_l4 = Some(Arc::new(WriteFirst));
        peer.options.set_http_version(1, 1);
        peer.group_key += 1;
        self.protocol = Protocol::Http1;
    }
}

impl Server {
    pub(crate) fn read_timeout(&self) -> Option<Duration> {
        self.peer.options.read_timeout
    }

    fn peer_at(&self, backend: &Backend) -> HttpPeer {
        let mut peer = self.peer.clone();
        peer._address = backend.addr.clone();
        peer
    }
}

fn server_of(backend: &Backend) -> Option<Arc<Server>> {
    backend.ext.get::<Arc<Server>>().cloned()
}

/// Without TLS there is nothing in which HTTP/2 could be negotiated.
fn effective_protocol(settings: &Upstream, https: bool) -> Protocol {
    match settings.protocol {
        Protocol::Negotiated if !https => Protocol::Http1,
        protocol => protocol,
    }
}

fn servers(name: &str, settings: &Upstream) -> Result<Vec<Arc<Server>>, ConfigError> {
    let fault = |problem: String| ConfigError {
        place: format!("upstream.{name}.servers"),
        problem,
    };
    let trust = Trust::read(name, settings)?;
    let group = next_group();
    let server = |text: &String| {
        let server = config::Server::parse(text).map_err(|problem| fault(problem.to_owned()))?;
        let mut peer = HttpPeer::new(("127.0.0.1", 1), server.is_tls, String::new());
        peer.group_key = group;
        let protocol = effective_protocol(settings, server.is_tls);
        set_options(&mut peer, settings, protocol);
        if server.is_tls {
            let name = settings.server_name.as_ref().unwrap_or(&server.host);
            peer.sni.clone_from(name);
            trust.give_to(&mut peer);
        }
        let authority = HeaderValue::try_from(server.authority());
        Ok(Arc::new(Server {
            name: server.name(),
            authority: authority.map_err(|error| fault(error.to_string()))?,
            host: server.host,
            port: server.port,
            protocol,
            peer,
        }))
    };
    settings.servers.iter().map(server).collect()
}

fn set_options(peer: &mut HttpPeer, settings: &Upstream, protocol: Protocol) {
    let options = &mut peer.options;
    let connect = Duration::from_secs(settings.connect_timeout_seconds);
    options.connection_timeout = Some(connect);
    options.total_connection_timeout = Some(connect);
    options.read_timeout = Some(Duration::from_secs(settings.read_timeout_seconds));
    options.write_timeout = Some(Duration::from_secs(settings.write_timeout_seconds));
    options.idle_timeout = Some(Duration::from_secs(settings.idle_timeout_seconds));
    options.max_h2_streams = STREAMS_PER_CONNECTION;
    options.h2_stream_window_size = Some(STREAM_WINDOW);
    options.h2_connection_window_size = Some(CONNECTION_WINDOW);
    match protocol {
        Protocol::Http1 => options.set_http_version(1, 1),
        Protocol::Http2 => options.set_http_version(2, 2),
        Protocol::Negotiated => options.set_http_version(2, 1),
    }
}

/// Connections are shared within a group only. pingora does not compare the authorities that a connection was verified with,
/// so each upstream of each generation has its own group: an even number, see [`Chosen::as_tunnel`].
fn next_group() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(2, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(servers: &str) -> Upstream {
        toml::from_str(&format!("servers = [{servers}]")).unwrap()
    }

    async fn start(settings: &Upstream) -> Service {
        let deadline = Instant::now() + FIRST_RESOLUTION;
        let service = Service::start("orders", settings, deadline).await;
        service.unwrap()
    }

    #[tokio::test]
    async fn an_address_that_failed_is_used_only_if_there_is_no_other() {
        let service = start(&upstream("\"http://127.0.0.1:1\", \"http://127.0.0.1:2\"")).await;
        let chosen = |except: &[SocketAddr]| {
            let chosen = service.choose(except);
            chosen.map(|(_, peer)| peer._address)
        };
        let [one, two] = [chosen(&[]).unwrap(), chosen(&[]).unwrap()];
        assert_ne!(one, two);
        service.avoid(one.clone());
        for _ in 0..10 {
            assert_eq!(chosen(&[]), Some(two.clone()));
        }
        assert_eq!(chosen(std::slice::from_ref(&two)), Some(one.clone()));
        service.avoid(two.clone());
        assert!(chosen(&[]).is_some());
        assert_eq!(chosen(&[one, two]), None);
    }

    #[tokio::test]
    async fn the_background_task_ends_with_its_service() {
        let settings = upstream("\"http://localhost:80\"");
        let service = start(&settings).await;
        let background = service.background.clone();
        assert!(!background.is_finished());
        assert!(service.health().known > 0);
        drop(service);
        while !background.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn connections_are_not_shared_between_generations() {
        let settings = upstream("\"http://127.0.0.1:80\"");
        let group = async || {
            let service = start(&settings).await;
            service.choose(&[]).unwrap().1.group_key
        };
        assert_ne!(group().await, group().await);
    }

    #[test]
    fn servers_have_the_names_that_are_verified() {
        for (url, name, authority) in [
            (
                "https://orders.internal",
                "orders.internal",
                "orders.internal",
            ),
            (
                "https://orders.internal:8443",
                "orders.internal",
                "orders.internal:8443",
            ),
            ("https://127.0.0.1", "127.0.0.1", "127.0.0.1"),
            ("https://[::1]:8443", "::1", "[::1]:8443"),
            (
                "HTTPS://Orders.internal:443/",
                "orders.internal",
                "orders.internal",
            ),
            // No TLS, no name.
            ("http://orders.internal", "", "orders.internal"),
        ] {
            let settings = upstream(&format!("{url:?}"));
            let server = servers("orders", &settings).unwrap().remove(0);
            assert_eq!(server.peer.sni, name, "{url}");
            assert_eq!(server.peer.is_tls(), !name.is_empty(), "{url}");
            assert_eq!(server.authority, authority, "{url}");
        }
    }
}
