//! HTTP/1.0 and HTTP/1.1: the forms of the request target, `Host`, field names and `Expect: 100-continue`.

use std::net::SocketAddr;

use common::{Attempt, AttemptExt as _, block_on};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tower_dpop::proof::{TargetError, UrlMismatch};
use tower_dpop::resource::CredentialsError;

use super::cases::cases;
use super::{
    ORDERS, assert_head, assert_response, attempt_at, connect, http1_client, serve, url_error,
    with_body,
};

#[test]
fn the_host_field_does_not_change_the_decision_over_http1() {
    block_on(async {
        let address = serve().await;
        // One connection for all requests: it stays usable after a rejection.
        let mut client = http1_client(address).await;
        let hosts = ["api.example.com", "orders.internal:8080", "evil.example"];
        for (number, (name, attempt, expected)) in cases().into_iter().enumerate() {
            let mut request = with_body(attempt.request());
            // H-18: `Host` is not used, and not compared with the public URL.
            let host = HeaderValue::from_static(hosts[number % hosts.len()]);
            request.headers_mut().insert("host", host);
            client
                .ready()
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let response = client.send_request(request).await.unwrap();
            assert_response(name, &response, expected);
            response.into_body().collect().await.unwrap();
        }
    });
}

#[test]
fn rejects_a_proof_for_the_url_in_the_host_field() {
    block_on(async {
        let mut client = http1_client(serve().await).await;
        for (name, host, htu, expected) in [
            (
                "H-18: the Host of another server",
                Some("evil.example"),
                "https://evil.example/orders",
                url_error(UrlMismatch::Host),
            ),
            (
                "H-18: the Host with another port",
                Some("api.example.com:8443"),
                "https://api.example.com:8443/orders",
                url_error(UrlMismatch::Port),
            ),
            (
                "R-2.1: the scheme of the connection",
                Some("api.example.com"),
                "http://api.example.com/orders",
                url_error(UrlMismatch::Scheme),
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
            assert_response(name, &response, expected);
            response.into_body().collect().await.unwrap();
        }
    });
}

/// A TCP connection, for requests that no client library would send.
struct RawConnection(BufReader<TcpStream>);

impl RawConnection {
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

    /// Sends a request without a body, and reads the head of the response.
    async fn send(&mut self, request: &str) -> (StatusCode, HeaderMap) {
        self.write(request).await;
        let (status, headers) = self.head().await;
        let is_empty = headers
            .get("content-length")
            .is_none_or(|length| length == "0");
        assert!(
            is_empty,
            "the response to a request without a body has none"
        );
        (status, headers)
    }

    async fn until_closed(mut self) -> bool {
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
fn the_request_target_takes_precedence_over_host_in_every_form() {
    block_on(async {
        let mut connection = RawConnection::to(serve().await).await;
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
                url_error(UrlMismatch::Path),
            ),
            (
                "H-20: absolute form of another server, a proof for this server",
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
                "R-2.1: absolute form with http",
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
                "H-21: OPTIONS * with a proof for /",
                "OPTIONS * HTTP/1.1",
                "https://api.example.com/",
                url_error(UrlMismatch::Path),
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
                url_error(UrlMismatch::Malformed),
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
            // H-20: the target takes precedence over `Host`, which differs.
            let request = format!("{line}\r\nHost: orders.internal\r\n{fields}\r\n");
            let (status, headers) = connection.send(&request).await;
            assert_head(name, status, &headers, expected);
        }
    });
}

#[test]
fn field_names_are_case_insensitive_and_http_1_0_is_accepted() {
    block_on(async {
        let address = serve().await;
        let mut connection = RawConnection::to(address).await;
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
            let (status, headers) = connection.send(&request).await;
            assert_head(name, status, &headers, Ok(()));
        }

        let mut http_1_0 = RawConnection::to(address).await;
        let fields = credentials(&Attempt::good());
        let (status, headers) = http_1_0
            .send(&format!("GET /orders HTTP/1.0\r\n{fields}\r\n"))
            .await;
        assert_head("R-7.1: HTTP/1.0", status, &headers, Ok(()));
        assert!(http_1_0.until_closed().await);
    });
}

#[test]
fn a_rejected_request_gets_no_100_continue() {
    block_on(async {
        let address = serve().await;
        let line =
            "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n";
        let mut rejected = RawConnection::to(address).await;
        rejected.write(format!("{line}\r\n")).await;
        let (status, headers) = rejected.head().await;
        let expected = Err(CredentialsError::Missing.into());
        assert_head("R-7.1.4: no token", status, &headers, expected);

        let mut accepted = RawConnection::to(address).await;
        let fields = credentials(&attempt_at("POST", "/orders", ORDERS));
        accepted.write(format!("{line}{fields}\r\n")).await;
        let (status, _) = accepted.head().await;
        assert_eq!(status, StatusCode::CONTINUE);
        accepted.write("body").await;
        let (status, headers) = accepted.head().await;
        assert_head(
            "R-7.1.3: the body after 100 Continue",
            status,
            &headers,
            Ok(()),
        );
    });
}
