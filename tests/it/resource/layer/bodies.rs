//! Any `http_body::Body`: the layer neither reads nor changes a request that passes.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use common::{Attempt, AttemptExt as _, KeyExt as _, NOW, Outcome, block_on};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{Empty, Full};
use hyper::body::{Body, Frame};
use serde_json::json;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::{BoundToken, Claims, Timestamp};

use super::{layer, rejected_attempts};

/// Accepts and rejects requests of this body type. The response body only needs a `Default`.
fn assert_serves<B: Body, D: Default>(
    name: &str,
    request_body: impl Fn() -> B,
    response_body: fn() -> D,
) {
    let service = layer().layer(service_fn(async |_: Request<B>| {
        Ok::<_, Infallible>(Response::new(response_body()))
    }));
    let send = |attempt: Attempt| {
        let request = attempt.request().map(|_| request_body());
        block_on(service.clone().oneshot(request)).unwrap()
    };
    assert_eq!(send(Attempt::good()).status(), StatusCode::OK, "{name}");
    for (case, attempt, reason) in rejected_attempts() {
        let outcome = Outcome::of(&send(attempt));
        outcome.assert_reason(&format!("{name}, {case}"), reason);
    }
}

/// A body of no bytes that is as `T` is.
struct Marked<T>(T);

impl<T: Unpin> Body for Marked<T> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }
}

#[test]
fn supports_any_http_body_and_any_response_body_with_a_default() {
    struct NotClone;
    assert_serves("texts", String::new, || "served".to_owned());
    assert_serves("bytes", String::new, || vec![1_u8]);
    assert_serves("nothing", String::new, || ());
    assert_serves("an option", String::new, || Some(NotClone));
    assert_serves("not Clone", || Marked(NotClone), || ());
    assert_serves("not Send", || Marked(Rc::new(Cell::new(1))), || ());
    assert_serves("a response that is not Send", String::new, || {
        Some(Rc::new(1))
    });
    assert_serves("full bodies", Full::<Bytes>::default, || {
        Full::new(Bytes::from("served"))
    });
    assert_serves("empty bodies", Empty::<Bytes>::new, Empty::<Bytes>::new);
    assert_serves(
        "boxed bodies",
        BoxBody::<Bytes, Infallible>::default,
        || BoxBody::new(Full::new(Bytes::from("served"))),
    );
    assert_serves("axum's body", axum::body::Body::empty, || {
        axum::body::Body::from("served")
    });
}

#[test]
fn a_rejection_has_the_default_body_and_an_accepted_request_the_services_body() {
    let service = layer().layer(service_fn(async |_: Request<String>| {
        Ok::<_, Infallible>(Response::new(Some("served")))
    }));
    let response = block_on(service.clone().oneshot(Attempt::good().request())).unwrap();
    assert_eq!(response.into_body(), Some("served"));
    for (name, attempt, reason) in rejected_attempts() {
        let response = block_on(service.clone().oneshot(attempt.request())).unwrap();
        Outcome::of(&response).assert_reason(name, reason);
        assert_eq!(response.into_body(), None, "{name}");
    }
}

#[test]
fn the_service_gets_the_unchanged_request_with_the_token_in_its_extensions() {
    #[derive(Clone, Debug, PartialEq)]
    struct OuterExtension(u8);

    let attempt = Attempt::but(|a| {
        a.method = Method::PUT;
        a.uri = "/orders/1?x=%20".into();
        a.version = Version::HTTP_2;
        a.proof_claims["htm"] = json!("PUT");
        a.proof_claims["htu"] = json!("https://api.example.com/orders/1");
        a.extra_headers = vec![
            ("x-one", HeaderValue::from_static("1")),
            ("x-one", HeaderValue::from_static("2")),
        ];
    });
    let mut request = attempt.request().map(|_| "the body".to_owned());
    request.extensions_mut().insert(OuterExtension(7));
    let (sent, _) = request.clone().into_parts();

    let service = layer().layer(service_fn(async |request: Request<String>| {
        Ok::<_, Infallible>(Response::new(Some(request)))
    }));
    let response = block_on(service.oneshot(request)).unwrap();
    let (received, body) = response.into_body().unwrap().into_parts();
    assert_eq!(body, "the body");
    assert_eq!(received.method, sent.method);
    assert_eq!(received.uri, sent.uri);
    assert_eq!(received.version, sent.version);
    assert_eq!(received.headers, sent.headers);
    assert_eq!(received.extensions.get(), Some(&OuterExtension(7)));

    let token: &BoundToken<Claims> = received.extensions.get().unwrap();
    assert_eq!(token.claims().subject(), Some("alice"));
    assert_eq!(token.thumbprint().to_string(), attempt.key.jkt());
    assert_eq!(token.algorithm().name(), attempt.key.alg());
    assert_eq!(token.expires(), Some(Timestamp::from_unix(NOW + 600)));
}

#[test]
fn an_accepted_request_reaches_the_service_with_its_body_unread() {
    /// Panics if it is read.
    struct Unread;

    impl Body for Unread {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            panic!("the layer does not read the body of a request that passes (R-11.7.1)");
        }
    }

    let service = layer().layer(service_fn(async |request: Request<Unread>| {
        Ok::<_, Infallible>(Response::new(Some(request.into_body())))
    }));
    let request = Attempt::good().request().map(|_| Unread);
    let response = block_on(service.oneshot(request)).unwrap();
    assert!(response.into_body().is_some());
}
