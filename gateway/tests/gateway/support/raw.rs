//! Bytes on sockets, without a library that would mend or hide them: a client, and a service that records what arrives.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};

use super::{FramedRequest, Parties, Started};

/// How long a condition may take on a slow machine. No test passes because of it.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A request as it arrived, byte for byte. One that was cut off has no [`Received::body`].
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub line: String,
    /// Name and value, as they were written.
    pub fields: Vec<(String, String)>,
    /// Without the framing of chunks.
    pub body: Option<Vec<u8>>,
    pub trailers: Vec<String>,
}

impl Received {
    /// The values of a field in all the spellings that CGI, WSGI, PHP and others take for one.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let folded = |name: &str| {
            name.to_ascii_lowercase()
                .replace(|c: char| !c.is_ascii_alphanumeric(), "_")
        };
        let same = |(field, _): &&(String, String)| folded(field) == folded(name);
        self.fields
            .iter()
            .filter(same)
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

type Log = Mutex<Vec<Received>>;

/// A service that speaks HTTP/1.1 and keeps what it was sent. Its responses are 200 and `done`, and below `/switches` 101,
/// whether the client has asked for it or not.
pub struct RawService {
    pub url: String,
    log: Arc<Log>,
}

impl RawService {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Log::default());
        let shared = Arc::clone(&log);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let log = Arc::clone(&shared);
                tokio::spawn(async move { record(stream, &log).await });
            }
        });
        Self { url, log }
    }

    /// The requests so far, of which the last may have been cut off.
    pub fn received(&self) -> Vec<Received> {
        self.log.lock().unwrap().clone()
    }
}

async fn record(stream: TcpStream, log: &Log) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let Some(request_line) = line(&mut reader).await else {
            return;
        };
        let mut request = Received {
            line: request_line,
            ..Received::default()
        };
        loop {
            match line(&mut reader).await {
                None => return log.lock().unwrap().push(request),
                Some(line) if line.is_empty() => break,
                Some(line) => {
                    let (name, value) = line.split_once(':').unwrap_or((&line, ""));
                    let field = (name.to_owned(), value.trim().to_owned());
                    request.fields.push(field);
                }
            }
        }
        let response = if request.line.contains(" /switches") {
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        } else {
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"
        };
        let complete = body(&mut reader, &mut request).await.is_some();
        log.lock().unwrap().push(request);
        if !complete {
            return;
        }
        if writer.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// `None`: the connection ended before.
async fn body(reader: &mut BufReader<OwnedReadHalf>, request: &mut Received) -> Option<()> {
    let mut body = Vec::new();
    if request.values("transfer-encoding").is_empty() {
        let length = request
            .values("content-length")
            .first()
            .map_or(0, |length| length.parse().unwrap());
        body.resize(length, 0);
        reader.read_exact(&mut body).await.ok()?;
    } else {
        loop {
            let size = line(reader).await?;
            let size = usize::from_str_radix(&size, 16).unwrap();
            if size == 0 {
                break;
            }
            let mut chunk = vec![0; size];
            reader.read_exact(&mut chunk).await.ok()?;
            body.extend(chunk);
            assert_eq!(line(reader).await?, "");
        }
        loop {
            match line(reader).await? {
                line if line.is_empty() => break,
                line => request.trailers.push(line),
            }
        }
    }
    request.body = Some(body);
    Some(())
}

async fn line(reader: &mut BufReader<OwnedReadHalf>) -> Option<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).await.ok()?;
    let line = line.strip_suffix(b"\r\n")?;
    Some(String::from_utf8_lossy(line).into_owned())
}

/// A request as it is written to the socket.
#[derive(Clone)]
pub struct RawRequest {
    pub line: String,
    /// Each a whole line, without its end.
    pub fields: Vec<String>,
    pub body: Vec<u8>,
}

impl RawRequest {
    /// One that passes, on a connection that ends with it.
    pub fn new(parties: &Parties, method: &str, path: &str) -> Self {
        let method: Method = method.parse().unwrap();
        let line = format!("{method} {path} HTTP/1.1");
        let (head, ()) = parties.request(method, path).build::<()>().into_parts();
        let text = |name: &str| head.headers[name].to_str().unwrap();
        Self {
            line,
            fields: vec![
                "Host: api.example.com".to_owned(),
                format!("Authorization: {}", text("authorization")),
                format!("DPoP: {}", text("dpop")),
                "Connection: close".to_owned(),
            ],
            body: Vec::new(),
        }
    }

    pub fn with(mut self, field: &str) -> Self {
        self.fields.push(field.to_owned());
        self
    }

    /// Without the field that has this name, in this spelling.
    pub fn without(mut self, name: &str) -> Self {
        let start = format!("{name}:");
        let before = self.fields.len();
        self.fields.retain(|field| !field.starts_with(&start));
        assert!(self.fields.len() < before, "no field {name}");
        self
    }

    pub fn with_line(mut self, line: &str) -> Self {
        line.clone_into(&mut self.line);
        self
    }

    pub fn with_body(mut self, body: &[u8]) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let head = format!("{}\r\n{}\r\n\r\n", self.line, self.fields.join("\r\n"));
        [head.as_bytes(), &self.body].concat()
    }
}

impl Started {
    /// Writes these bytes to the reverse proxy, and reads until it closes the connection: the statuses of its responses.
    pub async fn exchange(&self, bytes: &[u8]) -> Vec<u16> {
        let response = String::from_utf8_lossy(&self.exchange_bytes(bytes).await).into_owned();
        // A body of the recording service or of the gateway has no such text.
        let lines = response.split("HTTP/1.1 ").skip(1);
        lines.map(|line| line[..3].parse().unwrap()).collect()
    }

    /// The same, and all the bytes of its responses.
    pub async fn exchange_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let address = self.url("proxy").strip_prefix("http://").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let bytes = bytes.to_vec();
        // It may respond and close before it has read everything.
        let writing = tokio::spawn(async move {
            let _ = writer.write_all(&bytes).await;
            writer
        });
        let mut response = Vec::new();
        let reading = async {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut part).await {
                response.extend_from_slice(&part[..length]);
            }
        };
        let read = tokio::time::timeout(PATIENCE, reading).await;
        writing.abort();
        assert!(
            read.is_ok(),
            "the connection stays open after {:?}",
            String::from_utf8_lossy(&response)
        );
        response
    }
}

/// A gateway for raw requests, and what is around it.
pub struct Raw {
    pub parties: Parties,
    pub service: RawService,
    pub gateway: Started,
    seen: Mutex<usize>,
}

impl Raw {
    /// Everything below `/` is of the recording service, with the subject in `X-Auth-Subject` and the tenant, which tokens
    /// do not have, in `X-Auth-Tenant`.
    pub async fn start() -> Self {
        let (parties, service) = (Parties::new(), RawService::start().await);
        let config = format!(
            r#"
            [[listener]]
            address = "127.0.0.1:0"
            [upstream.orders]
            servers = ["{}"]
            [[route]]
            path = "/"
            upstream = "orders"
            [[identity]]
            claim = "sub"
            field = "X-Auth-Subject"
            [[identity]]
            claim = "tenant"
            field = "X-Auth-Tenant"
            "#,
            service.url
        );
        let gateway = super::Gateway::new(&parties, &config).start();
        Self {
            parties,
            service,
            gateway,
            seen: Mutex::new(0),
        }
    }

    pub fn request(&self, method: &str, path: &str) -> RawRequest {
        RawRequest::new(&self.parties, method, path)
    }

    /// The same in HTTP/2.
    pub fn framed(&self, method: &str, path: &str) -> FramedRequest {
        let (head, ()) = self
            .parties
            .request(method.parse().unwrap(), path)
            .build::<()>()
            .into_parts();
        let text = |name: &str| head.headers[name].to_str().unwrap();
        let fields = [
            (":method", method),
            (":scheme", "https"),
            (":authority", "api.example.com"),
            (":path", path),
            ("authorization", text("authorization")),
            ("dpop", text("dpop")),
        ];
        FramedRequest {
            fields: fields
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            body: None,
            trailers: Vec::new(),
        }
    }

    /// The requests that reached the service since the last call, before a good one that is sent now. It uses the
    /// connections that those before it have left, so that it would also be preceded by anything left in them.
    pub async fn arrived(&self) -> Vec<Received> {
        let last = self.request("GET", "/the-last-one");
        let statuses = self.gateway.exchange(&last.bytes()).await;
        assert_eq!(statuses, [200], "a good request after it");
        let all = self.service.received();
        let seen = std::mem::replace(&mut *self.seen.lock().unwrap(), all.len());
        let (last, before): (Vec<_>, Vec<_>) = all
            .into_iter()
            .skip(seen)
            .partition(|request| request.line == "GET /the-last-one HTTP/1.1");
        assert_eq!(last.len(), 1, "{last:?}");
        before
    }
}
