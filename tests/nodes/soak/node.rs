//! One of the two nodes: another process of this test binary, as a server whose clock can be set.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::get;
use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpListener;
use tower_dpop::proof::{RedisReplayStore, RedisServer, WhileUnavailable};
use tower_dpop::tokens::HttpClient;
use tower_dpop::{
    DpopLayer, Freshness, JwtVerifier, MemoryReplayStore, NonceSecrets, ProofRules, RemoteKeys,
    StatelessNonces, Verifier,
};

use super::{AUDIENCE, LEEWAY, MARGIN, MAX_AGE, NONCE_PERIOD, PATH};

/// The URLs of Redis and of the issuer, and the file of the nonce secrets.
const NODE: &str = "TOWER_DPOP_NODES_SOAK";

/// Puts a fault into the nodes, to show that the test detects it: `one-use-per-node`, `node-memory-in-outages`,
/// `no-clock-margin`, `old-secrets`, or `leak`.
const FLAW: &str = "SOAK_FLAW";

/// Runs in a process of its own, which [`Node::start`] starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is a node of the test in this folder"]
async fn serves_as_a_node() {
    let Ok(argument) = env::var(NODE) else { return };
    let flaw = env::var(FLAW).unwrap_or_default();
    let [redis, issuer, secrets] = argument.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{argument}");
    };
    let offset = Arc::new(AtomicI64::new(0));
    let shared = Arc::clone(&offset);
    let clock = move || {
        let offset = shared.load(Ordering::SeqCst);
        let by = Duration::from_secs(offset.unsigned_abs());
        let now = SystemTime::now();
        if offset < 0 { now - by } else { now + by }
    };
    let nonces = StatelessNonces::new(NonceSecrets::from_file(secrets).unwrap());
    let freshness = Freshness::default()
        .with_max_age(MAX_AGE)
        .with_leeway(LEEWAY)
        .with_nonce_period(NONCE_PERIOD);
    let rules = ProofRules::new(AUDIENCE.parse().unwrap())
        .with_freshness(freshness)
        .with_nonces(nonces.clone())
        .with_clock(clock.clone());
    let rules = with_store(rules, redis, &flaw).await;
    let http = HttpClient::builder().with_timeout(Duration::from_secs(1));
    let keys = RemoteKeys::discover(issuer.parse().unwrap(), http.build().unwrap())
        .with_lifetime(Duration::from_secs(4), Duration::from_secs(4))
        .with_stale_lifetime(Duration::from_secs(120))
        .with_cooldown(Duration::from_secs(1))
        .with_clock(clock)
        .fetched()
        .await
        .unwrap();
    // Tokens stay in the cache until it is full. It is small, so that this is soon.
    let tokens = JwtVerifier::new(issuer, AUDIENCE, keys).with_cache_capacity(2 << 20);
    let verifier = Verifier::new(rules, tokens);
    let leaked = Arc::new(Mutex::new(Vec::new()));
    let leaks = flaw == "leak";
    let handler = async move || {
        if leaks {
            leaked.lock().unwrap().push(vec![1_u8; 8_000]);
        }
        "accepted"
    };
    let app = Router::new()
        .route(PATH, get(handler))
        .route_layer(DpopLayer::new(verifier));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    println!("ready {}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    // It ends with the process that started it.
    while let Some(line) = lines.next_line().await.unwrap() {
        match line.split_once(' ') {
            Some(("clock", seconds)) => offset.store(seconds.parse().unwrap(), Ordering::SeqCst),
            None if line == "secrets" && flaw == "old-secrets" => {}
            None if line == "secrets" => {
                nonces.replace_secrets(NonceSecrets::from_file(secrets).unwrap());
            }
            _ => panic!("{line}"),
        }
        println!("done");
    }
}

async fn with_store(rules: ProofRules, redis: &str, flaw: &str) -> ProofRules {
    if flaw == "one-use-per-node" {
        return rules.with_insecure_one_use_per_node();
    }
    let margin = match flaw {
        "no-clock-margin" => Duration::ZERO,
        _ => MARGIN,
    };
    let store = RedisReplayStore::at(RedisServer::url(redis).unwrap())
        .with_clock_margin(margin)
        // Four times the default: other processes may use the processor.
        .with_deadline(Duration::from_secs(1))
        .connect()
        .await
        .unwrap();
    if flaw == "node-memory-in-outages" {
        let memory = MemoryReplayStore::with_limit(1_000_000);
        let store = WhileUnavailable::insecurely_by_node_memory(store, memory);
        return rules.with_replay_store(store);
    }
    rules.with_replay_store(store)
}

/// The process of a node, ended on drop.
pub(super) struct Node {
    process: Child,
    talk: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    url: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Node {
    pub(super) fn start(redis: &str, issuer: &str, secrets: &Path) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "soak::node::serves_as_a_node"])
            .args(["--ignored", "--nocapture"])
            .env(NODE, format!("{redis} {issuer} {}", secrets.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let address = line(&mut output, "ready ");
        Self {
            process,
            talk: Mutex::new((input, output)),
            url: format!("http://{address}{PATH}"),
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Sets how many seconds its clock is ahead.
    pub(super) fn set_clock(&self, ahead: i64) {
        self.tell(&format!("clock {ahead}"));
    }

    /// Makes it read the file of secrets again.
    pub(super) fn read_secrets(&self) {
        self.tell("secrets");
    }

    fn tell(&self, command: &str) {
        let mut talk = self.talk.lock().unwrap();
        writeln!(talk.0, "{command}").unwrap();
        line(&mut talk.1, "done");
    }

    /// Its resident memory in bytes.
    pub(super) fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
        kilobytes.parse::<u64>().unwrap() * 1024
    }
}

/// The rest of the next line after this text: libtest writes the name of the test before it, without a line break.
fn line(output: &mut BufReader<ChildStdout>, start: &str) -> String {
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 {
        if let Some((_, rest)) = line.split_once(start) {
            return rest.trim().to_owned();
        }
        line.clear();
    }
    panic!("the node ended");
}
