//! The comparison of `htu` with the public URLs and the path of the request.

use super::{API, EQUAL, HOST, PATH, PORT, answer, assert_comparison, layer_at};

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
