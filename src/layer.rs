//! The layer: which requests carry the token, and how.

use std::fmt;
use std::sync::Arc;

use http::HeaderName;
use tower_layer::Layer;

use crate::attach::Attach;
use crate::classify::{Classify, Unauthorized};
use crate::credentials::{Credentials, RefreshPolicy};
use crate::origin::Origins;
use crate::replay::{ByType, NoRetry, ReplayLimit, ReplayWith};
use crate::service::Refresh;
use crate::source::TokenSource;

/// Attaches an access token to requests, and renews it when it expires or is rejected.
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
///     .layer(RefreshLayer::new(StaticToken::new("sesame".parse()?)).origin("https://api.example.com"))
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
/// Only to the origins that were named. As long as none is named, the first request fails with an error that says which
/// call to add. Once there are some, requests elsewhere pass untouched, so that a redirect cannot carry the token away.
/// A request with an authority in its URI and a `Host` header carries the token only if both are named origins. Plaintext
/// is for loopback, unless [`allow_plaintext`](Self::allow_plaintext) says otherwise. A request that already has the
/// header keeps its own and is left alone, and so are `CONNECT` and `TRACE`. A request without an authority, as below
/// tonic, may carry the token: the client below fixes its destination.
///
/// # What is sent again
///
/// A request whose token was rejected, once, if its body can be: see [`ReplayBody`](crate::ReplayBody),
/// [`replay_with`](Self::replay_with), [`without_retry`](Self::without_retry) and [`Skip`](crate::Skip).
#[must_use = "a layer does nothing until it wraps a service"]
pub struct RefreshLayer<S, C = Unauthorized, R = ByType> {
    pub(crate) credentials: Credentials<S>,
    pub(crate) origins: Origins,
    pub(crate) attach: Attach,
    pub(crate) classify: Arc<C>,
    pub(crate) retry: Arc<R>,
}

impl<S: TokenSource> RefreshLayer<S> {
    /// Makes a layer that obtains its tokens from `source`, with the default policy.
    pub fn new(source: S) -> Self {
        Self::with_credentials(Credentials::new(source))
    }

    /// Makes a layer that obtains its tokens from `source`.
    pub fn with_policy(source: S, policy: RefreshPolicy) -> Self {
        Self::with_credentials(Credentials::with_policy(source, policy))
    }

    /// Makes a layer over credentials that others share: several layers, several clients, one refresh.
    pub fn with_credentials(credentials: Credentials<S>) -> Self {
        Self {
            credentials,
            origins: Origins::default(),
            attach: Attach::default(),
            classify: Arc::default(),
            retry: Arc::default(),
        }
    }
}

impl<S, C> RefreshLayer<S, C, ByType> {
    /// Sets how much of a request's body may be kept for a second attempt, in bytes; 65,536 by default.
    ///
    /// Of a stream, what was sent is kept until the answer's head comes; trailers count with their names and values. A body
    /// that is longer is sent as it is, and if its token is rejected, the caller gets the rejection. One request may have a
    /// [`ReplayLimit`] of its own.
    ///
    /// Frames of less than 4 KiB are copied. A larger one is shared, and with it the buffer that it may be cut from, which
    /// counts no more than the frame.
    pub fn replay_limit(self, bytes: usize) -> Self {
        self.retry(ByType::with_limit(ReplayLimit(bytes)))
    }
}

impl<S, C, R> RefreshLayer<S, C, R> {
    /// Names an origin that the token may be sent to: a scheme, a host and, if need be, a port.
    ///
    /// May be called several times. An invalid origin is an error of the first request, which says what to write instead: an
    /// origin has no path, no wildcard and no userinfo, and an internationalized name is written in its `xn--` form.
    pub fn origin(mut self, origin: impl AsRef<str>) -> Self {
        self.origins.origin(origin.as_ref());
        self
    }

    /// Names the origins that the token may be sent to.
    pub fn origins<O: AsRef<str>>(mut self, origins: impl IntoIterator<Item = O>) -> Self {
        self.origins.origins(origins);
        self
    }

    /// Lets the token go to whatever `https` origin a request names: for a client that roams.
    ///
    /// Beware of redirects and of URLs that others supply: whoever names the host gets the token. A request that names its
    /// host in the `Host` header alone does not say whether it is `https`; name the origin for such requests.
    pub fn any_https_origin(mut self) -> Self {
        self.origins.any_https_origin();
        self
    }

    /// Lets the token go over plaintext HTTP to named origins other than loopback.
    ///
    /// Whoever is on the way can read the token and use it (RFC 6750 §5.3).
    pub fn allow_plaintext(mut self) -> Self {
        self.origins.allow_plaintext();
        self
    }

    /// Sends the token in this header, in place of `Authorization`.
    ///
    /// The value is `Bearer` and the token, unless [`scheme`](Self::scheme) or [`without_scheme`](Self::without_scheme)
    /// says otherwise.
    ///
    /// A client below the layer that follows redirects sends this header to other origins as well: such clients remove
    /// `Authorization` and no header that they do not know. Follow redirects in a layer outside of this one.
    pub fn header(mut self, header: HeaderName) -> Self {
        self.attach.header(header);
        self
    }

    /// Sends the token with this scheme (RFC 9110 §11.1) instead of `Bearer`.
    ///
    /// It is sent as it is written here. An invalid scheme is an error of the first request.
    ///
    /// [`Unauthorized`] reads the challenges of the scheme `Bearer` only: a 401 whose challenge has another scheme is a
    /// rejection with any parameters. Use [`classify`](Self::classify) if the API needs more.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{RefreshLayer, StaticToken};
    ///
    /// // Authorization: Zoho-oauthtoken sesame
    /// let layer = RefreshLayer::new(StaticToken::new("sesame".parse()?))
    ///     .origin("https://www.zohoapis.example")
    ///     .scheme("Zoho-oauthtoken");
    /// # Ok::<(), tower_refresh::TokenError>(())
    /// ```
    #[doc(alias = "bearer")]
    pub fn scheme(mut self, scheme: impl AsRef<str>) -> Self {
        self.attach.scheme(scheme.as_ref());
        self
    }

    /// Sends the token alone, without a scheme before it.
    pub fn without_scheme(mut self) -> Self {
        self.attach.without_scheme();
        self
    }

    /// Sets what tells a rejected token from an accepted one, in place of [`Unauthorized`].
    pub fn classify<D: Classify>(self, classify: D) -> RefreshLayer<S, D, R> {
        RefreshLayer {
            credentials: self.credentials,
            origins: self.origins,
            attach: self.attach,
            classify: Arc::new(classify),
            retry: self.retry,
        }
    }

    /// Sets how the body of a request is kept for a retry, where its type does not say: `spare` returns a second body
    /// like the one that is sent, or none.
    ///
    /// Many bodies have a `try_clone` that fits. There is no limit but the closure's own, and a first attempt that is still
    /// being sent goes on beside the second.
    pub fn replay_with<F>(self, spare: F) -> RefreshLayer<S, C, ReplayWith<F>> {
        self.retry(ReplayWith::new(spare))
    }

    /// Sends no request a second time, and asks nothing of its body.
    ///
    /// The caller then gets the answer that rejects the token; the token is renewed all the same, for the next request.
    pub fn without_retry(self) -> RefreshLayer<S, C, NoRetry> {
        self.retry(NoRetry::default())
    }

    fn retry<T>(self, retry: T) -> RefreshLayer<S, C, T> {
        RefreshLayer {
            credentials: self.credentials,
            origins: self.origins,
            attach: self.attach,
            classify: self.classify,
            retry: Arc::new(retry),
        }
    }

    /// Returns the credentials, to look at them or to share them.
    pub fn credentials(&self) -> &Credentials<S> {
        &self.credentials
    }
}

impl<I, S, C, R> Layer<I> for RefreshLayer<S, C, R> {
    type Service = Refresh<I, S, C, R>;

    fn layer(&self, inner: I) -> Self::Service {
        Refresh::new(inner, self.clone())
    }
}

impl<S, C, R> Clone for RefreshLayer<S, C, R> {
    fn clone(&self) -> Self {
        Self {
            credentials: self.credentials.clone(),
            origins: self.origins.clone(),
            attach: self.attach.clone(),
            classify: Arc::clone(&self.classify),
            retry: Arc::clone(&self.retry),
        }
    }
}

impl<S, C, R> fmt::Debug for RefreshLayer<S, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshLayer")
            .field("credentials", &self.credentials)
            .field("origins", &self.origins)
            .field("attach", &self.attach)
            .finish_non_exhaustive()
    }
}
