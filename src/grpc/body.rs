//! The body of a response that may have been held.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The response body of [`HoldTrailers`](super::HoldTrailers): the frames that were held, and then the rest.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::Response;
    /// use http_body_util::BodyExt;
    /// use tower_refresh::BoxError;
    /// use tower_refresh::grpc::ResponseBody;
    ///
    /// async fn len(response: Response<ResponseBody<tonic::body::Body>>) -> Result<usize, BoxError> {
    ///     Ok(response.into_body().collect().await?.to_bytes().len())
    /// }
    /// ```
    pub struct ResponseBody<D>
    where
        D: Body,
    {
        held: VecDeque<Result<Frame<Bytes>, D::Error>>,
        // True if `rest` has ended or failed, so that it must not be polled again.
        ended: bool,
        #[pin]
        rest: D,
    }
}

impl<D: Body> ResponseBody<D> {
    pub(super) fn new(rest: D) -> Self {
        Self { held: VecDeque::new(), ended: false, rest }
    }
}

impl<D: Body<Data = Bytes>> ResponseBody<D> {
    /// Reads one frame and keeps it. Returns none at the end of the body, or if it failed.
    pub(super) fn poll_hold(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<&Frame<Bytes>>> {
        let this = self.project();
        let polled = ready!(this.rest.poll_frame(cx));
        *this.ended = !matches!(polled, Some(Ok(_)));
        this.held.extend(polled);
        let last = if *this.ended { None } else { this.held.back() };
        Poll::Ready(last.and_then(|frame| frame.as_ref().ok()))
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
        match this.held.pop_front() {
            None if !*this.ended => this.rest.poll_frame(cx),
            held => Poll::Ready(held),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && (self.ended || self.rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.size_hint();
        let held = self.held.iter().flatten().filter_map(Frame::data_ref);
        let held = held.map(|data| data.len() as u64).sum();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(held));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint
    }
}

/// The `with_interceptor` of generated clients requires it, for the response to a call that an interceptor refuses.
impl<D: Body + Default> Default for ResponseBody<D> {
    fn default() -> Self {
        Self::new(D::default())
    }
}

impl<D: Body> fmt::Debug for ResponseBody<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("held", &self.held.len()).finish_non_exhaustive()
    }
}
