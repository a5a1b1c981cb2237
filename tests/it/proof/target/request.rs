//! The method and target of a request, in every form of request target (RFC 9112 section 3.2).

use http::{HeaderValue, Method, Request, Uri, Version};
use serde_json::json;
use tower_dpop::proof::{ProofError, TargetError, UrlMismatch};
use tower_dpop::{DpopLayer, Rejection};

use super::{
    API, EQUAL, HOST, MALFORMED, PATH, PORT, PREFIX, SCHEME, assert_comparison, layer_at,
    outcome_for,
};
use common::{Attempt, AttemptExt as _, Outcome, ask};

#[test]
fn methods_are_compared_exactly() {
    for (name, method, htm, passes) in [
        ("T-1: the same method", "POST", "POST", true),
        ("T-1: htm in lower case", "POST", "post", false),
        (
            "T-1: the request's method in lower case",
            "post",
            "POST",
            false,
        ),
        ("T-1: both in lower case", "post", "post", true),
        ("T-1: an extension method", "PURGE", "PURGE", true),
        ("T-1: the start of the method", "POST", "POS", false),
        ("T-1: a trailing space in htm", "POST", "POST ", false),
        ("T-1: an empty htm", "POST", "", false),
        (
            "T-2: a proof for GET with a HEAD request",
            "HEAD",
            "GET",
            false,
        ),
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

/// T-3
#[test]
fn header_fields_do_not_change_the_expected_method() {
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

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn header_fields_do_not_change_the_expected_url() {
    let other_hosts = [
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
            "all of these fields",
            vec![
                ("host", "evil.example"),
                ("forwarded", "host=evil.example;proto=https"),
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-port", "443"),
            ],
        ),
    ];
    for (fields, headers) in other_hosts {
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
            &format!("H-18 R-11.0: a proof for the host named in {fields}"),
            &with_headers("https://evil.example/orders"),
            HOST,
        );
        with_headers("https://api.example.com/orders").assert_passed(&format!(
            "H-18: a proof for the public URL, with another host in {fields}"
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
            PREFIX,
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

/// H-17: the `http` crate accepts this path.
#[test]
fn rejects_a_request_path_that_is_not_ascii() {
    outcome_for(
        &layer_at(&[API]),
        "/ordérs",
        "https://api.example.com/ordérs",
    )
    .assert_reason("H-17: not ASCII", TargetError::NotRfc3986);
}

/// For URIs that the `http` crate cannot parse from text.
fn outcome_for_uri(layer: &DpopLayer, version: Version, uri: Uri, attempt: &Attempt) -> Outcome {
    let mut request: Request<String> = attempt.request();
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    ask(layer, request)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn an_absolute_form_must_name_a_public_origin() {
    let layer = layer_at(&[API, "https://eu.example.com:8443"]);
    let misdirected = || Err(Rejection::Target(TargetError::Misdirected));
    let url = |mismatch| Err(Rejection::Proof(ProofError::Url(mismatch)));
    let rows: Vec<(&str, &str, &str, Result<(), Rejection>)> = vec![
        (
            "H-20: the public origin",
            "https://api.example.com/orders",
            "https://api.example.com/orders",
            Ok(()),
        ),
        (
            "H-20 H-1: the public origin in upper case",
            "HTTPS://API.example.com/orders",
            "https://api.example.com/orders",
            Ok(()),
        ),
        (
            "H-20 H-2: the public origin with the default port",
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
            "H-20: the other public origin",
            "https://eu.example.com:8443/orders",
            "https://eu.example.com:8443/orders",
            Ok(()),
        ),
        (
            "H-20: the first origin, with a proof for the other",
            "https://api.example.com/orders",
            "https://eu.example.com:8443/orders",
            url(UrlMismatch::Host),
        ),
        (
            "H-20: the other origin, with a proof for the first",
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
            "H-20 H-18: another server, with a proof for this one",
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
            "H-20: neither http nor https",
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

/// H-18: in HTTP/2 and later, every request has a scheme and an authority, which gateways rewrite.
#[test]
fn the_authority_of_http_2_is_ignored() {
    let rows = [
        (
            "H-18: the public URL",
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
            "H-4: an empty path",
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
            "H-21 H-11: the origin with a query",
            API,
            "https://api.example.com?x",
            EQUAL,
        ),
        ("H-21: the root", API, "https://api.example.com/", PATH),
        (
            "H-21 H-8: a double dot segment",
            API,
            "https://api.example.com/..",
            PATH,
        ),
        (
            "H-21: an asterisk as the path",
            API,
            "https://api.example.com/*",
            PATH,
        ),
        ("H-21: only an asterisk", API, "*", MALFORMED),
        (
            "H-21: another path",
            API,
            "https://api.example.com/orders",
            PATH,
        ),
        ("H-21: another host", API, "https://evil.example", HOST),
        (
            "H-21: the origin, behind a path prefix",
            "https://api.example.com/api",
            "https://api.example.com",
            PATH,
        ),
        (
            "H-21: the prefix, behind a path prefix",
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
        let http_1 = outcome_for_uri(&layer, Version::HTTP_11, Uri::from_static("*"), &attempt());
        assert_comparison(name, &http_1, expected);
        let http_2 = outcome_for_uri(&layer, Version::HTTP_2, on_http_2(), &attempt());
        assert_comparison(&format!("{name}, HTTP/2"), &http_2, expected);
    }
}

/// H-21, RFC 9112 section 3.2.4: the asterisk-form is for OPTIONS only.
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
            outcome_for_uri(&layer, version, Uri::from_static("*"), &attempt)
                .assert_reason(name, TargetError::NotRfc3986);
        }
    }
}

/// H-18, RFC 9112 section 3.2.3: the authority-form is for CONNECT only.
#[test]
fn rejects_an_authority_form_target() {
    let layer = layer_at(&[API]);
    for (name, uri) in [
        ("another server", Uri::from_static("evil.example:443")),
        ("this server", Uri::from_static("api.example.com:443")),
    ] {
        let attempt = Attempt::but(|a| a.proof_claims["htu"] = json!("https://api.example.com/"));
        outcome_for_uri(&layer, Version::HTTP_11, uri, &attempt)
            .assert_reason(name, TargetError::Misdirected);
    }
}

#[test]
fn accepts_extended_connect_but_not_plain_connect() {
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
    for version in [Version::HTTP_10, Version::HTTP_11] {
        connect(version, orders, "CONNECT", orders)
            .assert_reason("H-22: in absolute-form below HTTP/2", TargetError::Connect);
        connect(version, "/orders", "CONNECT", orders)
            .assert_reason("H-22: in origin-form below HTTP/2", TargetError::Connect);
    }
    connect(Version::HTTP_2, orders, "CONNECT", orders).assert_passed("H-22: an extended CONNECT");
    connect(Version::HTTP_3, orders, "CONNECT", orders).assert_passed("H-22: over HTTP/3");
    connect(Version::HTTP_2, orders, "GET", orders)
        .assert_reason("H-22: htm must be CONNECT", ProofError::Method);
    assert_comparison(
        "H-22 H-16: htu must be https, not wss",
        &connect(
            Version::HTTP_2,
            orders,
            "CONNECT",
            "wss://api.example.com/orders",
        ),
        MALFORMED,
    );
    assert_comparison(
        "H-22: another path",
        &connect(
            Version::HTTP_2,
            orders,
            "CONNECT",
            "https://api.example.com/users",
        ),
        PATH,
    );
}
