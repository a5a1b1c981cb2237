//! Which bodies of rejected requests are read, how far, and what the response says of the connection.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use common::{Attempt, AttemptExt as _, block_on, verifier};
use http::{HeaderValue, Request, Response, Version};
use hyper::body::{Body, Frame, SizeHint};
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};
use tower_dpop::DpopLayer;

/// What the body does after its last byte.
#[derive(Clone, Copy)]
enum End {
    Ends,
    Fails,
    Waits,
}

/// Frames of 100 bytes, counted when they are read.
struct Upload {
    frames: usize,
    end: End,
    announced: u64,
    read: Arc<AtomicUsize>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        if self.frames > 0 {
            self.frames -= 1;
            self.read.fetch_add(1, Ordering::Relaxed);
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 100])))));
        }
        match self.end {
            End::Ends => Poll::Ready(None),
            End::Fails => Poll::Ready(Some(Err("a malformed chunk"))),
            // No one wakes the task, as a client that sends nothing more does not.
            End::Waits => Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.announced);
        hint
    }
}

struct Row {
    name: &'static str,
    frames: usize,
    end: End,
    announced: u64,
    version: Version,
    expects_continue: bool,
}

impl Row {
    const fn good(name: &'static str) -> Self {
        Self {
            name,
            frames: 3,
            end: End::Ends,
            announced: 0,
            version: Version::HTTP_11,
            expects_continue: false,
        }
    }

    fn request(&self, read: &Arc<AtomicUsize>) -> Request<Upload> {
        let mut attempt = Attempt::but(|a| a.dpop = Some(Vec::new()));
        attempt.version = self.version;
        if self.expects_continue {
            let value = HeaderValue::from_static("100-continue");
            attempt.extra_headers.push(("expect", value));
        }
        attempt.request().map(|_| Upload {
            frames: self.frames,
            end: self.end,
            announced: self.announced,
            read: Arc::clone(read),
        })
    }
}

/// Limits of 1,000 bytes and 10 ms.
fn limited() -> DpopLayer {
    DpopLayer::new(verifier()).with_discard_limits(1000, Duration::from_millis(10))
}

async fn served(_: Request<Upload>) -> Result<Response<()>, Infallible> {
    Ok(Response::new(()))
}

#[test]
fn a_rejected_body_is_read_to_its_end_or_the_connection_is_closed() {
    let good = Row::good;
    #[rustfmt::skip]
    let rows = [
        (good("a body of 300 bytes"), 3, None),
        (Row { frames: 0, ..good("no body") }, 0, None),
        (Row { frames: 10, ..good("as many bytes as the limit") }, 10, None),
        (Row { frames: 11, ..good("more bytes than the limit") }, 11, Some("close")),
        (Row { frames: 1000, ..good("many more: the first one too many is the last one read") }, 11, Some("close")),
        (Row { announced: 300, ..good("a length that is announced") }, 3, None),
        (Row { announced: 1001, ..good("a length above the limit is announced") }, 0, Some("close")),
        (Row { announced: u64::MAX, ..good("an absurd length is announced") }, 0, Some("close")),
        (Row { end: End::Fails, ..good("a body that is malformed") }, 3, Some("close")),
        (Row { end: End::Waits, ..good("a client that stops sending") }, 3, Some("close")),
        (Row { expects_continue: true, ..good("a client that waits for 100 Continue") }, 0, Some("close")),
        (Row { version: Version::HTTP_10, ..good("HTTP/1.0") }, 3, None),
        (Row { version: Version::HTTP_2, ..good("HTTP/2, where a stream ends alone") }, 0, None),
        (Row { version: Version::HTTP_3, ..good("HTTP/3") }, 0, None),
    ];
    for (row, expected_frames, expected_connection) in rows {
        let read = Arc::default();
        let service = limited().layer(service_fn(served));
        let response = block_on(service.oneshot(row.request(&read))).unwrap();
        let name = row.name;
        assert_eq!(response.status(), 401, "{name}");
        assert!(
            response.headers().contains_key("www-authenticate"),
            "{name}"
        );
        assert_eq!(read.load(Ordering::Relaxed), expected_frames, "{name}");
        let connection = response.headers().get("connection");
        let connection = connection.map(|value| value.to_str().unwrap());
        assert_eq!(connection, expected_connection, "{name}");
    }
}

/// Without a timer nothing would end the wait.
#[test]
fn without_a_runtime_only_what_has_arrived_is_read() {
    for (end, expected) in [(End::Ends, None), (End::Waits, Some("close"))] {
        let read = Arc::default();
        let row = Row {
            end,
            ..Row::good("")
        };
        let mut service = limited().layer(service_fn(served));
        let mut response = Box::pin(service.call(row.request(&read)));
        let context = &mut Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(response)) = response.as_mut().poll(context) else {
            panic!("waits, and no runtime would wake it");
        };
        assert_eq!(response.status(), 401);
        assert_eq!(read.load(Ordering::Relaxed), 3);
        let connection = response.headers().get("connection");
        assert_eq!(connection.map(|value| value.to_str().unwrap()), expected);
    }
}

#[test]
fn limits_of_zero_read_nothing_that_is_announced_and_wait_for_nothing() {
    let layer = DpopLayer::new(verifier()).with_discard_limits(0, Duration::ZERO);
    for (announced, frames) in [(0, 1), (300, 0)] {
        let read = Arc::default();
        let row = Row {
            announced,
            end: End::Waits,
            ..Row::good("")
        };
        let service = layer.layer(service_fn(served));
        let response = block_on(service.oneshot(row.request(&read))).unwrap();
        assert_eq!(response.headers()["connection"], "close");
        assert_eq!(read.load(Ordering::Relaxed), frames, "{announced}");
    }
}
