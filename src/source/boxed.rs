//! A source without its type.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::info::SourceInfo;
use super::renewal::Renewal;
use crate::error::TokenError;
use crate::token::TokenSet;

/// A [`TokenSource`](crate::TokenSource) without its type, for a field or for a source that the configuration selects.
///
/// [`TokenSource::boxed`](crate::TokenSource::boxed) creates one. Clones share the source. A clone does not allocate, and a fetch
/// allocates its future.
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
    pub(super) source: Arc<dyn DynTokenSource>,
}

impl fmt::Debug for BoxTokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A source may contain secrets, and need not be `Debug`.
        write!(f, "BoxTokenSource({})", self.source.dyn_name())
    }
}

pub(super) type BoxFuture<'a> =
    Pin<Box<dyn Future<Output = Result<TokenSet, TokenError>> + Send + 'a>>;

/// [`TokenSource`](crate::TokenSource) with boxed futures, for a trait object.
pub(super) trait DynTokenSource: Send + Sync {
    fn dyn_fetch(&self, renewal: Renewal) -> BoxFuture<'_>;

    fn dyn_info(&self) -> SourceInfo;

    /// Returns the name of the type.
    fn dyn_name(&self) -> &'static str;
}
