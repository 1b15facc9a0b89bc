//! An HTTP client of any type.

use std::future::poll_fn;
use std::sync::PoisonError;

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tower_service::Service;

use crate::error::BoxError;

/// An HTTP client of any type.
pub(super) trait HttpClient: Send + Sync {
    fn ready(&self) -> BoxFuture<'static, Result<Box<dyn Ready>, BoxError>>;

    /// Returns whether a request goes straight to hyper-util's client, so that it is known when it obtains a connection.
    fn is_hyper_util(&self) -> bool;
}

/// An HTTP client that is ready for one request: in two steps, because a request is lost only in the second.
pub(super) trait Ready: Send {
    fn call(
        self: Box<Self>,
        request: Request<Full<Bytes>>,
    ) -> BoxFuture<'static, Result<Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>>;
}

/// A client that may not be `Sync` (`BoxCloneService` is not), shared all the same: it is cloned and never called.
pub(super) struct Shared<S> {
    #[expect(
        clippy::disallowed_types,
        reason = "held to clone the client, once for each token request, and for nothing else"
    )]
    client: std::sync::Mutex<S>,
}

impl<S> Shared<S> {
    #[expect(clippy::disallowed_types, reason = "see the field")]
    pub(super) fn new(client: S) -> Self {
        Self { client: std::sync::Mutex::new(client) }
    }
}

impl<S, B> HttpClient for Shared<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn ready(&self) -> BoxFuture<'static, Result<Box<dyn Ready>, BoxError>> {
        // A clone that panicked left the client as it was.
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            poll_fn(|cx| client.poll_ready(cx)).await.map_err(Into::into)?;
            Ok(Box::new(ReadyClient(client)) as Box<dyn Ready>)
        })
    }

    fn is_hyper_util(&self) -> bool {
        #[cfg(feature = "hyper-util")]
        {
            use std::any::TypeId;

            // Only its client makes this type, and a layer that waits or tries again makes one of its own.
            TypeId::of::<S::Future>() == TypeId::of::<hyper_util::client::legacy::ResponseFuture>()
        }
        #[cfg(not(feature = "hyper-util"))]
        false
    }
}

struct ReadyClient<S>(S);

impl<S, B> Ready for ReadyClient<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn call(
        mut self: Box<Self>,
        request: Request<Full<Bytes>>,
    ) -> BoxFuture<'static, Result<Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>> {
        Box::pin(async move {
            let response = self.0.call(request).await.map_err(Into::into)?;
            Ok(response.map(|body| {
                body.map_frame(|frame| {
                    frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))
                })
                .map_err(Into::into)
                .boxed_unsync()
            }))
        })
    }
}
