//! Asks a server what it is: at each new connection, and once per second.

use redis::{Pipeline, Value};

use crate::proof::replay::epoch::Epoch;
use crate::proof::replay::redis::info::{Eviction, Info};
use crate::proof::replay::redis::settings::{EvictionRule, Settings};
use crate::proof::replay::redis::start_error::RedisStartError;

/// What is known about a primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) epoch: Epoch,
    /// The policy by which the server removes records, if it does.
    pub(crate) evicts: Option<String>,
    /// Whether the server told all of this.
    pub(crate) told: Told,
    identity: Option<Identity>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Everything,
    /// `INFO` is not permitted, or a proxy leaves out what names the server.
    NotItsIdentity,
}

/// What an epoch is made of.
#[derive(Clone, PartialEq, Eq)]
struct Identity {
    run_id: String,
    replication_id: String,
    marker: Vec<u8>,
    /// How many keys were removed because the memory was full. It counts also what was removed between two probes.
    evicted: u64,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}

impl Facts {
    /// Whether the server removes records, if it is known.
    pub(crate) fn eviction(&self) -> Option<bool> {
        match (&self.evicts, self.told) {
            (Some(_), _) => Some(true),
            (None, Told::Everything) => Some(false),
            (None, Told::NotItsIdentity) => None,
        }
    }
}

/// A key that `FLUSHALL` removes as it removes the records, so that its value names what is there.
pub(crate) struct Probe {
    commands: Pipeline,
    offered: String,
    rule: EvictionRule,
}

impl Probe {
    pub(crate) fn new(settings: &Settings, random: u64) -> Self {
        let offered = random.to_string();
        let mut commands = Pipeline::with_capacity(2);
        commands
            .cmd("INFO")
            .arg("server")
            .arg("replication")
            .arg("memory")
            .arg("stats");
        commands
            .cmd("SET")
            .arg(format!("{}~epoch", settings.prefix))
            .arg(&offered)
            .arg("NX")
            .arg("GET");
        Self {
            commands,
            offered,
            rule: settings.eviction,
        }
    }

    pub(crate) const fn commands(&self) -> &Pipeline {
        &self.commands
    }

    /// Reads the replies. `known` is what was known about a server before: while the memory is full, the marker cannot be read.
    pub(crate) fn read(
        &self,
        address: &str,
        replies: &[Value],
        known: Option<&Facts>,
    ) -> Result<Facts, RedisStartError> {
        let address = || address.to_owned();
        let not_writable = |code: &str| RedisStartError::NotWritable {
            address: address(),
            code: code.to_owned(),
        };
        let [info, marker] = replies else {
            return Err(not_writable("an unknown reply"));
        };
        let info = match info {
            Value::BulkString(text) => Info::parse(&String::from_utf8_lossy(text)),
            Value::VerbatimString { text, .. } => Info::parse(text),
            _ => Info::default(),
        };
        match (info.mode.as_deref(), info.role.as_deref()) {
            (Some("cluster"), _) => {
                return Err(RedisStartError::ClusterMode { address: address() });
            }
            (_, Some("slave")) => return Err(RedisStartError::NotAPrimary { address: address() }),
            _ => {}
        }
        let known = known.and_then(|known| known.identity.as_ref());
        let marker = match marker {
            Value::Nil => self.offered.clone().into_bytes(),
            Value::BulkString(marker) if is_a_marker(marker) => marker.clone(),
            Value::ServerError(error) => match error.code() {
                // No write is accepted, but nothing says that records are missing.
                code @ ("OOM" | "NOREPLICAS" | "MISCONF") => match known {
                    Some(known) if known.is_of(&info) => known.marker.clone(),
                    _ => return Err(not_writable(code)),
                },
                "MOVED" | "ASK" | "CLUSTERDOWN" => {
                    return Err(RedisStartError::ClusterMode { address: address() });
                }
                "READONLY" => return Err(RedisStartError::NotAPrimary { address: address() }),
                code @ ("NOAUTH" | "NOPERM") => {
                    return Err(RedisStartError::Rejected {
                        address: address(),
                        code: code.to_owned(),
                    });
                }
                "ERR" if error.details().is_some_and(|text| text.contains("syntax")) => {
                    return Err(RedisStartError::TooOld { address: address() });
                }
                code => return Err(not_writable(code)),
            },
            _ => return Err(not_writable("an unknown reply")),
        };
        Ok(Facts::new(&info, marker, self.rule))
    }
}

/// Whether a store wrote it: another text is no reply of Redis, or the key is someone else's.
fn is_a_marker(text: &[u8]) -> bool {
    (1..=20).contains(&text.len()) && text.iter().all(u8::is_ascii_digit)
}

impl Facts {
    fn new(info: &Info, marker: Vec<u8>, rule: EvictionRule) -> Self {
        let eviction = info.eviction();
        let identity = match (&info.run_id, &info.replication_id) {
            (Some(run_id), Some(replication_id)) => Some(Identity {
                run_id: run_id.clone(),
                replication_id: replication_id.clone(),
                marker,
                evicted: match rule {
                    // The epoch would be another one each second.
                    EvictionRule::Accepted => 0,
                    EvictionRule::Rejected => info.evicted,
                },
            }),
            _ => None,
        };
        let told = match (&identity, eviction) {
            (Some(_), Eviction::None | Eviction::By(_)) => Told::Everything,
            _ => Told::NotItsIdentity,
        };
        Self {
            epoch: identity.as_ref().map_or(Epoch::UNKNOWN, Identity::epoch),
            evicts: match eviction {
                Eviction::By(policy) => Some(policy.to_owned()),
                Eviction::None | Eviction::Unknown => None,
            },
            told,
            identity,
        }
    }
}

impl Identity {
    fn epoch(&self) -> Epoch {
        let (run_id, replication_id, evicted) = (&self.run_id, &self.replication_id, self.evicted);
        let mut text = format!("{run_id} {replication_id} {evicted} ").into_bytes();
        text.extend_from_slice(&self.marker);
        Epoch::of(&text)
    }

    fn is_of(&self, info: &Info) -> bool {
        info.run_id.as_ref() == Some(&self.run_id)
            && info.replication_id.as_ref() == Some(&self.replication_id)
    }
}
