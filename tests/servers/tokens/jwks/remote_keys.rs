//! The key source: how it starts, for which tokens it fetches keys, and how often under attack.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::testing::{TestClient, TestIssuer};
use tower_dpop::tokens::{IssuerDocument, KeySource, KeySourceError, RemoteKeysError, TokenError};
use tower_dpop::{DpopLayer, KeySet, ProofRules, Rejection, RemoteKeys, Verifier};

use super::{Fixture, at, invented, secs, verify};
use crate::tokens::server::{KEYS, OAUTH, OPENID, Reply, Server, http, in_time, wait_until};
use common::{AUDIENCE, Key, KeyExt as _, block_on, keys};

/// `fetched` fails, `fetched_within` retries, and with neither the first requests are rejected.
#[test]
fn there_are_three_ways_to_start_while_the_issuer_is_down() {
    block_on(async {
        let fixture = Fixture::new().await;
        fixture.server.set(OAUTH, Reply::status(503));
        let unavailable = RemoteKeysError::Status {
            document: IssuerDocument::Metadata,
            status: StatusCode::SERVICE_UNAVAILABLE,
        };

        let result = fixture.remote().fetched().await;
        assert_eq!(result.unwrap_err(), unavailable);
        assert_eq!(fixture.server.requests(), [OAUTH, OPENID]);

        let retrying = tokio::spawn(fixture.remote().fetched_within(secs(60)));
        fixture.server.clear_requests();
        fixture.server.wait_for_requests(OAUTH, 2).await;
        fixture.publish_metadata(KEYS);
        let retried = in_time(retrying).await.unwrap().unwrap();
        assert_eq!(retried.status().keys, 1);
        assert_eq!(retried.status().failure, None);

        fixture.server.set(OAUTH, Reply::status(503));
        fixture.server.clear_requests();
        let not_fetched = fixture.remote();
        let tokens = fixture.verifier(not_fetched.clone());
        let token = fixture.token().to_text();
        assert_eq!(
            verify(&tokens, &token, at(0)).await,
            Err(TokenError::Unavailable)
        );
        assert_eq!(
            verify(&tokens, &token, at(4)).await,
            Err(TokenError::Unavailable)
        );
        assert_eq!(
            fixture.server.requests_to(OAUTH),
            1,
            "one attempt per cooldown"
        );
        assert_eq!(
            (not_fetched.status().keys, not_fetched.status().failure),
            (0, Some(unavailable))
        );
        fixture.publish_metadata(KEYS);
        assert_eq!(verify(&tokens, &token, at(5)).await, Ok(()));
    });
}

/// A clone may have fetched them.
#[test]
fn fetched_does_not_fetch_keys_that_are_still_young() {
    block_on(async {
        let fixture = Fixture::new().await;
        let keys = fixture.keys().await;
        keys.clone().fetched().await.unwrap();
        assert_eq!(fixture.fetches(), 0);
        assert_eq!(keys.fetched().await.unwrap().status().keys, 1);
    });
}

#[test]
fn fetched_within_returns_the_last_failure() {
    block_on(async {
        let fixture = Fixture::new().await;
        let keys = fixture.remote();
        let wait = async || {
            let fetched = keys.clone().fetched_within(Duration::from_millis(50));
            in_time(fetched).await.unwrap_err()
        };
        fixture.server.hold();
        assert_eq!(
            wait().await,
            RemoteKeysError::TimedOut,
            "no attempt has ended"
        );
        fixture.server.set(OAUTH, Reply::status(503));
        fixture.server.resume();
        let error = keys.clone().fetched().await.unwrap_err();
        assert!(matches!(error, RemoteKeysError::Status { .. }));
        fixture.server.hold();
        assert_eq!(wait().await, error);
    });
}

/// Waiting helps an issuer that is starting up, not a wrong configuration.
#[test]
fn fetched_within_returns_at_once_what_only_a_change_of_configuration_can_heal() {
    type Change = fn(&Fixture);
    let rows: [(&str, Change); 4] = [
        ("metadata of another issuer", |fixture| {
            let issuer = fixture.server.url_of("/");
            let metadata = Reply::metadata(&issuer, &fixture.server.url_of(KEYS));
            fixture.server.set(OAUTH, metadata);
        }),
        ("a jwks_uri that is not https", |fixture| {
            let metadata = Reply::metadata(&fixture.server.url(), "http://as.example.com/jwks");
            fixture.server.set(OAUTH, metadata);
        }),
        ("a compressed document", |fixture| {
            let keys = Reply::text(fixture.issuer.jwks()).with_header("content-encoding", "gzip");
            fixture.server.set(KEYS, keys);
        }),
        ("129 keys", |fixture| {
            let keys = json!({ "keys": vec![7; 129] }).to_string();
            fixture.server.set(KEYS, Reply::text(keys));
        }),
    ];
    for (name, change) in rows {
        block_on(async {
            let fixture = Fixture::new().await;
            change(&fixture);
            let at_once = in_time(fixture.remote().fetched_within(secs(3600)));
            let error = at_once.await.unwrap_err();
            assert_eq!(fixture.server.requests_to(OAUTH), 1, "{name}: {error}");

            let keys = fixture.remote();
            assert!(keys.key_set(at(0)).await.is_err(), "{name}: a request");
            assert_eq!(keys.status().failure, Some(error), "{name}");
            let before = fixture.server.requests().len();
            assert!(
                keys.key_set(at(4)).await.is_err(),
                "{name}: within the cooldown"
            );
            assert_eq!(fixture.server.requests().len(), before, "{name}");
        });
    }
}

/// Clones share the keys, and each clone may have its own settings.
#[test]
fn clones_share_the_keys() {
    fn is_source<K: KeySource + Clone>(_: &K) {}

    block_on(async {
        let fixture = Fixture::new().await;
        let keys = fixture.remote();
        is_source(&keys);
        let clone = keys.clone().with_cooldown(secs(1)).fetched().await.unwrap();
        fixture.server.clear_requests();
        let set: KeySet = keys.key_set(at(0)).await.unwrap();
        assert!(set.is(&clone.key_set(at(0)).await.unwrap()));
        assert!(clone.newer_key_set(&set, at(0)).await.unwrap().is_none());
        assert!(clone.newer_key_set(&set, at(1)).await.unwrap().is_none());
        assert!(keys.newer_key_set(&set, at(2)).await.unwrap().is_none());
        assert_eq!(
            fixture.fetches(),
            2,
            "the cooldown of `keys` is still five seconds"
        );
    });
}

/// The issuer's key set as JSON, for tests that change it.
fn jwks(issuer: &TestIssuer) -> Value {
    serde_json::from_str(&issuer.jwks()).unwrap()
}

/// The status is for health checks, and the errors are for logs.
#[test]
fn status_and_errors_show_what_cannot_be_reached_and_no_key() {
    block_on(async {
        let fixture = Fixture::new().await;
        let keys = fixture.remote();
        let status = keys.status();
        assert_eq!(
            (status.keys, status.fetched, status.failure),
            (0, None, None)
        );
        assert_eq!((status.lives_until, status.usable_until), (None, None));
        fixture.server.hang_up();
        let error = keys.clone().fetched().await.unwrap_err();
        assert_eq!(keys.status().failure.as_ref(), Some(&error));
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(text.contains(&fixture.server.url_of(OAUTH)), "{text}");
        }

        fixture.server.resume();
        let url = Server::start().await.url_of("/missing");
        let keys = RemoteKeys::at(url.parse().unwrap(), http());
        assert_eq!(
            keys.fetched().await.unwrap_err().to_string(),
            "the request for the issuer's key set failed with status 404"
        );
        let shown = format!("{:?}", fixture.keys().await.status());
        let x = jwks(&fixture.issuer)["keys"][0]["x"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(!shown.contains(&x), "{shown}");
    });
}

/// A3: the issuer signs with a key that has not been fetched yet.
#[test]
fn fetches_keys_for_a_token_that_no_known_key_verifies() {
    block_on(async {
        let mut fixture = Fixture::new().await;
        let tokens = fixture.verifier(fixture.keys().await);
        let old = fixture.token().to_text();
        assert_eq!(verify(&tokens, &old, at(0)).await, Ok(()));
        assert_eq!(fixture.fetches(), 0);

        fixture.rotate("2");
        let new = fixture.token().to_text();
        assert_eq!(verify(&tokens, &new, at(1)).await, Ok(()), "an unknown kid");
        assert_eq!(fixture.fetches(), 1);

        fixture.rotate("2");
        let other = fixture.token().to_text();
        assert_eq!(
            verify(&tokens, &other, at(6)).await,
            Ok(()),
            "a known kid, another key"
        );
        assert_eq!(
            verify(&tokens, &new, at(6)).await,
            Err(TokenError::Signature)
        );
        assert_eq!(fixture.fetches(), 2);

        let other = fixture.issuer.clone().with_key("3", Key::es256());
        fixture.server.set(KEYS, Reply::text(other.jwks()));
        fixture.issuer = other;
        let without_kid = fixture.token().without_header("kid").to_text();
        assert_eq!(
            verify(&tokens, &without_kid, at(11)).await,
            Ok(()),
            "no kid"
        );
        assert_eq!(fixture.fetches(), 3);
    });
}

/// R-AT.4: any of the issuer's keys can verify a token, whether or not its `kid` is unique.
#[test]
fn verifies_with_keys_that_share_a_kid_or_have_none() {
    block_on(async {
        let fixture = Fixture::new().await;
        let issuer = &fixture.issuer;
        let same_kid = issuer
            .clone()
            .add_key("1", Key::es256())
            .add_key("1", Key::ed25519("EdDSA"));
        let mut without_kid = jwks(&same_kid);
        for key in without_kid["keys"].as_array_mut().unwrap() {
            key.as_object_mut().unwrap().remove("kid");
        }
        let mut with_unusable_keys = jwks(&same_kid);
        with_unusable_keys["keys"].as_array_mut().unwrap().extend([
            json!({ "kty": "RSA", "use": "enc", "kid": "1", "n": "AQAB", "e": "AQAB" }),
            json!({ "kty": "oct", "kid": "1", "k": "c2VjcmV0" }),
            json!({ "kty": "of the future", "kid": "1" }),
            json!(7),
        ]);
        let rows = [
            ("one kid for all keys", jwks(&same_kid)),
            ("no kid", without_kid),
            ("with unusable keys", with_unusable_keys),
        ];
        for (name, document) in rows {
            fixture.server.set(KEYS, Reply::text(document.to_string()));
            let keys = fixture.keys().await;
            assert_eq!(keys.status().keys, 3, "{name}");
            let tokens = fixture.verifier(keys);
            for signer in [
                issuer,
                &same_kid,
                &same_kid.clone().add_key("1", Key::es256()),
            ] {
                let token = signer.token_for(keys::client().thumbprint()).to_text();
                let expected = if signer.jwks().len() > same_kid.jwks().len() {
                    Err(TokenError::Signature)
                } else {
                    Ok(())
                };
                assert_eq!(verify(&tokens, &token, at(0)).await, expected, "{name}");
            }
        }
    });
}

/// R-AT.9: a cached token is rejected once its key is withdrawn.
#[test]
fn a_cached_token_is_discarded_with_its_key() {
    block_on(async {
        let mut fixture = Fixture::new().await;
        let remote = fixture.keys().await;
        let tokens = fixture.verifier(remote.clone());
        let token = fixture.token().to_text();
        assert_eq!(verify(&tokens, &token, at(0)).await, Ok(()));

        fixture.rotate("2");
        assert_eq!(
            verify(&tokens, &token, at(449)).await,
            Ok(()),
            "its keys need no renewal yet"
        );
        assert_eq!(
            verify(&tokens, &token, at(450)).await,
            Ok(()),
            "the fetch is in the background"
        );
        wait_until(|| remote.status().fetched == Some(at(450))).await;
        assert_eq!(verify(&tokens, &token, at(451)).await, Err(TokenError::Key));
        assert_eq!(
            verify(&tokens, &fixture.token().to_text(), at(451)).await,
            Ok(())
        );
    });
}

/// The default cooldown is 5 s.
#[test]
fn tokens_cause_at_most_one_fetch_per_cooldown() {
    block_on(async {
        let mut fixture = Fixture::new().await;
        let keys = fixture.keys().await;
        let known = keys.key_set(at(0)).await.unwrap();
        let has_newer = async |second| {
            keys.newer_key_set(&known, at(second))
                .await
                .map(|set| set.is_some())
        };

        assert_eq!(
            has_newer(0).await,
            Ok(false),
            "the fetch at start-up starts no cooldown"
        );
        assert_eq!(fixture.fetches(), 1);
        assert_eq!(
            (has_newer(1).await, has_newer(4).await),
            (Ok(false), Ok(false))
        );
        assert_eq!(fixture.fetches(), 1, "within the cooldown");
        assert_eq!(has_newer(5).await, Ok(false));
        assert_eq!(fixture.fetches(), 2, "after the cooldown");

        let same = keys.key_set(at(605)).await.unwrap();
        assert!(same.is(&known));
        assert_eq!(fixture.fetches(), 3, "scheduled");
        assert_eq!(
            has_newer(605).await,
            Ok(false),
            "a scheduled fetch starts no cooldown"
        );
        assert_eq!(fixture.fetches(), 4);

        fixture.rotate("2");
        assert_eq!(has_newer(609).await, Ok(false), "within the cooldown");
        assert_eq!(has_newer(610).await, Ok(true));
        assert_eq!(fixture.fetches(), 5);
        assert_eq!(has_newer(610).await, Ok(true), "already fetched");
        assert_eq!(fixture.fetches(), 5);

        let known = keys.key_set(at(610)).await.unwrap();
        let has_newer = async |second| {
            keys.newer_key_set(&known, at(second))
                .await
                .map(|set| set.is_some())
        };
        fixture.server.hang_up();
        assert_eq!(
            has_newer(615).await,
            Err(KeySourceError),
            "the fetch failed"
        );
        fixture.server.resume();
        fixture.server.clear_requests();
        assert_eq!(
            has_newer(619).await,
            Err(KeySourceError),
            "within the cooldown of the failed fetch"
        );
        assert_eq!(
            fixture.server.requests(),
            [""; 0],
            "no fetch within the cooldown"
        );
        assert_eq!(has_newer(620).await, Ok(false));
        assert_eq!(fixture.server.requests(), [OAUTH, KEYS]);
        assert_eq!(
            has_newer(621).await,
            Ok(false),
            "within the cooldown of a successful fetch"
        );
    });
}

/// 10,000 tokens in 60 s: half of them with an unknown `kid`, the others with an invalid signature.
/// Halfway through, the issuer changes its key, and a client sends a token signed with the new key
/// every second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_invented_tokens_causes_one_fetch_per_cooldown() {
    const ROTATED: u64 = 32;
    let mut fixture = Fixture::new().await;
    let tokens = Arc::new(fixture.verifier(fixture.keys().await));
    let (mut sent, mut accepted_at) = (0, None);
    for second in 0..60 {
        if second == ROTATED {
            fixture.rotate("new");
        }
        let mut flood = JoinSet::new();
        while sent < (usize::try_from(second).unwrap() + 1) * 10_000 / 60 {
            let kid = if sent % 2 == 0 {
                format!("invented {sent}")
            } else {
                "1".into()
            };
            let token = invented(&fixture, &kid, sent);
            let tokens = Arc::clone(&tokens);
            flood.spawn(async move { verify(&tokens, &token, at(second)).await });
            sent += 1;
        }
        if second >= ROTATED && accepted_at.is_none() {
            let result = verify(&tokens, &fixture.token().to_text(), at(second)).await;
            accepted_at = result.is_ok().then_some(second);
        }
        for result in in_time(flood.join_all()).await {
            assert!(
                matches!(result, Err(TokenError::Key | TokenError::Signature)),
                "{result:?}"
            );
        }
    }
    assert_eq!(sent, 10_000);
    assert_eq!(accepted_at, Some(35), "the first fetch after the change");
    assert_eq!(fixture.fetches(), 12, "one every five seconds");
    assert_eq!(fixture.server.requests().len(), 12, "no other requests");
}

/// The cooldown is one hour here. It delays the fetches that tokens cause, not the renewal of keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_does_not_delay_the_renewal_of_keys() {
    let mut fixture = Fixture::new().await;
    let publish_for_a_minute = |fixture: &Fixture| {
        let reply = Reply::text(fixture.issuer.jwks()).with_header("cache-control", "max-age=60");
        fixture.server.set(KEYS, reply);
    };
    publish_for_a_minute(&fixture);
    let remote = fixture
        .remote()
        .with_cooldown(secs(3600))
        .fetched()
        .await
        .unwrap();
    fixture.server.clear_requests();
    let tokens = Arc::new(fixture.verifier(remote.clone()));
    // The flood causes one fetch, at second 0. Then the keys are renewed every 45 s.
    for second in 0..180 {
        if second == 100 {
            fixture.rotate("new");
            publish_for_a_minute(&fixture);
        }
        let mut flood = JoinSet::new();
        for number in 0..50 {
            let token = invented(&fixture, "invented", number);
            let tokens = Arc::clone(&tokens);
            flood.spawn(async move { verify(&tokens, &token, at(second)).await });
        }
        for result in in_time(flood.join_all()).await {
            assert_eq!(result, Err(TokenError::Key));
        }
        wait_until(|| remote.status().fetched == Some(at(second / 45 * 45))).await;
    }
    assert_eq!(fixture.fetches(), 4, "at 0, 45, 90 and 135");
    assert_eq!(
        verify(&tokens, &fixture.token().to_text(), at(179)).await,
        Ok(())
    );
}

/// Each token of the flood comes with a valid proof, which does not help it. Another client is served
/// throughout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_layer_rejects_a_flood_and_serves_another_client() {
    let mut fixture = Fixture::new().await;
    let remote = fixture.keys().await;
    let verifier = Verifier::new(
        ProofRules::new(AUDIENCE.parse().unwrap()).with_clock(fixture.issuer.clock().read()),
        fixture.verifier(remote),
    );
    let service = DpopLayer::new(verifier).layer(service_fn(async |_: Request<String>| {
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    }));
    let send = |request: Request<String>| {
        let service = service.clone();
        async move { service.oneshot(request).await.unwrap() }
    };
    let url = format!("{AUDIENCE}/orders");
    let old = fixture.issuer.clone();
    for second in 0..60 {
        let mut flood = JoinSet::new();
        let attacker = TestClient::new(&old);
        for number in 0..if second % 3 == 0 { 10 } else { 0 } {
            let mut request = attacker.request(Method::GET, &url);
            request.token_header["kid"] = json!(format!("invented {second} {number}"));
            flood.spawn(send(request.build()));
        }
        if second == 32 {
            fixture.rotate("new");
        }
        let client = TestClient::new(&fixture.issuer);
        let response = send(client.request(Method::GET, &url).build()).await;
        // The last fetch was at second 30, the next one is at second 35.
        let is_unknown = (32..35).contains(&second);
        let expected = is_unknown.then_some(&Rejection::Token(TokenError::Key));
        assert_eq!(
            response.extensions().get::<Rejection>(),
            expected,
            "{second}"
        );
        for response in in_time(flood.join_all()).await {
            let rejection = response.extensions().get::<Rejection>();
            assert_eq!(
                rejection,
                Some(&Rejection::Token(TokenError::Key)),
                "{second}"
            );
        }
        fixture.issuer.clock().advance(secs(1));
    }
    assert_eq!(
        fixture.fetches(),
        10,
        "at 0, 6, 12, 18, 24, 30, 35, 42, 48 and 54"
    );
}

/// While the issuer is down, a flood causes no more attempts than one request would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_in_an_outage_causes_one_attempt_per_cooldown() {
    let fixture = Fixture::new().await;
    let remote = fixture.keys().await;
    let tokens = Arc::new(fixture.verifier(remote.clone()));
    let valid = fixture.token().to_text();
    fixture.server.set(OAUTH, Reply::status(503));
    fixture.server.set(OPENID, Reply::status(503));
    fixture.server.set(KEYS, Reply::status(503));
    // The lifetime of the keys ends at second 600.
    for second in 570..630 {
        let mut flood = JoinSet::new();
        for number in 0..50 {
            let token = invented(&fixture, "invented", number);
            let tokens = Arc::clone(&tokens);
            flood.spawn(async move { verify(&tokens, &token, at(second)).await });
        }
        for result in in_time(flood.join_all()).await {
            assert_eq!(result, Err(TokenError::Unavailable), "{second}");
        }
        assert_eq!(
            verify(&tokens, &valid, at(second)).await,
            Ok(()),
            "{second}"
        );
    }
    assert_eq!(
        fixture.fetches(),
        1,
        "each later attempt fails at the metadata"
    );
    assert_eq!(fixture.server.requests_to(OAUTH), 11);
}
