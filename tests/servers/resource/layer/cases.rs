//! Requests that both versions of HTTP can carry, and whether each is accepted.

use common::{Attempt, AttemptExt as _, field};
use http::{HeaderValue, Method};
use serde_json::json;
use tower_dpop::proof::{ProofError, UrlMismatch};
use tower_dpop::resource::CredentialsError;

use super::{Expected, ORDERS, attempt_at, url_error};

pub(super) type Case = (&'static str, Attempt, Expected);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = credentials_and_targets();
    cases.extend(methods());
    cases.extend(forwarding_fields());
    cases
}

fn credentials_and_targets() -> Vec<Case> {
    vec![
        ("R-7.1: GET", Attempt::good(), Ok(())),
        (
            "H-11: the query is ignored",
            attempt_at("GET", "/orders?page=2", ORDERS),
            Ok(()),
        ),
        (
            "H-5: both URLs are normalised",
            attempt_at(
                "GET",
                "/%6Frders/./",
                "https://API.example.com:443/x/../orders/",
            ),
            Ok(()),
        ),
        (
            "H-9: a trailing slash makes another path",
            attempt_at("GET", "/orders/", ORDERS),
            url_error(UrlMismatch::Path),
        ),
        (
            "R-7.1.2: no proof",
            Attempt::but(|a| a.dpop = Some(vec![])),
            Err(ProofError::Missing.into()),
        ),
        (
            "R-4.3.1: two proofs",
            Attempt::but(|a| {
                let token = a.token();
                let proof = field(a.proof(&token).as_bytes());
                a.token = Some(token);
                a.dpop = Some(vec![proof.clone(), proof]);
            }),
            Err(ProofError::Several.into()),
        ),
        (
            "R-7.1: no credentials",
            Attempt::but(|a| a.authorization = Some(vec![])),
            Err(CredentialsError::Missing.into()),
        ),
        (
            "F-4: two Authorization fields",
            Attempt::but(|a| {
                let authorization = field(format!("DPoP {}", a.token()).as_bytes());
                a.authorization = Some(vec![authorization.clone(), authorization]);
            }),
            Err(CredentialsError::Ambiguous.into()),
        ),
        (
            "R-7.1.14: the token in Proxy-Authorization",
            Attempt::but(|a| {
                let authorization = field(format!("DPoP {}", a.token()).as_bytes());
                a.authorization = Some(vec![]);
                a.extra_headers = vec![("proxy-authorization", authorization)];
            }),
            Err(CredentialsError::Missing.into()),
        ),
    ]
}

fn methods() -> Vec<Case> {
    let mut cases = vec![
        ("T-2: HEAD", attempt_at("HEAD", "/orders", ORDERS), Ok(())),
        (
            "T-2: a GET proof for HEAD",
            Attempt::but(|a| a.method = Method::HEAD),
            Err(ProofError::Method.into()),
        ),
        (
            "T-2: a HEAD proof for GET",
            Attempt::but(|a| a.proof_claims["htm"] = json!("HEAD")),
            Err(ProofError::Method.into()),
        ),
        (
            "T-1: a lower-case method and a proof for it",
            attempt_at("get", "/orders", ORDERS),
            Ok(()),
        ),
        (
            "T-1: a lower-case htm for an upper-case method",
            Attempt::but(|a| a.proof_claims["htm"] = json!("get")),
            Err(ProofError::Method.into()),
        ),
        (
            "T-1: an upper-case htm for a lower-case method",
            Attempt::but(|a| a.method = "get".parse().unwrap()),
            Err(ProofError::Method.into()),
        ),
        (
            "H-21: OPTIONS of a path",
            attempt_at("OPTIONS", "/orders", ORDERS),
            Ok(()),
        ),
    ];
    for override_field in [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
    ] {
        let overridden = |htm: &str| {
            let mut attempt = attempt_at("POST", "/orders", ORDERS);
            attempt.proof_claims["htm"] = json!(htm);
            attempt.extra_headers = vec![(override_field, HeaderValue::from_static("DELETE"))];
            attempt
        };
        cases.push((
            "T-3: a proof for the method of the request line",
            overridden("POST"),
            Ok(()),
        ));
        cases.push((
            "T-3: a proof for the method of the override field",
            overridden("DELETE"),
            Err(ProofError::Method.into()),
        ));
    }
    for method in [
        "POST",
        "PUT",
        "DELETE",
        "PATCH",
        "TRACE",
        "PROPFIND",
        "QUERY",
        "M-SEARCH",
        "!#$%&'*+-.^_`|~",
    ] {
        cases.push((
            "R-4.2.5: any method",
            attempt_at(method, "/orders", ORDERS),
            Ok(()),
        ));
        cases.push((
            "R-4.3.8: a GET proof for another method",
            Attempt::but(|a| a.method = method.parse().unwrap()),
            Err(ProofError::Method.into()),
        ));
    }
    cases
}

fn forwarding_fields() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, host) in [
        ("H-18: X-Forwarded-Host", "x-forwarded-host"),
        ("H-18: X-Original-Host", "x-original-host"),
        ("H-18: X-Host", "x-host"),
    ] {
        for (htu, expected) in [
            (ORDERS, Ok(())),
            ("https://evil.example/orders", url_error(UrlMismatch::Host)),
        ] {
            let mut attempt = attempt_at("GET", "/orders", htu);
            attempt.extra_headers = vec![
                (host, HeaderValue::from_static("evil.example")),
                ("x-forwarded-proto", HeaderValue::from_static("https")),
                (
                    "forwarded",
                    HeaderValue::from_static("host=evil.example;proto=https"),
                ),
            ];
            cases.push((name, attempt, expected));
        }
    }
    for (name, path_field) in [
        ("H-18: X-Forwarded-Prefix", "x-forwarded-prefix"),
        ("H-18: X-Original-URL", "x-original-url"),
        ("H-18: X-Rewrite-URL", "x-rewrite-url"),
    ] {
        let mut attempt = attempt_at("GET", "/admin", ORDERS);
        attempt.extra_headers = vec![(path_field, HeaderValue::from_static("/orders"))];
        cases.push((name, attempt, url_error(UrlMismatch::Path)));
    }
    cases
}
