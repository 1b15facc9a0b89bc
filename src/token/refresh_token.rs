//! Refresh tokens.

use std::fmt;

use super::Secret;

/// A refresh token (RFC 6749 §1.5).
///
/// Most servers let a client spend one only once. It is redacted in `Debug` and wiped from memory when the last clone
/// is dropped.
#[derive(Clone)]
pub struct RefreshToken(Secret);

impl RefreshToken {
    /// Wraps a refresh token.
    pub fn new(token: impl Into<String>) -> Self {
        Self(Secret::new(token))
    }

    /// Returns the token itself.
    pub fn expose_secret(&self) -> &str {
        self.0.expose()
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RefreshToken").field(&self.0).finish()
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
