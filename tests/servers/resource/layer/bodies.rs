//! Streamed bodies and trailers over both versions of HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use common::{Attempt, AttemptExt as _, block_on};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use serde_json::json;
use tokio::sync::mpsc;
use tower_dpop::proof::ProofError;

use super::{ORDERS, assert_response, attempt_at, http1_client, http2_client, serve};

/// A body whose frames come from a channel while it is sent.
struct StreamedBody(mpsc::UnboundedReceiver<Frame<Bytes>>);

impl StreamedBody {
    fn new() -> (mpsc::UnboundedSender<Frame<Bytes>>, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Self(receiver))
    }
}

impl Body for StreamedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

enum Client {
    Http1(http1::SendRequest<StreamedBody>),
    Http2(http2::SendRequest<StreamedBody>),
}

impl Client {
    async fn both(address: SocketAddr) -> [(&'static str, Self); 2] {
        [
            ("HTTP/1.1", Self::Http1(http1_client(address).await)),
            ("HTTP/2", Self::Http2(http2_client(address).await)),
        ]
    }

    async fn send(&mut self, attempt: &Attempt, body: StreamedBody) -> Response<Incoming> {
        let mut request = attempt.request().map(|_| body);
        match self {
            Self::Http1(client) => client.send_request(request).await.unwrap(),
            Self::Http2(client) => {
                let target = format!("http://orders.internal{}", attempt.uri);
                *request.uri_mut() = target.parse().unwrap();
                client.send_request(request).await.unwrap()
            }
        }
    }
}

#[test]
fn a_streamed_body_passes_through_frame_by_frame() {
    block_on(async {
        for (name, mut client) in Client::both(serve().await).await {
            let (sender, body) = StreamedBody::new();
            let attempt = attempt_at("POST", "/orders", ORDERS);
            let mut response = client.send(&attempt, body).await;
            assert_response(name, &response, Ok(()));
            for part in ["one", "two"] {
                sender.send(Frame::data(Bytes::from(part))).unwrap();
                let frame = response.frame().await.unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), part, "{name}");
            }
            drop(sender);
            let rest = response.into_body().collect().await.unwrap();
            assert!(rest.to_bytes().is_empty(), "{name}");
        }
    });
}

#[test]
fn a_rejection_does_not_wait_for_the_body() {
    block_on(async {
        for (name, mut client) in Client::both(serve().await).await {
            let (sender, body) = StreamedBody::new();
            sender.send(Frame::data(Bytes::from("one"))).unwrap();
            let mut attempt = attempt_at("POST", "/orders", ORDERS);
            attempt.proof_claims["htm"] = json!("PUT");
            let response = client.send(&attempt, body).await;
            assert_response(name, &response, Err(ProofError::Method.into()));
            drop(sender);
        }
    });
}

#[test]
fn credentials_in_trailers_are_ignored() {
    block_on(async {
        let address = serve().await;
        let trailers = |attempt: &Attempt| {
            let mut trailers = HeaderMap::new();
            let proof = attempt.proof(&attempt.token());
            trailers.insert("dpop", proof.parse().unwrap());
            trailers
        };
        let announce = |attempt: &mut Attempt| {
            attempt.extra_headers = vec![
                ("trailer", HeaderValue::from_static("dpop")),
                ("te", HeaderValue::from_static("trailers")),
            ];
        };
        for (version, mut client) in Client::both(address).await {
            let mut attempt = attempt_at("POST", "/orders", ORDERS);
            announce(&mut attempt);
            let (sender, body) = StreamedBody::new();
            sender.send(Frame::data(Bytes::from("one"))).unwrap();
            sender.send(Frame::trailers(trailers(&attempt))).unwrap();
            drop(sender);
            let response = client.send(&attempt, body).await;
            let name = format!("F-20: a second proof in the trailers, {version}");
            assert_response(&name, &response, Ok(()));
            let collected = response.into_body().collect().await.unwrap();
            let echoed = collected.trailers().expect("the trailers are echoed");
            assert!(echoed.contains_key("dpop"), "{name}");
        }
        for (version, mut client) in Client::both(address).await {
            let mut attempt = attempt_at("POST", "/orders", ORDERS);
            attempt.token = Some(attempt.token());
            let proof = trailers(&attempt);
            announce(&mut attempt);
            attempt.dpop = Some(vec![]);
            let (sender, body) = StreamedBody::new();
            sender.send(Frame::data(Bytes::from("one"))).unwrap();
            sender.send(Frame::trailers(proof)).unwrap();
            drop(sender);
            let response = client.send(&attempt, body).await;
            let name = format!("F-20: the only proof in the trailers, {version}");
            assert_response(&name, &response, Err(ProofError::Missing.into()));
        }
    });
}
