//! A source of token sets.

use std::any::{Any, type_name};
use std::future::Future;
use std::sync::Arc;

use super::boxed::{BoxFuture, BoxTokenSource, DynTokenSource};
use super::fallback::Fallback;
use super::info::SourceInfo;
use super::renewal::Renewal;
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

// ===== impl BoxTokenSource =====

impl BoxTokenSource {
    /// Boxes a source. A source that is already boxed is returned unchanged.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{BoxTokenSource, Credentials, TokenFile};
    ///
    /// let credentials = Credentials::new(BoxTokenSource::new(TokenFile::new("token")));
    /// ```
    pub fn new<S: TokenSource>(source: S) -> Self {
        if let Some(boxed) = (&source as &dyn Any).downcast_ref::<Self>() {
            return boxed.clone();
        }
        Self { source: Arc::new(source), name: type_name::<S>() }
    }
}

impl TokenSource for BoxTokenSource {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        self.source.dyn_fetch(renewal).await
    }

    fn info(&self) -> SourceInfo {
        self.source.dyn_info()
    }
}

impl<S: TokenSource> DynTokenSource for S {
    fn dyn_fetch(&self, renewal: Renewal) -> BoxFuture<'_> {
        Box::pin(self.fetch(renewal))
    }

    fn dyn_info(&self) -> SourceInfo {
        self.info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Cause;
    use crate::source::testing::tokens;

    #[tokio::test]
    async fn boxed_source_fetches_as_the_source_itself() {
        let boxed = source_fn(|_| async { Ok(tokens("b")) }).boxed();
        let fetched = boxed.clone().fetch(Renewal::new(Cause::Missing)).await;
        assert_eq!(fetched.unwrap().access_token().expose_secret(), "b");
    }

    #[test]
    fn boxing_a_box_does_not_nest() {
        let once = source_fn(|_| async { Ok(tokens("a")) }).boxed();
        let twice = once.clone().boxed();
        assert!(Arc::ptr_eq(&once.source, &twice.source));
        assert_eq!(format!("{once:?}"), format!("{twice:?}"));
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
