//! Which URLs can be configured as public URLs.

use std::mem::discriminant;

use tower_dpop::PublicUrl;
use tower_dpop::proof::InvalidPublicUrl;

use super::target::{SCHEME, assert_comparison, layer_at, outcome_for};

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn public_urls_are_parsed_strictly() {
    use InvalidPublicUrl::{Malformed, NotHttps, QueryOrFragment};

    type Expected = Result<&'static str, fn(String) -> InvalidPublicUrl>;
    let rows: &[(&str, &str, Expected)] = &[
        (
            "only an origin",
            "https://api.example.com",
            Ok("https://api.example.com"),
        ),
        (
            "H-4: a trailing slash",
            "https://api.example.com/",
            Ok("https://api.example.com"),
        ),
        (
            "H-1: in upper case",
            "HTTPS://API.Example.com",
            Ok("https://api.example.com"),
        ),
        (
            "H-2: the default port",
            "https://api.example.com:443",
            Ok("https://api.example.com"),
        ),
        (
            "H-2: an empty port",
            "https://api.example.com:/",
            Ok("https://api.example.com"),
        ),
        (
            "H-2: another port",
            "https://api.example.com:8443",
            Ok("https://api.example.com:8443"),
        ),
        (
            "the highest port",
            "https://api.example.com:65535",
            Ok("https://api.example.com:65535"),
        ),
        (
            "the lowest port",
            "https://api.example.com:1",
            Ok("https://api.example.com:1"),
        ),
        (
            "a prefix",
            "https://example.com/api",
            Ok("https://example.com/api"),
        ),
        (
            "a prefix with a trailing slash",
            "https://example.com/api/",
            Ok("https://example.com/api"),
        ),
        (
            "a prefix of two segments",
            "https://example.com/a/b",
            Ok("https://example.com/a/b"),
        ),
        (
            "H-5 H-6 H-8: a prefix is normalised",
            "https://example.com/x/../%61pi/%c3%a9",
            Ok("https://example.com/api/%C3%A9"),
        ),
        (
            "H-13: IPv6",
            "https://[2001:DB8:0::A]:8443/",
            Ok("https://[2001:db8::a]:8443"),
        ),
        (
            "H-14: an A-label",
            "https://XN--BCHER-KVA.example",
            Ok("https://xn--bcher-kva.example"),
        ),
        (
            "H-15: a dot after the host",
            "https://api.example.com.",
            Ok("https://api.example.com."),
        ),
        ("R-2.1: http", "http://api.example.com", Err(NotHttps)),
        (
            "R-2.1: http on loopback",
            "http://127.0.0.1:8080",
            Ok("http://127.0.0.1:8080"),
        ),
        (
            "R-2.1: http on another address of loopback",
            "http://127.1.2.3/api",
            Ok("http://127.1.2.3/api"),
        ),
        (
            "R-2.1: http on loopback, IPv6",
            "http://[0:0::1]",
            Ok("http://[::1]"),
        ),
        (
            "R-2.1: http on localhost",
            "http://LocalHost:8080",
            Ok("http://localhost:8080"),
        ),
        ("R-2.1: http everywhere", "http://0.0.0.0", Err(NotHttps)),
        (
            "R-2.1: http on IPv6 everywhere",
            "http://[::]",
            Err(NotHttps),
        ),
        (
            "R-2.1: a name that begins as loopback",
            "http://127.0.0.1.example.com",
            Err(NotHttps),
        ),
        (
            "R-2.1: a subdomain of localhost",
            "http://api.localhost",
            Err(NotHttps),
        ),
        (
            "R-2.1: an abbreviated address",
            "http://127.1",
            Err(NotHttps),
        ),
        (
            "H-3: a port with a leading zero",
            "https://api.example.com:0443",
            Err(Malformed),
        ),
        (
            "H-3: a port above 65535",
            "https://api.example.com:65536",
            Err(Malformed),
        ),
        ("H-3: port 0", "https://api.example.com:0", Err(Malformed)),
        (
            "H-11: a query",
            "https://api.example.com/?x",
            Err(QueryOrFragment),
        ),
        (
            "H-11: an empty query",
            "https://api.example.com?",
            Err(QueryOrFragment),
        ),
        (
            "H-11: a fragment",
            "https://api.example.com/#x",
            Err(QueryOrFragment),
        ),
        (
            "H-11: an empty fragment",
            "https://api.example.com#",
            Err(QueryOrFragment),
        ),
        (
            "H-12: a user name",
            "https://joe@api.example.com",
            Err(Malformed),
        ),
        (
            "H-12: empty userinfo",
            "https://@api.example.com",
            Err(Malformed),
        ),
        (
            "H-13: a zone id",
            "https://[fe80::1%25eth0]",
            Err(Malformed),
        ),
        ("H-14: a U-label", "https://bücher.example", Err(Malformed)),
        ("H-16: no scheme", "api.example.com", Err(Malformed)),
        ("H-16: no host", "https://", Err(Malformed)),
        ("H-16: wss", "wss://api.example.com", Err(Malformed)),
        ("H-16: only a path", "/api", Err(Malformed)),
        ("H-16: an empty string", "", Err(Malformed)),
        (
            "H-17: a space",
            "https://api.example.com/a b",
            Err(Malformed),
        ),
        (
            "H-17: a trailing space",
            "https://api.example.com ",
            Err(Malformed),
        ),
        ("H-17: %zz", "https://api.example.com/%zz", Err(Malformed)),
        (
            "H-17: a placeholder in braces",
            "https://api.example.com/{version}",
            Err(Malformed),
        ),
    ];
    for (name, url, expected) in rows {
        match (url.parse::<PublicUrl>(), expected) {
            (Ok(parsed), Ok(expected)) => assert_eq!(parsed.to_string(), *expected, "{name}"),
            (Err(error), Err(expected)) => {
                assert_eq!(
                    discriminant(&error),
                    discriminant(&expected(String::new())),
                    "{name}"
                );
            }
            (parsed, _) => panic!("{name}: {parsed:?}"),
        }
    }
}

#[test]
fn the_error_shows_the_url_without_its_userinfo() {
    let rows = [
        (
            "http://api.example.com",
            r#""http://api.example.com": must be https (plain http is accepted on loopback only)"#,
        ),
        (
            "https://api.example.com/a?b=c",
            r#""https://api.example.com/a?b=c": must have no query and no fragment"#,
        ),
        (
            "api.example.com",
            r#""api.example.com": must be an absolute URL of the form https://host[:port][/prefix]"#,
        ),
        (
            "https://joe:secret@api.example.com/a@b",
            r#""https://…@b": must be an absolute URL of the form https://host[:port][/prefix]"#,
        ),
        (
            "https:///joe:secret@api.example.com",
            r#""https://…@api.example.com": must be an absolute URL of the form https://host[:port][/prefix]"#,
        ),
        (
            "https:/joe:se/cret@api.example.com",
            r#""…@api.example.com": must be an absolute URL of the form https://host[:port][/prefix]"#,
        ),
        (
            "joe:secret@api.example.com",
            r#""…@api.example.com": must be an absolute URL of the form https://host[:port][/prefix]"#,
        ),
    ];
    for (url, text) in rows {
        let error = url.parse::<PublicUrl>().unwrap_err();
        assert_eq!(error.to_string(), text);
        assert!(!format!("{error:?}").contains("joe"));
    }
}

/// R-2.1
#[test]
fn plain_http_is_accepted_on_this_machine_only() {
    for (host, accepted) in [
        ("localhost", true),
        ("LOCALHOST", true),
        ("127.0.0.1", true),
        ("127.255.255.254", true),
        ("[::1]", true),
        ("126.255.255.255", false),
        ("128.0.0.1", false),
        ("0.0.0.0", false),
        ("192.168.0.1", false),
        ("[::]", false),
        ("[::2]", false),
        ("[::ffff:127.0.0.1]", false),
        ("127.0.0.1.example.com", false),
        ("localhost.example.com", false),
        ("api.example.com", false),
    ] {
        let http = format!("http://{host}:8080");
        let expected = if accepted {
            Ok(http.to_lowercase())
        } else {
            Err(InvalidPublicUrl::NotHttps(http.clone()))
        };
        let parsed = http.parse::<PublicUrl>().map(|url| url.to_string());
        assert_eq!(parsed, expected, "{host}");
        let https = format!("https://{host}").parse::<PublicUrl>();
        assert!(https.is_ok(), "{host} with https");
    }
}

#[test]
fn insecure_http_accepts_http_and_https() {
    let insecure = |url| PublicUrl::insecure_http(url).map(|url| url.to_string());
    assert_eq!(
        insecure("http://127.0.0.1:8080/"),
        Ok("http://127.0.0.1:8080".into())
    );
    assert_eq!(
        insecure("HTTP://localhost:80"),
        Ok("http://localhost".into())
    );
    assert_eq!(
        insecure("https://localhost"),
        Ok("https://localhost".into())
    );
    assert_eq!(
        insecure("http://localhost/?x"),
        Err(InvalidPublicUrl::QueryOrFragment(
            "http://localhost/?x".into()
        ))
    );
    assert_eq!(
        insecure("ws://localhost"),
        Err(InvalidPublicUrl::Malformed("ws://localhost".into()))
    );
    let layer = layer_at(&["http://127.0.0.1:8080"]);
    outcome_for(&layer, "/orders", "http://127.0.0.1:8080/orders")
        .assert_passed("R-2.1: http by explicit configuration");
    assert_comparison(
        "R-2.1: https does not match a public http URL",
        &outcome_for(&layer, "/orders", "https://127.0.0.1:8080/orders"),
        SCHEME,
    );
}
