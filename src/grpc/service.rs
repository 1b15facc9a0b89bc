//! The service, and its configuration.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::body::ResponseBody;
use super::future::ResponseFuture;

/// Holds the response to a unary call until its trailers have arrived: the service of
/// [`HoldTrailersLayer`](super::HoldTrailersLayer).
///
/// # Errors
///
/// Fails with the inner service's error.
///
/// # Examples
///
/// ```
/// use tonic::transport::Channel;
/// use tower_layer::Layer;
/// use tower_refresh::grpc::{HoldTrailers, HoldTrailersLayer};
///
/// fn held(channel: Channel) -> HoldTrailers<Channel> {
///     HoldTrailersLayer::new().only(|path| path == "/grpc.health.v1.Health/Check").layer(channel)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct HoldTrailers<I> {
    inner: I,
    config: Config,
}

/// Which responses are held, how much of one, and for how long.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) limit: usize,
    pub(super) timeout: Duration,
    pub(super) only: Option<Arc<Paths>>,
}

/// Selects calls by their path.
type Paths = dyn Fn(&str) -> bool + Send + Sync;

impl<I> HoldTrailers<I> {
    pub(super) fn new(inner: I, config: Config) -> Self {
        Self { inner, config }
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
        let Config { limit, timeout, only } = &self.config;
        let holds = only.as_ref().is_none_or(|only| only(request.uri().path()));
        let limits = holds.then_some((*limit, *timeout));
        ResponseFuture::new(self.inner.call(request), limits)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("limit", &self.limit)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
