//! The comparison of `htu` with the public URLs and the path of the request.

use super::{API, EQUAL, HOST, PATH, PORT, PREFIX, assert_comparison, layer_at, outcome_for};

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
        (
            "H-11: a query and a fragment in htu",
            "/orders",
            "/orders?page=2#top",
            EQUAL,
        ),
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
            "H-11: different queries",
            "/orders?page=2",
            "/orders?page=3",
            EQUAL,
        ),
        (
            "H-11: an encoded question mark belongs to the path",
            "/orders",
            "/orders%3Fpage=2",
            PATH,
        ),
        (
            "H-11: an encoded hash belongs to the path",
            "/orders",
            "/orders%23top",
            PATH,
        ),
        (
            "H-11: another path before the query",
            "/orders",
            "/order?s",
            PATH,
        ),
    ];
    let layer = layer_at(&[API]);
    for (name, uri, path, expected) in rows {
        let htu = format!("{API}{path}");
        assert_comparison(name, &outcome_for(&layer, uri, &htu), expected);
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
        (
            "H-18: the first URL",
            "https://api.example.com/orders",
            EQUAL,
        ),
        (
            "H-18: the second URL",
            "https://eu.example.com:8443/orders",
            EQUAL,
        ),
        (
            "H-18: the URL with a path prefix",
            "https://example.com/api/orders",
            EQUAL,
        ),
        ("H-18: the http URL", "http://localhost/orders", EQUAL),
        (
            "H-18: the port of another URL",
            "https://api.example.com:8443/orders",
            PORT,
        ),
        (
            "H-18: the second URL without its port",
            "https://eu.example.com/orders",
            PORT,
        ),
        (
            "H-18: the prefix of another URL",
            "https://api.example.com/api/orders",
            PREFIX,
        ),
        (
            "H-18: the third URL without its prefix",
            "https://example.com/orders",
            PREFIX,
        ),
        (
            "H-18: the scheme of another URL",
            "http://api.example.com/orders",
            HOST,
        ),
        (
            "H-18: a URL that is not configured",
            "https://evil.example/orders",
            HOST,
        ),
    ];
    for (name, htu, expected) in rows {
        assert_comparison(name, &outcome_for(&layer, "/orders", htu), expected);
    }
}

#[test]
fn behind_a_path_prefix_the_proof_must_name_the_public_path() {
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
            PREFIX,
        ),
        (
            "H-19: the prefix twice",
            "/orders",
            "https://example.com/api/api/orders",
            PREFIX,
        ),
        (
            "H-19: the prefix encoded",
            "/orders",
            "https://example.com/%61pi/orders",
            EQUAL,
        ),
        (
            "H-19: the prefix after dot segments",
            "/orders",
            "https://example.com/x/../api/orders",
            EQUAL,
        ),
        (
            "H-19: dot segments that remove the prefix",
            "/orders",
            "https://example.com/api/../orders",
            PREFIX,
        ),
        (
            "H-19: a longer segment that starts with the prefix",
            "/orders",
            "https://example.com/apiary/orders",
            PREFIX,
        ),
        (
            "H-19: the prefix in upper case",
            "/orders",
            "https://example.com/API/orders",
            PREFIX,
        ),
        (
            "H-19: the root below the prefix",
            "/",
            "https://example.com/api/",
            EQUAL,
        ),
        (
            "H-19 H-9: the prefix without a trailing slash",
            "/",
            "https://example.com/api",
            PATH,
        ),
        (
            "H-19 H-4: only the origin",
            "/",
            "https://example.com",
            PATH,
        ),
        (
            "H-19: a double slash after the prefix",
            "/orders",
            "https://example.com/api//orders",
            PREFIX,
        ),
        (
            "H-19: an internal path that starts with the prefix",
            "/api/orders",
            "https://example.com/api/orders",
            PREFIX,
        ),
    ];
    for public_url in ["https://example.com/api", "https://example.com/api/"] {
        let layer = layer_at(&[public_url]);
        for (name, uri, htu, expected) in rows {
            assert_comparison(name, &outcome_for(&layer, uri, htu), expected);
        }
    }
}

/// What differs is the part that a proxy strips or adds, not what a client wrote wrong.
#[test]
fn a_path_that_differs_in_its_prefix_only_is_told_apart() {
    let rows = [
        ("stripped", "/orders/7", "/api/orders/7", PREFIX),
        ("stripped by two segments", "/7", "/api/orders/7", PREFIX),
        ("added", "/internal/orders/7", "/orders/7", PREFIX),
        ("a slash left over", "//orders/7", "/api/orders/7", PREFIX),
        ("a slash added", "//orders/7", "/orders/7", PREFIX),
        ("stripped down to the root", "/", "/api/", PATH),
        ("within a segment", "/orders", "/myorders", PATH),
        ("another end", "/api/orders/8", "/api/orders/7", PATH),
        ("a trailing slash", "/orders/", "/orders", PATH),
        ("another prefix", "/a/orders", "/b/orders", PATH),
    ];
    let layer = layer_at(&[API]);
    for (name, uri, path, expected) in rows {
        let htu = format!("{API}{path}");
        assert_comparison(name, &outcome_for(&layer, uri, &htu), expected);
    }
    // The proxy strips the configured prefix, but leaves a slash.
    let layer = layer_at(&["https://example.com/api"]);
    let outcome = outcome_for(&layer, "//orders/7", "https://example.com/api/orders/7");
    assert_comparison("nginx", &outcome, PREFIX);
}
