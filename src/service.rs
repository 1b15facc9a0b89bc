//! The service: what becomes of a request when it is called.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Extensions, Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::classify::{Classify, Unauthorized};
use crate::credentials::{Answer, Credentials, Issued, Want, recursion};
use crate::error::{BoxError, for_caller};
use crate::find::FindCredentials;
use crate::future::{Again, ResponseFuture, Round, Sent};
use crate::layer::RefreshLayer;
use crate::origin::Carry;
use crate::replay::{ByType, Retry, SpareHead};
use crate::target::Target;

/// Attaches an access token to requests, and renews it when it expires or is rejected: the service of [`RefreshLayer`].
///
/// The inner service must be `Clone`; one that is not takes a `tower::buffer::BufferLayer` beneath.
///
/// # Errors
///
/// A boxed one, as with tower's `Timeout` and `Buffer`. A [`TokenError`](crate::TokenError) downcasts out of it, and
/// comes only when the request was never sent. Whatever else comes is the inner service's, but for one: a request whose
/// token was rejected, and whose token for the second attempt was then taken away (by a log-out, say) before it could be
/// sent, fails with an error that says so.
///
/// After a log-in or a log-out no request of the last session is sent with the new token: see
/// [`Credentials`](crate::Credentials).
///
/// With the feature `tonic`, either is a `tonic::Status` where the request is a gRPC one. The `TokenError` is then the
/// source of the first: see `grpc`.
///
/// An answer that rejects the token reaches the caller as it is if there is no newer token, or if the request cannot be
/// sent again, or if the newer token is rejected too. Why there is no newer token is then in the response's extensions,
/// as a [`TokenError`](crate::TokenError).
///
/// # Readiness
///
/// `poll_ready` forwards to the inner service. A request that finds a token at hand uses the service that is ready; one
/// that must wait for a token lets go of it first, so that it holds no permit and no place in a queue meanwhile.
///
/// # Cancel safety
///
/// Dropping the response future drops the request. It does not stop a refresh. If the request was rejected and its token is
/// being renewed, a body that is still being sent is broken off, over HTTP/1.1 with its connection. A rejection that reaches
/// the caller while the body is still being sent leaves the rest to go on, as it would have without the layer.
pub struct Refresh<I, S = Credentials, C = Unauthorized, R = ByType> {
    inner: I,
    layer: Arc<RefreshLayer<S, C, R>>,
}

/// Asks, in a request's extensions, that part of the layer's work be skipped.
///
/// ```
/// use http::Request;
/// use tower_refresh::Skip;
///
/// let request = Request::post("https://api.example.com/v1/payments")
///     .extension(Skip::Retry)
///     .body(())?;
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Skip {
    /// Leaves the request as it is: no token is attached, and its answer says nothing about the token.
    Token,
    /// Sends the request once: an answer that rejects the token reaches the caller. The token is renewed all the same.
    Retry,
}

impl<I, C, R> Refresh<I, Credentials, C, R> {
    /// Returns the credentials, for example to share them with another layer.
    pub fn credentials(&self) -> &Credentials {
        &self.layer.find
    }
}

impl<I, S, C, R> Refresh<I, S, C, R> {
    pub(crate) fn new(inner: I, layer: RefreshLayer<S, C, R>) -> Self {
        Self { inner, layer: Arc::new(layer) }
    }

    /// Returns the inner service.
    pub fn get_ref(&self) -> &I {
        &self.inner
    }

    /// Returns the inner service.
    ///
    /// What is sent through it directly carries no token.
    pub fn get_mut(&mut self) -> &mut I {
        &mut self.inner
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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let layer = &self.layer;
        let (head, body) = request.into_parts();
        if head.extensions.get() == Some(&Skip::Token) || layer.attach.carries_own(&head.headers) {
            let request = Request::from_parts(head, body);
            return ResponseFuture::untouched(layer, self.inner.call(request));
        }
        let carry = match layer.attach.invalid() {
            Some(error) => Carry::Refuse(error.clone()),
            None => layer.origins.check(&head.method, &head.uri, &head.headers),
        };
        let found = match &carry {
            Carry::Yes => layer.find.find(&head),
            _ => None,
        };
        let request = Request::from_parts(head, body);
        if let Carry::Refuse(error) = carry {
            self.let_go();
            return ResponseFuture::failed(&self.layer, for_caller(&request, error));
        }
        let Some(found) = found else {
            return ResponseFuture::untouched(layer, self.inner.call(request));
        };

        let credentials = layer.find.found(&found);
        let issued = match credentials.fresh() {
            Some(issued) => issued,
            None => match credentials.ask(Want::TokenOf(None)) {
                Answer::Use(issued) => issued,
                Answer::Wait(waiting) => {
                    let is_own = credentials.is_own_request(request.extensions());
                    let inner = self.let_go();
                    if is_own {
                        let error = for_caller(&request, recursion());
                        return ResponseFuture::failed(&self.layer, error);
                    }
                    return ResponseFuture::waiting(&self.layer, found, waiting, request, inner);
                }
                Answer::Refuse(error) => {
                    self.let_go();
                    return ResponseFuture::failed(&self.layer, for_caller(&request, error));
                }
            },
        };
        let target = Target::of(&request);
        let (request, spare) = match layer.arm(request, &issued) {
            Ok(armed) => armed,
            Err(error) => {
                self.let_go();
                return ResponseFuture::failed(&self.layer, error);
            }
        };
        // With nothing to send again there is nothing to send it with.
        let again = spare.map(|spare| Again { spare, service: self.inner.clone() });
        ResponseFuture::sending(
            layer,
            self.inner.call(request),
            Round::First(Sent { token: issued, target, found }, again),
        )
    }
}

impl<I: Clone, S, C, R> Refresh<I, S, C, R> {
    /// Gives up the readiness of the inner service, and with it a permit or a place in a queue. Returns a service to be
    /// readied later.
    fn let_go(&mut self) -> I {
        let unready = self.inner.clone();
        self.inner = unready.clone();
        unready
    }
}

impl<S, C, R> RefreshLayer<S, C, R> {
    /// Attaches the token, and keeps what it takes to send the request again.
    pub(crate) fn arm<B>(
        &self,
        request: Request<B>,
        issued: &Issued,
    ) -> Result<Armed<B, R::Spare>, BoxError>
    where
        R: Retry<B>,
    {
        let may_retry = request.extensions().get() != Some(&Skip::Retry);
        let limit = request.extensions().get().copied();
        let (head, body) = request.into_parts();
        let (body, spare) = if may_retry { self.retry.split(body, limit) } else { (body, None) };
        let spare = spare.map(|body| Spare { head: SpareHead::of(&head), body });
        let mut request = Request::from_parts(head, body);
        match self.attach.attach(request.headers_mut(), issued.tokens.access_token()) {
            Ok(()) => Ok((request, spare)),
            Err(error) => Err(for_caller(&request, error)),
        }
    }
}

/// A request with the token on it, and what it takes to send it again.
type Armed<B, T> = (Request<B>, Option<Spare<T>>);

/// What it takes to send a request again. The token is not in it.
pub(crate) struct Spare<T> {
    head: SpareHead,
    body: T,
}

impl<T> Spare<T> {
    pub(crate) fn extensions(&self) -> &Extensions {
        self.head.extensions()
    }

    /// Stops what the first attempt still sends, and returns whether the request can be sent again.
    pub(crate) fn pause<B, R: Retry<B, Spare = T>>(&mut self, retry: &R) -> bool {
        retry.pause(&mut self.body)
    }

    /// Returns the request, and lets the first attempt's body fail if it is still being sent. None if the head cannot be
    /// made again, which cannot be.
    pub(crate) fn replay<B, R: Retry<B, Spare = T>>(self, retry: &R) -> Option<Request<B>> {
        let body = retry.replay(self.body);
        Some(Request::from_parts(self.head.rebuild()?, body))
    }
}

impl<I: Clone, S, C, R> Clone for Refresh<I, S, C, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: Arc::clone(&self.layer) }
    }
}

impl<I: fmt::Debug, S: fmt::Debug, C, R> fmt::Debug for Refresh<I, S, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresh").field("inner", &self.inner).field("layer", &self.layer).finish()
    }
}
