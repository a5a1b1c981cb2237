//! The comparison of two URLs, normalised by RFC 3986 sections 6.2.2 and 6.2.3.

use http::Uri;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tower_dpop::proof::{ProofError, UrlMismatch};
use tower_dpop::{PublicUrl, Rejection};

use crate::proof::target::{
    API, EQUAL, HOST, MALFORMED, PATH, PORT, PREFIX, SCHEME, assert_comparison, layer_at,
    outcome_for,
};

/// RFC 3986 section 6.2.2.
#[test]
fn paths_are_normalised_on_both_sides() {
    let rows = [
        ("the same path", "/orders", "/orders", EQUAL),
        ("H-5: %7E is ~", "/%7Ejoe", "/~joe", EQUAL),
        ("H-5: %41 is A", "/%41bc", "/Abc", EQUAL),
        ("H-5: %61 is a, not A", "/%61bc", "/Abc", PATH),
        ("H-5: encoded digits", "/v%31/%30", "/v1/0", EQUAL),
        (
            "H-5: the other unreserved characters",
            "/a%2D%2E%5F",
            "/a-._",
            EQUAL,
        ),
        ("H-5: decoded once, not twice", "/%2541", "/%41", PATH),
        ("H-5 H-6: %7e in lower case is ~", "/%7ejoe", "/~joe", EQUAL),
        ("H-6: %2f is %2F", "/a%2fb", "/a%2Fb", EQUAL),
        ("H-6: %c3%a9 is %C3%A9", "/%c3%a9", "/%C3%A9", EQUAL),
        ("H-7: %2F is not /", "/a%2Fb", "/a/b", PATH),
        ("H-7: %21 is not !", "/a%21", "/a!", PATH),
        ("H-7: %3A is not :", "/a%3Ab", "/a:b", PATH),
        ("H-7: %40 is not @", "/a%40b", "/a@b", PATH),
        ("H-7: %3B is not ;", "/a%3Bb", "/a;b", PATH),
        ("H-7: %2B is not +", "/a%2Bb", "/a+b", PATH),
        ("H-7: %20 is not +", "/a%20b", "/a+b", PATH),
        ("H-7: %25 stays encoded", "/a%25", "/a%25", EQUAL),
        (
            "H-7: %00 does not end the path",
            "/orders%00",
            "/orders",
            PATH,
        ),
        ("H-8: a dot segment", "/a/./b", "/a/b", EQUAL),
        ("H-8: a double dot segment", "/x/../b", "/b", EQUAL),
        ("H-8: two double dot segments", "/x/y/../../b", "/b", EQUAL),
        ("H-8: double dots above the root", "/../../b", "/b", EQUAL),
        ("H-8: a dot at the end", "/a/.", "/a/", EQUAL),
        ("H-8: two dots at the end", "/a/b/..", "/a/", EQUAL),
        ("H-8: only a double dot", "/..", "/", EQUAL),
        ("H-8: the RFC's example", "/a/b/c/./../../g", "/a/g", EQUAL),
        ("H-8: an encoded double dot", "/x/%2E%2E/b", "/b", EQUAL),
        (
            "H-8: an encoded double dot in lower case",
            "/x/%2e%2e/b",
            "/b",
            EQUAL,
        ),
        ("H-8: a half-encoded double dot", "/x/.%2E/b", "/b", EQUAL),
        ("H-8: an encoded dot", "/%2E/a", "/a", EQUAL),
        (
            "H-8: a double dot removes an empty segment",
            "/a//../b",
            "/a/b",
            EQUAL,
        ),
        (
            "H-8: three dots are an ordinary segment",
            "/a/.../b",
            "/a/b",
            PATH,
        ),
        ("H-8: a segment that starts with dots", "/x/..b", "/b", PATH),
        ("H-8: a segment that ends with dots", "/x../b", "/b", PREFIX),
        (
            "H-8 H-7: %2F does not end a segment",
            "/x/..%2Fb",
            "/b",
            PATH,
        ),
        ("H-9: a trailing slash", "/orders/", "/orders", PATH),
        ("H-9: two trailing slashes", "/orders//", "/orders/", PATH),
        ("H-10: a double slash", "/a//b", "/a/b", PATH),
        (
            "H-10: a double slash at the start",
            "//orders",
            "/orders",
            PREFIX,
        ),
        ("H-10: a path parameter", "/orders;v=1", "/orders", PATH),
        ("H-10: upper case", "/Orders", "/orders", PATH),
        ("another path", "/orders/1", "/orders/2", PATH),
        ("a longer path", "/orders/1", "/orders", PATH),
        ("all delimiters", "/!$&'()*+,;=:@", "/!$&'()*+,;=:@", EQUAL),
    ];
    let layer = layer_at(&[API]);
    for (name, one, other, expected) in rows {
        let htu = |path: &str| format!("{API}{path}");
        assert_comparison(name, &outcome_for(&layer, one, &htu(other)), expected);
        let reversed = format!("{name}, reversed");
        assert_comparison(&reversed, &outcome_for(&layer, other, &htu(one)), expected);
    }
}

/// RFC 3986 section 6.2.3.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
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
            "H-2: the same non-default port",
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
            "H-13: an IPv4-mapped IPv6 address",
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
            "H-15: a dot after the host",
            "https://api.example.com.",
            API,
            HOST,
        ),
        ("another host", "https://api.example.org", API, HOST),
        (
            "a longer host that starts with this host",
            "https://api.example.com.evil.example",
            API,
            HOST,
        ),
        ("the parent domain", "https://example.com", API, HOST),
        (
            "H-16 R-2.1: http is not https",
            "http://api.example.com",
            API,
            SCHEME,
        ),
        (
            "H-16: http is not https, on the same port too",
            "http://api.example.com:443",
            API,
            SCHEME,
        ),
    ];
    for (name, one, other, expected) in rows {
        for (name, public_url, htu) in [
            (name.to_owned(), other, one),
            (format!("{name}, reversed"), one, other),
        ] {
            let outcome = outcome_for(
                &layer_at(&[public_url]),
                "/orders",
                &format!("{htu}/orders"),
            );
            assert_comparison(&name, &outcome, expected);
        }
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn rejects_an_htu_that_is_not_an_http_url() {
    let rows = [
        (
            "H-3: a port with a leading zero",
            "https://api.example.com:0443/orders",
        ),
        (
            "H-3: a port above 65535",
            "https://api.example.com:99999/orders",
        ),
        (
            "H-3: a port of more than 64 bits",
            "https://api.example.com:18446744073709552059/orders",
        ),
        ("H-3: port 0", "https://api.example.com:0/orders"),
        (
            "H-3: a plus sign in the port",
            "https://api.example.com:+443/orders",
        ),
        (
            "H-3: a minus sign in the port",
            "https://api.example.com:-443/orders",
        ),
        (
            "H-3: letters as the port",
            "https://api.example.com:https/orders",
        ),
        (
            "H-3: full-width digits in the port",
            "https://api.example.com:４４３/orders",
        ),
        ("H-3: two ports", "https://api.example.com:443:443/orders"),
        ("H-12: a user name", "https://joe@api.example.com/orders"),
        (
            "H-12: a user name and a password",
            "https://joe:secret@api.example.com/orders",
        ),
        ("H-12: empty userinfo", "https://@api.example.com/orders"),
        (
            "H-12: only a colon as userinfo",
            "https://:@api.example.com/orders",
        ),
        (
            "H-12: this server's host as the user name",
            "https://api.example.com@evil.example/orders",
        ),
        (
            "H-12: this server's host and port as userinfo",
            "https://api.example.com:443@evil.example/orders",
        ),
        ("H-13: a zone id", "https://[fe80::1%25eth0]/orders"),
        ("H-13: a bare zone id", "https://[fe80::1%eth0]/orders"),
        ("H-13: a missing closing bracket", "https://[::1/orders"),
        ("H-13: digits after the bracket", "https://[::1]443/orders"),
        ("H-13: not an address", "https://[::g]/orders"),
        ("H-13: IPv4 in brackets", "https://[192.0.2.1]/orders"),
        ("H-13: an IPvFuture address", "https://[v1.fe80]/orders"),
        ("H-13: IPv6 without brackets", "https://::1/orders"),
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
        ("H-16: only a path", "/orders"),
        ("H-16: only a relative path", "orders"),
        ("H-16: without a scheme", "//api.example.com/orders"),
        ("H-16: only a host and a path", "api.example.com/orders"),
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
        ("H-16: a URN", "urn:example:orders"),
        ("H-16: only an asterisk", "*"),
        ("H-16: an empty string", ""),
        ("H-17: a leading space", " https://api.example.com/orders"),
        ("H-17: a trailing space", "https://api.example.com/orders "),
        (
            "H-17: a space in the host",
            "https://api.example.com /orders",
        ),
        (
            "H-17: a space in the path",
            "https://api.example.com/or ders",
        ),
        (
            "H-17: a backslash instead of the slash",
            "https://api.example.com\\orders",
        ),
        (
            "H-17: backslashes instead of the double slash",
            "https:\\\\api.example.com/orders",
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
            "H-17: a trailing line feed",
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
    ];
    let layer = layer_at(&[API]);
    for (name, htu) in rows {
        assert_comparison(name, &outcome_for(&layer, "/orders", htu), MALFORMED);
    }
}

/// H-17: browsers and WHATWG parsers send some of these characters as they are.
#[test]
fn a_character_that_rfc_3986_does_not_allow_is_equal_to_its_percent_encoding() {
    let rows = [
        ("a quote", "/a\"b", "/a%22b", "/ab"),
        ("angle brackets", "/<a>", "/%3Ca%3E", "/%3Ea%3C"),
        ("brackets", "/a[b]", "/a%5Bb%5D", "/a(b)"),
        ("a backslash", "/a\\b", "/a%5Cb", "/a/b"),
        ("a backslash and dots", "/a\\..\\b", "/a%5C..%5Cb", "/b"),
        ("dots and a backslash", "/a/..\\b", "/a/..%5Cb", "/b"),
        ("a caret", "/a^", "/a%5E", "/a"),
        ("a backtick", "/`a`", "/%60a%60", "/'a'"),
        ("braces", "/{a}", "/%7Ba%7D", "/(a)"),
        ("a vertical bar", "/a|b", "/a%7Cb", "/a%5Cb"),
        ("a percent sign at the end", "/a%", "/a%25", "/a"),
        ("a percent sign and one digit", "/a%4", "/a%254", "/a4"),
        ("%zz", "/%zz", "/%25zz", "/zz"),
        ("an invalid digit", "/%4grders", "/%254grders", "/%25grders"),
        ("a plus sign instead of a digit", "/%+1", "/%25+1", "/%1"),
        (
            "a percent sign before an encoding",
            "/%%41",
            "/%25A",
            "/%2541",
        ),
        (
            "a percent sign before encoded digits",
            "/%%34%31",
            "/%2541",
            "/A",
        ),
    ];
    let layer = layer_at(&[API]);
    for (name, raw, encoded, different) in rows {
        let compare = |uri: &str, path: &str, expected| {
            // The `http` crate rejects some of them in requests.
            if uri.parse::<Uri>().is_ok() {
                let outcome = outcome_for(&layer, uri, &format!("{API}{path}"));
                assert_comparison(
                    &format!("H-17: {name}: {path} for {uri}"),
                    &outcome,
                    expected,
                );
            }
        };
        for one in [raw, encoded] {
            compare(one, raw, EQUAL);
            compare(one, encoded, EQUAL);
            compare(one, different, PATH);
            compare(different, one, PATH);
        }
    }
}

#[test]
fn an_empty_path_is_the_root() {
    let rows = [
        ("H-4: an empty path is equal to /", "/", API, EQUAL),
        (
            "H-4: / is equal to /",
            "/",
            "https://api.example.com/",
            EQUAL,
        ),
        (
            "H-4: an empty path after a port",
            "/",
            "https://api.example.com:443",
            EQUAL,
        ),
        (
            "H-4 H-11: an empty path before a query",
            "/",
            "https://api.example.com?page=2",
            EQUAL,
        ),
        (
            "H-4 H-11: an empty path before a fragment",
            "/",
            "https://api.example.com#top",
            EQUAL,
        ),
        (
            "H-4 H-20: an empty path in the request",
            "https://api.example.com?page=2",
            "https://api.example.com/",
            EQUAL,
        ),
        ("H-4: an empty path is not /orders", "/orders", API, PATH),
    ];
    let layer = layer_at(&[API]);
    for (name, uri, htu, expected) in rows {
        assert_comparison(name, &outcome_for(&layer, uri, htu), expected);
    }
}

/// A choice of equivalent ways to write each character of a path.
#[derive(Clone, Copy, Debug)]
struct Spelling {
    /// Percent-encode every unreserved character whose bit, counted from the start of the path, is set.
    encoded: u64,
    /// Write hexadecimal digits in lower case where the bit is set.
    lower: u64,
    /// Three bits per slash choose what is inserted: nothing, or dot segments that change nothing.
    dots: u64,
}

impl Spelling {
    fn write(self, path: &str) -> String {
        let mut written = String::new();
        let mut in_triplet = 0;
        for (index, character) in path.chars().enumerate() {
            let bit = |bits: u64| bits.rotate_right(u32::try_from(index).unwrap()) & 1 == 1;
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
                let insertions = [
                    "/",
                    "/./",
                    "/x/../",
                    "/%2e/",
                    "/a/%2E./",
                    "/./x/../",
                    "/b//../../",
                    "/",
                ];
                let index = u32::try_from(index).unwrap();
                let choice = self.dots.rotate_right(index * 3) & 7;
                written.push_str(insertions[usize::try_from(choice).unwrap()]);
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

fn spelling() -> impl Strategy<Value = Spelling> {
    any::<(u64, u64, u64)>().prop_map(|(encoded, lower, dots)| Spelling {
        encoded,
        lower,
        dots,
    })
}

/// A normalised segment that is not a dot segment.
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
        .prop_filter("not a dot segment", |segment| {
            !matches!(segment.as_str(), "." | "..")
        })
}

/// A normalised absolute path.
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
    fn equivalent_spellings_of_a_url_are_equal(
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
        let outcome = outcome_for(&layer_at(&[API]), &uri, &htu);
        prop_assert_eq!(&outcome.rejection, &None, "{} for {}", htu, uri);
    }

    #[test]
    fn a_changed_character_is_another_path(
        path in path(),
        spelling in spelling(),
        index in any::<prop::sample::Index>(),
        other in prop_oneof![select((0x20..0x7f_u8).map(char::from).collect::<Vec<_>>()), any::<char>()],
    ) {
        // The first slash is not changed: an empty path is equal to `/`.
        prop_assume!(path.len() > 1);
        let index = 1 + index.index(path.len() - 1);
        let changed = format!("{}{other}{}", &path[..index], &path[index + 1..]);
        // H-6: the case of hexadecimal digits does not matter.
        prop_assume!(changed != path && !(path.contains('%') && changed.eq_ignore_ascii_case(&path)));
        let outcome = outcome_for(&layer_at(&[API]), &spelling.write(&path), &format!("{API}{changed}"));
        prop_assert!(
            matches!(
                outcome.rejection,
                Some(Rejection::Proof(ProofError::Url(
                    UrlMismatch::Path | UrlMismatch::PathPrefix | UrlMismatch::Malformed
                )))
            ),
            "{changed} for {path}: {outcome:?}"
        );
    }

    #[test]
    fn checking_any_htu_does_not_panic(htu in prop_oneof![
        any::<String>(),
        "(https?|wss?|HTTPS)?:?/{0,3}[@:\\[\\]a-z0-9.%-]{0,12}(:[0-9+]{0,6})?(/[.%/a-zA-Z0-9~]{0,4}){0,4}[?#]?.{0,4}",
        "https://api\\.example\\.com[^a-z]{0,3}/?[a-z.%0-9]{0,6}.{0,2}",
    ]) {
        let outcome = outcome_for(&layer_at(&[API]), "/orders", &htu);
        prop_assert!(
            matches!(outcome.rejection, None | Some(Rejection::Proof(ProofError::Url(_)))),
            "{htu:?}: {outcome:?}"
        );
    }

    #[test]
    fn a_public_url_parses_from_its_own_text(
        host in "[a-zA-Z0-9.-]{1,20}|\\[[0-9a-fA-F]{1,4}::[0-9a-fA-F]{1,4}\\]",
        port in "(:[1-9][0-9]{0,3}|:)?",
        path in path(),
        spelling in spelling(),
    ) {
        let url: PublicUrl = format!("https://{host}{port}{}", spelling.write(&path)).parse().unwrap();
        prop_assert_eq!(url.to_string().parse(), Ok(url));
    }

    #[test]
    fn parsing_any_public_url_does_not_panic(url in prop_oneof![
        any::<String>(),
        "https?://[@:\\[\\]a-z0-9.%-]{0,12}(:[0-9+]{0,6})?(/[.%/a-zA-Z0-9~]{0,4}){0,4}[?#]?.{0,4}",
    ]) {
        if let Ok(parsed) = url.parse::<PublicUrl>() {
            prop_assert!(url.to_ascii_lowercase().starts_with("https://"));
            prop_assert!(parsed.to_string().is_ascii());
        }
    }
}
