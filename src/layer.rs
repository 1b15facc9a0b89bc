//! The layer: which requests carry the token, and how.

use std::fmt;

use http::HeaderName;
use tower_layer::Layer;

use crate::classify::{Classify, Unauthorized};
use crate::config::Config;
use crate::credentials::{Credentials, IntoCredentials};
use crate::origin::OriginError;
use crate::replay::{ByType, NoRetry, ReplayLimit, ReplayWith};
use crate::service::Refresh;

/// Attaches an access token to requests, and refreshes it when it expires or is rejected.
///
/// `S` is how a request finds its credentials, `C` how a response is classified, and `R` how a body is sent again. All three
/// have defaults, so that the type is `RefreshLayer` in most programs.
///
/// # Examples
///
/// ```
/// use std::convert::Infallible;
///
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::{Service, ServiceBuilder, ServiceExt};
/// use tower_refresh::{RefreshLayer, StaticToken};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_refresh::BoxError> {
/// let api = tower::service_fn(async |request: Request<Full<Bytes>>| {
///     assert_eq!(request.headers()["authorization"], "Bearer sesame");
///     Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
/// });
///
/// let mut client = ServiceBuilder::new()
///     .layer(RefreshLayer::new(StaticToken::new("sesame".parse()?)).origin("https://api.example.com")?)
///     .service(api);
///
/// let request = Request::get("https://api.example.com/v1/me").body(Full::default())?;
/// let response = client.ready().await?.call(request).await?;
/// assert!(response.status().is_success());
/// # Ok(())
/// # }
/// ```
///
/// # Where the token goes
///
/// A request carries the token only to an origin that was named:
///
/// | Request | Result |
/// |---|---|
/// | To a named [`origin`](Self::origin) or [`plaintext_origin`](Self::plaintext_origin) | carries the token |
/// | To another origin, for example after a redirect | sent unchanged |
/// | With an authority in its URI and a `Host` header | carries the token if both are named |
/// | Without an authority, as below tonic | carries the token: the client below fixes the destination |
/// | With the header already set by the caller | sent unchanged |
/// | `CONNECT`, `TRACE` | sent unchanged |
/// | To any origin, while none is named | error that shows the missing call |
///
/// # Which requests are sent again
///
/// A request whose token was rejected is sent again once, if its body can be: see [`ReplayBody`](crate::ReplayBody),
/// [`replay_with`](Self::replay_with), [`without_retry`](Self::without_retry) and [`Skip`](crate::Skip).
///
/// # Many threads
///
/// Layer a client once, and clone the layered service. Its clones share one reference count, which each request writes. A program
/// that does little but send requests, on many threads, can layer a clone of its client for each thread. The credentials stay
/// shared, and each thread has a count of its own.
#[must_use = "a layer does nothing until it wraps a service"]
pub struct RefreshLayer<S = Credentials, C = Unauthorized, R = ByType> {
    config: Config<S, C, R>,
}

impl RefreshLayer {
    /// Creates a layer over a [`TokenSource`](crate::TokenSource), with the default policy, or over [`Credentials`].
    ///
    /// Clones of one `Credentials` can serve several layers and clients, which then share one token and its refresh.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_refresh::{Credentials, RefreshLayer, RefreshPolicy, StaticToken};
    ///
    /// # fn main() -> Result<(), tower_refresh::BoxError> {
    /// // A source:
    /// let layer = RefreshLayer::new(StaticToken::new("sesame".parse()?));
    ///
    /// // Credentials with a policy, which another layer shares:
    /// let policy = RefreshPolicy::default().timeout(Duration::from_secs(5));
    /// let credentials = Credentials::with_policy(StaticToken::new("sesame".parse()?), policy);
    /// let api = RefreshLayer::new(credentials.clone()).origin("https://api.example.com")?;
    /// let files = RefreshLayer::new(credentials).origin("https://files.example.com")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(credentials: impl IntoCredentials) -> Self {
        Self::over(credentials.into_credentials())
    }
}

impl<S> RefreshLayer<S> {
    pub(crate) fn over(find: S) -> Self {
        let (origins, attach, classify, retry) = Default::default();
        Self { config: Config { find, origins, attach, classify, retry } }
    }
}

impl<C, R> RefreshLayer<Credentials, C, R> {
    /// Returns the credentials, for example to share them with another layer.
    pub fn credentials(&self) -> &Credentials {
        &self.config.find
    }
}

impl<S, C> RefreshLayer<S, C, ByType> {
    /// Sets how much of a request's body may be kept for a second attempt, in bytes. The default is 65,536.
    ///
    /// The sent frames of a stream are kept until the head of the response arrives. Trailers count with their names and values. A
    /// longer body is sent, but not sent again: if its token is rejected, the rejection is returned. One
    /// request can have a [`ReplayLimit`] of its own.
    ///
    /// Frames of less than 4 KiB are copied. A larger frame is shared by reference count. It keeps the buffer alive that it
    /// was cut from, and only the frame counts.
    pub fn replay_limit(self, bytes: usize) -> Self {
        self.retry(ByType::with_limit(ReplayLimit(bytes)))
    }
}

impl<S, C, R> RefreshLayer<S, C, R> {
    // ===== where the token goes =====

    /// Adds an origin that the token may be sent to: a scheme, a host and an optional port.
    ///
    /// Call it once for each origin. The scheme is `https`, or `http` for a host on loopback (`localhost`, 127.0.0.0/8, `[::1]`).
    ///
    /// # Errors
    ///
    /// An [`OriginError`] if the origin is invalid or would send the token over the network without TLS. It shows what to
    /// write instead. An origin has no path, no wildcard and no userinfo, and an internationalized name has its `xn--` form.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{RefreshLayer, StaticToken};
    ///
    /// # fn main() -> Result<(), tower_refresh::BoxError> {
    /// let layer = RefreshLayer::new(StaticToken::new("sesame".parse()?))
    ///     .origin("https://api.example.com")?
    ///     .origin("http://localhost:8080")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn origin(mut self, origin: impl AsRef<str>) -> Result<Self, OriginError> {
        self.config.origins.origin(origin.as_ref())?;
        Ok(self)
    }

    /// Adds several origins that the token may be sent to.
    ///
    /// # Errors
    ///
    /// As [`origin`](Self::origin), for the first origin that is invalid.
    pub fn origins<O: AsRef<str>>(
        self,
        origins: impl IntoIterator<Item = O>,
    ) -> Result<Self, OriginError> {
        origins.into_iter().try_fold(self, |layer, origin| layer.origin(origin))
    }

    /// Adds an origin without TLS that the token may be sent to.
    ///
    /// Each host on the network path can read the token and use it (RFC 6750 §5.3). Use this only inside a network that you
    /// trust, such as behind a proxy that adds TLS. Other origins still need TLS.
    ///
    /// # Errors
    ///
    /// An [`OriginError`] if the origin is invalid or its scheme is not `http`.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{RefreshLayer, StaticToken};
    ///
    /// # fn main() -> Result<(), tower_refresh::BoxError> {
    /// let layer = RefreshLayer::new(StaticToken::new("sesame".parse()?))
    ///     .plaintext_origin("http://api.cluster.internal:8080")?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "allow_plaintext")]
    #[doc(alias = "insecure")]
    pub fn plaintext_origin(mut self, origin: impl AsRef<str>) -> Result<Self, OriginError> {
        self.config.origins.plaintext_origin(origin.as_ref())?;
        Ok(self)
    }

    /// Allows every origin whose scheme is `https`: for a client whose destinations are not known in advance.
    ///
    /// Beware of redirects and of URLs from elsewhere: any host that a request names gets the token. A request with its host
    /// only in the `Host` header does not state its scheme: add an [`origin`](Self::origin) for such requests.
    pub fn any_https_origin(mut self) -> Self {
        self.config.origins.any_https_origin();
        self
    }

    // ===== how it is attached =====

    /// Sets the header of the token. The default is `Authorization`.
    ///
    /// The value is the [`scheme`](Self::scheme), if there is one, and the token.
    ///
    /// Follow redirects outside of this layer. A client below it that follows them sends this header to other origins as well:
    /// such clients remove `Authorization`, but no header that they do not know.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::HeaderName;
    /// use tower_refresh::{RefreshLayer, StaticToken};
    ///
    /// # fn main() -> Result<(), tower_refresh::BoxError> {
    /// // X-Api-Token: sesame
    /// let layer = RefreshLayer::new(StaticToken::new("sesame".parse()?))
    ///     .origin("https://api.example.com")?
    ///     .header(HeaderName::from_static("x-api-token"))
    ///     .without_scheme();
    /// # Ok(())
    /// # }
    /// ```
    pub fn header(mut self, header: HeaderName) -> Self {
        self.config.attach.header(header);
        self
    }

    /// Sets the scheme before the token (RFC 9110 §11.1). The default is `Bearer`.
    ///
    /// It is sent in the case in which it is written here. If the scheme is invalid, each request fails with a
    /// [misconfigured](crate::TokenError::is_misconfigured) error.
    ///
    /// [`Unauthorized`] reads the challenges of the scheme `Bearer` only. A 401 whose challenge has another scheme is a
    /// rejection, with any parameters. If the API needs more, use [`classifier`](Self::classifier).
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{RefreshLayer, StaticToken};
    ///
    /// # fn main() -> Result<(), tower_refresh::BoxError> {
    /// // Authorization: Zoho-oauthtoken sesame
    /// let layer = RefreshLayer::new(StaticToken::new("sesame".parse()?))
    ///     .origin("https://www.zohoapis.example")?
    ///     .scheme("Zoho-oauthtoken");
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "bearer")]
    #[doc(alias = "prefix")]
    pub fn scheme(mut self, scheme: impl AsRef<str>) -> Self {
        self.config.attach.scheme(scheme.as_ref());
        self
    }

    /// Sends the token alone, without a scheme before it.
    pub fn without_scheme(mut self) -> Self {
        self.config.attach.without_scheme();
        self
    }

    // ===== what follows from the response =====

    /// Sets how a rejected token is recognised. The default is [`Unauthorized`].
    pub fn classifier<D: Classify>(self, classifier: D) -> RefreshLayer<S, D, R> {
        RefreshLayer { config: self.config.classifier(classifier) }
    }

    /// Sets how a body is copied for the second attempt, for bodies that are not [`ReplayBody`](crate::ReplayBody).
    ///
    /// The closure returns a second body like the one that is sent, or `None` if there is to be no second attempt. Many types
    /// have a `try_clone` for it. There is no limit but the closure's own. A first attempt that is still being sent continues
    /// beside the second.
    pub fn replay_with<F>(self, copy: F) -> RefreshLayer<S, C, ReplayWith<F>> {
        self.retry(ReplayWith::new(copy))
    }

    /// Sends each request once, with a body of any type.
    ///
    /// A response that rejects the token is returned. The token is still refreshed, for the next request.
    pub fn without_retry(self) -> RefreshLayer<S, C, NoRetry> {
        self.retry(NoRetry::default())
    }

    #[cfg(feature = "pool")]
    pub(crate) fn find(&self) -> &S {
        &self.config.find
    }

    #[cfg(feature = "pool")]
    pub(crate) fn map_find(self, map: impl FnOnce(S) -> S) -> Self {
        Self { config: self.config.map_find(map) }
    }

    fn retry<T>(self, retry: T) -> RefreshLayer<S, C, T> {
        RefreshLayer { config: self.config.retry(retry) }
    }
}

impl<I: Clone, S: Clone, C, R> Layer<I> for RefreshLayer<S, C, R> {
    type Service = Refresh<I, S, C, R>;

    fn layer(&self, inner: I) -> Self::Service {
        Refresh::new(inner, self.config.clone())
    }
}

impl<S: Clone, C, R> Clone for RefreshLayer<S, C, R> {
    fn clone(&self) -> Self {
        Self { config: self.config.clone() }
    }
}

impl<S: fmt::Debug, C, R> fmt::Debug for RefreshLayer<S, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshLayer").field("config", &self.config).finish()
    }
}
