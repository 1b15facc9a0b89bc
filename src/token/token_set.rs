//! Token sets: an access token and everything issued with it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{AccessToken, RefreshToken, Secret};
use crate::clock::since_epoch;
use crate::error::TokenError;

/// An access token and everything issued with it: expiry, refresh token, scope, id token and further fields.
///
/// A [source](crate::TokenSource) returns one, and an application that has logged in passes one to
/// [`Credentials::log_in`](crate::Credentials::log_in). Setters begin with `with_`. Cloning is cheap. `Debug` redacts all tokens.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::TokenSet;
///
/// let tokens = TokenSet::bearer("2YotnFZFEjr1zCsicMWpAA")?
///     .with_expires_in(Duration::from_secs(3600))
///     .with_refresh_token("tGzv3JOkF0XG5Qx2TlKWIA");
/// assert!(tokens.refresh_token().is_some());
/// # Ok::<(), tower_refresh::TokenError>(())
/// ```
#[derive(Clone)]
pub struct TokenSet {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    access_token: AccessToken,
    /// The lifetime, or the time of day.
    expires: Option<Duration>,
    expires_at_time_of_day: bool,
    refresh_token: Option<RefreshToken>,
    scope: Option<Arc<str>>,
    /// Boxed, since most servers send none of it.
    more: Option<Box<More>>,
    /// True if it was issued for a log-in, rather than as the successor of another set.
    begins_session: bool,
}

/// The fields that most sets do not have.
#[derive(Clone, Default)]
struct More {
    refresh_in: Option<Duration>,
    refresh_token_expires_at: Option<SystemTime>,
    id_token: Option<Secret>,
    extra: BTreeMap<Box<str>, Secret>,
}

/// The expiry of an access token, as the source stated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// A lifetime, counted from the token request.
    In(Duration),
    /// A time of day, since 1970.
    At(Duration),
}

impl TokenSet {
    /// Creates a token set with an access token of the bearer type (RFC 6750).
    ///
    /// # Errors
    ///
    /// As [`AccessToken::new`].
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::TokenSet;
    ///
    /// let tokens = TokenSet::bearer("sesame")?;
    /// assert!(tokens.refresh_token().is_none());
    /// # Ok::<(), tower_refresh::TokenError>(())
    /// ```
    pub fn bearer(token: impl AsRef<str>) -> Result<Self, TokenError> {
        AccessToken::new(token).map(Self::new)
    }

    /// Creates a token set with an access token that is already parsed.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{AccessToken, TokenSet};
    ///
    /// let token: AccessToken = "sesame".parse()?;
    /// let tokens = TokenSet::new(token);
    /// # Ok::<(), tower_refresh::TokenError>(())
    /// ```
    pub fn new(access_token: AccessToken) -> Self {
        Self {
            inner: Arc::new(Inner {
                access_token,
                expires: None,
                expires_at_time_of_day: false,
                refresh_token: None,
                scope: None,
                more: None,
                begins_session: false,
            }),
        }
    }

    /// Sets the lifetime of the access token, counted from before the token request.
    ///
    /// Without a lifetime the token is used until a server rejects it. A token from a source that has expired on arrival, with a
    /// lifetime of zero for example, is also used until a server rejects it, and is refreshed in the background every few
    /// seconds ([`Event::ExpiredOnArrival`](crate::Event::ExpiredOnArrival)). The maximum is ten years.
    #[must_use]
    pub fn with_expires_in(self, lifetime: Duration) -> Self {
        self.with_expiry(Expiry::In(lifetime))
    }

    /// Sets the time of day at which the access token expires.
    ///
    /// Prefer [`with_expires_in`](Self::with_expires_in) if both are known, since a time of day depends on the clock of the machine. A
    /// time in the past counts as a lifetime of zero. Such a token from the application
    /// ([`Credentials::log_in`](crate::Credentials::log_in)) is refreshed before it is used.
    #[must_use]
    pub fn with_expires_at(self, at: SystemTime) -> Self {
        self.with_expiry(Expiry::At(since_epoch(at)))
    }

    /// Sets when the token becomes stale, counted from before the token request. It overrides the
    /// [refresh-ahead](crate::RefreshPolicy::refresh_ahead) of the policy.
    ///
    /// A stale token is used until it expires, and refreshed in the background. The minimum is 5 seconds, or a tenth of the
    /// lifetime if that is less. Some servers send this value as `refresh_in`.
    #[must_use]
    pub fn with_refresh_in(mut self, after: Duration) -> Self {
        self.edit_more().refresh_in = Some(after);
        self
    }

    /// Sets the refresh token. An empty string removes it.
    #[must_use]
    pub fn with_refresh_token(mut self, token: impl Into<RefreshToken>) -> Self {
        self.edit().refresh_token =
            Some(token.into()).filter(|token| !token.expose_secret().is_empty());
        self
    }

    /// Sets the time of day at which the refresh token expires, as stated by the server.
    ///
    /// This is information: the refresh token is also sent after this time, and the server decides.
    #[must_use]
    pub fn with_refresh_token_expires_at(mut self, at: SystemTime) -> Self {
        self.edit_more().refresh_token_expires_at = Some(at);
        self
    }

    /// Sets the scope (RFC 6749 §3.3), a list separated by spaces.
    #[must_use]
    pub fn with_scope(mut self, scope: impl AsRef<str>) -> Self {
        self.edit().scope = Some(scope.as_ref().into());
        self
    }

    /// Sets the id token (OpenID Connect Core §2).
    #[must_use]
    pub fn with_id_token(mut self, token: impl Into<String>) -> Self {
        self.edit_more().id_token = Some(Secret::new(token));
        self
    }

    /// Sets a further field, which [`extra`](Self::extra) returns. An empty value removes it.
    #[must_use]
    pub fn with_extra(mut self, name: impl AsRef<str>, value: impl Into<String>) -> Self {
        let value = Secret::new(value);
        if value.expose().is_empty() {
            self.edit_more().extra.remove(name.as_ref());
        } else {
            self.edit_more().extra.insert(name.as_ref().into(), value);
        }
        self
    }

    /// Fills the fields that the answer to a refresh token leaves out: they keep their last value.
    #[cfg(feature = "oauth2")]
    pub(crate) fn filled_from(mut self, sent: &RefreshToken, previous: Option<&Self>) -> Self {
        let last = previous.map(|previous| &previous.inner);
        if self.refresh_token().is_none() {
            self = self.with_refresh_token(sent.clone());
            let is_sent = |last: &RefreshToken| last.expose_secret() == sent.expose_secret();
            let expiry = last
                .filter(|last| last.refresh_token.as_ref().is_some_and(is_sent))
                .and_then(|last| last.more.as_ref()?.refresh_token_expires_at);
            if self.refresh_token_expires_at().is_none() && expiry.is_some() {
                self.edit_more().refresh_token_expires_at = expiry;
            }
        }
        if let Some(last) = last {
            let inner = self.edit();
            inner.scope = inner.scope.take().or_else(|| last.scope.clone());
        }
        if let Some(last) = last.and_then(|last| last.more.as_ref())
            && (last.id_token.is_some() || !last.extra.is_empty())
        {
            let more = self.edit_more();
            more.id_token = more.id_token.take().or_else(|| last.id_token.clone());
            for (name, value) in &last.extra {
                more.extra.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        self
    }

    /// Removes the time at which the refresh token expires, which was that of another one.
    pub(crate) fn without_refresh_token_expiry(mut self) -> Self {
        if self.refresh_token_expires_at().is_some() {
            self.edit_more().refresh_token_expires_at = None;
        }
        self
    }

    /// Marks the set as issued for a log-in, rather than as the successor of another set.
    pub(crate) fn beginning_session(mut self) -> Self {
        self.edit().begins_session = true;
        self
    }

    /// Returns whether it is marked so, and removes the mark, which a source may have copied.
    pub(crate) fn take_begins_session(&mut self) -> bool {
        self.inner.begins_session && std::mem::take(&mut self.edit().begins_session)
    }

    fn edit(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.inner)
    }

    fn edit_more(&mut self) -> &mut More {
        self.edit().more.get_or_insert_default()
    }

    fn more(&self) -> Option<&More> {
        self.inner.more.as_deref()
    }

    /// Returns the access token.
    pub fn access_token(&self) -> &AccessToken {
        &self.inner.access_token
    }

    /// Returns the refresh token.
    pub fn refresh_token(&self) -> Option<&RefreshToken> {
        self.inner.refresh_token.as_ref()
    }

    /// Returns the time of day at which the refresh token expires, if the server has stated it.
    ///
    /// This is information: the refresh token is also sent after this time, and the server decides.
    pub fn refresh_token_expires_at(&self) -> Option<SystemTime> {
        self.more()?.refresh_token_expires_at
    }

    /// Returns the scope of the access token (RFC 6749 §3.3), a list separated by spaces.
    pub fn scope(&self) -> Option<&str> {
        self.inner.scope.as_deref()
    }

    /// Returns the id token (OpenID Connect Core §2) without verifying it.
    ///
    /// `Debug` redacts it, since it is personal data.
    pub fn id_token(&self) -> Option<&str> {
        self.more()?.id_token.as_ref().map(Secret::expose)
    }

    /// Returns a further field of the token response, such as Salesforce's `instance_url`.
    ///
    /// The dialect names the fields to keep in [`fields.extra`](crate::oauth2::Fields::extra), and an application sets them with
    /// [`with_extra`](Self::with_extra). The value of a JSON string is the string, and of any other JSON value its text: `42`,
    /// `true`, `["a","b"]`. [`RefreshTokenGrant`](crate::oauth2::RefreshTokenGrant) and stores keep a field that a later response
    /// omits. `Debug` redacts the values.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::TokenSet;
    ///
    /// let tokens = TokenSet::bearer("sesame")?
    ///     .with_extra("instance_url", "https://eu7.example.com");
    /// assert_eq!(tokens.extra("instance_url"), Some("https://eu7.example.com"));
    /// assert_eq!(tokens.extra("signature"), None);
    /// # Ok::<(), tower_refresh::TokenError>(())
    /// ```
    pub fn extra(&self, name: &str) -> Option<&str> {
        self.more()?.extra.get(name).map(Secret::expose)
    }

    /// Returns all further fields with their names.
    #[cfg(feature = "store")]
    pub(crate) fn extras(&self) -> impl Iterator<Item = (&str, &str)> {
        self.more()
            .into_iter()
            .flat_map(|more| &more.extra)
            .map(|(name, value)| (&**name, value.expose()))
    }

    /// Returns the lifetime of the access token, counted from `wall`, or `None` if it is not known.
    ///
    /// If the lifetime was set by [`with_expires_in`](Self::with_expires_in), it does not depend on `wall`.
    pub fn lifetime_at(&self, wall: SystemTime) -> Option<Duration> {
        match self.expiry()? {
            Expiry::In(lifetime) => Some(lifetime),
            Expiry::At(at) => Some(at.saturating_sub(since_epoch(wall))),
        }
    }

    pub(crate) fn expiry(&self) -> Option<Expiry> {
        let expires = self.inner.expires?;
        Some(match self.inner.expires_at_time_of_day {
            false => Expiry::In(expires),
            true => Expiry::At(expires),
        })
    }

    fn with_expiry(mut self, expiry: Expiry) -> Self {
        let inner = self.edit();
        (inner.expires, inner.expires_at_time_of_day) = match expiry {
            Expiry::In(lifetime) => (Some(lifetime), false),
            Expiry::At(at) => (Some(at), true),
        };
        self
    }

    pub(crate) fn refresh_in(&self) -> Option<Duration> {
        self.more()?.refresh_in
    }
}

impl fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = self.more();
        f.debug_struct("TokenSet")
            .field("access_token", &self.inner.access_token)
            .field("expiry", &self.expiry())
            .field("refresh_in", &self.refresh_in())
            .field("refresh_token", &self.inner.refresh_token)
            .field("refresh_token_expires_at", &self.refresh_token_expires_at())
            .field("scope", &self.inner.scope)
            .field("id_token", &more.and_then(|more| more.id_token.as_ref()))
            .field("extra", &more.map(|more| &more.extra))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_refresh_token_counts_as_absent() {
        let tokens = TokenSet::bearer("a").unwrap().with_refresh_token("");
        assert!(tokens.refresh_token().is_none());
    }

    #[test]
    fn debug_of_a_token_set_shows_no_secret() {
        let tokens = TokenSet::bearer("sesame-a")
            .unwrap()
            .with_refresh_token("sesame-r")
            .with_id_token("sesame-i")
            .with_extra("device", "sesame-e");
        let shown = format!("{tokens:?} {:?}", AccessToken::new("sesame"));
        assert!(!shown.contains("sesame"), "{shown}");
    }
}
