//! Bodies: how a request's is kept so that it can be sent again, and how a response's is looked
//! into without being taken from the caller.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// How the body of a request is kept, so that the request can be sent again.
///
/// [`CloneBody`] is for bodies that can be cloned (`String`, `Bytes`, `Full`, `Empty`); any function
/// `Fn(&B) -> Option<B>` is another way, for bodies that can be cloned at times, and for requests
/// that must not be sent twice as they are.
pub trait BodyCopy<B>: Send + Sync + 'static {
    /// A copy of a body of which nothing was sent yet; `None` if there can be none.
    fn copy(&self, body: &B) -> Option<B>;
}

/// Keeps bodies by cloning them.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneBody;

impl<B: Clone> BodyCopy<B> for CloneBody {
    fn copy(&self, body: &B) -> Option<B> {
        Some(body.clone())
    }
}

impl<B, F: Fn(&B) -> Option<B> + Send + Sync + 'static> BodyCopy<B> for F {
    fn copy(&self, body: &B) -> Option<B> {
        self(body)
    }
}

/// No error response is longer. One that is says nothing to the layer.
const MAX_INSPECTED_BYTES: usize = 16 * 1024;

/// Frames may be empty, without end.
const MAX_INSPECTED_FRAMES: usize = 256;

/// The body of a response, of which the layer may have read the beginning. Whoever reads it gets the
/// whole, a failure in its place included.
pub struct ResponseBody<D: Body> {
    read: VecDeque<Result<Frame<Bytes>, D::Error>>,
    rest: Pin<Box<D>>,
    /// Whether `rest` has said that it has ended. Not every body may be asked again.
    ended: bool,
}

/// Only `rest` is pinned, in a box.
impl<D: Body> Unpin for ResponseBody<D> {}

impl<D: Body<Data = Bytes>> ResponseBody<D> {
    pub(crate) fn untouched(body: D) -> Self {
        Self {
            read: VecDeque::new(),
            rest: Box::pin(body),
            ended: false,
        }
    }

    /// Reads the body, and keeps what it reads. Of one that is too long or breaks off nothing is
    /// seen: half of it says nothing.
    pub(crate) async fn look_into(&mut self) -> Vec<u8> {
        let mut seen = Vec::new();
        while self.read.len() < MAX_INSPECTED_FRAMES {
            let Some(frame) = poll_fn(|context| self.rest.as_mut().poll_frame(context)).await
            else {
                self.ended = true;
                return seen;
            };
            let goes_on = frame.as_ref().is_ok_and(|frame| {
                let data = frame.data_ref().map_or(&[][..], Bytes::as_ref);
                seen.extend_from_slice(
                    &data[..data.len().min(MAX_INSPECTED_BYTES + 1 - seen.len())],
                );
                seen.len() <= MAX_INSPECTED_BYTES
            });
            self.read.push_back(frame);
            if !goes_on {
                break;
            }
        }
        Vec::new()
    }
}

impl<D: Body<Data = Bytes>> Body for ResponseBody<D> {
    type Data = Bytes;
    type Error = D::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, D::Error>>> {
        let body = self.get_mut();
        if let Some(frame) = body.read.pop_front() {
            return Poll::Ready(Some(frame));
        }
        if body.ended {
            return Poll::Ready(None);
        }
        body.rest.as_mut().poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && (self.ended || self.rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let read: usize = self
            .read
            .iter()
            .filter_map(|frame| frame.as_ref().ok()?.data_ref())
            .map(Bytes::len)
            .sum();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        // A length is far below the largest there is.
        hint.set_lower(rest.lower().saturating_add(read as u64));
        if let Some(upper) = rest
            .upper()
            .and_then(|upper| upper.checked_add(read as u64))
        {
            hint.set_upper(upper);
        }
        hint
    }
}

impl<D: Body> fmt::Debug for ResponseBody<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseBody(..)")
    }
}
