//! Bodies: copies of request bodies, so that a request can be sent again, and response bodies that
//! the layer can inspect without taking them from the caller.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Copies request bodies, so that a request can be sent again.
///
/// Use [`CloneBody`] for bodies that can be cloned (`String`, `Bytes`, `Full`, `Empty`). Use any
/// function `Fn(&B) -> Option<B>` for bodies that can be cloned only sometimes, and for requests
/// that must not be sent twice unchanged.
pub trait BodyCopy<B>: Send + Sync + 'static {
    /// Copies a body of which nothing has been sent yet. Returns `None` if it cannot be copied.
    fn copy(&self, body: &B) -> Option<B>;
}

/// Copies bodies by cloning them.
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

/// Error responses are not longer than this. The layer does not interpret a longer one.
const MAX_INSPECTED_BYTES: usize = 16 * 1024;

/// A body can have any number of empty frames, so the number of frames is limited, too.
const MAX_INSPECTED_FRAMES: usize = 256;

/// The body of a response. The layer may have read the beginning of it. The caller still gets the
/// whole body, including an error in its place.
pub struct ResponseBody<D: Body> {
    read: VecDeque<Result<Frame<Bytes>, D::Error>>,
    rest: Pin<Box<D>>,
    /// Whether `rest` has ended. Not every body may be polled again after its end.
    ended: bool,
}

/// Only `rest` is pinned, and it is in a box.
impl<D: Body> Unpin for ResponseBody<D> {}

impl<D: Body<Data = Bytes>> ResponseBody<D> {
    pub(crate) fn untouched(body: D) -> Self {
        Self {
            read: VecDeque::new(),
            rest: Box::pin(body),
            ended: false,
        }
    }

    /// Reads the body and keeps its frames. Returns nothing if the body is too long or breaks off:
    /// a part of it has no meaning.
    pub(crate) async fn inspect(&mut self) -> Vec<u8> {
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
        // Lengths are far below `u64::MAX`.
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
