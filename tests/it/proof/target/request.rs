//! The method and the target of a request, in each form that HTTP has for a target.

use http::{HeaderValue, Method, Request, Uri, Version};
use serde_json::json;
use tower_dpop::proof::{ProofError, TargetError, UrlMismatch};
use tower_dpop::{DpopLayer, Rejection};

use super::{API, EQUAL, HOST, MALFORMED, PATH, PORT, SCHEME, answer, assert_comparison, layer_at};
use common::{Attempt, AttemptExt as _, Outcome, ask};

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

/// A request whose URI the `http` crate does not parse from one text.
fn ask_for(layer: &DpopLayer, version: Version, uri: Uri, attempt: &Attempt) -> Outcome {
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
