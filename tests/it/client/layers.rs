//! The client's layers around servers in the same process: what is sent, how often, and what the
//! caller gets.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, Full};
use serde_json::json;
use tokio::sync::{Barrier, mpsc, oneshot};
use tower::limit::ConcurrencyLimitLayer;
use tower::retry::{Policy, RetryLayer};
use tower::util::BoxCloneService;
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_dpop::client::{
    AccessTokenText, BodyCopy, ClientError, CloneBody, DpopClientLayer, InvalidRequestUrl,
    ProofSigner, ResponseBody, TokenClientLayer, TokenResponse, TokenSource, TokenSourceError,
};
use tower_dpop::jose::{Jwk, SigningError, SigningKey};
use tower_dpop::token_endpoint::{
    ProvenKey, TOKEN_TYPE, TokenEndpoint, TokenEndpointLayer, check_code_binding,
    check_refresh_binding,
};
use tower_dpop::{
    Algorithm, DpopLayer, NonceSecret, ProofRules, PublicUrl, StatelessNonces, Thumbprint,
};
use tower_http::follow_redirect::FollowRedirectLayer;

use common::proofs::{ReadProof, assert_shows_nothing, names};
use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, NOW, TestClock, at, block_on, field, verifier,
    verifier_by,
};

const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
const ORDERS: &str = "https://api.example.com/orders";
const TOKEN_URL: &str = "https://as.example.com/token";

fn url(text: &str) -> PublicUrl {
    text.parse().unwrap()
}

fn token() -> AccessTokenText {
    TOKEN.parse().unwrap()
}

fn key() -> SigningKey {
    SigningKey::generate().unwrap()
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

/// C-3, C-15, C-17: one token and one proof, those of the layer, and nothing else is touched.
#[test]
fn a_request_goes_out_with_the_token_and_one_proof() {
    let server = Server::new(|_, _| ok());
    let mut request = Request::builder()
        .method("PATCH")
        .uri("https://api.example.com/a/../orders?page=2")
        .version(Version::HTTP_2)
        .header("dpop", "one")
        .header("dpop", "two")
        .header("authorization", "Bearer stale")
        .header("authorization", "DPoP stale")
        .header("cookie", "a=b")
        .body("body".to_owned())
        .unwrap();
    request.extensions_mut().insert(7_u8);
    ask(&Kind::Resource.client(&server), request);
    let [head] = server.seen().try_into().unwrap();
    let proof = ReadProof::in_headers(&head.headers);
    proof.assert_signed("C-3");
    assert_eq!(proof.claim("htm"), Some("PATCH"));
    assert_eq!(proof.claim("htu"), Some(ORDERS));
    assert_eq!(proof.claim("ath"), Some(common::ath(TOKEN).as_str()));
    assert_eq!(proof.iat(), NOW);
    let authorizations: Vec<_> = head.headers.get_all("authorization").iter().collect();
    let [authorization] = authorizations.as_slice() else {
        panic!("C-15: {} Authorization fields", authorizations.len());
    };
    assert_eq!(*authorization, &format!("DPoP {TOKEN}"), "C-15");
    assert!(authorization.is_sensitive());
    let fields: HashSet<_> = head.headers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(
        fields,
        HashSet::from(["authorization", "cookie", "dpop"]),
        "C-17: no Proxy-Authorization"
    );
    assert_eq!(head.uri, "https://api.example.com/a/../orders?page=2");
    assert_eq!(head.version, Version::HTTP_2);
    assert_eq!(head.extensions.get(), Some(&7_u8));
}

/// C-9, C-12: at the token endpoint there is no token, and the client's authentication stays.
#[test]
fn a_token_request_goes_out_with_a_proof_and_its_own_authentication() {
    let rows: [(&str, &[&str], &[&str]); 10] = [
        ("none", &[], &[]),
        ("Basic", &["Basic YTpi"], &["Basic YTpi"]),
        ("Bearer", &["Bearer x"], &["Bearer x"]),
        ("DPoP", &["DPoP x"], &[]),
        ("DPoP in another case", &["dpOp x"], &[]),
        ("DPoP behind a blank", &[" \tDPoP x"], &[]),
        ("DPoP before a tab", &["DPoP\tx"], &[]),
        ("DPoP alone", &["DPoP"], &[]),
        ("both", &["Basic YTpi", "DPoP x"], &["Basic YTpi"]),
        ("a longer scheme", &["DPoPlus x"], &["DPoPlus x"]),
    ];
    for (name, given, expected) in rows {
        let server = Server::new(|_, _| ok());
        let mut request = Kind::Token.request();
        request.headers_mut().append("dpop", field(b"one"));
        for value in given {
            let value = field(value.as_bytes());
            request.headers_mut().append("authorization", value);
        }
        ask(&Kind::Token.client(&server), request);
        let [head] = server.seen().try_into().unwrap();
        let sent: Vec<_> = head.headers.get_all("authorization").iter().collect();
        assert_eq!(sent, expected, "{name}");
        let proof = ReadProof::in_headers(&head.headers);
        proof.assert_signed(name);
        assert_eq!(
            names(&proof.claims),
            ["htm", "htu", "iat", "jti"].into(),
            "C-9: {name}"
        );
        assert_eq!(proof.claim("htu"), Some(TOKEN_URL), "{name}");
    }
}

/// C-19: a server that knows only bearer tokens gets none.
#[test]
fn the_token_is_never_a_bearer_token() {
    let server = Server::new(|_, _| {
        answer(
            401,
            &[("www-authenticate", r#"Bearer error="invalid_token""#)],
            "",
        )
    });
    let client = Kind::Resource.client(&server);
    for _ in 0..3 {
        let mut request = Kind::Resource.request();
        let bearer = field(format!("Bearer {TOKEN}").as_bytes());
        request.headers_mut().insert("authorization", bearer);
        assert_eq!(ask(&client, request).status(), 401);
    }
    assert_eq!(server.count(), 3);
    for head in server.seen() {
        assert_eq!(head.headers["authorization"], format!("DPoP {TOKEN}"));
    }
}

/// C-10, C-21, C-22: a demand is answered with another proof, and later requests heed it at once.
#[test]
fn a_demand_for_a_nonce_is_answered() {
    for kind in KINDS {
        let server = Server::with_answers([kind.demand("first")]);
        let client = kind.client(&server);
        let response = ask(&client, kind.request());
        assert_eq!(response.status(), 200, "{kind:?}");
        ask(&client, kind.request());
        let [one, two, three] = server.proofs().try_into().unwrap();
        assert_eq!(one.nonce(), None, "{kind:?}");
        assert_eq!(two.nonce(), Some("first"), "C-21: {kind:?}");
        assert_eq!(three.nonce(), Some("first"), "C-22: {kind:?}");
        assert_ne!(one.jti(), two.jti(), "C-21: {kind:?}");
        assert_ne!(one.signature, two.signature, "C-21: {kind:?}");
        for proof in [one, two, three] {
            proof.assert_signed("C-21");
            assert_eq!(proof.claim("ath").is_some(), matches!(kind, Kind::Resource));
        }
    }
}

/// C-16, C-25: however the demand is written.
#[test]
fn a_demand_in_another_form_is_answered() {
    let long = "n".repeat(2048);
    let challenge = r#"DPoP error="use_dpop_nonce""#;
    let behind_bearer = format!(r#"Bearer error="invalid_token", {challenge}"#);
    let body = r#"{"error":"use_dpop_nonce"}"#;
    let resource = |fields: &[(&str, &str)]| {
        let mut all = vec![("dpop-nonce", "n")];
        all.extend(fields);
        answer(401, &all, "")
    };
    let token = |media_type| {
        let fields = [("dpop-nonce", "n"), ("content-type", media_type)];
        answer(400, &fields, body)
    };
    let rows: Vec<(&str, Kind, Answered)> = vec![
        (
            "behind another scheme",
            Kind::Resource,
            resource(&[("www-authenticate", &behind_bearer)]),
        ),
        (
            "behind another field line",
            Kind::Resource,
            resource(&[
                ("www-authenticate", "Bearer"),
                ("www-authenticate", challenge),
            ]),
        ),
        (
            "behind another DPoP challenge",
            Kind::Resource,
            resource(&[("www-authenticate", &format!("DPoP, {challenge}"))]),
        ),
        (
            "the longest nonce that is kept",
            Kind::Resource,
            Kind::Resource.demand(&long),
        ),
        (
            "no case in the type",
            Kind::Token,
            token("Application/JSON"),
        ),
        (
            "a space behind the type",
            Kind::Token,
            token("application/json ; charset=utf-8"),
        ),
        (
            "a tab behind the type",
            Kind::Token,
            token("application/json\t;charset=utf-8"),
        ),
    ];
    for (name, kind, demand) in rows {
        let server = Server::with_answers([demand]);
        let response = ask(&kind.client(&server), kind.request());
        assert_eq!(response.status(), 200, "{kind:?}: {name}");
        assert_eq!(server.count(), 2, "{kind:?}: {name}");
    }
}

/// C-21: `iat` is taken again, too.
#[test]
fn the_time_is_asked_for_each_proof() {
    for kind in KINDS {
        let clock = TestClock::at(NOW);
        let (server, during) = (Server::new(|_, _| ok()), clock.clone());
        let server = Server {
            outcome: Arc::new(move |number, _| {
                during.set(NOW + 3);
                if number == 1 { kind.demand("n") } else { ok() }
            }),
            ..server
        };
        ask(&kind.client_at(&server, &clock), kind.request());
        let times: Vec<_> = server.proofs().iter().map(ReadProof::iat).collect();
        assert_eq!(times, [NOW, NOW + 3], "{kind:?}");
    }
}

/// C-21, C-25: what is no demand, or demands nothing that can be met, is the caller's to see.
#[test]
fn a_demand_that_cannot_be_met_is_not_answered() {
    let long = "n".repeat(2049);
    let rows: [(&str, &[&str]); 10] = [
        ("no nonce", &[]),
        ("C-25: two nonces", &["one", "two"]),
        ("C-25: the same nonce twice", &["one", "one"]),
        ("C-25: empty", &[""]),
        ("C-25: a space", &["a b"]),
        ("C-25: a list", &["one, two"]),
        ("C-25: a quote", &["a\"b"]),
        ("C-25: a backslash", &["a\\b"]),
        ("C-25: beyond ASCII", &["\u{e4}"]),
        ("C-25: longer than a proof may be", &[&long]),
    ];
    for kind in KINDS {
        for (name, nonces) in rows {
            let fields: Vec<_> = nonces.iter().map(|nonce| ("dpop-nonce", *nonce)).collect();
            let server = {
                let fields: Vec<(&'static str, String)> =
                    fields.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
                Server::new(move |_, _| {
                    let fields: Vec<_> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
                    kind.rejection("use_dpop_nonce", &fields)
                })
            };
            let client = kind.client(&server);
            for attempt in 1..3 {
                let status = ask(&client, kind.request()).status();
                assert!(status.is_client_error(), "{kind:?}: {name}");
                assert_eq!(server.count(), attempt, "{kind:?}: {name}");
            }
            assert_eq!(server.nonces(), [None, None], "{kind:?}: {name}");
        }
    }
}

/// C-21: the same nonce again is no new one.
#[test]
fn a_demand_for_the_nonce_that_was_used_is_not_answered() {
    for kind in KINDS {
        let server = Server::new(move |_, _| kind.demand("same"));
        let client = kind.client(&server);
        ask(&client, kind.request());
        assert_eq!(server.count(), 2, "{kind:?}: with it, and then no more");
        ask(&client, kind.request());
        assert_eq!(server.count(), 3, "{kind:?}");
    }
}

/// C-21
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn other_rejections_are_not_answered() {
    let challenge = r#"DPoP error="use_dpop_nonce""#;
    let body = r#"{"error":"use_dpop_nonce"}"#;
    let json = ("content-type", "application/json");
    let nonce = ("dpop-nonce", "fresh");
    let resource =
        |status, challenge| answer(status, &[("www-authenticate", challenge), nonce], "");
    let rows: Vec<(&str, Kind, Answered)> = vec![
        ("another status", Kind::Resource, resource(400, challenge)),
        ("a success", Kind::Resource, resource(200, challenge)),
        (
            "another scheme",
            Kind::Resource,
            resource(401, r#"Bearer error="use_dpop_nonce""#),
        ),
        (
            "another error",
            Kind::Resource,
            resource(401, r#"DPoP error="invalid_token""#),
        ),
        (
            "another case",
            Kind::Resource,
            resource(401, r#"DPoP error="USE_DPOP_NONCE""#),
        ),
        (
            "of a proxy",
            Kind::Resource,
            answer(407, &[("proxy-authenticate", challenge), nonce], ""),
        ),
        (
            "in a body",
            Kind::Resource,
            answer(401, &[json, nonce], body),
        ),
        (
            "another status",
            Kind::Token,
            answer(403, &[json, nonce], body),
        ),
        ("a success", Kind::Token, answer(200, &[json, nonce], body)),
        (
            "in a challenge",
            Kind::Token,
            answer(400, &[("www-authenticate", challenge), nonce], ""),
        ),
        ("no media type", Kind::Token, answer(400, &[nonce], body)),
        (
            "another media type",
            Kind::Token,
            answer(400, &[("content-type", "text/html"), nonce], body),
        ),
        (
            "a longer media type",
            Kind::Token,
            answer(
                400,
                &[("content-type", "application/json-seq"), nonce],
                body,
            ),
        ),
        (
            "another error",
            Kind::Token,
            answer(400, &[json, nonce], r#"{"error":"invalid_grant"}"#),
        ),
        (
            "two errors",
            Kind::Token,
            answer(
                400,
                &[json, nonce],
                r#"{"error":"x","error":"use_dpop_nonce"}"#,
            ),
        ),
        (
            "an error that is no text",
            Kind::Token,
            answer(400, &[json, nonce], r#"{"error":["use_dpop_nonce"]}"#),
        ),
        (
            "a list",
            Kind::Token,
            answer(400, &[json, nonce], r#"["use_dpop_nonce"]"#),
        ),
        (
            "no JSON",
            Kind::Token,
            answer(400, &[json, nonce], "use_dpop_nonce"),
        ),
        (
            "something behind it",
            Kind::Token,
            answer(400, &[json, nonce], &format!("{body}{body}")),
        ),
    ];
    for (name, kind, rejection) in rows {
        let status = rejection.status();
        let server = Server::with_answers([rejection]);
        let client = kind.client(&server);
        assert_eq!(
            ask(&client, kind.request()).status(),
            status,
            "{kind:?}: {name}"
        );
        assert_eq!(server.count(), 1, "{kind:?}: {name}");
        ask(&client, kind.request());
        assert_eq!(
            server.nonces(),
            [None, Some("fresh".into())],
            "C-22: {kind:?}: {name}: the nonce is kept all the same"
        );
    }
}

/// C-21: bounded, and the caller gets what the server said last, all of it.
#[test]
fn a_server_that_is_never_content_is_answered_twice() {
    for kind in KINDS {
        let server = Server::new(move |number, _| {
            let mut rejection = kind.demand(&format!("nonce-{number}"));
            let number = field(number.to_string().as_bytes());
            rejection.headers_mut().insert("x-number", number);
            rejection
        });
        let client = kind.client(&server);
        let response = ask(&client, kind.request());
        assert_eq!(server.count(), 3, "{kind:?}");
        assert!(response.status().is_client_error(), "{kind:?}");
        assert_eq!(response.headers()["x-number"], "3", "{kind:?}");
        assert_eq!(response.headers()["dpop-nonce"], "nonce-3", "{kind:?}");
        let is_json = response.body().starts_with(b"{\"error\"");
        assert_eq!(is_json, !matches!(kind, Kind::Resource), "{kind:?}");
        let identifiers: HashSet<_> = server.proofs().iter().map(|p| p.jti().to_owned()).collect();
        assert_eq!(identifiers.len(), 3, "C-2: {kind:?}");
        ask(&client, kind.request());
        assert_eq!(
            server.nonces()[3].as_deref(),
            Some("nonce-3"),
            "C-22: {kind:?}"
        );
    }
}

/// C-22
#[test]
fn nonces_are_kept_from_every_response() {
    for kind in KINDS {
        for status in [
            200, 201, 204, 206, 301, 304, 400, 401, 403, 404, 429, 500, 503,
        ] {
            let nonce = format!("nonce-{status}");
            let server = Server::with_answers([answer(status, &[("dpop-nonce", &nonce)], "")]);
            let client = kind.client(&server);
            assert_eq!(ask(&client, kind.request()).status(), status, "{kind:?}");
            ask(&client, kind.request());
            ask(&client, kind.request());
            assert_eq!(
                server.nonces(),
                [None, Some(nonce.clone()), Some(nonce)],
                "C-22: {kind:?}: {status}"
            );
        }
    }
}

/// C-23, C-24: a nonce goes back to where it came from, and nowhere else.
#[test]
fn a_nonce_goes_only_to_its_own_server() {
    let server = Server::new(|_, head| {
        let nonce = format!(
            "of-{}",
            head.uri.authority().unwrap().as_str().replace(':', "-")
        );
        answer(200, &[("dpop-nonce", &nonce)], "")
    });
    let layer = DpopClientLayer::new(key(), token(), url(AUDIENCE))
        .add_server(url("https://api.example.com:8443"))
        .add_server(url("https://other.example.com/v1"))
        .add_server(url("https://other.example.com/v2"))
        .add_server(PublicUrl::insecure_http("http://api.example.com").unwrap())
        .with_clock(|| at(NOW));
    let rows = [
        (ORDERS, None),
        ("https://api.example.com:8443/", None),
        ("http://api.example.com/", None),
        ("https://other.example.com/v1", None),
        ("https://other.example.com/v2", Some("of-other.example.com")),
        ("https://api.example.com:443/", Some("of-api.example.com")),
        (
            "https://api.example.com:8443/",
            Some("of-api.example.com-8443"),
        ),
        ("http://api.example.com/", Some("of-api.example.com")),
    ];
    for (uri, expected) in rows {
        // Clones of the layer share what is learnt.
        let service = layer.clone().layer(server.clone());
        block_on(service.oneshot(Request::get(uri).body(()).unwrap())).unwrap();
        assert_eq!(
            server.nonces().pop().unwrap().as_deref(),
            expected,
            "C-23: {uri}"
        );
    }
    // The authorization server's layer has a memory of its own, at the same origin as well.
    let tokens = TokenClientLayer::new(key(), url(AUDIENCE)).layer(server.clone());
    block_on(tokens.oneshot(Request::post(ORDERS).body(()).unwrap())).unwrap();
    assert_eq!(server.nonces().pop().unwrap(), None, "C-24");
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

/// C-29: one more try with the server's time, which later requests have from the start.
#[test]
fn a_clock_that_is_wrong_is_corrected_by_the_servers() {
    for kind in KINDS {
        for offset in [600, -600, 31, -31, 6, -6] {
            let (server, theirs) = server_with_clock(kind, offset, || None);
            let ours = TestClock::at(NOW);
            let client = kind.client_at(&server, &ours);
            let right = NOW.checked_add_signed(offset).unwrap();
            assert_eq!(
                ask(&client, kind.request()).status(),
                200,
                "{kind:?}: {offset}"
            );
            assert_eq!(
                ask(&client, kind.request()).status(),
                200,
                "{kind:?}: {offset}"
            );
            let times: Vec<_> = server.proofs().iter().map(ReadProof::iat).collect();
            assert_eq!(times, [NOW, right, right], "C-29: {kind:?}: {offset}");
            let jtis: HashSet<_> = server.proofs().iter().map(|p| p.jti().to_owned()).collect();
            assert_eq!(jtis.len(), 3, "C-2: {kind:?}");

            // Somebody sets our clock.
            ours.set(right);
            assert_eq!(
                ask(&client, kind.request()).status(),
                200,
                "{kind:?}: {offset}"
            );
            assert_eq!(
                ask(&client, kind.request()).status(),
                200,
                "{kind:?}: {offset}"
            );
            let last = server.proofs().pop().unwrap().iat();
            assert_eq!(last, right, "C-29: {kind:?}: {offset}: back again");
            let trips = server.count();
            assert!(trips <= 6, "{kind:?}: {offset}: {trips}");

            // And time goes on for both.
            ours.set(right + 60);
            theirs.set(right + 60);
            assert_eq!(
                ask(&client, kind.request()).status(),
                200,
                "{kind:?}: {offset}"
            );
            assert_eq!(server.count(), trips + 1, "{kind:?}: {offset}");
        }
    }
}

/// C-29: a `Date` that agrees explains nothing, and neither does none.
#[test]
fn a_rejection_that_the_clock_does_not_explain_is_not_answered() {
    let later = date(NOW + 600);
    let now = date(NOW);
    let near = date(NOW + 5);
    let nearly_past = date(NOW - 5);
    let tomorrow = "Wed, 15 Nov 2023 22:13:21 GMT";
    let yesterday = "Mon, 13 Nov 2023 22:13:19 GMT";
    let rows: [(&str, &[(&str, &str)]); 12] = [
        ("more than a day ahead", &[("date", tomorrow)]),
        ("more than a day behind", &[("date", yesterday)]),
        ("no Date", &[]),
        ("a Date that agrees", &[("date", &now)]),
        ("a Date near enough", &[("date", &near)]),
        ("a Date near enough behind", &[("date", &nearly_past)]),
        ("out of a cache", &[("date", &later), ("age", "0")]),
        ("an Age that is none", &[("date", &later), ("age", "x")]),
        ("garbage", &[("date", "yesterday")]),
        ("an empty Date", &[("date", "")]),
        (
            "beyond the calendar",
            &[("date", "Tue, 99 Nov 2023 22:13:20 GMT")],
        ),
        ("beyond ASCII", &[("date", "\u{e4}")]),
    ];
    for kind in KINDS {
        for (name, headers) in rows {
            let server = Server::with_answers([kind.invalid_proof(headers)]);
            let client = kind.client(&server);
            assert!(
                ask(&client, kind.request()).status().is_client_error(),
                "{kind:?}: {name}"
            );
            assert_eq!(server.count(), 1, "{kind:?}: {name}");
            ask(&client, kind.request());
            assert_eq!(server.proofs()[1].iat(), NOW, "{kind:?}: {name}");
        }
    }
}

/// C-29: up to a day, and only where that is wanted.
#[test]
fn a_clock_is_corrected_by_a_day_at_most_and_not_at_all_where_that_is_said() {
    let (server, _) = server_with_clock(Kind::Resource, 86_400, || {
        Some("Wed, 15 Nov 2023 22:13:20 GMT".into())
    });
    let client = Kind::Resource.client(&server);
    assert_eq!(ask(&client, Kind::Resource.request()).status(), 200);

    let resources = DpopClientLayer::new(key(), token(), url(AUDIENCE))
        .with_clock(|| at(NOW))
        .without_clock_correction();
    let tokens = TokenClientLayer::new(key(), url(ISSUER))
        .with_clock(|| at(NOW))
        .without_clock_correction();
    for kind in KINDS {
        let (server, _) = server_with_clock(kind, 600, || None);
        let client: Client = match kind {
            Kind::Resource => boxed(resources.layer(server.clone())),
            Kind::Token | Kind::TokenUnauthorized => boxed(tokens.layer(server.clone())),
        };
        for _ in 0..2 {
            let status = ask(&client, kind.request()).status();
            assert!(status.is_client_error(), "{kind:?}");
        }
        let times: Vec<_> = server.proofs().iter().map(ReadProof::iat).collect();
        assert_eq!(times, [NOW, NOW], "{kind:?}");
    }
}

/// C-29: once, even if the server's clock runs.
#[test]
fn a_clock_is_corrected_once_for_a_request() {
    for kind in KINDS {
        let server = Server::new(move |number, _| {
            let number = u64::try_from(number).unwrap();
            kind.invalid_proof(&[("date", &date(NOW + 600 * number))])
        });
        let response = ask(&kind.client(&server), kind.request());
        assert!(response.status().is_client_error(), "{kind:?}");
        let times: Vec<_> = server.proofs().iter().map(ReadProof::iat).collect();
        assert_eq!(times, [NOW, NOW + 600], "{kind:?}");
    }
}

/// C-29: a server whose proofs pass by our clock may say what it likes in `Date`.
#[test]
fn a_date_that_is_not_the_time_does_no_harm() {
    for kind in KINDS {
        for said in [
            "Thu, 01 Jan 1970 00:00:00 GMT",
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "0",
        ] {
            let (server, _) = server_with_clock(kind, 0, move || Some(said.to_owned()));
            let client = kind.client(&server);
            for _ in 0..3 {
                let status = ask(&client, kind.request()).status();
                assert_eq!(status, 200, "C-29: {kind:?}: {said}");
            }
            assert_eq!(server.count(), 3, "{kind:?}: {said}");

            // Nor does it where a proof was rejected for another reason.
            let rejections = Server::new(move |number, head| {
                let iat = ReadProof::in_headers(&head.headers).iat();
                if iat == NOW && number > 1 {
                    answer(200, &[("date", said)], "")
                } else {
                    kind.invalid_proof(&[("date", said)])
                }
            });
            let client = kind.client(&rejections);
            assert!(ask(&client, kind.request()).status().is_client_error());
            let status = ask(&client, kind.request()).status();
            assert_eq!(status, 200, "C-29: {kind:?}: {said}: after a rejection");
        }
    }
}

/// C-29: what becomes of a clock that was kept, by what the server says next.
#[test]
fn a_clock_is_kept_as_long_as_proofs_pass_by_it() {
    type Next = fn(Kind) -> Vec<Answered>;
    let ten_minutes = NOW + 600;
    let rows: [(&str, Next, &[u64]); 14] = [
        ("a success", |_| vec![ok()], &[ten_minutes, ten_minutes]),
        (
            "a success with a Date that is none",
            |_| vec![answer(200, &[("date", "now")], "")],
            &[ten_minutes, ten_minutes],
        ),
        (
            "a Date by which our clock is right",
            |_| vec![answer(200, &[("date", &date(NOW))], "")],
            &[ten_minutes, NOW],
        ),
        (
            "one by which it is near enough",
            |_| vec![answer(200, &[("date", &date(NOW + 5))], "")],
            &[ten_minutes, NOW],
        ),
        (
            "one by which it is near enough behind",
            |_| vec![answer(200, &[("date", &date(NOW - 5))], "")],
            &[ten_minutes, NOW],
        ),
        (
            "a rejection that it does not explain",
            |kind| vec![kind.invalid_proof(&[])],
            &[ten_minutes, NOW],
        ),
        (
            "one with a Date that is near enough",
            |kind| vec![kind.invalid_proof(&[("date", &date(NOW + 605))])],
            &[ten_minutes, ten_minutes],
        ),
        (
            "one with a Date that is near enough behind",
            |kind| vec![kind.invalid_proof(&[("date", &date(NOW + 595))])],
            &[ten_minutes, ten_minutes],
        ),
        (
            "one with a Date that is not",
            |kind| vec![kind.invalid_proof(&[("date", &date(NOW + 606))])],
            &[ten_minutes, NOW + 606, NOW + 606],
        ),
        (
            "one with a Date on the other side",
            |kind| vec![kind.invalid_proof(&[("date", &date(NOW - 600))])],
            &[ten_minutes, NOW - 600, NOW - 600],
        ),
        (
            "one with a Date that does not help",
            |kind| vec![kind.invalid_proof(&[("date", &date(NOW + 3000))]); 2],
            &[ten_minutes, NOW + 3000, NOW],
        ),
        (
            "one with a Date, and then a Date that agrees with the clock before",
            |kind| {
                let said = |seconds| kind.invalid_proof(&[("date", &date(seconds))]);
                vec![said(NOW + 3000), said(NOW + 600)]
            },
            &[ten_minutes, NOW + 3000, NOW],
        ),
        (
            "one with a Date, and then a gateway's answer",
            |kind| {
                let rejection = kind.invalid_proof(&[("date", &date(NOW + 3000))]);
                vec![rejection, answer(502, &[], "")]
            },
            &[ten_minutes, NOW + 3000, ten_minutes],
        ),
        (
            "one with a Date, and then a demand that cannot be met",
            |kind| {
                vec![
                    kind.invalid_proof(&[("date", &date(NOW + 3000))]),
                    kind.rejection("use_dpop_nonce", &[]),
                ]
            },
            &[ten_minutes, NOW + 3000, ten_minutes],
        ),
    ];
    for kind in KINDS {
        for (name, next, expected) in rows {
            let learns = kind.invalid_proof(&[("date", &date(ten_minutes))]);
            let server = Server::with_answers([learns, ok()].into_iter().chain(next(kind)));
            let client = kind.client(&server);
            for _ in 0..3 {
                ask(&client, kind.request());
            }
            let times: Vec<_> = server.proofs().iter().map(ReadProof::iat).collect();
            assert_eq!(times[..2], [NOW, ten_minutes], "C-29: {kind:?}: {name}");
            assert_eq!(times[2..], *expected, "C-29: {kind:?}: {name}");
        }
    }
}

/// C-29: a clock that is set to before the server's offset from 1970.
#[test]
fn there_is_no_time_before_1970() {
    for kind in KINDS {
        let (server, _) = server_with_clock(kind, -600, || None);
        let clock = TestClock::at(NOW);
        let client = kind.client_at(&server, &clock);
        assert_eq!(ask(&client, kind.request()).status(), 200, "{kind:?}");
        clock.set(100);
        ask(&client, kind.request());
        let last = server.proofs().pop().unwrap().iat();
        assert_eq!(last, 0, "{kind:?}");
    }
}

/// C-21, C-29: a nonce and the time, one after the other.
#[test]
fn a_nonce_and_the_time_may_both_be_asked_for() {
    for kind in KINDS {
        let server = Server::new(move |_, head| {
            let proof = ReadProof::in_headers(&head.headers);
            let said = date(NOW + 600);
            if proof.nonce() != Some("n") {
                let mut demand = kind.demand("n");
                demand.headers_mut().insert("date", said.parse().unwrap());
                demand
            } else if proof.iat() != NOW + 600 {
                kind.invalid_proof(&[("date", &said)])
            } else {
                answer(200, &[("date", &said)], "")
            }
        });
        let client = kind.client(&server);
        assert_eq!(ask(&client, kind.request()).status(), 200, "{kind:?}");
        assert!(server.count() <= 3, "{kind:?}: {}", server.count());
        let trips = server.count();
        assert_eq!(ask(&client, kind.request()).status(), 200, "{kind:?}");
        assert_eq!(server.count(), trips + 1, "{kind:?}");
    }
}

/// What a server gets to see of bodies.
type Bodies = Arc<Mutex<Vec<String>>>;

fn demand_once(
    bodies: &Bodies,
) -> impl Service<Request<String>, Response = Answered, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static
+ use<> {
    let bodies = Arc::clone(bodies);
    service_fn(move |request: Request<String>| {
        let has_nonce = ReadProof::in_headers(request.headers()).nonce().is_some();
        bodies.lock().unwrap().push(request.into_body());
        std::future::ready(Ok(if has_nonce {
            ok()
        } else {
            Kind::Resource.demand("n")
        }))
    })
}

/// C-31: a body that can be cloned is sent again as it was.
#[test]
fn a_body_is_sent_again_whole() {
    let bodies = Bodies::default();
    let service = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(demand_once(&bodies));
    let request = Request::put(ORDERS).body("a body".to_owned()).unwrap();
    assert_eq!(block_on(service.oneshot(request)).unwrap().status(), 200);
    assert_eq!(*bodies.lock().unwrap(), ["a body", "a body"]);
}

/// C-31: a body that is gone is not sent again, and the next request knows the nonce.
#[test]
fn a_body_that_cannot_be_copied_is_sent_once() {
    let bodies = Bodies::default();
    let service = DpopClientLayer::new(key(), token(), url(AUDIENCE))
        .with_body_copy(|_: &String| None)
        .layer(demand_once(&bodies));
    let request = || Request::put(ORDERS).body("a body".to_owned()).unwrap();
    let error = error_of(block_on(service.clone().oneshot(request())));
    assert!(matches!(error, ClientError::BodyNotCopyable), "{error:?}");
    assert_eq!(bodies.lock().unwrap().len(), 1, "nothing half-sent");
    assert_eq!(block_on(service.oneshot(request())).unwrap().status(), 200);
    assert_eq!(*bodies.lock().unwrap(), ["a body", "a body"]);
}

/// C-29, C-31: the same for the server's time.
#[test]
fn a_body_that_cannot_be_copied_does_not_keep_the_clock_wrong() {
    let (server, _) = server_with_clock(Kind::Token, 600, || None);
    let service = TokenClientLayer::new(key(), url(ISSUER))
        .with_clock(|| at(NOW))
        .with_body_copy(|_: &String| None)
        .layer(server.clone());
    let request = || Request::post(TOKEN_URL).body(String::new()).unwrap();
    let error = error_of(block_on(service.clone().oneshot(request())));
    assert!(matches!(error, ClientError::BodyNotCopyable), "{error:?}");
    assert_eq!(block_on(service.oneshot(request())).unwrap().status(), 200);
    assert_eq!(server.count(), 2);
}

#[test]
fn bodies_are_copied_by_the_way_that_was_chosen() {
    assert_eq!(CloneBody.copy(&"a".to_owned()).as_deref(), Some("a"));
    let some = |body: &u8| (*body == 1).then_some(*body);
    assert_eq!((some.copy(&1), some.copy(&2)), (Some(1), None));
    let bodies = Bodies::default();
    let service = TokenClientLayer::new(key(), url(AUDIENCE))
        .with_body_copy(|body: &String| Some(body.to_uppercase()))
        .layer(demand_once(&bodies).map_response(|mut response: Answered| {
            // The authorization server's way to say it.
            if response.status() == 401 {
                response = Kind::Token.demand("n");
            }
            response
        }));
    let request = Request::put(ORDERS).body("a".to_owned()).unwrap();
    assert_eq!(block_on(service.oneshot(request)).unwrap().status(), 200);
    assert_eq!(*bodies.lock().unwrap(), ["a", "A"]);
}

/// The way that bodies are kept may be chosen last: nothing else changes.
#[test]
fn what_was_said_before_the_way_of_bodies_stays() {
    let copy = |body: &String| Some(body.clone());
    let clients = |kind: Kind, server: &Server| -> [Client; 2] {
        if let Kind::Resource = kind {
            let layer = DpopClientLayer::new(key(), token(), url(AUDIENCE))
                .with_clock(|| at(NOW))
                .without_clock_correction();
            let open = layer.clone().with_other_servers_unsigned();
            [layer, open].map(|layer| boxed(layer.with_body_copy(copy).layer(server.clone())))
        } else {
            let layer = TokenClientLayer::new(key(), url(ISSUER))
                .with_clock(|| at(NOW))
                .without_clock_correction();
            let open = layer.clone().with_other_servers_unsigned();
            [layer, open].map(|layer| boxed(layer.with_body_copy(copy).layer(server.clone())))
        }
    };
    for kind in KINDS {
        let (server, _) = server_with_clock(kind, 600, || None);
        for client in clients(kind, &server) {
            let status = ask(&client, kind.request()).status();
            assert!(status.is_client_error(), "{kind:?}");
        }
        let times: Vec<_> = server.proofs().iter().map(ReadProof::iat).collect();
        assert_eq!(times, [NOW, NOW], "C-29: {kind:?}");

        let server = Server::new(|_, _| ok());
        let request = || {
            let request = Request::get("https://evil.example.com/");
            request.body(String::new()).unwrap()
        };
        let [closed, open] = clients(kind, &server);
        let error = error_of(block_on(closed.oneshot(request())));
        assert!(matches!(error, ClientError::OtherServer), "{error:?}");
        assert_eq!(server.count(), 0, "C-31: {kind:?}");
        assert_eq!(ask(&open, request()).status(), 200, "{kind:?}");
        let [head] = server.seen().try_into().unwrap();
        assert!(head.headers.is_empty(), "C-31: {kind:?}");
    }
}

/// What a body does when its frames are gone.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    End,
    EmptyFrames,
    Wait,
}

/// A body that is told what to do. It may not be asked again when it has ended.
struct Scripted {
    frames: VecDeque<Result<Frame<Bytes>, &'static str>>,
    then: Then,
    ended: bool,
    polls: Arc<AtomicUsize>,
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        assert!(!self.ended, "asked again after its end");
        match (self.frames.pop_front(), self.then) {
            (Some(frame), _) => Poll::Ready(Some(frame)),
            (None, Then::End) => {
                self.ended = true;
                Poll::Ready(None)
            }
            (None, Then::EmptyFrames) => Poll::Ready(Some(Ok(Frame::data(Bytes::new())))),
            (None, Then::Wait) => Poll::Pending,
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as a body gives it")]
fn data(text: impl Into<Bytes>) -> Result<Frame<Bytes>, &'static str> {
    Ok(Frame::data(text.into()))
}

#[expect(clippy::unnecessary_wraps, reason = "as a body gives it")]
fn trailers() -> Result<Frame<Bytes>, &'static str> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("7"));
    Ok(Frame::trailers(trailers))
}

/// A frame, to be compared.
fn shown(frame: Result<Frame<Bytes>, &'static str>) -> String {
    match frame.map(Frame::into_data) {
        Ok(Ok(data)) => String::from_utf8(data.into()).unwrap(),
        Ok(Err(frame)) => format!("{:?}", frame.into_trailers().unwrap()),
        Err(error) => format!("error: {error}"),
    }
}

type Frames = Vec<Result<Frame<Bytes>, &'static str>>;

type Outcome = Result<Response<ResponseBody<Scripted>>, ClientError>;

/// The response of a token endpoint with this body, through the layer; how often the body was asked,
/// and how often the server.
fn token_answer(
    media_type: &'static str,
    frames: Frames,
    then: Then,
) -> (
    impl Future<Output = Outcome>,
    Arc<AtomicUsize>,
    Arc<AtomicUsize>,
) {
    let (polls, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let body = Mutex::new(Some(Scripted {
        frames: frames.into(),
        then,
        ended: false,
        polls: Arc::clone(&polls),
    }));
    let counted = Arc::clone(&calls);
    let body = Arc::new(body);
    let service =
        TokenClientLayer::new(key(), url(ISSUER)).layer(service_fn(move |_: Request<()>| {
            counted.fetch_add(1, Ordering::SeqCst);
            let again = Scripted {
                frames: VecDeque::new(),
                then: Then::End,
                ended: false,
                polls: Arc::default(),
            };
            let mut response = Response::new(body.lock().unwrap().take().unwrap_or(again));
            if counted.load(Ordering::SeqCst) == 1 {
                *response.status_mut() = StatusCode::BAD_REQUEST;
                let headers = response.headers_mut();
                headers.insert("content-type", HeaderValue::from_static(media_type));
                headers.insert("dpop-nonce", HeaderValue::from_static("n"));
            }
            std::future::ready(Ok::<_, Infallible>(response))
        }));
    let request = Request::post(TOKEN_URL).body(()).unwrap();
    (service.oneshot(request), polls, calls)
}

const JSON: &str = "application/json";

/// What the layer has looked into reaches the caller whole: every frame, trailers, an error in its
/// place.
#[test]
fn a_body_that_is_no_demand_reaches_the_caller_whole() {
    let grant = r#"{"error":"invalid_grant"}"#;
    let big = "x".repeat(16 * 1024 + 1);
    let rows: Vec<(&str, &'static str, Frames)> = vec![
        ("empty", JSON, vec![]),
        ("one frame", JSON, vec![data(grant)]),
        (
            "two frames",
            JSON,
            vec![data(&grant[..9]), data(&grant[9..])],
        ),
        ("empty frames", JSON, vec![data(""), data(grant), data("")]),
        ("trailers", JSON, vec![data(grant), trailers()]),
        ("an error", JSON, vec![data(grant), Err("reset")]),
        ("an error at once", JSON, vec![Err("reset")]),
        (
            "half a demand and an error",
            JSON,
            vec![data(r#"{"error":"use_dpop_nonce"}"#), Err("reset")],
        ),
        ("one big frame", JSON, vec![data(big.clone())]),
        (
            "one big frame with a demand",
            JSON,
            vec![data(format!(r#"{{"x":"{big}","error":"use_dpop_nonce"}}"#))],
        ),
        (
            "a demand behind a big frame",
            JSON,
            vec![
                data(format!(r#"{{"x":"{big}","#)),
                data(r#""error":"use_dpop_nonce"}"#),
            ],
        ),
        (
            "big frames",
            JSON,
            vec![data(big.clone()), data(big.clone()), trailers()],
        ),
        (
            "many frames",
            JSON,
            (0..1000).map(|number| data(number.to_string())).collect(),
        ),
        (
            "another media type",
            "text/html",
            vec![data(r#"{"error":"use_dpop_nonce"}"#), trailers()],
        ),
    ];
    for (name, media_type, frames) in rows {
        let expected: Vec<String> = frames
            .iter()
            .map(|frame| match frame {
                Ok(frame) => match frame.data_ref() {
                    Some(text) => shown(data(text.clone())),
                    None => shown(trailers()),
                },
                Err(error) => shown(Err(error)),
            })
            .collect();
        let length: usize = frames
            .iter()
            .filter_map(|frame| frame.as_ref().ok()?.data_ref())
            .map(Bytes::len)
            .sum();
        let (response, polls, calls) = token_answer(media_type, frames, Then::End);
        let response = at_once(response).unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 1, "{name}: is no demand");
        assert_eq!(response.status(), 400, "{name}");
        assert!(polls.load(Ordering::SeqCst) <= 256, "{name}: bounded");
        if media_type != JSON {
            assert_eq!(polls.load(Ordering::SeqCst), 0, "{name}: not read");
        }
        let mut body = response.into_body();
        let hint = body.size_hint();
        assert!(hint.lower() <= length as u64, "{name}");
        assert!(
            hint.upper().is_none_or(|upper| upper >= length as u64),
            "{name}"
        );
        let mut read = Vec::new();
        while let Some(frame) = at_once(body.frame()) {
            let failed = frame.is_err();
            read.push(shown(frame));
            if failed {
                break;
            }
        }
        assert_eq!(read, expected, "{name}");
    }
}

/// The length that the whole has is told before and after the layer has looked into it.
#[test]
fn the_length_of_a_body_stays_known() {
    let server = Server::new(|_, _| answer(400, &[("content-type", JSON)], r#"{"error":"x"}"#));
    let service = TokenClientLayer::new(key(), url(ISSUER)).layer(server);
    let response = block_on(service.oneshot(Kind::Token.request())).unwrap();
    let mut body = response.into_body();
    assert_eq!(body.size_hint().exact(), Some(13));
    assert!(!body.is_end_stream());
    assert!(at_once(body.frame()).is_some());
    assert_eq!(body.size_hint().exact(), Some(0));
    assert!(body.is_end_stream());
    assert!(at_once(body.frame()).is_none());
}

/// The end is told by the body itself, or by the layer, which has found it.
#[test]
fn the_end_of_a_body_is_known() {
    let service = TokenClientLayer::new(key(), url(ISSUER)).layer(Server::new(|_, _| ok()));
    let response = block_on(service.oneshot(Kind::Token.request())).unwrap();
    assert!(response.into_body().is_end_stream(), "not looked into");

    let (response, _, _) = token_answer(JSON, vec![data("{}")], Then::End);
    let mut body = at_once(response).unwrap().into_body();
    assert!(!body.is_end_stream());
    assert!(at_once(body.frame()).is_some());
    assert!(body.is_end_stream(), "looked into");
}

/// What is asked of an endless body is bounded; one that says nothing is waited for, and can be
/// given up.
#[test]
fn an_endless_body_is_not_read_to_its_end() {
    let (response, polls, calls) = token_answer(JSON, vec![], Then::EmptyFrames);
    assert_eq!(at_once(response).unwrap().status(), 400);
    assert!(polls.load(Ordering::SeqCst) <= 256);
    assert_eq!(calls.load(Ordering::SeqCst), 1);

    let endless = (0..1000).map(|_| data("x".repeat(1024))).collect();
    let (response, polls, _) = token_answer(JSON, endless, Then::EmptyFrames);
    assert_eq!(at_once(response).unwrap().status(), 400);
    assert_eq!(polls.load(Ordering::SeqCst), 17);

    let (response, _, calls) = token_answer(JSON, vec![data("{")], Then::Wait);
    let mut response = Box::pin(response);
    let polled = response
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "a timeout is the caller's");
    drop(response);
    assert_eq!(calls.load(Ordering::SeqCst), 1);

    let (response, polls, _) = token_answer("text/plain", vec![], Then::Wait);
    assert_eq!(at_once(response).unwrap().status(), 400);
    assert_eq!(polls.load(Ordering::SeqCst), 0);
}

/// As many frames, all but the first of them empty.
fn frames_of(text: &'static str, count: usize) -> Frames {
    let empty = (1..count).map(|_| data(""));
    std::iter::once(data(text)).chain(empty).collect()
}

/// A demand in pieces is a demand, up to 16 KiB of it.
#[test]
fn a_demand_may_come_in_frames() {
    let demand = r#"{"error":"use_dpop_nonce"}"#;
    let pieces = demand.bytes().map(|byte| data(vec![byte])).collect();
    let padded = format!("{demand}{}", " ".repeat(16 * 1024 - demand.len()));
    for (name, frames) in [
        ("pieces", pieces),
        ("with trailers", vec![data(demand), trailers()]),
        ("in as many as are read", frames_of(demand, 255)),
        ("of 16 KiB", vec![data(padded)]),
    ] {
        let (response, _, calls) = token_answer(JSON, frames, Then::End);
        assert_eq!(at_once(response).unwrap().status(), 200, "{name}");
        assert_eq!(calls.load(Ordering::SeqCst), 2, "{name}");
    }
}

/// C-1, C-31: what is not for a server of the layer is not sent.
#[test]
fn nothing_is_sent_to_another_server() {
    let layer = DpopClientLayer::new(key(), token(), url("https://api.example.com/v1"))
        .add_server(url("https://other.example.com:8443"));
    let tokens = TokenClientLayer::new(key(), url("https://api.example.com/v1"))
        .add_server(url("https://other.example.com:8443"));
    let rows = [
        ("below the prefix", "https://api.example.com/v1/x", true),
        ("the prefix itself", "https://api.example.com/v1", true),
        ("with a query", "https://api.example.com/v1?x", true),
        ("the second", "https://other.example.com:8443/x", true),
        (
            "in another spelling",
            "HTTPS://API.example.com:443/%76%31/x",
            true,
        ),
        ("another host", "https://evil.example.com/v1/x", false),
        (
            "a longer host",
            "https://api.example.com.evil.com/v1/x",
            false,
        ),
        (
            "a dot behind the host",
            "https://api.example.com./v1/x",
            false,
        ),
        ("another port", "https://api.example.com:8443/v1/x", false),
        ("the port of http", "https://api.example.com:80/v1/x", false),
        ("C-1: http", "http://api.example.com/v1/x", false),
        (
            "C-1: http at the same port",
            "http://api.example.com:443/v1/x",
            false,
        ),
        ("above the prefix", "https://api.example.com/", false),
        ("a longer segment", "https://api.example.com/v10", false),
        (
            "out of the prefix",
            "https://api.example.com/v1/../x",
            false,
        ),
        (
            "out of it, encoded",
            "https://api.example.com/v1/%2e%2E/x",
            false,
        ),
        ("an encoded slash", "https://api.example.com/v1%2Fx", false),
        ("another case", "https://api.example.com/V1/x", false),
        ("an empty segment", "https://api.example.com//v1/x", false),
        (
            "the second at the first's port",
            "https://other.example.com/x",
            false,
        ),
    ];
    for (name, uri, is_ours) in rows {
        let server = Server::new(|_, _| ok());
        let request = || Request::get(uri).body(String::new()).unwrap();
        let resource = block_on(layer.layer(server.clone()).oneshot(request())).map(|_| ());
        let token = block_on(tokens.layer(server.clone()).oneshot(request())).map(|_| ());
        if is_ours {
            assert!(resource.is_ok() && token.is_ok(), "{name}");
            assert_eq!(server.proofs().len(), 2, "{name}");
        } else {
            for outcome in [resource, token] {
                let error = outcome.unwrap_err();
                assert!(
                    matches!(error, ClientError::OtherServer),
                    "{name}: {error:?}"
                );
            }
            assert_eq!(server.count(), 0, "{name}: sent");
        }
    }
}

/// C-31
#[test]
fn requests_to_other_servers_can_go_out_unsigned() {
    let resource = DpopClientLayer::new(key(), token(), url("https://api.example.com/v1"))
        .with_other_servers_unsigned();
    let tokens = TokenClientLayer::new(key(), url("https://api.example.com/v1"))
        .with_other_servers_unsigned();
    let server = Server::new(|_, _| {
        let mut demand = Kind::Resource.demand("n");
        demand
            .headers_mut()
            .insert("date", date(NOW + 600).parse().unwrap());
        demand
    });
    let clients: [Client; 2] = [
        boxed(resource.layer(server.clone())),
        boxed(tokens.layer(server.clone())),
    ];
    for client in clients {
        for uri in [
            "https://evil.example.com/v1/x",
            "https://api.example.com/x",
            "https://evil.example.com/a|b",
        ] {
            let request = Request::get(uri)
                .header("dpop", "the caller's")
                .header("authorization", "DPoP the-caller's")
                .header("authorization", "Basic YTpi")
                .header("x-other", "stays")
                .body(String::new())
                .unwrap();
            let before = server.count();
            assert_eq!(ask(&client, request).status(), 401, "{uri}: as it came");
            let seen = server.seen();
            assert_eq!(seen.len(), before + 1, "{uri}: sent once");
            let headers = &seen[before].headers;
            let fields: HashSet<_> = headers.keys().map(http::HeaderName::as_str).collect();
            let expected = HashSet::from(["authorization", "dpop", "x-other"]);
            assert_eq!(fields, expected, "{uri}");
            assert_eq!(headers["dpop"], "the caller's", "{uri}");
            let kept: Vec<_> = headers.get_all("authorization").iter().collect();
            assert_eq!(kept, ["DPoP the-caller's", "Basic YTpi"], "{uri}");
        }
    }
}

/// C-31: a layer for each API, one around the other. Each signs for its own and leaves what the other
/// has signed.
#[test]
fn layers_for_two_servers_stand_around_each_other() {
    let server = Server::new(|_, _| ok());
    let (one, two) = (
        url("https://one.example.com"),
        url("https://two.example.com"),
    );
    let text = |name: &str| -> AccessTokenText { format!("token-{name}").parse().unwrap() };
    let service = ServiceBuilder::new()
        .layer(DpopClientLayer::new(key(), text("one"), one).with_other_servers_unsigned())
        .layer(DpopClientLayer::new(key(), text("two"), two).with_other_servers_unsigned())
        .service(server.clone());
    for name in ["one", "two", "three"] {
        let request = Request::get(format!("https://{name}.example.com/"))
            .body(String::new())
            .unwrap();
        block_on(service.clone().oneshot(request)).unwrap();
    }
    let sent: Vec<Option<String>> = server
        .seen()
        .iter()
        .map(|head| {
            let field = head.headers.get("authorization")?;
            assert_eq!(head.headers.get_all("dpop").iter().count(), 1);
            Some(field.to_str().unwrap().to_owned())
        })
        .collect();
    let expected = [Some("DPoP token-one"), Some("DPoP token-two"), None];
    assert_eq!(
        sent.iter().map(Option::as_deref).collect::<Vec<_>>(),
        expected
    );
}

/// C-31: a `Host` that was copied from another request would take the token elsewhere.
#[test]
fn a_host_field_must_name_the_server_of_the_url() {
    type Hosts = &'static [&'static str];
    let rows: [(&str, Hosts, bool); 8] = [
        ("none", &[], true),
        ("the same", &["api.example.com"], true),
        ("in upper case", &["API.example.com"], true),
        ("with the default port", &["api.example.com:443"], true),
        ("another", &["evil.example.com"], false),
        ("another port", &["api.example.com:8443"], false),
        ("two", &["api.example.com", "evil.example.com"], false),
        ("no host", &["not a host"], false),
    ];
    for (name, hosts, passes) in rows {
        let server = Server::new(|_, _| ok());
        let clients: [Client; 2] = [
            boxed(DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(server.clone())),
            boxed(TokenClientLayer::new(key(), url(AUDIENCE)).layer(server.clone())),
        ];
        for client in clients {
            let mut request = Request::get("https://api.example.com/orders")
                .body(String::new())
                .unwrap();
            for host in hosts {
                request.headers_mut().append("host", host.parse().unwrap());
            }
            match block_on(client.oneshot(request)) {
                Ok(_) => assert!(passes, "{name}"),
                Err(error) => {
                    assert!(matches!(error, ClientError::OtherHost), "{name}: {error:?}");
                    assert!(!passes, "{name}");
                }
            }
        }
        assert_eq!(server.count(), if passes { 2 } else { 0 }, "{name}");
    }
}

/// C-31: where only what lies below a path is meant, a path that servers may read in two ways is not
/// signed. For a whole origin it makes no difference.
#[test]
fn a_path_with_two_readings_is_not_below_a_prefix() {
    for path in [
        "/evil/../v1/x",
        "/evil/%2e%2E/v1/x",
        "/v1/./x",
        "/v1/..%2fevil",
        "/v1/..%5Cevil",
        "/v1/%2Fevil",
        "/v1/..;/evil",
        "/v1/..%3Bx/evil",
        "/v1/%252e%252e/evil",
        "/v1/..%25252fevil",
        "/v1/..%00/evil",
    ] {
        let request = || {
            Request::get(format!("https://api.example.com{path}"))
                .body(String::new())
                .unwrap()
        };
        let server = Server::new(|_, _| ok());
        let below = DpopClientLayer::new(key(), token(), url("https://api.example.com/v1"));
        let error = block_on(below.layer(server.clone()).oneshot(request())).unwrap_err();
        assert!(
            matches!(error, ClientError::OtherServer),
            "{path}: {error:?}"
        );
        assert_eq!(server.count(), 0, "{path}");
        let everywhere = DpopClientLayer::new(key(), token(), url(AUDIENCE));
        block_on(everywhere.layer(server.clone()).oneshot(request())).unwrap();
        assert_eq!(server.count(), 1, "{path}");
    }
}

/// C-7: where no proof can be made, nothing is sent.
#[test]
fn nothing_is_sent_where_no_proof_can_name_the_url() {
    use InvalidRequestUrl::{NotHttp, Path};
    for (uri, expected) in [
        ("/orders", NotHttp),
        ("https://joe@api.example.com/orders", NotHttp),
        ("wss://api.example.com/orders", NotHttp),
        ("https://api.example.com/a|b", Path),
    ] {
        for kind in [Kind::Resource, Kind::Token] {
            let server = Server::new(|_, _| ok());
            let layer = DpopClientLayer::new(key(), token(), url(AUDIENCE));
            let open = layer.clone().with_other_servers_unsigned();
            let tokens = TokenClientLayer::new(key(), url(AUDIENCE));
            let clients: [Client; 2] = match kind {
                Kind::Resource => [
                    boxed(layer.layer(server.clone())),
                    boxed(open.layer(server.clone())),
                ],
                _ => [
                    boxed(tokens.layer(server.clone())),
                    boxed(tokens.with_other_servers_unsigned().layer(server.clone())),
                ],
            };
            for client in clients {
                let request = Request::get(uri).body(String::new()).unwrap();
                let error = error_of(block_on(client.oneshot(request)));
                assert!(
                    matches!(error, ClientError::Url(reason) if reason == expected),
                    "{uri}: {error:?}"
                );
            }
            assert_eq!(server.count(), 0, "{uri}: sent");
        }
    }
}

/// C-31: a redirect gets a proof of its own for where it leads.
#[test]
fn a_redirect_on_the_same_server_gets_a_new_proof() {
    let server = Server::new(|_, head| match head.uri.path() {
        "/orders" => answer(307, &[("location", "/v2/orders?x=1")], ""),
        "/v2/orders" => answer(302, &[("location", "https://api.example.com:443/end")], ""),
        _ => ok(),
    });
    let service = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(DpopClientLayer::new(key(), token(), url(AUDIENCE)))
        .service(server.clone());
    let request = Request::get(ORDERS).body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(block_on(service.oneshot(request)).unwrap().status(), 200);
    let proofs = server.proofs();
    let htus: Vec<_> = proofs.iter().map(|p| p.claim("htu").unwrap()).collect();
    assert_eq!(
        htus,
        [
            ORDERS,
            "https://api.example.com/v2/orders",
            "https://api.example.com/end"
        ],
        "C-31"
    );
    let jtis: HashSet<_> = proofs.iter().map(ReadProof::jti).collect();
    assert_eq!(jtis.len(), 3, "C-2");
}

/// Tries again after every 503.
#[derive(Clone)]
struct Again(usize);

impl<E> Policy<Request<String>, Answered, E> for Again {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<String>,
        result: &mut Result<Answered, E>,
    ) -> Option<Self::Future> {
        let failed = result.as_ref().is_ok_and(|outcome| outcome.status() == 503);
        self.0 = self.0.checked_sub(usize::from(failed))?;
        failed.then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<String>) -> Option<Request<String>> {
        Some(request.clone())
    }
}

/// C-20
#[test]
fn every_try_of_a_retry_layer_has_a_proof_of_its_own() {
    let server = Server::new(|number, _| {
        if number < 4 {
            answer(503, &[], "")
        } else {
            ok()
        }
    });
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(Again(5)))
        .layer(DpopClientLayer::new(key(), token(), url(AUDIENCE)))
        .service(server.clone());
    let response = block_on(service.oneshot(Kind::Resource.request())).unwrap();
    assert_eq!(response.status(), 200);
    let jtis: HashSet<_> = server.proofs().iter().map(|p| p.jti().to_owned()).collect();
    assert_eq!(jtis.len(), 4, "C-20");
}

/// A service that insists on being asked whether it is ready, and says no now and then.
struct Strict {
    is_ready: bool,
    polls: Arc<AtomicUsize>,
    fails_at: usize,
    server: Server,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self {
            is_ready: false,
            polls: Arc::clone(&self.polls),
            fails_at: self.fails_at,
            server: self.server.clone(),
        }
    }
}

impl Service<Request<String>> for Strict {
    type Response = Answered;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<Answered, std::io::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        let poll = self.polls.fetch_add(1, Ordering::SeqCst) + 1;
        if poll == self.fails_at {
            return Poll::Ready(Err(std::io::Error::other("closed")));
        }
        if poll % 2 == 1 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        assert!(self.is_ready, "called before it was ready");
        self.is_ready = false;
        let outcome = block_on_ready(self.server.call(request));
        std::future::ready(Ok(outcome))
    }
}

fn block_on_ready(future: std::future::Ready<Result<Answered, Infallible>>) -> Answered {
    match future.into_inner() {
        Ok(outcome) => outcome,
    }
}

#[test]
fn the_inner_service_is_called_only_when_it_is_ready() {
    let server = Server::new(|number, _| {
        if number % 3 == 0 {
            ok()
        } else {
            Kind::Resource.demand(&format!("n{number}"))
        }
    });
    let strict = Strict {
        is_ready: false,
        polls: Arc::default(),
        fails_at: usize::MAX,
        server: server.clone(),
    };
    let mut service = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(strict);
    for round in 1..4 {
        let response = block_on(async {
            let ready = service.ready().await?;
            ready.call(Kind::Resource.request()).await
        });
        assert_eq!(response.unwrap().status(), 200);
        assert_eq!(server.count(), 3 * round);
    }
}

#[test]
fn a_service_that_fails_to_become_ready_is_a_transport_error() {
    for (fails_at, sent) in [(1, 0), (2, 0), (3, 1), (6, 2)] {
        let server = Server::new(|number, _| Kind::Token.demand(&format!("n{number}")));
        let strict = Strict {
            is_ready: false,
            polls: Arc::default(),
            fails_at,
            server: server.clone(),
        };
        let service = TokenClientLayer::new(key(), url(ISSUER)).layer(strict);
        let error = error_of(block_on(service.oneshot(Kind::Token.request())));
        let ClientError::Transport(cause) = error else {
            panic!("{error:?}");
        };
        assert_eq!(cause.to_string(), "closed");
        assert_eq!(server.count(), sent, "poll {fails_at}");
    }
}

#[test]
fn a_failure_of_the_inner_service_is_a_transport_error() {
    let failing = service_fn(async |_: Request<()>| {
        Err::<Answered, _>(std::io::Error::other("connection reset"))
    });
    let request = Request::get(ORDERS).body(()).unwrap();
    let service = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(failing);
    let error = error_of(block_on(service.oneshot(request)));
    assert_eq!(error.to_string(), "the request could not be sent");
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "connection reset");
}

/// With room for one request, a retry takes the room of the attempt before.
#[test]
fn a_retry_fits_where_one_request_does() {
    for kind in KINDS {
        let server = Server::with_answers([kind.demand("a"), kind.demand("b")]);
        let limited = ConcurrencyLimitLayer::new(1).layer(server.clone());
        let client: Client = match kind {
            Kind::Resource => {
                boxed(DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(limited))
            }
            _ => boxed(TokenClientLayer::new(key(), url(ISSUER)).layer(limited)),
        };
        for _ in 0..2 {
            let response = at_once(client.clone().oneshot(kind.request())).unwrap();
            assert_eq!(response.status(), 200, "{kind:?}");
        }
        assert_eq!(server.count(), 4, "{kind:?}");
    }
}

/// The one connection of [`OneConnection`], until it is dropped.
struct Busy(Arc<AtomicBool>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Body for Busy {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}

/// A service that is ready again when the last response's body is gone, as an HTTP/1 connection is.
#[derive(Clone)]
struct OneConnection {
    is_busy: Arc<AtomicBool>,
    server: Server,
}

impl Service<Request<String>> for OneConnection {
    type Response = Response<Busy>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Busy>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.is_busy.load(Ordering::SeqCst) {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let was_busy = self.is_busy.swap(true, Ordering::SeqCst);
        assert!(!was_busy, "called while the connection is in use");
        let busy = Busy(Arc::clone(&self.is_busy));
        let response = block_on_ready(self.server.call(request)).map(|_| busy);
        std::future::ready(Ok(response))
    }
}

#[test]
fn a_rejected_response_gives_its_connection_back_before_the_retry() {
    let server = Server::with_answers([Kind::Resource.demand("a"), Kind::Resource.demand("b")]);
    let connection = OneConnection {
        is_busy: Arc::default(),
        server: server.clone(),
    };
    let service = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(connection);
    let response = at_once(service.oneshot(Kind::Resource.request())).unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(server.count(), 3);
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

fn fresh(nonce: &str) -> Answered {
    answer(200, &[("dpop-nonce", nonce)], "")
}

/// C-31: nobody waits for anybody, and a request that is given up leaves nothing behind.
#[test]
fn requests_do_not_wait_for_each_other() {
    block_on(async {
        let (server, mut calls) = by_hand();
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(server);
        let send = || tokio::spawn(client.clone().oneshot(Kind::Resource.request()));
        let one = send();
        let (_, first) = next(&mut calls).await;
        let two = send();
        let (_, second) = next(&mut calls).await;
        second.send(fresh("n")).unwrap();
        assert_eq!(two.await.unwrap().unwrap().status(), 200);

        // Given up while the server thinks, while it demands, and before it is sent.
        one.abort();
        assert!(one.await.unwrap_err().is_cancelled());
        drop(first);
        let three = send();
        let (_, third) = next(&mut calls).await;
        third.send(Kind::Resource.demand("m")).unwrap();
        let (head, _unanswered) = next(&mut calls).await;
        assert_eq!(nonce_of(&head).as_deref(), Some("m"));
        three.abort();
        drop(client.clone().oneshot(Kind::Resource.request()));

        let four = send();
        let (head, fourth) = next(&mut calls).await;
        assert_eq!(nonce_of(&head).as_deref(), Some("m"), "C-22");
        fourth.send(ok()).unwrap();
        assert_eq!(four.await.unwrap().unwrap().status(), 200);
    });
}

/// C-22: responses arrive in any order; the newest nonce stays.
#[test]
fn a_late_response_does_not_bring_an_old_nonce_back() {
    block_on(async {
        let (server, mut calls) = by_hand();
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(server);
        let send = || tokio::spawn(client.clone().oneshot(Kind::Resource.request()));

        // Sent before there was any nonce, answered when the first is old.
        let oldest = send();
        let (_, answer_oldest) = next(&mut calls).await;

        let one = send();
        let (_, answer_one) = next(&mut calls).await;
        answer_one.send(fresh("first")).unwrap();
        one.await.unwrap().unwrap();

        // Sent with the first, answered when it is old, by a server that repeats it.
        let old = send();
        let (head, answer_old) = next(&mut calls).await;
        assert_eq!(nonce_of(&head).as_deref(), Some("first"));

        let two = send();
        let (_, answer_two) = next(&mut calls).await;
        answer_two.send(fresh("second")).unwrap();
        two.await.unwrap().unwrap();

        answer_old.send(fresh("first")).unwrap();
        old.await.unwrap().unwrap();
        answer_oldest.send(fresh("first")).unwrap();
        oldest.await.unwrap().unwrap();

        let last = send();
        let (head, answer_last) = next(&mut calls).await;
        assert_eq!(nonce_of(&head).as_deref(), Some("second"), "C-22");

        // Several nodes without a common secret: now the first is the latest again.
        answer_last.send(Kind::Resource.demand("first")).unwrap();
        let (head, answer_again) = next(&mut calls).await;
        assert_eq!(nonce_of(&head).as_deref(), Some("first"), "C-21");
        answer_again.send(ok()).unwrap();
        assert_eq!(last.await.unwrap().unwrap().status(), 200);
    });
}

/// C-22: which nonce is the latest, when several requests were under way.
#[test]
fn the_latest_nonce_is_the_one_that_was_not_there_before() {
    /// A request goes out, or the one of this number is answered with this nonce.
    #[derive(Clone, Copy)]
    enum Step {
        Send,
        Answered(usize, &'static str),
    }
    use Step::{Answered, Send};
    let rows: [(&str, &[Step], &str); 4] = [
        (
            "a late response with a new one",
            &[Send, Send, Answered(1, "a"), Answered(0, "b")],
            "b",
        ),
        (
            "a late response with the latest",
            &[Send, Send, Answered(1, "a"), Answered(0, "a")],
            "a",
        ),
        (
            "a response that repeats its own, two later",
            &[
                Send,
                Answered(0, "a"),
                Send,
                Send,
                Answered(2, "b"),
                Send,
                Answered(3, "c"),
                Answered(1, "a"),
            ],
            "c",
        ),
        (
            "the superseded one, when the latest came twice",
            &[
                Send,
                Send,
                Answered(1, "a"),
                Send,
                Send,
                Answered(2, "b"),
                Answered(3, "b"),
                Answered(0, "a"),
            ],
            "b",
        ),
    ];
    block_on(async {
        for (name, steps, expected) in rows {
            let (server, mut calls) = by_hand();
            let client = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(server);
            let send = || tokio::spawn(client.clone().oneshot(Kind::Resource.request()));
            let mut sent = Vec::new();
            for step in steps {
                match step {
                    Send => {
                        let request = send();
                        let (_, outcome) = next(&mut calls).await;
                        sent.push(Some((request, outcome)));
                    }
                    Answered(number, nonce) => {
                        let (request, outcome) = sent[*number].take().unwrap();
                        outcome.send(fresh(nonce)).unwrap();
                        request.await.unwrap().unwrap();
                    }
                }
            }
            let _last = send();
            let (head, _unanswered) = next(&mut calls).await;
            assert_eq!(nonce_of(&head).as_deref(), Some(expected), "C-22: {name}");
        }
    });
}

/// C-21: a demand that brings no nonce by itself is met by one that another response brought.
#[test]
fn a_nonce_that_another_response_brought_meets_a_demand() {
    block_on(async {
        let (server, mut calls) = by_hand();
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(server);
        let send = || tokio::spawn(client.clone().oneshot(Kind::Resource.request()));
        let one = send();
        let (_, answer_one) = next(&mut calls).await;
        let two = send();
        let (_, answer_two) = next(&mut calls).await;
        answer_two.send(fresh("n")).unwrap();
        two.await.unwrap().unwrap();
        answer_one
            .send(Kind::Resource.rejection("use_dpop_nonce", &[]))
            .unwrap();
        let (head, answer_again) = next(&mut calls).await;
        assert_eq!(nonce_of(&head).as_deref(), Some("n"));
        answer_again.send(ok()).unwrap();
        assert_eq!(one.await.unwrap().unwrap().status(), 200);
    });
}

/// C-29: all that were rejected for a wrong clock are sent again, not only the first to hear of it.
#[test]
fn concurrent_requests_are_all_corrected() {
    block_on(async {
        let (server, mut calls) = by_hand();
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE))
            .with_clock(|| at(NOW))
            .layer(server);
        let later = date(NOW + 600);
        let tasks: Vec<_> = (0..8)
            .map(|_| tokio::spawn(client.clone().oneshot(Kind::Resource.request())))
            .collect();
        let mut first = Vec::new();
        for _ in 0..8 {
            first.push(next(&mut calls).await);
        }
        for (_, outcome) in first {
            outcome
                .send(Kind::Resource.invalid_proof(&[("date", &later)]))
                .unwrap();
        }
        for _ in 0..8 {
            let (head, answered) = next(&mut calls).await;
            let iat = ReadProof::in_headers(&head.headers).iat();
            assert_eq!(iat, NOW + 600, "C-29");
            answered.send(answer(200, &[("date", &later)], "")).unwrap();
        }
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap().status(), 200, "C-29");
        }
    });
}

/// C-29: a response that tells nothing of the time does not undo what another one has told.
#[test]
fn a_late_response_does_not_bring_a_wrong_clock_back() {
    block_on(async {
        let (server, mut calls) = by_hand();
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE))
            .with_clock(|| at(NOW))
            .layer(server);
        let send = || tokio::spawn(client.clone().oneshot(Kind::Resource.request()));
        let later = date(NOW + 600);
        for late in [
            ok(),
            answer(500, &[], ""),
            Kind::Resource.invalid_proof(&[]),
            Kind::Resource.rejection("use_dpop_nonce", &[]),
        ] {
            let old = send();
            let (_, answer_old) = next(&mut calls).await;
            let one = send();
            let (_, reject_one) = next(&mut calls).await;
            let rejection = Kind::Resource.invalid_proof(&[("date", &later)]);
            reject_one.send(rejection).unwrap();
            let (_, answer_one) = next(&mut calls).await;
            answer_one.send(ok()).unwrap();
            one.await.unwrap().unwrap();
            answer_old.send(late).unwrap();
            old.await.unwrap().unwrap();
            let last = send();
            let (head, answer_last) = next(&mut calls).await;
            let iat = ReadProof::in_headers(&head.headers).iat();
            assert_eq!(iat, NOW + 600, "C-29");
            // As new: the clock by which our own is right.
            answer_last
                .send(answer(200, &[("date", &date(NOW))], ""))
                .unwrap();
            last.await.unwrap().unwrap();
        }
    });
}

/// A server that takes only its current nonce, and decides on nothing before a round of requests is
/// there. What comes later in the round are retries.
struct Rotating {
    current: Mutex<String>,
    round: Barrier,
    trips: AtomicUsize,
}

const CONCURRENT: usize = 64;

/// Runs a future whose tasks run on two threads.
fn in_parallel<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap()
        .block_on(future)
}

impl Rotating {
    async fn answer(&self, request: Request<String>) -> Answered {
        if self.trips.fetch_add(1, Ordering::SeqCst) < CONCURRENT {
            self.round.wait().await;
        }
        let current = self.current.lock().unwrap().clone();
        if ReadProof::in_headers(request.headers()).nonce() == Some(current.as_str()) {
            fresh(&current)
        } else {
            Kind::Resource.demand(&current)
        }
    }
}

/// C-22, C-31: with a nonce that is known every request is one round trip; when it changes, every
/// request is two at most; afterwards it is one again.
#[test]
fn concurrent_requests_share_the_newest_nonce() {
    in_parallel(async {
        let server = Arc::new(Rotating {
            current: Mutex::new("nonce-0".into()),
            round: Barrier::new(CONCURRENT + 1),
            trips: AtomicUsize::new(CONCURRENT),
        });
        let inner = {
            let server = Arc::clone(&server);
            service_fn(move |request: Request<String>| {
                let server = Arc::clone(&server);
                async move { Ok::<_, Infallible>(server.answer(request).await) }
            })
        };
        let client = DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(inner);
        let first = client.clone().oneshot(Kind::Resource.request()).await;
        assert_eq!(first.unwrap().status(), 200);

        for (round, rotates) in [false, true, false, true, true, false]
            .into_iter()
            .enumerate()
        {
            server.trips.store(0, Ordering::SeqCst);
            let tasks: Vec<_> = (0..CONCURRENT)
                .map(|_| tokio::spawn(client.clone().oneshot(Kind::Resource.request())))
                .collect();
            // All of them have been sent; none is decided.
            while server.trips.load(Ordering::SeqCst) < CONCURRENT {
                tokio::task::yield_now().await;
            }
            if rotates {
                *server.current.lock().unwrap() = format!("nonce-{}", round + 1);
            }
            server.round.wait().await;
            for task in tasks {
                assert_eq!(task.await.unwrap().unwrap().status(), 200, "round {round}");
            }
            let expected = if rotates { 2 * CONCURRENT } else { CONCURRENT };
            assert_eq!(
                server.trips.load(Ordering::SeqCst),
                expected,
                "round {round}"
            );
        }
    });
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

/// C-15, C-21, C-22: against our own resource server, across the ends of its nonce periods.
#[test]
fn our_own_server_is_content_across_nonce_periods() {
    let start = NOW - NOW % 120;
    let clock = TestClock::at(start);
    let trips = Arc::new(AtomicUsize::new(0));
    let secret = NonceSecret::from_bytes(&[7; 32]).unwrap();
    let server = DpopLayer::new(verifier_by(|rules| {
        rules
            .with_clock(clock.read())
            .with_nonces(StatelessNonces::new(secret))
    }))
    .layer(service_fn(async |_: Request<String>| {
        Ok::<_, Infallible>(Response::new(()))
    }));
    let counted = {
        let trips = Arc::clone(&trips);
        server.map_request(move |request: Request<String>| {
            trips.fetch_add(1, Ordering::SeqCst);
            request
        })
    };
    let key = key();
    let token = bound_to(&key);
    let client = DpopClientLayer::new(key, token, url(AUDIENCE))
        .with_clock(clock.read())
        .layer(counted);
    // (seconds since the start, round trips of 64 requests at once)
    let rows = [
        ("the first demand", 0, 128),
        ("known", 1, 64),
        ("the end of the period", 119, 64),
        (
            "the next period: accepted, and the next nonce comes along",
            120,
            64,
        ),
        ("with the new one", 121, 64),
        ("two periods later: stale", 400, 128),
        ("known", 401, 64),
    ];
    for (name, seconds, expected) in rows {
        clock.set(start + seconds);
        trips.store(0, Ordering::SeqCst);
        in_parallel(async {
            let tasks: Vec<_> = (0..64)
                .map(|_| tokio::spawn(client.clone().oneshot(Kind::Resource.request())))
                .collect();
            for task in tasks {
                assert_eq!(task.await.unwrap().unwrap().status(), 200, "{name}");
            }
        });
        let trips = trips.load(Ordering::SeqCst);
        assert!((64..=expected).contains(&trips), "{name}: {trips}");
    }
}

/// The token is asked for once for each request, however often it is sent.
#[test]
fn a_token_source_is_asked_once_for_a_request() {
    let asked = Arc::new(AtomicUsize::new(0));
    let source = {
        let asked = Arc::clone(&asked);
        move || {
            let number = asked.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                tokio::task::yield_now().await;
                Ok(format!("token-{number}").parse().unwrap())
            }
        }
    };
    let server = Server::new(|number, _| {
        if number % 2 == 1 {
            Kind::Resource.demand(&format!("n{number}"))
        } else {
            ok()
        }
    });
    let service = DpopClientLayer::new(key(), source, url(AUDIENCE))
        .with_other_servers_unsigned()
        .layer(server.clone());
    for _ in 0..2 {
        block_on(service.clone().oneshot(Kind::Resource.request())).unwrap();
    }
    let elsewhere = Request::get("https://evil.example.com/")
        .body(String::new())
        .unwrap();
    block_on(service.oneshot(elsewhere)).unwrap();
    let sent: Vec<_> = server
        .seen()
        .iter()
        .map(|head| head.headers.get("authorization").cloned())
        .collect();
    let one: HeaderValue = field(b"DPoP token-1");
    let two: HeaderValue = field(b"DPoP token-2");
    let expected = [Some(&one), Some(&one), Some(&two), Some(&two), None];
    assert_eq!(
        sent.iter().map(Option::as_ref).collect::<Vec<_>>(),
        expected
    );
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    for proof in server.proofs_of_signed() {
        assert!(
            ["token-1", "token-2"]
                .map(common::ath)
                .contains(&proof.claim("ath").unwrap().to_owned())
        );
    }
}

impl Server {
    fn proofs_of_signed(&self) -> Vec<ReadProof> {
        self.seen()
            .iter()
            .filter(|head| head.headers.contains_key("dpop"))
            .map(|head| ReadProof::in_headers(&head.headers))
            .collect()
    }
}

#[test]
fn without_a_token_nothing_is_sent() {
    async fn logged_out() -> Result<AccessTokenText, TokenSourceError> {
        Err(TokenSourceError::new("logged out"))
    }
    let server = Server::new(|_, _| ok());
    let service = DpopClientLayer::new(key(), logged_out, url(AUDIENCE)).layer(server.clone());
    let error = error_of(block_on(service.oneshot(Kind::Resource.request())));
    assert!(matches!(error, ClientError::Token(_)), "{error:?}");
    assert_eq!(error.to_string(), "there is no access token");
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "logged out");
    assert_eq!(server.count(), 0);
    assert_eq!(
        block_on(TokenSource::token(&token())).unwrap().as_str(),
        TOKEN
    );
}

/// A key that is elsewhere: it takes a while, and can fail.
struct Remote {
    key: SigningKey,
    outcome: fn(&SigningKey, &[u8]) -> Result<Vec<u8>, SigningError>,
}

impl ProofSigner for Remote {
    fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    fn public_key(&self) -> &Jwk {
        self.key.public_key()
    }

    async fn sign(&self, input: &[u8]) -> Result<Vec<u8>, SigningError> {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        (self.outcome)(&self.key, input)
    }
}

/// C-28: with a key that never leaves its place; what it cannot sign is not sent.
#[test]
fn a_remote_signer_signs_or_nothing_is_sent() {
    type Row = (
        &'static str,
        fn(&SigningKey, &[u8]) -> Result<Vec<u8>, SigningError>,
        bool,
    );
    let rows: [Row; 4] = [
        ("good", SigningKey::sign_now, true),
        (
            "out of reach",
            |_, _| Err(SigningError::new("timeout")),
            false,
        ),
        ("nothing", |_, _| Ok(Vec::new()), false),
        ("DER", |_, _| Ok(vec![0x30; 70]), false),
    ];
    for (name, outcome, passes) in rows {
        let server = Server::new(|_, _| ok());
        let resource = DpopClientLayer::new(
            Remote {
                key: key(),
                outcome,
            },
            token(),
            url(AUDIENCE),
        )
        .layer(server.clone());
        let tokens = TokenClientLayer::new(
            Remote {
                key: key(),
                outcome,
            },
            url(ISSUER),
        )
        .layer(server.clone());
        let outcomes = [
            block_on(resource.oneshot(Kind::Resource.request())).map(|_| ()),
            block_on(tokens.oneshot(Kind::Token.request())).map(|_| ()),
        ];
        for outcome in outcomes {
            match outcome {
                Ok(()) => assert!(passes, "{name}"),
                Err(ClientError::Signing(_)) => assert!(!passes, "{name}"),
                Err(error) => panic!("{name}: {error:?}"),
            }
        }
        assert_eq!(server.count(), if passes { 2 } else { 0 }, "{name}");
        for proof in server.proofs() {
            proof.assert_signed(name);
        }
    }
    // A signature of the right length that is none: the server's rejection is what the caller sees.
    let garbage = Remote {
        key: key(),
        outcome: |_, _| Ok(vec![1; 64]),
    };
    let token = bound_to(&garbage.key);
    let server = DpopLayer::new(verifier()).layer(service_fn(async |_: Request<String>| {
        Ok::<_, Infallible>(Response::new(()))
    }));
    let service = DpopClientLayer::new(garbage, token, url(AUDIENCE))
        .with_clock(|| at(NOW))
        .layer(server);
    let response = block_on(service.oneshot(Kind::Resource.request())).unwrap();
    assert_eq!(response.status(), 401);
}

/// An authorization server of a few lines: `grant`, `dpop_jkt` and `bound` come as fields, because
/// forms are not what is tested.
fn authorization_server(
    nonces: bool,
) -> impl Service<Request<String>, Response = Answered, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    let mut rules = ProofRules::new(url(ISSUER)).with_clock(|| at(NOW));
    if nonces {
        rules = rules.with_nonces(StatelessNonces::new(NonceSecret::generate()));
    }
    let endpoint = Arc::new(TokenEndpoint::new(rules));
    let rejecting = Arc::clone(&endpoint);
    let grants = service_fn(move |request: Request<String>| {
        let rejecting = Arc::clone(&rejecting);
        async move {
            let key: &ProvenKey = request.extensions().get().unwrap();
            let text = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap());
            let bound = |name: &str| text(name).map(|jkt| jkt.parse::<Thumbprint>().unwrap());
            let outcome = check_code_binding(Some(key), bound("x-dpop-jkt"))
                .and_then(|()| check_refresh_binding(Some(key), bound("x-bound")));
            if let Err(rejection) = outcome {
                return Ok::<_, Infallible>(rejecting.reject::<String>(rejection));
            }
            let jkt = key.thumbprint().to_string();
            let token = Attempt::but(|a| a.token_claims["cnf"]["jkt"] = jkt.into()).token();
            let granted = json!({ "access_token": token, "token_type": TOKEN_TYPE });
            Ok(Response::new(granted.to_string()))
        }
    });
    TokenEndpointLayer::new(endpoint)
        .layer(grants)
        .map_response(|response| response.map(Full::from))
}

/// C-12, C-13, C-14, C-26, C-27: the whole way, against our own servers.
#[test]
fn a_client_gets_a_token_refreshes_it_and_uses_it() {
    for nonces in [false, true] {
        let server = authorization_server(nonces);
        let key = key();
        let jkt = key.thumbprint().to_string();
        let tokens = |key: &SigningKey| {
            TokenClientLayer::new(key.clone(), url(ISSUER))
                .with_clock(|| at(NOW))
                .layer(server.clone())
                .and_then(collected)
        };
        let request = |headers: &[(&'static str, &str)]| {
            let mut request = Request::post(TOKEN_URL).body(String::new()).unwrap();
            for (name, value) in headers {
                request.headers_mut().insert(*name, value.parse().unwrap());
            }
            request
        };
        let mine = tokens(&key);
        let rows = [
            ("C-12: any grant", vec![], 200),
            (
                "C-26: a code bound by dpop_jkt",
                vec![("x-dpop-jkt", jkt.as_str())],
                200,
            ),
            (
                "C-14: refreshed with the same key",
                vec![("x-bound", jkt.as_str())],
                200,
            ),
        ];
        for (name, headers, status) in &rows {
            let response = block_on(mine.clone().oneshot(request(headers))).unwrap();
            assert_eq!(response.status(), *status, "{name}");
            let granted = TokenResponse::from_json(response.body()).unwrap();
            let api = DpopLayer::new(verifier()).layer(service_fn(async |_: Request<String>| {
                Ok::<_, Infallible>(Response::new(()))
            }));
            let api =
                DpopClientLayer::new(key.clone(), granted.access_token().clone(), url(AUDIENCE))
                    .with_clock(|| at(NOW))
                    .layer(api);
            let response = block_on(api.oneshot(Kind::Resource.request())).unwrap();
            assert_eq!(response.status(), 200, "C-13: {name}");
        }
        // Another key has a good proof, and no right to what is bound to the first.
        let other = tokens(&SigningKey::generate().unwrap());
        for (name, headers, _) in &rows[1..] {
            let response = block_on(other.clone().oneshot(request(headers))).unwrap();
            assert_eq!(response.status(), 400, "{name}");
            let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(body["error"], "invalid_grant", "{name}");
        }
        // C-27: a pushed authorization request has a proof by the same layer.
        let pushed = Request::post("https://as.example.com/par")
            .body(String::new())
            .unwrap();
        let response = block_on(mine.oneshot(pushed)).unwrap();
        assert_eq!(response.status(), 200, "C-27");
    }
}

/// C-24: the nonces of the authorization server and of the resource server do not mix, on one
/// machine either.
#[test]
fn layers_of_one_key_keep_their_nonces_apart() {
    let (key, server) = (
        key(),
        Server::new(|_, head| {
            let kind = if head.headers.contains_key("authorization") {
                "rs"
            } else {
                "as"
            };
            answer(200, &[("dpop-nonce", kind)], "")
        }),
    );
    let resource = DpopClientLayer::new(key.clone(), token(), url(AUDIENCE)).layer(server.clone());
    let tokens = TokenClientLayer::new(key, url(AUDIENCE)).layer(server.clone());
    for _ in 0..2 {
        block_on(tokens.clone().oneshot(Kind::Resource.request())).unwrap();
        block_on(resource.clone().oneshot(Kind::Resource.request())).unwrap();
    }
    let expected = [None, None, Some("as".to_owned()), Some("rs".to_owned())];
    assert_eq!(server.nonces(), expected, "C-24");
}

#[test]
fn debug_and_errors_show_no_secret() {
    let nonce = "nonce-of-the-server-1234";
    let key = key();
    let server = Server::new(move |_, _| fresh(nonce));
    let resource = DpopClientLayer::new(key.clone(), token(), url(AUDIENCE));
    let tokens = TokenClientLayer::new(key.clone(), url(ISSUER));
    let (client, grants) = (resource.layer(server.clone()), tokens.layer(server.clone()));
    block_on(client.clone().oneshot(Kind::Resource.request())).unwrap();
    let response = block_on(grants.clone().oneshot(Kind::Token.request())).unwrap();
    let other = Request::get("https://evil.example.com/")
        .body(String::new())
        .unwrap();
    let rejected = error_of(block_on(client.clone().oneshot(other)));
    let private: serde_json::Value = serde_json::from_str(key.to_jwk().unwrap().as_str()).unwrap();
    let proofs = server.proofs();
    let (ath, jkt) = (common::ath(TOKEN), key.thumbprint().to_string());
    let mut secrets = vec![TOKEN, nonce, &ath, &jkt];
    secrets.extend(["d", "x", "y"].map(|member| private[member].as_str().unwrap()));
    secrets.extend(proofs.iter().flat_map(|proof| proof.text.split('.')));
    let shown: [(&str, &dyn Debug); 9] = [
        ("DpopClientLayer", &resource),
        ("DpopClient", &client),
        ("TokenClientLayer", &tokens),
        ("TokenClient", &grants),
        ("ResponseBody", response.body()),
        ("CloneBody", &CloneBody),
        ("OtherServer", &rejected),
        (
            "Token",
            &ClientError::Token(TokenSourceError::new("logged out")),
        ),
        (
            "Signing",
            &ClientError::Signing(SigningError::new("timeout")),
        ),
    ];
    for (name, value) in shown {
        assert_shows_nothing(name, &format!("{value:?} {value:#?}"), &secrets);
    }
    let debug = format!("{client:?}");
    assert!(
        debug.contains(AUDIENCE),
        "but it shows the servers: {debug}"
    );
    for head in server.seen() {
        assert_shows_nothing("the request", &format!("{:?}", head.headers), &secrets);
    }
}

/// C-29: by what clocks the requests of a client are signed, one after the other, whose proofs the
/// server answers as the row says: with a rejection at that many seconds from our clock, or a status.
#[test]
fn a_clock_is_kept_only_when_a_request_has_succeeded_by_it() {
    use Said::{Rejected, Status};

    #[derive(Clone, Copy)]
    enum Said {
        Rejected(u64),
        Status(u16),
    }

    /// Each request's answers, and the seconds by which each of its proofs is off our clock.
    type Row = (&'static str, &'static [(Said, u64)]);
    let rows: [Row; 5] = [
        (
            "a success keeps it",
            &[(Rejected(600), 0), (Status(200), 600), (Status(200), 600)],
        ),
        (
            "a gateway's answer does not",
            &[(Rejected(600), 0), (Status(503), 600), (Status(200), 0)],
        ),
        (
            "too many requests do not",
            &[(Rejected(600), 0), (Status(429), 600), (Status(200), 0)],
        ),
        (
            "another rejection forgets the one that was kept",
            &[
                (Rejected(600), 0),
                (Status(200), 600),
                (Rejected(1200), 600),
                (Rejected(1200), 1200),
                (Status(200), 0),
            ],
        ),
        (
            "a rejection for another reason does not",
            &[
                (Rejected(600), 0),
                (Status(200), 600),
                (Rejected(600), 600),
                (Status(200), 600),
            ],
        ),
    ];
    for kind in KINDS {
        for (name, row) in rows {
            let server = Server::new(move |number, _| match row[number - 1].0 {
                Rejected(seconds) => kind.invalid_proof(&[("date", &date(NOW + seconds))]),
                Status(status) => answer(status, &[], ""),
            });
            let client = kind.client(&server);
            while server.count() < row.len() {
                ask(&client, kind.request());
            }
            let signed: Vec<_> = server.proofs().iter().map(|p| p.iat() - NOW).collect();
            let expected: Vec<_> = row.iter().map(|(_, seconds)| *seconds).collect();
            assert_eq!(signed, expected, "{kind:?}: {name}");
        }
    }
}

/// C-29: a time that one request could not try is tried by one other.
#[test]
fn a_clock_that_was_not_tried_is_tried_once() {
    let server = Server::new(move |number, _| match number {
        1 => Kind::Resource.invalid_proof(&[("date", &date(NOW + 600))]),
        2 => answer(503, &[], ""),
        _ => ok(),
    });
    let client = boxed(
        DpopClientLayer::new(key(), token(), url(AUDIENCE))
            .with_clock(|| at(NOW))
            .with_body_copy(|_: &String| None)
            .layer(server.clone()),
    );
    let error = error_of(block_on(client.clone().oneshot(Kind::Resource.request())));
    assert!(matches!(error, ClientError::BodyNotCopyable), "{error:?}");
    for status in [503, 200] {
        assert_eq!(ask(&client, Kind::Resource.request()).status(), status);
    }
    let signed: Vec<_> = server.proofs().iter().map(|p| p.iat() - NOW).collect();
    assert_eq!(signed, [0, 600, 0]);
}
