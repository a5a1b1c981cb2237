//! Helpers of the client's tests: mock servers in the same process, and clients that call them.

mod body;
mod challenge;
mod exchange;
mod new_proof;
mod resources;
mod servers;
mod signer;
mod token;
mod token_requests;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tower::util::BoxCloneService;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_dpop::client::{
    AccessTokenText, Challenge, ClientError, DpopClientLayer, NewProof, TokenClientLayer,
};
use tower_dpop::jose::SigningKey;
use tower_dpop::{PublicUrl, Timestamp};

use common::proofs::ReadProof;
use common::{AUDIENCE, Attempt, AttemptExt as _, ISSUER, NOW, TestClock, at, block_on, field};

/// The token of RFC 9449, Figure 12.
const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
const ORDERS: &str = "https://api.example.com/orders";
const TOKEN_URL: &str = "https://as.example.com/token";

fn url(text: &str) -> PublicUrl {
    text.parse().unwrap()
}

fn access_token(text: &str) -> AccessTokenText {
    text.parse().unwrap()
}

fn token() -> AccessTokenText {
    access_token(TOKEN)
}

fn key() -> SigningKey {
    SigningKey::generate().unwrap()
}

/// An access token of our issuer, bound to the key.
fn token_bound_to(key: &SigningKey) -> AccessTokenText {
    let jkt = key.thumbprint().to_string();
    let attempt = Attempt::but(|a| {
        a.token_claims["cnf"]["jkt"] = jkt.into();
        a.token_claims["exp"] = (NOW + 100_000).into();
    });
    attempt.token().parse().unwrap()
}

fn orders_proof() -> NewProof {
    NewProof::new(&Method::GET, &ORDERS.parse().unwrap()).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_unix(NOW)
}

fn challenges(lines: &[&[u8]]) -> Vec<Challenge> {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append("www-authenticate", field(line));
    }
    Challenge::from_headers(&headers)
}

/// A `Date` value, for a second on the day of [`NOW`].
fn date(seconds: u64) -> String {
    let of_day = seconds - 1_699_920_000;
    let (hours, minutes, seconds) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("Tue, 14 Nov 2023 {hours:02}:{minutes:02}:{seconds:02} GMT")
}

type MockResponse = Response<Full<Bytes>>;

fn response_with(status: u16, headers: &[(&str, &str)], body: &str) -> MockResponse {
    let mut response = Response::new(Full::from(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        response.headers_mut().append(name, field(value.as_bytes()));
    }
    response
}

fn ok() -> MockResponse {
    response_with(200, &[], "")
}

fn ok_with_nonce(nonce: &str) -> MockResponse {
    response_with(200, &[("dpop-nonce", nonce)], "")
}

/// A server that records request heads. The response depends on the head and on the number of the
/// request, from 1.
#[derive(Clone)]
struct MockServer {
    requests: Arc<Mutex<Vec<Parts>>>,
    respond: Arc<Respond>,
}

type Respond = dyn Fn(usize, &Parts) -> MockResponse + Send + Sync;

impl MockServer {
    fn new(respond: impl Fn(usize, &Parts) -> MockResponse + Send + Sync + 'static) -> Self {
        Self {
            requests: Arc::default(),
            respond: Arc::new(respond),
        }
    }

    /// Sends these responses in this order, and then 200.
    fn with_responses(responses: impl IntoIterator<Item = MockResponse>) -> Self {
        let responses: Mutex<VecDeque<MockResponse>> = Mutex::new(responses.into_iter().collect());
        Self::new(move |_, _| responses.lock().unwrap().pop_front().unwrap_or_else(ok))
    }

    fn requests(&self) -> Vec<Parts> {
        self.requests.lock().unwrap().clone()
    }

    fn request_count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    fn proofs(&self) -> Vec<ReadProof> {
        self.requests()
            .iter()
            .map(|head| ReadProof::in_headers(&head.headers))
            .collect()
    }

    fn nonces(&self) -> Vec<Option<String>> {
        self.proofs()
            .iter()
            .map(|proof| proof.nonce().map(str::to_owned))
            .collect()
    }
}

impl<B> Service<Request<B>> for MockServer {
    type Response = MockResponse;
    type Error = Infallible;
    type Future = std::future::Ready<Result<MockResponse, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, _) = request.into_parts();
        let number = {
            let mut requests = self.requests.lock().unwrap();
            requests.push(head.clone());
            requests.len()
        };
        std::future::ready(Ok((self.respond)(number, &head)))
    }
}

/// A server that accepts a proof if its `iat` is at most 5 seconds from the server's own clock. The
/// clock is off by `offset` seconds. `date_field` replaces the `Date` of responses; an empty one
/// removes it.
fn server_with_clock(
    kind: ServerKind,
    offset: i64,
    date_field: impl Fn() -> Option<String> + Send + Sync + 'static,
) -> (MockServer, TestClock) {
    let clock = TestClock::at(NOW.checked_add_signed(offset).unwrap());
    let read = clock.read();
    let server = MockServer::new(move |_, head| {
        let now = read().duration_since(at(0)).unwrap().as_secs();
        let iat = ReadProof::in_headers(&head.headers).iat();
        let date = date_field().unwrap_or_else(|| date(now));
        let headers = [("date", date.as_str())];
        let headers = if date.is_empty() {
            &headers[..0]
        } else {
            &headers[..]
        };
        if iat.abs_diff(now) <= 5 {
            response_with(200, headers, "")
        } else {
            kind.invalid_proof(headers)
        }
    });
    (server, clock)
}

/// The kinds of server. Each states its demands in its own form.
#[derive(Clone, Copy, Debug)]
enum ServerKind {
    Resource,
    Token,
    /// A token endpoint that rejects with 401, because the client authenticates in `Authorization`.
    TokenUnauthorized,
}

const KINDS: [ServerKind; 3] = [
    ServerKind::Resource,
    ServerKind::Token,
    ServerKind::TokenUnauthorized,
];

type Client = BoxCloneService<Request<String>, Response<Bytes>, ClientError>;

impl ServerKind {
    fn rejection(self, error: &str, headers: &[(&str, &str)]) -> MockResponse {
        let (status, name, value, body) = match self {
            Self::Resource => (
                401,
                "www-authenticate",
                format!(r#"DPoP error="{error}", algs="ES256""#),
                String::new(),
            ),
            Self::Token | Self::TokenUnauthorized => (
                if matches!(self, Self::Token) {
                    400
                } else {
                    401
                },
                "content-type",
                "application/json;charset=UTF-8".to_owned(),
                json!({ "error": error, "error_description": "…" }).to_string(),
            ),
        };
        let mut fields = vec![(name, value.as_str())];
        fields.extend(headers);
        response_with(status, &fields, &body)
    }

    fn nonce_demand(self, nonce: &str) -> MockResponse {
        self.rejection("use_dpop_nonce", &[("dpop-nonce", nonce)])
    }

    fn invalid_proof(self, headers: &[(&str, &str)]) -> MockResponse {
        self.rejection("invalid_dpop_proof", headers)
    }

    /// A client whose clock is at [`NOW`].
    fn client(self, server: &MockServer) -> Client {
        self.client_at(server, &TestClock::at(NOW))
    }

    fn client_at(self, server: &MockServer, clock: &TestClock) -> Client {
        match self {
            Self::Resource => boxed(
                DpopClientLayer::new(key(), token(), url(AUDIENCE))
                    .with_clock(clock.read())
                    .layer(server.clone()),
            ),
            Self::Token | Self::TokenUnauthorized => boxed(
                TokenClientLayer::new(key(), url(ISSUER))
                    .with_clock(clock.read())
                    .layer(server.clone()),
            ),
        }
    }

    fn request(self) -> Request<String> {
        let request = match self {
            Self::Resource => Request::get(ORDERS),
            Self::Token | Self::TokenUnauthorized => Request::post(TOKEN_URL),
        };
        request.body(String::new()).unwrap()
    }
}

/// A client that collects each response body.
fn boxed<S, B>(service: S) -> Client
where
    S: Service<Request<String>, Response = Response<B>, Error = ClientError, Future: Send>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Debug> + Send + 'static,
{
    BoxCloneService::new(service.and_then(collect_body))
}

async fn collect_body<B>(response: Response<B>) -> Result<Response<Bytes>, ClientError>
where
    B: Body<Data = Bytes, Error: Debug>,
{
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Ok(Response::from_parts(head, body))
}

#[track_caller]
fn send(client: &Client, request: Request<String>) -> Response<Bytes> {
    block_on(client.clone().oneshot(request)).unwrap()
}

#[track_caller]
fn expect_error<T>(result: Result<T, ClientError>) -> ClientError {
    match result {
        Ok(_) => panic!("no error"),
        Err(error) => error,
    }
}

/// The output of a future that is ready when it is first polled.
#[track_caller]
fn expect_ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future is pending"),
    }
}

/// A request without a response yet.
type PendingRequest = (Parts, oneshot::Sender<MockResponse>);

/// A server whose responses are sent by the test, in any order.
fn manual_server() -> (
    impl Service<Request<String>, Response = MockResponse, Error = std::io::Error, Future: Send>
    + Clone
    + Send
    + 'static,
    mpsc::UnboundedReceiver<PendingRequest>,
) {
    let (sender, requests) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<String>| {
        let (respond, response) = oneshot::channel();
        let sent = sender.send((request.into_parts().0, respond));
        async move {
            sent.map_err(|_| std::io::Error::other("the test has ended"))?;
            response.await.map_err(std::io::Error::other)
        }
    });
    (service, requests)
}

/// The next request that arrives at the server. The tests run on one thread, so a request that has
/// not arrived after 1000 yields never arrives.
async fn next_request(requests: &mut mpsc::UnboundedReceiver<PendingRequest>) -> PendingRequest {
    for _ in 0..1000 {
        if let Ok(request) = requests.try_recv() {
            return request;
        }
        tokio::task::yield_now().await;
    }
    panic!("no request was sent");
}

fn nonce_in(head: &Parts) -> Option<String> {
    ReadProof::in_headers(&head.headers)
        .nonce()
        .map(str::to_owned)
}
