//! HTTP/1.0 and HTTP/1.1: the forms of the request target, `Host`, field names and `Expect: 100-continue`.

use std::net::SocketAddr;

use common::{Attempt, AttemptExt as _, block_on};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tower_dpop::proof::{TargetError, UrlMismatch};
use tower_dpop::resource::CredentialsError;

use super::cases::common_cases;
use super::{
    ORDERS, assert_outcome, assert_outcome_in, attempt_at, connect, http1_client, serve, url,
    with_body,
};

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
