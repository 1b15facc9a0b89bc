//! Refresh tokens.

use super::Secret;

/// A refresh token (RFC 6749 §1.5).
///
/// Most servers let a client use a refresh token only once. `Debug` redacts it, and it is wiped from memory when its last clone is
/// dropped.
///
/// # Examples
///
/// ```
/// use tower_refresh::{RefreshToken, TokenSet};
///
/// let token = RefreshToken::new("tGzv3JOkF0XG5Qx2TlKWIA");
/// let tokens = TokenSet::bearer("sesame")?.with_refresh_token(token);
/// # Ok::<(), tower_refresh::TokenError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RefreshToken(Secret);

impl RefreshToken {
    /// Creates a refresh token. Any string is accepted.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::RefreshToken;
    ///
    /// let token = RefreshToken::new("tGzv3JOkF0XG5Qx2TlKWIA");
    /// assert_eq!(format!("{token:?}"), "RefreshToken([redacted])");
    /// ```
    pub fn new(token: impl Into<String>) -> Self {
        Self(Secret::new(token))
    }

    /// Returns the token.
    pub fn expose_secret(&self) -> &str {
        self.0.expose()
    }
}

impl From<String> for RefreshToken {
    fn from(token: String) -> Self {
        Self::new(token)
    }
}

impl From<&str> for RefreshToken {
    fn from(token: &str) -> Self {
        Self::new(token)
    }
}
