//! The task that keeps a line to the primary: it connects, asks the server once per second what it is, and replaces the line
//! when it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::outage::Outage;
use crate::proof::replay::redis::dial::{Dialer, failed, timed_out};
use crate::proof::replay::redis::health::{Link, RedisLinkState};
use crate::proof::replay::redis::line::{Cause, Line, Trouble, exchange};
use crate::proof::replay::redis::probe::{Facts, Probe, Told};
use crate::proof::replay::redis::server::Endpoint;
use crate::proof::replay::redis::settings::{EvictionRule, Settings};
use crate::proof::replay::redis::start_error::RedisStartError;
use crate::telemetry::replay_store::shared as metrics;
use crate::time::Clock;

pub(crate) struct Supervisor {
    dialer: Dialer,
    settings: Arc<Settings>,
    link: Arc<watch::Sender<Link>>,
    waiting: Arc<AtomicUsize>,
    clock: Clock,
    outage: Outage,
    /// The address of the server of the line, for the log.
    address: String,
    /// What was last known of a server.
    facts: Option<Facts>,
    /// Attempts to connect since a line was last found good.
    attempts: u32,
    untold: Untold,
    /// The number of the sentinel that is asked first.
    first_sentinel: usize,
}

/// Why a line is not watched any more.
enum End {
    /// There is another primary, and a line to it.
    Followed(Arc<Line>),
    Trouble(Cause),
}

/// Whether the log has it that the server does not tell what it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Untold {
    Logged,
    NotLogged,
}

/// How often the server is asked what it is. A `FLUSHALL` is noticed after this time.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest limit of one attempt to connect.
const MIN_CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// The limit of the first attempt, for which no request waits.
const START_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(250);

impl Supervisor {
    pub(crate) fn new(
        dialer: Dialer,
        settings: Arc<Settings>,
        waiting: Arc<AtomicUsize>,
        clock: Clock,
    ) -> Self {
        Self {
            link: Arc::new(watch::Sender::new(Link::new(clock.now()))),
            dialer,
            settings,
            waiting,
            clock,
            outage: Outage::new(),
            address: String::new(),
            facts: None,
            attempts: 0,
            untold: Untold::NotLogged,
            first_sentinel: 0,
        }
    }

    /// What claims see.
    pub(crate) fn link(&self) -> Arc<watch::Sender<Link>> {
        Arc::clone(&self.link)
    }

    /// The first attempt to connect.
    pub(crate) async fn start(&mut self) -> Result<Arc<Line>, RedisStartError> {
        let line = self.connect(START_TIMEOUT).await?;
        metrics::connected(Cause::Start.name());
        Ok(line)
    }

    /// Keeps the line, until the task is aborted.
    pub(crate) async fn run(mut self, mut line: Option<Arc<Line>>) {
        loop {
            let cause = match &line {
                Some(current) => match self.watch(current).await {
                    End::Followed(next) => {
                        line = Some(next);
                        continue;
                    }
                    End::Trouble(cause) => cause,
                },
                None => Cause::Start,
            };
            line = Some(self.replace(line, cause).await);
        }
    }

    /// Asks the server what it is, once per second, until the line must be replaced.
    async fn watch(&mut self, line: &Arc<Line>) -> End {
        loop {
            tokio::select! {
                cause = line.trouble() => return End::Trouble(cause),
                () = sleep(PROBE_INTERVAL) => {}
            }
            let probe = Probe::new(&self.settings, random());
            let replies = timeout(self.connect_timeout(), line.send(probe.commands()));
            match replies.await {
                Err(_) => {
                    line.report(Cause::Silent);
                    return End::Trouble(Cause::Silent);
                }
                Ok(Err(_)) => return End::Trouble(line.trouble().await),
                Ok(Ok(replies)) => match probe.read(&self.address, &replies, self.facts.as_ref()) {
                    Ok(facts) => {
                        self.attempts = 0;
                        self.learn(facts, line);
                    }
                    Err(error) => {
                        let cause = match error {
                            RedisStartError::NotAPrimary { .. } => Cause::ReadOnly,
                            _ => Cause::Probe,
                        };
                        line.report(cause);
                        return End::Trouble(cause);
                    }
                },
            }
            tokio::select! {
                cause = line.trouble() => return End::Trouble(cause),
                next = self.follow() => {
                    if let Some(next) = next {
                        return End::Followed(next);
                    }
                }
            }
        }
    }

    /// A line to another primary, if the sentinels name one and it can be used. The earlier one may take writes for some seconds
    /// more, or for as long as it is cut off from the sentinels, and its records are lost then.
    async fn follow(&mut self) -> Option<Arc<Line>> {
        // If no sentinel responds, the primary is the last one that they named.
        let named = self.dialer.locate(self.first_sentinel).await.ok()?;
        if named.address.to_string() == self.address {
            return None;
        }
        let present = self.address.clone();
        let line = self.connect(self.connect_timeout()).await.ok();
        match line {
            Some(_) => metrics::connected(Cause::Probe.name()),
            // It is no primary yet, or the sentinel is not up to date.
            None => self.address = present,
        }
        line
    }

    /// A line in place of this one. If it is only silent, it serves until there is another.
    async fn replace(&mut self, line: Option<Arc<Line>>, cause: Cause) -> Arc<Line> {
        let mut silent = line.filter(|_| cause == Cause::Silent);
        match &silent {
            Some(line) => line.listen(),
            None => self.publish(|link| {
                link.line = None;
                if link.state == RedisLinkState::Up {
                    link.state = RedisLinkState::Connecting;
                }
            }),
        }
        loop {
            if cause != Cause::Start && silent.is_none() || self.attempts > 0 {
                sleep(self.backoff()).await;
            }
            self.attempts = self.attempts.saturating_add(1);
            match self.connect(self.connect_timeout()).await {
                Ok(line) => {
                    metrics::connected(cause.name());
                    tracing::debug!(address = self.address, cause = cause.name(), "connected");
                    return line;
                }
                Err(error) => {
                    if let Some(line) = silent.take_if(|line| line.has_recovered()) {
                        return line;
                    }
                    silent = None;
                    // One that does not hear the others may name a primary that is gone.
                    self.first_sentinel = self.first_sentinel.wrapping_add(1);
                    self.is_down(error);
                }
            }
        }
    }

    /// Opens a line, and publishes it.
    async fn connect(&mut self, limit: Duration) -> Result<Arc<Line>, RedisStartError> {
        let endpoint = self.dialer.locate(self.first_sentinel).await?;
        let opened = timeout(limit, self.open(&endpoint)).await;
        let (line, facts) = opened.unwrap_or_else(|_| Err(timed_out(&endpoint)))?;
        self.address = endpoint.address.to_string();
        if let Some(error) = self.eviction(&facts) {
            metrics::evicting(true);
            return Err(error);
        }
        let line = Arc::new(line);
        self.learn(facts, &line);
        Ok(line)
    }

    async fn open(&self, endpoint: &Endpoint) -> Result<(Line, Facts), RedisStartError> {
        let address = endpoint.address.to_string();
        let trouble = Arc::new(Trouble::new());
        let mut connections = Vec::new();
        let mut facts: Option<Facts> = None;
        for _ in 0..self.settings.connections.get() {
            let trouble = Arc::clone(&trouble);
            let opening = self
                .dialer
                .open(endpoint, move || trouble.report(Cause::Cut));
            let connection = opening.await?;
            let probe = Probe::new(&self.settings, random());
            let replies = exchange(&connection, probe.commands()).await;
            let replies = replies.map_err(|error| failed(endpoint, &error))?;
            let known = facts.as_ref().or(self.facts.as_ref());
            let found = probe.read(&address, &replies, known)?;
            if facts
                .as_ref()
                .is_some_and(|facts| facts.epoch != found.epoch)
            {
                return Err(RedisStartError::Unreachable {
                    address,
                    reason: "its connections reach different servers".to_owned(),
                });
            }
            facts = Some(found);
            connections.push(connection);
        }
        match facts {
            Some(facts) => Ok((Line::new(connections, trouble), facts)),
            None => Err(timed_out(endpoint)),
        }
    }

    /// Publishes what the server of this line said.
    fn learn(&mut self, facts: Facts, line: &Arc<Line>) {
        if self.facts.as_ref().map(|facts| facts.epoch) != Some(facts.epoch) {
            metrics::new_epoch();
            if self.facts.is_some() {
                tracing::info!(
                    address = self.address,
                    "the replay store has another epoch: nonces and requests of the earlier one are rejected"
                );
            }
        }
        if facts.told == Told::NotItsIdentity && self.untold == Untold::NotLogged {
            self.untold = Untold::Logged;
            tracing::warn!(
                address = self.address,
                "INFO of the replay store is not permitted or incomplete: nonces are not bound to its records, and it is not known \
                 whether it evicts them"
            );
        }
        let evicts = self.eviction(&facts);
        metrics::evicting(facts.evicts.is_some());
        let (epoch, eviction) = (facts.epoch, facts.eviction());
        self.facts = Some(facts);
        if let Some(error) = evicts {
            self.publish(|link| {
                link.epoch = epoch;
                link.eviction = eviction;
            });
            self.is_down(error);
            return;
        }
        self.publish(|link| {
            link.state = RedisLinkState::Up;
            link.line = Some(Arc::clone(line));
            link.epoch = epoch;
            link.eviction = eviction;
            link.failure = None;
        });
        if let Some(seconds) = self.outage.succeeded(0, self.clock.now()) {
            tracing::info!(
                address = self.address,
                seconds,
                "the replay store is reachable again"
            );
        }
    }

    /// Why a server that evicts records is not used.
    fn eviction(&self, facts: &Facts) -> Option<RedisStartError> {
        let policy = facts.evicts.clone()?;
        let is_rejected = self.settings.eviction == EvictionRule::Rejected;
        is_rejected.then(|| RedisStartError::EvictsRecords {
            address: self.address.clone(),
            policy,
        })
    }

    fn is_down(&self, error: RedisStartError) {
        if self.outage.failed(error.to_string(), self.clock.now()) {
            tracing::warn!("the replay store cannot be used: {error}");
        }
        self.publish(|link| {
            link.state = RedisLinkState::Down;
            link.line = None;
            link.failure = Some(error);
        });
    }

    fn publish(&self, change: impl FnOnce(&mut Link)) {
        self.link.send_modify(|link| {
            let state = link.state;
            change(link);
            if link.state != state {
                link.since = self.clock.now();
            }
            metrics::link_is_up(link.state == RedisLinkState::Up);
        });
        metrics::waiting(self.waiting.load(Ordering::Relaxed));
    }

    /// The limit of one attempt to connect. It varies, since a short one finds a server early that is back, and only a long one gets
    /// through a slow network.
    fn connect_timeout(&self) -> Duration {
        let twice = self.settings.deadline.saturating_mul(2);
        let shortest = twice.clamp(MIN_CONNECT_TIMEOUT, START_TIMEOUT);
        shortest * (1 << (self.attempts % 3))
    }

    /// Doubles with each attempt. Random up to this time, so that nodes do not all come at once.
    fn backoff(&self) -> Duration {
        let longest = FIRST_BACKOFF * (1 << self.attempts.min(5));
        let parts = u32::try_from(random() % 1024).unwrap_or_default();
        longest.min(MAX_BACKOFF) * parts / 1024
    }
}

fn random() -> u64 {
    getrandom::u64().expect("the operating system gives randomness")
}
