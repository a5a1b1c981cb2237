//! A connection of HTTP/1.1, byte by byte.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower_dpop::testing::TestRequest;

use super::Started;

pub struct Wire(pub TcpStream);

pub struct WireResponse {
    /// In lower case.
    pub head: String,
    pub body: Vec<u8>,
}

impl WireResponse {
    pub fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }
}

/// The head of a request without the empty line at its end. `target` replaces that of the request.
pub fn head(request: &TestRequest, target: &str, fields: &str) -> String {
    let built = request.build::<()>();
    let mut head = format!(
        "{} {target} HTTP/1.1\r\nhost: api.example.com\r\n",
        built.method()
    );
    for (name, value) in built.headers() {
        head = head + name.as_str() + ": " + value.to_str().unwrap() + "\r\n";
    }
    head + fields
}

impl Wire {
    pub async fn connect(gateway: &Started) -> Self {
        let address = gateway.url("proxy").strip_prefix("http://").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// A head, in lower case.
    pub async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(
                self.0
                    .read_u8()
                    .await
                    .expect("the gateway closed the connection"),
            );
        }
        String::from_utf8(head).unwrap().to_ascii_lowercase()
    }

    /// The next response to a request other than `HEAD`.
    pub async fn response(&mut self) -> WireResponse {
        let head = self.head().await;
        let mut body = Vec::new();
        if let Some((_, length)) = head.split_once("content-length: ") {
            let (length, _) = length.split_once('\r').unwrap();
            body.resize(length.parse().unwrap(), 0);
            self.0.read_exact(&mut body).await.unwrap();
        } else if head.contains("transfer-encoding: chunked") {
            while let Some(chunk) = self.chunk().await {
                body.extend(chunk);
            }
        }
        WireResponse { head, body }
    }

    /// The next chunk, or the end of the body.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(
                self.0
                    .read_u8()
                    .await
                    .expect("the gateway closed the connection"),
            );
        }
        let size = std::str::from_utf8(&line).unwrap().trim();
        let mut chunk = vec![0; usize::from_str_radix(size, 16).unwrap() + 2];
        self.0.read_exact(&mut chunk).await.unwrap();
        chunk.truncate(chunk.len() - 2);
        (!chunk.is_empty()).then_some(chunk)
    }

    /// Waits until the gateway closes the connection. Panics if it sends something instead.
    pub async fn closed(&mut self) {
        let read = self.0.read(&mut [0]).await;
        assert!(
            matches!(read, Ok(0) | Err(_)),
            "expected the end of the connection"
        );
    }
}
