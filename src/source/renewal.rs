//! The request to a source.

use std::sync::{Arc, OnceLock};

use super::{Cause, FetchedFor};
use crate::classify::Challenge;
use crate::error::TokenError;
use crate::token::{RefreshToken, TokenSet};

/// The request to a [`TokenSource`](super::TokenSource): the cause, the previous token set and the refresh token to send.
///
/// # Examples
///
/// ```
/// use tower_refresh::{Cause, Renewal, TokenError, TokenSet, TokenSource, source_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), TokenError> {
/// let source = source_fn(|renewal: Renewal| async move {
///     let refresh_token = renewal.refresh_token()?;
///     // …sends it…
///     Ok(TokenSet::bearer("sesame")?.with_refresh_token(refresh_token.clone()))
/// });
///
/// let renewal = Renewal::new(Cause::Missing).with_refresh_token("tGzv3JOkF0XG5Qx2TlKWIA");
/// assert!(source.fetch(renewal).await?.refresh_token().is_some());
/// assert!(source.fetch(Renewal::new(Cause::Missing)).await.unwrap_err().is_denied());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Renewal {
    cause: Cause,
    previous: Option<TokenSet>,
    refresh_token: Result<RefreshToken, Missing>,
    challenge: Option<Challenge>,
    fetched_for: Option<FetchedFor>,
    successor: Arc<OnceLock<RefreshToken>>,
}

impl Renewal {
    /// Creates a renewal, for the test of a source, or to ask a source once, without credentials.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{Cause, Renewal};
    ///
    /// let renewal = Renewal::new(Cause::Missing);
    /// assert!(renewal.previous().is_none());
    /// assert!(renewal.refresh_token().unwrap_err().is_denied());
    /// ```
    pub fn new(cause: Cause) -> Self {
        Self {
            cause,
            previous: None,
            refresh_token: Err(Missing::None),
            challenge: None,
            fetched_for: None,
            successor: Arc::default(),
        }
    }

    /// Sets the previous token set, and its refresh token as the one to send.
    pub fn with_previous(mut self, previous: impl Into<Option<TokenSet>>) -> Self {
        self.previous = previous.into();
        let refresh_token = self.previous.as_ref().and_then(TokenSet::refresh_token);
        self.refresh_token = refresh_token.cloned().ok_or(Missing::None);
        self
    }

    /// Sets the refresh token to send.
    pub fn with_refresh_token(mut self, token: impl Into<RefreshToken>) -> Self {
        self.refresh_token = Ok(token.into());
        self
    }

    /// Sets the challenge of the response that rejected the previous token.
    pub fn with_challenge(mut self, challenge: impl Into<Option<Challenge>>) -> Self {
        self.challenge = challenge.into();
        self
    }

    pub(crate) fn with_fetched_for(mut self, fetched_for: Option<FetchedFor>) -> Self {
        self.fetched_for = fetched_for;
        self
    }

    /// Returns this renewal for a token set and the refresh token to send.
    pub(crate) fn of(
        self,
        previous: Option<TokenSet>,
        refresh_token: Result<RefreshToken, Missing>,
    ) -> Self {
        Self { previous, refresh_token, successor: Arc::default(), ..self }
    }

    /// Returns why a new token set is wanted.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Returns the previous token set, or `None` at first, after [`Credentials::log_out`](crate::Credentials::log_out), and once the
    /// server has refused or replaced its refresh token.
    pub fn previous(&self) -> Option<&TokenSet> {
        self.previous.as_ref()
    }

    /// Returns the refresh token to send: that of the current token set, or at first the [configured
    /// one](super::SourceInfo::refresh_token).
    ///
    /// # Errors
    ///
    /// [Denied](TokenError::is_denied), with the reason, if none may be sent. Return this error from the source.
    pub fn refresh_token(&self) -> Result<&RefreshToken, TokenError> {
        self.refresh_token.as_ref().map_err(|missing| missing.into_error())
    }

    /// Returns the challenge (RFC 9110 §11.6.1) of the response that rejected the previous token, if there was one.
    pub fn challenge(&self) -> Option<&Challenge> {
        self.challenge.as_ref()
    }

    /// Reports that the server has replaced the refresh token, with an answer that has no usable access token.
    ///
    /// The new refresh token is recorded and sent the next time, also if `fetch` returns an error. A token set that `fetch` returns
    /// needs no report. Only the first call counts.
    pub fn replace_refresh_token(&self, successor: impl Into<RefreshToken>) {
        let successor = successor.into();
        let is_same = |sent: &RefreshToken| sent.expose_secret() == successor.expose_secret();
        if !self.refresh_token.as_ref().is_ok_and(is_same) {
            // A second report is ignored.
            let _ = self.successor.set(successor);
        }
    }

    /// Returns the refresh token that was reported.
    pub(crate) fn successor(&self) -> Option<&RefreshToken> {
        self.successor.get()
    }

    /// Returns why there is no refresh token to send.
    #[cfg(feature = "oauth2")]
    pub(crate) fn missing(&self) -> Option<Missing> {
        self.refresh_token.as_ref().err().copied()
    }

    /// Returns which credentials wait for the outcome, also in another task.
    #[cfg(feature = "oauth2")]
    pub(crate) fn fetched_for(&self) -> Option<FetchedFor> {
        self.fetched_for.clone().or_else(FetchedFor::current)
    }
}

/// Why there is no refresh token to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    None,
    Refused,
    Superseded,
    LoggedOut,
}

impl Missing {
    fn into_error(self) -> TokenError {
        TokenError::denied(match self {
            Self::None => "there is no refresh token; the user must log in",
            Self::Refused => "the server has refused the refresh token; the user must log in again",
            Self::Superseded => {
                "the server has replaced the refresh token, and its successor is not known; the user must log in again"
            }
            Self::LoggedOut => "there is no refresh token after logging out; the user must log in",
        })
    }
}
