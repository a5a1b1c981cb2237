//! Envoy asks over gRPC: each row is what its filter sends, with one change.

use std::collections::HashMap;

use envoy_types::ext_authz::v3::pb::{
    CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValue, HeaderValueOption, HttpResponse,
    OkHttpResponse,
};
use envoy_types::pb::envoy::config::core::v3::HeaderMap as RawHeaders;
use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use http::Method;
use tower_dpop::testing::TestRequest;

use crate::forward_auth::{POLICY, asked_by, fields};
use crate::support::{Gateway, Parties, Started};

fn start(parties: &Parties, dpop: &str, besides: &str) -> Started {
    let config = format!("{}{besides}{POLICY}", asked_by("envoy-grpc"));
    Gateway::with_dpop(parties, dpop, &config).start()
}

/// As Envoy describes a request: with its pseudo-headers, and one text for each name.
fn described(request: &TestRequest) -> HttpRequest {
    let head = request.build::<()>();
    let mut headers: HashMap<String, String> = fields(request)
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.insert(":path".to_owned(), "/other".to_owned());
    headers.insert(":method".to_owned(), "PUT".to_owned());
    headers.insert(":authority".to_owned(), "other.example.com".to_owned());
    HttpRequest {
        method: head.method().to_string(),
        path: head.uri().path_and_query().unwrap().to_string(),
        host: "other.example.com".to_owned(),
        headers,
        ..HttpRequest::default()
    }
}

async fn check(gateway: &Started, http: Option<HttpRequest>) -> CheckResponse {
    let url = gateway.url("forward_auth").to_owned();
    let mut client = AuthorizationClient::connect(url).await.unwrap();
    let attributes = AttributeContext {
        request: Some(Request {
            http,
            ..Request::default()
        }),
        ..AttributeContext::default()
    };
    let request = CheckRequest {
        attributes: Some(attributes),
    };
    client.check(request).await.unwrap().into_inner()
}

#[track_caller]
fn ok(response: CheckResponse) -> OkHttpResponse {
    assert_eq!(response.status.unwrap().code, 0);
    match response.http_response {
        Some(HttpResponse::OkResponse(response)) => response,
        other => panic!("expected a response that passes, not {other:?}"),
    }
}

#[track_caller]
fn denied(response: CheckResponse) -> (u32, DeniedHttpResponse) {
    assert_ne!(response.status.unwrap().code, 0);
    match response.http_response {
        Some(HttpResponse::DeniedResponse(response)) => (
            u32::try_from(response.status.unwrap().code).unwrap(),
            response,
        ),
        other => panic!("expected a rejection, not {other:?}"),
    }
}

/// The values of a field, and whether each is added to those that exist.
fn values(options: &[HeaderValueOption], name: &str) -> Vec<(String, bool)> {
    let mut values = Vec::new();
    for option in options {
        let header = option.header.as_ref().unwrap();
        #[allow(
            deprecated,
            reason = "releases of Envoy that do not know `append_action` read it"
        )]
        let append = option.append.is_some_and(|append| append.value);
        if header.key == name {
            values.push((header.value.clone(), append));
        }
    }
    values
}

#[tokio::test]
async fn a_valid_request_passes_with_the_identity_fields_of_its_client_and_without_credentials() {
    let parties = Parties::new();
    let gateway = start(&parties, "", "");
    for (method, path) in [
        ("GET", "/orders?of=me&page=2"),
        ("DELETE", "/a%2Fb//c/~d"),
        ("HEAD", "/"),
    ] {
        let request = parties.request(method.parse().unwrap(), path);
        let mut http = described(&request);
        for name in [
            "x-auth-subject",
            "x_auth_subject",
            "x-auth_tenant",
            "x-other",
        ] {
            http.headers.insert(name.to_owned(), "admin".to_owned());
        }
        let mut response = ok(check(&gateway, Some(http.clone())).await);
        let replaced = [("alice".to_owned(), false)];
        assert_eq!(values(&response.headers, "x-auth-subject"), replaced);
        assert_eq!(response.headers.len(), 1);
        response.headers_to_remove.sort_unstable();
        let removed = [
            "authorization",
            "dpop",
            "x-auth-tenant",
            "x-auth_tenant",
            "x_auth_subject",
        ];
        assert_eq!(response.headers_to_remove, removed);

        let (status, again) = denied(check(&gateway, Some(http)).await);
        assert_eq!(status, 401);
        let challenge = &values(&again.headers, "www-authenticate")[0].0;
        assert!(challenge.contains("invalid_dpop_proof"), "{challenge}");
        assert_eq!(
            again.body.contains("invalid_dpop_proof"),
            method != "HEAD",
            "{}",
            again.body
        );
        assert!(values(&again.headers, "content-length").is_empty());
    }
}

#[tokio::test]
async fn every_defect_is_denied() {
    let parties = Parties::new();
    let gateway = start(&parties, "", "");
    let request = parties.request(Method::GET, "/orders");
    for defect in request.defects() {
        let attempt = request.again().with_defect(defect);
        // A second field of the same name is not an entry of a map.
        let mut http = described(&attempt);
        for (name, value) in &mut http.headers {
            let all = fields(&attempt);
            let all: Vec<_> = all.get_all(name.trim_start_matches(':')).iter().collect();
            if all.len() > 1 {
                let all: Vec<_> = all.iter().map(|value| value.to_str().unwrap()).collect();
                *value = all.join(",");
            }
        }
        let (status, response) = denied(check(&gateway, Some(http)).await);
        let rejection = attempt.rejection_of(defect);
        assert_eq!(status, u32::from(rejection.status().as_u16()), "{defect:?}");
        let challenge = &values(&response.headers, "www-authenticate")[0].0;
        if let Some(code) = rejection.error_code() {
            assert!(challenge.contains(code), "{defect:?}: {challenge}");
        }
    }
    let ok_after = check(&gateway, Some(described(&request))).await;
    ok(ok_after);
}

#[tokio::test]
async fn a_description_that_is_no_request_is_denied() {
    let parties = Parties::new();
    let gateway = start(&parties, "", "");
    let good = || described(&parties.request(Method::GET, "/public"));
    let field = |name: &str, value: &str| {
        let mut http = good();
        http.headers.insert(name.to_owned(), value.to_owned());
        http
    };
    for (row, http, expected) in [
        ("none", None, 400),
        (
            "no method",
            Some(HttpRequest {
                method: String::new(),
                ..good()
            }),
            400,
        ),
        (
            "a malformed method",
            Some(HttpRequest {
                method: "GET GET".to_owned(),
                ..good()
            }),
            400,
        ),
        (
            "no path",
            Some(HttpRequest {
                path: String::new(),
                ..good()
            }),
            400,
        ),
        (
            "an asterisk",
            Some(HttpRequest {
                path: "*".to_owned(),
                ..good()
            }),
            400,
        ),
        (
            "a URL",
            Some(HttpRequest {
                path: "https://api.example.com/public".to_owned(),
                ..good()
            }),
            400,
        ),
        (
            "a path that is not ASCII",
            Some(HttpRequest {
                path: "/public/é".to_owned(),
                ..good()
            }),
            400,
        ),
        (
            "a fragment",
            Some(HttpRequest {
                path: "/public#/orders".to_owned(),
                ..good()
            }),
            400,
        ),
        (
            "a malformed name",
            Some(field("x auth subject", "admin")),
            400,
        ),
        ("a malformed value", Some(field("x-other", "a\nb")), 400),
        (
            "another path",
            Some(HttpRequest {
                path: "/orders".to_owned(),
                ..good()
            }),
            401,
        ),
        (
            "another method",
            Some(HttpRequest {
                method: "PUT".to_owned(),
                path: "/orders".to_owned(),
                ..good()
            }),
            401,
        ),
    ] {
        let (status, _) = denied(check(&gateway, http).await);
        assert_eq!(status, expected, "{row}");
    }
    ok(check(&gateway, Some(good())).await);
}

/// With `encode_raw_headers`, Envoy sends each field by itself. Without it, Envoy joins the fields of one name.
#[tokio::test]
async fn repeated_credentials_are_denied_in_both_encodings() {
    let parties = Parties::new();
    let gateway = start(&parties, "", "");
    let raw = |fields: &[(String, String)]| {
        let mut http = described(&parties.request(Method::GET, "/orders"));
        http.headers.clear();
        let headers = fields.iter().map(|(key, value)| HeaderValue {
            key: key.clone(),
            raw_value: value.clone().into_bytes(),
            ..HeaderValue::default()
        });
        http.header_map = Some(RawHeaders {
            headers: headers.collect(),
        });
        http
    };
    for (repeated, expected) in [("authorization", 400), ("dpop", 401), ("x-other", 0)] {
        let request = parties.request(Method::GET, "/orders");
        let mut sent: Vec<(String, String)> = fields(&request)
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        sent.push((":path".to_owned(), "/other".to_owned()));
        let once = sent.clone();
        for (name, value) in [("x-other", "1"), ("x-other", "2")] {
            sent.push((name.to_owned(), value.to_owned()));
        }
        if let Some(first) = once.iter().find(|(name, _)| name == repeated) {
            sent.push(first.clone());
        }
        let mut joined = described(&request);
        joined
            .headers
            .entry(repeated.to_owned())
            .and_modify(|value| {
                *value = format!("{value},{value}");
            });
        for http in [raw(&sent), joined] {
            let response = check(&gateway, Some(http)).await;
            if expected == 0 {
                // The second one is a replay.
                let _ = response;
            } else {
                let (status, _) = denied(response);
                assert_eq!(status, expected, "{repeated}");
            }
        }
        if expected != 0 {
            ok(check(&gateway, Some(raw(&once))).await);
        }
    }
}

#[tokio::test]
async fn demands_of_nonces_and_both_challenges_arrive() {
    let parties = Parties::new();
    let gateway = start(&parties, "nonces = \"generated\"\nallow_bearer = true", "");
    let mut request = parties.request(Method::GET, "/orders");
    let (status, response) = denied(check(&gateway, Some(described(&request))).await);
    assert_eq!(status, 401);
    let challenges = values(&response.headers, "www-authenticate");
    // Envoy takes no field of a rejection that is to be added to others.
    let appended: Vec<_> = challenges.iter().map(|(_, append)| *append).collect();
    assert_eq!(appended, [false, false], "{challenges:?}");
    let nonce = &values(&response.headers, "dpop-nonce")[0].0;
    assert_eq!(values(&response.headers, "cache-control")[0].0, "no-store");
    request = request.again();
    request.proof_claims["nonce"] = nonce.as_str().into();
    ok(check(&gateway, Some(described(&request))).await);
}

#[tokio::test]
async fn a_preflight_gets_the_response_of_the_gateway() {
    let parties = Parties::new();
    let cors = "[cors]\nallow_origins = [\"https://app.example.com\"]\nallow_methods = [\"GET\"]\n";
    let gateway = start(&parties, "", cors);
    let mut http = described(&parties.request(Method::OPTIONS, "/orders"));
    http.headers.remove("authorization");
    http.headers
        .insert("origin".to_owned(), "https://app.example.com".to_owned());
    http.headers
        .insert("access-control-request-method".to_owned(), "GET".to_owned());
    let (status, response) = denied(check(&gateway, Some(http)).await);
    assert_eq!(status, 200);
    let allowed = values(&response.headers, "access-control-allow-origin");
    assert_eq!(allowed[0].0, "https://app.example.com");

    let mut http = described(&parties.request(Method::GET, "/orders"));
    http.headers
        .insert("origin".to_owned(), "https://app.example.com".to_owned());
    let response = ok(check(&gateway, Some(http)).await);
    let allowed = values(
        &response.response_headers_to_add,
        "access-control-allow-origin",
    );
    assert_eq!(allowed, [("https://app.example.com".to_owned(), false)]);
    let vary = values(&response.response_headers_to_add, "vary");
    assert!(vary.iter().all(|(_, append)| *append), "{vary:?}");
}

#[tokio::test]
async fn routes_and_networks_apply() {
    let parties = Parties::new();
    let gateway = start(&parties, "", "");
    let public = described(&parties.request(Method::GET, "/public"));
    let without = HttpRequest {
        headers: HashMap::from([("x_auth_subject".to_owned(), "admin".to_owned())]),
        ..public
    };
    let response = ok(check(&gateway, Some(without)).await);
    assert!(response.headers.is_empty());
    assert!(
        response
            .headers_to_remove
            .contains(&"x_auth_subject".to_owned())
    );

    let request = parties.request(Method::POST, "/payments");
    let (status, _) = denied(check(&gateway, Some(described(&request))).await);
    assert_eq!(status, 403);

    // Asked by a process of another network: no response of this service, so Envoy rejects the request.
    let config = asked_by("envoy-grpc").replace("127.0.0.0/8", "127.0.0.4/30");
    let gateway = Gateway::new(&parties, &format!("{config}{POLICY}")).start();
    let url = gateway.url("forward_auth").to_owned();
    let mut client = AuthorizationClient::connect(url).await.unwrap();
    let status = client.check(CheckRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
}

/// The services check the proof again, and use it up.
#[tokio::test]
async fn insecure_replays_leaves_the_credentials_in_the_request() {
    let parties = Parties::new();
    let config = format!(
        "{}insecure_replays = true\n{POLICY}",
        asked_by("envoy-grpc")
    );
    let gateway = Gateway::new(&parties, &config).start();
    let mut http = described(&parties.request(Method::GET, "/orders"));
    http.headers
        .insert("x_auth_subject".to_owned(), "admin".to_owned());
    for _ in 0..2 {
        let mut response = ok(check(&gateway, Some(http.clone())).await);
        response.headers_to_remove.sort_unstable();
        assert_eq!(
            response.headers_to_remove,
            ["x-auth-tenant", "x_auth_subject"]
        );
    }
}

/// Access tokens have up to 32 KiB.
#[tokio::test]
async fn a_large_token_passes() {
    let parties = Parties::new();
    let gateway = start(&parties, "", "");
    let mut request = parties.request(Method::GET, "/orders");
    request.token_claims["roles"] = "x".repeat(21_000).into();
    ok(check(&gateway, Some(described(&request))).await);
}
