//! Where tokens come from.

mod boxed;
mod cause;
mod fallback;
mod fetched_for;
mod file;
mod fixed;
mod info;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

pub use self::boxed::BoxTokenSource;
pub use self::cause::Cause;
pub use self::fallback::{Fallback, FallbackError};
pub(crate) use self::fetched_for::FetchedFor;
pub use self::file::TokenFile;
pub use self::fixed::StaticToken;
pub use self::info::SourceInfo;
pub(crate) use self::info::Watch;
use crate::classify::Challenge;
use crate::error::TokenError;
use crate::token::TokenSet;

/// Obtains a token set.
///
/// A source is stateless: the previous token set goes in, the new one comes out. It is asked for one token set at a
/// time (unless it has not answered within ten timeouts), in a task of its own, so that whoever asked may go away without the answer being lost.
///
/// Most programs use one from [`oauth2`](crate::oauth2), or a closure:
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::{Credentials, Renewal, TokenSet};
///
/// let credentials = Credentials::new(|renewal: Renewal| async move {
///     let token = "…ask whoever hands out tokens…".replace(|c: char| !c.is_ascii_lowercase(), "");
///     TokenSet::bearer(token).map(|tokens| tokens.with_expires_in(Duration::from_secs(300)))
/// });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `TokenSource`",
    label = "expected a token source",
    note = "implement `TokenSource` for `{Self}`, with `async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError>`",
    note = "a closure is a token source if it returns such a future: `source_fn(|renewal| async move {{ .. }})`"
)]
pub trait TokenSource: Send + Sync + 'static {
    /// Obtains a new token set in place of the one in `renewal`.
    ///
    /// # Errors
    ///
    /// The kind of the [`TokenError`] decides what happens next; see there.
    ///
    /// # Cancel safety
    ///
    /// The future is never dropped before it is ready, unless its runtime is shut down or, under a store, it takes longer than
    /// five minutes.
    fn fetch(&self, renewal: Renewal) -> impl Future<Output = Result<TokenSet, TokenError>> + Send;

    /// Is told that the application itself logged in (with these tokens) or out (with none).
    ///
    /// Does nothing by default; a source that keeps tokens writes it down.
    ///
    /// # Errors
    ///
    /// What [`Credentials::replace`](crate::Credentials::replace) and [`Credentials::forget`](crate::Credentials::forget)
    /// then return.
    ///
    /// # Cancel safety
    ///
    /// As [`fetch`](Self::fetch). One that takes longer than ten timeouts may be overtaken by a fetch.
    fn adopt(
        &self,
        tokens: Option<&TokenSet>,
    ) -> impl Future<Output = Result<(), TokenError>> + Send {
        let _ = tokens;
        std::future::ready(Ok(()))
    }

    /// Saves what could not be saved before: [`Credentials::flush`](crate::Credentials::flush) asks for it.
    ///
    /// Does nothing by default, as befits a source that keeps nothing. One around another source passes it on.
    ///
    /// # Errors
    ///
    /// What [`Credentials::flush`](crate::Credentials::flush) then returns: something is still unsaved.
    ///
    /// # Cancel safety
    ///
    /// As [`fetch`](Self::fetch).
    fn settle(&self) -> impl Future<Output = Result<(), TokenError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Returns facts about this source, for the credentials and for a store; none by default, as for a closure.
    ///
    /// A source that passes a renewal on to another passes that one's on as well.
    fn info(&self) -> SourceInfo {
        SourceInfo::new()
    }

    /// Makes a source whose type is not named, for a field or where the configuration chooses.
    fn boxed(self) -> BoxTokenSource
    where
        Self: Sized,
    {
        BoxTokenSource::new(self)
    }

    /// Makes a source that asks `other` once this one is [denied](TokenError::is_denied): log in again.
    fn or_else<S>(self, other: S) -> Fallback<Self, S>
    where
        Self: Sized,
        S: TokenSource,
    {
        Fallback::new(self, other)
    }
}

impl<F, Fut, T> TokenSource for F
where
    F: Fn(Renewal) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, TokenError>> + Send,
    T: Into<TokenSet>,
{
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        self(renewal).await.map(Into::into)
    }
}

/// For a source that the program keeps a handle to.
impl<S: TokenSource> TokenSource for Arc<S> {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        (**self).fetch(renewal).await
    }

    async fn adopt(&self, tokens: Option<&TokenSet>) -> Result<(), TokenError> {
        (**self).adopt(tokens).await
    }

    async fn settle(&self) -> Result<(), TokenError> {
        (**self).settle().await
    }

    fn info(&self) -> SourceInfo {
        (**self).info()
    }
}

/// Makes a source out of a closure, where the bare closure's argument or error would not be inferred.
///
/// A closure has no [`info`](TokenSource::info). A source that makes its proof anew for each attempt is a type of its own, with
/// [`SourceInfo::fresh_proof`].
///
/// ```
/// use tower_refresh::{Credentials, TokenSet, source_fn};
///
/// let credentials = Credentials::new(source_fn(|renewal| async move {
///     TokenSet::bearer("sesame")
/// }));
/// ```
pub fn source_fn<F, Fut>(f: F) -> F
where
    F: Fn(Renewal) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<TokenSet, TokenError>> + Send,
{
    f
}

/// What a source is asked: the previous token set, and why it will not do.
#[derive(Clone)]
#[cfg_attr(not(feature = "store"), allow(dead_code, reason = "some of it is for a store to read"))]
pub struct Renewal {
    previous: Option<TokenSet>,
    cause: Cause,
    challenge: Option<Challenge>,
    /// Whether a store that knows better has said that the configured refresh token is not to be sent.
    is_seed_spent: bool,
    /// Whether a store counts how often a refresh token is sent, so that nobody beneath it sends one again.
    is_counted: bool,
    /// Whether nothing is to be sent: only what others brought will do.
    only_looks: bool,
    /// Whether an earlier refusal is to be forgotten, and the source asked again.
    is_probe: bool,
    notices: Option<Arc<dyn Fn(Notice) + Send + Sync>>,
    fetched_for: Option<FetchedFor>,
}

/// What a source that keeps tokens has to tell besides its answer.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "store"), allow(dead_code, reason = "a store has something to tell"))]
pub(crate) enum Notice {
    /// The answer is what somebody else obtained.
    Adopted,
    /// A token set could not be saved. It is used, and will be saved later.
    Unsaved(TokenError),
    /// What was unsaved is saved.
    Saved,
    /// A refresh token was sent, or was about to be, and nobody knows what became of it.
    Unanswered(TokenError),
}

impl Renewal {
    /// Makes a renewal, as a test of a source needs one.
    pub fn new(cause: Cause) -> Self {
        Self {
            previous: None,
            cause,
            challenge: None,
            is_seed_spent: false,
            is_counted: false,
            only_looks: false,
            is_probe: false,
            notices: None,
            fetched_for: None,
        }
    }

    /// Sets the previous token set.
    #[must_use]
    pub fn with_previous(mut self, previous: impl Into<Option<TokenSet>>) -> Self {
        self.previous = previous.into();
        self
    }

    /// Sets the challenge of the answer that rejected the previous token.
    #[must_use]
    pub fn with_challenge(mut self, challenge: impl Into<Option<Challenge>>) -> Self {
        self.challenge = challenge.into();
        self
    }

    /// Says that what the source was configured with is not to be sent, even if there is no previous token set.
    #[must_use]
    pub fn with_seed_spent(mut self) -> Self {
        self.is_seed_spent = true;
        self
    }

    /// Says that each sending of a refresh token is written down first.
    #[cfg(feature = "store")]
    pub(crate) fn counted(mut self) -> Self {
        self.is_counted = true;
        self
    }

    /// Says that nothing is to be sent.
    pub(crate) fn only_looking(mut self) -> Self {
        self.only_looks = true;
        self
    }

    /// Sets whether an earlier refusal is to be forgotten.
    pub(crate) fn probing(mut self, is_probe: bool) -> Self {
        self.is_probe = is_probe;
        self
    }

    pub(crate) fn with_notices(mut self, notices: impl Fn(Notice) + Send + Sync + 'static) -> Self {
        self.notices = Some(Arc::new(notices));
        self
    }

    pub(crate) fn with_fetched_for(mut self, fetched_for: Option<FetchedFor>) -> Self {
        self.fetched_for = fetched_for;
        self
    }

    /// Returns which credentials wait for the outcome, also in another task.
    #[cfg(feature = "oauth2")]
    pub(crate) fn fetched_for(&self) -> Option<FetchedFor> {
        self.fetched_for.clone().or_else(FetchedFor::current)
    }

    #[cfg(feature = "oauth2")]
    pub(crate) fn is_counted(&self) -> bool {
        self.is_counted
    }

    pub(crate) fn only_looks(&self) -> bool {
        self.only_looks
    }

    #[cfg(feature = "store")]
    pub(crate) fn is_probe(&self) -> bool {
        self.is_probe
    }

    #[cfg(feature = "store")]
    pub(crate) fn tell(&self, notice: Notice) {
        if let Some(notices) = &self.notices {
            notices(notice);
        }
    }

    /// Returns the token set to be renewed; none at first, and after [`Credentials::forget`](crate::Credentials::forget).
    pub fn previous(&self) -> Option<&TokenSet> {
        self.previous.as_ref()
    }

    /// Returns whether what the source was configured with is not to be sent: a store knows that the configured refresh
    /// token was spent, refused, or overtaken by a log-out. There must be a previous one, or somebody must log in.
    pub fn is_seed_spent(&self) -> bool {
        self.is_seed_spent
    }

    /// Returns why a new token set is wanted.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Returns the challenge (RFC 9110 §11.6.1) of the answer that rejected the previous token, if there was one.
    pub fn challenge(&self) -> Option<&Challenge> {
        self.challenge.as_ref()
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal")
            .field("previous", &self.previous)
            .field("cause", &self.cause)
            .field("challenge", &self.challenge)
            .field("is_seed_spent", &self.is_seed_spent)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod testing {
    //! What the tests of the sources share.

    use std::sync::Arc;

    use arc_swap::ArcSwap;

    use super::{Cause, Renewal, TokenSource};
    use crate::error::TokenError;
    use crate::token::TokenSet;

    pub(super) fn tokens(token: &str) -> TokenSet {
        TokenSet::bearer(token).unwrap()
    }

    #[tokio::test]
    async fn shared_source_fetches_and_adopts_as_the_source_itself() {
        let adopted = Adopted::default();
        let shared = Arc::new(adopted.clone());
        shared.adopt(Some(&tokens("a"))).await.unwrap();
        assert_eq!(adopted.seen(), ["a"]);
        assert!(shared.fetch(Renewal::new(Cause::Missing)).await.unwrap_err().is_denied());
    }

    /// A source that only remembers what it was told to adopt.
    #[derive(Clone, Default)]
    pub(super) struct Adopted {
        seen: Arc<ArcSwap<Vec<String>>>,
        fails: bool,
    }

    impl Adopted {
        pub(super) fn failing() -> Self {
            Self { fails: true, ..Self::default() }
        }

        pub(super) fn seen(&self) -> Vec<String> {
            self.seen.load().to_vec()
        }
    }

    impl TokenSource for Adopted {
        async fn fetch(&self, _: Renewal) -> Result<TokenSet, TokenError> {
            Err(TokenError::denied("only adopts"))
        }

        async fn adopt(&self, tokens: Option<&TokenSet>) -> Result<(), TokenError> {
            let token = tokens.map_or("none", |tokens| tokens.access_token().expose_secret());
            self.seen.rcu(|seen| [&seen[..], &[token.to_owned()]].concat());
            if self.fails {
                return Err(TokenError::transient("cannot write it down"));
            }
            Ok(())
        }
    }
}
