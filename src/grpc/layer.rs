//! The layer.

use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::service::{Config, HoldTrailers};

/// Holds responses to unary calls until their trailers have arrived, so that a rejection in the trailers can be seen.
///
/// Put it *below* the [`RefreshLayer`](crate::RefreshLayer), and use [`only`](Self::only) to name the unary calls: at this level
/// they look like any other call. Without `only`, the responses to *all* calls are held.
///
/// If the trailers contain `UNAUTHENTICATED`, they are copied into the response headers, where
/// [`Unauthorized`](crate::Unauthorized) looks for a status. Headers that exist already are kept. Every other response passes
/// unchanged. The body always has all its frames and its trailers.
///
/// # When to use it
///
/// Only with servers that reject in the trailers: see the table in the [module documentation](super). It gives up the benefit of
/// streaming, because the head and the first message reach the caller together with the trailers.
///
/// # Cost
///
/// A response is held in memory, up to [`limit`](Self::limit), without being copied. It arrives as late as its trailers, which
/// most servers send immediately after the message.
///
/// A server that responds and then reports `UNAUTHENTICATED` may have carried out the call. The call is retried nevertheless, and
/// so may be carried out twice.
///
/// # Responses that are not held
///
/// Responses that have their status in the headers, or are not gRPC, or are not 200. A held response is released unchanged as soon
/// as
///
/// - a second message begins,
/// - it exceeds [`limit`](Self::limit): a rejection in its trailers then reaches the caller,
/// - its body fails: the error follows the held frames,
/// - [`timeout`](Self::timeout) has passed since its head arrived, so that a stream is delayed once at most.
///
/// # Caveats
///
/// tonic reads no body after a status in the headers. If a call with `UNAUTHENTICATED` in the trailers cannot be retried, its
/// caller gets the status without the message before it. This affects streams that are held by mistake.
///
/// The timeout needs tokio's time driver. Outside a tokio runtime, a response is held only if its trailers have already arrived.
///
/// # Panics
///
/// The future of a call panics if it has to wait for trailers in a tokio runtime without a time driver.
///
/// # Examples
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
///     let response = HealthClient::new(service).check(HealthCheckRequest::default()).await?;
///     println!("{response:?}");
///     Ok(())
/// }
/// ```
#[doc(alias = "UNAUTHENTICATED")]
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct HoldTrailersLayer {
    config: Config,
}

impl HoldTrailersLayer {
    /// Creates a layer that holds the responses to all calls, up to 64 KiB and one second each.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use tower_refresh::grpc::HoldTrailersLayer;
    ///
    /// let layer = HoldTrailersLayer::new()
    ///     .only(|path| path.starts_with("/billing.Invoices/Get"))
    ///     .limit(1024 * 1024)
    ///     .timeout(Duration::from_millis(200));
    /// ```
    pub fn new() -> Self {
        let config = Config { limit: 64 * 1024, timeout: Duration::from_secs(1), only: None };
        Self { config }
    }

    /// Holds only the responses to calls for whose path the closure returns true, such as `/package.Service/Method`.
    pub fn only(mut self, path: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.config.only = Some(Arc::new(path));
        self
    }

    /// Sets how many bytes of a response are held, including the 5-byte prefix of the message. The default is 65,536.
    pub fn limit(mut self, bytes: usize) -> Self {
        self.config.limit = bytes;
        self
    }

    /// Sets how long a response is held after its head has arrived. The default is one second.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.config.timeout = timeout;
        self
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
        HoldTrailers::new(inner, self.config.clone())
    }
}
