//! A replay store in a table of PostgreSQL. Copy this file; it needs `tokio-postgres`, `tokio`, `getrandom` and `tracing`.
//!
//! **One statement per claim**, which is atomic: it looks for the epoch's marker and inserts the record unless there is one.
//! Each claim has a random value of its own, the `owner` of its record. If the connection is cut before the response, the claim
//! is repeated with the same value: a record with it is the claim's own, and not a replay.
//!
//! **Epoch.** The marker is a row in the same table. Its key is the identifier of the database system and the timeline, its
//! `owner` a random number, and the epoch names all three. A promoted standby has a new timeline, because it may lack
//! the last records. `TRUNCATE`, and `DROP TABLE`, remove the marker with the records. Each connection reads the marker when it
//! begins, so do not put a pooler in between that hides a failover. Two losses cannot be seen, so empty the
//! table after them: a `DELETE` of records by someone else, and a file system that was set back to a snapshot.
//!
//! **`UNLOGGED`** halves the time of a claim. PostgreSQL empties such a table after a crash, and it is empty on standbys; the marker is
//! gone then, too, so the epoch is another one. Without nonces this is not enough: proofs can be used again after each crash.
//! A logged table keeps its records: each connection sets `synchronous_commit`, which many databases turn off.
//!
//! **Clocks.** Only the clock of the server decides when a record can be deleted, and a record lives for half a minute longer than its
//! proof, because the clocks of nodes differ.

use std::error::Error as _;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls, Statement};
use tower_dpop::ReplayStore;
use tower_dpop::proof::{Claim, Epoch, ReplayStoreError, UsedProof};

/// Connections for claims: a commit waits for the disk, and one connection has one commit at a time.
const CONNECTIONS: usize = 4;
/// For a claim with all its repetitions. Above the stalls of a healthy server, below the patience of clients.
const DEADLINE: Duration = Duration::from_millis(250);
/// For a new connection, and until the kernel ends one that is silent.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// How often a claim is made in all, if its connection is cut each time.
const ATTEMPTS: usize = 3;
/// How far the clocks of nodes may differ.
const CLOCK_MARGIN_SECONDS: u64 = 30;
/// Expired records that one statement deletes, so that none holds its locks for long.
const DELETED_AT_ONCE: i64 = 1_000;

/// Whether the records survive a crash of the server.
#[derive(Clone, Copy)]
pub enum Table {
    Logged,
    Unlogged,
}

/// Records used proofs in PostgreSQL. Clones are handles to the same connections.
#[derive(Clone)]
pub struct PostgresReplayStore(Arc<Inner>);

struct Inner {
    /// Those for claims, and one more for the deletion of expired records.
    connections: Vec<watch::Receiver<State>>,
    /// The last one that was seen.
    epoch: Arc<RwLock<Epoch>>,
}

/// One connection.
#[derive(Clone)]
enum State {
    /// For the first time, or again after it was cut.
    Connecting,
    /// The last attempt failed.
    Down,
    Up(Arc<Link>),
}

struct Link {
    client: Client,
    claim: Statement,
    marker: Marker,
    /// Asks for a new connection instead of this one.
    retired: Notify,
}

/// The row that names the records that are in the table.
#[derive(PartialEq)]
struct Marker {
    key: Vec<u8>,
    value: i64,
}

impl Marker {
    fn epoch(&self) -> Epoch {
        Epoch::of(&[&self.key[..], &self.value.to_be_bytes()].concat())
    }
}

const IS_MISSING: &str = "SELECT to_regclass('dpop_used_proofs') IS NULL";

/// 16 bytes are the key of a record, others that of a marker. Without the lock, one of two simultaneous creations would fail.
fn creation(table: Table) -> String {
    let unlogged = match table {
        Table::Logged => "",
        Table::Unlogged => "UNLOGGED",
    };
    format!(
        "BEGIN;
    SELECT pg_advisory_xact_lock(hashtext('dpop_used_proofs'));
    CREATE {unlogged} TABLE IF NOT EXISTS dpop_used_proofs (
        key bytea PRIMARY KEY,
        owner bigint NOT NULL,
        expires timestamptz NOT NULL
    );
    CREATE INDEX IF NOT EXISTS dpop_used_proofs_expires ON dpop_used_proofs (expires);
    COMMIT"
    )
}

/// Returns whether the marker is there, and whether the record is this claim's.
const CLAIM: &str = "
    WITH marker AS (
        SELECT FROM dpop_used_proofs WHERE key = $4 AND owner = $5
    ), claimed AS (
        INSERT INTO dpop_used_proofs AS p (key, owner, expires)
        SELECT $1, $2, clock_timestamp() + make_interval(secs => $3::int) FROM marker
        ON CONFLICT (key) DO UPDATE SET owner = p.owner WHERE p.owner = $2
        RETURNING 1
    )
    SELECT EXISTS (SELECT FROM marker), EXISTS (SELECT FROM claimed)";

/// Fails on a standby. `pg_control_checkpoint()` has the timeline, too, but only after the checkpoint that follows a promotion.
const MARKER_KEY: &str = "
    SELECT convert_to(system_identifier || ' ' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), 'UTF8')
    FROM pg_control_system()";

const READ_MARKER: &str = "SELECT owner FROM dpop_used_proofs WHERE key = $1";

/// The first node writes it. The others get its value.
const WRITE_MARKER: &str = "
    INSERT INTO dpop_used_proofs AS p (key, owner, expires) VALUES ($1, $2, 'infinity')
    ON CONFLICT (key) DO UPDATE SET owner = p.owner
    RETURNING owner";

/// All nodes delete, so none waits for the other.
const DELETE: &str = "
    DELETE FROM dpop_used_proofs WHERE key IN (
        SELECT key FROM dpop_used_proofs WHERE expires < clock_timestamp()
        ORDER BY expires LIMIT $1 FOR UPDATE SKIP LOCKED
    )";

impl PostgresReplayStore {
    /// Connects, and creates the table unless it exists: only then is the right to create one needed. `config` can name several hosts, with
    /// `target_session_attrs=read-write`. There is no TLS here: over a network, use `tokio-postgres-rustls`.
    pub async fn connect(mut config: Config, table: Table) -> Result<Self, Error> {
        config.connect_timeout(CONNECT_DEADLINE);
        config.tcp_user_timeout(CONNECT_DEADLINE);
        let (first, _ended) = Link::open(&config, table).await?;
        let epoch = Arc::new(RwLock::new(first.marker.epoch()));

        let connect = |_| {
            let (state, connection) = watch::channel(State::Connecting);
            let epoch = Arc::clone(&epoch);
            tokio::spawn(keep_connected(config.clone(), table, state, epoch));
            connection
        };
        let inner = Arc::new(Inner {
            connections: (0..=CONNECTIONS).map(connect).collect(),
            epoch: Arc::clone(&epoch),
        });
        tokio::spawn(keep_clean(Arc::downgrade(&inner)));
        Ok(Self(inner))
    }
}

impl ReplayStore for PostgresReplayStore {
    async fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
        let claim = timeout(DEADLINE, self.0.claim(proof));
        claim.await.unwrap_or(Err(ReplayStoreError::Slow))
    }

    fn epoch(&self) -> Epoch {
        *self.0.epoch.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    async fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
        let own = random();
        let chosen = usize::from(proof.key.half()[0]) % CONNECTIONS;
        for _ in 0..ATTEMPTS {
            let link = self.link(chosen).await?;
            if proof.epoch != link.marker.epoch() {
                if proof.epoch != *self.epoch.read().unwrap_or_else(PoisonError::into_inner) {
                    return Err(ReplayStoreError::OtherStore);
                }
                // Another connection has seen the new epoch before this one.
                self.renew(chosen, &link).await;
                continue;
            }
            match link.claim(own, &proof).await {
                Ok(Some(claim)) => return Ok(claim),
                Ok(None) => {
                    // The response to this request needs a nonce of the new epoch.
                    self.renew(chosen, &link).await;
                    return Err(ReplayStoreError::OtherStore);
                }
                Err(error) if is_cut(&error) => self.renew(chosen, &link).await,
                Err(error) if error.code() == Some(&SqlState::DISK_FULL) => {
                    return Err(ReplayStoreError::Full);
                }
                Err(error) => {
                    tracing::warn!(error = describe(&error), "a claim failed in PostgreSQL");
                    return Err(ReplayStoreError::Unavailable);
                }
            }
        }
        Err(ReplayStoreError::Unavailable)
    }

    /// Waits while a connection is being made, but not after that has failed.
    async fn link(&self, chosen: usize) -> Result<Arc<Link>, ReplayStoreError> {
        let mut connection = self.connections[chosen].clone();
        let state = connection.wait_for(|state| !matches!(state, State::Connecting));
        match state.await.as_deref() {
            Ok(State::Up(link)) => Ok(Arc::clone(link)),
            _ => Err(ReplayStoreError::Unavailable),
        }
    }

    /// Waits until this connection has been replaced, or cannot be.
    async fn renew(&self, chosen: usize, link: &Arc<Link>) {
        link.retired.notify_one();
        let mut connection = self.connections[chosen].clone();
        let replaced = connection.wait_for(|state| match state {
            State::Connecting => false,
            State::Down => true,
            State::Up(other) => !Arc::ptr_eq(link, other),
        });
        let _ = replaced.await;
    }
}

impl Link {
    async fn open(
        config: &Config,
        table: Table,
    ) -> Result<(Self, impl Future<Output = ()>), Error> {
        let (client, connection) = config.connect(NoTls).await?;
        let mut connection = AbortOnDrop(tokio::spawn(async move {
            let _ = connection.await;
        }));
        // For the creation of the table and the marker, too.
        client.batch_execute("SET synchronous_commit = on").await?;
        if client.query_one(IS_MISSING, &[]).await?.get(0) {
            client.batch_execute(&creation(table)).await?;
        }
        let link = Self {
            claim: client.prepare(CLAIM).await?,
            marker: read_marker(&client).await?,
            client,
            retired: Notify::new(),
        };
        Ok((link, async move {
            let _ = (&mut connection.0).await;
        }))
    }

    /// `None` if the marker is gone.
    async fn claim(&self, own: i64, proof: &UsedProof) -> Result<Option<Claim>, Error> {
        let seconds = proof.expires.as_unix().saturating_sub(proof.now.as_unix());
        let row = self
            .client
            .query_one(
                &self.claim,
                &[
                    &proof.key.half().as_slice(),
                    &own,
                    // Through the last second.
                    &i32::try_from(seconds + 1 + CLOCK_MARGIN_SECONDS).unwrap_or(i32::MAX),
                    &self.marker.key,
                    &self.marker.value,
                ],
            )
            .await?;
        Ok(match (row.get(0), row.get(1)) {
            (false, _) => None,
            (true, true) => Some(Claim::First),
            (true, false) => Some(Claim::Replayed),
        })
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn read_marker(client: &Client) -> Result<Marker, Error> {
    let key: Vec<u8> = client.query_one(MARKER_KEY, &[]).await?.get(0);
    let row = match client.query_opt(READ_MARKER, &[&key]).await? {
        Some(row) => row,
        None => client.query_one(WRITE_MARKER, &[&key, &random()]).await?,
    };
    Ok(Marker {
        key,
        value: row.get(0),
    })
}

/// Connects, and connects again, until the store is dropped.
async fn keep_connected(
    config: Config,
    table: Table,
    state: watch::Sender<State>,
    epoch: Arc<RwLock<Epoch>>,
) {
    let mut pause = Duration::from_millis(10);
    while !state.is_closed() {
        match timeout(CONNECT_DEADLINE, Link::open(&config, table)).await {
            Ok(Ok((link, ended))) => {
                *epoch.write().unwrap_or_else(PoisonError::into_inner) = link.marker.epoch();
                let link = Arc::new(link);
                state.send_replace(State::Up(Arc::clone(&link)));
                tokio::select! {
                    () = ended => {}
                    () = link.retired.notified() => {}
                    () = state.closed() => {}
                }
                state.send_replace(State::Connecting);
                pause = Duration::from_millis(10);
            }
            failed => {
                let error = match failed {
                    Ok(Err(error)) => describe(&error),
                    _ => "no response in time".to_owned(),
                };
                if !matches!(state.send_replace(State::Down), State::Down) {
                    tracing::warn!(error, "PostgreSQL is unreachable");
                }
                tokio::select! {
                    () = sleep(pause) => {}
                    () = state.closed() => {}
                }
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

/// Deletes expired records, and looks for another epoch, once per second until the store is dropped.
async fn keep_clean(store: Weak<Inner>) {
    loop {
        sleep(Duration::from_secs(1)).await;
        let Some(store) = store.upgrade() else {
            return;
        };
        let Ok(link) = store.link(CONNECTIONS).await else {
            continue;
        };
        let result = async {
            let is_current = read_marker(&link.client).await? == link.marker;
            while link.client.execute(DELETE, &[&DELETED_AT_ONCE]).await? == DELETED_AT_ONCE as u64
            {
            }
            Ok::<_, Error>(is_current)
        };
        match result.await {
            Ok(true) => {}
            // The next connection reads the marker again.
            Ok(false) => link.retired.notify_one(),
            Err(error) => {
                tracing::warn!(error = describe(&error), "expired records were not deleted");
                link.retired.notify_one();
            }
        }
    }
}

/// Whether a new connection can help: this one has ended, its server takes no writes any more, or the table is gone, which a new
/// connection creates.
fn is_cut(error: &Error) -> bool {
    let Some(code) = error.code() else {
        return true;
    };
    // 57P: the server shuts down, or cannot take connections yet.
    code.code().starts_with("57P")
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION
        || *code == SqlState::UNDEFINED_TABLE
}

/// The error with its cause, which says more.
fn describe(error: &Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn random() -> i64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    i64::from_ne_bytes(bytes)
}
