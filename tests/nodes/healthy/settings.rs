//! Servers that are configured in a way that the store does not accept, and how it is told.

use std::task::{Context, Poll, Waker};

use tower_dpop::ReplayStore as _;
use tower_dpop::proof::{
    Claim, Epoch, InvalidRedisUrl, RedisLinkState, RedisReplayStore, RedisServer, RedisStartError,
    ReplayStoreError,
};

use super::{at, claim, connected, eventually, key, keys, store};
use crate::servers::{Redis, Sentinels, free_port};

#[tokio::test]
async fn rejects_a_server_that_evicts_records() {
    let policies = [
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
    ];
    let redis = Redis::with(&["--maxmemory", "100mb"]);
    for policy in policies {
        assert!(
            redis
                .run(&["CONFIG", "SET", "maxmemory-policy", policy])
                .is_ok()
        );
        let error = store(&redis).connect().await.unwrap_err();
        assert!(
            matches!(&error, RedisStartError::EvictsRecords { policy: found, .. } if found == policy),
            "{error}"
        );
        assert!(error.to_string().contains(policy), "{error}");
    }
    let accepting = store(&redis).with_insecure_eviction();
    let accepting = accepting.connect().await.unwrap();
    assert_eq!(accepting.health().eviction, Some(true));
    assert_eq!(claim(&accepting, key(1)).await, Ok(Claim::First));

    // Without a limit, nothing is ever evicted.
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(connected(&redis).await.health().eviction, Some(false));
}

#[tokio::test]
async fn rejects_claims_when_the_server_begins_to_evict() {
    let redis = Redis::with(&["--maxmemory", "100mb"]);
    let store = connected(&redis).await;
    let epoch = store.epoch();
    redis.run(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    eventually("it is noticed", || {
        store.health().state == RedisLinkState::Down
    })
    .await;
    assert_eq!(
        claim(&store, key(1)).await,
        Err(ReplayStoreError::Unavailable)
    );
    let health = store.health();
    assert_eq!(health.eviction, Some(true));
    assert!(matches!(
        health.failure,
        Some(RedisStartError::EvictsRecords { .. })
    ));
    assert!(health.since.as_unix() > 0);

    redis.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    eventually("its end too", || store.health().state == RedisLinkState::Up).await;
    assert_eq!(store.health().failure, None);
    assert_eq!(claim(&store, key(1)).await, Ok(Claim::First));
    assert_eq!(store.epoch(), epoch);
}

#[tokio::test]
async fn a_full_server_is_full_and_keeps_its_epoch() {
    let redis = Redis::start();
    let store = connected(&redis).await;
    let epoch = store.epoch();
    assert_eq!(claim(&store, key(1)).await, Ok(Claim::First));
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(claim(&store, key(2)).await, Err(ReplayStoreError::Full));
    // The server is asked what it is, and cannot give the marker.
    let rejected = || {
        redis
            .info("cmdstat_set")
            .split_once("rejected_calls=")
            .unwrap()
            .1[..1]
            .parse::<u8>()
    };
    eventually("two more of SET", || rejected().unwrap() >= 3).await;
    assert_eq!(store.health().state, RedisLinkState::Up);
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(claim(&store, key(2)).await, Ok(Claim::First));
    assert_eq!(claim(&store, key(1)).await, Ok(Claim::Replayed));
    assert_eq!(store.epoch(), epoch);
}

#[tokio::test]
async fn rejects_a_cluster_a_replica_and_nothing() {
    let cluster = Redis::with(&["--cluster-enabled", "yes"]);
    let error = store(&cluster).connect().await.unwrap_err();
    assert!(
        matches!(error, RedisStartError::ClusterMode { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("one primary"), "{error}");

    let primary = Redis::start();
    let replica = Redis::replica_of(&primary);
    let error = store(&replica).connect().await.unwrap_err();
    assert!(
        matches!(error, RedisStartError::NotAPrimary { .. }),
        "{error}"
    );

    let url = format!("redis://127.0.0.1:{}", free_port());
    let nothing = RedisReplayStore::at(RedisServer::url(&url).unwrap());
    let error = nothing.clone().connect().await.unwrap_err();
    assert!(
        matches!(error, RedisStartError::Unreachable { .. }),
        "{error}"
    );

    let lazy = nothing.connect_lazily();
    assert_eq!(lazy.health().state, RedisLinkState::Connecting);
    eventually("it is down", || lazy.health().state == RedisLinkState::Down).await;
    assert_eq!(
        claim(&lazy, key(1)).await,
        Err(ReplayStoreError::Unavailable)
    );
    assert!(lazy.health().failure.is_some());
}

/// `REDIS_SERVER=/path/of/6.2/redis-server cargo test -p tower-dpop-nodes too_old -- --ignored`
#[tokio::test]
#[ignore = "it needs a server before 7.0 in REDIS_SERVER"]
async fn rejects_a_server_that_is_too_old() {
    let old = Redis::start();
    let version = old.info("redis_version");
    assert!(version.starts_with("6."), "{version}");
    let error = store(&old).connect().await.unwrap_err();
    let address = format!("127.0.0.1:{}", old.port());
    assert_eq!(error, RedisStartError::TooOld { address });
}

#[tokio::test]
async fn connects_lazily() {
    let redis = Redis::start();
    let store = store(&redis).connect_lazily();
    let before = store.epoch();
    eventually("it is up", || store.health().state == RedisLinkState::Up).await;
    assert_ne!(store.epoch(), before);
    assert_eq!(claim(&store, key(1)).await, Ok(Claim::First));
}

#[tokio::test]
async fn asks_sentinels_where_the_primary_is() {
    let primary = Redis::start();
    let sentinels = Sentinels::watching(&primary, 0, 5_000);
    let mut urls = sentinels.urls();
    urls.insert(0, format!("redis://127.0.0.1:{}", free_port()));
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let server = RedisServer::sentinels(urls.clone(), Sentinels::NAME).unwrap();
    let store = RedisReplayStore::at(server).connect().await.unwrap();
    assert_eq!(claim(&store, key(1)).await, Ok(Claim::First));
    assert_eq!(primary.keys(), 2);

    let server = RedisServer::sentinels(urls, "another").unwrap();
    let error = RedisReplayStore::at(server).connect().await.unwrap_err();
    assert!(
        matches!(error, RedisStartError::UnknownPrimary { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_prefix_may_have_any_characters() {
    let redis = Redis::start();
    for prefix in ["", "a b\r\n", "{tag}*?[x]", "\u{e9}\u{0}\u{1f511}:", "~"] {
        assert!(redis.run(&["FLUSHALL"]).is_ok());
        let store = store(&redis).with_prefix(prefix).connect().await.unwrap();
        assert_eq!(claim(&store, key(1)).await, Ok(Claim::First), "{prefix:?}");
        assert_eq!(
            claim(&store, key(1)).await,
            Ok(Claim::Replayed),
            "{prefix:?}"
        );
        let keys = keys(&redis);
        assert_eq!(keys.len(), 2, "{prefix:?}");
        assert!(keys.iter().all(|key| key.starts_with(prefix)), "{prefix:?}");
    }
    let [one, other] = ["one:", "other:"].map(|prefix| store(&redis).with_prefix(prefix));
    let (one, other) = (one.connect().await.unwrap(), other.connect().await.unwrap());
    assert_eq!(claim(&one, key(1)).await, Ok(Claim::First));
    assert_eq!(claim(&other, key(1)).await, Ok(Claim::First));
    assert_ne!(one.epoch(), other.epoch());
    assert_ne!(one.epoch(), Epoch::UNKNOWN);
}

#[tokio::test]
async fn a_socket_of_the_file_system_is_as_good() {
    let folder = std::env::temp_dir();
    let path = folder.join(format!("tower-dpop-{}.sock", std::process::id()));
    let path = path.to_str().unwrap();
    let redis = Redis::with(&["--unixsocket", path]);
    let server = RedisServer::url(&format!("unix://{path}")).unwrap();
    let store = RedisReplayStore::at(server).connect().await.unwrap();
    assert_eq!(claim(&store, key(1)).await, Ok(Claim::First));
    assert_eq!(store.epoch(), connected(&redis).await.epoch());
}

#[tokio::test]
async fn a_database_is_a_store_of_its_own() {
    let redis = Redis::start();
    let server = RedisServer::url(&format!("{}/3", redis.url())).unwrap();
    let third = RedisReplayStore::at(server).connect().await.unwrap();
    let first = connected(&redis).await;
    assert_eq!(claim(&third, key(1)).await, Ok(Claim::First));
    assert_eq!(claim(&first, key(1)).await, Ok(Claim::First));
    assert_ne!(first.epoch(), third.epoch());
}

#[tokio::test]
async fn the_task_ends_with_the_last_handle() {
    let redis = Redis::start();
    let (one, other) = {
        let store = connected(&redis).await;
        (store.clone(), store)
    };
    // One is the test's own.
    let clients = || redis.info("connected_clients");
    assert_eq!(clients(), "2");
    drop(one);
    assert_eq!(claim(&other, key(1)).await, Ok(Claim::First));
    assert_eq!(clients(), "2");
    drop(other);
    eventually("the connection is closed", || clients() == "1").await;
}

#[test]
fn a_url_without_tls_is_for_loopback() {
    for url in [
        "redis://localhost",
        "redis://127.0.0.1:6379",
        "redis://127.9.9.9",
        "redis://[::1]:6379/2",
        "redis://[::1]",
        "redis://user:p%40ss@localhost",
        "rediss://redis.example.com",
        "rediss://user:pass@redis.example.com:6380/1",
        "unix:///run/redis.sock",
    ] {
        assert!(RedisServer::url(url).is_ok(), "{url}");
    }
    for url in [
        "redis://redis.example.com",
        "redis://10.0.0.1:6379",
        "redis://127.0.0.1.example.com",
        "redis://127.0.0.1@evil.example.com",
        "redis://[::2]",
        "redis://localhost.example.com",
    ] {
        let error = RedisServer::url(url).unwrap_err();
        assert!(
            matches!(error, InvalidRedisUrl::NotTls(_)),
            "{url}: {error}"
        );
        assert!(RedisServer::insecure_url(url).is_ok(), "{url}");
        assert!(RedisServer::sentinels([url], "name").is_err(), "{url}");
        assert!(
            RedisServer::insecure_sentinels([url], "name").is_ok(),
            "{url}"
        );
    }
    for url in [
        "",
        "redis",
        "redis://",
        "http://localhost",
        "REDIS://localhost",
        "redis:/localhost",
        "redis://localhost/x",
        "redis://localhost:port",
        "redis://localhost:99999",
        "redis://local host",
        "rediss://redis.example.com/#insecure",
        "redis://localhost?protocol=resp3",
        "redis+unix:///run/redis.sock",
        "unix://run/redis.sock",
        "unix:///",
        "unix:///run/redis.sock?pass=s3cret",
    ] {
        for parsed in [RedisServer::url(url), RedisServer::insecure_url(url)] {
            let error = parsed.unwrap_err();
            assert!(
                matches!(error, InvalidRedisUrl::Malformed(_)),
                "{url}: {error}"
            );
        }
    }
    assert_eq!(
        RedisServer::sentinels([], "name").unwrap_err(),
        InvalidRedisUrl::NoSentinel
    );
    let mixed = ["redis://localhost", "rediss://localhost"];
    let error = RedisServer::sentinels(mixed, "name").unwrap_err();
    assert!(matches!(error, InvalidRedisUrl::MixedSentinels(_)));
    for url in ["unix:///run/redis.sock", "rediss://s.example.com/1"] {
        assert!(RedisServer::sentinels([url], "name").is_err(), "{url}");
    }
}

#[test]
fn no_password_is_shown() {
    for url in [
        "redis://user:s3cret@redis.example.com",
        "redis://user:s3cret?@redis.example.com",
        "redis://user:s3cret#@redis.example.com",
        "redis://user:s3@cret@redis.example.com:x",
        "redis://user:s3cret",
        "redis://user:s3cret/0",
        "redis://user:[s3cret]",
        "redis://[::1]:s3cret",
        "redis://[::1:s3cret",
        "rediss://:s3cret@",
        "redis://localhost?password=s3cret",
        "unix:///run/redis.sock?pass=s3cret",
    ] {
        let error = RedisServer::url(url).unwrap_err();
        for shown in [error.to_string(), format!("{error:?}")] {
            assert!(!shown.contains("cret") && !shown.contains("s3"), "{shown}");
        }
    }
    let redis = Redis::start();
    let server = at(&redis).with_credentials("s3cret", "s3cret");
    let sentinel = RedisServer::sentinels(["redis://:s3cret@localhost"], "name").unwrap();
    let builder = RedisReplayStore::at(server.clone());
    for shown in [
        format!("{server:?}"),
        format!("{sentinel:?}"),
        format!("{builder:?}"),
        format!("{:?}", RedisServer::url("rediss://u:s3cret@example.com")),
    ] {
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}

#[tokio::test]
async fn the_deadline_may_be_as_long_as_can_be() {
    let mut redis = Redis::start();
    let store = store(&redis).with_deadline(std::time::Duration::MAX);
    let store = store.connect().await.unwrap();
    assert_eq!(claim(&store, key(1)).await, Ok(Claim::First));
    redis.kill();
    eventually("it is down", || {
        store.health().state == RedisLinkState::Down
    })
    .await;
    redis.restart();
    eventually("it is up", || store.health().state == RedisLinkState::Up).await;
    assert_eq!(claim(&store, key(2)).await, Ok(Claim::First));
}

/// What a server says to everything, and why it cannot be used.
#[tokio::test]
async fn rejects_what_is_no_usable_redis() {
    type Expected = fn(String) -> RedisStartError;
    let unknown: Expected = |address| RedisStartError::NotWritable {
        address,
        code: "an unknown reply".into(),
    };
    let rows: [(&str, Expected); 11] = [
        ("+OK\r\n+OK\r\n", unknown),
        ("+OK\r\n$21\r\n123456789012345678901\r\n", unknown),
        ("+OK\r\n$3\r\nabc\r\n", unknown),
        ("$0\r\n\r\n-ERR syntax error\r\n", |address| {
            RedisStartError::TooOld { address }
        }),
        ("$0\r\n\r\n-ERR unknown command\r\n", |address| {
            RedisStartError::NotWritable {
                address,
                code: "ERR".into(),
            }
        }),
        ("$0\r\n\r\n-MOVED 1 127.0.0.1:1\r\n", |address| {
            RedisStartError::ClusterMode { address }
        }),
        ("$0\r\n\r\n-READONLY a replica\r\n", |address| {
            RedisStartError::NotAPrimary { address }
        }),
        ("$0\r\n\r\n-OOM too much memory\r\n", |address| {
            RedisStartError::NotWritable {
                address,
                code: "OOM".into(),
            }
        }),
        ("$0\r\n\r\n-LOADING the records\r\n", |address| {
            RedisStartError::NotWritable {
                address,
                code: "LOADING".into(),
            }
        }),
        ("$0\r\n\r\n-NOPERM no SET\r\n", |address| {
            RedisStartError::Rejected {
                address,
                code: "NOPERM".into(),
            }
        }),
        ("=9\r\ntxt:a:b\r\n\r\n+OK\r\n", unknown),
    ];
    for (replies, expected) in rows {
        let address = server_that_says(replies).await;
        let server = RedisServer::url(&format!("redis://{address}")).unwrap();
        let error = RedisReplayStore::at(server).connect().await.unwrap_err();
        assert_eq!(error, expected(address), "{replies:?}");
    }

    let other = server_that_says("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let server = RedisServer::url(&format!("redis://{other}")).unwrap();
    let error = RedisReplayStore::at(server).connect().await.unwrap_err();
    assert!(
        matches!(error, RedisStartError::Unreachable { .. }),
        "{error}"
    );
}

/// The same of a sentinel. The last one names a host that cannot be reached without TLS.
#[tokio::test]
async fn rejects_what_a_sentinel_must_not_say() {
    type Expected = fn(String) -> RedisStartError;
    let unknown: Expected = |_| RedisStartError::UnknownPrimary {
        name: Sentinels::NAME.into(),
    };
    let elsewhere = naming("192.0.2.1", 6379);
    let rows: [(&str, Expected); 6] = [
        ("$-1\r\n", unknown),
        ("+PONG\r\n", unknown),
        ("*1\r\n$1\r\nx\r\n", unknown),
        ("*2\r\n$1\r\nx\r\n$2\r\n-1\r\n", unknown),
        ("-NOAUTH Authentication required\r\n", |address| {
            RedisStartError::Rejected {
                address,
                code: "NOAUTH".into(),
            }
        }),
        (&elsewhere, |_| RedisStartError::Plaintext {
            address: "192.0.2.1:6379".into(),
        }),
    ];
    for (reply, expected) in rows {
        let address = server_that_says(reply).await;
        let url = format!("redis://{address}");
        let server = RedisServer::sentinels([url.as_str()], Sentinels::NAME).unwrap();
        let error = RedisReplayStore::at(server).connect().await.unwrap_err();
        assert_eq!(error, expected(address), "{reply:?}");
    }
}

#[test]
fn connects_only_inside_a_runtime() {
    let server = RedisServer::url("redis://127.0.0.1").unwrap();
    let connecting = std::pin::pin!(RedisReplayStore::at(server).connect());
    let result = connecting.poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(
        result,
        Poll::Ready(Err(RedisStartError::NoRuntime))
    ));
}

#[tokio::test]
async fn shows_an_ipv6_address_as_urls_do() {
    let port = free_port();
    let server = RedisServer::url(&format!("redis://[::1]:{port}")).unwrap();
    let error = RedisReplayStore::at(server).connect().await.unwrap_err();
    let shown = format!("[::1]:{port}");
    assert!(
        matches!(&error, RedisStartError::Unreachable { address, .. } if *address == shown),
        "{error}"
    );
}

/// A sentinel that does not hear the others names a primary that is gone.
#[tokio::test]
async fn asks_the_next_sentinel_if_the_named_primary_cannot_be_used() {
    let redis = Redis::start();
    let mut urls = Vec::new();
    for port in [free_port(), redis.port()] {
        let address = server_that_says(&naming("127.0.0.1", port)).await;
        urls.push(format!("redis://{address}"));
    }
    let server = RedisServer::sentinels(urls.iter().map(String::as_str), Sentinels::NAME);
    let store = RedisReplayStore::at(server.unwrap()).connect_lazily();
    eventually("it is up", || store.health().state == RedisLinkState::Up).await;
    assert_eq!(claim(&store, key(1)).await, Ok(Claim::First));
}

/// How a sentinel names a primary.
fn naming(host: &str, port: u16) -> String {
    let port = port.to_string();
    format!(
        "*2\r\n${}\r\n{host}\r\n${}\r\n{port}\r\n",
        host.len(),
        port.len()
    )
}

/// The address of a server that responds to whatever it reads first on a connection.
async fn server_that_says(reply: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let reply = reply.to_owned();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut command = [0; 1_024];
            if stream.read(&mut command).await.is_ok_and(|read| read > 0) {
                let _ = stream.write_all(reply.as_bytes()).await;
                open.push(stream);
            }
        }
    });
    address
}
