//! The server, a client connection that sends bytes as they are, and a strict parser of challenges.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use common::verifier;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::{Layer as _, service_fn};
use tower_dpop::DpopLayer;

/// A hyper server with the layer. The test checks how the task of each connection ends.
pub(super) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    layer: DpopLayer,
    pub(super) connections: JoinSet<hyper::Result<()>>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            listener,
            layer: DpopLayer::new(verifier()),
            connections: JoinSet::new(),
        }
    }

    pub(super) async fn connect(&mut self) -> Connection {
        let (client, server) =
            tokio::join!(TcpStream::connect(self.address), self.listener.accept());
        let (stream, _) = server.unwrap();
        let service = self.layer.layer(service_fn(async |_: Request<Incoming>| {
            let body = Full::new(Bytes::from("served"));
            Ok::<_, Infallible>(Response::new(body))
        }));
        let service = TowerToHyperService::new(service);
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        self.connections.spawn(connection);
        Connection(BufReader::new(client.unwrap()))
    }
}

pub(super) struct Connection(BufReader<TcpStream>);

/// A response, as it was received.
pub(super) struct RawResponse {
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Connection {
    pub(super) async fn send(&mut self, name: &str, field_lines: &[Vec<u8>]) -> RawResponse {
        let mut request = b"GET /orders HTTP/1.1\r\nHost: api.example.com\r\n".to_vec();
        for line in field_lines {
            request.extend_from_slice(line);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        self.0.get_mut().write_all(&request).await.unwrap();

        let status_line = self.line(name).await;
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .unwrap_or_else(|| panic!("{name}: {status_line}"));
        let mut fields = Vec::new();
        loop {
            let line = self.line(name).await;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").unwrap();
            fields.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut response = RawResponse {
            status,
            fields,
            body: Vec::new(),
        };
        let length = response.field("content-length").parse().unwrap();
        response.body = vec![0; length];
        self.0.read_exact(&mut response.body).await.unwrap();
        response
    }

    async fn line(&mut self, name: &str) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        match line.strip_suffix("\r\n") {
            Some(line) => line.to_owned(),
            None => panic!("{name}: the connection ended in {line:?}"),
        }
    }

    pub(super) async fn is_closed(&mut self) -> bool {
        self.0.read(&mut [0]).await.unwrap() == 0
    }
}

impl RawResponse {
    pub(super) fn fields(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(field, _)| field == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    pub(super) fn field(&self, name: &str) -> &str {
        match self.fields(name)[..] {
            [value] => value,
            _ => panic!("expected one {name} field: {:?}", self.fields),
        }
    }

    /// The body and all header fields except `Date`.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut text = self.body.clone();
        for (name, value) in &self.fields {
            if name != "date" {
                text.extend_from_slice(format!("\n{name}: {value}").as_bytes());
            }
        }
        text
    }
}

/// The parameters of a challenge of exactly this form: `DPoP`, one space, and parameters of the form
/// `name="value"` with one comma and one space between them.
pub(super) fn parse_challenge(challenge: &str) -> Result<Vec<(&str, &str)>, &'static str> {
    let mut rest = challenge.strip_prefix("DPoP ").ok_or("not DPoP")?;
    let mut parameters: Vec<(&str, &str)> = Vec::new();
    loop {
        let (name, after) = rest.split_once("=\"").ok_or("no opening quote")?;
        let (value, after) = after.split_once('"').ok_or("no closing quote")?;
        if name.is_empty()
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            return Err("not a parameter name");
        }
        // RFC 6750 section 3: %x20-21 / %x23-5B / %x5D-7E.
        if !value
            .bytes()
            .all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E))
        {
            return Err("a byte that is not allowed");
        }
        if parameters.iter().any(|(other, _)| *other == name) {
            return Err("a parameter twice");
        }
        parameters.push((name, value));
        if after.is_empty() {
            return Ok(parameters);
        }
        rest = after.strip_prefix(", ").ok_or("no separator")?;
    }
}

#[test]
fn the_challenge_parser_is_strict() {
    for (name, challenge) in [
        ("another scheme", r#"Bearer error="a""#),
        ("no parameters", "DPoP"),
        ("no quotes", "DPoP error=a"),
        ("an open quote", r#"DPoP error="a"#),
        ("a backslash", r#"DPoP error="a\b""#),
        ("not ASCII", "DPoP error=\"é\""),
        ("twice", r#"DPoP error="a", error="b""#),
        ("no space", r#"DPoP error="a",algs="b""#),
        ("a trailing comma", r#"DPoP error="a", "#),
        (
            "a second challenge",
            r#"DPoP error="a", Bearer error_x="b""#,
        ),
    ] {
        assert!(parse_challenge(challenge).is_err(), "{name}");
    }
    assert_eq!(
        parse_challenge(r#"DPoP error="a b", algs="ES256""#),
        Ok(vec![("error", "a b"), ("algs", "ES256")])
    );
}
