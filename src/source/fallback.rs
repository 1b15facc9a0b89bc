//! Another source for when the first one's grant is gone.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Renewal, SourceInfo, TokenSource, Watch};
use crate::error::TokenError;
use crate::token::TokenSet;

/// A source that asks another one once the first is [denied](TokenError::is_denied): log in again.
///
/// Made by [`TokenSource::or_else`]. A first source that fails in any other way has not lost its grant, and the second
/// is left alone.
///
/// ```
/// use tower_refresh::{TokenError, TokenSet, TokenSource, source_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), TokenError> {
/// // Most programs have a `RefreshTokenGrant` here, and a password `Grant` there.
/// let refresh = source_fn(|_| async { Err(TokenError::denied("there is no refresh token")) });
/// let log_in = source_fn(|_| async { TokenSet::bearer("sesame") });
///
/// let credentials = tower_refresh::Credentials::new(refresh.or_else(log_in));
/// assert_eq!(credentials.token().await?.access_token().expose_secret(), "sesame");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// An error of the second source keeps its kind, its code and all else; its message also tells why the first source was
/// denied. Both are to be had: [`TokenError::get_ref`] is then a [`FallbackError`].
pub struct Fallback<A, B> {
    first: A,
    second: B,
    /// Whether the last fetch came to the second source.
    came_to_second: Arc<AtomicBool>,
}

impl<A, B> Fallback<A, B> {
    /// Makes a source that asks `second` once `first` is denied.
    pub fn new(first: A, second: B) -> Self {
        Self { first, second, came_to_second: Arc::default() }
    }
}

impl<A: TokenSource, B: TokenSource> TokenSource for Fallback<A, B> {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        // A source that keeps nothing has nothing to look at, and would ask.
        if renewal.only_looks() && !self.first.info().keeps {
            return self.second.fetch(renewal).await;
        }
        self.came_to_second.store(false, Ordering::Relaxed);
        let denial = match self.first.fetch(renewal.clone()).await {
            Err(error) if error.is_refusal() => error,
            other => return other,
        };
        self.came_to_second.store(true, Ordering::Relaxed);
        self.second.fetch(renewal).await.map_err(|error| {
            // The first may have been sent something, and will be again.
            let is_asked_again = error.is_unsent() && !self.first.info().remembers_refusals;
            let told = FallbackError { denial, error }.into_token_error();
            if is_asked_again { told.into_sent() } else { told }
        })
    }

    /// Tells both, the second even if the first fails, and returns the first error.
    async fn adopt(&self, tokens: Option<&TokenSet>) -> Result<(), TokenError> {
        let first = self.first.adopt(tokens).await;
        let second = self.second.adopt(tokens).await;
        first.and(second)
    }

    async fn settle(&self) -> Result<(), TokenError> {
        let first = self.first.settle().await;
        let second = self.second.settle().await;
        first.and(second)
    }

    /// What the first source says, with what must be reckoned with because of the second.
    fn info(&self) -> SourceInfo {
        let (first, second) = (self.first.info(), self.second.info());
        // Both are asked again: neither may repeat what was refused.
        let may_ask_again = first.fresh_proof || first.remembers_refusals;
        let fresh_proof = second.fresh_proof && may_ask_again;
        // A change of the second's input says nothing about a failure of the first.
        let watch_second = second.watch.filter(|_| may_ask_again).map(|second| {
            let came_to_second = Arc::clone(&self.came_to_second);
            Watch::new(move || came_to_second.load(Ordering::Relaxed) && second.has_changed())
        });
        SourceInfo {
            keeps: first.keeps || second.keeps,
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

/// Why neither source of a [`Fallback`] had a token.
///
/// ```
/// # use tower_refresh::{FallbackError, TokenError};
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
    /// Returns how the first source was denied.
    pub fn denial(&self) -> &TokenError {
        &self.denial
    }

    /// Returns how the second source failed.
    pub fn error(&self) -> &TokenError {
        &self.error
    }

    /// Makes an error that is to the credentials what the second source's is.
    fn into_token_error(self) -> TokenError {
        self.error.clone().wrapped_as(self)
    }
}

impl fmt::Display for FallbackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The second's kind, code and description are shown by the `TokenError` around it.
        write!(
            f,
            "the first source had no more to give ({}), and then: {}",
            self.denial,
            self.error.get_ref()
        )
    }
}

// The second source's causes go on where its message ends; `denial` is told in full above.
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
    use crate::source::testing::{Adopted, tokens};
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
    async fn the_second_is_asked_the_same_once_the_first_is_denied() {
        let source = failing(TokenError::denied("gone")).or_else(echo());
        let fetched = source.fetch(renewal()).await.unwrap();
        assert_eq!(fetched.access_token().expose_secret(), "previous");
    }

    #[tokio::test]
    async fn a_first_that_fails_otherwise_or_succeeds_is_the_answer() {
        let unasked = || source_fn(|_| async { panic!("the second was asked") });
        for error in
            [TokenError::transient("a"), TokenError::ambiguous("a"), TokenError::misconfigured("a")]
        {
            let source = failing(error.clone()).or_else(unasked());
            let told = source.fetch(renewal()).await.unwrap_err();
            assert_eq!(told.to_string(), error.to_string());
        }
        assert!(echo().or_else(unasked()).fetch(renewal()).await.is_ok());
    }

    #[tokio::test]
    async fn an_error_of_the_second_is_its_own_and_tells_the_denial_too() {
        let first = TokenError::denied("refused").with_code("invalid_grant");
        let second = TokenError::transient(io::Error::other("unreachable"))
            .with_code("slow_down")
            .with_description("later")
            .with_retry_after(Duration::from_secs(7));
        let source = failing(first).or_else(failing(second));
        let told = source.fetch(renewal()).await.unwrap_err();
        assert!(told.is_transient());
        assert_eq!(told.code(), Some("slow_down"));
        assert_eq!(told.retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(
            told.to_string(),
            "no token for now: the first source had no more to give (token denied: refused: invalid_grant), and then: unreachable: slow_down (later)"
        );
        let both: &FallbackError = told.get_ref().downcast_ref().unwrap();
        assert_eq!(both.denial().code(), Some("invalid_grant"));
        assert!(both.error().get_ref().is::<io::Error>());
    }

    #[tokio::test]
    async fn the_kind_of_the_seconds_error_is_kept() {
        for error in [
            TokenError::transient("a"),
            TokenError::ambiguous("a"),
            TokenError::misconfigured("a"),
            TokenError::denied("a"),
        ] {
            let source = failing(TokenError::denied("gone")).or_else(failing(error.clone()));
            let told = source.fetch(renewal()).await.unwrap_err();
            assert_eq!(told.is_transient(), error.is_transient());
            assert_eq!(told.is_ambiguous(), error.is_ambiguous());
            assert_eq!(told.is_misconfigured(), error.is_misconfigured());
            assert_eq!(told.is_denied(), error.is_denied());
        }
    }

    #[tokio::test]
    async fn both_adopt_even_if_the_first_fails() {
        let (first, second) = (Adopted::failing(), Adopted::default());
        let source = first.clone().or_else(second.clone());
        assert!(source.adopt(None).await.is_err());
        assert_eq!((first.seen(), second.seen()), (vec!["none".into()], vec!["none".into()]));

        let source = second.clone().or_else(first);
        assert!(source.adopt(Some(&tokens("a"))).await.is_err());
        assert_eq!(second.seen(), ["none", "a"]);
    }
}
