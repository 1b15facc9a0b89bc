//! The service.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{HoldTrailersLayer, ResponseBody, ResponseFuture};

/// Holds the answer to a unary call until its trailers are there: the service of [`HoldTrailersLayer`].
///
/// # Errors
///
/// The inner service's.
#[derive(Clone, Debug)]
pub struct HoldTrailers<I> {
    inner: I,
    layer: HoldTrailersLayer,
}

impl<I> HoldTrailers<I> {
    pub(super) fn new(inner: I, layer: HoldTrailersLayer) -> Self {
        Self { inner, layer }
    }
}

impl<I, B, D> Service<Request<B>> for HoldTrailers<I>
where
    I: Service<Request<B>, Response = Response<D>>,
    D: Body<Data = Bytes> + Unpin,
{
    type Response = Response<ResponseBody<D>>;
    type Error = I::Error;
    type Future = ResponseFuture<I::Future, D>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let holds = self.layer.holds(request.uri().path());
        let limits = holds.then_some((self.layer.limit, self.layer.timeout));
        ResponseFuture::new(self.inner.call(request), limits)
    }
}
