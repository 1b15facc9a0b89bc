//! A source without its type.

use std::any::{Any, type_name};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::{Renewal, SourceInfo, TokenSource};
use crate::error::TokenError;
use crate::token::TokenSet;

/// A [`TokenSource`] without its type, for a field or for a source that the configuration selects.
///
/// [`TokenSource::boxed`] creates one. Clones share the source. A clone does not allocate, and a fetch makes two small allocations.
///
/// # Examples
///
/// ```
/// use tower_refresh::{BoxTokenSource, StaticToken, TokenError, TokenFile, TokenSource};
///
/// fn source(path: Option<&str>) -> Result<BoxTokenSource, TokenError> {
///     Ok(match path {
///         Some(path) => TokenFile::new(path).boxed(),
///         None => StaticToken::new("sesame".parse()?).boxed(),
///     })
/// }
/// # assert_eq!(format!("{:?}", source(None)?), "BoxTokenSource(tower_refresh::source::fixed::StaticToken)");
/// # Ok::<(), TokenError>(())
/// ```
#[derive(Clone)]
pub struct BoxTokenSource {
    source: Arc<dyn DynTokenSource>,
    name: &'static str,
}

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

impl fmt::Debug for BoxTokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A source may contain secrets, and need not be `Debug`.
        write!(f, "BoxTokenSource({})", self.name)
    }
}

type BoxFuture<'a> = Pin<Box<dyn Future<Output = Result<TokenSet, TokenError>> + Send + 'a>>;

/// [`TokenSource`] with boxed futures, for a trait object.
trait DynTokenSource: Send + Sync {
    fn dyn_fetch(&self, renewal: Renewal) -> BoxFuture<'_>;

    fn dyn_info(&self) -> SourceInfo;
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
    use crate::source::testing::tokens;
    use crate::source::{Cause, source_fn};

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
}
