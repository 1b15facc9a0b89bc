//! The token endpoint.

mod body;
mod client;
mod decode;
mod exchange;
#[cfg(feature = "decompression")]
mod inflate;
mod sent;
mod url;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

use self::client::HttpClient;
use self::sent::IsUnsent;
#[cfg(feature = "reqwest")]
pub(crate) use self::sent::{WasSent, Watch};
use self::url::{parse_url, without_query};
use super::client_auth::ClientAuth;
use super::dialect::Dialect;
use super::response::Reported;
use crate::clock::{Clock, SystemClock};
use crate::error::{BoxError, TokenError};
use crate::source::SourceInfo;
use crate::target::Target;

/// A token endpoint (RFC 6749 §3.2): an HTTP client, a URL, a client authentication and a dialect.
///
/// Grants take it by value: [`RefreshTokenGrant`](super::RefreshTokenGrant),
/// [`ClientCredentialsGrant`](super::ClientCredentialsGrant), [`TokenExchangeGrant`](super::TokenExchangeGrant),
/// [`JwtBearerGrant`](super::JwtBearerGrant), [`Grant`](super::Grant). Cloning it is cheap.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::client::legacy::Client;
/// use hyper_util::rt::TokioExecutor;
/// use tower_refresh::oauth2::{ClientAuth, TokenEndpoint};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// let endpoint = TokenEndpoint::new(client, "http://localhost:8080/token")?
///     .client_auth(ClientAuth::basic("my-client", std::env::var("CLIENT_SECRET").unwrap_or_default()));
/// # Ok(())
/// # }
/// ```
///
/// # The URL
///
/// Query parameters of the URL are kept (RFC 6749 §3.2), also with a [`refresh_path`](Dialect::refresh_path). Parameters that
/// [`BodyFormat::Query`](super::BodyFormat::Query) or [`RequestMethod::Get`](super::RequestMethod::Get) adds follow them, and
/// must have other names. The values never appear in an error or in `Debug`.
///
/// # The HTTP client
///
/// The client is any [`Service`] of requests with a [`Full`] body: hyper-util's client, or a tower stack with your proxies,
/// timeouts and tracing. Hyper-util's client has the body as a type parameter: if your requests have another body than `Full`,
/// build a second client for the endpoint. The client must not contain the [`RefreshLayer`](crate::RefreshLayer) that uses this endpoint.
///
/// Enable the feature `hyper-util` for hyper-util's client, and use `reqwest::ReqwestService` for reqwest: their errors of
/// connecting then prove that nothing was sent. For other clients see [`is_unsent`](Self::is_unsent).
///
/// # Idle connection caveat
///
/// Servers close connections that have been idle for a while. A token request that is sent on one at that moment has an unknown
/// outcome. An access token usually outlives the idle connection of its token request. If yours lives for less than two minutes,
/// or if the API and the token endpoint share a host and a client, give the endpoint a client of its own that keeps no idle
/// connections: `pool_max_idle_per_host(0)` for the clients of hyper-util and reqwest.
///
/// # Redirect caveat
///
/// A redirect is an error, because a refresh token must not be sent elsewhere. A client that follows redirects by itself
/// bypasses this: disable that (`reqwest::redirect::Policy::none()`). With secrets in the query
/// ([`allow_secrets_in_query`](Dialect::allow_secrets_in_query)) this is required, because such a client may send them to the
/// next server in `Referer`.
///
/// # Retry caveat
///
/// Most refresh tokens can be spent once. If a client repeats a request after a lost answer, as a `tower::retry` layer does,
/// the server may treat the token as stolen. Leave retries to this crate, which knows when they are safe.
///
/// # Logging caveat
///
/// The body of a token request contains secrets and that of its answer tokens, and `{:?}` of a [`Full`] body shows its
/// content. A client that traces or records must leave out both bodies, and the URL if its query contains a secret. Headers of
/// the client authentication are marked sensitive.
#[derive(Clone)]
#[must_use]
pub struct TokenEndpoint {
    client: HttpClient,
    url: Uri,
    client_auth: ClientAuth,
    dialect: Result<Arc<Dialect>, TokenError>,
    timeout: Duration,
    answer_limit: usize,
    is_unsent: Option<Arc<IsUnsent>>,
    clock: Arc<dyn Clock>,
    /// The flaws of its answers that were logged. The clones of an endpoint share them.
    reported: Arc<Reported>,
}

impl TokenEndpoint {
    /// Creates a token endpoint from an HTTP client and a URL.
    ///
    /// # Errors
    ///
    /// A [misconfigured](TokenError::is_misconfigured) error if the URL is neither `https` nor `http` for `localhost` or a
    /// loopback address, or if it contains a user name or a fragment (RFC 6749 §3.2).
    ///
    /// # Examples
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use http_body_util::Full;
    /// # use hyper_util::client::legacy::Client;
    /// # use hyper_util::rt::TokioExecutor;
    /// use tower_refresh::oauth2::TokenEndpoint;
    ///
    /// # fn main() -> Result<(), tower_refresh::TokenError> {
    /// # let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    /// let endpoint = TokenEndpoint::new(client, "https://as.example.com/token")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn new<S, B>(http_client: S, url: impl AsRef<str>) -> Result<Self, TokenError>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Ok(Self::of(HttpClient::new(http_client), parse_url(url.as_ref(), |_| false)?))
    }

    /// Creates a token endpoint that may use plaintext `http`, also outside of loopback.
    ///
    /// **An attacker on the network path can read the client secret, the refresh token and the access token, and can answer instead
    /// of the server.** RFC 6749 §3.2 and RFC 6750 §5.3 require TLS. Use this only if something else protects the connection,
    /// such as a service mesh or a network namespace.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), except that `http` is accepted.
    ///
    /// # Examples
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use http_body_util::Full;
    /// # use hyper_util::client::legacy::Client;
    /// # use hyper_util::rt::TokioExecutor;
    /// use tower_refresh::oauth2::TokenEndpoint;
    ///
    /// # fn main() -> Result<(), tower_refresh::TokenError> {
    /// # let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    /// let endpoint = TokenEndpoint::new_plaintext(client, "http://10.0.0.5/token")?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "allow_plaintext")]
    pub fn new_plaintext<S, B>(http_client: S, url: impl AsRef<str>) -> Result<Self, TokenError>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Ok(Self::of(HttpClient::new(http_client), parse_url(url.as_ref(), |_| true)?))
    }

    fn of(client: HttpClient, url: Uri) -> Self {
        Self {
            client,
            url,
            client_auth: ClientAuth::default(),
            dialect: Ok(Arc::default()),
            timeout: DEFAULT_TIMEOUT,
            answer_limit: DEFAULT_ANSWER_LIMIT,
            is_unsent: None,
            clock: Arc::new(SystemClock),
            reported: Arc::default(),
        }
    }

    /// Sets the URL, for another endpoint of the same server and client, such as its revocation endpoint.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new). An endpoint of [`new_plaintext`](Self::new_plaintext) may keep its plaintext host and port.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::TokenError;
    /// use tower_refresh::oauth2::{Revocation, TokenEndpoint};
    ///
    /// fn revocation(endpoint: &TokenEndpoint) -> Result<Revocation, TokenError> {
    ///     Ok(Revocation::new(endpoint.clone().with_url("https://as.example.com/revoke")?))
    /// }
    /// ```
    pub fn with_url(mut self, url: impl AsRef<str>) -> Result<Self, TokenError> {
        let own = self.url.authority().filter(|_| self.url.scheme_str() == Some("http"));
        let is_own = |other: &str| own.is_some_and(|own| own.as_str().eq_ignore_ascii_case(other));
        self.url = parse_url(url.as_ref(), is_own)?;
        Ok(self)
    }

    /// Sets how the client identifies itself. The default is [`ClientAuth::none`].
    pub fn client_auth(mut self, client_auth: ClientAuth) -> Self {
        self.client_auth = client_auth;
        self
    }

    /// Sets the differences from RFC 6749. The default is [`Dialect::rfc6749`].
    ///
    /// If the dialect is [not valid](Dialect::validate), nothing is sent, and every request fails with an error that names the
    /// field.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect.validate().map(|()| Arc::new(dialect));
        self
    }

    /// Sets the time limit of one request, including the body of the answer. The default is 120 s.
    ///
    /// The limit should be longer than callers wait, because a late answer contains the only copy of the next refresh token. An
    /// answer that arrived while the process was stopped, or its runtime was not polled, is used even after the limit.
    ///
    /// If the dialect has a [`reuse_grace`](Dialect::reuse_grace), the limit of a refresh is at most 2/5 of it, so that time is
    /// left for a second request.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the size limit of an answer in bytes. The default is 256 KiB. A longer answer is unreadable.
    pub fn answer_limit(mut self, bytes: usize) -> Self {
        self.answer_limit = bytes;
        self
    }

    /// Sets a predicate for errors of the HTTP client that prove that nothing was sent, so that the request can be repeated.
    ///
    /// It is called with the error and with each of its causes. Clients other than hyper-util's and reqwest need it. The
    /// features `hyper-util` and `reqwest` recognise the errors of connecting of these two: an unknown host, a refused
    /// connection, a failed TLS handshake, a connect timeout. An error of `poll_ready` and a [`TokenError`] of an inner layer
    /// also prove that nothing was sent. After any other error, the request may have been sent.
    ///
    /// An [`io::ErrorKind`](std::io::ErrorKind) such as `HostUnreachable` or `ConnectionRefused` proves nothing: the operating
    /// system also reports it on a connection over which the request was sent.
    ///
    /// # Repeated requests
    ///
    /// If a client follows redirects or retries, the connection that failed may be the second one, and the refresh token may
    /// be spent. hyper-util's client below tower's layers and `reqwest::ReqwestService` report that. Another client must
    /// neither follow redirects nor retry.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::{error, fmt};
    /// use tower_refresh::oauth2::TokenEndpoint;
    ///
    /// # #[derive(Debug)]
    /// # struct ConnectError;
    /// # impl fmt::Display for ConnectError {
    /// #     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str("not connected") }
    /// # }
    /// # impl error::Error for ConnectError {}
    /// # fn example(endpoint: TokenEndpoint) -> TokenEndpoint {
    /// endpoint.is_unsent(|error| error.is::<ConnectError>())
    /// # }
    /// ```
    pub fn is_unsent<F>(mut self, predicate: F) -> Self
    where
        F: Fn(&(dyn Error + 'static)) -> bool + Send + Sync + 'static,
    {
        self.is_unsent = Some(Arc::new(predicate));
        self
    }

    /// Sets the clock for times of expiry. The default is the operating system's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Returns the origin: scheme, host, and the port unless it is the default.
    pub(super) fn origin(&self) -> String {
        let scheme = self.url.scheme_str().unwrap_or_default();
        let authority =
            self.url.authority().map_or("", |authority| authority.as_str()).to_ascii_lowercase();
        let default_port = if scheme == "https" { ":443" } else { ":80" };
        let host = authority.strip_suffix(default_port).unwrap_or(&authority);
        format!("{scheme}://{host}")
    }

    /// Returns the target that tokens are sent to as the proof of a grant for this purpose.
    pub(super) fn target(&self, purpose: &str) -> Target {
        Target::of_grant(&self.url, purpose)
    }

    /// Returns the facts about a source that uses this endpoint.
    pub(super) fn info(&self) -> SourceInfo {
        let mut info = SourceInfo::new().token_endpoint(self.origin());
        if let Some(id) = self.client_auth.client_id() {
            info = info.client_id(id);
        }
        match &self.dialect {
            Ok(dialect) => info.rotates(dialect.rotates).reuse_grace(dialect.reuse_grace),
            Err(_) => info,
        }
    }

    pub(super) fn checked_dialect(&self) -> Result<&Dialect, TokenError> {
        self.dialect.as_deref().map_err(TokenError::clone)
    }
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpoint")
            .field("url", &without_query(&self.url))
            .field("client_auth", &self.client_auth)
            .field("dialect", &self.dialect)
            .field("timeout", &self.timeout)
            .field("answer_limit", &self.answer_limit)
            .finish_non_exhaustive()
    }
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

const DEFAULT_ANSWER_LIMIT: usize = 256 * 1024;
