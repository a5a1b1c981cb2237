//! An issuer's documents: at which URLs they are requested, and which are rejected.

use http::StatusCode;
use serde_json::json;
use tower_dpop::testing::TestIssuer;
use tower_dpop::tokens::{InvalidEndpointUrl, IssuerDocument, KeySource as _, RemoteKeysError};
use tower_dpop::{JwtVerifier, RemoteKeys};

use super::{Fixture, at, verify};
use crate::tokens::server::{KEYS, OAUTH, OPENID, Reply, Server, http};
use common::log::logged;
use common::{AUDIENCE, Key, KeyExt as _, block_on, keys};

/// R-AT.4: "the AS's keys" are those that its metadata names. The URLs of the metadata are those of
/// RFC 8414 section 3.1 and OpenID Connect Discovery section 4.1.
#[test]
fn discovers_the_keys_of_an_issuer_with_or_without_a_path() {
    let rows: [(&str, &str, &str, &[&str]); 8] = [
        ("no path", "", OAUTH, &[OAUTH]),
        ("path /", "/", OAUTH, &[OAUTH]),
        (
            "a path",
            "/tenant/1",
            "/.well-known/oauth-authorization-server/tenant/1",
            &["/.well-known/oauth-authorization-server/tenant/1"],
        ),
        (
            "a path with a trailing slash",
            "/tenant/",
            "/.well-known/oauth-authorization-server/tenant",
            &["/.well-known/oauth-authorization-server/tenant"],
        ),
        ("OpenID, no path", "", OPENID, &[OAUTH, OPENID]),
        ("OpenID, path /", "/", OPENID, &[OAUTH, OPENID]),
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
            "OpenID, a path with a trailing slash",
            "/tenant/",
            "/tenant/.well-known/openid-configuration",
            &[
                "/.well-known/oauth-authorization-server/tenant",
                "/tenant/.well-known/openid-configuration",
            ],
        ),
    ];
    for (name, path, metadata_path, requested) in rows {
        block_on(async {
            let server = Server::start().await;
            let issuer = TestIssuer::new(server.url_of(path), AUDIENCE);
            server.set(
                metadata_path,
                Reply::metadata(&server.url_of(path), &server.url_of(KEYS)),
            );
            server.set(KEYS, Reply::text(issuer.jwks()));
            let keys = RemoteKeys::discover(server.url_of(path).parse().unwrap(), http());
            let keys = keys
                .fetched()
                .await
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(keys.status().keys, 1, "{name}");
            assert_eq!(server.requests(), [requested, &[KEYS]].concat(), "{name}");
        });
    }
}

/// Servers respond in many ways to requests for paths that they do not know.
#[test]
fn tries_openid_discovery_after_any_failure_except_an_outage() {
    let other_server = block_on(Server::start());
    let rows = [
        ("status 404", Reply::status(404)),
        ("status 500", Reply::status(500)),
        (
            "an HTML page",
            Reply::text("<!doctype html><title>Log in</title>"),
        ),
        (
            "a document that is too long",
            Reply::text(vec![b' '; 300 * 1024]),
        ),
        (
            "a redirect to another origin",
            Reply::redirect(302, &other_server.url_of("/login")),
        ),
        (
            "another issuer",
            Reply::metadata("https://as.example.com", "https://as.example.com/jwks"),
        ),
    ];
    for (name, reply) in rows {
        block_on(async {
            let fixture = Fixture::new().await;
            fixture.server.set(OAUTH, reply);
            fixture.server.set(
                OPENID,
                Reply::metadata(&fixture.server.url(), &fixture.server.url_of(KEYS)),
            );
            let keys = fixture.remote().fetched().await;
            assert_eq!(keys.unwrap().status().keys, 1, "{name}");
        });
    }
    block_on(async {
        let fixture = Fixture::new().await;
        fixture.server.hang_up();
        let error = fixture.remote().fetched().await.unwrap_err();
        assert!(matches!(
            error,
            RemoteKeysError::Unreachable {
                document: IssuerDocument::Metadata,
                ..
            }
        ));
        let url = fixture.server.url_of(OAUTH);
        let start = format!("the issuer's metadata at {url} is unreachable: ");
        assert!(error.to_string().starts_with(&start), "{error}");
        assert_eq!(fixture.server.requests(), [OAUTH]);
    });
}

/// RFC 8414 section 3.3: the `issuer` in the metadata is compared character by character. The error shows both.
#[test]
fn metadata_of_another_issuer_is_rejected_with_both_names_and_the_difference() {
    /// Makes the issuer in the metadata from the configured one.
    type Make = fn(&str) -> String;
    let rows: [(&str, Make, &str); 9] = [
        (
            "a trailing slash",
            |url| format!("{url}/"),
            " (they differ by the trailing slash)",
        ),
        ("two slashes", |url| format!("{url}//"), ""),
        ("a path", |url| format!("{url}/tenant"), ""),
        (
            "another scheme",
            |url| url.replace("http", "https"),
            " (they differ in the scheme)",
        ),
        (
            "the scheme in capitals",
            |url| url.replace("http", "HTTP"),
            " (they differ in upper and lower case)",
        ),
        ("a trailing space", |url| format!("{url} "), ""),
        ("another host", |_| "https://as.example.com".to_owned(), ""),
        ("an empty issuer", |_| String::new(), ""),
        ("line feeds", |_| "https://a\nb\u{1b}[31m".to_owned(), ""),
    ];
    for (name, found, difference) in rows {
        block_on(async {
            let fixture = Fixture::new().await;
            let (configured, found) = (fixture.server.url(), found(&fixture.server.url()));
            let text = format!(
                "the issuer's metadata name another issuer: {configured:?} is configured, {found:?} was found{difference}: \
                 configure the issuer exactly as its metadata and its tokens spell it"
            );
            // First without OpenID metadata, then with the same document as OpenID metadata.
            for path in [OAUTH, OPENID] {
                fixture
                    .server
                    .set(path, Reply::metadata(&found, &fixture.server.url_of(KEYS)));
                let error = fixture.remote().fetched().await.unwrap_err();
                assert_eq!(error.to_string(), text, "{name}");
                let (configured, found) = (configured.clone(), found.clone());
                assert_eq!(
                    error,
                    RemoteKeysError::Issuer { configured, found },
                    "{name}"
                );
            }
            assert_eq!(fixture.fetches(), 0, "{name}");
        });
    }
    block_on(async {
        let fixture = Fixture::new().await;
        let with_slash = RemoteKeys::discover(fixture.server.url_of("/").parse().unwrap(), http());
        let error = with_slash.fetched().await.unwrap_err().to_string();
        assert!(
            error.contains(" (they differ by the trailing slash)"),
            "{error}"
        );
        let long = Reply::metadata(&"x".repeat(100_000), "");
        fixture.server.set(OAUTH, long);
        let error = fixture.remote().fetched().await.unwrap_err().to_string();
        assert!(
            error.contains(&"x".repeat(256)) && error.len() < 600,
            "{error}"
        );
    });
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn rejects_invalid_metadata() {
    use IssuerDocument::Metadata;
    use RemoteKeysError as Error;

    /// Makes the metadata, for the URL of the server.
    type Make = fn(&str) -> Reply;
    let rows: Vec<(&str, Make, RemoteKeysError)> = vec![
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
            "an array",
            |url| Reply::text(json!([url]).to_string()),
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
            "an HTML page",
            |_| Reply::text("<!doctype html>"),
            Error::Malformed(Metadata),
        ),
        (
            "an empty body",
            |_| Reply::text(""),
            Error::Malformed(Metadata),
        ),
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
            "a file as jwks_uri",
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
            "a jwks_uri with http on another host",
            |url| Reply::metadata(url, "http://as.example.com/jwks"),
            Error::JwksUri(InvalidEndpointUrl::NotHttps(
                "http://as.example.com/jwks".into(),
            )),
        ),
        (
            "a jwks_uri of 100,000 characters with http on another host",
            |url| Reply::metadata(url, &format!("http://a/{}", "x".repeat(100_000))),
            Error::JwksUri(InvalidEndpointUrl::NotHttps(format!(
                "http://a/{}",
                "x".repeat(247)
            ))),
        ),
        (
            "a malformed jwks_uri of 100,000 characters",
            |url| Reply::metadata(url, &"x".repeat(100_000)),
            Error::JwksUri(InvalidEndpointUrl::Malformed("x".repeat(256))),
        ),
        (
            "262,145 bytes",
            |_| Reply::text(vec![b' '; 262_145]),
            Error::TooLong(Metadata),
        ),
        (
            "status 404",
            |_| Reply::status(404),
            Error::Status {
                document: Metadata,
                status: StatusCode::NOT_FOUND,
            },
        ),
        (
            "status 201",
            |_| Reply::status(201),
            Error::Status {
                document: Metadata,
                status: StatusCode::CREATED,
            },
        ),
        (
            "status 503",
            |_| Reply::status(503),
            Error::Status {
                document: Metadata,
                status: StatusCode::SERVICE_UNAVAILABLE,
            },
        ),
    ];
    for (name, reply, expected) in rows {
        block_on(async {
            let fixture = Fixture::new().await;
            // First without OpenID metadata, then with the same document as OpenID metadata.
            for paths in [&[OAUTH][..], &[OAUTH, OPENID]] {
                for path in paths {
                    fixture.server.set(path, reply(&fixture.server.url()));
                }
                let error = fixture.remote().fetched().await.unwrap_err();
                assert_eq!(error, expected, "{name}, {paths:?}");
            }
            assert_eq!(fixture.fetches(), 0, "{name}");
        });
    }
}

#[test]
fn keys_may_be_on_another_origin_or_at_a_configured_url() {
    block_on(async {
        let (fixture, other_server) = (Fixture::new().await, Server::start().await);
        other_server.set("/keys", Reply::text(fixture.issuer.jwks()));
        let metadata = Reply::metadata(&fixture.server.url(), &other_server.url_of("/keys"));
        fixture.server.set(OAUTH, metadata);
        fixture.remote().fetched().await.unwrap();
        assert_eq!(
            (fixture.server.requests(), other_server.requests()),
            (vec![OAUTH.into()], vec!["/keys".into()])
        );

        fixture.server.clear_requests();
        let keys = RemoteKeys::at(fixture.server.url_of(KEYS).parse().unwrap(), http());
        keys.fetched().await.unwrap();
        assert_eq!(fixture.server.requests(), [KEYS], "no request for metadata");
    });
}

/// An issuer in the same cluster: its public name is not reachable from here.
#[test]
fn metadata_may_be_at_another_address_than_the_issuers_name() {
    const PLACE: &str = "/realms/shop/metadata";
    const ISSUER: &str = "https://login.example.com/realms/shop";
    block_on(async {
        let server = Server::start().await;
        let issuer = TestIssuer::new(ISSUER, AUDIENCE);
        server.set("/keys", Reply::text(issuer.jwks()));
        let discover = async || {
            let place = server.url_of(PLACE) + "?version=2";
            let keys =
                RemoteKeys::discover_at(ISSUER.parse().unwrap(), place.parse().unwrap(), http());
            let keys = keys.with_clock(issuer.clock().read()).fetched().await?;
            Ok::<_, RemoteKeysError>(keys)
        };
        server.set(PLACE, Reply::metadata(ISSUER, &server.url_of("/keys")));
        let keys = discover().await.unwrap();
        assert_eq!(server.requests(), [PLACE, "/keys"]);
        let tokens = JwtVerifier::new(ISSUER, AUDIENCE, keys);
        let token = issuer.token_for(keys::client().thumbprint()).to_text();
        assert_eq!(verify(&tokens, &token, at(0)).await, Ok(()));

        let another = RemoteKeysError::Issuer {
            configured: ISSUER.to_owned(),
            found: server.url(),
        };
        server.set(
            PLACE,
            Reply::metadata(&server.url(), &server.url_of("/keys")),
        );
        assert_eq!(
            discover().await.unwrap_err(),
            another,
            "it names its own address"
        );

        let public = "http://login.example.com/keys";
        server.set(PLACE, Reply::metadata(ISSUER, public));
        let plain = InvalidEndpointUrl::NotHttps(public.to_owned());
        assert_eq!(
            discover().await.unwrap_err(),
            RemoteKeysError::JwksUri(plain)
        );

        server.clear_requests();
        server.set(PLACE, Reply::status(404));
        server.set(OAUTH, Reply::metadata(ISSUER, &server.url_of("/keys")));
        server.set(OPENID, Reply::metadata(ISSUER, &server.url_of("/keys")));
        assert!(matches!(
            discover().await.unwrap_err(),
            RemoteKeysError::Status { .. }
        ));
        assert_eq!(server.requests(), [PLACE], "and nowhere else");
    });
}

/// D8a, for fetched keys: one usable key is enough, and the others are named once per document.
#[test]
fn a_key_that_cannot_be_used_is_skipped_and_named_once_per_document() {
    let skipped = |log: &str| {
        log.lines()
            .filter(|line| line.contains("is skipped"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (url, log) = logged(|| {
        block_on(async {
            let fixture = Fixture::new().await;
            let mut usable = Key::rsa("PS256").public_jwk();
            let n = usable["n"]
                .as_str()
                .unwrap()
                .replace('-', "+")
                .replace('_', "/");
            usable["n"] = json!(n + "==");
            let weak = json!({ "kty": "RSA", "kid": "2019", "n": "AQAB", "e": "AQAB" });
            let document = |first| json!({ "keys": [first, usable.clone(), weak] }).to_string();
            fixture.server.set(KEYS, Reply::text(document(json!(null))));
            let keys = fixture.keys().await;
            assert_eq!(keys.status().keys, 1);
            for second in [600, 1200] {
                keys.key_set(at(second)).await.unwrap();
                assert_eq!(keys.status().fetched, Some(at(second)));
            }
            fixture.server.set(KEYS, Reply::text(document(json!(7))));
            keys.key_set(at(1800)).await.unwrap();
            fixture.server.url()
        })
    });
    let lines = skipped(&log);
    assert_eq!(lines.len(), 4, "two keys of two documents: {lines:#?}");
    let expected = [
        "index=0 reason=not a JSON object",
        r#"index=2 kid="2019" reason=n has 17 bits (2048 to 8192 are accepted)"#,
    ];
    for (line, expected) in lines.iter().zip(expected.iter().cycle()) {
        for part in ["WARN tower_dpop: ", &format!("issuer={url} "), expected] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
}

/// An unusable key set counts as a failed fetch: at start-up there are no keys, later the previous
/// keys are kept.
#[test]
fn rejects_unusable_key_sets() {
    use IssuerDocument::KeySet as Document;
    use RemoteKeysError as Error;

    let key = Key::es256().public_jwk();
    let keys = |count: usize| json!({ "keys": vec![key.clone(); count] }).to_string();
    let padded = |bytes: usize| {
        let document = keys(1);
        document.clone() + &" ".repeat(bytes - document.len())
    };
    let no_usable_key = |reasons: &str| Some(Error::NoUsableKey(reasons.to_owned()));
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
        (
            "an empty key set",
            Reply::text(keys(0)),
            no_usable_key("it is empty"),
        ),
        (
            "no usable key",
            Reply::text(json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] }).to_string()),
            no_usable_key(r#"key 0 without kid: kty "oct" is not supported"#),
        ),
        (
            "a single key",
            Reply::text(key.to_string()),
            Some(Error::Malformed(Document)),
        ),
        (
            "keys is not an array",
            Reply::text(json!({ "keys": key }).to_string()),
            Some(Error::Malformed(Document)),
        ),
        (
            "an array",
            Reply::text(json!([key]).to_string()),
            Some(Error::Malformed(Document)),
        ),
        (
            "a truncated document",
            Reply::text(keys(1)[..40].to_owned()),
            Some(Error::Malformed(Document)),
        ),
        (
            "an HTML page",
            Reply::text("<!doctype html>"),
            Some(Error::Malformed(Document)),
        ),
        (
            "an empty body",
            Reply::text(""),
            Some(Error::Malformed(Document)),
        ),
        (
            "deeply nested arrays",
            Reply::text("[".repeat(200_000)),
            Some(Error::Malformed(Document)),
        ),
        ("status 204", Reply::status(204), Some(status(204))),
        ("status 304", Reply::status(304), Some(status(304))),
        ("status 404", Reply::status(404), Some(status(404))),
        ("status 500", Reply::status(500), Some(status(500))),
    ];
    for (name, reply, expected) in rows {
        block_on(async {
            let fixture = Fixture::new().await;
            let remote = fixture.keys().await;
            let old = remote.key_set(at(0)).await.unwrap();
            fixture.server.set(KEYS, reply);
            assert_eq!(fixture.remote().fetched().await.err(), expected, "{name}");

            let found = remote.key_set(at(600)).await.unwrap();
            assert_eq!(found.is(&old), expected.is_some(), "{name}");
            assert_eq!(remote.status().failure, expected, "{name}");
        });
    }
}
