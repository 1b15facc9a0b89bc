//! How a request names its key.

use std::fmt;
use std::sync::Arc;

use http::{Extensions, HeaderMap, Method, Request, Uri};

use super::CredentialsPool;
use super::key::PoolKey;
use crate::credentials::Credentials;
use crate::error::TokenError;
use crate::find::{FindCredentials, sealed};
use crate::layer::RefreshLayer;
use crate::service::Refresh;

/// Finds the credentials of a request in a [`CredentialsPool`]: the parameter `S` of a layer from
/// [`RefreshLayer::keyed`].
///
/// # Examples
///
/// A struct field, with the type of the closure as a function:
///
/// ```
/// use tower_refresh::{Keyed, Refresh, RequestHead};
///
/// struct Api<C> {
///     http: Refresh<C, Keyed<String, fn(RequestHead<'_>) -> Option<String>>>,
/// }
/// ```
pub struct Keyed<K, F> {
    pool: CredentialsPool<K>,
    /// Shared, so that a layer is `Clone` although the closure may not be.
    key: Arc<F>,
    leaves_without_key: bool,
}

/// The head of a request, from which the closure of [`RefreshLayer::keyed`] takes the key.
///
/// # Examples
///
/// ```
/// use tower_refresh::RequestHead;
///
/// fn tenant(request: RequestHead<'_>) -> Option<String> {
///     let tenant = request.headers().get("x-tenant")?;
///     Some(tenant.to_str().ok()?.to_owned())
/// }
/// # let _ = tenant;
/// ```
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    extensions: &'a Extensions,
}

impl<'a> RequestHead<'a> {
    fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }

    /// Returns the method.
    pub fn method(&self) -> &'a Method {
        self.method
    }

    /// Returns the URI.
    pub fn uri(&self) -> &'a Uri {
        self.uri
    }

    /// Returns the headers.
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// Returns the extensions.
    pub fn extensions(&self) -> &'a Extensions {
        self.extensions
    }
}

/// Shows the method only: the URI, headers and extensions can contain secrets.
impl fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead").field("method", &self.method).finish_non_exhaustive()
    }
}

impl<K, F> RefreshLayer<Keyed<K, F>>
where
    K: PoolKey,
    F: Fn(RequestHead<'_>) -> Option<K> + Send + Sync + 'static,
{
    /// Creates a layer that attaches the token of the key that each request names.
    ///
    /// The closure gets the head of a request, and returns the key: from an extension that the program has set, or from the URI or
    /// the headers. If a request has [`Credentials`] as an extension, it is sent with their token, and the closure is not called.
    /// Nor is it called for a request to an [origin](Self::origin) that is not named, which is sent unchanged.
    ///
    /// Take the key from something that the program has verified, such as the session of the user: the key decides whose token is
    /// sent.
    ///
    /// A request without a key, or whose key has an [empty name](PoolKey::name), fails with a
    /// [misconfigured](TokenError::is_misconfigured) error and is not sent, unless
    /// [`without_key_untouched`](Self::without_key_untouched) allows requests without a key.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{Credentials, CredentialsPool, RefreshLayer, TokenFile};
    ///
    /// # fn main() -> Result<(), tower_refresh::BoxError> {
    /// let pool = CredentialsPool::new(|tenant: &u64| {
    ///     Credentials::builder(TokenFile::new(format!("/run/secrets/{tenant}")))
    /// });
    /// let layer = RefreshLayer::keyed(pool, |request| request.extensions().get::<u64>().copied())
    ///     .origin("https://api.example.com")?;
    /// # let _ = layer;
    /// # Ok(())
    /// # }
    /// ```
    pub fn keyed(pool: CredentialsPool<K>, key: F) -> Self {
        Self::over(Keyed { pool, key: Arc::new(key), leaves_without_key: false })
    }
}

impl<K, F, C, R> RefreshLayer<Keyed<K, F>, C, R> {
    /// Sends a request without a key unchanged. By default it fails.
    ///
    /// A key with an empty name is an error nevertheless.
    pub fn without_key_untouched(self) -> Self {
        self.map_find(|find| Keyed { leaves_without_key: true, ..find })
    }

    /// Returns the pool, for example to log a user out.
    pub fn pool(&self) -> &CredentialsPool<K> {
        &self.find().pool
    }
}

impl<I, K, F, C, R> Refresh<I, Keyed<K, F>, C, R> {
    /// Returns the pool, for example to log a user out.
    pub fn pool(&self) -> &CredentialsPool<K> {
        &self.find().pool
    }
}

impl<K, F> FindCredentials for Keyed<K, F>
where
    K: PoolKey,
    F: Fn(RequestHead<'_>) -> Option<K> + Send + Sync + 'static,
{
}

impl<K, F> sealed::Find for Keyed<K, F>
where
    K: PoolKey,
    F: Fn(RequestHead<'_>) -> Option<K> + Send + Sync + 'static,
{
    type Found = Credentials;

    fn find<B>(&self, request: &Request<B>) -> Result<Option<Credentials>, TokenError> {
        if let Some(credentials) = request.extensions().get::<Credentials>() {
            return Ok(Some(credentials.clone()));
        }
        match (self.key)(RequestHead::of(request)) {
            Some(key) => self.pool.get(&key).map(Some),
            None if self.leaves_without_key => Ok(None),
            None => Err(TokenError::misconfigured(
                "the request names no key, so that it belongs to no user: set what the closure of `RefreshLayer::keyed` reads, or call `without_key_untouched`",
            )),
        }
    }

    fn found<'a>(&'a self, found: &'a Credentials) -> &'a Credentials {
        found
    }

    fn count_untouched(&self, is_rejected: bool) {
        self.pool.kept.common().metrics().untouched(is_rejected);
    }

    fn count_not_sent(&self) {
        self.pool.kept.common().metrics().not_sent();
    }
}

impl<K, F> Clone for Keyed<K, F> {
    fn clone(&self) -> Self {
        let Self { pool, key, leaves_without_key } = self;
        Self { pool: pool.clone(), key: Arc::clone(key), leaves_without_key: *leaves_without_key }
    }
}

impl<K, F> fmt::Debug for Keyed<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").field("pool", &self.pool).finish_non_exhaustive()
    }
}
