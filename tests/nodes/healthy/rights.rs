//! Users and passwords.

use tower_dpop::ReplayStore as _;
use tower_dpop::proof::{
    Claim, Epoch, RedisLinkState, RedisReplayStore, RedisServer, RedisStartError, ReplayStoreError,
    replay_contract,
};

use super::{at, claim, eventually, key};
use crate::servers::Redis;

/// As in the documentation of `RedisReplayStore`.
pub(super) const LEAST: &str = "reset on >s3cret-word ~dpop:* -@all +set +info +hello +ping";

pub(super) fn with_user(redis: &Redis, rules: &str) -> RedisServer {
    let words = ["ACL", "SETUSER", "dpop"].into_iter();
    let words: Vec<&str> = words.chain(rules.split(' ')).collect();
    assert!(redis.run(&words).is_ok(), "{rules}");
    at(redis).with_credentials("dpop", "s3cret-word")
}

#[tokio::test]
async fn works_with_the_documented_rights() {
    let redis = Redis::start();
    let server = with_user(&redis, LEAST);
    let store = RedisReplayStore::at(server).connect().await.unwrap();
    assert_ne!(store.epoch(), Epoch::UNKNOWN);
    assert_eq!(store.health().eviction, Some(false));
    replay_contract::check(&store).await;
    // The right that `with_replicas` needs too.
    let replicas = RedisReplayStore::at(with_user(&redis, &format!("{LEAST} +wait")));
    let replicas = replicas.with_replicas(0, std::time::Duration::from_millis(1));
    let replicas = replicas.connect().await.unwrap();
    assert_eq!(claim(&replicas, key(1)).await, Ok(Claim::First));
    let denied = redis.run(&["ACL", "LOG"]);
    assert_eq!(
        denied,
        crate::resp::Reply::Array(Vec::new()),
        "nothing else was tried"
    );
}

#[tokio::test]
async fn without_info_the_epoch_is_unknown() {
    let redis = Redis::start();
    let server = with_user(&redis, &LEAST.replace(" +info", ""));
    let store = RedisReplayStore::at(server).connect().await.unwrap();
    assert_eq!(store.epoch(), Epoch::UNKNOWN);
    assert_eq!(store.health().eviction, None);
    assert_eq!(claim(&store, key(1)).await, Ok(Claim::First));
    assert_eq!(claim(&store, key(1)).await, Ok(Claim::Replayed));
}

#[tokio::test]
async fn says_who_is_rejected_but_not_the_password() {
    let redis = Redis::start();
    let cases = [
        (
            "password",
            with_user(&redis, LEAST).with_credentials("dpop", "s3cret-other"),
        ),
        ("user", at(&redis).with_credentials("other", "s3cret-word")),
        (
            "prefix",
            with_user(&redis, &LEAST.replace("~dpop:*", "~other:*")),
        ),
        ("no SET", with_user(&redis, &LEAST.replace(" +set", ""))),
        (
            "write only",
            with_user(&redis, &LEAST.replace("~dpop:*", "%W~dpop:*")),
        ),
    ];
    for (name, server) in cases {
        // The users differ, and each has the same name.
        let rules = match name {
            "prefix" => LEAST.replace("~dpop:*", "~other:*"),
            "no SET" => LEAST.replace(" +set", ""),
            "write only" => LEAST.replace("~dpop:*", "%W~dpop:*"),
            _ => LEAST.to_owned(),
        };
        with_user(&redis, &rules);
        let builder = RedisReplayStore::at(server);
        let error = builder.clone().connect().await.unwrap_err();
        assert!(
            matches!(error, RedisStartError::Rejected { .. }),
            "{name}: {error}"
        );
        let store = builder.connect_lazily();
        eventually("it is down", || {
            store.health().state == RedisLinkState::Down
        })
        .await;
        for shown in [format!("{error} {error:?}"), format!("{store:?}")] {
            assert!(!shown.contains("s3cret"), "{name}: {shown}");
        }
    }
    redis.run(&["CONFIG", "SET", "requirepass", "s3cret-word"]);
    let error = RedisReplayStore::at(at(&redis))
        .connect()
        .await
        .unwrap_err();
    assert!(
        matches!(&error, RedisStartError::Rejected { code, .. } if code == "NOAUTH"),
        "{error}"
    );
    let url = format!("redis://:s3cret-word@127.0.0.1:{}", redis.port());
    for server in [
        RedisServer::url(&url).unwrap(),
        at(&redis).with_credentials("default", "s3cret-word"),
    ] {
        assert!(RedisReplayStore::at(server).connect().await.is_ok());
    }
}

#[tokio::test]
async fn a_right_that_is_withdrawn_is_noticed() {
    let redis = Redis::start();
    let server = with_user(&redis, LEAST);
    let store = RedisReplayStore::at(server).connect().await.unwrap();
    with_user(&redis, &LEAST.replace(" +set", ""));
    assert_eq!(
        claim(&store, key(1)).await,
        Err(ReplayStoreError::Unavailable)
    );
    eventually("it is down", || {
        store.health().state == RedisLinkState::Down
    })
    .await;
    assert!(matches!(
        store.health().failure,
        Some(RedisStartError::Rejected { .. })
    ));
    with_user(&redis, LEAST);
    eventually("it is up", || store.health().state == RedisLinkState::Up).await;
    assert_eq!(claim(&store, key(1)).await, Ok(Claim::First));
}
