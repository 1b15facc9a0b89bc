//! The conversion of a source into credentials.

use super::handle::Credentials;
use crate::source::TokenSource;

/// A [`TokenSource`], or [`Credentials`] that several layers share.
///
/// Sealed: implement [`TokenSource`] instead.
///
/// # Examples
///
/// ```
/// use tower_refresh::{IntoCredentials, OriginError, RefreshLayer};
///
/// fn layer(credentials: impl IntoCredentials) -> Result<RefreshLayer, OriginError> {
///     RefreshLayer::new(credentials).origin("https://api.example.com")
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a `TokenSource` nor `Credentials`",
    label = "expected a token source or `Credentials`",
    note = "implement `TokenSource` for `{Self}`, with `async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError>`",
    note = "a closure is a token source if it returns such a future: `source_fn(|renewal| async move {{ .. }})`",
    note = "a `CredentialsBuilder` becomes credentials with `.build()`"
)]
pub trait IntoCredentials: sealed::Sealed {
    /// Returns the credentials, or new ones with the default policy for a source.
    #[doc(hidden)]
    fn into_credentials(self) -> Credentials;
}

impl<S: TokenSource> IntoCredentials for S {
    #[doc(hidden)]
    fn into_credentials(self) -> Credentials {
        Credentials::new(self)
    }
}

impl IntoCredentials for Credentials {
    #[doc(hidden)]
    fn into_credentials(self) -> Credentials {
        self
    }
}

mod sealed {
    #[expect(
        unnameable_types,
        reason = "a trait without a public name cannot be implemented elsewhere"
    )]
    pub trait Sealed {}

    impl<S: super::TokenSource> Sealed for S {}
    impl Sealed for super::Credentials {}
}
