//! The body of an answer that may have been held.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The body of an answer: the frames that were held, and then the rest, as it comes.
    pub struct ResponseBody<D>
    where
        D: Body,
    {
        held: VecDeque<Frame<Bytes>>,
        failure: Option<D::Error>,
        // Whether all of the rest was read, so that it must not be polled again.
        ended: bool,
        #[pin]
        rest: D,
    }
}

impl<D: Body<Data = Bytes>> ResponseBody<D> {
    pub(super) fn new(rest: D) -> Self {
        Self { held: VecDeque::new(), failure: None, ended: false, rest }
    }

    /// Reads one frame and keeps it for later; none if there is no other.
    pub(super) fn poll_hold(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<&Frame<Bytes>>> {
        let this = self.project();
        match ready!(this.rest.poll_frame(cx)) {
            Some(Ok(frame)) => {
                this.held.push_back(frame);
                return Poll::Ready(this.held.back());
            }
            Some(Err(error)) => *this.failure = Some(error),
            None => {}
        }
        *this.ended = true;
        Poll::Ready(None)
    }
}

impl<D: Body<Data = Bytes>> Body for ResponseBody<D> {
    type Data = Bytes;
    type Error = D::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, D::Error>>> {
        let this = self.project();
        if let Some(frame) = this.held.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if *this.ended {
            return Poll::Ready(this.failure.take().map(Err));
        }
        this.rest.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let rest_ended =
            if self.ended { self.failure.is_none() } else { self.rest.is_end_stream() };
        self.held.is_empty() && rest_ended
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.size_hint();
        let held = self.held.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(held));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint
    }
}

/// Generated clients ask for it in their `with_interceptor`: the answer to a call that an interceptor refuses has such
/// a body.
impl<D: Body + Default> Default for ResponseBody<D> {
    fn default() -> Self {
        Self { held: VecDeque::new(), failure: None, ended: false, rest: D::default() }
    }
}

impl<D: Body> fmt::Debug for ResponseBody<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("held", &self.held.len()).finish_non_exhaustive()
    }
}
