//! Keys of issuers over the network, from a real server on the loopback. The time is the argument
//! that the source is asked with; nothing here waits for it to pass.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::testing::{TestClient, TestIssuer, TestToken};
use tower_dpop::tokens::{
    AccessTokenVerifier as _, HttpClient, InvalidEndpointUrl, IssuerDocument, KeySource,
    KeySourceError, PresentedToken, RemoteKeysError, TokenError,
};
use tower_dpop::{
    DpopLayer, JwtVerifier, KeySet, ProofRules, Rejection, RemoteKeys, Timestamp, Verifier,
};
use tracing::subscriber::DefaultGuard;

use crate::tokens::server::{KEYS, OAUTH, OPENID, Reply, Server, until, within_reason};
use common::{
    AUDIENCE, Key, KeyExt as _, NOW, base64url, block_on, enable_tracing_callsites, keys,
};

/// So many seconds after the keys were first fetched.
fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(NOW + seconds)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An issuer that publishes metadata and keys.
struct World {
    server: Server,
    issuer: TestIssuer,
}

impl World {
    async fn new() -> Self {
        let server = Server::start().await;
        server.set(OAUTH, Reply::metadata(&server.url(), &server.at(KEYS)));
        let issuer = TestIssuer::new(server.url(), AUDIENCE);
        let world = Self { server, issuer };
        world.publish();
        world
    }

    fn publish(&self) {
        self.server.set(KEYS, Reply::text(self.issuer.jwks()));
    }

    /// From now on, another key signs. The one of before is gone.
    fn rotate(&mut self, kid: &str) {
        self.issuer = self.issuer.clone().with_key(kid, Key::es256());
        self.publish();
    }

    /// Nothing is fetched yet.
    fn remote(&self) -> RemoteKeys {
        RemoteKeys::discover(self.server.url().parse().unwrap(), http())
            .with_clock(self.issuer.clock().read())
    }

    /// Fetched at second 0, to live for ten minutes; those requests are forgotten.
    async fn keys(&self) -> RemoteKeys {
        let keys = self.remote().fetched().await.unwrap();
        self.server.forget();
        keys
    }

    fn verifier(&self, keys: RemoteKeys) -> JwtVerifier<RemoteKeys> {
        JwtVerifier::new(self.server.url(), AUDIENCE, keys)
    }

    /// A good token, that lives longer than any of these tests.
    fn token(&self) -> TestToken {
        self.issuer
            .token_for(keys::client().thumbprint())
            .with_claim("exp", NOW + 1_000_000)
    }

    /// How often keys were fetched.
    fn fetches(&self) -> usize {
        self.server.requests_to(KEYS)
    }
}

/// One for all, because to read the system's roots takes a while.
fn http() -> HttpClient {
    static HTTP: LazyLock<HttpClient> = LazyLock::new(|| HttpClient::new().unwrap());
    HTTP.clone()
}

async fn verify(
    tokens: &JwtVerifier<RemoteKeys>,
    token: &str,
    now: Timestamp,
) -> Result<(), TokenError> {
    let verdict = tokens.verify(PresentedToken::new(token), now).await;
    verdict.map(drop)
}

/// The issuer's keys as JSON, to be changed.
fn jwks(issuer: &TestIssuer) -> Value {
    serde_json::from_str(&issuer.jwks()).unwrap()
}

/// Where RFC 8414 section 3.1 and OpenID Connect Discovery section 4.1 look, for R-AT.4: "the AS's
/// keys" are those that its metadata names.
#[test]
fn discovers_where_the_keys_are() {
    let rows: [(&str, &str, &str, &[&str]); 8] = [
        ("no path", "", OAUTH, &[OAUTH]),
        ("a slash", "/", OAUTH, &[OAUTH]),
        (
            "a path",
            "/tenant/1",
            "/.well-known/oauth-authorization-server/tenant/1",
            &["/.well-known/oauth-authorization-server/tenant/1"],
        ),
        (
            "a path with a slash at its end",
            "/tenant/",
            "/.well-known/oauth-authorization-server/tenant",
            &["/.well-known/oauth-authorization-server/tenant"],
        ),
        ("OpenID, no path", "", OPENID, &[OAUTH, OPENID]),
        ("OpenID, a slash", "/", OPENID, &[OAUTH, OPENID]),
        (
            "OpenID, a path",
            "/tenant/1",
            "/tenant/1/.well-known/openid-configuration",
            &[
                "/.well-known/oauth-authorization-server/tenant/1",
                "/tenant/1/.well-known/openid-configuration",
            ],
        ),
        (
            "OpenID, a path with a slash at its end",
            "/tenant/",
            "/tenant/.well-known/openid-configuration",
            &[
                "/.well-known/oauth-authorization-server/tenant",
                "/tenant/.well-known/openid-configuration",
            ],
        ),
    ];
    for (name, path, place, asked) in rows {
        block_on(async {
            let server = Server::start().await;
            let issuer = TestIssuer::new(server.at(path), AUDIENCE);
            server.set(place, Reply::metadata(&server.at(path), &server.at(KEYS)));
            server.set(KEYS, Reply::text(issuer.jwks()));
            let keys = RemoteKeys::discover(server.at(path).parse().unwrap(), http());
            let keys = keys
                .fetched()
                .await
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(keys.status().keys, 1, "{name}");
            assert_eq!(server.requests(), [asked, &[KEYS]].concat(), "{name}");
        });
    }
}

/// Servers answer all kinds of things at places they do not know.
#[test]
fn asks_openid_discovery_after_anything_but_an_outage() {
    let elsewhere = block_on(Server::start());
    let rows = [
        ("not found", Reply::status(404)),
        ("an error", Reply::status(500)),
        (
            "a page",
            Reply::text("<!doctype html><title>Log in</title>"),
        ),
        ("a long page", Reply::text(vec![b' '; 300 * 1024])),
        (
            "a login elsewhere",
            Reply::redirect(302, &elsewhere.at("/login")),
        ),
        (
            "another issuer",
            Reply::metadata("https://as.example.com", "https://as.example.com/jwks"),
        ),
    ];
    for (name, reply) in rows {
        block_on(async {
            let world = World::new().await;
            world.server.set(OAUTH, reply);
            world.server.set(
                OPENID,
                Reply::metadata(&world.server.url(), &world.server.at(KEYS)),
            );
            let keys = world.remote().fetched().await;
            assert_eq!(keys.unwrap().status().keys, 1, "{name}");
        });
    }
    block_on(async {
        let world = World::new().await;
        world.server.hang_up();
        let error = world.remote().fetched().await.unwrap_err();
        assert!(matches!(
            error,
            RemoteKeysError::Unreachable {
                document: IssuerDocument::Metadata,
                ..
            }
        ));
        assert_eq!(world.server.requests(), [OAUTH]);
    });
}

/// RFC 8414 section 3.3: the issuer is the same character by character, and what it publishes is of
/// the expected form.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn rejects_metadata() {
    use IssuerDocument::Metadata;
    use RemoteKeysError as Error;

    type Make = fn(&str) -> Reply;
    let rows: Vec<(&str, Make, RemoteKeysError)> = vec![
        (
            "a slash more",
            |url| Reply::metadata(&format!("{url}/"), url),
            Error::Issuer,
        ),
        (
            "a path more",
            |url| Reply::metadata(&format!("{url}/tenant"), url),
            Error::Issuer,
        ),
        (
            "another scheme",
            |url| Reply::metadata(&url.replace("http", "https"), url),
            Error::Issuer,
        ),
        (
            "another case",
            |url| Reply::metadata(&url.replace("http", "HTTP"), url),
            Error::Issuer,
        ),
        (
            "a space",
            |url| Reply::metadata(&format!("{url} "), url),
            Error::Issuer,
        ),
        (
            "another host",
            |url| Reply::metadata("https://as.example.com", url),
            Error::Issuer,
        ),
        (
            "an empty issuer",
            |url| Reply::metadata("", url),
            Error::Issuer,
        ),
        (
            "no issuer",
            |url| Reply::text(json!({ "jwks_uri": url }).to_string()),
            Error::Malformed(Metadata),
        ),
        (
            "an array of issuers",
            |url| Reply::text(json!({ "issuer": [url], "jwks_uri": url }).to_string()),
            Error::Malformed(Metadata),
        ),
        (
            "two issuers",
            |url| {
                Reply::text(format!(
                    r#"{{"issuer":"https://as.example.com","jwks_uri":"{url}","issuer":"{url}"}}"#
                ))
            },
            Error::Malformed(Metadata),
        ),
        (
            "no jwks_uri",
            |url| Reply::text(json!({ "issuer": url }).to_string()),
            Error::Malformed(Metadata),
        ),
        (
            "not JSON",
            |_| Reply::text("<!doctype html>"),
            Error::Malformed(Metadata),
        ),
        ("nothing", |_| Reply::text(""), Error::Malformed(Metadata)),
        (
            "not UTF-8",
            |_| Reply::text(&b"{\"issuer\":\"\xff\"}"[..]),
            Error::Malformed(Metadata),
        ),
        (
            "a relative jwks_uri",
            |url| Reply::metadata(url, "/jwks"),
            Error::JwksUri(InvalidEndpointUrl::Malformed("/jwks".into())),
        ),
        (
            "a file",
            |url| Reply::metadata(url, "file:///etc/passwd"),
            Error::JwksUri(InvalidEndpointUrl::Malformed("file:///etc/passwd".into())),
        ),
        (
            "a jwks_uri with userinfo",
            |url| Reply::metadata(url, "https://user:secret@as.example.com/jwks"),
            Error::JwksUri(InvalidEndpointUrl::Malformed(
                "https://…@as.example.com/jwks".into(),
            )),
        ),
        (
            "http to another machine",
            |url| Reply::metadata(url, "http://as.example.com/jwks"),
            Error::JwksUri(InvalidEndpointUrl::NotHttps(
                "http://as.example.com/jwks".into(),
            )),
        ),
        (
            "262,145 bytes",
            |_| Reply::text(vec![b' '; 262_145]),
            Error::TooLong(Metadata),
        ),
        (
            "not found",
            |_| Reply::status(404),
            Error::Status {
                document: Metadata,
                status: StatusCode::NOT_FOUND,
            },
        ),
        (
            "created",
            |_| Reply::status(201),
            Error::Status {
                document: Metadata,
                status: StatusCode::CREATED,
            },
        ),
        (
            "an error",
            |_| Reply::status(503),
            Error::Status {
                document: Metadata,
                status: StatusCode::SERVICE_UNAVAILABLE,
            },
        ),
    ];
    for (name, reply, expected) in rows {
        block_on(async {
            let world = World::new().await;
            // With nothing at the place of OpenID, and with the same there.
            for places in [&[OAUTH][..], &[OAUTH, OPENID]] {
                for place in places {
                    world.server.set(place, reply(&world.server.url()));
                }
                let error = world.remote().fetched().await.unwrap_err();
                assert_eq!(error, expected, "{name}, {places:?}");
            }
            assert_eq!(world.fetches(), 0, "{name}");
        });
    }
}

#[test]
fn reads_keys_from_another_origin_and_a_given_place() {
    block_on(async {
        let (world, elsewhere) = (World::new().await, Server::start().await);
        elsewhere.set("/keys", Reply::text(world.issuer.jwks()));
        let metadata = Reply::metadata(&world.server.url(), &elsewhere.at("/keys"));
        world.server.set(OAUTH, metadata);
        world.remote().fetched().await.unwrap();
        assert_eq!(
            (world.server.requests(), elsewhere.requests()),
            (vec![OAUTH.into()], vec!["/keys".into()])
        );

        world.server.forget();
        let given = RemoteKeys::at(world.server.at(KEYS).parse().unwrap(), http());
        given.fetched().await.unwrap();
        assert_eq!(world.server.requests(), [KEYS], "no metadata");
    });
}

#[test]
fn looks_for_keys_that_have_moved_after_a_failure() {
    block_on(async {
        let world = World::new().await;
        let keys = world.keys().await;
        world.server.set(KEYS, Reply::status(410));
        world.server.set("/moved", Reply::text(world.issuer.jwks()));
        world.server.set(
            OAUTH,
            Reply::metadata(&world.server.url(), &world.server.at("/moved")),
        );
        assert!(keys.key_set(at(600)).await.is_ok(), "stale");
        assert_eq!(world.server.requests(), [KEYS], "where they were");
        keys.key_set(at(605)).await.unwrap();
        until(|| keys.status().failure.is_none()).await;
        assert_eq!(world.server.requests(), [KEYS, OAUTH, "/moved"]);
    });
}

/// An issuer that moves its keys may leave a server behind at the old place. What was discovered
/// lives no longer than keys may.
#[test]
fn looks_for_keys_that_have_moved_without_a_failure() {
    block_on(async {
        let mut world = World::new().await;
        let keys = world.remote().with_lifetime(secs(60), secs(600));
        let keys = keys.fetched().await.unwrap();
        let newer = world.issuer.clone().with_key("2", Key::es256());
        world.server.set("/moved", Reply::text(newer.jwks()));
        let metadata = |path| Reply::metadata(&world.server.url(), &world.server.at(path));
        world.server.set(OAUTH, metadata("/moved"));

        world.server.forget();
        assert!(keys.key_set(at(599)).await.is_ok());
        until(|| keys.status().fetched == Some(at(599))).await;
        assert_eq!(world.server.requests(), [KEYS], "the metadata live");
        let of_before = keys.key_set(at(600)).await.unwrap();
        assert!(of_before.has_kid("1") && !of_before.has_kid("2"));

        world.server.forget();
        let moved = keys.key_set(at(1199)).await.unwrap();
        assert_eq!(world.server.requests(), [OAUTH, "/moved"]);
        assert!(moved.has_kid("2") && !moved.has_kid("1"));

        // Out of reach, they are taken to be what they were, for as long again.
        world.issuer = newer;
        world.issuer = world.issuer.clone().with_key("3", Key::es256());
        world.server.set("/moved", Reply::text(world.issuer.jwks()));
        world.server.set(OAUTH, Reply::status(503));
        world.server.forget();
        let same_place = keys.key_set(at(1799)).await.unwrap();
        assert_eq!(world.server.requests(), [OAUTH, OPENID, "/moved"]);
        assert!(same_place.has_kid("3"));
        assert_eq!(keys.status().failure, None);
        world.server.forget();
        assert!(keys.key_set(at(2398)).await.is_ok());
        until(|| keys.status().fetched == Some(at(2398))).await;
        assert_eq!(world.server.requests(), ["/moved"]);
        world.server.set(
            OAUTH,
            Reply::metadata(&world.server.url(), &world.server.at(KEYS)),
        );
        world.server.forget();
        assert!(keys.key_set(at(2998)).await.unwrap().has_kid("1"));
        assert_eq!(world.server.requests(), [OAUTH, KEYS]);
    });
}

/// RFC 9111 section 5.2, and the bounds that nobody's `Cache-Control` moves.
#[test]
fn keys_live_as_long_as_the_answer_says_within_bounds() {
    type Row = (&'static str, &'static [(&'static str, &'static str)], u64);
    type Bounds = (&'static str, (u64, u64), Option<&'static str>, u64);
    const CC: &str = "cache-control";
    let rows: [Row; 24] = [
        ("nothing said", &[], 600),
        ("max-age", &[(CC, "max-age=300")], 300),
        (
            "among others",
            &[(CC, "public, max-age=300, must-revalidate")],
            300,
        ),
        ("in two fields", &[(CC, "public"), (CC, "max-age=300")], 300),
        ("in capitals", &[(CC, "Public, Max-Age=300")], 300),
        ("in quotes", &[(CC, "max-age=\"300\"")], 300),
        ("too short", &[(CC, "max-age=1")], 60),
        ("zero", &[(CC, "max-age=0")], 60),
        ("too long", &[(CC, "max-age=31536000")], 3600),
        (
            "the longest there is",
            &[(CC, "max-age=18446744073709551615")],
            3600,
        ),
        ("no-store", &[(CC, "no-store")], 60),
        ("no-cache", &[(CC, "no-cache")], 60),
        ("NO-CACHE", &[(CC, "NO-CACHE")], 60),
        (
            "no-store beats max-age",
            &[(CC, "no-store, max-age=300")],
            60,
        ),
        ("without max-age", &[(CC, "public")], 600),
        ("for shared caches", &[(CC, "s-maxage=300")], 600),
        ("not a number", &[(CC, "max-age=soon")], 600),
        ("negative", &[(CC, "max-age=-1")], 600),
        (
            "beyond numbers",
            &[(CC, "max-age=99999999999999999999")],
            600,
        ),
        ("of age", &[(CC, "max-age=300"), ("age", "100")], 200),
        (
            "older than it may be",
            &[(CC, "max-age=300"), ("age", "301")],
            60,
        ),
        (
            "of a broken age",
            &[(CC, "max-age=300"), ("age", "old")],
            300,
        ),
        ("age alone", &[("age", "100")], 600),
        (
            "Expires is not read",
            &[("expires", "Thu, 01 Jan 2099 00:00:00 GMT")],
            600,
        ),
    ];
    block_on(async {
        let world = World::new().await;
        for (name, headers, lifetime) in rows {
            let mut reply = Reply::text(world.issuer.jwks());
            for (field, value) in headers {
                reply = reply.with_header(field, value);
            }
            world.server.set(KEYS, reply);
            let status = world.keys().await.status();
            assert_eq!(status.fetched, Some(at(0)), "{name}");
            assert_eq!(status.lives_until, Some(at(lifetime)), "{name}");
            assert_eq!(status.usable_until, Some(at(lifetime + 7200)), "{name}");
        }

        let bounds: [Bounds; 7] = [
            ("shorter", (10, 20), Some("max-age=5"), 10),
            ("between", (10, 20), Some("max-age=15"), 15),
            ("longer", (10, 20), Some("max-age=25"), 20),
            ("nothing said", (10, 20), None, 20),
            ("nothing said, long", (1000, 2000), None, 1000),
            ("the wrong way round", (20, 10), Some("max-age=15"), 20),
            ("none", (0, 0), Some("max-age=15"), 1),
        ];
        for (name, (shortest, longest), control, lifetime) in bounds {
            let mut reply = Reply::text(world.issuer.jwks());
            if let Some(control) = control {
                reply = reply.with_header("cache-control", control);
            }
            world.server.set(KEYS, reply);
            let keys = world.remote().with_lifetime(secs(shortest), secs(longest));
            let status = keys.fetched().await.unwrap().status();
            assert_eq!(status.lives_until, Some(at(lifetime)), "{name}");
        }
        let forever = world.remote().with_lifetime(secs(1), Duration::MAX);
        let forever = forever
            .with_stale_lifetime(Duration::MAX)
            .with_cooldown(Duration::MAX);
        let forever = forever.fetched().await.unwrap();
        assert!(forever.key_set(at(20)).await.is_ok(), "nothing overflows");
        assert!(forever.status().usable_until > Some(at(0)));
    });
}

/// Three quarters of ten minutes are 450 s.
#[test]
fn renews_keys_in_the_background_before_they_are_too_old() {
    block_on(async {
        let mut world = World::new().await;
        let keys = world.keys().await;
        let old = keys.key_set(at(0)).await.unwrap();
        assert!(keys.key_set(at(449)).await.unwrap().is(&old));
        assert_eq!(world.fetches(), 0, "young");

        world.rotate("2");
        world.server.hold();
        for second in [450, 450, 500, 599] {
            // The server does not answer, so this would hang if it waited.
            let found = within_reason(keys.key_set(at(second))).await.unwrap();
            assert!(found.is(&old), "{second}");
        }
        world.server.asked(KEYS, 1).await;
        world.server.outcome();
        until(|| keys.status().fetched == Some(at(450))).await;
        assert!(keys.key_set(at(599)).await.unwrap().has_kid("2"));
        assert_eq!(world.server.requests(), [KEYS], "once, and no metadata");
    });
}

#[test]
fn waits_for_new_keys_when_those_it_has_are_too_old() {
    block_on(async {
        let mut world = World::new().await;
        let keys = world.keys().await;
        world.rotate("2");
        assert!(keys.key_set(at(600)).await.unwrap().has_kid("2"));
        assert_eq!(world.fetches(), 1);
        assert_eq!(keys.status().fetched, Some(at(600)));
    });
}

/// What rests on the keys lives on.
#[test]
fn keeps_the_same_set_while_the_document_is_the_same() {
    block_on(async {
        let world = World::new().await;
        let keys = world.keys().await;
        let old = keys.key_set(at(0)).await.unwrap();
        for second in [600, 1200, 1800] {
            assert!(keys.key_set(at(second)).await.unwrap().is(&old), "{second}");
            assert_eq!(keys.status().fetched, Some(at(second)), "renewed");
        }
        assert_eq!(world.fetches(), 3);
        world
            .server
            .set(KEYS, Reply::text(format!("{} ", world.issuer.jwks())));
        assert!(
            !keys.key_set(at(2400)).await.unwrap().is(&old),
            "another document"
        );
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_once_for_all_who_wait() {
    let world = World::new().await;
    let remote = world.remote();
    for (what, second) in [("no keys yet", 0), ("too old", 600)] {
        world.server.forget();
        world.server.hold();
        let mut waiting = JoinSet::new();
        for _ in 0..64 {
            let keys = remote.clone();
            waiting.spawn(async move { keys.key_set(at(second)).await });
        }
        world
            .server
            .asked(if second == 0 { OAUTH } else { KEYS }, 1)
            .await;
        world.server.outcome();
        let sets = within_reason(waiting.join_all()).await;
        let first = sets[0].as_ref().unwrap();
        assert!(
            sets.iter().all(|set| set.as_ref().unwrap().is(first)),
            "{what}"
        );
        assert_eq!(world.fetches(), 1, "{what}");
    }
}

#[test]
fn goes_on_when_the_request_that_began_is_dropped() {
    block_on(async {
        let world = World::new().await;
        let keys = world.remote();
        world.server.hold();
        let (first, second) = [keys.clone(), keys.clone()]
            .map(|keys| tokio::spawn(async move { keys.key_set(at(0)).await }))
            .into();
        world.server.asked(OAUTH, 1).await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        world.server.outcome();
        assert!(within_reason(second).await.unwrap().is_ok());
        assert_eq!(world.server.requests(), [OAUTH, KEYS]);
    });
}

/// A3: a key that the issuer signs with before anyone fetched it.
#[test]
fn looks_for_a_key_that_it_does_not_know() {
    block_on(async {
        let mut world = World::new().await;
        let tokens = world.verifier(world.keys().await);
        let old = world.token().to_text();
        assert_eq!(verify(&tokens, &old, at(0)).await, Ok(()));
        assert_eq!(world.fetches(), 0);

        world.rotate("2");
        let new = world.token().to_text();
        assert_eq!(verify(&tokens, &new, at(1)).await, Ok(()), "an unknown kid");
        assert_eq!(world.fetches(), 1);

        world.rotate("2");
        let other = world.token().to_text();
        assert_eq!(
            verify(&tokens, &other, at(6)).await,
            Ok(()),
            "a known kid, another key"
        );
        assert_eq!(
            verify(&tokens, &new, at(6)).await,
            Err(TokenError::Signature)
        );
        assert_eq!(world.fetches(), 2);

        let unnamed = world.issuer.clone().with_key("3", Key::es256());
        world.server.set(KEYS, Reply::text(unnamed.jwks()));
        world.issuer = unnamed;
        let nameless = world.token().without_header("kid").to_text();
        assert_eq!(verify(&tokens, &nameless, at(11)).await, Ok(()), "no kid");
        assert_eq!(world.fetches(), 3);
    });
}

/// R-AT.4: whichever of the issuer's keys it was, and however they are labelled.
#[test]
fn verifies_by_keys_of_one_name_and_by_keys_without_one() {
    block_on(async {
        let world = World::new().await;
        let issuer = &world.issuer;
        let twins = issuer
            .clone()
            .add_key("1", Key::es256())
            .add_key("1", Key::ed25519("EdDSA"));
        let mut nameless = jwks(&twins);
        for key in nameless["keys"].as_array_mut().unwrap() {
            key.as_object_mut().unwrap().remove("kid");
        }
        let mut with_others = jwks(&twins);
        with_others["keys"].as_array_mut().unwrap().extend([
            json!({ "kty": "RSA", "use": "enc", "kid": "1", "n": "AQAB", "e": "AQAB" }),
            json!({ "kty": "oct", "kid": "1", "k": "c2VjcmV0" }),
            json!({ "kty": "of the future", "kid": "1" }),
            json!(7),
        ]);
        let rows = [
            ("one name", jwks(&twins)),
            ("no names", nameless),
            ("among keys of no use", with_others),
        ];
        for (name, document) in rows {
            world.server.set(KEYS, Reply::text(document.to_string()));
            let keys = world.keys().await;
            assert_eq!(keys.status().keys, 3, "{name}");
            let tokens = world.verifier(keys);
            for signer in [issuer, &twins, &twins.clone().add_key("1", Key::es256())] {
                let token = signer.token_for(keys::client().thumbprint()).to_text();
                let expected = if signer.jwks().len() > twins.jwks().len() {
                    Err(TokenError::Signature)
                } else {
                    Ok(())
                };
                assert_eq!(verify(&tokens, &token, at(0)).await, expected, "{name}");
            }
        }
    });
}

/// R-AT.9: a token that was found good is rejected when its key is gone, cached or not.
#[test]
fn a_verdict_ends_with_the_key_it_rests_on() {
    block_on(async {
        let mut world = World::new().await;
        let remote = world.keys().await;
        let tokens = world.verifier(remote.clone());
        let token = world.token().to_text();
        assert_eq!(verify(&tokens, &token, at(0)).await, Ok(()));

        world.rotate("2");
        assert_eq!(
            verify(&tokens, &token, at(449)).await,
            Ok(()),
            "its keys still live"
        );
        assert_eq!(
            verify(&tokens, &token, at(450)).await,
            Ok(()),
            "fetched in the background"
        );
        until(|| remote.status().fetched == Some(at(450))).await;
        assert_eq!(verify(&tokens, &token, at(451)).await, Err(TokenError::Key));
        assert_eq!(
            verify(&tokens, &world.token().to_text(), at(451)).await,
            Ok(())
        );
    });
}

/// Each line is one question and what comes of it, in one story of a source with the default
/// cooldown of 5 s.
#[test]
fn fetches_for_tokens_once_a_cooldown() {
    block_on(async {
        let mut world = World::new().await;
        let keys = world.keys().await;
        let known = keys.key_set(at(0)).await.unwrap();
        let ask = async |second| {
            keys.newer_key_set(&known, at(second))
                .await
                .map(|set| set.is_some())
        };

        assert_eq!(
            ask(0).await,
            Ok(false),
            "the fetch at the start does not count"
        );
        assert_eq!(world.fetches(), 1);
        assert_eq!((ask(1).await, ask(4).await), (Ok(false), Ok(false)));
        assert_eq!(world.fetches(), 1, "within the cooldown");
        assert_eq!(ask(5).await, Ok(false));
        assert_eq!(world.fetches(), 2, "after it");

        let same = keys.key_set(at(605)).await.unwrap();
        assert!(same.is(&known));
        assert_eq!(world.fetches(), 3, "scheduled");
        assert_eq!(ask(605).await, Ok(false), "which does not count either");
        assert_eq!(world.fetches(), 4);

        world.rotate("2");
        assert_eq!(ask(609).await, Ok(false), "not seen yet");
        assert_eq!(ask(610).await, Ok(true));
        assert_eq!(world.fetches(), 5);
        assert_eq!(ask(610).await, Ok(true), "known by now");
        assert_eq!(world.fetches(), 5);

        let known = keys.key_set(at(610)).await.unwrap();
        let ask = async |second| {
            keys.newer_key_set(&known, at(second))
                .await
                .map(|set| set.is_some())
        };
        world.server.hang_up();
        assert_eq!(ask(615).await, Err(KeySourceError), "nobody can say");
        world.server.outcome();
        world.server.forget();
        assert_eq!(
            ask(619).await,
            Err(KeySourceError),
            "nobody could, a moment ago"
        );
        assert_eq!(world.server.requests(), [""; 0], "a failed fetch counts");
        assert_eq!(ask(620).await, Ok(false));
        assert_eq!(world.server.requests(), [OAUTH, KEYS]);
        assert_eq!(ask(621).await, Ok(false), "they could, a moment ago");
    });
}

#[test]
fn joins_a_fetch_that_is_under_way() {
    block_on(async {
        let mut world = World::new().await;
        let keys = world.keys().await;
        let known = keys.key_set(at(0)).await.unwrap();
        world.rotate("2");
        world.server.hold();
        keys.key_set(at(450)).await.unwrap();
        let joined = [450, 451, 460].map(|second| {
            let (keys, known) = (keys.clone(), known.clone());
            tokio::spawn(async move { keys.newer_key_set(&known, at(second)).await })
        });
        world.server.asked(KEYS, 1).await;
        world.server.outcome();
        for joined in joined {
            assert!(
                within_reason(joined)
                    .await
                    .unwrap()
                    .unwrap()
                    .unwrap()
                    .has_kid("2")
            );
        }
        assert_eq!(world.fetches(), 1);
        let known = keys.key_set(at(461)).await.unwrap();
        assert!(keys.newer_key_set(&known, at(461)).await.unwrap().is_none());
        assert_eq!(world.fetches(), 2, "to join one is not to cause one");
    });
}

/// Stale keys for a while, then 503, then as before.
#[test]
fn lives_through_an_outage() {
    block_on(async {
        let mut world = World::new().await;
        let remote = world.remote().with_stale_lifetime(secs(1000));
        let remote = remote.fetched().await.unwrap();
        let tokens = world.verifier(remote.clone());
        let token = world.token().to_text();
        world.server.forget();
        // Each attempt fails in its own way, to be told apart.
        let fails_with = |status| {
            world.server.set(KEYS, Reply::status(status));
            world.server.set(OAUTH, Reply::status(status));
        };
        let failed_with = async |expected: u16| {
            let is_expected = |error| matches!(error, RemoteKeysError::Status { status, .. } if status == expected);
            until(|| remote.status().failure.is_some_and(is_expected)).await;
        };

        fails_with(500);
        assert_eq!(verify(&tokens, &token, at(450)).await, Ok(()), "they live");
        failed_with(500).await;
        fails_with(501);
        for second in 450..455 {
            assert_eq!(verify(&tokens, &token, at(second)).await, Ok(()));
        }
        assert_eq!(world.server.requests(), [KEYS], "one attempt a cooldown");
        assert_eq!(verify(&tokens, &token, at(455)).await, Ok(()));
        failed_with(501).await;
        assert_eq!(world.server.requests(), [KEYS, OAUTH, OPENID]);
        fails_with(502);
        assert_eq!(verify(&tokens, &token, at(595)).await, Ok(()));
        failed_with(502).await;

        // Past their lifetime: nobody waits, for the issuer is known to be out of reach.
        fails_with(503);
        world.server.hold();
        for second in [600, 604, 609] {
            let verdict = within_reason(verify(&tokens, &token, at(second))).await;
            assert_eq!(verdict, Ok(()), "{second}");
        }
        world.server.asked(OAUTH, 3).await;
        world.server.outcome();
        failed_with(503).await;
        let never = world.issuer.clone().with_key("never", Key::es256());
        let never = never.token_for(keys::client().thumbprint()).to_text();
        let verdict = verify(&tokens, &never, at(609)).await;
        assert_eq!(verdict, Err(TokenError::Unavailable), "perhaps it is good");
        assert_eq!(world.server.requests_to(OAUTH), 3);

        // Long after the last attempt, the next is waited for.
        let last = verify(&tokens, &token, at(1599)).await;
        assert_eq!(last, Ok(()), "the last stale second");
        for (second, attempts) in [(1600, 4), (1603, 4), (1604, 5), (1608, 5)] {
            let verdict = verify(&tokens, &token, at(second)).await;
            assert_eq!(verdict, Err(TokenError::Unavailable), "{second}");
            assert_eq!(world.server.requests_to(OAUTH), attempts, "{second}");
        }
        let status = remote.status();
        assert_eq!((status.keys, status.usable_until), (1, Some(at(1600))));

        let metadata = Reply::metadata(&world.server.url(), &world.server.at(KEYS));
        world.server.set(OAUTH, metadata);
        world.publish();
        let early = verify(&tokens, &token, at(1608)).await;
        assert_eq!(early, Err(TokenError::Unavailable));
        assert_eq!(
            verify(&tokens, &token, at(1609)).await,
            Ok(()),
            "back again"
        );
        assert_eq!(remote.status().failure, None);
        world.rotate("2");
        assert_eq!(
            verify(&tokens, &world.token().to_text(), at(1610)).await,
            Ok(())
        );
    });
}

#[test]
fn uses_no_stale_keys_where_none_are_allowed() {
    block_on(async {
        let world = World::new().await;
        let keys = world
            .remote()
            .with_stale_lifetime(Duration::ZERO)
            .fetched()
            .await
            .unwrap();
        world.server.hang_up();
        assert!(keys.key_set(at(599)).await.is_ok());
        until(|| keys.status().failure.is_some()).await;
        assert_eq!(keys.key_set(at(604)).await.err(), Some(KeySourceError));
    });
}

/// A step back by more than requests straggle.
#[test]
fn a_clock_that_steps_back_makes_keys_too_old() {
    block_on(async {
        let mut world = World::new().await;
        let keys = world.keys().await;
        let before = |seconds| Timestamp::from_unix(NOW - seconds);
        world.rotate("2");
        assert!(
            keys.key_set(before(30)).await.unwrap().has_kid("1"),
            "a straggler"
        );
        assert_eq!(world.fetches(), 0);
        assert!(keys.key_set(before(31)).await.unwrap().has_kid("2"));
        assert_eq!(world.fetches(), 1);

        // While the issuer is out of reach, the stale lifetime begins at the step.
        world.server.hang_up();
        assert!(keys.key_set(before(10_000)).await.is_ok());
        assert!(keys.key_set(before(10_000 - 7199)).await.is_ok());
        assert!(keys.key_set(before(10_000 - 7200)).await.is_err());

        // And what was demanded in the future is forgotten.
        world.server.outcome();
        let known = keys.key_set(at(0)).await.unwrap();
        world.server.forget();
        assert!(keys.newer_key_set(&known, at(0)).await.unwrap().is_none());
        assert!(
            keys.newer_key_set(&known, before(30))
                .await
                .unwrap()
                .is_none()
        );
        assert_eq!(world.fetches(), 1);
        assert!(
            keys.newer_key_set(&known, before(31))
                .await
                .unwrap()
                .is_none()
        );
        assert_eq!(world.fetches(), 2);
    });
}

/// What is no key set is as good as no answer: at the start there are no keys, later the old ones
/// stay.
#[test]
fn rejects_key_sets() {
    use IssuerDocument::KeySet as Document;
    use RemoteKeysError as Error;

    let key = Key::es256().public_jwk();
    let keys = |count: usize| json!({ "keys": vec![key.clone(); count] }).to_string();
    let padded = |bytes: usize| {
        let document = keys(1);
        document.clone() + &" ".repeat(bytes - document.len())
    };
    let status = |status| Error::Status {
        document: Document,
        status: StatusCode::from_u16(status).unwrap(),
    };
    let rows: Vec<(&str, Reply, Option<RemoteKeysError>)> = vec![
        ("128 keys", Reply::text(keys(128)), None),
        ("129 keys", Reply::text(keys(129)), Some(Error::TooManyKeys)),
        ("262,144 bytes", Reply::text(padded(262_144)), None),
        (
            "262,145 bytes",
            Reply::text(padded(262_145)),
            Some(Error::TooLong(Document)),
        ),
        ("no keys", Reply::text(keys(0)), Some(Error::NoUsableKey)),
        (
            "no usable key",
            Reply::text(json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] }).to_string()),
            Some(Error::NoUsableKey),
        ),
        (
            "a key and no set",
            Reply::text(key.to_string()),
            Some(Error::Malformed(Document)),
        ),
        (
            "no array",
            Reply::text(json!({ "keys": key }).to_string()),
            Some(Error::Malformed(Document)),
        ),
        (
            "an array",
            Reply::text(json!([key]).to_string()),
            Some(Error::Malformed(Document)),
        ),
        (
            "half of it",
            Reply::text(keys(1)[..40].to_owned()),
            Some(Error::Malformed(Document)),
        ),
        (
            "a page",
            Reply::text("<!doctype html>"),
            Some(Error::Malformed(Document)),
        ),
        ("nothing", Reply::text(""), Some(Error::Malformed(Document))),
        (
            "deep",
            Reply::text("[".repeat(200_000)),
            Some(Error::Malformed(Document)),
        ),
        ("no content", Reply::status(204), Some(status(204))),
        ("not modified", Reply::status(304), Some(status(304))),
        ("not found", Reply::status(404), Some(status(404))),
        ("an error", Reply::status(500), Some(status(500))),
    ];
    for (name, reply, expected) in rows {
        block_on(async {
            let world = World::new().await;
            let remote = world.keys().await;
            let old = remote.key_set(at(0)).await.unwrap();
            world.server.set(KEYS, reply);
            assert_eq!(world.remote().fetched().await.err(), expected, "{name}");

            let found = remote.key_set(at(600)).await.unwrap();
            assert_eq!(found.is(&old), expected.is_some(), "{name}");
            assert_eq!(remote.status().failure, expected, "{name}");
        });
    }
}

/// The three ways to start while the issuer is down.
#[test]
fn starts_without_the_issuer_in_one_of_three_ways() {
    block_on(async {
        let world = World::new().await;
        world.server.set(OAUTH, Reply::status(503));
        let unavailable = RemoteKeysError::Status {
            document: IssuerDocument::Metadata,
            status: StatusCode::SERVICE_UNAVAILABLE,
        };

        let rejected = world.remote().fetched().await;
        assert_eq!(rejected.unwrap_err(), unavailable);
        assert_eq!(world.server.requests(), [OAUTH, OPENID]);

        let patient = tokio::spawn(world.remote().fetched_within(secs(60)));
        world.server.forget();
        world.server.asked(OAUTH, 2).await;
        world.server.set(
            OAUTH,
            Reply::metadata(&world.server.url(), &world.server.at(KEYS)),
        );
        let patient = within_reason(patient).await.unwrap().unwrap();
        assert_eq!(patient.status().keys, 1);
        assert_eq!(patient.status().failure, None);

        world.server.set(OAUTH, Reply::status(503));
        world.server.forget();
        let lazy = world.remote();
        let tokens = world.verifier(lazy.clone());
        let token = world.token().to_text();
        assert_eq!(
            verify(&tokens, &token, at(0)).await,
            Err(TokenError::Unavailable)
        );
        assert_eq!(
            verify(&tokens, &token, at(4)).await,
            Err(TokenError::Unavailable)
        );
        assert_eq!(world.server.requests_to(OAUTH), 1, "one attempt a cooldown");
        assert_eq!(
            (lazy.status().keys, lazy.status().failure),
            (0, Some(unavailable))
        );
        world.server.set(
            OAUTH,
            Reply::metadata(&world.server.url(), &world.server.at(KEYS)),
        );
        assert_eq!(verify(&tokens, &token, at(5)).await, Ok(()));
    });
}

#[test]
fn patience_ends_with_the_last_failure() {
    block_on(async {
        let world = World::new().await;
        let keys = world.remote();
        let wait = async || {
            let patient = keys.clone().fetched_within(Duration::from_millis(50));
            within_reason(patient).await.unwrap_err()
        };
        world.server.hold();
        assert_eq!(
            wait().await,
            RemoteKeysError::TimedOut,
            "no attempt has ended"
        );
        world.server.set(OAUTH, Reply::status(503));
        world.server.outcome();
        let error = keys.clone().fetched().await.unwrap_err();
        assert!(matches!(error, RemoteKeysError::Status { .. }));
        world.server.hold();
        assert_eq!(wait().await, error);
    });
}

/// Of a source outside of what it needs: an answer, and no panic.
#[test]
fn needs_a_runtime() {
    fn now_or_never<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("it waits"),
        }
    }

    let (world, fetched) = block_on(async {
        let world = World::new().await;
        let fetched = world.keys().await;
        (world, fetched)
    });
    let none = world.remote();
    assert_eq!(
        now_or_never(none.key_set(at(0))).err(),
        Some(KeySourceError)
    );
    assert_eq!(none.status().failure, Some(RemoteKeysError::NoRuntime));
    assert_eq!(
        now_or_never(world.remote().fetched()).unwrap_err(),
        RemoteKeysError::NoRuntime
    );
    assert_eq!(
        now_or_never(world.remote().fetched_within(secs(1))).unwrap_err(),
        RemoteKeysError::NoRuntime
    );
    let known = now_or_never(fetched.key_set(at(449))).expect("keys that live");
    assert_eq!(
        now_or_never(fetched.newer_key_set(&known, at(449))).err(),
        Some(KeySourceError)
    );
    assert!(now_or_never(fetched.key_set(at(450))).is_ok());
    assert!(now_or_never(fetched.key_set(at(600))).is_ok(), "stale");
    assert!(now_or_never(fetched.key_set(at(7800))).is_err());

    let bare = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let none = world.remote();
    assert_eq!(
        bare.block_on(none.key_set(at(0))).err(),
        Some(KeySourceError),
        "no I/O"
    );
    assert_eq!(none.status().failure, Some(RemoteKeysError::Interrupted));
}

#[test]
fn a_runtime_that_ends_leaves_nobody_waiting() {
    let silent = block_on(async {
        let world = World::new().await;
        world.server.hold();
        let keys = world.remote();
        let waiting = tokio::spawn({
            let keys = keys.clone();
            async move { keys.key_set(at(0)).await }
        });
        world.server.asked(OAUTH, 1).await;
        drop(waiting);
        keys
    });
    assert_eq!(silent.status().failure, Some(RemoteKeysError::Interrupted));
    block_on(async {
        // Not stuck, and out of the cooldown another attempt; nobody listens there any more.
        assert!(within_reason(silent.key_set(at(4))).await.is_err());
        assert!(within_reason(silent.key_set(at(5))).await.is_err());
    });
    assert!(matches!(
        silent.status().failure,
        Some(RemoteKeysError::Unreachable { .. })
    ));
}

/// A fetch lives in the runtime of the request that launched it. Where that is not driven any more,
/// others wait for as long as a fetch may take and no longer, and what comes of it at last is of
/// the past.
#[test]
fn a_runtime_that_stands_still_leaves_nobody_waiting() {
    // Whether there are stale keys, and when the fetch is launched.
    for (name, has_keys, start) in [("no keys", false, 0), ("stale keys", true, 600)] {
        let driven = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut world = driven.block_on(World::new());
        // Three times that and a second is what the test waits for.
        let impatient = HttpClient::builder().with_timeout(Duration::from_millis(200));
        let place = world.server.at(KEYS).parse().unwrap();
        let keys = RemoteKeys::at(place, impatient.build().unwrap());
        if has_keys {
            driven.block_on(keys.key_set(at(0))).unwrap();
        }
        world.rotate("2");
        world.server.forget();

        let still = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        still.block_on(async {
            let mut waiting = pin!(keys.key_set(at(start)));
            let waits = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending()));
            assert!(waits.await, "{name}");
        });

        driven.block_on(async {
            let set = within_reason(keys.key_set(at(start))).await;
            assert_eq!(
                set.as_ref().is_ok_and(|set| set.has_kid("1")),
                has_keys,
                "{name}"
            );
            assert_eq!(set.is_err(), !has_keys, "{name}");
            assert_eq!(
                keys.status().failure,
                Some(RemoteKeysError::TimedOut),
                "{name}"
            );
            let _ = within_reason(keys.key_set(at(start + 4))).await;
            assert_eq!(world.fetches(), 0, "{name}: one attempt a cooldown");
            let _ = within_reason(keys.key_set(at(start + 5))).await;
            until(|| keys.status().failure.is_none()).await;
            let set = keys.key_set(at(start + 5)).await.unwrap();
            assert!(set.has_kid("2"), "{name}");
            assert_eq!(world.fetches(), 1, "{name}");
        });

        // What the first fetch is answered at last. It leaves no connection behind.
        world.rotate("3");
        let last = Reply::text(world.issuer.jwks()).with_header("connection", "close");
        world.server.set(KEYS, last);
        still.block_on(async {
            let tasks = tokio::runtime::Handle::current().metrics();
            assert!(tasks.num_alive_tasks() > 0, "{name}: the fetch");
            until(|| tasks.num_alive_tasks() == 0).await;
        });
        assert_eq!(world.fetches(), 2, "{name}: it was driven to its end");
        let set = driven.block_on(keys.key_set(at(start + 6))).unwrap();
        assert!(set.has_kid("2"), "{name}: keys of the past");
        let status = keys.status();
        assert_eq!(
            (status.fetched, status.failure),
            (Some(at(start + 5)), None),
            "{name}"
        );
    }
}

/// A token that nobody signed, by a key of this `kid`.
fn invented(world: &World, kid: &str, number: usize) -> String {
    let header = json!({ "typ": "at+jwt", "alg": "ES256", "kid": kid });
    let claims = json!({
        "iss": world.server.url(), "aud": AUDIENCE, "sub": "mallory", "exp": NOW + 1_000_000, "jti": number,
    });
    let parts = [header.to_string(), claims.to_string(), "s".repeat(64)];
    parts.map(base64url).join(".")
}

/// 10,000 tokens in 60 s, every other one with a `kid` that does not exist, the rest with a
/// signature that does not verify. In the middle of it the issuer changes its key, and a client
/// tries with a token by the new one, every second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_invented_tokens_fetches_once_a_cooldown() {
    const ROTATED: u64 = 32;
    let mut world = World::new().await;
    let tokens = Arc::new(world.verifier(world.keys().await));
    let (mut sent, mut passed) = (0, None);
    for second in 0..60 {
        if second == ROTATED {
            world.rotate("new");
        }
        let mut flood = JoinSet::new();
        while sent < (usize::try_from(second).unwrap() + 1) * 10_000 / 60 {
            let kid = if sent % 2 == 0 {
                format!("invented {sent}")
            } else {
                "1".into()
            };
            let token = invented(&world, &kid, sent);
            let tokens = Arc::clone(&tokens);
            flood.spawn(async move { verify(&tokens, &token, at(second)).await });
            sent += 1;
        }
        if second >= ROTATED && passed.is_none() {
            let verdict = verify(&tokens, &world.token().to_text(), at(second)).await;
            passed = verdict.is_ok().then_some(second);
        }
        for verdict in within_reason(flood.join_all()).await {
            assert!(
                matches!(verdict, Err(TokenError::Key | TokenError::Signature)),
                "{verdict:?}"
            );
        }
    }
    assert_eq!(sent, 10_000);
    assert_eq!(passed, Some(35), "the first fetch after the change");
    assert_eq!(world.fetches(), 12, "one in five seconds");
    assert_eq!(world.server.requests().len(), 12, "and nothing else");
}

/// Fetches that tokens cause are put off here for an hour, and those by the keys' age are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_does_not_put_off_the_renewal_of_keys() {
    let mut world = World::new().await;
    let minute = |world: &World| {
        let reply = Reply::text(world.issuer.jwks()).with_header("cache-control", "max-age=60");
        world.server.set(KEYS, reply);
    };
    minute(&world);
    let remote = world
        .remote()
        .with_cooldown(secs(3600))
        .fetched()
        .await
        .unwrap();
    world.server.forget();
    let tokens = Arc::new(world.verifier(remote.clone()));
    // One for the flood, at second 0, and then one in three quarters of a minute.
    for second in 0..180 {
        if second == 100 {
            world.rotate("new");
            minute(&world);
        }
        let mut flood = JoinSet::new();
        for number in 0..50 {
            let token = invented(&world, "invented", number);
            let tokens = Arc::clone(&tokens);
            flood.spawn(async move { verify(&tokens, &token, at(second)).await });
        }
        for verdict in within_reason(flood.join_all()).await {
            assert_eq!(verdict, Err(TokenError::Key));
        }
        until(|| remote.status().fetched == Some(at(second / 45 * 45))).await;
    }
    assert_eq!(world.fetches(), 4, "at 0, 45, 90 and 135");
    assert_eq!(
        verify(&tokens, &world.token().to_text(), at(179)).await,
        Ok(())
    );
}

/// The same through the whole layer: a good proof with each token, by which the flood gets no
/// further, and another client is not harmed by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_through_the_layer_is_rejected_and_nothing_else() {
    let mut world = World::new().await;
    let remote = world.keys().await;
    let verifier = Verifier::new(
        ProofRules::new(AUDIENCE.parse().unwrap()).with_clock(world.issuer.clock().read()),
        world.verifier(remote),
    );
    let service = DpopLayer::new(verifier).layer(service_fn(async |_: Request<String>| {
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    }));
    let ask = |request: Request<String>| {
        let service = service.clone();
        async move { service.oneshot(request).await.unwrap() }
    };
    let url = format!("{AUDIENCE}/orders");
    let old = world.issuer.clone();
    for second in 0..60 {
        let mut flood = JoinSet::new();
        let mallory = TestClient::new(&old);
        for number in 0..if second % 3 == 0 { 10 } else { 0 } {
            let mut request = mallory.request(Method::GET, &url);
            request.token_header["kid"] = json!(format!("invented {second} {number}"));
            flood.spawn(ask(request.build()));
        }
        if second == 32 {
            world.rotate("new");
        }
        let client = TestClient::new(&world.issuer);
        let response = ask(client.request(Method::GET, &url).build()).await;
        // The last fetch was at 30, the next is at 35.
        let is_unknown = (32..35).contains(&second);
        let expected = is_unknown.then_some(&Rejection::Token(TokenError::Key));
        assert_eq!(
            response.extensions().get::<Rejection>(),
            expected,
            "{second}"
        );
        for response in within_reason(flood.join_all()).await {
            let rejection = response.extensions().get::<Rejection>();
            assert_eq!(
                rejection,
                Some(&Rejection::Token(TokenError::Key)),
                "{second}"
            );
        }
        world.issuer.clock().advance(secs(1));
    }
    assert_eq!(
        world.fetches(),
        10,
        "at 0, 6, 12, 18, 24, 30, 35, 42, 48 and 54"
    );
}

/// While the issuer is down, a flood makes no more attempts than its absence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_in_an_outage_makes_one_attempt_a_cooldown() {
    let world = World::new().await;
    let remote = world.keys().await;
    let tokens = Arc::new(world.verifier(remote.clone()));
    let good = world.token().to_text();
    world.server.set(OAUTH, Reply::status(503));
    world.server.set(OPENID, Reply::status(503));
    world.server.set(KEYS, Reply::status(503));
    // Across the end of their lifetime, at second 600.
    for second in 570..630 {
        let mut flood = JoinSet::new();
        for number in 0..50 {
            let token = invented(&world, "invented", number);
            let tokens = Arc::clone(&tokens);
            flood.spawn(async move { verify(&tokens, &token, at(second)).await });
        }
        for verdict in within_reason(flood.join_all()).await {
            assert_eq!(verdict, Err(TokenError::Unavailable), "{second}");
        }
        assert_eq!(verify(&tokens, &good, at(second)).await, Ok(()), "{second}");
    }
    assert_eq!(world.fetches(), 1, "then the issuer is discovered again");
    assert_eq!(world.server.requests_to(OAUTH), 11);
}

/// A sink for `tracing` output.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// What this thread logs until the guard is dropped.
    fn start() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("off,tower_dpop::tokens::jwks=info")
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        enable_tracing_callsites();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// The lines about one issuer.
    fn about(&self, issuer: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().filter(|line| line.contains(issuer));
        lines.map(str::to_owned).collect()
    }
}

/// One line for each failure and for each change, with the issuer (which is configuration) and
/// without anything of a token.
#[test]
fn says_when_keys_change_and_when_they_cannot_be_fetched() {
    let (log, _guard) = Log::start();
    let log = block_on(async {
        let mut world = World::new().await;
        let tokens = world.verifier(world.keys().await);
        let bad = invented(&world, "marker-kid-marker", 0);
        verify(&tokens, &bad, at(0)).await.unwrap_err(); // unchanged
        world.server.hang_up();
        verify(&tokens, &bad, at(5)).await.unwrap_err(); // failed
        verify(&tokens, &bad, at(6)).await.unwrap_err(); // too early
        world.server.outcome();
        world.rotate("2");
        verify(&tokens, &bad, at(10)).await.unwrap_err(); // changed
        world.server.set(KEYS, Reply::status(500));
        verify(&tokens, &bad, at(15)).await.unwrap_err(); // failed
        log.about(&format!("issuer={} ", world.server.url()))
    });
    let expected = [
        ("INFO", "have changed", "cause=\"start\"", "keys=1"),
        (
            "WARN",
            "could not be fetched",
            "cause=\"demanded\"",
            "key set is unreachable: no",
        ),
        ("INFO", "have changed", "cause=\"demanded\"", "keys=1"),
        (
            "WARN",
            "could not be fetched",
            "cause=\"demanded\"",
            "failed with status 500",
        ),
    ];
    assert_eq!(log.len(), expected.len(), "{log:#?}");
    for (line, (level, message, cause, detail)) in log.iter().zip(expected) {
        for part in [level, message, cause, detail, "issuer=http://127.0.0.1:"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!line.contains("marker"), "{line}");
    }
}

#[test]
fn counts_fetches_by_cause_and_result() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        block_on(async {
            let mut world = World::new().await;
            world.server.hang_up();
            world.remote().fetched().await.unwrap_err();
            world.server.outcome();
            let keys = world.keys().await;
            let known = keys.key_set(at(0)).await.unwrap();
            keys.newer_key_set(&known, at(0)).await.unwrap();
            keys.newer_key_set(&known, at(1)).await.unwrap();
            keys.key_set(at(600)).await.unwrap();
            world.rotate("2");
            keys.newer_key_set(&known, at(600)).await.unwrap();
        });
    });
    let mut counted: Vec<_> = recorder
        .snapshotter()
        .snapshot()
        .into_vec()
        .into_iter()
        .filter(|(key, ..)| key.key().name() == tower_dpop::telemetry::KEY_FETCHES)
        .map(|(key, _, _, value)| {
            let labels: Vec<_> = key
                .key()
                .labels()
                .map(|label| label.value().to_owned())
                .collect();
            (labels.join(" "), value)
        })
        .collect();
    counted.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        "demanded changed",
        "demanded unchanged",
        "scheduled unchanged",
        "start changed",
        "start failed",
    ];
    assert_eq!(
        counted,
        expected.map(|labels| (labels.to_owned(), DebugValue::Counter(1)))
    );
}

/// For health checks, and for whoever reads the log.
#[test]
fn tells_how_it_is_and_no_url() {
    block_on(async {
        let world = World::new().await;
        let keys = world.remote();
        let status = keys.status();
        assert_eq!(
            (status.keys, status.fetched, status.failure),
            (0, None, None)
        );
        assert_eq!((status.lives_until, status.usable_until), (None, None));
        world.server.hang_up();
        let error = keys.clone().fetched().await.unwrap_err();
        assert_eq!(keys.status().failure.as_ref(), Some(&error));
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(
                !text.contains("127.0.0.1") && !text.contains("://"),
                "{text}"
            );
        }

        world.server.outcome();
        let nobody = Server::start().await.at("/nobody");
        let keys = RemoteKeys::at(nobody.parse().unwrap(), http());
        assert_eq!(
            keys.fetched().await.unwrap_err().to_string(),
            "the request for the issuer's key set failed with status 404"
        );
        let shown = format!("{:?}", world.keys().await.status());
        let x = jwks(&world.issuer)["keys"][0]["x"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(!shown.contains(&x), "{shown}");
    });
}

/// Clones are one source, and settings may be made at any time.
#[test]
fn clones_share_the_keys() {
    fn is_source<K: KeySource + Clone>(_: &K) {}

    block_on(async {
        let world = World::new().await;
        let keys = world.remote();
        is_source(&keys);
        let clone = keys.clone().with_cooldown(secs(1)).fetched().await.unwrap();
        world.server.forget();
        let set: KeySet = keys.key_set(at(0)).await.unwrap();
        assert!(set.is(&clone.key_set(at(0)).await.unwrap()));
        assert!(clone.newer_key_set(&set, at(0)).await.unwrap().is_none());
        assert!(clone.newer_key_set(&set, at(1)).await.unwrap().is_none());
        assert!(keys.newer_key_set(&set, at(2)).await.unwrap().is_none());
        assert_eq!(
            world.fetches(),
            2,
            "the last one would wait for five seconds"
        );
    });
}
