//! WebSocket: who gets a connection, and that messages go both ways.

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use http::Method;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tower_dpop::testing::TestRequest;

use crate::support::{
    Authority, Gateway, Parties, Seen, Started, Upstream, Wire, forwarding_to, head,
};

#[tokio::test]
async fn websockets_need_a_proof_and_echo() {
    let parties = Parties::new();
    let (connected, mut connections) = mpsc::channel(8);
    let upstream = Upstream::script(move |stream, _| {
        let connected = connected.clone();
        async move {
            connected.send(()).await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                if message.is_text() || message.is_binary() {
                    socket.send(message).await.unwrap();
                }
            }
        }
    })
    .await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    let rejected = connect(&gateway, None).await.unwrap_err();
    assert!(rejected.to_string().contains("401"), "{rejected}");
    assert!(
        connections.try_recv().is_err(),
        "the service has been connected to"
    );
    let request = parties.request(Method::GET, "/chat");
    let mut socket = connect(&gateway, Some(&request)).await.unwrap();
    for message in [
        Message::text("hello"),
        Message::binary(vec![7; 300_000]),
        Message::text("bye"),
    ] {
        socket.send(message.clone()).await.unwrap();
        assert!(socket.next().await.unwrap().unwrap() == message);
    }
    socket.close(None).await.unwrap();
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(gateway: &Started, request: Option<&TestRequest>) -> Result<Socket, Error> {
    let url = gateway.url("proxy").replace("http://", "ws://") + "/chat";
    let mut handshake = url.into_client_request().unwrap();
    if let Some(request) = request {
        let (head, ()) = request.build::<()>().into_parts();
        handshake.headers_mut().extend(head.headers);
    }
    let (socket, response) = tokio_tungstenite::connect_async(handshake).await?;
    assert_eq!(response.status(), 101);
    Ok(socket)
}

/// HTTP/2 would be negotiated for any other request.
#[tokio::test]
async fn websockets_use_http_1_where_http_2_could_be_negotiated() {
    let parties = Parties::new();
    let authority = Authority::new();
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), authority.pem()).unwrap();
    let certificate = authority.issue("127.0.0.1", |_| {});
    let tls = Authority::server(&certificate, &["h2", "http/1.1"], None);
    let tls = TlsAcceptor::from(Arc::new(tls));
    let upstream = Upstream::script(move |stream, _| {
        let tls = tls.clone();
        async move {
            let stream = tls.accept(stream).await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                socket.send(message).await.unwrap();
            }
        }
    })
    .await;
    let config = format!(
        "servers = [\"{}\"]\nprotocol = \"negotiated\"\nroots_file = {:?}",
        upstream.url().replace("http:", "https:"),
        roots.path()
    );
    let gateway = Gateway::new(&parties, &forwarding_to(&config)).start();
    // Often, because what pingora sees first is a matter of chance.
    for _ in 0..50 {
        let request = parties.request(Method::GET, "/chat");
        let mut socket = connect(&gateway, Some(&request)).await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        assert!(socket.next().await.unwrap().unwrap() == Message::text("hello"));
    }
}

#[tokio::test]
async fn a_service_that_does_not_switch_responds_as_to_any_request() {
    let parties = Parties::new();
    let seen = Seen::default();
    let upstream = Upstream::serve(seen.echo()).await;
    let config = forwarding_to(&format!("servers = [\"{}\"]", upstream.url()));
    let gateway = Gateway::new(&parties, &config).start();
    let fields = "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 4\r\n\r\nbody";
    for _ in 0..5 {
        let requests = (0..10).map(async |_| {
            let request = parties.request(Method::POST, "/chat");
            let mut wire = Wire::connect(&gateway).await;
            for request in [request, parties.request(Method::POST, "/chat")] {
                wire.send(head(&request, "/chat", fields)).await;
                let response = wire.response().await;
                assert_eq!(response.status(), 200);
                assert_eq!(response.body, b"body");
            }
        });
        futures_util::future::join_all(requests).await;
    }
    assert_eq!(seen.requests().len(), 100);
    assert_eq!(seen.requests()[0].headers["upgrade"], "websocket");
}
