//! The client.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use http_body::Body;
use reqwest::IntoUrl;
use tower_layer::Layer;
use tower_service::Service;

use super::body::into_reqwest;
use super::error::ReqwestError;
use super::request::RequestBuilder;
use super::service::ReqwestService;
use crate::error::BoxError;

/// A `reqwest::Client` whose requests pass through a [`RefreshLayer`](crate::RefreshLayer).
///
/// It has the methods of `reqwest::Client`, so that a program changes the type of its client and keeps its requests. Cloning it is
/// cheap. The [module documentation](super) contains a complete program, and the table of the differences to `reqwest::Client`.
///
/// # Examples
///
/// ```
/// use serde::Deserialize;
/// use tower_refresh::reqwest::{ReqwestClient, ReqwestError};
///
/// #[derive(Deserialize)]
/// struct Invoice {
///     total: u64,
/// }
///
/// struct Billing {
///     http: ReqwestClient,
/// }
///
/// impl Billing {
///     async fn invoices(&self, year: u16) -> Result<Vec<Invoice>, ReqwestError> {
///         let request = self.http.get("https://api.example.com/v1/invoices").query(&[("year", year)]);
///         Ok(request.send_ok().await?.json().await?)
///     }
/// }
/// ```
#[derive(Clone)]
pub struct ReqwestClient {
    /// Builds the requests, and sends none.
    client: reqwest::Client,
    service: Arc<dyn SendRequest>,
}

impl ReqwestClient {
    /// Creates a client whose requests pass through a layer and then through a `reqwest::Client`.
    ///
    /// The layer is a [`RefreshLayer`](crate::RefreshLayer), or a `tower::ServiceBuilder` with other layers around it. The timeouts,
    /// proxies, cookies, default headers and redirect policy of the client apply below the layer.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use tower::ServiceBuilder;
    /// use tower_refresh::reqwest::ReqwestClient;
    /// use tower_refresh::{RefreshLayer, StaticToken};
    ///
    /// # fn main() -> Result<(), tower_refresh::BoxError> {
    /// let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    /// let layer = RefreshLayer::new(StaticToken::new("sesame".parse()?)).origin("https://api.example.com")?;
    /// let client = ReqwestClient::new(http.clone(), layer.clone());
    ///
    /// // With a time limit that includes the wait for a token and the second attempt:
    /// let layers = ServiceBuilder::new().timeout(Duration::from_secs(30)).layer(layer);
    /// let client = ReqwestClient::new(http, layers);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new<L, D>(client: reqwest::Client, layer: L) -> Self
    where
        L: Layer<ReqwestService>,
        L::Service: Service<
                Request<reqwest::Body>,
                Response = Response<D>,
                Error: Into<BoxError>,
                Future: Send,
            > + Clone
            + Send
            + Sync
            + 'static,
        D: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let service = Arc::new(layer.layer(ReqwestService::new(client.clone())));
        Self { client, service }
    }

    /// Starts a `GET` request.
    pub fn get(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// Starts a `POST` request.
    pub fn post(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::POST, url)
    }

    /// Starts a `PUT` request.
    pub fn put(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::PUT, url)
    }

    /// Starts a `PATCH` request.
    pub fn patch(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::PATCH, url)
    }

    /// Starts a `DELETE` request.
    pub fn delete(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::DELETE, url)
    }

    /// Starts a `HEAD` request.
    pub fn head(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::HEAD, url)
    }

    /// Starts a request. An invalid URL is an error of [`send`](RequestBuilder::send).
    pub fn request(&self, method: Method, url: impl IntoUrl) -> RequestBuilder {
        RequestBuilder::new(self.clone(), self.client.request(method, url))
    }

    /// Sends a request that was built elsewhere.
    ///
    /// To add an [extension](RequestBuilder::extension) to it, use [`RequestBuilder::from_parts`]. Those of [`RequestBuilder::build`] are
    /// kept.
    ///
    /// # Errors
    ///
    /// As [`RequestBuilder::send`].
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::reqwest::{ReqwestClient, ReqwestError};
    ///
    /// async fn send(client: &ReqwestClient, request: reqwest::RequestBuilder) -> Result<reqwest::Response, ReqwestError> {
    ///     client.execute(request.build()?).await
    /// }
    /// ```
    pub async fn execute(
        &self,
        request: reqwest::Request,
    ) -> Result<reqwest::Response, ReqwestError> {
        RequestBuilder::from_parts(self.clone(), request).send().await
    }

    pub(super) fn reqwest_client(&self) -> &reqwest::Client {
        &self.client
    }

    pub(super) fn send(&self, request: Request<reqwest::Body>) -> Sending {
        self.service.send(request)
    }
}

impl fmt::Debug for ReqwestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client would show its default headers, which may hold secrets.
        f.debug_struct("ReqwestClient").finish_non_exhaustive()
    }
}

/// A service of any type, so that the client and its requests have no type parameter.
trait SendRequest: Send + Sync {
    fn send(&self, request: Request<reqwest::Body>) -> Sending;
}

type Sending = BoxFuture<'static, Result<Response<reqwest::Body>, BoxError>>;

impl<S, D> SendRequest for S
where
    S: Service<Request<reqwest::Body>, Response = Response<D>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    D: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn send(&self, request: Request<reqwest::Body>) -> Sending {
        let mut service = self.clone();
        let sending = async move {
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
            let response = service.call(request).await.map_err(Into::into)?;
            Ok(response.map(|body| into_reqwest(body, None)))
        };
        sending.boxed()
    }
}
