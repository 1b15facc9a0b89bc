//! An HTTP client of any type.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use tower_service::Service;

use crate::error::BoxError;
use crate::lock::Lock;

/// An HTTP client of any type.
///
/// A request is sent in two steps, because it can be lost only in the second one.
#[derive(Clone)]
pub(super) struct HttpClient {
    ready: Arc<dyn Fn() -> BoxFuture<'static, Result<Call, BoxError>> + Send + Sync>,
    /// True if a request goes straight to hyper-util's client, so that it is known when it obtains a connection.
    pub(super) is_hyper_util: bool,
}

/// Sends one request through a client that is ready.
pub(super) type Call = Box<dyn FnOnce(Request<Full<Bytes>>) -> BoxFuture<'static, Called> + Send>;

type Called = Result<Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>;

impl HttpClient {
    pub(super) fn new<S, B>(client: S) -> Self
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // A client may not be `Sync`, such as `BoxCloneService`.
        let client = Lock::new(client);
        let ready = move || {
            let mut client = client.lock().clone();
            let ready = async move {
                poll_fn(|cx| client.poll_ready(cx)).await.map_err(Into::into)?;
                Ok(Box::new(move |request| call(client, request).boxed()) as Call)
            };
            ready.boxed()
        };
        // A layer that waits or retries has a future of its own.
        #[cfg(feature = "hyper-util")]
        let is_hyper_util = std::any::TypeId::of::<S::Future>()
            == std::any::TypeId::of::<hyper_util::client::legacy::ResponseFuture>();
        #[cfg(not(feature = "hyper-util"))]
        let is_hyper_util = false;
        Self { ready: Arc::new(ready), is_hyper_util }
    }

    /// Waits until the client is ready for one request.
    pub(super) async fn ready(&self) -> Result<Call, BoxError> {
        (self.ready)().await
    }
}

async fn call<S, B>(mut client: S, request: Request<Full<Bytes>>) -> Called
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    let response = client.call(request).await.map_err(Into::into)?;
    let bytes = |mut data: B::Data| data.copy_to_bytes(data.remaining());
    Ok(response.map(|body| {
        body.map_frame(move |frame| frame.map_data(bytes)).map_err(Into::into).boxed_unsync()
    }))
}
