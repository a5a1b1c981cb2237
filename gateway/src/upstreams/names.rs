//! The addresses of servers, resolved periodically.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::lb::discovery::ServiceDiscovery;
use pingora::lb::{Backend, Extensions};
use pingora::protocols::l4::socket::SocketAddr as Address;

use crate::upstreams::Server;

/// DNS records of services in containers have a lifetime of 5 to 30 seconds.
const UPDATE_FREQUENCY: Duration = Duration::from_secs(10);

pub(super) struct Names {
    upstream: String,
    servers: Vec<Arc<Server>>,
    /// The outcome of the last resolution of each.
    last: Mutex<Vec<Outcome>>,
}

#[derive(Clone, Default)]
struct Outcome {
    /// Kept if a later resolution fails: DNS may be unavailable while the servers are not.
    addresses: Vec<SocketAddr>,
    failed: bool,
}

impl Names {
    pub(super) fn new(upstream: &str, servers: Vec<Arc<Server>>) -> Self {
        Self {
            upstream: upstream.to_owned(),
            last: Mutex::new(vec![Outcome::default(); servers.len()]),
            servers,
        }
    }

    /// `None`: all servers are addresses, which do not change.
    pub(super) fn update_frequency(&self) -> Option<Duration> {
        let is_name = |server: &Arc<Server>| server.host.parse::<IpAddr>().is_err();
        self.servers.iter().any(is_name).then_some(UPDATE_FREQUENCY)
    }

    async fn resolve(&self, number: usize, server: &Server) -> Vec<SocketAddr> {
        let resolved = tokio::net::lookup_host((server.host.as_str(), server.port)).await;
        let mut last = self.last.lock();
        let last = &mut last[number];
        let (upstream, server) = (self.upstream.as_str(), server.name.as_str());
        match resolved {
            Ok(addresses) => {
                last.addresses = addresses.collect();
                if std::mem::replace(&mut last.failed, false) {
                    tracing::info!(upstream, server, "the name can be resolved again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut last.failed, true) {
                    let known = last.addresses.len();
                    tracing::error!(upstream, server, %error, known, "the name cannot be resolved: check servers in the configuration, and DNS. The known addresses stay in use");
                }
            }
        }
        last.addresses.clone()
    }
}

#[async_trait]
impl ServiceDiscovery for Names {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let mut backends = BTreeSet::new();
        for (number, server) in self.servers.iter().enumerate() {
            for address in self.resolve(number, server).await {
                let mut ext = Extensions::new();
                ext.insert(Arc::clone(server));
                backends.insert(Backend {
                    addr: Address::Inet(address),
                    weight: 1,
                    ext,
                });
            }
        }
        Ok((backends, HashMap::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn known_addresses_stay_in_use_if_the_name_cannot_be_resolved() {
        let settings = toml::from_str("servers = [\"http://no-such-host.invalid\"]").unwrap();
        let servers = crate::upstreams::servers("orders", &settings).unwrap();
        let names = Names::new("orders", servers);
        assert!(names.update_frequency().is_some());
        assert!(names.discover().await.unwrap().0.is_empty());
        let known: SocketAddr = "127.0.0.1:80".parse().unwrap();
        names.last.lock()[0].addresses.push(known);
        let (backends, _) = names.discover().await.unwrap();
        let addresses: Vec<_> = backends.iter().map(|one| one.addr.clone()).collect();
        assert_eq!(addresses, [Address::Inet(known)]);
    }

    #[test]
    fn addresses_are_not_resolved_again() {
        let settings =
            toml::from_str("servers = [\"http://127.0.0.1\", \"http://[::1]\"]").unwrap();
        let servers = crate::upstreams::servers("orders", &settings).unwrap();
        assert_eq!(Names::new("orders", servers).update_frequency(), None);
    }
}
