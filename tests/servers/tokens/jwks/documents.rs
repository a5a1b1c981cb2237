//! Metadata and key sets, as issuers publish them (`src/tokens/jwks/documents.rs`).

use super::*;

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
