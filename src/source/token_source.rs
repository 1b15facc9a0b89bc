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
/// A source keeps no tokens: it gets the [`Renewal`] with the previous token set and returns the new one. It is called for one token
/// set at a time, unless a call has not ended within ten timeouts. Each call runs in a task of its own, so that its result is
/// kept even if the request that caused it is dropped.
///
/// A source needs no lock, cache, retry or refresh timer, but a time limit on its own requests: a call that never ends holds every request
/// that needs a token, for the [timeout](crate::RefreshPolicy::timeout) of the policy each.
///
/// Most programs use a grant of [`oauth2`](crate::oauth2). For simple cases, use a closure ([`source_fn`]). For facts about the
/// source, implement the trait.
///
/// # Examples
///
/// A closure:
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::{Credentials, Renewal, TokenSet};
///
/// let credentials = Credentials::new(|_: Renewal| async {
///     // Requests a token from elsewhere.
///     let token = "sesame";
///     Ok(TokenSet::bearer(token)?.with_expires_in(Duration::from_secs(300)))
/// });
/// ```
///
/// A type:
///
/// ```
/// use tower_refresh::{RefreshLayer, Renewal, SourceInfo, TokenError, TokenSet, TokenSource};
///
/// /// Runs a command that prints a token.
/// struct Command {
///     program: String,
/// }
///
/// impl TokenSource for Command {
///     async fn fetch(&self, _: Renewal) -> Result<TokenSet, TokenError> {
///         let output = tokio::process::Command::new(&self.program).output().await;
///         let output = output.map_err(TokenError::transient)?;
///         let token = String::from_utf8(output.stdout).map_err(TokenError::misconfigured)?;
///         TokenSet::bearer(token.trim_end())
///     }
///
///     fn info(&self) -> SourceInfo {
///         SourceInfo::new().rotates(false).fresh_proof(true)
///     }
/// }
///
/// let layer = RefreshLayer::new(Command { program: "print-token".into() });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `TokenSource`",
    label = "expected a token source",
    note = "implement `TokenSource` for `{Self}`, with `async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError>`",
    note = "a closure is a token source if it returns such a future: `source_fn(|renewal| async move {{ .. }})`"
)]
pub trait TokenSource: Send + Sync + 'static {
    /// Obtains a new token set that replaces the one in `renewal`.
    ///
    /// # Errors
    ///
    /// The kind of the [`TokenError`] decides when the source is asked again. If a refresh token was sent and no answer came,
    /// return an [ambiguous](TokenError::ambiguous) error, and if it was certainly not sent, an [unsent](TokenError::unsent) one.
    ///
    /// # Cancel safety
    ///
    /// The future is never dropped before it is ready, unless its runtime is shut down or it takes longer than five minutes with a
    /// store.
    fn fetch(&self, renewal: Renewal) -> impl Future<Output = Result<TokenSet, TokenError>> + Send;

    /// Returns facts about this source, for the credentials and for a store. A closure has none, which is the default.
    ///
    /// If a source forwards its renewals to another source, return the facts of that one.
    fn info(&self) -> SourceInfo {
        SourceInfo::new()
    }

    /// Boxes this source, for a field or a choice at run time.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{BoxTokenSource, StaticToken, TokenError, TokenFile, TokenSource as _};
    ///
    /// fn source(token: Option<&str>) -> Result<BoxTokenSource, TokenError> {
    ///     Ok(match token {
    ///         Some(token) => StaticToken::new(token.parse()?).boxed(),
    ///         None => TokenFile::new("/run/secrets/token").boxed(),
    ///     })
    /// }
    /// ```
    fn boxed(self) -> BoxTokenSource
    where
        Self: Sized,
    {
        BoxTokenSource::new(self)
    }

    /// Returns a source that asks `other` if this one is [denied](TokenError::is_denied), for example to log in again.
    ///
    /// The tokens of `other` begin a new session.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{Renewal, TokenError, TokenSet, TokenSource as _, source_fn};
    ///
    /// let refresh = source_fn(|renewal: Renewal| async move {
    ///     let refresh_token = renewal.refresh_token()?;
    ///     // Sends the refresh token.
    ///     # let _ = refresh_token;
    ///     # TokenSet::bearer("sesame")
    /// });
    /// let log_in = source_fn(|_| async {
    ///     // Logs in with a password.
    ///     # TokenSet::bearer("sesame")
    /// });
    /// let source = refresh.or_else(log_in);
    /// ```
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

/// For a source that the program keeps another handle to.
impl<S: TokenSource> TokenSource for Arc<S> {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        (**self).fetch(renewal).await
    }

    fn info(&self) -> SourceInfo {
        (**self).info()
    }
}

/// Creates a source from a closure. The types of its argument and its error are inferred.
///
/// Set a time limit on the requests of the closure, as for [any source](TokenSource).
///
/// A closure has no [`info`](TokenSource::info), so that it is not asked again after a [denied](TokenError::denied) error, before a
/// log-in or [`Credentials::refresh_now`](crate::Credentials::refresh_now). If it may succeed later, implement [`TokenSource`] with
/// [`SourceInfo::fresh_proof`].
///
/// # Examples
///
/// ```
/// use tower_refresh::{Credentials, TokenSet, source_fn};
///
/// let credentials = Credentials::new(source_fn(|renewal| async move {
///     TokenSet::bearer("sesame")
/// }));
/// ```
///
/// The closure is called for each refresh. Clone what it captures:
///
/// ```
/// use std::sync::Arc;
/// use tower_refresh::{Credentials, TokenError, TokenSet, source_fn};
///
/// struct Vault;
///
/// impl Vault {
///     async fn token(&self) -> Result<String, std::io::Error> {
///         Ok("sesame".into())
///     }
/// }
///
/// let vault = Arc::new(Vault);
/// let credentials = Credentials::new(source_fn(move |_| {
///     let vault = Arc::clone(&vault);
///     async move { TokenSet::bearer(vault.token().await.map_err(TokenError::transient)?) }
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
        Self { source: Arc::new(source) }
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

    fn dyn_name(&self) -> &'static str {
        type_name::<S>()
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
        assert_eq!((info.client_id.as_deref(), info.keeps_refresh_token), (Some("compass"), true));
        assert!(info.refresh_token.is_some());
    }
}
