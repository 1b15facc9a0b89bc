//! The token endpoint, over any HTTP client.

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

use self::client::{HttpClient, Shared};
use self::sent::IsUnsent;
#[cfg(feature = "reqwest")]
pub(crate) use self::sent::{WasSent, Watch};
use self::url::{parse_url, without_query};
use super::client_auth::ClientAuth;
use super::dialect::Dialect;
use crate::clock::{Clock, SystemClock};
use crate::error::{BoxError, TokenError};
use crate::source::SourceInfo;

/// A token endpoint (RFC 6749 §3.2): where to ask, by which HTTP client, as whom, and in which dialect.
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
/// Cloning it is cheap. Grants take it by value: [`RefreshTokenGrant`](super::RefreshTokenGrant),
/// [`ClientCredentialsGrant`](super::ClientCredentialsGrant), [`Grant`](super::Grant).
///
/// # The URL
///
/// Query parameters of the URL are kept (RFC 6749 §3.2): they stand before those that are added to the query with
/// [`BodyFormat::Query`](super::BodyFormat::Query) or [`RequestMethod::Get`](super::RequestMethod::Get), which must have
/// other names, and also after a [`refresh_path`](Dialect::refresh_path). Their values never appear in an
/// error or in `Debug`.
///
/// # The HTTP client
///
/// Any [`Service`] of requests with a [`Full`] body will do: hyper-util's client, or a tower stack with your proxies,
/// timeouts and tracing in it. It must not pass through the layer that this endpoint feeds.
///
/// With hyper-util's client enable the feature `hyper-util`, and for reqwest use `reqwest::ReqwestService`: their errors of
/// connecting then prove that nothing was sent. For other clients see [`is_unsent`](Self::is_unsent).
///
/// # Redirect caveat
///
/// A redirect is an error here, since a refresh token is not to be carried elsewhere. A client that follows redirects by
/// itself does so below, unseen: switch that off (`reqwest::redirect::Policy::none()`). With secrets in the query
/// ([`allow_secrets_in_query`](Dialect::allow_secrets_in_query)) this is a must, since such a client may send them to the
/// next server in `Referer`.
///
/// # Retry caveat
///
/// Most refresh tokens can be spent once. A client that sends a request again after a lost answer (a `tower::retry`
/// layer, for one) makes the server believe that the token was stolen. Repetition is for the layers above, which know
/// when it is safe.
///
/// # Logging caveat
///
/// The body of a token request holds secrets, that of its answer the tokens, and `{:?}` of a [`Full`] body shows all of
/// it. A layer under this endpoint that traces or records must leave both bodies out, and also the URL if there is a
/// secret in its query. Headers of the client authentication are marked sensitive.
#[derive(Clone)]
pub struct TokenEndpoint {
    client: Arc<dyn HttpClient>,
    url: Uri,
    client_auth: ClientAuth,
    dialect: Result<Arc<Dialect>, TokenError>,
    timeout: Duration,
    answer_limit: usize,
    is_unsent: Option<Arc<IsUnsent>>,
    clock: Arc<dyn Clock>,
}

impl TokenEndpoint {
    /// Makes a token endpoint of an HTTP client and a URL.
    ///
    /// # Errors
    ///
    /// A [misconfigured](TokenError::is_misconfigured) error if the URL is not `https` (`http` will do for `localhost` and
    /// loopback addresses), or contains a user name or a fragment (RFC 6749 §3.2).
    pub fn new<S, B>(http_client: S, url: impl AsRef<str>) -> Result<Self, TokenError>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Ok(Self::with(http_client, parse_url(url.as_ref(), |_| false)?))
    }

    /// Makes a token endpoint that may be asked without TLS, for `http` URLs other than loopback ones.
    ///
    /// **Everyone on the network path can read the client's secret, the refresh token and the access token, and can answer
    /// instead of the server.** RFC 6749 §3.2 and RFC 6750 §5.3 require TLS. Use it only where something else protects the
    /// connection, such as a service mesh or a network namespace.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), but for the scheme.
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
        Ok(Self::with(http_client, parse_url(url.as_ref(), |_| true)?))
    }

    fn with<S, B>(http_client: S, url: Uri) -> Self
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self {
            client: Arc::new(Shared::new(http_client)),
            url,
            client_auth: ClientAuth::default(),
            dialect: Ok(Arc::default()),
            timeout: DEFAULT_TIMEOUT,
            answer_limit: DEFAULT_ANSWER_LIMIT,
            is_unsent: None,
            clock: Arc::new(SystemClock),
        }
    }

    /// Returns this endpoint with another URL, such as that of the revocation endpoint.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new). For an endpoint made by [`new_plaintext`](Self::new_plaintext), an `http` URL may name the same
    /// host and port.
    pub fn at(&self, url: impl AsRef<str>) -> Result<Self, TokenError> {
        let is_named = |authority: &str| {
            self.url.scheme_str() == Some("http")
                && self
                    .url
                    .authority()
                    .is_some_and(|own| own.as_str().eq_ignore_ascii_case(authority))
        };
        Ok(Self { url: parse_url(url.as_ref(), is_named)?, ..self.clone() })
    }

    /// Sets how the client identifies itself; by default it does not.
    #[must_use]
    pub fn client_auth(mut self, client_auth: ClientAuth) -> Self {
        self.client_auth = client_auth;
        self
    }

    /// Sets how the endpoint departs from RFC 6749; by default it does not.
    ///
    /// If the dialect is [not valid](Dialect::validate), nothing is sent, and every request fails with the error that
    /// names the field.
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect.validate().map(|()| Arc::new(dialect));
        self
    }

    /// Sets how long one request may take, the answer's body included; 120 s by default.
    ///
    /// An answer that arrived while the process was stopped, or its runtime was not polled, is used although the time has passed.
    ///
    /// It is longer than callers wait, on purpose: the late answer is the only copy of the next refresh token. With a
    /// dialect that names a [`reuse_grace`](Dialect::reuse_grace), a refresh takes less than half of that, so that there
    /// is time to ask again.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how many bytes of an answer are read before it counts as unreadable; 256 KiB by default.
    #[must_use]
    pub fn answer_limit(mut self, bytes: usize) -> Self {
        self.answer_limit = bytes;
        self
    }

    /// Recognises errors of the HTTP client that prove that nothing was sent, so that the request may be repeated.
    ///
    /// The predicate is called with the error and with each of its causes. It is needed for clients other than hyper-util's
    /// and reqwest. Their errors of connecting (an unknown host, a refused connection, a failed TLS handshake, a connect
    /// timeout) are recognised with the features `hyper-util` and `reqwest`. Besides these, an error of `poll_ready` proves
    /// that nothing was sent, and a [`TokenError`] of a layer beneath. After any other error the request may have been sent.
    ///
    /// An [`io::ErrorKind`](std::io::ErrorKind) such as `HostUnreachable` or `ConnectionRefused` proves nothing: the operating
    /// system also reports it on a connection over which the request was sent.
    ///
    /// # Repeated requests
    ///
    /// With a client that follows redirects or tries again, the connection that failed may be the second, and the refresh
    /// token spent. hyper-util's client below tower's layers, and `reqwest::ReqwestService`, report
    /// that. Another client must do neither.
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
    #[must_use]
    pub fn is_unsent<F>(mut self, predicate: F) -> Self
    where
        F: Fn(&(dyn Error + 'static)) -> bool + Send + Sync + 'static,
    {
        self.is_unsent = Some(Arc::new(predicate));
        self
    }

    /// Sets the clock by which refresh tokens and absolute times of expiry are judged; the operating system's by default.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    pub(super) fn now(&self) -> crate::clock::Timestamp {
        self.clock.now()
    }

    /// Returns the origin: scheme, host, and the port unless it is the default.
    fn origin(&self) -> String {
        let scheme = self.url.scheme_str().unwrap_or_default();
        let authority =
            self.url.authority().map_or("", |authority| authority.as_str()).to_ascii_lowercase();
        let default_port = if scheme == "https" { ":443" } else { ":80" };
        let host = authority.strip_suffix(default_port).unwrap_or(&authority);
        format!("{scheme}://{host}")
    }

    /// What a store must know of a source that asks here.
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

/// How much of an error of the HTTP client is kept, in characters.
const CLIENT_ERROR_LIMIT: usize = 300;
