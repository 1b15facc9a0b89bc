//! The builder of a request.

use std::fmt::{self, Display};
use std::time::Duration;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, Version};
use serde::Serialize;

use super::client::ReqwestClient;
use super::error::ReqwestError;
use super::response::without_query;
use crate::error::TokenError;

/// A `reqwest::RequestBuilder` that sends its request through the layers of a [`ReqwestClient`].
///
/// Its methods are those of reqwest's builder, to which they pass their arguments. [`map`](Self::map) lends that builder, for methods
/// that depend on your own features of reqwest, such as `multipart`. [`extension`](Self::extension) and [`send_ok`](Self::send_ok) are
/// new.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use tower_refresh::reqwest::{ReqwestClient, ReqwestError};
///
/// async fn add(client: &ReqwestClient, note: &str) -> Result<String, ReqwestError> {
///     let request = client
///         .post("https://api.example.com/v1/notes")
///         .query(&[("notify", "true")])
///         .json(&[("text", note)])
///         .timeout(Duration::from_secs(10));
///     Ok(request.send_ok().await?.text().await?)
/// }
/// ```
#[must_use = "a request is sent by its method `send`"]
pub struct RequestBuilder {
    client: ReqwestClient,
    request: reqwest::RequestBuilder,
    extensions: Extensions,
}

impl RequestBuilder {
    pub(super) fn new(client: ReqwestClient, request: reqwest::RequestBuilder) -> Self {
        Self { client, request, extensions: Extensions::new() }
    }

    /// Creates a builder from a client and a request that was built elsewhere.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::Skip;
    /// use tower_refresh::reqwest::{ReqwestClient, ReqwestError, RequestBuilder};
    ///
    /// async fn send_once(client: &ReqwestClient, request: reqwest::Request) -> Result<reqwest::Response, ReqwestError> {
    ///     RequestBuilder::from_parts(client.clone(), request).extension(Skip::Retry).send().await
    /// }
    /// ```
    pub fn from_parts(client: ReqwestClient, request: reqwest::Request) -> Self {
        let request = reqwest::RequestBuilder::from_parts(client.reqwest_client().clone(), request);
        Self::new(client, request)
    }

    /// Adds an extension, which the layers see: [`Skip`](crate::Skip), [`ReplayLimit`](crate::ReplayLimit), or the key of the user for
    /// [`RefreshLayer::keyed`](crate::RefreshLayer).
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::Skip;
    /// use tower_refresh::reqwest::{ReqwestClient, ReqwestError};
    ///
    /// async fn is_up(client: &ReqwestClient) -> Result<bool, ReqwestError> {
    ///     let request = client.get("https://api.example.com/health").extension(Skip::Token);
    ///     Ok(request.send().await?.status().is_success())
    /// }
    /// ```
    #[doc(alias = "with_extension")]
    pub fn extension(mut self, extension: impl Clone + Send + Sync + 'static) -> Self {
        self.extensions.insert(extension);
        self
    }

    /// Changes the request with a method of reqwest's builder.
    ///
    /// # Examples
    ///
    /// With the feature `multipart` of your `reqwest` dependency:
    ///
    /// ```
    /// use tower_refresh::reqwest::{ReqwestClient, ReqwestError};
    ///
    /// async fn upload(client: &ReqwestClient, file: Vec<u8>) -> Result<(), ReqwestError> {
    ///     let form = reqwest::multipart::Form::new().part("file", reqwest::multipart::Part::bytes(file));
    ///     let request = client.post("https://api.example.com/v1/files").map(|request| request.multipart(form));
    ///     request.send_ok().await?;
    ///     Ok(())
    /// }
    /// ```
    #[doc(alias = "multipart")]
    pub fn map(
        self,
        change: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Self {
        Self { request: change(self.request), ..self }
    }

    /// Adds a header.
    pub fn header<K, V>(self, name: K, value: V) -> Self
    where
        HeaderName: TryFrom<K, Error: Into<http::Error>>,
        HeaderValue: TryFrom<V, Error: Into<http::Error>>,
    {
        self.map(|request| request.header(name, value))
    }

    /// Sets headers. Each replaces the values that its name has so far.
    pub fn headers(self, headers: HeaderMap) -> Self {
        self.map(|request| request.headers(headers))
    }

    /// Sets the header `Authorization` to a user name and a password. The layer then leaves the request unchanged.
    pub fn basic_auth(self, user: impl Display, password: Option<impl Display>) -> Self {
        self.map(|request| request.basic_auth(user, password))
    }

    /// Sets the header `Authorization` to a token of your own. The layer then leaves the request unchanged.
    pub fn bearer_auth(self, token: impl Display) -> Self {
        self.map(|request| request.bearer_auth(token))
    }

    /// Adds parameters to the query of the URL.
    pub fn query<T: Serialize + ?Sized>(self, query: &T) -> Self {
        self.map(|request| request.query(query))
    }

    /// Sets the body.
    pub fn body(self, body: impl Into<reqwest::Body>) -> Self {
        self.map(|request| request.body(body))
    }

    /// Sets the body to a form.
    pub fn form<T: Serialize + ?Sized>(self, form: &T) -> Self {
        self.map(|request| request.form(form))
    }

    /// Sets the body to JSON.
    pub fn json<T: Serialize + ?Sized>(self, json: &T) -> Self {
        self.map(|request| request.json(json))
    }

    /// Sets the time limit of each attempt, from connecting to the end of the response's body. It replaces that of the client.
    ///
    /// The wait for a token is not included. A limit for the whole request is a layer of [`ReqwestClient::new`].
    pub fn timeout(self, timeout: Duration) -> Self {
        self.map(|request| request.timeout(timeout))
    }

    /// Sets the HTTP version.
    pub fn version(self, version: Version) -> Self {
        self.map(|request| request.version(version))
    }

    /// Returns the request, with its extensions. [`ReqwestClient::execute`] sends it.
    ///
    /// # Errors
    ///
    /// If the URL or an argument of the builder is invalid.
    pub fn build(self) -> reqwest::Result<reqwest::Request> {
        self.into_http()?.try_into()
    }

    /// Sends the request.
    ///
    /// A response that rejects the token is a response, as are all other statuses: see
    /// [what happens to a request](crate#what-happens-to-a-request).
    ///
    /// # Errors
    ///
    /// [`ReqwestError::Token`] if there is no token, and [`ReqwestError::Http`] if the request is invalid or fails in reqwest. Query,
    /// fragment and user name are removed from the URL of the error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the request. It does not stop a refresh.
    pub async fn send(self) -> Result<reqwest::Response, ReqwestError> {
        let client = self.client.clone();
        let request = self.into_http().map_err(without_query)?;
        let response = client.send(request).await.map_err(ReqwestError::of_service)?;
        Ok(response.into())
    }

    /// Sends the request, and returns an error if the status of the response is 4xx or 5xx.
    ///
    /// Use it instead of `send().await?.error_for_status()?`, which loses the reason why there is no newer token after a 401.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send). If the status is 4xx or 5xx, [`ReqwestError::Token`] if the response rejects the token and there is no
    /// newer one, and [`ReqwestError::Http`] otherwise, with the status and without the query of the URL.
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send).
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::reqwest::{ReqwestClient, ReqwestError};
    ///
    /// async fn note(client: &ReqwestClient) -> Result<String, ReqwestError> {
    ///     let note = client.get("https://api.example.com/v1/notes/1").send_ok().await?;
    ///     Ok(note.text().await?)
    /// }
    /// ```
    #[doc(alias = "error_for_status")]
    pub async fn send_ok(self) -> Result<reqwest::Response, ReqwestError> {
        let mut response = self.send().await?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            let reason = response.extensions_mut().remove::<TokenError>();
            reason.map_or(Ok(()), |reason| Err(ReqwestError::Token(reason)))?;
        }
        Ok(response.error_for_status().map_err(without_query)?)
    }

    /// Returns a copy, or `None` if the body is a stream or an argument of the builder is invalid.
    pub fn try_clone(&self) -> Option<Self> {
        let (client, extensions) = (self.client.clone(), self.extensions.clone());
        Some(Self { client, request: self.request.try_clone()?, extensions })
    }

    fn into_http(self) -> reqwest::Result<Request<reqwest::Body>> {
        let mut request = Request::try_from(self.request.build()?)?;
        request.extensions_mut().extend(self.extensions);
        Ok(request)
    }
}

impl fmt::Debug for RequestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL and the headers may hold secrets.
        f.debug_struct("RequestBuilder").finish_non_exhaustive()
    }
}
