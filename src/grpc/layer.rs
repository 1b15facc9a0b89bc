//! The layer: which answers are held, and how long.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::HoldTrailers;

/// Holds the answers to unary calls until their trailers are there, so that a rejection in them can be seen; as
/// [`new`](Self::new) makes it the answers to *all* calls, unless [`only`](Self::only) says which ones are unary.
///
/// It goes *under* the [`RefreshLayer`](crate::RefreshLayer):
///
/// ```
/// use tonic::transport::Channel;
/// use tonic_health::pb::HealthCheckRequest;
/// use tonic_health::pb::health_client::HealthClient;
/// use tower::ServiceBuilder;
/// use tower_refresh::grpc::HoldTrailersLayer;
/// use tower_refresh::{RefreshLayer, TokenSource};
///
/// async fn check<S: TokenSource>(source: S, channel: Channel) -> Result<(), tonic::Status> {
///     let service = ServiceBuilder::new()
///         .layer(RefreshLayer::new(source))
///         .layer(HoldTrailersLayer::new().only(|path| path == "/grpc.health.v1.Health/Check"))
///         .service(channel);
///     let answer = HealthClient::new(service).check(HealthCheckRequest::default()).await?;
///     println!("{answer:?}");
///     Ok(())
/// }
/// ```
///
/// If the trailers say `UNAUTHENTICATED`, they are put into the response headers as well, where
/// [`Unauthorized`](crate::Unauthorized) looks for a status; what the headers have already stays. Every other answer
/// passes unchanged, and nothing is lost from any: the body still has all its frames, and its trailers. But tonic reads no
/// body behind a status: if the call cannot be made again, its caller gets the status without the message before it, which
/// matters to a stream that was put under this layer by mistake.
///
/// # Why it is not always there
///
/// Only servers that refuse in the trailers need it: see the table in [the module's docs](super). It takes back what
/// streaming is for: the head and the first message reach the caller together with the trailers. On this level a unary
/// call looks like any other, so that nobody but you can say which ones are.
///
/// # What it costs
///
/// An answer is held in memory, up to [`limit`](Self::limit), without being copied, and comes as late as its trailers,
/// which most servers send right behind the message.
///
/// A server that answers and then says `UNAUTHENTICATED` may have done what was asked. The call is made again all the
/// same, and so may be done twice.
///
/// # What is not held
///
/// An answer that cannot be one to a unary call, or is not gRPC's, or has its status in the headers already. An answer
/// that is held is let go, unchanged, as soon as
///
/// - a second message begins,
/// - it is longer than [`limit`](Self::limit): then a rejection in its trailers is the caller's,
/// - its body fails; the error follows in its place,
/// - [`timeout`](Self::timeout) has passed since its head came: a stream that was put under this layer by mistake is
///   delayed once, and not for ever.
///
/// The timeout needs tokio's time driver. Outside a tokio runtime an answer whose trailers are not there already is not
/// held at all.
///
/// # Panics
///
/// The future of a call panics if it has to wait for trailers in a tokio runtime that has no time driver.
#[derive(Clone)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct HoldTrailersLayer {
    pub(super) limit: usize,
    pub(super) timeout: Duration,
    only: Option<Arc<Paths>>,
}

type Paths = dyn Fn(&str) -> bool + Send + Sync;

impl HoldTrailersLayer {
    /// Makes a layer that holds the answers to all calls, up to 64 KiB and one second each.
    pub fn new() -> Self {
        Self { limit: 64 * 1024, timeout: Duration::from_secs(1), only: None }
    }

    /// Holds the answers to those calls only whose path the closure returns true for, such as
    /// `/package.Service/Method`. The others pass untouched.
    pub fn only(mut self, path: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.only = Some(Arc::new(path));
        self
    }

    /// Sets how much of an answer is held, in bytes; 65,536 by default.
    ///
    /// The prefix of the message counts, which is five bytes.
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Sets how long an answer is held; one second by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(super) fn holds(&self, path: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only(path))
    }
}

impl Default for HoldTrailersLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<I> Layer<I> for HoldTrailersLayer {
    type Service = HoldTrailers<I>;

    fn layer(&self, inner: I) -> Self::Service {
        HoldTrailers::new(inner, self.clone())
    }
}

impl fmt::Debug for HoldTrailersLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HoldTrailersLayer")
            .field("limit", &self.limit)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
