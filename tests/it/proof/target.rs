//! `htm` and `htu`: what equals what, and that the expected URL comes from configuration alone.

#![expect(clippy::too_many_lines, reason = "tables are long")]

use http::{HeaderValue, Method, Request, Uri, Version};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use std::mem::discriminant;
use tower_dpop::proof::{InvalidPublicUrl, ProofError, RequestTarget, TargetError, UrlMismatch};
use tower_dpop::{DpopLayer, ProofRules, PublicUrl, Rejection};

use common::{Attempt, AttemptExt as _, Outcome, ask, verifier_by};

type TestLayer = DpopLayer;

const API: &str = "https://api.example.com";

/// A layer for a service under these public URLs.
fn layer_at(public_urls: &[&str]) -> TestLayer {
    let parse = |url: &str| PublicUrl::insecure_http(url).unwrap();
    let (first, others) = public_urls.split_first().unwrap();
    let rules = ProofRules::new(parse(first)).with_clock(|| common::at(common::NOW));
    let rules = others
        .iter()
        .fold(rules, |rules, url| rules.add_public_url(parse(url)));
    DpopLayer::new(tower_dpop::Verifier::new(rules, common::jwt_verifier()))
}

fn answer(layer: &TestLayer, uri: &str, htu: &str) -> Outcome {
    Attempt::but(|a| {
        a.uri = uri.into();
        a.proof_claims["htu"] = json!(htu);
    })
    .outcome_by(layer)
}

/// What the proof's URL is to the request's.
type Comparison = Result<(), UrlMismatch>;

const EQUAL: Comparison = Ok(());
const MALFORMED: Comparison = Err(UrlMismatch::Malformed);
const SCHEME: Comparison = Err(UrlMismatch::Scheme);
const HOST: Comparison = Err(UrlMismatch::Host);
const PORT: Comparison = Err(UrlMismatch::Port);
const PATH: Comparison = Err(UrlMismatch::Path);

#[track_caller]
fn assert_comparison(name: &str, outcome: &Outcome, expected: Comparison) {
    match expected {
        Ok(()) => outcome.assert_passed(name),
        Err(mismatch) => outcome.assert_reason(name, ProofError::Url(mismatch)),
    }
}

/// R-4.3.13: RFC 3986 section 6.2.2.
#[test]
fn paths_are_normalised_on_both_sides() {
    let rows = [
        ("the same", "/orders", "/orders", EQUAL),
        ("H-5: %7E is ~", "/%7Ejoe", "/~joe", EQUAL),
        ("H-5: %41 is A", "/%41bc", "/Abc", EQUAL),
        ("H-5: %61 is a, not A", "/%61bc", "/Abc", PATH),
        ("H-5: digits", "/v%31/%30", "/v1/0", EQUAL),
        (
            "H-5: the other unreserved ones",
            "/a%2D%2E%5F",
            "/a-._",
            EQUAL,
        ),
        ("H-5: decoded once, not twice", "/%2541", "/%41", PATH),
        ("H-5 H-6: %7e in small digits", "/%7ejoe", "/~joe", EQUAL),
        ("H-6: %2f is %2F", "/a%2fb", "/a%2Fb", EQUAL),
        ("H-6: %c3%a9 is %C3%A9", "/%c3%a9", "/%C3%A9", EQUAL),
        ("H-7: %2F is not /", "/a%2Fb", "/a/b", PATH),
        ("H-7: %21 is not !", "/a%21", "/a!", PATH),
        ("H-7: %3A is not :", "/a%3Ab", "/a:b", PATH),
        ("H-7: %40 is not @", "/a%40b", "/a@b", PATH),
        ("H-7: %3B is not ;", "/a%3Bb", "/a;b", PATH),
        ("H-7: %2B is not +", "/a%2Bb", "/a+b", PATH),
        ("H-7: %20 is not +", "/a%20b", "/a+b", PATH),
        ("H-7: %25 stays", "/a%25", "/a%25", EQUAL),
        ("H-7: %00 is not the end", "/orders%00", "/orders", PATH),
        ("H-8: a dot segment", "/a/./b", "/a/b", EQUAL),
        ("H-8: a double dot segment", "/x/../b", "/b", EQUAL),
        ("H-8: two of them", "/x/y/../../b", "/b", EQUAL),
        ("H-8: beyond the root", "/../../b", "/b", EQUAL),
        ("H-8: a dot at the end", "/a/.", "/a/", EQUAL),
        ("H-8: two dots at the end", "/a/b/..", "/a/", EQUAL),
        ("H-8: nothing but dots", "/..", "/", EQUAL),
        ("H-8: the RFC's example", "/a/b/c/./../../g", "/a/g", EQUAL),
        ("H-8: an encoded double dot", "/x/%2E%2E/b", "/b", EQUAL),
        ("H-8: in small digits", "/x/%2e%2e/b", "/b", EQUAL),
        ("H-8: half encoded", "/x/.%2E/b", "/b", EQUAL),
        ("H-8: an encoded dot", "/%2E/a", "/a", EQUAL),
        (
            "H-8: an empty segment is one to go back over",
            "/a//../b",
            "/a/b",
            EQUAL,
        ),
        ("H-8: three dots are a name", "/a/.../b", "/a/b", PATH),
        ("H-8: a name that starts with dots", "/x/..b", "/b", PATH),
        ("H-8: a name that ends in dots", "/x../b", "/b", PATH),
        ("H-8 H-7: no segment behind %2F", "/x/..%2Fb", "/b", PATH),
        ("H-9: a trailing slash", "/orders/", "/orders", PATH),
        ("H-9: two of them", "/orders//", "/orders/", PATH),
        ("H-10: a double slash", "/a//b", "/a/b", PATH),
        ("H-10: a double slash in front", "//orders", "/orders", PATH),
        ("H-10: parameters", "/orders;v=1", "/orders", PATH),
        ("H-10: upper case", "/Orders", "/orders", PATH),
        ("another path", "/orders/1", "/orders/2", PATH),
        ("a longer path", "/orders/1", "/orders", PATH),
        ("every delimiter", "/!$&'()*+,;=:@", "/!$&'()*+,;=:@", EQUAL),
    ];
    let layer = layer_at(&[API]);
    for (name, one, other, expected) in rows {
        let htu = |path: &str| format!("{API}{path}");
        assert_comparison(name, &answer(&layer, one, &htu(other)), expected);
        let turned = format!("{name}, the other way round");
        assert_comparison(&turned, &answer(&layer, other, &htu(one)), expected);
    }
}

/// R-4.3.13: RFC 3986 section 6.2.3.
#[test]
fn schemes_hosts_and_ports_are_normalised_on_both_sides() {
    let rows = [
        (
            "H-1: upper-case scheme",
            "HTTPS://api.example.com",
            API,
            EQUAL,
        ),
        (
            "H-1: upper-case host",
            "https://API.Example.COM",
            API,
            EQUAL,
        ),
        (
            "H-2: the default port",
            "https://api.example.com:443",
            API,
            EQUAL,
        ),
        ("H-2: an empty port", "https://api.example.com:", API, EQUAL),
        (
            "H-2: http's default port",
            "http://api.example.com:80",
            "http://api.example.com",
            EQUAL,
        ),
        (
            "H-2: http's empty port",
            "http://api.example.com:",
            "http://api.example.com",
            EQUAL,
        ),
        (
            "H-2: http's port on https",
            "https://api.example.com:80",
            API,
            PORT,
        ),
        (
            "H-2: https's port on http",
            "http://api.example.com:443",
            "http://api.example.com",
            PORT,
        ),
        (
            "H-2: the same other port",
            "https://api.example.com:8443",
            "https://API.example.com:8443",
            EQUAL,
        ),
        (
            "H-2: another port",
            "https://api.example.com:8443",
            API,
            PORT,
        ),
        (
            "H-13: IPv6 in upper case",
            "https://[2001:DB8::A]",
            "https://[2001:db8::a]",
            EQUAL,
        ),
        (
            "H-13: IPv6 uncompressed",
            "https://[2001:db8:0:0:0:0:0:a]",
            "https://[2001:db8::a]",
            EQUAL,
        ),
        (
            "H-13: IPv6 with leading zeros",
            "https://[2001:0db8::000a]",
            "https://[2001:db8::a]",
            EQUAL,
        ),
        (
            "H-13: IPv6 with IPv4 inside",
            "https://[::ffff:192.0.2.1]",
            "https://[::ffff:c000:201]",
            EQUAL,
        ),
        (
            "H-13: IPv6 and the default port",
            "https://[::1]:443",
            "https://[::1]",
            EQUAL,
        ),
        (
            "H-13: IPv6 and an empty port",
            "https://[::1]:",
            "https://[::1]",
            EQUAL,
        ),
        (
            "H-13: IPv6 and another port",
            "https://[::1]:8443",
            "https://[::1]",
            PORT,
        ),
        (
            "H-13: another IPv6 address",
            "https://[::1]",
            "https://[::2]",
            HOST,
        ),
        (
            "H-13: IPv4 is not its IPv6 form",
            "https://192.0.2.1",
            "https://[::ffff:192.0.2.1]",
            HOST,
        ),
        (
            "H-13: IPv4",
            "https://192.0.2.1",
            "https://192.0.2.1",
            EQUAL,
        ),
        (
            "H-14: an A-label in upper case",
            "https://XN--BCHER-KVA.example",
            "https://xn--bcher-kva.example",
            EQUAL,
        ),
        (
            "H-15: a dot behind the host",
            "https://api.example.com.",
            API,
            HOST,
        ),
        ("another host", "https://api.example.org", API, HOST),
        (
            "a host that continues",
            "https://api.example.com.evil.example",
            API,
            HOST,
        ),
        ("a host that is a part", "https://example.com", API, HOST),
        (
            "H-16 R-2.1: http is not https",
            "http://api.example.com",
            API,
            SCHEME,
        ),
        (
            "H-16: not even on the same port",
            "http://api.example.com:443",
            API,
            SCHEME,
        ),
    ];
    for (name, one, other, expected) in rows {
        for (name, public_url, htu) in [
            (name.to_owned(), other, one),
            (format!("{name}, the other way round"), one, other),
        ] {
            let outcome = answer(
                &layer_at(&[public_url]),
                "/orders",
                &format!("{htu}/orders"),
            );
            assert_comparison(&name, &outcome, expected);
        }
    }
}

#[test]
fn an_htu_that_is_no_http_url_is_rejected() {
    let rows = [
        (
            "H-3: a port with a leading zero",
            "https://api.example.com:0443/orders",
        ),
        (
            "H-3: a port beyond 65535",
            "https://api.example.com:99999/orders",
        ),
        (
            "H-3: a port beyond 64 bits",
            "https://api.example.com:18446744073709552059/orders",
        ),
        ("H-3: port 0", "https://api.example.com:0/orders"),
        ("H-3: a sign", "https://api.example.com:+443/orders"),
        ("H-3: a minus", "https://api.example.com:-443/orders"),
        ("H-3: letters", "https://api.example.com:https/orders"),
        (
            "H-3: full-width digits",
            "https://api.example.com:４４３/orders",
        ),
        ("H-3: two ports", "https://api.example.com:443:443/orders"),
        ("H-12: a user", "https://joe@api.example.com/orders"),
        (
            "H-12: a user and a password",
            "https://joe:secret@api.example.com/orders",
        ),
        ("H-12: empty userinfo", "https://@api.example.com/orders"),
        ("H-12: a colon alone", "https://:@api.example.com/orders"),
        (
            "H-12: our host as the user",
            "https://api.example.com@evil.example/orders",
        ),
        (
            "H-12: and with our port",
            "https://api.example.com:443@evil.example/orders",
        ),
        ("H-13: a zone id", "https://[fe80::1%25eth0]/orders"),
        ("H-13: a bare zone id", "https://[fe80::1%eth0]/orders"),
        ("H-13: an open bracket", "https://[::1/orders"),
        (
            "H-13: characters behind the bracket",
            "https://[::1]443/orders",
        ),
        ("H-13: not an address", "https://[::g]/orders"),
        ("H-13: IPv4 in brackets", "https://[192.0.2.1]/orders"),
        ("H-13: a future version", "https://[v1.fe80]/orders"),
        ("H-13: without brackets", "https://::1/orders"),
        ("H-14: a U-label", "https://bücher.example/orders"),
        (
            "H-14: a percent-encoded host",
            "https://%61pi.example.com/orders",
        ),
        (
            "H-14: a percent-encoded U-label",
            "https://b%C3%BCcher.example/orders",
        ),
        ("H-14: a full-width host", "https://ａpi.example.com/orders"),
        (
            "H-14: an ideographic full stop",
            "https://api。example.com/orders",
        ),
        ("H-16: a path", "/orders"),
        ("H-16: a relative path", "orders"),
        ("H-16: without a scheme", "//api.example.com/orders"),
        ("H-16: a host and a path", "api.example.com/orders"),
        ("H-16: one slash", "https:/api.example.com/orders"),
        ("H-16: no slash", "https:api.example.com/orders"),
        ("H-16: no colon", "https//api.example.com/orders"),
        ("H-16: three slashes", "https:///api.example.com/orders"),
        ("H-16: an empty host", "https:///orders"),
        ("H-16: an empty host with a port", "https://:443/orders"),
        ("H-16: wss", "wss://api.example.com/orders"),
        ("H-16: ws", "ws://api.example.com/orders"),
        ("H-16: ftp", "ftp://api.example.com/orders"),
        ("H-16: a longer scheme", "httpss://api.example.com/orders"),
        ("H-16: an empty scheme", "://api.example.com/orders"),
        ("H-16: no hierarchy", "urn:example:orders"),
        ("H-16: an asterisk", "*"),
        ("H-16: nothing", ""),
        ("H-17: a space in front", " https://api.example.com/orders"),
        ("H-17: a space behind", "https://api.example.com/orders "),
        (
            "H-17: a space in the host",
            "https://api.example.com /orders",
        ),
        (
            "H-17: a space in the path",
            "https://api.example.com/or ders",
        ),
        (
            "H-17: a backslash for a slash",
            "https://api.example.com\\orders",
        ),
        (
            "H-17: backslashes for both",
            "https:\\\\api.example.com/orders",
        ),
        (
            "H-17: a backslash in the path",
            "https://api.example.com/a\\orders",
        ),
        (
            "H-17: a TAB in the path",
            "https://api.example.com/or\tders",
        ),
        (
            "H-17: a TAB in the scheme",
            "ht\ttps://api.example.com/orders",
        ),
        (
            "H-17: a TAB in the host",
            "https://api.\texample.com/orders",
        ),
        (
            "H-17: a line feed behind",
            "https://api.example.com/orders\n",
        ),
        (
            "H-17: a carriage return",
            "https://api.example.com/or\rders",
        ),
        ("H-17: NUL", "https://api.example.com/orders\0"),
        ("H-17: DEL", "https://api.example.com/orders\u{7f}"),
        ("H-17: not ASCII", "https://api.example.com/ordérs"),
        (
            "H-17: a soft hyphen in the host",
            "https://api\u{ad}.example.com/orders",
        ),
        ("H-17: %zz", "https://api.example.com/%zz"),
        (
            "H-17: a percent at the end",
            "https://api.example.com/orders%",
        ),
        (
            "H-17: one digit at the end",
            "https://api.example.com/orders%4",
        ),
        (
            "H-17: half a percent-encoding",
            "https://api.example.com/%4grders",
        ),
        (
            "H-17: a sign for a digit",
            "https://api.example.com/%+1rders",
        ),
        ("H-17: a quote", "https://api.example.com/\"orders\""),
        ("H-17: angle brackets", "https://api.example.com/<orders>"),
        ("H-17: braces", "https://api.example.com/{orders}"),
        ("H-17: a bar", "https://api.example.com/orders|"),
        ("H-17: a caret", "https://api.example.com/orders^"),
        ("H-17: a back quote", "https://api.example.com/`orders`"),
        (
            "H-17 H-13: brackets in the path",
            "https://api.example.com/[orders]",
        ),
    ];
    let layer = layer_at(&[API]);
    for (name, htu) in rows {
        assert_comparison(name, &answer(&layer, "/orders", htu), MALFORMED);
    }
}

#[test]
fn an_empty_path_is_the_root() {
    let rows = [
        ("H-4: empty against /", "/", API, EQUAL),
        ("H-4: / against /", "/", "https://api.example.com/", EQUAL),
        (
            "H-4: empty with a port",
            "/",
            "https://api.example.com:443",
            EQUAL,
        ),
        (
            "H-4 H-11: empty before a query",
            "/",
            "https://api.example.com?page=2",
            EQUAL,
        ),
        (
            "H-4 H-11: empty before a fragment",
            "/",
            "https://api.example.com#top",
            EQUAL,
        ),
        (
            "H-4 H-20: empty in the request",
            "https://api.example.com?page=2",
            "https://api.example.com/",
            EQUAL,
        ),
        ("H-4: not any path", "/orders", API, PATH),
    ];
    let layer = layer_at(&[API]);
    for (name, uri, htu, expected) in rows {
        assert_comparison(name, &answer(&layer, uri, htu), expected);
    }
}

#[test]
fn query_and_fragment_are_ignored_on_both_sides() {
    let rows = [
        ("H-11: a query in htu", "/orders", "/orders?page=2", EQUAL),
        ("H-11: an empty query in htu", "/orders", "/orders?", EQUAL),
        ("H-11: a fragment in htu", "/orders", "/orders#top", EQUAL),
        (
            "H-11: an empty fragment in htu",
            "/orders",
            "/orders#",
            EQUAL,
        ),
        ("H-11: both", "/orders", "/orders?page=2#top", EQUAL),
        (
            "H-11: a question mark in the fragment",
            "/orders",
            "/orders#top?page=2",
            EQUAL,
        ),
        (
            "H-11: a slash in the query",
            "/orders",
            "/orders?next=/../x",
            EQUAL,
        ),
        (
            "H-11: a slash in the fragment",
            "/orders",
            "/orders#/a/b",
            EQUAL,
        ),
        (
            "H-11: an at sign in the query",
            "/orders",
            "/orders?to=joe@example.org",
            EQUAL,
        ),
        (
            "H-11: a query in the request",
            "/orders?page=2",
            "/orders",
            EQUAL,
        ),
        (
            "H-11: an empty query in the request",
            "/orders?",
            "/orders",
            EQUAL,
        ),
        (
            "H-11: another query in each",
            "/orders?page=2",
            "/orders?page=3",
            EQUAL,
        ),
        (
            "H-11: an encoded question mark is path",
            "/orders",
            "/orders%3Fpage=2",
            PATH,
        ),
        (
            "H-11: an encoded hash is path",
            "/orders",
            "/orders%23top",
            PATH,
        ),
        ("H-11: the path still counts", "/orders", "/order?s", PATH),
    ];
    let layer = layer_at(&[API]);
    for (name, uri, path, expected) in rows {
        let htu = format!("{API}{path}");
        assert_comparison(name, &answer(&layer, uri, &htu), expected);
    }
}

/// H-17, for what the `http` crate lets through.
#[test]
fn a_request_path_that_is_not_rfc_3986_is_rejected() {
    let layer = layer_at(&[API]);
    for (name, uri) in [
        ("H-17: a quote", "/\"orders\""),
        ("H-17: braces", "/{orders}"),
        ("H-17: a bar", "/orders|"),
        ("H-17: a caret", "/orders^"),
        ("H-17: a backslash", "/a\\orders"),
        ("H-17: brackets", "/[orders]"),
        ("H-17: not ASCII", "/ordérs"),
        ("H-17: %zz", "/%zz"),
        ("H-17: a percent at the end", "/orders%"),
        ("H-17: one digit at the end", "/orders%4"),
    ] {
        let htu = format!("{API}{uri}");
        answer(&layer, uri, &htu).assert_reason(name, TargetError::NotRfc3986);
    }
}

#[test]
fn htu_must_be_a_string() {
    for (name, htu) in [
        ("H-23: null", Value::Null),
        ("H-23: true", json!(true)),
        ("H-23: a number", json!(443)),
        ("H-23: an array", json!(["https://api.example.com/orders"])),
        (
            "H-23: an object",
            json!({ "url": "https://api.example.com/orders" }),
        ),
    ] {
        Attempt::but(|a| a.proof_claims["htu"] = htu)
            .outcome()
            .assert_reason(name, ProofError::PayloadNotJson);
    }
}

#[test]
fn public_urls_are_checked_at_start_up() {
    use InvalidPublicUrl::{Malformed, NotHttps, QueryOrFragment};

    let rows: &[(&str, &str, Result<&str, fn(String) -> InvalidPublicUrl>)] = &[
        (
            "plain",
            "https://api.example.com",
            Ok("https://api.example.com"),
        ),
        (
            "H-4: with a slash",
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
            "a prefix with a slash",
            "https://example.com/api/",
            Ok("https://example.com/api"),
        ),
        (
            "a prefix of two segments",
            "https://example.com/a/b",
            Ok("https://example.com/a/b"),
        ),
        (
            "H-5 H-6 H-8: a prefix to normalise",
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
            "H-15: a dot behind the host",
            "https://api.example.com.",
            Ok("https://api.example.com."),
        ),
        ("R-2.1: http", "http://api.example.com", Err(NotHttps)),
        (
            "R-2.1: http on loopback, too",
            "http://127.0.0.1:8080",
            Err(NotHttps),
        ),
        (
            "H-3: a leading zero",
            "https://api.example.com:0443",
            Err(Malformed),
        ),
        (
            "H-3: beyond 65535",
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
            "H-12: a user",
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
        ("H-16: a path", "/api", Err(Malformed)),
        ("H-16: nothing", "", Err(Malformed)),
        (
            "H-17: a space",
            "https://api.example.com/a b",
            Err(Malformed),
        ),
        (
            "H-17: a space behind",
            "https://api.example.com ",
            Err(Malformed),
        ),
        ("H-17: %zz", "https://api.example.com/%zz", Err(Malformed)),
        (
            "H-17: a placeholder",
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
fn an_invalid_public_url_is_shown_without_its_userinfo() {
    let rows = [
        (
            "http://api.example.com",
            r#""http://api.example.com": must be https (PublicUrl::http_on_loopback accepts http on loopback)"#,
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
            r#""https://…@api.example.com/a@b": must be an absolute URL of the form https://host[:port][/prefix]"#,
        ),
        (
            "joe:secret@api.example.com",
            r#""…@api.example.com": must be an absolute URL of the form https://host[:port][/prefix]"#,
        ),
    ];
    for (url, text) in rows {
        let error = url.parse::<PublicUrl>().unwrap_err();
        assert_eq!(error.to_string(), text);
        assert!(!format!("{error:?}").contains("secret"));
    }
}

#[test]
fn http_is_accepted_only_where_it_is_called_insecure() {
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
    answer(&layer, "/orders", "http://127.0.0.1:8080/orders")
        .assert_passed("R-2.1: http by explicit configuration");
    assert_comparison(
        "R-2.1: then https is another scheme",
        &answer(&layer, "/orders", "https://127.0.0.1:8080/orders"),
        SCHEME,
    );
}

#[test]
fn the_proof_may_name_any_of_several_public_urls() {
    let layer = layer_at(&[
        "https://api.example.com",
        "https://eu.example.com:8443",
        "https://example.com/api",
        "http://localhost",
    ]);
    let rows = [
        ("H-18: the first", "https://api.example.com/orders", EQUAL),
        (
            "H-18: the second",
            "https://eu.example.com:8443/orders",
            EQUAL,
        ),
        (
            "H-18: one behind a prefix",
            "https://example.com/api/orders",
            EQUAL,
        ),
        ("H-18: one in the clear", "http://localhost/orders", EQUAL),
        (
            "H-18: a port from another",
            "https://api.example.com:8443/orders",
            PORT,
        ),
        (
            "H-18: no port where one is due",
            "https://eu.example.com/orders",
            PORT,
        ),
        (
            "H-18: a prefix from another",
            "https://api.example.com/api/orders",
            PATH,
        ),
        (
            "H-18: no prefix where one is due",
            "https://example.com/orders",
            PATH,
        ),
        (
            "H-18: a scheme from another",
            "http://api.example.com/orders",
            HOST,
        ),
        ("H-18: none of them", "https://evil.example/orders", HOST),
    ];
    for (name, htu, expected) in rows {
        assert_comparison(name, &answer(&layer, "/orders", htu), expected);
    }
}

#[test]
fn behind_a_prefix_the_proof_is_for_the_public_path() {
    let rows = [
        (
            "H-19: the public URL",
            "/orders",
            "https://example.com/api/orders",
            EQUAL,
        ),
        (
            "H-19: the internal URL",
            "/orders",
            "https://example.com/orders",
            PATH,
        ),
        (
            "H-19: the prefix twice",
            "/orders",
            "https://example.com/api/api/orders",
            PATH,
        ),
        (
            "H-19: the prefix encoded",
            "/orders",
            "https://example.com/%61pi/orders",
            EQUAL,
        ),
        (
            "H-19: the prefix behind dots",
            "/orders",
            "https://example.com/x/../api/orders",
            EQUAL,
        ),
        (
            "H-19: dots that leave the prefix",
            "/orders",
            "https://example.com/api/../orders",
            PATH,
        ),
        (
            "H-19: a prefix that continues",
            "/orders",
            "https://example.com/apiary/orders",
            PATH,
        ),
        (
            "H-19: the prefix in upper case",
            "/orders",
            "https://example.com/API/orders",
            PATH,
        ),
        (
            "H-19: the root behind it",
            "/",
            "https://example.com/api/",
            EQUAL,
        ),
        (
            "H-19 H-9: the prefix alone",
            "/",
            "https://example.com/api",
            PATH,
        ),
        (
            "H-19 H-4: the bare origin",
            "/",
            "https://example.com",
            PATH,
        ),
        (
            "H-19: a double slash behind it",
            "/orders",
            "https://example.com/api//orders",
            PATH,
        ),
        (
            "H-19: an internal path that looks like it",
            "/api/orders",
            "https://example.com/api/orders",
            PATH,
        ),
    ];
    for public_url in ["https://example.com/api", "https://example.com/api/"] {
        let layer = layer_at(&[public_url]);
        for (name, uri, htu, expected) in rows {
            assert_comparison(name, &answer(&layer, uri, htu), expected);
        }
    }
}

#[test]
fn no_header_field_says_what_our_url_is() {
    let evil = [
        ("Host", vec![("host", "evil.example")]),
        (
            "X-Forwarded-Host",
            vec![("x-forwarded-host", "evil.example")],
        ),
        (
            "X-Forwarded-Server",
            vec![("x-forwarded-server", "evil.example")],
        ),
        ("X-Host", vec![("x-host", "evil.example")]),
        (
            "Forwarded",
            vec![("forwarded", "host=evil.example;proto=https")],
        ),
        (
            "all of them",
            vec![
                ("host", "evil.example"),
                ("forwarded", "host=evil.example;proto=https"),
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-port", "443"),
            ],
        ),
    ];
    for (fields, headers) in evil {
        let with_headers = |htu: &str| {
            Attempt::but(|a| {
                a.proof_claims["htu"] = json!(htu);
                a.extra_headers = headers
                    .iter()
                    .map(|(name, value)| (*name, HeaderValue::from_static(value)))
                    .collect();
            })
            .outcome()
        };
        assert_comparison(
            &format!("H-18 R-11.0: a proof for the server that {fields} names"),
            &with_headers("https://evil.example/orders"),
            HOST,
        );
        with_headers("https://api.example.com/orders").assert_passed(&format!(
            "H-18: a proof for us, whatever {fields} says of a proxy's business"
        ));
    }
    let rows = [
        (
            "x-forwarded-proto",
            "http",
            "http://api.example.com/orders",
            SCHEME,
        ),
        (
            "x-forwarded-scheme",
            "http",
            "http://api.example.com/orders",
            SCHEME,
        ),
        (
            "x-forwarded-port",
            "8443",
            "https://api.example.com:8443/orders",
            PORT,
        ),
        (
            "x-forwarded-prefix",
            "/api",
            "https://api.example.com/api/orders",
            PATH,
        ),
        (
            "x-forwarded-uri",
            "/users",
            "https://api.example.com/users",
            PATH,
        ),
        (
            "x-original-uri",
            "/users",
            "https://api.example.com/users",
            PATH,
        ),
        (
            "x-original-url",
            "/users",
            "https://api.example.com/users",
            PATH,
        ),
        (
            "x-rewrite-url",
            "/users",
            "https://api.example.com/users",
            PATH,
        ),
    ];
    for (field, value, htu, expected) in rows {
        let outcome = Attempt::but(|a| {
            a.proof_claims["htu"] = json!(htu);
            a.extra_headers = vec![(field, HeaderValue::from_static(value))];
        })
        .outcome();
        assert_comparison(&format!("H-18: {field}"), &outcome, expected);
    }
}

#[test]
fn methods_are_compared_to_the_letter() {
    for (name, method, htm, passes) in [
        ("T-1: the same", "POST", "POST", true),
        ("T-1: a proof in lower case", "POST", "post", false),
        ("T-1: a request in lower case", "post", "POST", false),
        ("T-1: both in lower case", "post", "post", true),
        ("T-1: a method of one's own", "PURGE", "PURGE", true),
        ("T-1: a part of it", "POST", "POS", false),
        ("T-1: a space behind", "POST", "POST ", false),
        ("T-1: nothing", "POST", "", false),
        ("T-2: GET for HEAD", "HEAD", "GET", false),
    ] {
        let outcome = Attempt::but(|a| {
            a.method = method.parse().unwrap();
            a.proof_claims["htm"] = json!(htm);
        })
        .outcome();
        if passes {
            outcome.assert_passed(name);
        } else {
            outcome.assert_reason(name, ProofError::Method);
        }
    }
}

/// T-3: nor does one say what the method is.
#[test]
fn no_header_field_says_what_the_method_is() {
    for field in [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-original-method",
    ] {
        Attempt::but(|a| {
            a.proof_claims["htm"] = json!("DELETE");
            a.extra_headers = vec![(field, HeaderValue::from_static("DELETE"))];
        })
        .outcome()
        .assert_reason(&format!("T-3: {field}"), ProofError::Method);
    }
}

/// A request whose URI the `http` crate does not parse from one text.
fn ask_for(layer: &TestLayer, version: Version, uri: Uri, attempt: &Attempt) -> Outcome {
    let mut request: Request<()> = attempt.request();
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    ask(layer, request)
}

#[test]
fn an_absolute_form_names_one_of_our_origins() {
    let layer = layer_at(&[API, "https://eu.example.com:8443"]);
    let misdirected = || Err(Rejection::Target(TargetError::Misdirected));
    let url = |mismatch| Err(Rejection::Proof(ProofError::Url(mismatch)));
    let rows: Vec<(&str, &str, &str, Result<(), Rejection>)> = vec![
        (
            "H-20: ours",
            "https://api.example.com/orders",
            "https://api.example.com/orders",
            Ok(()),
        ),
        (
            "H-20 H-1: ours in upper case",
            "HTTPS://API.example.com/orders",
            "https://api.example.com/orders",
            Ok(()),
        ),
        (
            "H-20 H-2: ours with the default port",
            "https://api.example.com:443/orders",
            "https://api.example.com/orders",
            Ok(()),
        ),
        (
            "H-20 H-11: with a query",
            "https://api.example.com/orders?page=2",
            "https://api.example.com/orders",
            Ok(()),
        ),
        (
            "H-20 H-4: with an empty path",
            "https://api.example.com",
            "https://api.example.com/",
            Ok(()),
        ),
        (
            "H-20: the other of ours",
            "https://eu.example.com:8443/orders",
            "https://eu.example.com:8443/orders",
            Ok(()),
        ),
        (
            "H-20: named one, proven for the other",
            "https://api.example.com/orders",
            "https://eu.example.com:8443/orders",
            url(UrlMismatch::Host),
        ),
        (
            "H-20: and the reverse",
            "https://eu.example.com:8443/orders",
            "https://api.example.com/orders",
            url(UrlMismatch::Host),
        ),
        (
            "H-20: another path",
            "https://api.example.com/users",
            "https://api.example.com/orders",
            url(UrlMismatch::Path),
        ),
        (
            "H-20 H-18: another server",
            "https://evil.example/orders",
            "https://evil.example/orders",
            misdirected(),
        ),
        (
            "H-20 H-18: another server, proven for us",
            "https://evil.example/orders",
            "https://api.example.com/orders",
            misdirected(),
        ),
        (
            "H-20: another port",
            "https://api.example.com:8443/orders",
            "https://api.example.com/orders",
            misdirected(),
        ),
        (
            "H-20: another scheme",
            "http://api.example.com/orders",
            "https://api.example.com/orders",
            misdirected(),
        ),
        (
            "H-20: not even http",
            "ftp://api.example.com/orders",
            "https://api.example.com/orders",
            misdirected(),
        ),
        (
            "H-20 H-12: with userinfo",
            "https://joe@api.example.com/orders",
            "https://api.example.com/orders",
            misdirected(),
        ),
    ];
    for (name, uri, htu, expected) in rows {
        for version in [Version::HTTP_10, Version::HTTP_11] {
            let outcome = Attempt::but(|a| {
                a.version = version;
                a.uri = uri.into();
                a.proof_claims["htu"] = json!(htu);
            })
            .outcome_by(&layer);
            match expected.clone() {
                Ok(()) => outcome.assert_passed(name),
                Err(rejection) => outcome.assert_reason(name, rejection),
            }
        }
    }
}

/// H-18: from HTTP/2 on every request has a scheme and an authority, and gateways write them.
#[test]
fn the_authority_of_http_2_is_not_believed() {
    let rows = [
        (
            "H-18: ours",
            "https://api.example.com/orders",
            "https://api.example.com/orders",
            EQUAL,
        ),
        (
            "H-18: an internal name",
            "http://backend:8080/orders",
            "https://api.example.com/orders",
            EQUAL,
        ),
        (
            "H-18: a proof for the internal name",
            "http://backend:8080/orders",
            "http://backend:8080/orders",
            SCHEME,
        ),
        (
            "H-18: a proof for another server",
            "https://evil.example/orders",
            "https://evil.example/orders",
            HOST,
        ),
        (
            "H-18: another path",
            "https://api.example.com/users",
            "https://api.example.com/orders",
            PATH,
        ),
        (
            "H-4: no path",
            "https://api.example.com",
            "https://api.example.com/",
            EQUAL,
        ),
    ];
    for version in [Version::HTTP_2, Version::HTTP_3] {
        for (name, uri, htu, expected) in rows {
            let outcome = Attempt::but(|a| {
                a.version = version;
                a.uri = uri.into();
                a.proof_claims["htu"] = json!(htu);
            })
            .outcome();
            assert_comparison(name, &outcome, expected);
        }
    }
}

#[test]
fn the_target_of_an_asterisk_form_has_an_empty_path() {
    let on_http_2 = || {
        Uri::builder()
            .scheme("https")
            .authority("api.example.com")
            .path_and_query("*")
            .build()
            .unwrap()
    };
    let rows = [
        ("H-21: the origin", API, "https://api.example.com", EQUAL),
        (
            "H-21 H-2: with the default port",
            API,
            "https://api.example.com:443",
            EQUAL,
        ),
        (
            "H-21 H-11: and a query",
            API,
            "https://api.example.com?x",
            EQUAL,
        ),
        ("H-21: the root", API, "https://api.example.com/", PATH),
        ("H-21 H-8: dots", API, "https://api.example.com/..", PATH),
        (
            "H-21: an asterisk for a path",
            API,
            "https://api.example.com/*",
            PATH,
        ),
        ("H-21: an asterisk for a URL", API, "*", MALFORMED),
        (
            "H-21: another path",
            API,
            "https://api.example.com/orders",
            PATH,
        ),
        ("H-21: another host", API, "https://evil.example", HOST),
        (
            "H-21: a server behind a prefix",
            "https://api.example.com/api",
            "https://api.example.com",
            PATH,
        ),
        (
            "H-21: or the prefix",
            "https://api.example.com/api",
            "https://api.example.com/api",
            PATH,
        ),
    ];
    for (name, public_url, htu, expected) in rows {
        let layer = layer_at(&[public_url]);
        let attempt = || {
            Attempt::but(|a| {
                a.method = Method::OPTIONS;
                a.proof_claims["htm"] = json!("OPTIONS");
                a.proof_claims["htu"] = json!(htu);
            })
        };
        let http_1 = ask_for(&layer, Version::HTTP_11, Uri::from_static("*"), &attempt());
        assert_comparison(name, &http_1, expected);
        let http_2 = ask_for(&layer, Version::HTTP_2, on_http_2(), &attempt());
        assert_comparison(&format!("{name}, HTTP/2"), &http_2, expected);
    }
}

/// H-21, RFC 9112 section 3.2.4: with another method than OPTIONS the asterisk addresses nothing.
#[test]
fn an_asterisk_is_a_target_for_options_only() {
    let layer = layer_at(&[API]);
    for (name, method) in [("GET", Method::GET), ("POST", Method::POST)] {
        let attempt = Attempt::but(|a| {
            a.proof_claims["htm"] = json!(method.as_str());
            a.proof_claims["htu"] = json!("https://api.example.com");
            a.method = method;
        });
        for version in [Version::HTTP_11, Version::HTTP_2] {
            ask_for(&layer, version, Uri::from_static("*"), &attempt)
                .assert_reason(name, TargetError::NotRfc3986);
        }
    }
}

/// H-18, RFC 9112 section 3.2.3: an authority alone is a target for CONNECT only.
#[test]
fn an_authority_alone_is_no_target() {
    let layer = layer_at(&[API]);
    for (name, uri) in [
        ("another server's", Uri::from_static("evil.example:443")),
        ("ours", Uri::from_static("api.example.com:443")),
    ] {
        let attempt = Attempt::but(|a| a.proof_claims["htu"] = json!("https://api.example.com/"));
        ask_for(&layer, Version::HTTP_11, uri, &attempt)
            .assert_reason(name, TargetError::Misdirected);
    }
}

#[test]
fn a_plain_connect_addresses_no_resource_and_an_extended_one_does() {
    let layer = layer_at(&[API]);
    let connect = |version, uri: &str, htm: &str, htu: &str| {
        Attempt::but(|a| {
            a.method = Method::CONNECT;
            a.version = version;
            a.uri = uri.into();
            a.proof_claims["htm"] = json!(htm);
            a.proof_claims["htu"] = json!(htu);
        })
        .outcome_by(&layer)
    };
    let orders = "https://api.example.com/orders";
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (name, htu) in [
            ("H-22: a proof for the origin", API),
            ("H-22: a proof for the root", "https://api.example.com/"),
            ("H-22: a proof for the authority", "api.example.com:443"),
        ] {
            connect(version, "api.example.com:443", "CONNECT", htu)
                .assert_reason(name, TargetError::Connect);
        }
    }
    connect(Version::HTTP_2, orders, "CONNECT", orders).assert_passed("H-22: an extended CONNECT");
    connect(Version::HTTP_2, orders, "GET", orders)
        .assert_reason("H-22: htm is CONNECT", ProofError::Method);
    assert_comparison(
        "H-22 H-16: htu is https, not wss",
        &connect(
            Version::HTTP_2,
            orders,
            "CONNECT",
            "wss://api.example.com/orders",
        ),
        MALFORMED,
    );
    assert_comparison(
        "H-22: the path counts",
        &connect(
            Version::HTTP_2,
            orders,
            "CONNECT",
            "https://api.example.com/users",
        ),
        PATH,
    );
}

/// H-18, H-19: forward authentication, where a proxy asks about a request that it describes.
#[test]
fn a_resolver_says_what_the_original_request_was() {
    let verifier = verifier_by(|rules| {
        rules.with_target_resolver(|request: &http::request::Parts| {
            let header = |name| request.headers.get(name)?.to_str().ok();
            Some(RequestTarget::new(
                header("x-original-method")?.parse().ok()?,
                header("x-original-uri")?.parse().ok()?,
            ))
        })
    });
    let layer = DpopLayer::new(verifier);
    let asked = |described: &[(&'static str, &'static str)], htm: &str, htu: &str| {
        Attempt::but(|a| {
            a.uri = "/auth".into();
            a.proof_claims["htm"] = json!(htm);
            a.proof_claims["htu"] = json!(htu);
            a.extra_headers = described
                .iter()
                .map(|(name, value)| (*name, HeaderValue::from_static(value)))
                .collect();
        })
        .outcome_by(&layer)
    };
    let post_orders = [
        ("x-original-method", "POST"),
        ("x-original-uri", "/orders?page=2"),
    ];
    let orders = "https://api.example.com/orders";
    asked(&post_orders, "POST", orders).assert_passed("H-19: the original request");
    asked(&post_orders, "GET", orders)
        .assert_reason("H-19: the method of the question", ProofError::Method);
    assert_comparison(
        "H-19: the path of the question",
        &asked(&post_orders, "POST", "https://api.example.com/auth"),
        PATH,
    );
    let absolute = [
        ("x-original-method", "POST"),
        ("x-original-uri", "http://backend:8080/orders"),
    ];
    asked(&absolute, "POST", orders)
        .assert_passed("H-18: the resolver's authority does not matter");
    assert_comparison(
        "H-18: nor does it become ours",
        &asked(&absolute, "POST", "http://backend:8080/orders"),
        SCHEME,
    );
    let broken = [
        ("x-original-method", "POST"),
        ("x-original-uri", "/{orders}"),
    ];
    asked(&broken, "POST", orders).assert_reason("H-17: a broken path", TargetError::NotRfc3986);
    let tunnel = [
        ("x-original-method", "CONNECT"),
        ("x-original-uri", "api.example.com:443"),
    ];
    asked(&tunnel, "CONNECT", API).assert_reason("H-22: a tunnel", TargetError::Connect);
    for (name, described) in [
        ("H-19: no description", &post_orders[..0]),
        ("H-19: only the method", &post_orders[..1]),
        ("H-19: only the URI", &post_orders[1..]),
    ] {
        asked(described, "GET", "https://api.example.com/auth")
            .assert_reason(name, TargetError::Unresolved);
    }
}

/// H-19: what a router strips was part of the target.
#[test]
fn without_axum_a_resolver_finds_the_path_before_a_router_shortened_it() {
    #[derive(Clone)]
    struct Original(Uri);

    let verifier = verifier_by(|rules| {
        rules.with_target_resolver(|request: &http::request::Parts| {
            Some(RequestTarget::new(
                request.method.clone(),
                request.extensions.get::<Original>()?.0.clone(),
            ))
        })
    });
    let layer = DpopLayer::new(verifier);
    let asked = |htu: &str| {
        let mut request = Attempt::but(|a| a.proof_claims["htu"] = json!(htu)).request();
        let original = Original(Uri::from_static("/v1/orders"));
        request.extensions_mut().insert(original);
        ask(&layer, request)
    };
    asked("https://api.example.com/v1/orders").assert_passed("H-19: the original path");
    assert_comparison(
        "H-19: the shortened path",
        &asked("https://api.example.com/orders"),
        PATH,
    );
}

#[cfg(feature = "axum")]
#[test]
fn inside_axums_nest_the_original_path_counts() {
    use axum::body::Body;
    use axum::extract::OriginalUri;
    use axum::routing::get;
    use tower::ServiceExt;

    let layer = DpopLayer::new(common::verifier());
    let app = axum::Router::new().nest(
        "/v1",
        axum::Router::new()
            .route("/orders", get(async || "hello"))
            .layer(layer.clone()),
    );
    let asked = |htu: &str| {
        let attempt = Attempt::but(|a| {
            a.uri = "/v1/orders?page=2".into();
            a.proof_claims["htu"] = json!(htu);
        });
        let request = attempt.request().map(|()| Body::empty());
        let response = common::block_on(app.clone().oneshot(request)).unwrap();
        response.extensions().get::<Rejection>().cloned()
    };
    let elsewhere = Some(Rejection::Proof(ProofError::Url(UrlMismatch::Path)));
    assert_eq!(asked("https://api.example.com/v1/orders"), None);
    assert_eq!(asked("https://api.example.com/orders"), elsewhere);

    // The same where another router has set it by hand.
    let mut request =
        Attempt::but(|a| a.proof_claims["htu"] = json!("https://api.example.com/v1/orders"))
            .request();
    let original = OriginalUri(Uri::from_static("/v1/orders"));
    request.extensions_mut().insert(original);
    ask(&layer, request).assert_passed("H-19: OriginalUri");
}

/// One way to write a path that stays the same path.
#[derive(Clone, Copy, Debug)]
struct Spelling {
    /// Percent-encode every unreserved character for which the bit of its place is set.
    encoded: u64,
    /// Write the hexadecimal digits of those places in lower case.
    lower: u64,
    /// Before a segment: nothing, `.`, a segment and `..`, or those with encoded dots.
    dots: u64,
}

fn spelling() -> impl Strategy<Value = Spelling> {
    any::<(u64, u64, u64)>().prop_map(|(encoded, lower, dots)| Spelling {
        encoded,
        lower,
        dots,
    })
}

impl Spelling {
    fn write(self, path: &str) -> String {
        let mut written = String::new();
        let mut in_triplet = 0;
        for (place, character) in path.chars().enumerate() {
            let bit = |bits: u64| bits.rotate_right(u32::try_from(place).unwrap()) & 1 == 1;
            let hexadecimal = |text: String| {
                if bit(self.lower) {
                    text.to_ascii_lowercase()
                } else {
                    text
                }
            };
            if in_triplet > 0 {
                in_triplet -= 1;
                written.push_str(&hexadecimal(character.into()));
            } else if character == '%' {
                in_triplet = 2;
                written.push('%');
            } else if character == '/' {
                let detours = [
                    "/",
                    "/./",
                    "/x/../",
                    "/%2e/",
                    "/a/%2E./",
                    "/./x/../",
                    "/b//../../",
                    "/",
                ];
                let place = u32::try_from(place).unwrap();
                let choice = self.dots.rotate_right(place * 3) & 7;
                written.push_str(detours[usize::try_from(choice).unwrap()]);
            } else if bit(self.encoded)
                && (character.is_ascii_alphanumeric() || "-._~".contains(character))
            {
                written.push_str(&hexadecimal(format!("%{:02X}", u32::from(character))));
            } else {
                written.push(character);
            }
        }
        written
    }
}

/// Segments without dot segments, in their normal form.
fn segment() -> impl Strategy<Value = String> {
    let characters: Vec<String> = ('a'..='z')
        .chain('A'..='Z')
        .chain('0'..='9')
        .chain("-._~!$&'()*+,;=:@".chars())
        .map(String::from)
        .chain(["%2F", "%3F", "%25", "%20", "%C3", "%A9", "%00"].map(String::from))
        .collect();
    vec(select(characters), 0..8)
        .prop_map(|characters| characters.concat())
        .prop_filter("a dot segment", |segment| {
            !matches!(segment.as_str(), "." | "..")
        })
}

/// `/`, and any number of segments, with slashes between them.
fn path() -> impl Strategy<Value = String> {
    vec(segment(), 1..5).prop_map(|segments| format!("/{}", segments.join("/")))
}

fn proptest_config() -> ProptestConfig {
    ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(proptest_config())]

    #[test]
    fn every_spelling_of_a_url_passes(
        path in path(),
        (in_request, in_proof) in (spelling(), spelling()),
        origin in select(vec![
            "https://api.example.com",
            "HTTPS://api.example.com",
            "https://API.EXAMPLE.COM",
            "https://api.example.com:443",
            "https://aPi.eXample.com:",
        ]),
        tail in select(vec!["", "?", "#", "?page=2", "#top", "?a/../b#c?d"]),
        query in select(vec!["", "?", "?page=2", "?a/../b"]),
    ) {
        let uri = format!("{}{query}", in_request.write(&path));
        let htu = format!("{origin}{}{tail}", in_proof.write(&path));
        let outcome = answer(&layer_at(&[API]), &uri, &htu);
        prop_assert_eq!(&outcome.rejection, &None, "{} for {}", htu, uri);
    }

    #[test]
    fn every_other_character_of_a_path_is_another_path(
        path in path(),
        spelling in spelling(),
        place in any::<prop::sample::Index>(),
        other in prop_oneof![select((0x20..0x7f_u8).map(char::from).collect::<Vec<_>>()), any::<char>()],
    ) {
        // The first slash stays: without it, `/` and the empty path would be the same.
        prop_assume!(path.len() > 1);
        let place = 1 + place.index(path.len() - 1);
        let changed = format!("{}{other}{}", &path[..place], &path[place + 1..]);
        // H-6: %2f is %2F.
        prop_assume!(changed != path && !(path.contains('%') && changed.eq_ignore_ascii_case(&path)));
        let outcome = answer(&layer_at(&[API]), &spelling.write(&path), &format!("{API}{changed}"));
        prop_assert!(
            matches!(
                outcome.rejection,
                Some(Rejection::Proof(ProofError::Url(UrlMismatch::Path | UrlMismatch::Malformed)))
            ),
            "{changed} for {path}: {outcome:?}"
        );
    }

    #[test]
    fn no_htu_is_the_end_of_the_server(htu in prop_oneof![
        any::<String>(),
        "(https?|wss?|HTTPS)?:?/{0,3}[@:\\[\\]a-z0-9.%-]{0,12}(:[0-9+]{0,6})?(/[.%/a-zA-Z0-9~]{0,4}){0,4}[?#]?.{0,4}",
        "https://api\\.example\\.com[^a-z]{0,3}/?[a-z.%0-9]{0,6}.{0,2}",
    ]) {
        let outcome = answer(&layer_at(&[API]), "/orders", &htu);
        prop_assert!(
            matches!(outcome.rejection, None | Some(Rejection::Proof(ProofError::Url(_)))),
            "{htu:?}: {outcome:?}"
        );
    }

    #[test]
    fn a_public_url_reads_back_as_it_is_written(
        host in "[a-zA-Z0-9.-]{1,20}|\\[[0-9a-fA-F]{1,4}::[0-9a-fA-F]{1,4}\\]",
        port in "(:[1-9][0-9]{0,3}|:)?",
        path in path(),
        spelling in spelling(),
    ) {
        let url: PublicUrl = format!("https://{host}{port}{}", spelling.write(&path)).parse().unwrap();
        prop_assert_eq!(url.to_string().parse(), Ok(url));
    }

    #[test]
    fn no_public_url_is_the_end_of_the_server(url in prop_oneof![
        any::<String>(),
        "https?://[@:\\[\\]a-z0-9.%-]{0,12}(:[0-9+]{0,6})?(/[.%/a-zA-Z0-9~]{0,4}){0,4}[?#]?.{0,4}",
    ]) {
        if let Ok(parsed) = url.parse::<PublicUrl>() {
            prop_assert!(url.to_ascii_lowercase().starts_with("https://"));
            prop_assert!(parsed.to_string().is_ascii());
        }
    }
}
