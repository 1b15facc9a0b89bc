//! Facts about a source.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::token::RefreshToken;

/// Facts about a source, returned by [`TokenSource::info`](super::TokenSource::info).
///
/// The credentials and the store use them. The sources in [`oauth2`](crate::oauth2) provide all facts. Your own source provides
/// what it knows.
///
/// # Examples
///
/// ```
/// use tower_refresh::{Renewal, SourceInfo, TokenError, TokenSet, TokenSource};
///
/// struct Vault;
///
/// impl TokenSource for Vault {
///     async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
///         # let _ = renewal;
///         // …
///         # Err(TokenError::denied("an example"))
///     }
///
///     fn info(&self) -> SourceInfo {
///         SourceInfo::new().token_endpoint("https://vault.example.com").client_id("compass").rotates(false)
///     }
/// }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct SourceInfo {
    pub(crate) token_endpoint: Option<String>,
    pub(crate) client_id: Option<String>,
    pub(crate) refresh_token: Option<RefreshToken>,
    /// True if the server never replaces a spent refresh token.
    pub(crate) keeps_refresh_token: bool,
    pub(crate) reuse_grace: Option<Duration>,
    /// Detects a change of the source's input, which ends the backoff after a failure.
    pub(crate) watch: Option<Watch>,
    pub(crate) fresh_proof: bool,
    /// True if the source remembers a refusal and does not repeat the refused request.
    pub(crate) remembers_refusals: bool,
    /// True if the source sends no refresh token, also not that of a log-in.
    pub(crate) sends_no_refresh_token: bool,
}

impl SourceInfo {
    /// Creates facts that are all unknown. A refresh token may rotate.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::SourceInfo;
    ///
    /// let info = SourceInfo::new().client_id("compass").rotates(false);
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the origin of the token endpoint, such as `https://as.example.com`.
    ///
    /// Events, errors, the status of a pool and the records in a store contain it. A URL with a password or a query is not an origin.
    pub fn token_endpoint(mut self, origin: impl Into<String>) -> Self {
        self.token_endpoint = Some(origin.into());
        self
    }

    /// Sets the client id.
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self
    }

    /// Sets the refresh token that the source is configured with.
    ///
    /// It begins a session once: it is [the one to send](super::Renewal::refresh_token) until there is a token set, or until the
    /// application logs in or out.
    pub fn refresh_token(mut self, refresh_token: impl Into<RefreshToken>) -> Self {
        self.refresh_token =
            Some(refresh_token.into()).filter(|token| !token.expose_secret().is_empty());
        self
    }

    /// Sets whether the server may replace a spent refresh token by a new one. The default is true.
    #[doc(alias = "rotation")]
    pub fn rotates(mut self, rotates: bool) -> Self {
        self.keeps_refresh_token = !rotates;
        self
    }

    /// Sets how long after its first use the server accepts a refresh token again.
    pub fn reuse_grace(mut self, grace: impl Into<Option<Duration>>) -> Self {
        self.reuse_grace = grace.into();
        self
    }

    /// Sets whether the source makes a new proof for each attempt, such as a signed assertion, the output of a command or the
    /// content of a file. The default is false.
    ///
    /// The next attempt may succeed after a [denial](crate::TokenError::is_denied), since a clock may have been set or a permission
    /// granted. The source is asked again every five minutes if requests need a token, and at once by
    /// [`Credentials::refresh`](crate::Credentials::refresh). Leave it false for a fixed password, since servers lock the account, and
    /// for refresh tokens, which stay refused.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{Renewal, SourceInfo, TokenError, TokenSet, TokenSource};
    ///
    /// struct Signed;
    ///
    /// impl TokenSource for Signed {
    ///     async fn fetch(&self, _: Renewal) -> Result<TokenSet, TokenError> {
    ///         // Signs an assertion and sends it.
    ///         # Err(TokenError::denied("an example"))
    ///     }
    ///
    ///     fn info(&self) -> SourceInfo {
    ///         SourceInfo::new().rotates(false).fresh_proof(true)
    ///     }
    /// }
    /// ```
    pub fn fresh_proof(mut self, fresh: bool) -> Self {
        self.fresh_proof = fresh;
        self
    }

    /// Sets that the source does not repeat a refused request.
    #[cfg(feature = "oauth2")]
    pub(crate) fn remembering_refusals(mut self) -> Self {
        self.remembers_refusals = true;
        self
    }

    /// Sets that the source sends no refresh token.
    #[cfg(feature = "oauth2")]
    pub(crate) fn sending_no_refresh_token(mut self) -> Self {
        self.sends_no_refresh_token = true;
        self
    }

    pub(crate) fn watched(mut self, watch: Watch) -> Self {
        self.watch = Some(watch);
        self
    }
}

/// Detects a change of a source's input, such as a file, since the source last read it.
///
/// A request calls it after a failure or a rejection, so that it must be cheap.
#[derive(Clone)]
pub(crate) struct Watch(Arc<dyn Fn() -> bool + Send + Sync>);

impl Watch {
    pub(crate) fn new(has_changed: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(has_changed))
    }

    pub(crate) fn has_changed(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}
