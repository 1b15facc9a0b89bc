//! The error of an invalid origin.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// The error of [`RefreshLayer::origin`](crate::RefreshLayer::origin) and
/// [`plaintext_origin`](crate::RefreshLayer::plaintext_origin): the origin is invalid.
///
/// The message shows what to write instead. It contains a host and a port, and nothing else of the invalid origin, which can
/// hold a secret. [Troubleshooting](crate::docs::troubleshooting#the-token-is-not-attached) lists the messages.
///
/// # Examples
///
/// ```
/// use tower_refresh::{OriginError, RefreshLayer, StaticToken, TokenError};
///
/// fn layer(origin: &str) -> Result<RefreshLayer, OriginError> {
/// #   let token = StaticToken::new("sesame".parse().unwrap());
///     RefreshLayer::new(token).origin(origin)
/// }
///
/// let error = layer("https://api.example.com/v1").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "an origin has no path, query or fragment, and covers all of them: write .origin(\"https://api.example.com\")",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginError {
    message: Cow<'static, str>,
}

impl OriginError {
    pub(super) fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into() }
    }
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for OriginError {}
