//! A second source for when the grant of the first is denied.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Renewal, SourceInfo, TokenSource, Watch};
use crate::error::TokenError;
use crate::token::TokenSet;

/// A source that asks a second source after the first one is [denied](TokenError::is_denied), to log in again.
///
/// [`TokenSource::or_else`] creates one. If the first source fails in another way, it still has its grant, and the second is not
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

impl<A: TokenSource, B: TokenSource> TokenSource for Fallback<A, B> {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        self.asked_second.store(false, Ordering::Relaxed);
        let denial = match self.first.fetch(renewal.clone()).await {
            Err(error) if error.is_refusal() => error,
            other => return other,
        };
        self.asked_second.store(true, Ordering::Relaxed);
        let result = self.second.fetch(renewal).await;
        result.map(TokenSet::beginning_session).map_err(|error| {
            // The first source may have sent a request, and will send another.
            let is_asked_again = error.is_unsent() && !self.first.info().remembers_refusals;
            let error = FallbackError { denial, error }.into_token_error();
            if is_asked_again { error.into_sent() } else { error }
        })
    }

    /// Returns the facts of the first source, and what follows from the second.
    fn info(&self) -> SourceInfo {
        let (first, second) = (self.first.info(), self.second.info());
        // A repetition asks both, and neither may repeat what was refused.
        let may_ask_again = first.fresh_proof || first.remembers_refusals;
        let fresh_proof = second.fresh_proof && may_ask_again;
        // A change of the second source's input does not end a failure of the first.
        let watch_second = second.watch.filter(|_| may_ask_again).map(|second| {
            let asked_second = Arc::clone(&self.asked_second);
            Watch::new(move || asked_second.load(Ordering::Relaxed) && second.has_changed())
        });
        SourceInfo {
            watch: first.watch.or(watch_second),
            fresh_proof,
            remembers_refusals: first.remembers_refusals && second.remembers_refusals,
            ..first
        }
    }
}

impl<A: Clone, B: Clone> Clone for Fallback<A, B> {
    fn clone(&self) -> Self {
        Self::new(self.first.clone(), self.second.clone())
    }
}

impl<A: fmt::Debug, B: fmt::Debug> fmt::Debug for Fallback<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback")
            .field("first", &self.first)
            .field("second", &self.second)
            .finish()
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::*;
    use crate::source::testing::tokens;
    use crate::source::{Cause, source_fn};

    fn failing(error: TokenError) -> impl TokenSource {
        source_fn(move |_| std::future::ready(Err(error.clone())))
    }

    fn echo() -> impl TokenSource {
        source_fn(|renewal: Renewal| async move {
            assert_eq!(renewal.cause(), Cause::Rejected);
            renewal.previous().cloned().ok_or_else(|| TokenError::denied("no previous"))
        })
    }

    fn renewal() -> Renewal {
        Renewal::new(Cause::Rejected).with_previous(tokens("previous"))
    }

    #[tokio::test]
    async fn second_source_is_asked_the_same_after_a_denial() {
        let source = failing(TokenError::denied("gone")).or_else(echo());
        let fetched = source.fetch(renewal()).await.unwrap();
        assert_eq!(fetched.access_token().expose_secret(), "previous");
    }

    #[tokio::test]
    async fn other_error_or_success_of_the_first_is_the_result() {
        let unasked = || source_fn(|_| async { panic!("the second was asked") });
        for error in
            [TokenError::transient("a"), TokenError::ambiguous("a"), TokenError::misconfigured("a")]
        {
            let source = failing(error.clone()).or_else(unasked());
            let error = source.fetch(renewal()).await.unwrap_err();
            assert_eq!(error.to_string(), error.to_string());
        }
        assert!(echo().or_else(unasked()).fetch(renewal()).await.is_ok());
    }

    #[tokio::test]
    async fn error_of_the_second_also_has_the_denial() {
        let first = TokenError::denied("refused").with_code("invalid_grant");
        let second = TokenError::transient(io::Error::other("unreachable"))
            .with_code("slow_down")
            .with_description("later")
            .with_retry_after(Duration::from_secs(7));
        let source = failing(first).or_else(failing(second));
        let error = source.fetch(renewal()).await.unwrap_err();
        assert!(error.is_transient());
        assert_eq!(error.code(), Some("slow_down"));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(
            error.to_string(),
            "no token for now: the first source was denied (token denied: refused: invalid_grant), and the second failed: unreachable: slow_down (later)"
        );
        let both: &FallbackError = error.get_ref().downcast_ref().unwrap();
        assert_eq!(both.denial().code(), Some("invalid_grant"));
        assert!(both.error().get_ref().is::<io::Error>());
    }

    #[tokio::test]
    async fn kind_of_the_second_error_is_kept() {
        for error in [
            TokenError::transient("a"),
            TokenError::ambiguous("a"),
            TokenError::misconfigured("a"),
            TokenError::denied("a"),
        ] {
            let source = failing(TokenError::denied("gone")).or_else(failing(error.clone()));
            let error = source.fetch(renewal()).await.unwrap_err();
            assert_eq!(error.is_transient(), error.is_transient());
            assert_eq!(error.is_ambiguous(), error.is_ambiguous());
            assert_eq!(error.is_misconfigured(), error.is_misconfigured());
            assert_eq!(error.is_denied(), error.is_denied());
        }
    }
}
