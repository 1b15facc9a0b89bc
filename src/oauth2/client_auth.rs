//! How the client identifies itself at the token endpoint.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::request::{Parameters, check_characters};
use super::scrub::Secrets;
use super::wiped;
use crate::error::TokenError;
use crate::token::Secret;

/// Client authentication (RFC 6749 §2.3): how the client identifies itself at the token endpoint.
///
/// | Constructor | Request | RFC 7591 |
/// |---|---|---|
/// | [`basic`](Self::basic) | `Authorization: Basic`, id and secret form-encoded first | `client_secret_basic` |
/// | [`basic_unencoded`](Self::basic_unencoded) | `Authorization: Basic`, id and secret unchanged | |
/// | [`post`](Self::post) | the parameters `client_id` and `client_secret` | `client_secret_post` |
/// | [`public`](Self::public) | the parameter `client_id` | `none` |
/// | [`none`](Self::none), the default | nothing | |
/// | [`custom`](Self::custom) | headers and parameters of your own | `private_key_jwt` and others |
///
/// The method is never guessed: a wrong guess could spend the refresh token.
///
/// # Examples
///
/// ```
/// use tower_refresh::oauth2::{ClientAuth, TokenEndpoint};
///
/// fn authenticated(endpoint: TokenEndpoint, secret: String) -> TokenEndpoint {
///     endpoint.client_auth(ClientAuth::basic("my-client", secret))
/// }
/// ```
#[derive(Clone, Default)]
pub struct ClientAuth {
    method: Method,
}

#[derive(Clone, Default)]
enum Method {
    #[default]
    None,
    Public {
        id: String,
    },
    Secret {
        id: String,
        secret: Secret,
        place: Place,
    },
    Custom(Arc<Custom>),
}

/// Where id and secret go.
#[derive(Clone, Copy, Debug)]
enum Place {
    Basic,
    BasicUnencoded,
    Post,
}

type Custom = dyn Fn() -> BoxFuture<'static, Result<AuthParams, TokenError>> + Send + Sync;

impl ClientAuth {
    /// Sends the id and the secret in the `Authorization` header, each form-encoded first (RFC 6749 §2.3.1).
    ///
    /// The encoding changes only characters other than letters, digits and `-._*`. For a server that does not decode them,
    /// use [`basic_unencoded`](Self::basic_unencoded).
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::oauth2::ClientAuth;
    ///
    /// let auth = ClientAuth::basic("my-client", "correct horse battery staple");
    /// ```
    #[doc(alias = "client_secret_basic")]
    pub fn basic(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self::secret(id, secret, Place::Basic)
    }

    /// Sends the id and the secret in the `Authorization` header unchanged (RFC 7617), for servers that do not form-decode them.
    ///
    /// An id with a colon is an error when the request is made.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::oauth2::ClientAuth;
    ///
    /// let auth = ClientAuth::basic_unencoded("my client", "100%");
    /// ```
    #[doc(alias = "client_secret_basic")]
    pub fn basic_unencoded(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self::secret(id, secret, Place::BasicUnencoded)
    }

    /// Sends the id and the secret as the parameters `client_id` and `client_secret` (RFC 6749 §2.3.1, second form).
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::oauth2::ClientAuth;
    ///
    /// let auth = ClientAuth::post("my-client", "correct horse battery staple");
    /// ```
    #[doc(alias = "client_secret_post")]
    #[doc(alias = "body")]
    pub fn post(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self::secret(id, secret, Place::Post)
    }

    /// Sends only the id, as the parameter `client_id`: a public client has no secret (RFC 6749 §2.1, §3.2.1).
    ///
    /// RFC 7591 calls this method `none`, since the client identifies itself and proves nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::oauth2::ClientAuth;
    ///
    /// let auth = ClientAuth::public("my-app");
    /// ```
    #[doc(alias = "none")]
    pub fn public(id: impl Into<String>) -> Self {
        Self { method: Method::Public { id: id.into() } }
    }

    /// Sends nothing, not even an id. This is the default.
    ///
    /// For servers that know the client by its refresh token or its connection, such as mutual TLS. A server that expects the id
    /// of a client without a secret needs [`public`](Self::public).
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::oauth2::ClientAuth;
    ///
    /// let auth = ClientAuth::none();
    /// ```
    pub fn none() -> Self {
        Self::default()
    }

    /// Calls a closure before each request, and sends the headers and parameters that it returns.
    ///
    /// For methods that need a fresh value each time, such as an assertion with its `jti` (RFC 7523 §2.2). The time that the
    /// closure takes counts towards [`TokenEndpoint::timeout`](super::TokenEndpoint::timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::oauth2::{AuthParams, ClientAuth};
    ///
    /// async fn sign() -> String {
    ///     // …ask the key service for a JWT…
    /// #   String::new()
    /// }
    ///
    /// let auth = ClientAuth::custom(|| async {
    ///     Ok(AuthParams::new()
    ///         .param("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
    ///         .param("client_assertion", sign().await))
    /// });
    /// ```
    #[doc(alias = "private_key_jwt")]
    pub fn custom<F, Fut>(f: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<AuthParams, TokenError>> + Send + 'static,
    {
        Self { method: Method::Custom(Arc::new(move || Box::pin(f()))) }
    }

    fn secret(id: impl Into<String>, secret: impl Into<String>, place: Place) -> Self {
        Self { method: Method::Secret { id: id.into(), secret: Secret::new(secret), place } }
    }

    /// Returns the client id, if it is known before the request is made.
    pub(super) fn client_id(&self) -> Option<&str> {
        match &self.method {
            Method::Public { id } | Method::Secret { id, .. } => Some(id),
            Method::None | Method::Custom(_) => None,
        }
    }

    /// Returns whether the client proves who it is.
    pub(super) fn authenticates(&self) -> bool {
        matches!(self.method, Method::Secret { .. } | Method::Custom(_))
    }

    /// Returns advice for a client that the server has refused.
    pub(super) fn hint(&self) -> &'static str {
        match &self.method {
            Method::None => "none were sent: set `client_auth`",
            Method::Public { .. } => {
                "check the client id; if the client has a secret, use `ClientAuth::basic` or `ClientAuth::post`"
            }
            Method::Secret { place: Place::Basic, .. } => {
                "check the client id and secret; if the server does not form-decode them, use `ClientAuth::basic_unencoded`, or if it expects them in the body, `ClientAuth::post`"
            }
            Method::Secret { place: Place::BasicUnencoded, .. } => {
                "check the client id and secret; if the server form-decodes them, use `ClientAuth::basic`, or if it expects them in the body, `ClientAuth::post`"
            }
            Method::Secret { place: Place::Post, .. } => {
                "check the client id and secret; if the server expects them in the `Authorization` header, use `ClientAuth::basic`"
            }
            Method::Custom(_) => "check what the closure of `ClientAuth::custom` returns",
        }
    }

    /// Returns the headers and parameters of one request.
    pub(super) async fn authenticate(&self) -> Result<AuthParams, TokenError> {
        let nothing = AuthParams::new();
        match &self.method {
            Method::None => Ok(nothing),
            Method::Public { id } => Ok(nothing.param("client_id", id)),
            Method::Secret { id, secret, place: Place::Post } => {
                Ok(nothing.param("client_id", id).param("client_secret", secret.expose()))
            }
            Method::Secret { id, secret, place } => basic(id, secret.expose(), *place),
            Method::Custom(f) => f().await,
        }
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ClientAuth");
        if let Method::Secret { place, .. } = &self.method {
            shown.field("place", place);
        }
        shown.field("client_id", &self.client_id()).finish_non_exhaustive()
    }
}

/// The headers and parameters that [`ClientAuth::custom`] adds to a request.
///
/// All of them count as secrets: the headers are marked sensitive, and none of the values appears in an error.
///
/// # Examples
///
/// ```
/// use http::HeaderValue;
/// use tower_refresh::oauth2::AuthParams;
///
/// let authentication = AuthParams::new()
///     .header(http::header::AUTHORIZATION, HeaderValue::from_static("Custom abc"))
///     .param("client_id", "my-client");
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct AuthParams {
    pub(super) headers: HeaderMap,
    pub(super) parameters: Parameters,
    pub(super) secrets: Secrets,
}

impl AuthParams {
    /// Creates an authentication without headers and parameters.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::oauth2::AuthParams;
    ///
    /// let authentication = AuthParams::new().param("client_id", "my-client");
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header. `Host` and the headers that frame the message are an error when the request is made.
    pub fn header(mut self, name: HeaderName, mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        self.secrets.add(&value);
        self.headers.append(name, value);
        self
    }

    /// Adds a parameter under its name in the RFC. A [`Dialect`](super::Dialect) may rename it.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.push(name, value);
        self
    }
}

impl fmt::Debug for AuthParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthParams")
            .field("headers", &self.headers)
            .field("parameters", &self.parameters)
            .finish()
    }
}

fn basic(id: &str, secret: &str, place: Place) -> Result<AuthParams, TokenError> {
    check_characters("client_id", id)?;
    check_characters("client_secret", secret)?;
    // Three bytes for each byte, and a colon.
    let mut pair = wiped::text(3 * (id.len() + secret.len()) + 1);
    if matches!(place, Place::BasicUnencoded) {
        if id.contains(':') {
            return Err(TokenError::misconfigured(
                "`ClientAuth::basic_unencoded` cannot send a client id with a colon; use `basic` or `post`",
            ));
        }
        pair.extend([id, ":", secret]);
    } else {
        pair.extend(form_urlencoded::byte_serialize(id.as_bytes()));
        pair.push(':');
        pair.extend(form_urlencoded::byte_serialize(secret.as_bytes()));
    }
    let mut value = wiped::text(SCHEME.len() + pair.len().div_ceil(3) * 4);
    value.push_str(SCHEME);
    STANDARD.encode_string(pair.as_bytes(), &mut value);
    let mut authentication = AuthParams::new();
    // A response may quote either. The pair itself is not added, since the id in it is no secret.
    authentication.secrets.add(secret);
    authentication.secrets.add(value.trim_start_matches(SCHEME));
    let value = HeaderValue::from_maybe_shared(Bytes::from_owner(value))
        .map_err(TokenError::misconfigured)?;
    Ok(authentication.header(AUTHORIZATION, value))
}

/// RFC 7617 §2.
const SCHEME: &str = "Basic ";

#[cfg(test)]
mod tests {
    use super::*;

    async fn header(auth: ClientAuth) -> String {
        let authentication = auth.authenticate().await.unwrap();
        let value = &authentication.headers[AUTHORIZATION];
        assert!(value.is_sensitive());
        let encoded = value.to_str().unwrap().strip_prefix("Basic ").unwrap();
        String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn basic_form_encodes_id_and_secret() {
        let auth = ClientAuth::basic("my:client id", "s3cr3t:with/odd%chars+&=ü");
        assert_eq!(header(auth).await, "my%3Aclient+id:s3cr3t%3Awith%2Fodd%25chars%2B%26%3D%C3%BC");
    }

    #[tokio::test]
    async fn basic_unencoded_sends_id_and_secret_unchanged() {
        let auth = ClientAuth::basic_unencoded("my client", "s3cr3t:with/odd%chars+&=ü");
        assert_eq!(header(auth).await, "my client:s3cr3t:with/odd%chars+&=ü");
        let error = ClientAuth::basic_unencoded("a:b", "s").authenticate().await;
        assert!(error.unwrap_err().is_misconfigured());
    }

    #[tokio::test]
    async fn debug_shows_no_secret() {
        for auth in [
            ClientAuth::basic("id", "sesame"),
            ClientAuth::basic_unencoded("id", "sesame"),
            ClientAuth::post("id", "sesame"),
            ClientAuth::custom(|| async {
                Ok(AuthParams::new()
                    .param("client_assertion", "sesame")
                    .header(AUTHORIZATION, HeaderValue::from_static("sesame")))
            }),
        ] {
            let shown = format!("{auth:?} {:?}", auth.authenticate().await.unwrap());
            assert!(!shown.contains("sesame"), "{shown}");
            // `id:sesame` in base64
            assert!(!shown.contains("aWQ6c2VzYW1l"), "{shown}");
        }
    }
}
