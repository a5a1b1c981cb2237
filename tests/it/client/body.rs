//! Copies of request bodies, and response bodies that the layer inspects.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_dpop::client::{
    BodyCopy, ClientError, CloneBody, DpopClientLayer, ResponseBody, TokenClientLayer,
};

use common::proofs::ReadProof;
use common::{AUDIENCE, ISSUER, NOW, at, block_on};

use super::{
    Client, KINDS, MockResponse, MockServer, ORDERS, ServerKind, TOKEN_URL, boxed, expect_error,
    expect_ready, key, ok, response_with, send, server_with_clock, token, url,
};

/// The bodies that a server has received.
type ReceivedBodies = Arc<Mutex<Vec<String>>>;

/// A server that demands a nonce from requests without one.
fn demanding_server(
    bodies: &ReceivedBodies,
) -> impl Service<Request<String>, Response = MockResponse, Error = Infallible, Future: Send>
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
            ServerKind::Resource.nonce_demand("n")
        }))
    })
}

/// C-31: by default, the body is cloned.
#[test]
fn a_retry_sends_the_whole_body_again() {
    let bodies = ReceivedBodies::default();
    let service =
        DpopClientLayer::new(key(), token(), url(AUDIENCE)).layer(demanding_server(&bodies));
    let request = Request::put(ORDERS).body("a body".to_owned()).unwrap();
    assert_eq!(block_on(service.oneshot(request)).unwrap().status(), 200);
    assert_eq!(*bodies.lock().unwrap(), ["a body", "a body"]);
}

/// C-31: there is no retry, but the next request uses the nonce.
#[test]
fn a_body_that_cannot_be_copied_is_sent_once() {
    let bodies = ReceivedBodies::default();
    let service = DpopClientLayer::new(key(), token(), url(AUDIENCE))
        .with_body_copy(|_: &String| None)
        .layer(demanding_server(&bodies));
    let request = || Request::put(ORDERS).body("a body".to_owned()).unwrap();
    let error = expect_error(block_on(service.clone().oneshot(request())));
    assert!(matches!(error, ClientError::BodyNotCopyable), "{error:?}");
    assert_eq!(bodies.lock().unwrap().len(), 1, "no retry without the body");
    assert_eq!(block_on(service.oneshot(request())).unwrap().status(), 200);
    assert_eq!(*bodies.lock().unwrap(), ["a body", "a body"]);
}

#[test]
fn copies_bodies_with_the_configured_function() {
    assert_eq!(CloneBody.copy(&"a".to_owned()).as_deref(), Some("a"));
    let only_one = |body: &u8| (*body == 1).then_some(*body);
    assert_eq!((only_one.copy(&1), only_one.copy(&2)), (Some(1), None));
    let bodies = ReceivedBodies::default();
    let service = TokenClientLayer::new(key(), url(AUDIENCE))
        .with_body_copy(|body: &String| Some(body.to_uppercase()))
        .layer(
            demanding_server(&bodies).map_response(|mut response: MockResponse| {
                // An authorization server states its demand in the body.
                if response.status() == 401 {
                    response = ServerKind::Token.nonce_demand("n");
                }
                response
            }),
        );
    let request = Request::put(ORDERS).body("a".to_owned()).unwrap();
    assert_eq!(block_on(service.oneshot(request)).unwrap().status(), 200);
    assert_eq!(*bodies.lock().unwrap(), ["a", "A"]);
}

/// `with_body_copy` changes the type of the layer, but no other option.
#[test]
fn with_body_copy_keeps_all_other_options() {
    let copy = |body: &String| Some(body.clone());
    let clients = |kind: ServerKind, server: &MockServer| -> [Client; 2] {
        if let ServerKind::Resource = kind {
            let layer = DpopClientLayer::new(key(), token(), url(AUDIENCE))
                .with_clock(|| at(NOW))
                .without_clock_correction();
            let unsigned = layer.clone().with_other_servers_unsigned();
            [layer, unsigned].map(|layer| boxed(layer.with_body_copy(copy).layer(server.clone())))
        } else {
            let layer = TokenClientLayer::new(key(), url(ISSUER))
                .with_clock(|| at(NOW))
                .without_clock_correction();
            let unsigned = layer.clone().with_other_servers_unsigned();
            [layer, unsigned].map(|layer| boxed(layer.with_body_copy(copy).layer(server.clone())))
        }
    };
    for kind in KINDS {
        let (server, _) = server_with_clock(kind, 600, || None);
        for client in clients(kind, &server) {
            let status = send(&client, kind.request()).status();
            assert!(status.is_client_error(), "{kind:?}");
        }
        let times: Vec<_> = server.proofs().iter().map(ReadProof::iat).collect();
        assert_eq!(times, [NOW, NOW], "C-29: {kind:?}");

        let server = MockServer::new(|_, _| ok());
        let request = || {
            let request = Request::get("https://evil.example.com/");
            request.body(String::new()).unwrap()
        };
        let [default, unsigned] = clients(kind, &server);
        let error = expect_error(block_on(default.oneshot(request())));
        assert!(matches!(error, ClientError::OtherServer), "{error:?}");
        assert_eq!(server.request_count(), 0, "C-31: {kind:?}");
        assert_eq!(send(&unsigned, request()).status(), 200, "{kind:?}");
        let [head] = server.requests().try_into().unwrap();
        assert!(head.headers.is_empty(), "C-31: {kind:?}");
    }
}

/// The behaviour of a body after its last scripted frame.
#[derive(Clone, Copy, PartialEq)]
enum AfterFrames {
    End,
    EmptyFrames,
    Wait,
}

/// A body with scripted frames. It panics if it is polled after its end.
struct ScriptedBody {
    frames: VecDeque<Result<Frame<Bytes>, &'static str>>,
    after_frames: AfterFrames,
    ended: bool,
    polls: Arc<AtomicUsize>,
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        assert!(!self.ended, "polled after its end");
        match (self.frames.pop_front(), self.after_frames) {
            (Some(frame), _) => Poll::Ready(Some(frame)),
            (None, AfterFrames::End) => {
                self.ended = true;
                Poll::Ready(None)
            }
            (None, AfterFrames::EmptyFrames) => Poll::Ready(Some(Ok(Frame::data(Bytes::new())))),
            (None, AfterFrames::Wait) => Poll::Pending,
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "an item of a body's stream")]
fn data(text: impl Into<Bytes>) -> Result<Frame<Bytes>, &'static str> {
    Ok(Frame::data(text.into()))
}

#[expect(clippy::unnecessary_wraps, reason = "an item of a body's stream")]
fn trailers() -> Result<Frame<Bytes>, &'static str> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("7"));
    Ok(Frame::trailers(trailers))
}

/// A frame as text, for comparison.
fn frame_text(frame: Result<Frame<Bytes>, &'static str>) -> String {
    match frame.map(Frame::into_data) {
        Ok(Ok(data)) => String::from_utf8(data.into()).unwrap(),
        Ok(Err(frame)) => format!("{:?}", frame.into_trailers().unwrap()),
        Err(error) => format!("error: {error}"),
    }
}

type Frames = Vec<Result<Frame<Bytes>, &'static str>>;

type LayerResult = Result<Response<ResponseBody<ScriptedBody>>, ClientError>;

/// A request through the layer to a token endpoint whose first response is a rejection with this
/// body. Also returns the number of polls of the body, and of requests to the server.
fn token_response(
    media_type: &'static str,
    frames: Frames,
    after_frames: AfterFrames,
) -> (
    impl Future<Output = LayerResult>,
    Arc<AtomicUsize>,
    Arc<AtomicUsize>,
) {
    let (polls, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let body = Mutex::new(Some(ScriptedBody {
        frames: frames.into(),
        after_frames,
        ended: false,
        polls: Arc::clone(&polls),
    }));
    let counter = Arc::clone(&calls);
    let body = Arc::new(body);
    let service =
        TokenClientLayer::new(key(), url(ISSUER)).layer(service_fn(move |_: Request<String>| {
            counter.fetch_add(1, Ordering::SeqCst);
            let empty = ScriptedBody {
                frames: VecDeque::new(),
                after_frames: AfterFrames::End,
                ended: false,
                polls: Arc::default(),
            };
            let mut response = Response::new(body.lock().unwrap().take().unwrap_or(empty));
            if counter.load(Ordering::SeqCst) == 1 {
                *response.status_mut() = StatusCode::BAD_REQUEST;
                let headers = response.headers_mut();
                headers.insert("content-type", HeaderValue::from_static(media_type));
                headers.insert("dpop-nonce", HeaderValue::from_static("n"));
            }
            std::future::ready(Ok::<_, Infallible>(response))
        }));
    let request = Request::post(TOKEN_URL).body(String::new()).unwrap();
    (service.oneshot(request), polls, calls)
}

const JSON: &str = "application/json";

/// The caller gets every frame, the trailers, and an error in its place.
#[test]
fn the_caller_gets_an_inspected_body_unchanged() {
    let rejection = r#"{"error":"invalid_grant"}"#;
    let big = "x".repeat(16 * 1024 + 1);
    let rows: Vec<(&str, &'static str, Frames)> = vec![
        ("empty", JSON, vec![]),
        ("one frame", JSON, vec![data(rejection)]),
        (
            "two frames",
            JSON,
            vec![data(&rejection[..9]), data(&rejection[9..])],
        ),
        (
            "empty frames",
            JSON,
            vec![data(""), data(rejection), data("")],
        ),
        ("trailers", JSON, vec![data(rejection), trailers()]),
        ("an error", JSON, vec![data(rejection), Err("reset")]),
        ("only an error", JSON, vec![Err("reset")]),
        (
            "a demand, then an error",
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
            "a demand that starts in a big frame",
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
                    Some(text) => frame_text(data(text.clone())),
                    None => frame_text(trailers()),
                },
                Err(error) => frame_text(Err(error)),
            })
            .collect();
        let length: usize = frames
            .iter()
            .filter_map(|frame| frame.as_ref().ok()?.data_ref())
            .map(Bytes::len)
            .sum();
        let (response, polls, calls) = token_response(media_type, frames, AfterFrames::End);
        let response = expect_ready(response).unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 1, "{name}: no retry");
        assert_eq!(response.status(), 400, "{name}");
        assert!(
            polls.load(Ordering::SeqCst) <= 256,
            "{name}: too many polls"
        );
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
        while let Some(frame) = expect_ready(body.frame()) {
            let failed = frame.is_err();
            read.push(frame_text(frame));
            if failed {
                break;
            }
        }
        assert_eq!(read, expected, "{name}");
    }
}

#[test]
fn reports_the_exact_length_of_an_inspected_body() {
    let server =
        MockServer::new(|_, _| response_with(400, &[("content-type", JSON)], r#"{"error":"x"}"#));
    let service = TokenClientLayer::new(key(), url(ISSUER)).layer(server);
    let response = block_on(service.oneshot(ServerKind::Token.request())).unwrap();
    let mut body = response.into_body();
    assert_eq!(body.size_hint().exact(), Some(13));
    assert!(!body.is_end_stream());
    assert!(expect_ready(body.frame()).is_some());
    assert_eq!(body.size_hint().exact(), Some(0));
    assert!(body.is_end_stream());
    assert!(expect_ready(body.frame()).is_none());
}

#[test]
fn reports_the_end_of_the_body() {
    let service = TokenClientLayer::new(key(), url(ISSUER)).layer(MockServer::new(|_, _| ok()));
    let response = block_on(service.oneshot(ServerKind::Token.request())).unwrap();
    assert!(response.into_body().is_end_stream(), "not inspected");

    let (response, _, _) = token_response(JSON, vec![data("{}")], AfterFrames::End);
    let mut body = expect_ready(response).unwrap().into_body();
    assert!(!body.is_end_stream());
    assert!(expect_ready(body.frame()).is_some());
    assert!(body.is_end_stream(), "inspected");
}

/// The layer stops after a number of frames or bytes. It waits for a body that is pending, and the
/// caller can cancel the request.
#[test]
fn reads_a_bounded_part_of_an_endless_body() {
    let (response, polls, calls) = token_response(JSON, vec![], AfterFrames::EmptyFrames);
    assert_eq!(expect_ready(response).unwrap().status(), 400);
    assert!(polls.load(Ordering::SeqCst) <= 256);
    assert_eq!(calls.load(Ordering::SeqCst), 1);

    let frames = (0..1000).map(|_| data("x".repeat(1024))).collect();
    let (response, polls, _) = token_response(JSON, frames, AfterFrames::EmptyFrames);
    assert_eq!(expect_ready(response).unwrap().status(), 400);
    assert_eq!(polls.load(Ordering::SeqCst), 17);

    let (response, _, calls) = token_response(JSON, vec![data("{")], AfterFrames::Wait);
    let mut response = Box::pin(response);
    let polled = response
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "the layer has no timeout");
    drop(response);
    assert_eq!(calls.load(Ordering::SeqCst), 1);

    let (response, polls, _) = token_response("text/plain", vec![], AfterFrames::Wait);
    assert_eq!(expect_ready(response).unwrap().status(), 400);
    assert_eq!(polls.load(Ordering::SeqCst), 0);
}

/// This number of frames. All but the first are empty.
fn frames_of(text: &'static str, count: usize) -> Frames {
    let empty = (1..count).map(|_| data(""));
    std::iter::once(data(text)).chain(empty).collect()
}

#[test]
fn reads_a_demand_in_many_frames_up_to_16_kib() {
    let demand = r#"{"error":"use_dpop_nonce"}"#;
    let single_bytes = demand.bytes().map(|byte| data(vec![byte])).collect();
    let padded = format!("{demand}{}", " ".repeat(16 * 1024 - demand.len()));
    for (name, frames) in [
        ("one byte per frame", single_bytes),
        ("with trailers", vec![data(demand), trailers()]),
        ("the maximum number of frames", frames_of(demand, 255)),
        ("16 KiB", vec![data(padded)]),
    ] {
        let (response, _, calls) = token_response(JSON, frames, AfterFrames::End);
        assert_eq!(expect_ready(response).unwrap().status(), 200, "{name}");
        assert_eq!(calls.load(Ordering::SeqCst), 2, "{name}");
    }
}
