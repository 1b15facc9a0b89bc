//! The layer as a middleware of the crate `reqwest-middleware`.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Extensions, Request, Response};
use reqwest::Body;
use reqwest_middleware::{Error, Middleware, Next};
use tower_layer::Layer as _;
use tower_service::Service;

use super::error::ReqwestError;
use super::response::into_http;
use crate::classify::{Classify, Unauthorized};
use crate::credentials::Credentials;
use crate::find::FindCredentials;
use crate::layer::RefreshLayer;
use crate::lock::Lock;
use crate::replay::{ByType, Retry};

/// A [`RefreshLayer`] as a middleware of the crate `reqwest-middleware`.
///
/// The guarantees are those of the layer: one refresh at a time, one retry, and the token goes to named origins only. The second
/// attempt passes through the middleware that was added after this one. The [module documentation](super#middleware) describes the
/// order of middleware and extensions.
///
/// # Errors
///
/// If there is no token, the error is an `Error::Middleware` that holds a [`ReqwestError`], and its source is the
/// [`TokenError`](crate::TokenError). Errors of the client and of other middleware are returned unchanged.
///
/// # Examples
///
/// ```
/// use std::error::Error;
///
/// use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
/// use tower_refresh::reqwest::RefreshMiddleware;
/// use tower_refresh::{RefreshLayer, StaticToken, TokenError};
///
/// fn client(http: reqwest::Client) -> Result<ClientWithMiddleware, tower_refresh::BoxError> {
///     let source = StaticToken::new("sesame".parse()?);
///     let layer = RefreshLayer::new(source).origin("https://api.example.com")?;
///     Ok(ClientBuilder::new(http).with(RefreshMiddleware::new(layer)).build())
/// }
///
/// fn token_error(error: &reqwest_middleware::Error) -> Option<&TokenError> {
///     error.source()?.downcast_ref()
/// }
/// # client(reqwest::Client::new()).unwrap();
/// # let error = tower_refresh::reqwest::ReqwestError::Token(TokenError::denied("expired"));
/// # assert!(token_error(&reqwest_middleware::Error::middleware(error)).is_some());
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest-middleware")))]
#[derive(Clone, Debug)]
pub struct RefreshMiddleware<S = Credentials, C = Unauthorized, R = ByType> {
    layer: RefreshLayer<S, C, R>,
}

impl<S, C, R> RefreshMiddleware<S, C, R> {
    /// Creates a middleware from a layer.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::reqwest::RefreshMiddleware;
    /// use tower_refresh::{RefreshLayer, StaticToken};
    ///
    /// # fn main() -> Result<(), tower_refresh::BoxError> {
    /// let layer = RefreshLayer::new(StaticToken::new("sesame".parse()?)).origin("https://api.example.com")?;
    /// let middleware = RefreshMiddleware::new(layer);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(layer: RefreshLayer<S, C, R>) -> Self {
        Self { layer }
    }
}

impl<S, C, R> Middleware for RefreshMiddleware<S, C, R>
where
    S: FindCredentials + Clone + Send + Sync + 'static,
    C: Classify,
    R: Retry<Body, Spare: Send> + Send + Sync + 'static,
{
    // `async_trait` makes this of an `async fn`.
    fn handle<'layer, 'extensions, 'next, 'future>(
        &'layer self,
        request: reqwest::Request,
        extensions: &'extensions mut Extensions,
        next: Next<'next>,
    ) -> BoxFuture<'future, Result<reqwest::Response, Error>>
    where
        'layer: 'future,
        'extensions: 'future,
        'next: 'future,
    {
        let handled = async move {
            // Not a URI of `http`. Middleware after this one may respond to `file:` and others.
            if !matches!(request.url().scheme(), "http" | "https") {
                return next.run(request, extensions).await;
            }
            let mut request = Request::try_from(request)?;
            request.extensions_mut().extend(extensions.clone());
            // A copy: the middleware before this one may drop this future, and send its request again.
            let shared = Arc::new(Lock::new(extensions.clone()));
            let rest = Rest { next, extensions: Arc::clone(&shared) };
            // A service of `Rest` is ready at once.
            let response = self.layer.layer(rest).call(request).await;
            *extensions = mem::take(&mut *shared.lock());
            Ok(response.map_err(into_middleware)?.into())
        };
        handled.boxed()
    }
}

fn into_middleware(error: crate::BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(error) => Error::middleware(ReqwestError::of_service(error)),
    }
}

/// The middleware after this one, and the client, as a service. Its clones make the second attempt.
#[derive(Clone)]
struct Rest<'a> {
    next: Next<'a>,
    /// One attempt at a time uses them.
    extensions: Arc<Lock<Extensions>>,
}

impl<'a> Service<Request<Body>> for Rest<'a> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'a, Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { next, extensions } = self.clone();
        let sending = async move {
            let request = reqwest::Request::try_from(request)?;
            let mut lent = mem::take(&mut *extensions.lock());
            let response = next.run(request, &mut lent).await;
            *extensions.lock() = lent;
            Ok(into_http(response?))
        };
        sending.boxed()
    }
}
