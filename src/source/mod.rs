//! Where tokens come from.

mod boxed;
mod cause;
mod fallback;
mod fetched_for;
mod file;
mod fixed;
mod info;
mod renewal;

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
pub(crate) use self::renewal::Missing;
pub use self::renewal::Renewal;
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
    /// Obtains a new token set to replace the one in `renewal`.
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

    /// Returns facts about this source, for the credentials and for a store. A closure has none, which is the default.
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

#[cfg(test)]
mod testing {
    //! Shared by the tests of the sources.

    use std::sync::Arc;

    use super::{Cause, Renewal, SourceInfo, TokenSource};
    use crate::error::TokenError;
    use crate::token::TokenSet;

    pub(super) fn tokens(token: &str) -> TokenSet {
        TokenSet::bearer(token).unwrap()
    }

    #[tokio::test]
    async fn shared_source_fetches_and_reports_facts_as_the_source_itself() {
        struct Denied;

        impl TokenSource for Denied {
            async fn fetch(&self, _: Renewal) -> Result<TokenSet, TokenError> {
                Err(TokenError::denied("gone"))
            }

            fn info(&self) -> SourceInfo {
                SourceInfo::new().client_id("compass").refresh_token("first").rotates(false)
            }
        }

        let shared = Arc::new(Denied);
        assert!(shared.fetch(Renewal::new(Cause::Missing)).await.unwrap_err().is_denied());
        let info = shared.info();
        assert_eq!((info.client_id.as_deref(), info.rotates), (Some("compass"), false));
        assert!(info.refresh_token.is_some());
    }
}
