//! A second source for when the grant of the first is denied.

mod fetch;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::error::TokenError;

/// A source that asks a second source after the first one is [denied](TokenError::is_denied), to log in again.
///
/// [`TokenSource::or_else`](crate::TokenSource::or_else) creates one. If the first source fails in another way, it still has its grant, and the second is not
/// asked.
///
/// # Examples
///
/// ```
/// use tower_refresh::{TokenError, TokenSet, TokenSource, source_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), TokenError> {
/// // In most programs, the first is a `RefreshTokenGrant` and the second a password `Grant`.
/// let refresh = source_fn(|_| async { Err(TokenError::denied("there is no refresh token")) });
/// let log_in = source_fn(|_| async { TokenSet::bearer("sesame") });
///
/// let credentials = tower_refresh::Credentials::new(refresh.or_else(log_in));
/// assert_eq!(credentials.tokens().await?.access_token().expose_secret(), "sesame");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// An error of the second source keeps its kind, its code and all else. Its message also has the denial of the first source, and
/// [`TokenError::get_ref`] is a [`FallbackError`] with both errors.
#[derive(Debug)]
pub struct Fallback<A, B> {
    first: A,
    second: B,
    /// True if the last fetch asked the second source.
    asked_second: Arc<AtomicBool>,
}

impl<A, B> Fallback<A, B> {
    /// Creates a source that asks `second` after `first` is denied.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{Fallback, StaticToken, TokenFile};
    ///
    /// let source = Fallback::new(TokenFile::new("token"), StaticToken::new("sesame".parse()?));
    /// # Ok::<(), tower_refresh::TokenError>(())
    /// ```
    pub fn new(first: A, second: B) -> Self {
        Self { first, second, asked_second: Arc::default() }
    }
}

impl<A: Clone, B: Clone> Clone for Fallback<A, B> {
    fn clone(&self) -> Self {
        Self::new(self.first.clone(), self.second.clone())
    }
}

/// The errors of both sources of a [`Fallback`].
///
/// # Examples
///
/// ```
/// use tower_refresh::{FallbackError, TokenError};
/// fn why_logged_out(error: &TokenError) -> Option<&TokenError> {
///     let both: &FallbackError = error.get_ref().downcast_ref()?;
///     Some(both.denial())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct FallbackError {
    denial: TokenError,
    error: TokenError,
}

impl FallbackError {
    /// Returns the denial of the first source.
    pub fn denial(&self) -> &TokenError {
        &self.denial
    }

    /// Returns the error of the second source.
    pub fn error(&self) -> &TokenError {
        &self.error
    }

    /// Returns an error with the kind, code and all else of the second source's.
    fn into_token_error(self) -> TokenError {
        self.error.clone().wrapped_as(self)
    }
}

impl fmt::Display for FallbackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The `TokenError` around it shows the kind, code and description of the second error.
        write!(
            f,
            "the first source was denied ({}), and the second failed: {}",
            self.denial,
            self.error.get_ref()
        )
    }
}

// The causes of the second error continue its message. `Display` shows the denial in full.
impl Error for FallbackError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}
