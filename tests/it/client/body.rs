//! Copies of request bodies, and response bodies that the layer has inspected.

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
    Answered, Client, KINDS, Kind, ORDERS, Server, TOKEN_URL, answer, ask, at_once, boxed,
    error_of, key, ok, server_with_clock, token, url,
};

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
