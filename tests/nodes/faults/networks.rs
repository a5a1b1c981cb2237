//! Networks that drop, cut, delay and garble.

use std::time::Duration;

use tokio::net::TcpSocket;
use tower_dpop::proof::{Claim, RedisLinkState, RedisStartError, ReplayStoreError};

use super::{
    DEADLINE, MARGIN, RECOVERY, at, claim, connected, fresh_key, scenarios, timed_claim, until,
    until_it_accepts, until_it_is,
};
use crate::proxy::{Cut, Fault, Proxy};
use crate::servers::Redis;

/// In either direction, under load. Nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_network_costs_a_claim_no_more_than_the_deadline() {
    for fault in [Fault::HoldRequests, Fault::HoldReplies, Fault::HoldBoth] {
        let outcome = scenarios::held(fault, Duration::from_secs(1)).await;
        outcome.assert_safe();
        assert_eq!(outcome.again.all, 0, "{fault:?}");
        let (slowest, recovery) = (outcome.made.slowest(), outcome.recovery.unwrap());
        println!("{fault:?}: slowest {slowest:?}, recovery {recovery:?}");
        assert!(slowest < DEADLINE + MARGIN, "{fault:?}: {slowest:?}");
        assert!(recovery < RECOVERY, "{fault:?}: {recovery:?}");
    }
}

/// Only the present connection is silent: a new one works, and the store makes one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_is_replaced() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let store = connected(&proxy.url()).await;
    let epoch = tower_dpop::ReplayStore::epoch(&store);
    assert_eq!(claim(&store, fresh_key()).await, Ok(Claim::First));
    proxy.cut(Cut::HalfOpen);
    let (result, took) = timed_claim(&store, fresh_key()).await;
    assert_eq!(result, Err(ReplayStoreError::Slow));
    assert!(took < DEADLINE + MARGIN, "{took:?}");
    let recovery = until_it_accepts(&store).await;
    println!("a half-open connection: replaced after {recovery:?}");
    assert!(recovery < 9 * (DEADLINE + MARGIN), "{recovery:?}");
    assert_eq!(
        tower_dpop::ReplayStore::epoch(&store),
        epoch,
        "it is the same server"
    );
}

/// A connection is cut between two claims, as by a router that forgets idle ones, or while a claim waits. Each time it is
/// the first cut: a connection that is cut again and again is replaced more slowly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_costs_no_claim() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    // What is tested is that the claim is repeated, not how fast.
    let patient = async || {
        let store = at(&proxy.url()).with_deadline(Duration::from_secs(5));
        store.connect().await.unwrap()
    };
    for cut in [Cut::Close, Cut::Reset].repeat(5) {
        let store = patient().await;
        proxy.cut(cut);
        let (result, took) = timed_claim(&store, fresh_key()).await;
        assert_eq!(result, Ok(Claim::First), "{cut:?} after {took:?}");
    }
    for cut in [Cut::Close, Cut::Reset].repeat(5) {
        let store = patient().await;
        proxy.set(Fault::HoldReplies);
        let key = fresh_key();
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { claim(&store, key).await }
        });
        until("the claim waits", async || store.health().waiting == 1).await;
        proxy.cut(cut);
        proxy.set(Fault::None);
        assert_eq!(waiting.await.unwrap(), Ok(Claim::First), "{cut:?}");
        assert_eq!(claim(&store, key).await, Ok(Claim::Replayed), "{cut:?}");
    }
    // An administrator does the same.
    let store = connected(&redis.url()).await;
    redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert_eq!(claim(&store, fresh_key()).await, Ok(Claim::First));
}

/// No reply is trusted, waited for beyond the deadline, or collected without a limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wrong_reply_makes_a_first_use() {
    for (name, fault) in [
        ("one byte per second", Fault::Slow),
        (
            "no reply of Redis",
            Fault::ReplaceReplies(b"\x00\xff\xfe garbage\r\n"),
        ),
        (
            "HTTP",
            Fault::ReplaceReplies(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ),
        ("no end of line", Fault::ReplaceReplies(&[b'+'; 16_384])),
        ("OK", Fault::ReplaceReplyToSet(b"+OK\r\n")),
        ("text", Fault::ReplaceReplyToSet(b"$3\r\nabc\r\n")),
        ("empty text", Fault::ReplaceReplyToSet(b"$0\r\n\r\n")),
        (
            "a negative number",
            Fault::ReplaceReplyToSet(b"$2\r\n-1\r\n"),
        ),
        ("an array", Fault::ReplaceReplyToSet(b"*2\r\n:1\r\n:2\r\n")),
        ("an empty array", Fault::ReplaceReplyToSet(b"*0\r\n")),
        ("an error", Fault::ReplaceReplyToSet(b"-ERR unknown\r\n")),
        (
            "an error that is no UTF-8",
            Fault::ReplaceReplyToSet(b"-ERR \xff\xfe\r\n"),
        ),
        ("half a reply", Fault::ReplaceReplyToSet(b"$20\r\n12")),
        (
            "an array of 2^31",
            Fault::ReplaceReplyToSet(b"*2147483647\r\n"),
        ),
        (
            "a text of 2^62",
            Fault::ReplaceReplyToSet(b"$4611686018427387904\r\n"),
        ),
        ("1 GiB", Fault::HugeReplies),
    ] {
        let redis = Redis::start();
        let proxy = Proxy::to(redis.port());
        let store = connected(&proxy.url()).await;
        proxy.set(fault);
        let memory = resident();
        // What arrives at once keeps a thread of this small runtime busy, which delays timers and the next connection.
        let (margin, recovers_within) = match fault {
            Fault::HugeReplies => (3 * MARGIN, 2 * RECOVERY),
            _ => (MARGIN, RECOVERY),
        };
        for number in 0..20 {
            let (result, took) = timed_claim(&store, fresh_key()).await;
            assert_ne!(result, Ok(Claim::First), "{name}, claim {number}");
            assert!(took < DEADLINE + margin, "{name}, claim {number}: {took:?}");
        }
        let grown = resident().saturating_sub(memory) / 1024;
        proxy.set(Fault::None);
        let recovery = until_it_accepts(&store).await;
        println!("{name}: {grown} MiB more, recovery {recovery:?}");
        assert!(recovery < recovers_within, "{name}: {recovery:?}");
    }
}

/// The memory of this process in KiB. Other tests use it, too.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let digits = line.unwrap().trim().trim_end_matches(" kB");
    digits.parse().unwrap()
}

/// The start does not wait for ever, and says what is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_start_fails_on_a_network_that_is_silent_or_closed() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let full = FullBacklog::new().await;
    let nothing = format!("redis://127.0.0.1:{}", crate::servers::free_port());
    for (name, url, fault) in [
        ("held connections", proxy.url(), Fault::HoldConnections),
        ("held replies", proxy.url(), Fault::HoldReplies),
        ("closed connections", proxy.url(), Fault::RejectConnections),
        (
            "garbage",
            proxy.url(),
            Fault::ReplaceReplies(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ),
        ("huge", proxy.url(), Fault::HugeReplies),
        ("no listener", nothing, Fault::None),
        ("SYN without a response", full.url(), Fault::None),
    ] {
        proxy.set(fault);
        let started = tokio::time::timeout(Duration::from_secs(10), at(&url).connect()).await;
        let error = started
            .unwrap_or_else(|_| panic!("{name}: it waits"))
            .unwrap_err();
        println!("{name}: {error}");
        // A reply that is no reply of Redis, if it arrives in time.
        let is_unknown = fault == Fault::HugeReplies
            && matches!(&error, RedisStartError::NotWritable { code, .. } if code == "an unknown reply");
        assert!(
            is_unknown || matches!(error, RedisStartError::Unreachable { .. }),
            "{name}: {error:?}"
        );
    }
}

/// A listener that completes no further connection.
struct FullBacklog(
    std::net::SocketAddr,
    Vec<tokio::net::TcpStream>,
    tokio::net::TcpListener,
);

impl FullBacklog {
    async fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        let limit = Duration::from_millis(200);
        while let Ok(connected) =
            tokio::time::timeout(limit, tokio::net::TcpStream::connect(address)).await
        {
            waiting.push(connected.unwrap());
        }
        Self(address, waiting, listener)
    }

    fn url(&self) -> String {
        assert!(!self.1.is_empty());
        format!("redis://{}", self.2.local_addr().unwrap_or(self.0))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_connects_lazily_rejects_until_it_is_there() {
    let mut redis = Redis::start();
    redis.kill();
    let store = at(&redis.url()).connect_lazily();
    until_it_is(&store, RedisLinkState::Down).await;
    let (result, took) = timed_claim(&store, fresh_key()).await;
    assert_eq!(result, Err(ReplayStoreError::Unavailable));
    assert!(took < DEADLINE, "{took:?}");
    redis.restart();
    until_it_accepts(&store).await;
    assert_eq!(store.health().state, RedisLinkState::Up);
}
