//! Facts about a source, for the credentials and for a store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::token::RefreshToken;

/// Facts about a source, for the credentials and for a store: returned by [`TokenSource::info`](super::TokenSource::info).
///
/// The sources in [`oauth2`](crate::oauth2) say all of it. One of your own says what it knows:
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
#[derive(Clone, Debug)]
#[must_use]
#[cfg_attr(not(feature = "store"), allow(dead_code, reason = "only a store asks"))]
pub struct SourceInfo {
    pub(crate) token_endpoint: Option<String>,
    pub(crate) client_id: Option<String>,
    pub(crate) refresh_token: Option<RefreshToken>,
    pub(crate) rotates: bool,
    pub(crate) reuse_grace: Option<Duration>,
    /// Whether the source keeps tokens that others may bring, so that it is worth to look.
    pub(crate) keeps: bool,
    /// Notices a change of the source's input, after which an earlier failure proves nothing.
    pub(crate) watch: Option<Watch>,
    pub(crate) fresh_proof: bool,
    /// Whether the source itself remembers a refusal and does not send what was refused again.
    pub(crate) remembers_refusals: bool,
}

impl SourceInfo {
    /// Says nothing yet: a refresh token may rotate, and the rest is unknown.
    pub fn new() -> Self {
        Self {
            token_endpoint: None,
            client_id: None,
            refresh_token: None,
            rotates: true,
            reuse_grace: None,
            keeps: false,
            watch: None,
            fresh_proof: false,
            remembers_refusals: false,
        }
    }

    /// Sets the origin of the token endpoint, such as `https://as.example.com`.
    pub fn token_endpoint(mut self, origin: impl Into<String>) -> Self {
        self.token_endpoint = Some(origin.into());
        self
    }

    /// Sets the client id.
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self
    }

    /// Sets the refresh token that the source was configured with and sends if there is no previous one.
    ///
    /// Such a source must heed [`Renewal::is_seed_spent`](super::Renewal::is_seed_spent).
    pub fn refresh_token(mut self, refresh_token: impl Into<RefreshToken>) -> Self {
        self.refresh_token =
            Some(refresh_token.into()).filter(|token| !token.expose_secret().is_empty());
        self
    }

    /// Sets whether the server may issue a new refresh token in place of the one that was spent; true unless it is known
    /// not to.
    pub fn rotates(mut self, rotates: bool) -> Self {
        self.rotates = rotates;
        self
    }

    /// Sets for how long after it was first sent a refresh token may be sent again.
    pub fn reuse_grace(mut self, grace: impl Into<Option<Duration>>) -> Self {
        self.reuse_grace = grace.into();
        self
    }

    /// Sets whether the source makes its proof anew for each attempt, such as a signed assertion, the output of a command or
    /// the content of a file; false by default.
    ///
    /// A refusal ([`TokenError::is_denied`](crate::TokenError::is_denied)) then means little for the next attempt, since a
    /// clock may have been set or a permission granted meanwhile. The source is asked again every five minutes if requests
    /// need a token, and at once by [`Credentials::renew`](crate::Credentials::renew). Leave it false for a fixed password, which
    /// servers lock an account for, and for refresh tokens, which stay refused.
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

    /// Sets that the source does not send again what was refused.
    #[cfg(feature = "oauth2")]
    pub(crate) fn remembering_refusals(mut self) -> Self {
        self.remembers_refusals = true;
        self
    }

    /// Says that the source keeps tokens, which others may bring.
    #[cfg(feature = "store")]
    pub(crate) fn keeping(mut self) -> Self {
        self.keeps = true;
        self
    }

    pub(crate) fn watched(mut self, watch: Watch) -> Self {
        self.watch = Some(watch);
        self
    }
}

impl Default for SourceInfo {
    fn default() -> Self {
        Self::new()
    }
}

/// Detects a change of a source's input, such as a file, since the source last read it.
///
/// It is called after a failure or a rejection, in the task of a request, and must be cheap.
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
