//! The service.

use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::Body;
use tower_service::Service;

use super::body::into_reqwest;
use super::response::{ResponseFuture, without_query};
use super::watch::watch;
use crate::error::BoxError;

/// A `reqwest::Client` as a service of `http` types.
///
/// Cloning it is cheap, and it is always ready. The [module documentation](super) describes redirects, proxies, bodies and
/// limits.
///
/// # Errors
///
/// Fails with reqwest's own error, its predicates (`is_timeout`, `is_connect`, …) and its causes. Query, fragment and user name are
/// removed from the URL in it, which `reqwest::Error` would show.
///
/// # Cancel safety
///
/// Dropping the future cancels the request, as with reqwest.
///
/// # Examples
///
/// ```no_run
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Empty;
/// use tower::ServiceExt;
/// use tower_refresh::reqwest::ReqwestService;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_refresh::BoxError> {
/// let http = ReqwestService::new(reqwest::Client::new());
/// let request = Request::get("https://api.example.com/v1/me").body(Empty::<Bytes>::new())?;
/// let response = http.oneshot(request).await?;
/// println!("{}", response.status());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ReqwestService {
    client: reqwest::Client,
}

impl ReqwestService {
    /// Creates a service from a client, whose timeouts, proxies, default headers and redirect policy apply.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use tower_refresh::reqwest::ReqwestService;
    ///
    /// let client = reqwest::Client::builder()
    ///     .connect_timeout(Duration::from_secs(5))
    ///     .redirect(reqwest::redirect::Policy::none())
    ///     .build()?;
    /// let http = ReqwestService::new(client);
    /// # Ok::<(), reqwest::Error>(())
    /// ```
    #[must_use]
    pub fn new(client: reqwest::Client) -> Self {
        Self { client }
    }
}

impl<B> Service<Request<B>> for ReqwestService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<reqwest::Body>;
    type Error = reqwest::Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), reqwest::Error>> {
        self.client.poll_ready(cx).map_err(without_query)
    }

    fn call(&mut self, mut request: Request<B>) -> ResponseFuture {
        // reqwest parses the URI as text. A path without a slash would extend the host, and the token would go elsewhere.
        if !request.uri().path().starts_with('/') {
            *request.uri_mut() = Uri::default();
        }
        let watch = watch(request.extensions());
        let request = request.map(|body| into_reqwest(body, watch.clone()));
        match reqwest::Request::try_from(request) {
            Ok(request) => {
                let watched = watch.map(|watch| (watch, request.url().clone()));
                ResponseFuture::sent(self.client.call(request), watched)
            }
            Err(error) => ResponseFuture::failed(error),
        }
    }
}

impl From<reqwest::Client> for ReqwestService {
    fn from(client: reqwest::Client) -> Self {
        Self::new(client)
    }
}

impl fmt::Debug for ReqwestService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client would show its default headers, which may hold secrets.
        f.debug_struct("ReqwestService").finish_non_exhaustive()
    }
}
