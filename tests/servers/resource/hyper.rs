//! The layer in hyper servers on the loopback, asked by hyper clients and over bare sockets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use common::{Attempt, AttemptExt as _, block_on, field, verifier};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower::{ServiceBuilder, service_fn};
use tower_dpop::proof::{ProofError, TargetError, UrlMismatch};
use tower_dpop::resource::CredentialsError;
use tower_dpop::{BoundToken, Claims, DpopLayer, Rejection};

type Reply = BoxBody<Bytes, hyper::Error>;

/// Says for whom it worked, and sends the body back as it comes, or as a whole to a client that
/// asked whether to send it. Upgrades connections, too.
async fn application(mut request: Request<Incoming>) -> Result<Response<Reply>, Infallible> {
    let token: &BoundToken<Claims> = request.extensions().get().expect("set by the layer");
    let mut response = Response::builder()
        .header("x-subject", token.claims().subject())
        .header("x-target", request.uri().to_string());
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        });
        response = response
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "echo");
        return Ok(response.body(Reply::default()).unwrap());
    }
    if let Some(trailer) = request.headers().get("trailer") {
        response = response.header("trailer", trailer);
    }
    let body = if request.headers().contains_key("expect") {
        let all = request.into_body().collect().await.unwrap().to_bytes();
        Full::new(all).map_err(|never| match never {}).boxed()
    } else {
        request.into_body().boxed()
    };
    Ok(response.body(body).unwrap())
}

/// A server for both versions of HTTP; its port. The outermost layer tells the tests why a request
/// was rejected.
async fn serve() -> SocketAddr {
    let service = ServiceBuilder::new()
        .map_response(|mut response: Response<Reply>| {
            if let Some(rejection) = response.extensions().get::<Rejection>() {
                let reason = format!("{rejection:?}").parse().unwrap();
                response.headers_mut().insert("x-rejection", reason);
            }
            response
        })
        .layer(DpopLayer::new(verifier()))
        .service(service_fn(application));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http2().enable_connect_protocol();
                // A client that goes away is no fault of the server's.
                let _ = server
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

async fn http1_client<B>(address: SocketAddr) -> http1::SendRequest<B>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let stream = TokioIo::new(connect(address).await);
    let (sender, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

async fn http2_client<B>(address: SocketAddr) -> http2::SendRequest<B>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
{
    let stream = TokioIo::new(connect(address).await);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

/// A good attempt for this method and path.
fn attempt_at(method: &str, uri: &str, htu: &str) -> Attempt {
    Attempt::but(|a| {
        a.method = method.parse().unwrap();
        a.uri = uri.into();
        a.proof_claims["htm"] = json!(method);
        a.proof_claims["htu"] = json!(htu);
    })
}

type Outcome = Result<(), Rejection>;

fn url(mismatch: UrlMismatch) -> Outcome {
    Err(ProofError::Url(mismatch).into())
}

/// Passed to the application, or rejected by the layer for exactly this reason.
#[track_caller]
fn assert_outcome<B>(name: &str, response: &Response<B>, expected: Outcome) {
    assert_outcome_in(name, response.status(), response.headers(), expected);
}

#[track_caller]
fn assert_outcome_in(name: &str, status: StatusCode, headers: &HeaderMap, expected: Outcome) {
    let text = |field: &str| headers.get(field).map(|value| value.to_str().unwrap());
    match expected {
        Ok(()) => {
            assert_eq!(text("x-rejection"), None, "{name}");
            assert_eq!(status, StatusCode::OK, "{name}");
            assert_eq!(text("x-subject"), Some("alice"), "{name}");
        }
        Err(reason) => {
            let expected = format!("{reason:?}");
            assert_eq!(text("x-rejection"), Some(expected.as_str()), "{name}");
            assert_eq!(status, reason.status(), "{name}");
            assert_eq!(text("x-subject"), None, "{name}: reached the application");
            let challenges: Vec<_> = headers.get_all("www-authenticate").iter().collect();
            let [challenge] = challenges.as_slice() else {
                panic!("{name}: {challenges:?}");
            };
            let challenge = challenge.to_str().unwrap();
            assert!(challenge.starts_with("DPoP "), "{name}: {challenge}");
            if let Some(code) = reason.error_code() {
                let error = format!(r#"error="{code}""#);
                assert!(challenge.contains(&error), "{name}: {challenge}");
            }
        }
    }
}

const ORDERS: &str = "https://api.example.com/orders";

type Case = (&'static str, Attempt, Outcome);

/// What both versions of HTTP have in common.
fn common_cases() -> Vec<Case> {
    let mut cases = cases_of_credentials_and_targets();
    cases.extend(cases_of_methods());
    cases.extend(cases_of_forwarding_fields());
    cases
}

fn cases_of_credentials_and_targets() -> Vec<Case> {
    vec![
        ("R-7.1: GET", Attempt::good(), Ok(())),
        (
            "H-11: the query is not the proof's business",
            attempt_at("GET", "/orders?page=2", ORDERS),
            Ok(()),
        ),
        (
            "H-5: normalised on both sides",
            attempt_at(
                "GET",
                "/%6Frders/./",
                "https://API.example.com:443/x/../orders/",
            ),
            Ok(()),
        ),
        (
            "H-9: the trailing slash",
            attempt_at("GET", "/orders/", ORDERS),
            url(UrlMismatch::Path),
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

fn cases_of_methods() -> Vec<Case> {
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
            "T-1: a method in lower case is another method",
            attempt_at("get", "/orders", ORDERS),
            Ok(()),
        ),
        (
            "T-1: a proof in lower case",
            Attempt::but(|a| a.proof_claims["htm"] = json!("get")),
            Err(ProofError::Method.into()),
        ),
        (
            "T-1: a request in lower case",
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
        cases.push(("T-3: the real method", overridden("POST"), Ok(())));
        cases.push((
            "T-3: the method of an override field",
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
            "R-4.3.8: any other method",
            Attempt::but(|a| a.method = method.parse().unwrap()),
            Err(ProofError::Method.into()),
        ));
    }
    cases
}

fn cases_of_forwarding_fields() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, host) in [
        ("H-18: X-Forwarded-Host", "x-forwarded-host"),
        ("H-18: X-Original-Host", "x-original-host"),
        ("H-18: X-Host", "x-host"),
    ] {
        for (htu, expected) in [
            (ORDERS, Ok(())),
            ("https://evil.example/orders", url(UrlMismatch::Host)),
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
        cases.push((name, attempt, url(UrlMismatch::Path)));
    }
    cases
}

fn with_body(request: Request<()>) -> Request<Full<Bytes>> {
    let text = match *request.method() {
        Method::POST | Method::PUT | Method::PATCH => "a small body",
        _ => "",
    };
    request.map(|()| Full::new(Bytes::from(text)))
}

#[test]
fn over_http1_in_origin_form() {
    block_on(async {
        let address = serve().await;
        // One connection for all: a rejection leaves it usable.
        let mut client = http1_client(address).await;
        let hosts = ["api.example.com", "orders.internal:8080", "evil.example"];
        for (number, (name, attempt, expected)) in common_cases().into_iter().enumerate() {
            let mut request = with_body(attempt.request());
            // H-18: no Host is believed, and none is compared.
            let host = HeaderValue::from_static(hosts[number % hosts.len()]);
            request.headers_mut().insert("host", host);
            client
                .ready()
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let response = client.send_request(request).await.unwrap();
            assert_outcome(name, &response, expected);
            response.into_body().collect().await.unwrap();
        }
    });
}

#[test]
fn over_http1_a_proof_for_the_host_field_is_rejected() {
    block_on(async {
        let mut client = http1_client(serve().await).await;
        for (name, host, htu, expected) in [
            (
                "H-18: the Host of another server",
                Some("evil.example"),
                "https://evil.example/orders",
                url(UrlMismatch::Host),
            ),
            (
                "H-18: the Host of our own port",
                Some("api.example.com:8443"),
                "https://api.example.com:8443/orders",
                url(UrlMismatch::Port),
            ),
            (
                "R-2.1: the scheme of the connection",
                Some("api.example.com"),
                "http://api.example.com/orders",
                url(UrlMismatch::Scheme),
            ),
            ("H-18: no Host", None, ORDERS, Ok(())),
        ] {
            let attempt = attempt_at("GET", "/orders", htu);
            let mut request = with_body(attempt.request());
            if let Some(host) = host {
                request
                    .headers_mut()
                    .insert("host", HeaderValue::from_static(host));
            }
            client.ready().await.unwrap();
            let response = client.send_request(request).await.unwrap();
            assert_outcome(name, &response, expected);
            response.into_body().collect().await.unwrap();
        }
    });
}

#[test]
fn over_http2_the_authority_is_not_believed() {
    block_on(async {
        let address = serve().await;
        let mut client = http2_client(address).await;
        let origins = [
            "https://api.example.com".to_owned(),
            format!("http://{address}"),
            "http://orders.internal:8080".to_owned(),
            "https://evil.example".to_owned(),
        ];
        for (number, (name, attempt, expected)) in common_cases().into_iter().enumerate() {
            // H-18: whatever a gateway writes into `:scheme` and `:authority`.
            let origin = &origins[number % origins.len()];
            let mut request = with_body(attempt.request());
            let target = format!("{origin}{}", request.uri()).parse().unwrap();
            *request.uri_mut() = target;
            let response = client.send_request(request).await.unwrap();
            assert_outcome(name, &response, expected);
            response.into_body().collect().await.unwrap();
        }
        for (name, authority, htu, mismatch) in [
            (
                "H-18: the :authority of another server",
                "https://evil.example",
                "https://evil.example/orders",
                UrlMismatch::Host,
            ),
            (
                "H-18: the :authority of another port",
                "https://api.example.com:8443",
                "https://api.example.com:8443/orders",
                UrlMismatch::Port,
            ),
            (
                "R-2.1: the :scheme of the connection",
                "http://api.example.com",
                "http://api.example.com/orders",
                UrlMismatch::Scheme,
            ),
        ] {
            let attempt = attempt_at("GET", &format!("{authority}/orders"), htu);
            let request = with_body(attempt.request());
            let response = client.send_request(request).await.unwrap();
            assert_outcome(name, &response, url(mismatch));
        }
    });
}

#[test]
fn over_http2_options_of_the_server_and_connect() {
    block_on(async {
        let mut client = http2_client(serve().await).await;
        let asterisk = || {
            Uri::builder()
                .scheme("https")
                .authority("orders.internal")
                .path_and_query("*")
                .build()
                .unwrap()
        };
        for (name, method, uri, htu, protocol, expected) in [
            (
                "H-21: OPTIONS *",
                "OPTIONS",
                asterisk(),
                "https://api.example.com",
                None,
                Ok(()),
            ),
            (
                "H-21: OPTIONS * is not OPTIONS /",
                "OPTIONS",
                asterisk(),
                "https://api.example.com/",
                None,
                url(UrlMismatch::Path),
            ),
            (
                "H-22: CONNECT",
                "CONNECT",
                Uri::from_static("api.example.com:443"),
                "https://api.example.com:443",
                None,
                Err(TargetError::Connect.into()),
            ),
            (
                "H-22: extended CONNECT",
                "CONNECT",
                Uri::from_static("https://orders.internal/orders"),
                ORDERS,
                Some("websocket"),
                Ok(()),
            ),
            (
                "H-22: extended CONNECT to another path",
                "CONNECT",
                Uri::from_static("https://orders.internal/admin"),
                ORDERS,
                Some("websocket"),
                url(UrlMismatch::Path),
            ),
        ] {
            let attempt = attempt_at(method, "/", htu);
            let mut request = with_body(attempt.request());
            *request.uri_mut() = uri;
            if let Some(protocol) = protocol {
                let protocol = hyper::ext::Protocol::from_static(protocol);
                request.extensions_mut().insert(protocol);
            }
            let response = client.send_request(request).await.unwrap();
            assert_outcome(name, &response, expected);
        }
        let mut attempt = attempt_at("CONNECT", "/", ORDERS);
        attempt.proof_claims["htm"] = json!("GET");
        let mut request = with_body(attempt.request());
        *request.uri_mut() = Uri::from_static("https://orders.internal/orders");
        let protocol = hyper::ext::Protocol::from_static("websocket");
        request.extensions_mut().insert(protocol);
        let response = client.send_request(request).await.unwrap();
        assert_outcome(
            "H-22: a GET proof for extended CONNECT",
            &response,
            Err(ProofError::Method.into()),
        );
    });
}

/// A bare connection, for requests that no client library would write.
struct Bare(BufReader<TcpStream>);

impl Bare {
    async fn to(address: SocketAddr) -> Self {
        Self(BufReader::new(connect(address).await))
    }

    async fn write(&mut self, text: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(text.as_ref()).await.unwrap();
    }

    /// The status and header fields of the next response.
    async fn head(&mut self) -> (StatusCode, HeaderMap) {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HeaderMap::new();
        loop {
            line.clear();
            self.0.read_line(&mut line).await.unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                assert_eq!(line, "\r\n");
                return (status, headers);
            };
            let name: http::HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
    }

    /// Sends a request without a body and gets the head of its response.
    async fn ask(&mut self, request: &str) -> (StatusCode, HeaderMap) {
        self.write(request).await;
        let (status, headers) = self.head().await;
        let is_empty = headers
            .get("content-length")
            .is_none_or(|length| length == "0");
        assert!(is_empty, "the application sends back no body for none");
        (status, headers)
    }

    async fn at_end(mut self) -> bool {
        self.0.read(&mut [0]).await.unwrap() == 0
    }
}

/// The credentials of an attempt as field lines.
fn credentials(attempt: &Attempt) -> String {
    let token = attempt.token();
    let proof = attempt.proof(&token);
    format!("Authorization: DPoP {token}\r\nDPoP: {proof}\r\n")
}

#[test]
fn over_a_bare_socket_in_every_form_of_target() {
    block_on(async {
        let mut socket = Bare::to(serve().await).await;
        for (name, line, htu, expected) in [
            ("H-18: origin form", "GET /orders HTTP/1.1", ORDERS, Ok(())),
            (
                "H-20: absolute form",
                "GET https://api.example.com/orders HTTP/1.1",
                ORDERS,
                Ok(()),
            ),
            (
                "H-20: absolute form, not normalised",
                "GET HTTPS://API.Example.com:443/%6frders?x HTTP/1.1",
                ORDERS,
                Ok(()),
            ),
            (
                "H-20: absolute form without a path",
                "GET https://api.example.com HTTP/1.1",
                "https://api.example.com/",
                Ok(()),
            ),
            (
                "H-20: absolute form, a proof for another path",
                "GET https://api.example.com/admin HTTP/1.1",
                ORDERS,
                url(UrlMismatch::Path),
            ),
            (
                "H-20: absolute form of another server, a proof for us",
                "GET https://evil.example/orders HTTP/1.1",
                ORDERS,
                Err(TargetError::Misdirected.into()),
            ),
            (
                "H-20: absolute form of another server, a proof for it",
                "GET https://evil.example/orders HTTP/1.1",
                "https://evil.example/orders",
                Err(TargetError::Misdirected.into()),
            ),
            (
                "H-20: absolute form of another port",
                "GET https://api.example.com:8443/orders HTTP/1.1",
                ORDERS,
                Err(TargetError::Misdirected.into()),
            ),
            (
                "R-2.1: absolute form in the clear",
                "GET http://api.example.com/orders HTTP/1.1",
                ORDERS,
                Err(TargetError::Misdirected.into()),
            ),
            (
                "H-21: OPTIONS *",
                "OPTIONS * HTTP/1.1",
                "https://api.example.com",
                Ok(()),
            ),
            (
                "H-21: OPTIONS * is not OPTIONS /",
                "OPTIONS * HTTP/1.1",
                "https://api.example.com/",
                url(UrlMismatch::Path),
            ),
            (
                "H-4: OPTIONS / and an empty path",
                "OPTIONS / HTTP/1.1",
                "https://api.example.com",
                Ok(()),
            ),
            (
                "H-16: a WebSocket is opened by an HTTP request",
                "GET /orders HTTP/1.1",
                "wss://api.example.com/orders",
                url(UrlMismatch::Malformed),
            ),
            (
                "H-22: CONNECT",
                "CONNECT api.example.com:443 HTTP/1.1",
                "https://api.example.com:443",
                Err(TargetError::Connect.into()),
            ),
        ] {
            let method = line.split(' ').next().unwrap();
            let fields = credentials(&attempt_at(method, "/", htu));
            // H-20: the target takes precedence over Host, which says something else.
            let request = format!("{line}\r\nHost: orders.internal\r\n{fields}\r\n");
            let (status, headers) = socket.ask(&request).await;
            assert_outcome_in(name, status, &headers, expected);
        }
    });
}

#[test]
fn over_a_bare_socket_field_names_and_versions() {
    block_on(async {
        let address = serve().await;
        let mut socket = Bare::to(address).await;
        for (name, authorization, dpop) in [
            ("R-4.1.1: as the RFC writes them", "Authorization", "DPoP"),
            ("R-4.1.1: upper case", "AUTHORIZATION", "DPOP"),
            ("R-4.1.1: lower case", "authorization", "dpop"),
            ("R-4.1.1: title case", "Authorization", "Dpop"),
        ] {
            let attempt = Attempt::good();
            let token = attempt.token();
            let proof = attempt.proof(&token);
            let fields = format!("{authorization}: DPoP {token}\r\n{dpop}: {proof}\r\n");
            let request = format!("GET /orders HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
            let (status, headers) = socket.ask(&request).await;
            assert_outcome_in(name, status, &headers, Ok(()));
        }

        let mut old = Bare::to(address).await;
        let fields = credentials(&Attempt::good());
        let (status, headers) = old
            .ask(&format!("GET /orders HTTP/1.0\r\n{fields}\r\n"))
            .await;
        assert_outcome_in("R-7.1: HTTP/1.0", status, &headers, Ok(()));
        assert!(old.at_end().await);
    });
}

#[test]
fn a_rejected_request_is_not_told_to_go_on() {
    block_on(async {
        let address = serve().await;
        let line =
            "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n";
        let mut rejected = Bare::to(address).await;
        rejected.write(format!("{line}\r\n")).await;
        let (status, headers) = rejected.head().await;
        let expected = Err(CredentialsError::Missing.into());
        assert_outcome_in("R-7.1.4: no token", status, &headers, expected);

        let mut passed = Bare::to(address).await;
        let fields = credentials(&attempt_at("POST", "/orders", ORDERS));
        passed.write(format!("{line}{fields}\r\n")).await;
        let (status, _) = passed.head().await;
        assert_eq!(status, StatusCode::CONTINUE);
        passed.write("body").await;
        let (status, headers) = passed.head().await;
        assert_outcome_in("R-7.1.3: told to go on", status, &headers, Ok(()));
    });
}

/// A body that grows while it is sent.
struct Growing(mpsc::UnboundedReceiver<Frame<Bytes>>);

impl Growing {
    fn new() -> (mpsc::UnboundedSender<Frame<Bytes>>, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Self(receiver))
    }
}

impl Body for Growing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

enum Client {
    Http1(http1::SendRequest<Growing>),
    Http2(http2::SendRequest<Growing>),
}

impl Client {
    async fn both(address: SocketAddr) -> [(&'static str, Self); 2] {
        [
            ("HTTP/1.1", Self::Http1(http1_client(address).await)),
            ("HTTP/2", Self::Http2(http2_client(address).await)),
        ]
    }

    async fn send(&mut self, attempt: &Attempt, body: Growing) -> Response<Incoming> {
        let mut request = attempt.request().map(|()| body);
        match self {
            Self::Http1(client) => client.send_request(request).await.unwrap(),
            Self::Http2(client) => {
                let target = format!("http://orders.internal{}", attempt.uri);
                *request.uri_mut() = target.parse().unwrap();
                client.send_request(request).await.unwrap()
            }
        }
    }
}

#[test]
fn a_streamed_body_passes_through_as_it_comes() {
    block_on(async {
        for (name, mut client) in Client::both(serve().await).await {
            let (sender, body) = Growing::new();
            let attempt = attempt_at("POST", "/orders", ORDERS);
            let mut response = client.send(&attempt, body).await;
            assert_outcome(name, &response, Ok(()));
            for part in ["one", "two"] {
                sender.send(Frame::data(Bytes::from(part))).unwrap();
                let frame = response.frame().await.unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), part, "{name}");
            }
            drop(sender);
            let rest = response.into_body().collect().await.unwrap();
            assert!(rest.to_bytes().is_empty(), "{name}");
        }
    });
}

#[test]
fn a_rejection_does_not_wait_for_the_body() {
    block_on(async {
        for (name, mut client) in Client::both(serve().await).await {
            let (sender, body) = Growing::new();
            sender.send(Frame::data(Bytes::from("one"))).unwrap();
            let mut attempt = attempt_at("POST", "/orders", ORDERS);
            attempt.proof_claims["htm"] = json!("PUT");
            let response = client.send(&attempt, body).await;
            assert_outcome(name, &response, Err(ProofError::Method.into()));
            drop(sender);
        }
    });
}

#[test]
fn credentials_in_trailers_do_not_count() {
    block_on(async {
        let address = serve().await;
        let trailers = |attempt: &Attempt| {
            let mut trailers = HeaderMap::new();
            let proof = attempt.proof(&attempt.token());
            trailers.insert("dpop", proof.parse().unwrap());
            trailers
        };
        let announce = |attempt: &mut Attempt| {
            attempt.extra_headers = vec![
                ("trailer", HeaderValue::from_static("dpop")),
                ("te", HeaderValue::from_static("trailers")),
            ];
        };
        for (version, mut client) in Client::both(address).await {
            let mut attempt = attempt_at("POST", "/orders", ORDERS);
            announce(&mut attempt);
            let (sender, body) = Growing::new();
            sender.send(Frame::data(Bytes::from("one"))).unwrap();
            sender.send(Frame::trailers(trailers(&attempt))).unwrap();
            drop(sender);
            let response = client.send(&attempt, body).await;
            let name = format!("F-20: a second proof in the trailers, {version}");
            assert_outcome(&name, &response, Ok(()));
            let collected = response.into_body().collect().await.unwrap();
            let echoed = collected.trailers().expect("the trailers went through");
            assert!(echoed.contains_key("dpop"), "{name}");
        }
        for (version, mut client) in Client::both(address).await {
            let mut attempt = attempt_at("POST", "/orders", ORDERS);
            attempt.token = Some(attempt.token());
            let proof = trailers(&attempt);
            announce(&mut attempt);
            attempt.dpop = Some(vec![]);
            let (sender, body) = Growing::new();
            sender.send(Frame::data(Bytes::from("one"))).unwrap();
            sender.send(Frame::trailers(proof)).unwrap();
            drop(sender);
            let response = client.send(&attempt, body).await;
            let name = format!("F-20: the only proof in the trailers, {version}");
            assert_outcome(&name, &response, Err(ProofError::Missing.into()));
        }
    });
}

#[test]
fn a_connection_upgrades_through_the_layer() {
    block_on(async {
        let address = serve().await;
        let upgrading = |attempt: &Attempt| {
            let mut request = with_body(attempt.request());
            let headers = request.headers_mut();
            headers.insert("connection", HeaderValue::from_static("upgrade"));
            headers.insert("upgrade", HeaderValue::from_static("echo"));
            request
        };
        let mut client = http1_client(address).await;
        // H-16: the proof of a WebSocket handshake names an https URL and the method GET.
        let response = client
            .send_request(upgrading(&Attempt::good()))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        stream.write_all(b"echo").await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"echo");

        let mut client = http1_client(address).await;
        let mut attempt = Attempt::good();
        attempt.proof_claims["htu"] = json!("https://api.example.com/chat");
        let response = client.send_request(upgrading(&attempt)).await.unwrap();
        assert_outcome("R-4.3.9: no upgrade", &response, url(UrlMismatch::Path));
    });
}

#[test]
fn a_proof_passes_once_over_all_connections() {
    block_on(async {
        let address = serve().await;
        let request = with_body(Attempt::good().request());
        let mut over_http2 = request.clone();
        *over_http2.uri_mut() = Uri::from_static("http://orders.internal/orders");

        // R-11.1.3, T-17: at once, over one connection.
        let client = http2_client(address).await;
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let mut client = client.clone();
            let request = over_http2.clone();
            running.spawn(async move { client.send_request(request).await.unwrap() });
        }
        let responses = running.join_all().await;
        let (passed, rejected): (Vec<_>, Vec<_>) = responses
            .into_iter()
            .partition(|response| response.status() == StatusCode::OK);
        assert_eq!((passed.len(), rejected.len()), (1, 7));
        for response in &rejected {
            let expected = Err(ProofError::Replayed.into());
            assert_outcome("R-11.1.3: over one connection", response, expected);
        }

        let mut client = http1_client(address).await;
        let response = client.send_request(request).await.unwrap();
        let expected = Err(ProofError::Replayed.into());
        assert_outcome("R-11.1.3: over another connection", &response, expected);
    });
}
