//! Other proxies ask over HTTP: each row is what a proxy sends, with one change.

use std::net::{IpAddr, Ipv4Addr};

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower_dpop::testing::{TestRequest, TestResponse};

use crate::support::{Gateway, Parties, Service, Started};

/// For all paths, and what services learn of the client.
pub const POLICY: &str = r#"
    [[route]]
    path = "/"
    [[route]]
    path = "/public"
    access = "public"
    [[route]]
    path = "/payments"
    scopes = "payments.write"
    [[identity]]
    claim = "sub"
    field = "X-Auth-Subject"
    [[identity]]
    claim = "tenant"
    field = "X-Auth-Tenant"
"#;

/// A `[[forward_auth]]` that every process of this machine may ask.
pub fn asked_by(who: &str) -> String {
    format!(
        "[[forward_auth]]\naddress = \"127.0.0.1:0\"\nasked_by = \"{who}\"\nfrom = [\"127.0.0.0/8\"]\n"
    )
}

/// What a proxy asks: where, and with which fields besides those of the client.
#[derive(Clone)]
struct Question {
    path: String,
    fields: Vec<(&'static str, String)>,
    method: Method,
}

impl Question {
    /// As this proxy asks about a request.
    fn of(who: &str, method: &str, target: &str) -> Self {
        let target = target.to_owned();
        let fields = match who {
            "nginx" => vec![
                ("x-original-method", method.into()),
                ("x-original-uri", target),
            ],
            "ingress-nginx" => vec![
                ("x-original-method", method.into()),
                (
                    "x-original-url",
                    format!("https://other.example.com{target}"),
                ),
                ("x-auth-request-redirect", "/other".into()),
            ],
            "traefik" | "caddy" => vec![
                ("x-forwarded-method", method.into()),
                ("x-forwarded-uri", target),
                ("x-forwarded-host", "other.example.com".into()),
            ],
            "envoy-http" => {
                return Self {
                    path: format!("/dpop{target}"),
                    fields: Vec::new(),
                    method: method.parse().unwrap(),
                };
            }
            other => panic!("{other}"),
        };
        Self {
            path: "/".to_owned(),
            fields,
            method: Method::GET,
        }
    }

    fn without(mut self, field: &str) -> Self {
        self.fields.retain(|(name, _)| *name != field);
        self
    }

    fn with(mut self, field: &'static str, value: &str) -> Self {
        self.fields.push((field, value.to_owned()));
        self
    }

    async fn ask(&self, gateway: &Started, client: &HeaderMap) -> reqwest::Response {
        self.ask_from(IpAddr::V4(Ipv4Addr::LOCALHOST), gateway, client)
            .await
    }

    async fn ask_from(
        &self,
        address: IpAddr,
        gateway: &Started,
        client: &HeaderMap,
    ) -> reqwest::Response {
        let mut headers = client.clone();
        for (name, value) in &self.fields {
            // Also what is not visible ASCII.
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        let http = reqwest::Client::builder().local_address(address);
        http.build()
            .unwrap()
            .request(
                self.method.clone(),
                format!("{}{}", gateway.url("forward_auth"), self.path),
            )
            .headers(headers)
            .send()
            .await
            .unwrap()
    }
}

/// The header fields of a client's request.
pub fn fields(request: &TestRequest) -> HeaderMap {
    request.build::<()>().headers().clone()
}

fn seen(response: &reqwest::Response) -> TestResponse {
    let mut same = http::Response::new(());
    *same.status_mut() = response.status();
    *same.headers_mut() = response.headers().clone();
    TestResponse::of(&same)
}

fn start(parties: &Parties, who: &str) -> Started {
    start_with(parties, who, "", "")
}

/// With settings of `[dpop]` and others besides.
fn start_with(parties: &Parties, who: &str, dpop: &str, besides: &str) -> Started {
    let prefix = if who == "envoy-http" {
        "path_prefix = \"/dpop\"\n"
    } else {
        ""
    };
    let config = format!("{}{prefix}{besides}{POLICY}", asked_by(who));
    Gateway::with_dpop(parties, dpop, &config).start()
}

const ALL: [&str; 5] = ["nginx", "ingress-nginx", "traefik", "caddy", "envoy-http"];

#[tokio::test]
async fn a_valid_request_gets_200_with_the_identity_fields_of_its_client() {
    let parties = Parties::new();
    for who in ALL {
        let gateway = start(&parties, who);
        for (method, path) in [
            ("GET", "/orders?of=me&page=2"),
            ("DELETE", "/a%20b/c/~d"),
            ("HEAD", "/"),
        ] {
            let request = parties.request(method.parse().unwrap(), path);
            let question = Question::of(who, method, path);
            let response = question.ask(&gateway, &fields(&request)).await;
            seen(&response).assert_passed(&format!("{who}: {method} {path}"));
            assert_eq!(response.headers()["x-auth-subject"], "alice", "{who}");
            assert!(!response.headers().contains_key("x-auth-tenant"), "{who}");
            assert_eq!(
                response
                    .headers()
                    .contains_key("x-envoy-auth-headers-to-remove"),
                who == "envoy-http"
            );

            let response = question.ask(&gateway, &fields(&request)).await;
            seen(&response).assert_rejected(who, 401, Some("invalid_dpop_proof"));
            assert!(!response.headers().contains_key("x-auth-subject"), "{who}");
            // The response to a client's HEAD has no body, also where the question is a GET.
            let body = response.text().await.unwrap();
            assert_eq!(body.is_empty(), method == "HEAD", "{who}: {body}");
        }
    }
}

#[tokio::test]
async fn every_defect_is_rejected_with_its_challenge() {
    let parties = Parties::new();
    for who in ALL {
        let gateway = start(&parties, who);
        let request = parties.request(Method::GET, "/orders");
        let question = Question::of(who, "GET", "/orders");
        for defect in request.defects() {
            let attempt = request.again().with_defect(defect);
            let response = seen(&question.ask(&gateway, &fields(&attempt)).await);
            let rejection = attempt.rejection_of(defect);
            if who.contains("nginx") && rejection.status() == 400 {
                // nginx would make a 500 of it.
                response.assert_rejected(
                    &format!("{who}: {defect:?}"),
                    401,
                    rejection.error_code(),
                );
            } else {
                response.assert_reason(&format!("{who}: {defect:?}"), rejection);
            }
        }
        seen(&question.ask(&gateway, &HeaderMap::new()).await)
            .assert_rejected("no token", 401, None);
    }
}

#[tokio::test]
async fn a_question_must_describe_the_request_as_its_proxy_does() {
    let parties = Parties::new();
    for (who, method, uri) in [
        ("nginx", "x-original-method", "x-original-uri"),
        ("ingress-nginx", "x-original-method", "x-original-url"),
        ("traefik", "x-forwarded-method", "x-forwarded-uri"),
        ("caddy", "x-forwarded-method", "x-forwarded-uri"),
    ] {
        let gateway = start(&parties, who);
        let good = Question::of(who, "GET", "/orders");
        let target = good.fields[1].1.clone();
        let with_uri = |uri_value: &str| good.clone().without(uri).with(uri, uri_value);
        let malformed = if who.contains("nginx") { 403 } else { 400 };
        let elsewhere = if who == "ingress-nginx" {
            "/orders"
        } else {
            "https://api.example.com/orders"
        };
        let other = if method.contains("forwarded") {
            "nginx"
        } else {
            "traefik"
        };
        for (row, question, status) in [
            ("no method", good.clone().without(method), 500),
            ("no URI", good.clone().without(uri), 500),
            ("the method twice", good.clone().with(method, "GET"), 500),
            ("the URI twice", good.clone().with(uri, &target), 500),
            (
                "in the fields of another proxy",
                Question::of(other, "GET", "/orders"),
                500,
            ),
            (
                "a malformed method",
                good.clone().without(method).with(method, "GET, GET"),
                malformed,
            ),
            (
                "an empty method",
                good.clone().without(method).with(method, ""),
                malformed,
            ),
            (
                "a malformed URI",
                with_uri(&format!("{target} /orders")),
                malformed,
            ),
            (
                "a URI that is not ASCII",
                with_uri(&format!("{target}/é")),
                malformed,
            ),
            (
                "a URI with a fragment",
                with_uri(&format!("{target}#/orders")),
                malformed,
            ),
            ("a URI of another form", with_uri(elsewhere), malformed),
            (
                "a path that servers read in different ways",
                with_uri(&target.replace("/orders", "/orders/%2e%2e/public")),
                malformed,
            ),
            (
                "another method",
                good.clone().without(method).with(method, "PUT"),
                401,
            ),
            (
                "another path",
                with_uri(&target.replace("/orders", "/admin")),
                401,
            ),
        ] {
            let request = parties.request(Method::GET, "/orders");
            let response = question.ask(&gateway, &fields(&request)).await;
            assert_eq!(response.status(), status, "{who}: {row}");
            assert_eq!(
                response.headers().contains_key("www-authenticate"),
                status == 401,
                "{who}: {row}"
            );
            // The proof was not used up.
            let response = good.ask(&gateway, &fields(&request)).await;
            assert_eq!(response.status(), 200, "{who}: {row}");
        }
    }
}

#[tokio::test]
async fn envoy_asks_below_its_prefix() {
    let parties = Parties::new();
    let gateway = start(&parties, "envoy-http");
    for (path, status) in [
        ("/orders", 500),
        ("/other/orders", 500),
        ("/dpopx/orders", 500),
        ("/dpop", 500),
        ("/dpop*", 400),
        ("/dpop/admin", 401),
        ("/dpop/dpop/orders", 401),
        ("/dpop/orders?page=2", 200),
    ] {
        let question = Question {
            path: path.to_owned(),
            ..Question::of("envoy-http", "PUT", "")
        };
        let question = question
            .with("x-forwarded-uri", "/orders")
            .with("x-original-uri", "/orders");
        let request = parties.request(Method::PUT, "/orders");
        let response = question.ask(&gateway, &fields(&request)).await;
        assert_eq!(response.status(), status, "{path}");
    }
}

/// Otherwise it would have to be read, and who asks does not send it.
#[tokio::test]
async fn the_body_of_a_question_is_not_waited_for() {
    let parties = Parties::new();
    let gateway = start(&parties, "caddy");
    let address = gateway.url("forward_auth").trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: gateway\r\nContent-Length: 1000000\r\n\
                X-Forwarded-Method: POST\r\nX-Forwarded-Uri: /public\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    connection.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
}

/// nginx accepts a `Host` with these characters, and puts it in front of the path.
#[tokio::test]
async fn the_authority_of_ingress_nginx_cannot_swallow_the_path() {
    let parties = Parties::new();
    let gateway = start(&parties, "ingress-nginx");
    for authority in [
        "api.example.com?",
        "api.example.com#",
        "api.example.com\\",
        "",
    ] {
        let question = Question::of("ingress-nginx", "GET", "/public")
            .without("x-original-url")
            .with("x-original-url", &format!("https://{authority}/admin"));
        let response = question.ask(&gateway, &HeaderMap::new()).await;
        let status = if authority.is_empty() { 401 } else { 403 };
        assert_eq!(response.status(), status, "{authority}");
    }
}

#[tokio::test]
async fn only_the_networks_of_from_may_ask_and_others_use_up_no_proof() {
    let parties = Parties::new();
    let config = asked_by("nginx").replace("127.0.0.0/8", "127.0.0.4/30");
    let gateway = Gateway::new(&parties, &format!("{config}{POLICY}")).start();
    let question = Question::of("nginx", "GET", "/orders");
    let request = fields(&parties.request(Method::GET, "/orders"));
    for (address, status) in [
        ([127, 0, 0, 1], 403),
        ([127, 0, 0, 3], 403),
        ([127, 0, 0, 8], 403),
        ([127, 0, 0, 5], 200),
        ([127, 0, 0, 6], 401),
    ] {
        let response = question.ask_from(address.into(), &gateway, &request).await;
        assert_eq!(response.status(), status, "{address:?}");
        if status == 403 {
            assert!(!response.headers().contains_key("www-authenticate"));
            assert_eq!(response.text().await.unwrap(), "");
        }
    }
}

/// At a socket for IPv6, an IPv4 peer has an address such as `::ffff:127.0.0.1`.
#[tokio::test]
async fn an_ipv4_peer_is_the_same_at_a_socket_for_ipv6() {
    let parties = Parties::new();
    let config = asked_by("nginx").replace("127.0.0.1:0", "[::ffff:127.0.0.1]:0");
    let gateway = Gateway::new(&parties, &format!("{config}{POLICY}")).start();
    let port = gateway.url("forward_auth").rsplit_once(':').unwrap().1;
    let response = reqwest::Client::new()
        .get(format!("http://127.0.0.1:{port}/"))
        .header("x-original-method", "GET")
        .header("x-original-uri", "/public")
        .send();
    assert_eq!(response.await.unwrap().status(), 200);
}

#[tokio::test]
async fn routes_apply_to_the_request_of_the_client() {
    let parties = Parties::new();
    for who in ALL {
        let gateway = start(&parties, who);
        let ask = async |method: &str, path: &str, headers: &HeaderMap| {
            Question::of(who, method, path).ask(&gateway, headers).await
        };
        let nothing = HeaderMap::new();
        let response = ask("GET", "/public/page", &nothing).await;
        assert_eq!(response.status(), 200, "{who}");
        assert!(!response.headers().contains_key("x-auth-subject"));
        assert_eq!(
            ask("GET", "/publicity", &nothing).await.status(),
            401,
            "{who}"
        );

        let mut request = parties.request(Method::POST, "/payments");
        let response = ask("POST", "/payments", &fields(&request)).await;
        seen(&response).assert_rejected(who, 403, Some("insufficient_scope"));
        request = request.again();
        request.token_claims["scope"] = "payments.write".into();
        assert_eq!(
            ask("POST", "/payments", &fields(&request)).await.status(),
            200,
            "{who}"
        );
    }
}

#[tokio::test]
async fn a_request_without_a_route_does_not_pass() {
    let parties = Parties::new();
    for who in ALL {
        let prefix = if who == "envoy-http" {
            "path_prefix = \"/dpop\"\n"
        } else {
            ""
        };
        let route = "[[route]]\npath = \"/reports\"\nmethods = [\"GET\"]\n";
        let gateway = Gateway::new(&parties, &format!("{}{prefix}{route}", asked_by(who))).start();
        for (method, path, status) in [
            ("GET", "/reports", 200),
            ("POST", "/reports", 405),
            ("GET", "/other", 404),
        ] {
            let request = parties.request(method.parse().unwrap(), path);
            let question = Question::of(who, method, path);
            let response = question.ask(&gateway, &fields(&request)).await;
            // nginx would make a 500 of it.
            let status = if who.contains("nginx") && status != 200 {
                403
            } else {
                status
            };
            assert_eq!(response.status(), status, "{who}: {method} {path}");
        }
    }
}

#[tokio::test]
async fn a_claim_that_no_field_can_express_is_an_error_of_the_server() {
    let parties = Parties::new();
    for who in ALL {
        let gateway = start(&parties, who);
        let mut request = parties.request(Method::GET, "/orders");
        request.token_claims["sub"] = "Zoë".into();
        let response = Question::of(who, "GET", "/orders")
            .ask(&gateway, &fields(&request))
            .await;
        assert_eq!(response.status(), 500, "{who}");
    }
}

#[tokio::test]
async fn envoy_is_told_which_fields_the_service_must_not_get() {
    let parties = Parties::new();
    let gateway = start(&parties, "envoy-http");
    let mut headers = fields(&parties.request(Method::GET, "/orders"));
    for name in [
        "x_auth_subject",
        "x-auth-subject",
        "x-auth_tenant",
        "x-other",
    ] {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static("admin"),
        );
    }
    let response = Question::of("envoy-http", "GET", "/orders")
        .ask(&gateway, &headers)
        .await;
    let named = response.headers()["x-envoy-auth-headers-to-remove"]
        .to_str()
        .unwrap();
    let mut named: Vec<_> = named.split(',').collect();
    named.sort_unstable();
    let expected = [
        "authorization",
        "dpop",
        "x-auth-tenant",
        "x-auth_tenant",
        "x_auth_subject",
    ];
    assert_eq!(named, expected);
}

#[tokio::test]
async fn a_nonce_is_demanded_and_renewed() {
    let parties = Parties::new();
    for who in ALL {
        let gateway = start_with(&parties, who, "nonces = \"generated\"", "");
        let question = Question::of(who, "GET", "/orders");
        let mut request = parties.request(Method::GET, "/orders");
        let response = question.ask(&gateway, &fields(&request)).await;
        let response = seen(&response);
        response.assert_rejected(who, 401, Some("use_dpop_nonce"));
        assert_eq!(response.cache_control.as_deref(), Some("no-store"), "{who}");
        request = request.again();
        request.proof_claims["nonce"] = response.nonces[0].as_str().into();
        let response = question.ask(&gateway, &fields(&request)).await;
        assert_eq!(response.status(), 200, "{who}");
    }
}

#[tokio::test]
async fn both_challenges_arrive_if_bearer_is_allowed() {
    let parties = Parties::new();
    for who in ALL {
        let gateway = start_with(&parties, who, "allow_bearer = true", "");
        let question = Question::of(who, "GET", "/orders");
        let response = question.ask(&gateway, &HeaderMap::new()).await;
        let challenges = response.headers().get_all("www-authenticate").iter();
        let challenges: Vec<_> = challenges.map(|one| one.to_str().unwrap()).collect();
        // nginx before 1.23 sends one field only.
        let fields = if who.contains("nginx") { 1 } else { 2 };
        assert_eq!(challenges.len(), fields, "{who}");
        let joined = challenges.join(", ");
        assert!(
            joined.contains("DPoP algs=") && joined.contains("Bearer"),
            "{who}: {joined}"
        );
    }
}

#[tokio::test]
async fn insecure_replays_accepts_a_proof_as_often_as_it_is_sent_and_checks_it_each_time() {
    let parties = Parties::new();
    let twice = format!(
        "{}{}",
        asked_by("caddy"),
        asked_by("caddy").replace(
            "[[forward_auth]]\n",
            "[[forward_auth]]\ninsecure_replays = true\n"
        )
    );
    let gateway = Gateway::new(&parties, &format!("{twice}{POLICY}")).start();
    let (once, often) = {
        let urls = gateway.urls("forward_auth");
        (urls[0].to_owned(), urls[1].to_owned())
    };
    let request = parties.request(Method::GET, "/orders");
    let ask = async |url: &str, path: &str, request: &TestRequest| {
        let response = reqwest::Client::new()
            .get(url)
            .headers(fields(request))
            .header("x-forwarded-method", "GET")
            .header("x-forwarded-uri", path);
        response.send().await.unwrap().status()
    };
    for _ in 0..3 {
        assert_eq!(ask(&often, "/orders", &request).await, 200);
    }
    // The proof was not used up, so the check that counts can still make use of it.
    assert_eq!(ask(&once, "/orders", &request).await, 200);
    assert_eq!(ask(&once, "/orders", &request).await, 401);
    assert_eq!(ask(&often, "/admin", &request).await, 401);
    for defect in request.defects() {
        let status = ask(&often, "/orders", &request.again().with_defect(defect)).await;
        assert!(status.is_client_error(), "{defect:?}");
    }
}

/// The service is the reverse proxy of the same process: it has the same nonces and the same replay store.
#[tokio::test]
async fn a_gate_with_insecure_replays_leaves_the_proof_and_its_nonce_to_the_service() {
    let parties = Parties::new();
    let service = Service::start().await;
    let config = format!(
        "{}insecure_replays = true\n[[listener]]\naddress = \"127.0.0.1:0\"\n[upstream.orders]\nservers = [\"{}\"]\n\
         [[route]]\npath = \"/\"\nupstream = \"orders\"\n",
        asked_by("caddy"),
        service.url
    );
    let gateway = Gateway::with_dpop(&parties, "nonces = \"generated\"", &config).start();
    let question = Question::of("caddy", "GET", "/orders");
    let mut request = parties.request(Method::GET, "/orders");
    let demand = seen(&question.ask(&gateway, &fields(&request)).await);
    demand.assert_rejected("the gate", 401, Some("use_dpop_nonce"));
    request.proof_claims["nonce"] = demand.nonces[0].as_str().into();
    let headers = fields(&request);
    let serve = async || {
        let url = format!("{}/orders", gateway.url("proxy"));
        let response = reqwest::Client::new()
            .get(url)
            .headers(headers.clone())
            .send();
        response.await.unwrap().status()
    };
    assert_eq!(question.ask(&gateway, &headers).await.status(), 200);
    assert_eq!(serve().await, 200);
    assert_eq!(question.ask(&gateway, &headers).await.status(), 200);
    assert_eq!(serve().await, 401);
    assert_eq!(service.received().len(), 1);
}

#[tokio::test]
async fn a_preflight_does_not_pass_where_the_gateway_would_respond_to_it_itself() {
    let parties = Parties::new();
    let cors = "[cors]\nallow_origins = [\"https://app.example.com\"]\nallow_methods = [\"GET\"]\n";
    for who in ALL {
        let gateway = start_with(&parties, who, "", cors);
        let mut headers = HeaderMap::new();
        headers.insert(
            "origin",
            HeaderValue::from_static("https://app.example.com"),
        );
        headers.insert(
            "access-control-request-method",
            HeaderValue::from_static("GET"),
        );
        let response = Question::of(who, "OPTIONS", "/orders")
            .ask(&gateway, &headers)
            .await;
        assert_eq!(response.status(), 403, "{who}");

        // Rejections and acceptances can be read by the page.
        headers.remove("access-control-request-method");
        let response = Question::of(who, "GET", "/orders")
            .ask(&gateway, &headers)
            .await;
        assert_eq!(response.status(), 401, "{who}");
        assert_eq!(
            response.headers()["access-control-allow-origin"],
            "https://app.example.com"
        );
    }
}
