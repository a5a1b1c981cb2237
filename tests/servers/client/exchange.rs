//! The client's layers over sockets, against servers that interrupt a response, keep demanding nonces,
//! or redirect.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_dpop::client::{AccessTokenText, ClientError, DpopClientLayer, TokenClientLayer};
use tower_dpop::jose::SigningKey;
use tower_dpop::{DpopLayer, NonceSecret, PublicUrl, StatelessNonces};
use tower_http::follow_redirect::FollowRedirectLayer;

use common::proofs::{ReadProof, assert_shows_nothing};
use common::{Attempt, AttemptExt as _, NOW, at, block_on, verifier_by};

const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";

/// A server that sends raw bytes, handles one request per connection, and records the request heads.
struct RawServer {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl RawServer {
    /// `respond` gets the number and the head of each request. The server then closes the connection.
    async fn start(respond: impl Fn(usize, &str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let recorded = Arc::clone(&heads);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let head = read_head(&mut stream).await;
                let number = {
                    let mut heads = recorded.lock().unwrap();
                    heads.push(head.clone());
                    heads.len()
                };
                let bytes = respond(number, &head);
                stream.write_all(bytes.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        Self { address, heads }
    }

    fn url(&self) -> PublicUrl {
        format!("http://{}", self.address).parse().unwrap()
    }

    fn request(&self, method: &str) -> Request<Full<Bytes>> {
        Request::builder()
            .method(method)
            .uri(format!("http://{}/orders", self.address))
            .body(Full::default())
            .unwrap()
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// The number of requests.
    fn count(&self) -> usize {
        self.heads.lock().unwrap().len()
    }
}

/// Everything up to the empty line. Requests in these tests have no body.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// The value of a field, which may occur only once.
fn field_of<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut values = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value);
    let value = values.next()?;
    assert_eq!(values.next(), None, "C-3: {name} twice");
    Some(value)
}

fn proof_of(head: &str) -> ReadProof {
    ReadProof::of(&field_of(head, "dpop").unwrap().parse().unwrap())
}

fn http() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

fn token() -> AccessTokenText {
    TOKEN.parse().unwrap()
}

fn key() -> SigningKey {
    SigningKey::generate().unwrap()
}

async fn send_to_resource(server: &RawServer) -> Result<Response<Incoming>, ClientError> {
    DpopClientLayer::new(key(), token(), server.url())
        .layer(http())
        .oneshot(server.request("GET"))
        .await
}

async fn request_token(
    server: &RawServer,
) -> Result<Response<impl Body<Data = Bytes, Error = hyper::Error>>, ClientError> {
    TokenClientLayer::new(key(), server.url())
        .layer(http())
        .oneshot(server.request("POST"))
        .await
}

/// An interrupted response.
struct Row {
    name: &'static str,
    bytes: &'static str,
    /// The status, and the part of the body that the caller gets before the error. `None` if there is
    /// no response.
    expected: Option<(u16, &'static str)>,
}

/// The request is sent once. The caller gets the part of the response that arrived, and then the
/// error.
#[test]
fn an_interrupted_response_is_an_error_and_not_retried() {
    let rows = [
        Row {
            name: "before the response",
            bytes: "",
            expected: None,
        },
        Row {
            name: "in the head",
            bytes: "HTTP/1.1 400 Bad Request\r\ncontent-type: appl",
            expected: None,
        },
        Row {
            name: "not HTTP",
            bytes: "use_dpop_nonce\r\n\r\n",
            expected: None,
        },
        Row {
            name: "two content lengths",
            bytes: "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            expected: None,
        },
        Row {
            name: "in the body of a success response",
            bytes: "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
            expected: Some((200, "half")),
        },
        Row {
            name: "in a chunk",
            bytes: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n9\r\nx",
            expected: Some((200, "half")),
        },
        Row {
            name: "in the body of a nonce demand",
            bytes: "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ndpop-nonce: n\r\n\
                     content-length: 100\r\n\r\n{\"error\":\"use_dpop_nonce\"}",
            expected: Some((400, "{\"error\":\"use_dpop_nonce\"}")),
        },
        Row {
            name: "after the chunk of a nonce demand",
            bytes: "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ndpop-nonce: n\r\n\
                     transfer-encoding: chunked\r\n\r\n1a\r\n{\"error\":\"use_dpop_nonce\"}\r\n",
            expected: Some((400, "{\"error\":\"use_dpop_nonce\"}")),
        },
    ];
    block_on(async {
        for row in rows {
            let server = RawServer::start(|_, _| row.bytes.to_owned()).await;
            match (send_to_resource(&server).await, row.expected) {
                (Ok(response), Some(expected)) => {
                    assert_interrupted(row.name, response, expected).await;
                }
                (Err(ClientError::Transport(_)), None) => {}
                (result, _) => panic!("{}: {result:?}", row.name),
            }
            assert_eq!(server.count(), 1, "{}: one request", row.name);

            let server = RawServer::start(|_, _| row.bytes.to_owned()).await;
            match (request_token(&server).await, row.expected) {
                (Ok(response), Some(expected)) => {
                    assert_interrupted(row.name, response, expected).await;
                }
                (Err(ClientError::Transport(_)), None) => {}
                (result, _) => panic!("{}: {:?}", row.name, result.map(|r| r.status())),
            }
            assert_eq!(server.count(), 1, "{}: one request", row.name);
        }
    });
}

async fn assert_interrupted<B>(name: &str, response: Response<B>, (status, text): (u16, &str))
where
    B: Body<Data = Bytes, Error = hyper::Error>,
{
    assert_eq!(response.status(), status, "{name}");
    let mut body = Box::pin(response.into_body());
    let mut read = Vec::new();
    loop {
        match body.frame().await {
            Some(Ok(frame)) => read.extend_from_slice(&frame.into_data().unwrap()),
            Some(Err(_)) => break,
            None => panic!("{name}: the body ends without an error"),
        }
    }
    // Part of an incomplete chunk may have arrived.
    assert!(read.starts_with(text.as_bytes()), "{name}: {read:?}");
}

/// A demand for a nonce, in the formats of both resource servers and authorization servers.
fn demand(nonces: &[&str]) -> String {
    let mut response = "HTTP/1.1 401 Unauthorized\r\n".to_owned();
    for nonce in nonces {
        response.push_str("dpop-nonce: ");
        response.push_str(nonce);
        response.push_str("\r\n");
    }
    response.push_str(
        "www-authenticate: DPoP error=\"use_dpop_nonce\"\r\n\
         content-type: application/json\r\ncontent-length: 26\r\n\r\n\
         {\"error\":\"use_dpop_nonce\"}",
    );
    response
}

/// C-21: the number of retries is bounded.
#[test]
fn a_server_that_always_demands_a_nonce_gets_three_requests() {
    block_on(async {
        let always_demand = |number: usize, _: &str| demand(&[&format!("nonce-{number}")]);
        let server = RawServer::start(always_demand).await;
        assert_eq!(send_to_resource(&server).await.unwrap().status(), 401);
        assert_eq!(server.count(), 3, "C-21");

        let server = RawServer::start(always_demand).await;
        let response = request_token(&server).await.unwrap();
        assert_eq!(response.status(), 401);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, r#"{"error":"use_dpop_nonce"}"#);
        assert_eq!(server.count(), 3, "C-21");
        let nonces: Vec<_> = server
            .heads()
            .iter()
            .map(|head| proof_of(head).nonce().map(str::to_owned))
            .collect();
        assert_eq!(
            nonces,
            [None, Some("nonce-1".into()), Some("nonce-2".into())]
        );
    });
}

/// C-25: a response with two nonces breaks the protocol.
#[test]
fn ignores_two_nonces_in_one_response() {
    block_on(async {
        let two_nonces = |_: usize, _: &str| demand(&["one", "two"]);
        let server = RawServer::start(two_nonces).await;
        assert_eq!(send_to_resource(&server).await.unwrap().status(), 401);
        assert_eq!(server.count(), 1, "C-25");
        let server = RawServer::start(two_nonces).await;
        assert_eq!(request_token(&server).await.unwrap().status(), 401);
        assert_eq!(server.count(), 1, "C-25");
    });
}

/// C-22: the server accepts each nonce once, and sends the next one with every response.
#[test]
fn uses_the_newest_nonce_of_a_server_that_rotates_them() {
    block_on(async {
        let server = RawServer::start(|number, head| {
            let proof = proof_of(head);
            let expected = format!("nonce-{}", number - 1);
            let next = format!("nonce-{number}");
            if proof.nonce() == Some(expected.as_str()) {
                format!("HTTP/1.1 200 OK\r\ndpop-nonce: {next}\r\ncontent-length: 0\r\n\r\n")
            } else {
                demand(&[&next])
            }
        })
        .await;
        let client = DpopClientLayer::new(key(), token(), server.url()).layer(http());
        for _ in 0..10 {
            let response = client.clone().oneshot(server.request("GET")).await.unwrap();
            assert_eq!(response.status(), 200, "C-22");
        }
        assert_eq!(server.count(), 11, "one rejection, of the first request");
    });
}

/// C-31: the other server gets neither the token nor a proof nor a nonce.
#[test]
fn a_redirect_to_another_server_leaks_nothing() {
    block_on(async {
        let ok = |_: usize, _: &str| {
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ndpop-nonce: theirs\r\n\r\n".to_owned()
        };
        for status in [
            "301 Moved",
            "302 Found",
            "303 See Other",
            "307 Temporary",
            "308 Permanent",
        ] {
            let other = RawServer::start(ok).await;
            let location = format!("http://{}/other", other.address);
            let server = RawServer::start(move |number, _| {
                if number == 1 {
                    return demand(&["nonce-of-the-server"]);
                }
                format!("HTTP/1.1 {status}\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
            })
            .await;
            let strict = DpopClientLayer::new(key(), token(), server.url());
            let unsigned = strict.clone().with_other_servers_unsigned();

            let service = ServiceBuilder::new()
                .layer(FollowRedirectLayer::new())
                .layer(strict)
                .service(http());
            let error = service.oneshot(server.request("GET")).await.unwrap_err();
            assert!(
                matches!(error, ClientError::OtherServer),
                "{status}: {error:?}"
            );
            assert_eq!(
                other.count(),
                0,
                "C-31: {status}: no request to the other server"
            );

            let service = ServiceBuilder::new()
                .layer(FollowRedirectLayer::new())
                .layer(unsigned)
                .service(http());
            let response = service.oneshot(server.request("GET")).await.unwrap();
            assert_eq!(response.status(), 200, "{status}");
            let [head] = other.heads().try_into().unwrap();
            assert_eq!(field_of(&head, "authorization"), None, "C-31: {status}");
            assert_eq!(field_of(&head, "dpop"), None, "C-31: {status}");
            let heads = server.heads();
            let proofs: Vec<_> = heads.iter().map(|head| proof_of(head)).collect();
            let mut secrets = vec![TOKEN, "nonce-of-the-server"];
            secrets.extend(proofs.iter().flat_map(|proof| proof.text.split('.')));
            assert_shows_nothing(status, &head, &secrets);
        }
    });
}

/// C-20, C-31: the proof of the second request is for the URL of the redirect.
#[test]
fn a_redirect_on_the_same_server_gets_a_new_proof() {
    block_on(async {
        let server = RawServer::start(|_, head| {
            if head.starts_with("GET /orders ") {
                "HTTP/1.1 302 Found\r\nlocation: /v2/orders?page=1\r\ncontent-length: 0\r\n\r\n"
                    .into()
            } else {
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()
            }
        })
        .await;
        let service = ServiceBuilder::new()
            .layer(FollowRedirectLayer::new())
            .layer(DpopClientLayer::new(key(), token(), server.url()))
            .service(http());
        let response = service.oneshot(server.request("GET")).await.unwrap();
        assert_eq!(response.status(), 200);
        let proofs: Vec<_> = server.heads().iter().map(|head| proof_of(head)).collect();
        let [one, two] = proofs.try_into().unwrap();
        let at = |path: &str| format!("http://{}{path}", server.address);
        assert_eq!(one.claim("htu"), Some(at("/orders").as_str()));
        assert_eq!(two.claim("htu"), Some(at("/v2/orders").as_str()), "C-31");
        assert_ne!(one.jti(), two.jti(), "C-20");
        two.assert_signed("C-31");
    });
}

/// C-10, C-15, C-21: the layers of client and resource server together, over HTTP/1.1 and HTTP/2.
#[test]
fn the_server_layer_accepts_requests_of_the_client_layer() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let public_url: PublicUrl = format!("http://{address}").parse().unwrap();
        let server = DpopLayer::new(verifier_by(|rules| {
            rules
                .add_public_url(public_url.clone())
                .with_nonces(StatelessNonces::new(NonceSecret::generate()))
        }));
        let requests = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&requests);
        let service = server
            .layer(service_fn(async |request: Request<Incoming>| {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(body)))
            }))
            .map_request(move |request| {
                *counted.lock().unwrap() += 1;
                request
            });
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(service.clone());
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    // Fails if the client closes the connection.
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        for http2 in [false, true] {
            let key = key();
            let jkt = key.thumbprint().to_string();
            let token = Attempt::but(|a| a.token_claims["cnf"]["jkt"] = jkt.into()).token();
            let http = Client::builder(TokioExecutor::new())
                .http2_only(http2)
                .build_http::<Full<Bytes>>();
            let token: AccessTokenText = token.parse().unwrap();
            let client = DpopClientLayer::new(key, token, public_url.clone())
                .with_clock(|| at(NOW))
                .layer(http);
            *requests.lock().unwrap() = 0;
            for number in 0..5 {
                let request = Request::put(format!("http://{address}/orders/{number}?x=1"))
                    .body(Full::from(format!("body {number}")))
                    .unwrap();
                let response = client.clone().oneshot(request).await.unwrap();
                assert_eq!(response.status(), 200, "HTTP/2: {http2}");
                let body = response.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body, format!("body {number}"), "HTTP/2: {http2}");
            }
            let requests = *requests.lock().unwrap();
            assert_eq!(
                requests, 6,
                "C-21: one retry in five requests, HTTP/2: {http2}"
            );
        }
    });
}

/// Longer than what the sockets of both sides hold, so the client is still sending when the server responds.
const LONG_BODY: usize = 32 * 1024 * 1024;

/// How much of a body a server reads before it rejects the request.
const BEGINNING: usize = 64 * 1024;

/// How a server ends the connection after its response to a request whose body it has not read.
#[derive(Clone, Copy)]
enum Ending {
    /// RFC 9112 section 9.6: it closes its side, and reads until the client closes too.
    Lingering,
    /// At once, without a response. The kernel resets the connection, because data was not read.
    Reset,
}

/// A server that rejects the first request after the beginning of its body, and reads the whole body of the
/// others. Returns the nonce and the body length of each request.
async fn reject_early(ending: Ending) -> (SocketAddr, Arc<Mutex<Vec<(Option<String>, usize)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests: Arc<Mutex<Vec<_>>> = Arc::default();
    let recorded = Arc::clone(&requests);
    tokio::spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = read_head(&mut stream).await;
            let nonce = proof_of(&head).nonce().map(str::to_owned);
            let length: usize = field_of(&head, "content-length").unwrap().parse().unwrap();
            let mut body = vec![0; if number == 0 { BEGINNING } else { length }];
            stream.read_exact(&mut body).await.unwrap();
            recorded.lock().unwrap().push((nonce, body.len()));
            if number > 0 {
                let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(ok).await.unwrap();
            } else if let Ending::Lingering = ending {
                let rejection =
                    demand(&["early"]).replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
                stream.write_all(rejection.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                // Until the client closes the connection, or resets it.
                while let Ok(1..) = stream.read(&mut body).await {}
            }
        }
    });
    (address, requests)
}

async fn send_long_body(
    method: &str,
    address: SocketAddr,
) -> Result<Response<Incoming>, ClientError> {
    let url: PublicUrl = format!("http://{address}").parse().unwrap();
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{address}/orders"))
        .body(Full::from(vec![b'x'; LONG_BODY]))
        .unwrap();
    DpopClientLayer::new(key(), token(), url)
        .layer(http())
        .oneshot(request)
        .await
}

/// C-21: the demand arrives while the body is being sent.
#[test]
fn a_demand_in_the_middle_of_a_body_is_met_with_the_whole_body() {
    block_on(async {
        for method in ["POST", "PUT"] {
            let (address, requests) = reject_early(Ending::Lingering).await;
            let response = send_long_body(method, address).await.unwrap();
            assert_eq!(response.status(), 200, "{method}");
            assert_eq!(
                *requests.lock().unwrap(),
                [(None, BEGINNING), (Some("early".into()), LONG_BODY)],
                "{method}"
            );
        }
    });
}

/// C-21: the server may have acted on the part of the body that it read.
#[test]
fn a_request_whose_connection_breaks_off_is_not_sent_again() {
    block_on(async {
        for method in ["POST", "PUT"] {
            let (address, requests) = reject_early(Ending::Reset).await;
            let error = send_long_body(method, address).await.unwrap_err();
            assert!(
                matches!(error, ClientError::Transport(_)),
                "{method}: {error:?}"
            );
            assert_eq!(*requests.lock().unwrap(), [(None, BEGINNING)], "{method}");
        }
    });
}
