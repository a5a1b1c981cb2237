//! The services: their servers, and which of them is next.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs as _;
use std::sync::Arc;
use std::time::Duration;

use pingora::lb::LoadBalancer;
use pingora::lb::selection::RoundRobin;
use pingora::prelude::HttpPeer;

use crate::config::{ConfigError, Document, Protocol, Upstream};

pub(crate) struct Upstreams(BTreeMap<String, Service>);

struct Service {
    settings: Upstream,
    servers: Arc<LoadBalancer<RoundRobin>>,
    tls: bool,
    host: String,
}

impl Upstreams {
    pub(crate) fn new(document: &Document) -> Result<Self, ConfigError> {
        let services = document
            .upstream
            .iter()
            .map(|(name, settings)| Ok((name.clone(), Service::new(name, settings)?)));
        services.collect::<Result<_, _>>().map(Self)
    }

    /// The names, and how many servers of each can be used.
    pub(crate) fn healthy_servers(&self) -> impl Iterator<Item = (&str, usize)> {
        self.0.iter().map(|(name, service)| {
            let servers = service.servers.backends();
            let all = servers.get_backend();
            let healthy = all.iter().filter(|server| servers.ready(server)).count();
            (name.as_str(), healthy)
        })
    }

    pub(crate) fn peer(&self, name: &str) -> Option<HttpPeer> {
        let service = self.0.get(name)?;
        let server = service.servers.select(b"", 256)?;
        let mut peer = HttpPeer::new(&server, service.tls, service.host.clone());
        let options = &mut peer.options;
        options.connection_timeout = Some(Duration::from_secs(
            service.settings.connect_timeout_seconds,
        ));
        options.read_timeout = Some(Duration::from_secs(service.settings.read_timeout_seconds));
        options.write_timeout = Some(Duration::from_secs(service.settings.write_timeout_seconds));
        options.idle_timeout = Some(Duration::from_secs(service.settings.idle_timeout_seconds));
        match service.settings.protocol {
            Protocol::Http1 => options.set_http_version(1, 1),
            Protocol::Http2 => options.set_http_version(2, 2),
            Protocol::Negotiated => options.set_http_version(2, 1),
        }
        Some(peer)
    }
}

impl Service {
    fn new(name: &str, settings: &Upstream) -> Result<Self, ConfigError> {
        let fault = |problem: String| ConfigError {
            place: format!("upstream.{name}.servers"),
            problem,
        };
        let mut addresses = Vec::new();
        let (mut tls, mut host) = (false, String::new());
        for server in &settings.servers {
            let uri: http::Uri = server
                .parse()
                .map_err(|_| fault(format!("{server:?} is no URL")))?;
            tls = uri.scheme_str() == Some("https");
            host = uri.host().unwrap_or_default().to_owned();
            let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
            let found = (host.as_str(), port).to_socket_addrs();
            addresses.extend(found.map_err(|error| fault(format!("{server}: {error}")))?);
        }
        let servers =
            LoadBalancer::try_from_iter(addresses).map_err(|error| fault(error.to_string()))?;
        Ok(Self {
            settings: settings.clone(),
            servers: Arc::new(servers),
            tls,
            host,
        })
    }
}
