//! The store itself: one command per claim, and what its reply means.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use redis::{Pipeline, Value};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::jose::base64url;
use crate::outage::{Outage, QUIET};
use crate::proof::replay::epoch::Epoch;
use crate::proof::replay::redis::health::{Link, RedisHealth, RedisLinkState};
use crate::proof::replay::redis::line::{Cause, Line};
use crate::proof::replay::redis::settings::Settings;
use crate::proof::replay::store::{Claim, ReplayStore, ReplayStoreError, UsedProof};
use crate::telemetry::replay_store::shared as metrics;
use crate::time::Stopwatch;

/// The replay store of several nodes: one Redis (7.0 or later) or Valkey primary. Its tests run on Redis 7.0 and 8.2, and on
/// Valkey 9.1.
///
/// Clones are handles to the same connections. A background task keeps them, and ends when the last handle is dropped.
/// [The guide](crate::guide::redis) has a `redis.conf`, sentinels, a readiness check and alerts.
///
/// # Example
///
/// ```no_run
/// use tower_dpop::ProofRules;
/// use tower_dpop::proof::{RedisReplayStore, RedisServer};
///
/// # async fn example(rules: ProofRules) -> Result<(), Box<dyn std::error::Error>> {
/// let server = RedisServer::url("rediss://redis.internal:6379")?.with_credentials("dpop", "s3cret");
/// let store = RedisReplayStore::at(server).connect().await?;
/// let rules = rules.with_replay_store(store.clone()); // keep `store` for `health`
/// # let _ = rules;
/// # Ok(())
/// # }
/// ```
///
/// # The server
///
/// | setting | value | why |
/// |---|---|---|
/// | `maxmemory-policy` | `noeviction` | any other policy removes records, so that proofs can be used again; the store rejects such a server |
/// | `maxmemory` | what you expect, and more | a record takes about 130 bytes for two minutes: 1 GiB is 65,000 requests per second. A full server rejects requests with 503 |
/// | `appendonly`, `save` | either | a restart is another [`Epoch`], with or without data |
/// | `min-replicas-to-write 1`, `min-replicas-max-lag 1` | with two or more replicas | bounds what a failover can lose; costs nothing per claim. With one replica, the new primary would have none, and accept no record |
/// | `cluster-enabled` | `no` | the store needs one primary |
///
/// The least rights of its user, with the prefix `dpop:`:
///
/// ```text
/// ACL SETUSER dpop reset on >s3cret ~dpop:* -@all +set +info +hello +ping
/// ```
///
/// `+wait` comes to it for [`with_replicas`](crate::proof::RedisReplayStoreBuilder::with_replicas), and `+select` for another database than 0. Without
/// `+info`, nonces are not bound to the records and eviction is not noticed.
///
/// # When the server fails
///
/// No claim takes longer than the deadline (250 ms by default). While the server is known to be unreachable, claims are rejected at
/// once. A connection that is cut, or that does not respond to eight claims in a row, is replaced in the background, at first after 10 ms.
/// With sentinels, the store follows them to another primary after up to one second, also if the earlier one still takes writes.
/// A claim on a cut connection is repeated up to twice, if the server still has the same epoch, and finds its own record if it was made.
///
/// # Security
///
/// - Replication is asynchronous, so a failover can lose the records of the last moments, and their proofs can be used again. Choose:
///   require nonces, which are bound to the primary's records (recommended: no cost, no replay); wait for replicas with each claim
///   ([`with_replicas`](crate::proof::RedisReplayStoreBuilder::with_replicas)); or bound the loss by `min-replicas-to-write`.
/// - `FLUSHALL`, and a `maxmemory-policy` that is changed while the server runs, are noticed after up to one second. A removed record
///   is another epoch, also if the policy is set back.
/// - Redis deletes records by its own clock: if that steps forward, records end earlier. Let it slew. Nodes' clocks may differ by the
///   clock margin (30 s by default).
/// - Anyone who can write the keys can delete records or block proofs. Use TLS, and a user with the rights above.
#[derive(Clone)]
pub struct RedisReplayStore(Arc<Store>);

pub(crate) struct Store {
    settings: Arc<Settings>,
    link: Arc<watch::Sender<Link>>,
    waiting: Arc<AtomicUsize>,
    /// Errors of the server about claims, for the log.
    outage: Outage,
    supervisor: AbortHandle,
}

/// How often a claim is repeated after its connection was cut.
const MAX_RETRIES: usize = 2;

impl RedisReplayStore {
    pub(crate) fn new(
        settings: Arc<Settings>,
        link: Arc<watch::Sender<Link>>,
        waiting: Arc<AtomicUsize>,
        supervisor: AbortHandle,
    ) -> Self {
        Self(Arc::new(Store {
            settings,
            link,
            waiting,
            outage: Outage::new(),
            supervisor,
        }))
    }

    /// The state of the connection, for health checks. Sends nothing.
    pub fn health(&self) -> RedisHealth {
        let link = self.0.link.borrow().clone();
        RedisHealth {
            state: link.state,
            since: link.since,
            waiting: self.0.waiting.load(Ordering::Relaxed),
            eviction: link.eviction,
            epoch: link.epoch,
            failure: link.failure,
        }
    }
}

impl ReplayStore for RedisReplayStore {
    async fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
        let time = Stopwatch::start();
        let outcome = self.0.claim(proof).await;
        let (result, claim) = match outcome {
            Ok(Recorded::Now) => ("first", Ok(Claim::First)),
            Ok(Recorded::OnTheFirstAttempt) => ("own_repeated", Ok(Claim::First)),
            Ok(Recorded::Before) => ("replayed", Ok(Claim::Replayed)),
            Err(error) => (name(error), Err(error)),
        };
        metrics::claimed(result, time.elapsed());
        claim
    }

    fn epoch(&self) -> Epoch {
        self.0.link.borrow().epoch
    }
}

/// When the proof was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recorded {
    Now,
    /// By this claim, but the reply was lost.
    OnTheFirstAttempt,
    /// By another claim.
    Before,
}

const fn name(error: ReplayStoreError) -> &'static str {
    match error {
        ReplayStoreError::Full => "full",
        ReplayStoreError::OtherStore => "other_store",
        ReplayStoreError::Slow => "slow",
        ReplayStoreError::ClientLimit | ReplayStoreError::Unavailable => "unavailable",
    }
}

impl Store {
    async fn claim(&self, proof: UsedProof) -> Result<Recorded, ReplayStoreError> {
        if self.link.borrow().state == RedisLinkState::Down {
            return Err(ReplayStoreError::Unavailable);
        }
        let _waiting = Waiting::enter(&self.waiting, self.settings.max_waiting)?;
        let request = Request::new(&self.settings, proof)?;
        let mut asked = None;
        let decided = timeout(
            self.settings.deadline,
            self.decide(&request, proof, &mut asked),
        )
        .await;
        decided.unwrap_or_else(|_| {
            if let Some(line) = asked {
                line.did_not_answer();
            }
            Err(ReplayStoreError::Slow)
        })
    }

    /// Sends the request, again if the connection is cut. `asked` is the line whose reply is waited for.
    async fn decide(
        &self,
        request: &Request,
        proof: UsedProof,
        asked: &mut Option<Arc<Line>>,
    ) -> Result<Recorded, ReplayStoreError> {
        for _ in 0..=MAX_RETRIES {
            let (line, epoch) = self.line().await?;
            if proof.epoch != epoch {
                return Err(ReplayStoreError::OtherStore);
            }
            *asked = Some(Arc::clone(&line));
            let replies = line.send(&request.commands).await;
            *asked = None;
            let Ok(replies) = replies else {
                continue;
            };
            match request.read(&replies) {
                Reply::Recorded(recorded) => {
                    if let Some(seconds) = self.outage.succeeded(QUIET, proof.now) {
                        tracing::info!(seconds, "Redis accepts records again");
                    }
                    return Ok(recorded);
                }
                Reply::TooFewReplicas => return Err(ReplayStoreError::Slow),
                // Another server may take writes. Nothing was recorded on this one.
                Reply::Error(code) if ["READONLY", "MASTERDOWN", "LOADING"].contains(&code) => {
                    line.report(Cause::ReadOnly);
                }
                Reply::Error("OOM") => return Err(ReplayStoreError::Full),
                Reply::Error(code) => {
                    if self.outage.failed(code.to_owned(), proof.now) {
                        tracing::warn!(code, "Redis does not record proofs");
                    }
                    return Err(ReplayStoreError::Unavailable);
                }
            }
        }
        Err(ReplayStoreError::Unavailable)
    }

    /// The line that takes claims, and its epoch. Waits while the first attempt to replace it is made.
    async fn line(&self) -> Result<(Arc<Line>, Epoch), ReplayStoreError> {
        if let Some((line, epoch)) = self.link.borrow().usable() {
            return Ok((Arc::clone(line), epoch));
        }
        let mut links = self.link.subscribe();
        let link = links
            .wait_for(|link| link.state == RedisLinkState::Down || link.usable().is_some())
            .await
            .map_err(|_| ReplayStoreError::Unavailable)?;
        match link.usable() {
            Some((line, epoch)) => Ok((Arc::clone(line), epoch)),
            None => Err(ReplayStoreError::Unavailable),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

/// Counts a claim while it waits.
struct Waiting<'c>(&'c AtomicUsize);

impl<'c> Waiting<'c> {
    fn enter(count: &'c AtomicUsize, max: usize) -> Result<Self, ReplayStoreError> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let waiting = Self(count);
        if before < max {
            Ok(waiting)
        } else {
            Err(ReplayStoreError::Unavailable)
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The commands of one claim.
struct Request {
    commands: Pipeline,
    /// The value that this claim records, which no other claim has: found again, it shows that the record is this claim's.
    /// Redis keeps an integer without a string, which saves 16 bytes.
    own: String,
    replicas: Option<u32>,
}

/// What the replies say.
enum Reply<'r> {
    Recorded(Recorded),
    TooFewReplicas,
    /// The first word of an error.
    Error(&'r str),
}

impl Request {
    fn new(settings: &Settings, proof: UsedProof) -> Result<Self, ReplayStoreError> {
        let random = getrandom::u64().map_err(|_| ReplayStoreError::Unavailable)?;
        let own = (random >> 1).to_string();
        let key = base64url::encode(proof.key.half());
        let seconds = proof
            .expires
            .as_unix()
            .saturating_sub(proof.now.as_unix())
            .saturating_add(1);
        let margin = u64::try_from(settings.clock_margin.as_millis()).unwrap_or(u64::MAX);
        let lifetime = seconds.saturating_mul(1000).saturating_add(margin);
        // Redis adds it to its own time, and rejects a sum that does not fit.
        let lifetime = lifetime.min(1 << 52);
        let mut commands = Pipeline::with_capacity(2);
        commands
            .cmd("SET")
            .arg(format!("{}{key}", settings.prefix))
            .arg(&own)
            .arg("NX")
            .arg("GET")
            .arg("PX")
            .arg(lifetime);
        if let Some(replicas) = settings.replicas {
            let within = u64::try_from(replicas.within.as_millis()).unwrap_or(u64::MAX);
            // 0 would mean without a limit.
            let within = within.clamp(1, 1 << 31);
            commands.cmd("WAIT").arg(replicas.count).arg(within);
        }
        Ok(Self {
            commands,
            own,
            replicas: settings.replicas.map(|replicas| replicas.count),
        })
    }

    fn read<'r>(&self, replies: &'r [Value]) -> Reply<'r> {
        let recorded = match replies.first() {
            Some(Value::Nil) => Recorded::Now,
            Some(Value::BulkString(value)) if value == self.own.as_bytes() => {
                Recorded::OnTheFirstAttempt
            }
            // The record was there before, on however many replicas.
            Some(Value::BulkString(_)) => return Reply::Recorded(Recorded::Before),
            Some(Value::ServerError(error)) => return Reply::Error(error.code()),
            _ => return Reply::Error("an unknown reply"),
        };
        match (self.replicas, replies.get(1)) {
            (None, _) => Reply::Recorded(recorded),
            // `WAIT` waits for what this connection has written, and the record was written on another one.
            (Some(_), _) if recorded == Recorded::OnTheFirstAttempt => Reply::TooFewReplicas,
            (Some(needed), Some(Value::Int(count))) if *count >= i64::from(needed) => {
                Reply::Recorded(recorded)
            }
            (Some(_), Some(Value::Int(_))) => Reply::TooFewReplicas,
            (Some(_), Some(Value::ServerError(error))) => Reply::Error(error.code()),
            (Some(_), _) => Reply::Error("an unknown reply"),
        }
    }
}

impl fmt::Debug for RedisReplayStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisReplayStore")
            .field("settings", &self.0.settings)
            .field("health", &self.health())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proof::replay::redis::settings::Replicas;
    use crate::proof::replay::store::ReplayKey;
    use crate::time::Timestamp;

    /// Since Redis 7.2, `WAIT` after a `SET` that wrote nothing returns at once, with the number of all replicas.
    #[test]
    fn replicas_that_acknowledge_nothing_do_not_count() {
        let settings = Settings {
            replicas: Some(Replicas {
                count: 2,
                within: Duration::from_millis(50),
            }),
            ..Settings::default()
        };
        let now = Timestamp::from_unix(0);
        let key = ReplayKey::from_parts([1; 32], [1; 16]);
        let request = Request::new(&settings, UsedProof::new(key, now, now, Epoch::UNKNOWN));
        let request = request.unwrap();
        let [own, other] = [&request.own[..], "1"].map(|value| Value::BulkString(value.into()));
        for (name, found, replicas, expected) in [
            ("enough", Value::Nil, 2, Some(Recorded::Now)),
            ("too few", Value::Nil, 1, None),
            ("nothing written", own, 2, None),
            ("a replay", other, 0, Some(Recorded::Before)),
        ] {
            let replies = [found, Value::Int(replicas)];
            let recorded = match request.read(&replies) {
                Reply::Recorded(recorded) => Some(recorded),
                Reply::TooFewReplicas => None,
                Reply::Error(code) => panic!("{name}: {code}"),
            };
            assert_eq!(recorded, expected, "{name}");
        }
    }
}
