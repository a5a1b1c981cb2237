//! Scripts on other origins.

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::Response;

use crate::support::{Gateway, Parties, Service, Started};

const ORIGIN: &str = "https://app.example.com";

async fn sent(
    gateway: &Started,
    method: Method,
    path: &str,
    fields: &[(&'static str, &str)],
) -> Response {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    let url = format!("{}{path}", gateway.url("proxy"));
    let client = reqwest::Client::new();
    client
        .request(method, url)
        .headers(headers)
        .send()
        .await
        .unwrap()
}

async fn preflight(gateway: &Started, path: &str, origin: &str, method: &str) -> Response {
    let fields = [
        ("origin", origin),
        ("access-control-request-method", method),
        ("access-control-request-headers", "authorization,dpop"),
    ];
    sent(gateway, Method::OPTIONS, path, &fields).await
}

fn field(response: &Response, name: &str) -> String {
    let values = response.headers().get_all(name).iter();
    let values: Vec<_> = values.map(|value| value.to_str().unwrap()).collect();
    values.join(" | ")
}

const ROUTES: &str = r#"
    [[route]]
    path = "/orders"
    methods = ["GET", "POST"]
    upstream = "service"
    [[route]]
    path = "/down"
    upstream = "down"
    access = "public"
    [upstream.down]
    servers = ["http://127.0.0.1:1"]
    [cors]
    allow_origins = ["https://app.example.com", "https://other.example.com:8443"]
    allow_methods = ["GET", "POST"]
    allow_headers = ["Idempotency-Key"]
    max_age_seconds = 600
"#;

#[tokio::test]
async fn the_gateway_responds_to_preflights_and_lets_scripts_read_every_response() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let gateway = Gateway::new(&parties, &service.behind(ROUTES)).start();

    let response = preflight(&gateway, "/orders", ORIGIN, "POST").await;
    assert_eq!(response.status(), 200);
    assert_eq!(field(&response, "access-control-allow-origin"), ORIGIN);
    assert_eq!(field(&response, "access-control-allow-methods"), "GET,POST");
    assert_eq!(
        field(&response, "access-control-allow-headers"),
        "authorization,content-type,dpop,idempotency-key"
    );
    assert_eq!(field(&response, "access-control-max-age"), "600");
    let response = preflight(&gateway, "/orders", "https://evil.example", "POST").await;
    assert_eq!(field(&response, "access-control-allow-origin"), "");
    assert_eq!(service.received().len(), 0);

    for (method, path, status) in [
        (Method::GET, "/orders", 401),
        (Method::PUT, "/orders", 405),
        (Method::GET, "/nothing", 404),
        (Method::GET, "/orders/%2e%2e/x", 404),
        (Method::GET, "/x/..%2forders", 400),
    ] {
        let response = sent(&gateway, method.clone(), path, &[("origin", ORIGIN)]).await;
        assert_eq!(response.status(), status, "{method} {path}");
        let allowed = field(&response, "access-control-allow-origin");
        assert_eq!(allowed, ORIGIN, "{method} {path}");
        let exposed = field(&response, "access-control-expose-headers");
        assert!(exposed.contains("dpop-nonce"), "{method} {path}: {exposed}");
        assert!(
            field(&response, "vary").contains("origin"),
            "{method} {path}"
        );
    }
}

/// The fields of the gateway replace those of the service, and both have their `Vary`.
#[tokio::test]
async fn a_response_of_the_service_has_the_fields_of_the_gateway() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let gateway = Gateway::new(&parties, &service.behind(ROUTES)).start();
    let fields = HeaderMap::from_iter(
        [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("vary", "accept"),
        ]
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))),
    );
    service.respond_with(StatusCode::NOT_FOUND, fields);
    for (origin, expected) in [(ORIGIN, ORIGIN), ("https://evil.example", "")] {
        let mut request = parties.request(Method::GET, "/orders");
        request
            .extra_headers
            .push(("origin", origin.parse().unwrap()));
        let response = gateway.send(&request).await;
        assert_eq!(response.status(), 404);
        assert_eq!(field(&response, "access-control-allow-origin"), expected);
        assert_eq!(field(&response, "access-control-allow-credentials"), "");
        let vary = field(&response, "vary");
        assert!(vary.contains("accept") && vary.contains("origin"), "{vary}");
    }
}

#[tokio::test]
async fn without_cors_a_preflight_is_a_request_as_any_other() {
    let routes = r#"
        [[route]]
        path = "/orders"
        upstream = "service"
        [[route]]
        path = "/passed"
        methods = ["GET"]
        upstream = "service"
        pass_preflights = true
        [[identity]]
        claim = "sub"
        field = "X-Subject"
    "#;
    let (parties, service) = (Parties::new(), Service::start().await);
    let gateway = Gateway::new(&parties, &service.behind(routes)).start();
    let get = preflight(&gateway, "/orders", ORIGIN, "GET").await;
    assert_eq!(get.status(), 401);
    assert_eq!(field(&get, "access-control-allow-origin"), "");
    let other_method = preflight(&gateway, "/passed", ORIGIN, "POST").await;
    assert_eq!(other_method.status(), 405);
    let no_preflight = sent(&gateway, Method::OPTIONS, "/passed", &[("origin", ORIGIN)]).await;
    assert_eq!(no_preflight.status(), 405);
    assert_eq!(service.received().len(), 0);

    let fields = [
        ("access-control-request-method", "GET"),
        ("x-subject", "admin"),
    ];
    let passed = sent(&gateway, Method::OPTIONS, "/passed", &fields).await;
    assert_eq!(passed.status(), 200);
    let [(head, _)] = &service.received()[..] else {
        panic!("expected one request");
    };
    assert_eq!(head.method, Method::OPTIONS);
    assert!(!head.headers.contains_key("x-subject"));
    // A request with a token is no preflight.
    let with_token = [
        ("access-control-request-method", "GET"),
        ("authorization", "DPoP x"),
    ];
    let rejected = sent(&gateway, Method::OPTIONS, "/passed", &with_token).await;
    assert_eq!(rejected.status(), 405);
}

#[tokio::test]
async fn any_origin_can_be_allowed() {
    let (parties, service) = (Parties::new(), Service::start().await);
    let one = "allow_origins = [\"https://app.example.com\", \"https://other.example.com:8443\"]";
    let routes = ROUTES.replace(one, "allow_origins = [\"*\"]");
    assert_ne!(routes, ROUTES);
    let gateway = Gateway::new(&parties, &service.behind(&routes)).start();
    let response = preflight(&gateway, "/orders", "https://any.example", "GET").await;
    assert_eq!(field(&response, "access-control-allow-origin"), "*");
}
