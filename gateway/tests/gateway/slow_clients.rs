//! Clients of HTTP/2 that send nothing more.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{Method, Version};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::reload::Fixture;
use crate::support::{
    Certificate, Client, Gateway, Parties, Program, Upstream, forwarding_to, until,
};

const ADDRESS: &str = "address = \"127.0.0.1:0\"";
/// Much longer than the limits of the tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection after the handshake, with HTTP/2.
async fn silent(certificate: &Certificate, url: &str) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsConnector::from(Arc::new(tls));
    let address = url.strip_prefix("https://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("api.example.com").unwrap();
    tls.connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn a_connection_without_the_preface_ends_after_its_handshake() {
    let parties = Parties::new();
    let released = Arc::new(Notify::new());
    let release = Arc::clone(&released);
    let wait = async move || {
        release.notified().await;
        "waited"
    };
    let upstream = Upstream::serve(Router::new().fallback(wait)).await;
    let (certificate, folder) = (Certificate::new(), tempfile::tempdir().unwrap());
    certificate.write(folder.path());
    let config = crate::reload::configuration(&upstream.url(), folder.path());
    let limit = format!("{ADDRESS}\nclient_timeout_seconds = 1");
    let config = config.replace(ADDRESS, &limit);
    let program = Program::start(Gateway::new(&parties, &config));
    // This one is in use for longer than the limit.
    let client = certificate.trusted_by(program.client(reqwest::Client::builder()));
    let request = parties.request(Method::GET, "/orders");
    let used = program.begin(&client, &request);
    let silent = async {
        for start in ["", "PRI * HTTP/2.0\r\n"] {
            let url = program.url("proxy");
            let mut stream = silent(&certificate, &url).await;
            stream.write_all(start.as_bytes()).await.unwrap();
            let mut sent = Vec::new();
            let ended = timeout(PATIENCE, stream.read_to_end(&mut sent)).await;
            assert!(ended.is_ok(), "{start:?}: the connection is open");
        }
        released.notify_one();
    };
    let (response, ()) = tokio::join!(used, silent);
    let response = response.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(response.status(), 200);
    assert!(!program.log().contains("ERROR"), "{}", program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_how_long_a_client_may_be_silent() {
    let fixture = Fixture::start("").await;
    let program = &fixture.program;
    program.edit(ADDRESS, &format!("{ADDRESS}\nclient_timeout_seconds = 1"));
    program.reload();
    let url = program.url("proxy");
    let mut stream = silent(&fixture.certificate, &url).await;
    let ended = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "the connection is open");
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_body_is_dropped_although_the_service_has_responded() {
    let parties = Parties::new();
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = service.local_addr().unwrap();
    let serve = async move {
        let (mut stream, _) = service.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly";
        stream.write_all(response).await.unwrap();
        // The connection stays open.
        pending::<()>().await;
    };
    let service = tokio::spawn(serve);
    let servers = format!("servers = [\"http://{address}\"]\nread_timeout_seconds = 1");
    let config = forwarding_to(&servers);
    let limit = format!("{ADDRESS}\nclient_timeout_seconds = 1");
    let gateway = Gateway::new(&parties, &config.replace(ADDRESS, &limit)).start();
    let never = futures_util::stream::pending::<std::io::Result<Bytes>>();
    let request = Client::http2(&gateway).request(&parties.request(Method::POST, "/orders"));
    let response = request.body(reqwest::Body::wrap_stream(never)).send();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    let body = timeout(PATIENCE, response.text()).await;
    assert!(body.is_ok(), "the stream is open");
    let line = until("the line of the request", async || {
        let log = gateway.log();
        let line = log.lines().find(|line| line.contains(": request "));
        line.map(str::to_owned)
    });
    let line = line.await;
    assert!(line.contains("decision=\"accepted\""), "{line}");
    assert!(line.contains("error=\"dropped before its end\""), "{line}");
    service.abort();
}
