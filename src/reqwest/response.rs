//! The response future.

use std::fmt;
use std::future::{self, Future, Ready};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::Either;
use http::Response;
use pin_project_lite::pin_project;
use reqwest::ResponseBuilderExt as _;
use tower_service::Service;

use super::watch::Watch;

pin_project! {
    /// The response future of [`ReqwestService`](super::ReqwestService).
    ///
    /// # Cancel safety
    ///
    /// Dropping it cancels the request.
    ///
    /// # Examples
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::Request;
    /// use http_body_util::Empty;
    /// use tower::Service;
    /// use tower_refresh::reqwest::{ReqwestService, ResponseFuture};
    ///
    /// fn send(http: &mut ReqwestService, request: Request<Empty<Bytes>>) -> ResponseFuture {
    ///     http.call(request)
    /// }
    /// ```
    pub struct ResponseFuture {
        #[pin]
        response: Either<Ready<Result<reqwest::Response, reqwest::Error>>, Pending>,
        // A token request and its URL.
        watched: Option<(Watch, reqwest::Url)>,
    }
}

type Pending = <reqwest::Client as Service<reqwest::Request>>::Future;

impl ResponseFuture {
    pub(super) fn sent(response: Pending, watched: Option<(Watch, reqwest::Url)>) -> Self {
        Self { response: Either::Right(response), watched }
    }

    pub(super) fn failed(error: reqwest::Error) -> Self {
        Self { response: Either::Left(future::ready(Err(error))), watched: None }
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<reqwest::Body>, reqwest::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.response.poll(cx)).map_err(without_query)?;
        if let Some((watch, url)) = this.watched
            && response.url() != url
        {
            watch.redirected();
        }
        Poll::Ready(Ok(into_http(response)))
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

pub(super) fn into_http(response: reqwest::Response) -> Response<reqwest::Body> {
    // reqwest reads the URL from this extension when a response is converted back, but does not set it.
    let mut with_url = Response::builder().url(response.url().clone());
    let mut response = Response::from(response);
    if let Some(extensions) = with_url.extensions_mut() {
        response.extensions_mut().extend(mem::take(extensions));
    }
    response
}

/// Removes from an error the parts of its URL that may be secret.
pub(super) fn without_query(mut error: reqwest::Error) -> reqwest::Error {
    if let Some(url) = error.url_mut() {
        url.set_query(None);
        url.set_fragment(None);
        // Fails for a URL that cannot have a user.
        let _ = url.set_username("");
        let _ = url.set_password(None);
    }
    error
}
