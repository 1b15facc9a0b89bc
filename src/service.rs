//! The service: the start of a request.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::acquire::Acquire;
use crate::attempt::{First, Sent, arm, for_caller};
use crate::classify::{Classify, Unauthorized};
use crate::config::{Admission, Config, Layered};
use crate::credentials::{Answer, Credentials, Want, recursion};
use crate::error::{BoxError, TokenError};
use crate::find::FindCredentials;
use crate::future::ResponseFuture;
use crate::replay::{ByType, Retry};

/// Attaches an access token to requests, and refreshes it when it expires or is rejected: the service of
/// [`RefreshLayer`](crate::RefreshLayer).
///
/// The inner service must be `Clone`. For one that is not, add a `tower::buffer::BufferLayer` between the two. When it is
/// layered, one clone of it is kept, and each second attempt is sent through a clone of that one. If you change a service, layer it
/// again. The kept clone lives until the layered service, its clones and their response futures are dropped.
///
/// `S` is how a request finds its credentials, `C` how a response is classified, and `R` how a body is sent again. With the
/// defaults, a struct field is `Refresh<HttpClient>`.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::client::legacy::Client;
/// use hyper_util::client::legacy::connect::HttpConnector;
/// use tower::ServiceExt as _;
/// use tower_refresh::Refresh;
///
/// struct Billing {
///     http: Refresh<Client<HttpConnector, Full<Bytes>>>,
/// }
///
/// impl Billing {
///     async fn invoices(&self) -> Result<http::StatusCode, tower_refresh::BoxError> {
///         let request = http::Request::get("https://api.example.com/invoices").body(Full::default())?;
///         Ok(self.http.clone().oneshot(request).await?.status())
///     }
/// }
/// ```
///
/// # Compiler errors
///
/// If the compiler reports that a method such as `oneshot` exists, *but its trait bounds were not satisfied*, pass the client to
/// `BoxCloneService::new`: then it names the bound. The [guide](crate::docs::compiler_errors) lists the causes.
///
/// # Errors
///
/// The error is boxed, as with tower's `Timeout` and `Buffer`. [`TokenError::of`](crate::TokenError::of) finds the reason in it:
///
/// - A [`TokenError`](crate::TokenError), if the request was never sent. It can be recovered with `downcast_ref`.
/// - An error whose source is a `TokenError`, if the token was rejected and the token for the second attempt was taken away
///   before it could be sent, for example by a log-out.
/// - Any other error is the inner service's.
///
/// With the feature `tonic`, the first two are a `tonic::Status` if the request is a gRPC request. In the first case, the
/// `TokenError` is the source of the status: see the module `grpc`.
///
/// After a log-in or a log-out, no request of the session before is sent with the new token: see
/// [`Credentials`](crate::Credentials).
///
/// A response that rejects the token is returned unchanged if there is no newer token, if the request cannot be sent again,
/// or if the newer token is rejected too. The reason why there is no newer token is a [`TokenError`](crate::TokenError) in the
/// extensions of the response.
///
/// # Readiness
///
/// `poll_ready` forwards to the inner service. A request for which there is a token uses the service that is ready. A request
/// that waits for a token first releases that service, so that it holds no permit and no place in a queue.
///
/// # Cancel safety
///
/// Dropping the response future drops the request. It does not stop a refresh. If the request was rejected and waits for a
/// newer token, a stream that is still being sent ends with an error, over HTTP/1.1 with its connection. If the rejection is
/// returned while the body is still being sent, the rest of the body is sent as it would be without the layer.
///
/// # Panics
///
/// If a request waits for a token in a runtime without a time driver (`enable_time`).
pub struct Refresh<I, S = Credentials, C = Unauthorized, R = ByType> {
    inner: I,
    layered: Arc<Layered<I, S, C, R>>,
}

impl<I, C, R> Refresh<I, Credentials, C, R> {
    /// Returns the credentials, for example to share them with another layer.
    pub fn credentials(&self) -> &Credentials {
        &self.layered.config.find
    }
}

impl<I, S, C, R> Refresh<I, S, C, R> {
    pub(crate) fn new(inner: I, config: Config<S, C, R>) -> Self
    where
        I: Clone,
    {
        let layered = Arc::new(Layered::new(config, &inner));
        Self { inner, layered }
    }

    #[cfg(feature = "pool")]
    pub(crate) fn find(&self) -> &S {
        &self.layered.config.find
    }

    /// Returns a reference to the inner service.
    pub fn get_ref(&self) -> &I {
        &self.inner
    }

    /// Returns the inner service.
    pub fn into_inner(self) -> I {
        self.inner
    }
}

impl<I, S, C, R, B, D> Service<Request<B>> for Refresh<I, S, C, R>
where
    I: Service<Request<B>, Response = Response<D>> + Clone,
    I::Error: Into<BoxError>,
    S: FindCredentials,
    C: Classify,
    R: Retry<B>,
    D: Body,
{
    type Response = Response<D>;
    type Error = BoxError;
    type Future = ResponseFuture<I, S, C, R, B, D>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let layered = Arc::clone(&self.layered);
        let config = &layered.config;
        let found = match config.admit(&request) {
            Admission::WithToken(found) => found,
            Admission::Untouched => {
                config.find.count_untouched(false);
                let response = self.inner.call(request);
                return ResponseFuture::sending(layered, response, Sent::Untouched);
            }
            // Counted by its response.
            Admission::Unnamed(unnamed) => {
                let response = self.inner.call(request);
                return ResponseFuture::sending(layered, response, Sent::Unnamed(unnamed));
            }
            Admission::Refused(error) => {
                config.find.count_not_sent();
                return self.fail(&request, error);
            }
        };

        let credentials = config.find.found(&found);
        let armed = credentials.with_fresh(|token| arm(&mut request, config, token));
        let armed = match armed {
            Some(armed) => armed,
            None => match credentials.ask(Want::TokenOf(None)) {
                Answer::Use(token) => arm(&mut request, config, &token),
                Answer::Wait(_) if credentials.is_own_request(request.extensions()) => {
                    Err(recursion())
                }
                Answer::Wait(waiting) => {
                    let acquire = Acquire::wait(waiting, self.release());
                    let first = First::new(request, found);
                    return ResponseFuture::acquiring(layered, first, acquire);
                }
                Answer::Refuse(error) => Err(error),
            },
        };
        match armed {
            Ok(armed) => {
                let response = self.inner.call(request);
                ResponseFuture::sending(layered, response, armed.sent(found))
            }
            Err(error) => {
                credentials.metrics().not_sent();
                self.fail(&request, error)
            }
        }
    }
}

impl<I: Clone, S, C, R> Refresh<I, S, C, R> {
    /// Gives up the readiness of the inner service, and with it a permit or a place in a queue. Returns a service to be
    /// readied later.
    fn release(&mut self) -> I {
        let unready = self.inner.clone();
        self.inner = unready.clone();
        unready
    }

    /// Fails a request that is not sent.
    fn fail<B, D>(
        &mut self,
        request: &Request<B>,
        error: TokenError,
    ) -> ResponseFuture<I, S, C, R, B, D>
    where
        I: Service<Request<B>>,
        S: FindCredentials,
        R: Retry<B>,
    {
        self.release();
        ResponseFuture::failed(Arc::clone(&self.layered), for_caller(request.headers(), error))
    }
}

impl<I: Clone, S, C, R> Clone for Refresh<I, S, C, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layered: Arc::clone(&self.layered) }
    }
}

impl<I: fmt::Debug, S: fmt::Debug, C, R> fmt::Debug for Refresh<I, S, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresh")
            .field("inner", &self.inner)
            .field("config", &self.layered.config)
            .finish()
    }
}
