//! What the tests of the client share: a mock server that records requests, and clients around it.

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
fn bound_to(key: &SigningKey) -> AccessTokenText {
    let jkt = key.thumbprint().to_string();
    let attempt = Attempt::but(|a| {
        a.token_claims["cnf"]["jkt"] = jkt.into();
        a.token_claims["exp"] = (NOW + 100_000).into();
    });
    attempt.token().parse().unwrap()
}

fn good() -> NewProof {
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

/// A second of the day of [`NOW`], as `Date` has it.
fn date(seconds: u64) -> String {
    let of_day = seconds - 1_699_920_000;
    let (hours, minutes, seconds) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("Tue, 14 Nov 2023 {hours:02}:{minutes:02}:{seconds:02} GMT")
}

type Answered = Response<Full<Bytes>>;

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answered {
    let mut response = Response::new(Full::from(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        response.headers_mut().append(name, field(value.as_bytes()));
    }
    response
}

fn ok() -> Answered {
    answer(200, &[], "")
}

fn fresh(nonce: &str) -> Answered {
    answer(200, &[("dpop-nonce", nonce)], "")
}

/// A server that keeps what it gets, and answers by the request's number and head.
#[derive(Clone)]
struct Server {
    seen: Arc<Mutex<Vec<Parts>>>,
    outcome: Arc<Answers>,
}

type Answers = dyn Fn(usize, &Parts) -> Answered + Send + Sync;

impl Server {
    fn new(outcome: impl Fn(usize, &Parts) -> Answered + Send + Sync + 'static) -> Self {
        Self {
            seen: Arc::default(),
            outcome: Arc::new(outcome),
        }
    }

    /// Answers in this order, and 200 when there is no more.
    fn with_answers(outcomes: impl IntoIterator<Item = Answered>) -> Self {
        let outcomes: Mutex<VecDeque<Answered>> = Mutex::new(outcomes.into_iter().collect());
        Self::new(move |_, _| outcomes.lock().unwrap().pop_front().unwrap_or_else(ok))
    }

    fn seen(&self) -> Vec<Parts> {
        self.seen.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn proofs(&self) -> Vec<ReadProof> {
        self.seen()
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

impl<B> Service<Request<B>> for Server {
    type Response = Answered;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Answered, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, _) = request.into_parts();
        let number = {
            let mut seen = self.seen.lock().unwrap();
            seen.push(head.clone());
            seen.len()
        };
        std::future::ready(Ok((self.outcome)(number, &head)))
    }
}

/// A resource server that holds proofs to its own clock.
fn server_with_clock(
    kind: Kind,
    offset: i64,
    says: impl Fn() -> Option<String> + Send + Sync + 'static,
) -> (Server, TestClock) {
    let clock = TestClock::at(NOW.checked_add_signed(offset).unwrap());
    let (read, first) = (clock.read(), Server::new(|_, _| ok()));
    let server = Server {
        outcome: Arc::new(move |_, head| {
            let now = read().duration_since(at(0)).unwrap().as_secs();
            let iat = ReadProof::in_headers(&head.headers).iat();
            let said = says().unwrap_or_else(|| date(now));
            let headers = [("date", said.as_str())];
            let headers = if said.is_empty() {
                &headers[..0]
            } else {
                &headers[..]
            };
            if iat.abs_diff(now) <= 5 {
                answer(200, headers, "")
            } else {
                kind.invalid_proof(headers)
            }
        }),
        ..first
    };
    (server, clock)
}

/// The two kinds of server, which say the same in different words.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Resource,
    Token,
    /// A token endpoint whose client authenticates by `Authorization`.
    TokenUnauthorized,
}

const KINDS: [Kind; 3] = [Kind::Resource, Kind::Token, Kind::TokenUnauthorized];

type Client = BoxCloneService<Request<String>, Response<Bytes>, ClientError>;

impl Kind {
    fn rejection(self, error: &str, headers: &[(&str, &str)]) -> Answered {
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
        let mut all = vec![(name, value.as_str())];
        all.extend(headers);
        answer(status, &all, &body)
    }

    fn demand(self, nonce: &str) -> Answered {
        self.rejection("use_dpop_nonce", &[("dpop-nonce", nonce)])
    }

    fn invalid_proof(self, headers: &[(&str, &str)]) -> Answered {
        self.rejection("invalid_dpop_proof", headers)
    }

    /// A client at [`NOW`].
    fn client(self, server: &Server) -> Client {
        self.client_at(server, &TestClock::at(NOW))
    }

    fn client_at(self, server: &Server, clock: &TestClock) -> Client {
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

/// A client of any kind, whose responses are read to their end.
fn boxed<S, B>(service: S) -> Client
where
    S: Service<Request<String>, Response = Response<B>, Error = ClientError, Future: Send>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Debug> + Send + 'static,
{
    BoxCloneService::new(service.and_then(collected))
}

async fn collected<B>(response: Response<B>) -> Result<Response<Bytes>, ClientError>
where
    B: Body<Data = Bytes, Error: Debug>,
{
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Ok(Response::from_parts(head, body))
}

#[track_caller]
fn ask(client: &Client, request: Request<String>) -> Response<Bytes> {
    block_on(client.clone().oneshot(request)).unwrap()
}

#[track_caller]
fn error_of<T>(result: Result<T, ClientError>) -> ClientError {
    match result {
        Ok(_) => panic!("no error"),
        Err(error) => error,
    }
}

/// Polls once, where nothing has to be waited for.
#[track_caller]
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("waits for something"),
    }
}

type Call = (Parts, oneshot::Sender<Answered>);

/// A server whose every answer is the test's to give, in the order of its choice.
fn by_hand() -> (
    impl Service<Request<String>, Response = Answered, Error = std::io::Error, Future: Send>
    + Clone
    + Send
    + 'static,
    mpsc::UnboundedReceiver<Call>,
) {
    let (calls, received) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<String>| {
        let (outcome, answered) = oneshot::channel();
        let sent = calls.send((request.into_parts().0, outcome));
        async move {
            sent.map_err(|_| std::io::Error::other("gone"))?;
            answered.await.map_err(std::io::Error::other)
        }
    });
    (service, received)
}

/// The next request that reaches the server. All of it runs in one thread: what has not come after so
/// many turns does not come.
async fn next(calls: &mut mpsc::UnboundedReceiver<Call>) -> Call {
    for _ in 0..1000 {
        if let Ok(call) = calls.try_recv() {
            return call;
        }
        tokio::task::yield_now().await;
    }
    panic!("nothing was sent");
}

fn nonce_of(head: &Parts) -> Option<String> {
    ReadProof::in_headers(&head.headers)
        .nonce()
        .map(str::to_owned)
}
