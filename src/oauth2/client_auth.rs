//! How the client identifies itself at the token endpoint.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::request::{Parameters, check_characters};
use super::scrub::Secrets;
use super::wiped;
use crate::error::TokenError;
use crate::token::Secret;

/// Client authentication (RFC 6749 §2.3): how the client identifies itself at the token endpoint.
///
/// The default sends nothing at all, for servers that know the client by its refresh token.
///
/// There is no automatic choice between Basic and body credentials: trying one after the other spends a refresh token on
/// the first try.
#[derive(Clone, Default)]
pub struct ClientAuth {
    kind: Kind,
}

#[derive(Clone, Default)]
enum Kind {
    /// Nothing is sent.
    #[default]
    Nothing,
    /// Id and secret in the `Authorization` header.
    Basic { id: String, secret: Secret, encoding: BasicEncoding },
    /// Id and secret among the parameters.
    Body { id: String, secret: Secret },
    /// The id alone among the parameters.
    Public { id: String },
    /// Whatever the closure returns.
    Custom(Arc<Custom>),
}

#[derive(Clone, Copy)]
enum BasicEncoding {
    Form,
    None,
}

type Custom = dyn Fn() -> BoxFuture<'static, Result<Authentication, TokenError>> + Send + Sync;

impl ClientAuth {
    /// Sends id and secret in the `Authorization` header, each form-encoded first as RFC 6749 §2.3.1 demands.
    ///
    /// The encoding makes no difference to letters, digits and `-._*`. For servers that skip it there is
    /// [`basic_unencoded`](Self::basic_unencoded).
    pub fn basic(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self::of(Kind::Basic {
            id: id.into(),
            secret: Secret::new(secret),
            encoding: BasicEncoding::Form,
        })
    }

    /// Sends id and secret in the `Authorization` header as they are (RFC 7617), for servers that do not decode them.
    ///
    /// An id with a colon in it cannot be sent so.
    pub fn basic_unencoded(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self::of(Kind::Basic {
            id: id.into(),
            secret: Secret::new(secret),
            encoding: BasicEncoding::None,
        })
    }

    /// Sends id and secret as the parameters `client_id` and `client_secret` (RFC 6749 §2.3.1).
    pub fn body(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self::of(Kind::Body { id: id.into(), secret: Secret::new(secret) })
    }

    /// Sends the id alone, as the parameter `client_id`: a public client (RFC 6749 §2.1) has no secret.
    pub fn none(client_id: impl Into<String>) -> Self {
        Self::of(Kind::Public { id: client_id.into() })
    }

    /// Asks a closure anew for each attempt: an assertion (RFC 7523 §2.2) needs a fresh `jti` every time.
    ///
    /// ```
    /// use tower_refresh::oauth2::{Authentication, ClientAuth};
    ///
    /// async fn sign() -> String {
    ///     // …ask the key service for a JWT…
    /// #   String::new()
    /// }
    ///
    /// let auth = ClientAuth::custom(|| async {
    ///     Ok(Authentication::new()
    ///         .param("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
    ///         .param("client_assertion", sign().await))
    /// });
    /// ```
    ///
    /// The time it takes counts towards [`TokenEndpoint::timeout`](super::TokenEndpoint::timeout).
    pub fn custom<F, Fut>(f: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Authentication, TokenError>> + Send + 'static,
    {
        Self::of(Kind::Custom(Arc::new(move || Box::pin(f()))))
    }

    fn of(kind: Kind) -> Self {
        Self { kind }
    }

    /// Returns the client id, if it is known before the request is made.
    pub(super) fn client_id(&self) -> Option<&str> {
        match &self.kind {
            Kind::Basic { id, .. } | Kind::Body { id, .. } | Kind::Public { id } => Some(id),
            Kind::Nothing | Kind::Custom(_) => None,
        }
    }

    /// Returns whether the client proves who it is.
    pub(super) fn authenticates(&self) -> bool {
        !matches!(self.kind, Kind::Nothing | Kind::Public { .. })
    }

    /// Returns what to check if the server refuses the client.
    pub(super) fn hint(&self) -> &'static str {
        match &self.kind {
            Kind::Nothing => "none were sent: set `client_auth`",
            Kind::Basic { encoding: BasicEncoding::Form, .. } => {
                "check the client id and secret; if the server does not form-decode them, use `ClientAuth::basic_unencoded`, or if it expects them in the body, `ClientAuth::body`"
            }
            Kind::Basic { encoding: BasicEncoding::None, .. } => {
                "check the client id and secret; if the server form-decodes them, use `ClientAuth::basic`, or if it expects them in the body, `ClientAuth::body`"
            }
            Kind::Body { .. } => {
                "check the client id and secret; if the server expects them in the `Authorization` header, use `ClientAuth::basic`"
            }
            Kind::Public { .. } => {
                "check the client id; if the client has a secret, use `ClientAuth::basic` or `ClientAuth::body`"
            }
            Kind::Custom(_) => "check what the closure of `ClientAuth::custom` returns",
        }
    }

    /// Returns what to add to one attempt.
    pub(super) async fn authenticate(&self) -> Result<Authentication, TokenError> {
        let nothing = Authentication::new();
        match &self.kind {
            Kind::Nothing => Ok(nothing),
            Kind::Basic { id, secret, encoding } => basic(id, secret, *encoding),
            Kind::Body { id, secret } => {
                Ok(nothing.param("client_id", id).param("client_secret", secret.expose()))
            }
            Kind::Public { id } => Ok(nothing.param("client_id", id)),
            Kind::Custom(f) => f().await,
        }
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, id) = match &self.kind {
            Kind::Nothing => ("Nothing", None),
            Kind::Basic { id, encoding, .. } => match encoding {
                BasicEncoding::Form => ("Basic", Some(id)),
                BasicEncoding::None => ("BasicUnencoded", Some(id)),
            },
            Kind::Body { id, .. } => ("Body", Some(id)),
            Kind::Public { id } => ("Public", Some(id)),
            Kind::Custom(_) => ("Custom", None),
        };
        let mut shown = f.debug_struct(name);
        if let Some(id) = id {
            shown.field("client_id", id);
        }
        shown.finish_non_exhaustive()
    }
}

/// What [`ClientAuth::custom`] adds to a request: headers and parameters.
///
/// All of it counts as secret: headers are marked sensitive, and nothing of it appears in an error.
#[derive(Clone, Default)]
pub struct Authentication {
    pub(super) headers: HeaderMap,
    pub(super) parameters: Parameters,
    pub(super) secrets: Secrets,
}

impl Authentication {
    /// Adds nothing, yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header. It cannot be `Host`, nor one that frames the message.
    #[must_use]
    pub fn header(mut self, name: HeaderName, mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        match String::from_utf8_lossy(value.as_bytes()) {
            Cow::Borrowed(text) => self.secrets.add(text),
            Cow::Owned(text) => self.secrets.add(&Zeroizing::new(text)),
        }
        self.headers.append(name, value);
        self
    }

    /// Adds a parameter, under the name that it has in the RFC.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.push(name, value);
        self
    }
}

impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authentication")
            .field("headers", &self.headers)
            .field("parameters", &self.parameters)
            .finish()
    }
}

fn basic(id: &str, secret: &Secret, encoding: BasicEncoding) -> Result<Authentication, TokenError> {
    check_characters("client_id", id)?;
    check_characters("client_secret", secret.expose())?;
    // Three bytes for each byte, and a colon.
    let mut pair = wiped::text(3 * (id.len() + secret.expose().len()) + 1);
    match encoding {
        BasicEncoding::Form => {
            pair.extend(form_urlencoded::byte_serialize(id.as_bytes()));
            pair.push(':');
            pair.extend(form_urlencoded::byte_serialize(secret.expose().as_bytes()));
        }
        BasicEncoding::None if id.contains(':') => {
            return Err(TokenError::misconfigured(
                "a client id with a colon in it cannot be sent by `ClientAuth::basic_unencoded`; use `basic` or `body`",
            ));
        }
        BasicEncoding::None => {
            pair.push_str(id);
            pair.push(':');
            pair.push_str(secret.expose());
        }
    }
    let mut authentication = Authentication::new();
    let mut value = wiped::text(SCHEME.len() + pair.len().div_ceil(3) * 4);
    value.push_str(SCHEME);
    STANDARD.encode_string(pair.as_bytes(), &mut value);
    // An answer may quote either. Not the pair: the id in it is no secret.
    for shown in [secret.expose(), value.get(SCHEME.len()..).unwrap_or_default()] {
        authentication.secrets.add(shown);
    }
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
    async fn basic_form_encodes_both_first() {
        let auth = ClientAuth::basic("my:client id", "s3cr3t:with/odd%chars+&=ü");
        assert_eq!(header(auth).await, "my%3Aclient+id:s3cr3t%3Awith%2Fodd%25chars%2B%26%3D%C3%BC");
    }

    #[tokio::test]
    async fn basic_unencoded_sends_them_as_they_are() {
        let auth = ClientAuth::basic_unencoded("my client", "s3cr3t:with/odd%chars+&=ü");
        assert_eq!(header(auth).await, "my client:s3cr3t:with/odd%chars+&=ü");
        let error = ClientAuth::basic_unencoded("a:b", "s").authenticate().await;
        assert!(error.unwrap_err().is_misconfigured());
    }

    #[tokio::test]
    async fn secrets_are_not_shown() {
        for auth in [
            ClientAuth::basic("id", "sesame"),
            ClientAuth::basic_unencoded("id", "sesame"),
            ClientAuth::body("id", "sesame"),
            ClientAuth::custom(|| async {
                Ok(Authentication::new()
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
