//! The servers, the sentinels and the proxy of these tests do what they promise.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::proxy::{Cut, Fault, Loss, Proxy};
use crate::resp::{Reply, command, encoded};
use crate::servers::{Redis, Sentinels, wait_for};

#[test]
fn a_server_is_killed_and_starts_empty_on_its_port() {
    let mut redis = Redis::with(&["--maxmemory", "3mb"]);
    let (port, run) = (redis.port(), redis.info("run_id"));
    assert!(redis.run(&["SET", "a", "1"]).is_ok());
    assert_eq!(redis.keys(), 1);
    assert_eq!(redis.info("maxmemory"), "3145728");
    redis.restart();
    assert_eq!(redis.port(), port);
    assert_eq!(redis.keys(), 0);
    assert_ne!(redis.info("run_id"), run);
    assert_eq!(redis.info("maxmemory"), "3145728");
    redis.kill();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn sentinels_replace_a_killed_primary() {
    let mut primary = Redis::start();
    let replicas = [Redis::replica_of(&primary), Redis::replica_of(&primary)];
    let sentinels = Sentinels::watching(&primary, 2, 5_000);
    assert_eq!(sentinels.primary(), primary.port());
    primary.kill();
    let next = sentinels.wait_for_failover_from(&primary);
    let next = replicas.iter().find(|replica| replica.port() == next);
    let next = next.unwrap_or_else(|| panic!("no replica:\n{}", sentinels.log()));
    wait_for("the role", || (next.info("role") == "master").then_some(()));
}

#[test]
fn a_stopped_server_is_silent_until_it_is_resumed() {
    let redis = Redis::start();
    redis.stop();
    assert!(command(redis.port(), &["PING"]).is_err());
    redis.resume();
    assert_eq!(redis.run(&["PING"]).text(), "PONG");
}

#[test]
fn a_replica_misses_what_its_proxy_holds() {
    let primary = Redis::start();
    let proxy = Proxy::for_replication(primary.port());
    let replica = Redis::replica_through(proxy.port());
    primary.run(&["SET", "a", "1"]);
    wait_for("the replica has it", || (replica.keys() == 1).then_some(()));
    proxy.set(Fault::HoldReplies);
    primary.run(&["SET", "b", "1"]);
    // A time in which it would arrive.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(replica.keys(), 1);
    proxy.set(Fault::None);
    wait_for("the rest", || (replica.keys() == 2).then_some(()));
}

struct Client(TcpStream);

impl Client {
    async fn of(proxy: &Proxy) -> Self {
        Self(
            TcpStream::connect(("127.0.0.1", proxy.port()))
                .await
                .unwrap(),
        )
    }

    async fn send(&mut self, words: &[&str]) {
        self.0.write_all(&encoded(words)).await.unwrap();
    }

    /// What comes, or `None` if nothing comes for some time.
    async fn next(&mut self) -> Option<Result<Vec<u8>, ErrorKind>> {
        let mut bytes = vec![0; 65_536];
        let read = timeout(Duration::from_millis(100), self.0.read(&mut bytes)).await;
        let read = read.ok()?;
        Some(read.map_err(|error| error.kind()).map(|read| {
            bytes.truncate(read);
            bytes
        }))
    }

    async fn assert_next(&mut self, name: &str, expected: &[u8]) {
        assert_eq!(self.next().await, Some(Ok(expected.to_vec())), "{name}");
    }
}

#[tokio::test]
async fn the_proxy_has_its_faults() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let mut client = Client::of(&proxy).await;
    client.send(&["PING"]).await;
    client.assert_next("no fault", b"+PONG\r\n").await;

    proxy.set(Fault::HoldRequests);
    client.send(&["SET", "a", "1"]).await;
    assert_eq!(client.next().await, None);
    assert_eq!(redis.keys(), 0, "the request does not arrive");
    proxy.set(Fault::HoldReplies);
    wait_for("the request arrives", || (redis.keys() == 1).then_some(()));
    assert_eq!(client.next().await, None);
    proxy.set(Fault::None);
    client.assert_next("the held reply", b"+OK\r\n").await;

    proxy.set(Fault::Slow);
    client.send(&["PING"]).await;
    client.assert_next("the first byte", b"+").await;
    assert_eq!(client.next().await, None);
    proxy.set(Fault::None);
    client.0.read_exact(&mut [0; 6]).await.unwrap();

    proxy.set(Fault::ReplaceReplyToSet(b"\x00garbage"));
    client.send(&["PING"]).await;
    client.assert_next("no SET", b"+PONG\r\n").await;
    client.send(&["SET", "a", "2"]).await;
    client.assert_next("a SET", b"\x00garbage").await;
    proxy.set(Fault::HugeReplies);
    client.send(&["PING"]).await;
    let huge = client.next().await.unwrap().unwrap();
    assert!(huge.starts_with(b"$1073741824\r\n"));
}

#[tokio::test]
async fn the_proxy_loses_one_request_or_reply() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    for (loss, name, arrives) in [
        (Loss::Request, "lost-request", Reply::Integer(0)),
        (Loss::Reply, "lost-reply", Reply::Integer(1)),
    ] {
        proxy.lose_next(loss, Fault::HoldConnections);
        let mut client = Client::of(&proxy).await;
        client.send(&["PING"]).await;
        client.assert_next(name, b"+PONG\r\n").await;
        client.send(&["SET", name, "1"]).await;
        client.assert_next(name, b"").await;
        assert_eq!(redis.run(&["EXISTS", name]), arrives, "{name}");
        let mut other = Client::of(&proxy).await;
        other.send(&["PING"]).await;
        assert_eq!(other.next().await, None, "{name}");
        proxy.set(Fault::None);
        other.assert_next(name, b"+PONG\r\n").await;
    }
    proxy.wait_until_lost(2).await;
}

#[tokio::test]
async fn the_proxy_cuts_connections() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    for (cut, expected) in [
        (Cut::Close, Some(Ok(Vec::new()))),
        (Cut::Reset, Some(Err(ErrorKind::ConnectionReset))),
        (Cut::HalfOpen, None),
    ] {
        let mut client = Client::of(&proxy).await;
        client.send(&["PING"]).await;
        client.assert_next("before", b"+PONG\r\n").await;
        proxy.cut(cut);
        if cut == Cut::HalfOpen {
            client.send(&["SET", "a", "1"]).await;
        }
        assert_eq!(client.next().await, expected, "{cut:?}");
        let mut other = Client::of(&proxy).await;
        other.send(&["PING"]).await;
        other.assert_next("after", b"+PONG\r\n").await;
    }
    assert_eq!(redis.keys(), 0, "what a half-open connection gets is lost");
    proxy.set(Fault::RejectConnections);
    let mut client = Client::of(&proxy).await;
    client.assert_next("a new connection", b"").await;
}
