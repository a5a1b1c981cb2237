//! The comparison of two URLs, normalised by RFC 3986 sections 6.2.2 and 6.2.3.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tower_dpop::proof::{ProofError, UrlMismatch};
use tower_dpop::{PublicUrl, Rejection};

use crate::proof::target::{
    API, EQUAL, HOST, MALFORMED, PATH, PORT, SCHEME, answer, assert_comparison, layer_at,
};

/// RFC 3986 section 6.2.2.
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

/// RFC 3986 section 6.2.3.
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

fn spelling() -> impl Strategy<Value = Spelling> {
    any::<(u64, u64, u64)>().prop_map(|(encoded, lower, dots)| Spelling {
        encoded,
        lower,
        dots,
    })
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
