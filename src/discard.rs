//! Bodies of rejected requests, read and discarded.
//!
//! A client in the middle of an upload does not see a response on HTTP/1.1 if the server closes the connection with data
//! unread: its next write fails first. With nonces required that is normal traffic, and such a client would never learn its
//! nonce. HTTP/2 does not need this: a stream ends without its connection ([RFC 9113 section
//! 8.1](https://www.rfc-editor.org/rfc/rfc9113#section-8.1)).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf as _;
use http::header::{CONNECTION, EXPECT};
use http::request::Parts;
use http::{HeaderValue, Response, Version};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::time::{Sleep, sleep};

/// How much of a rejected request's body is read, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiscardLimits {
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

impl Default for DiscardLimits {
    fn default() -> Self {
        Self {
            bytes: 16 * 1024 * 1024,
            time: Duration::from_secs(5),
        }
    }
}

/// What happens to the body of one request if the request is rejected.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unread {
    /// Nothing is read: a stream of HTTP/2 ends without its connection.
    Drop,
    /// The client sends the body only after an interim response ([RFC 9110 section
    /// 10.1.1](https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1)), so nothing is on its way.
    Close,
    Read(DiscardLimits),
}

impl Unread {
    pub(crate) fn of(head: &Parts, limits: DiscardLimits) -> Self {
        if head.version > Version::HTTP_11 {
            Self::Drop
        } else if head.headers.contains_key(EXPECT) {
            Self::Close
        } else {
            Self::Read(limits)
        }
    }
}

pin_project! {
    /// Reads and discards a body, one frame at a time. It is ready when the response can be sent.
    pub(crate) struct Discard<B> {
        #[pin]
        body: B,
        unread: Unread,
        bytes_read: u64,
            // Created when the body first has nothing to read.
        #[pin]
        timeout: Option<Sleep>,
    }
}

/// Whether the connection can take another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    Reusable,
    /// A part of the body is unread.
    Close,
}

impl<B: Body> Discard<B> {
    pub(crate) const fn new(body: B, unread: Unread) -> Self {
        Self {
            body,
            unread,
            bytes_read: 0,
            timeout: None,
        }
    }
}

impl<B: Body> Future for Discard<B> {
    type Output = Connection;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Connection> {
        let mut this = self.project();
        let limits = match *this.unread {
            _ if this.body.is_end_stream() => return Poll::Ready(Connection::Reusable),
            Unread::Drop => return Poll::Ready(Connection::Reusable),
            Unread::Close => return Poll::Ready(Connection::Close),
            Unread::Read(limits) => limits,
        };
        loop {
            let announced = this.body.size_hint().lower();
            if this.bytes_read.saturating_add(announced) > limits.bytes {
                return Poll::Ready(Connection::Close);
            }
            match this.body.as_mut().poll_frame(context) {
                Poll::Ready(None) => return Poll::Ready(Connection::Reusable),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Connection::Close),
                Poll::Ready(Some(Ok(frame))) => {
                    let bytes = frame.data_ref().map_or(0, |data| data.remaining() as u64);
                    *this.bytes_read = this.bytes_read.saturating_add(bytes);
                }
                Poll::Pending => break,
            }
        }
        if this.timeout.is_none() {
            // Without a timer a client could hold the connection for as long as it likes.
            if limits.time.is_zero() || Handle::try_current().is_err() {
                return Poll::Ready(Connection::Close);
            }
            this.timeout.set(Some(sleep(limits.time)));
        }
        if let Some(timeout) = this.timeout.as_pin_mut() {
            ready!(timeout.poll(context));
        }
        Poll::Ready(Connection::Close)
    }
}

impl Connection {
    /// Says in the response that the connection will be closed, if it will.
    pub(crate) fn write_to<D>(self, response: &mut Response<D>) {
        if self == Self::Close {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
    }
}
