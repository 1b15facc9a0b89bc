//! The error of a missing token.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use http::Response;

/// A boxed error, like the one of tower's own middleware.
///
/// # Examples
///
/// ```
/// use tower_refresh::{BoxError, TokenError};
///
/// fn token_error(error: &BoxError) -> Option<&TokenError> {
///     error.downcast_ref()
/// }
/// # assert!(token_error(&TokenError::denied("expired").into()).is_some());
/// ```
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The error of a [`TokenSource`](crate::TokenSource) that has no token.
///
/// The [kind](Self::kind) decides what the [`Credentials`](crate::Credentials) do next:
///
/// | Kind | Meaning | Next refresh |
/// |---|---|---|
/// | [transient](Self::transient) | a later attempt may succeed | after the backoff, which is short while requests have no token |
/// | [ambiguous](Self::ambiguous) | the request was sent and its outcome is unknown | after the current access token has expired |
/// | [denied](Self::denied) | the user must log in again | after the credentials change, which includes tokens that another process has stored; or every five minutes if the source [makes a new proof](crate::SourceInfo::fresh_proof) for each attempt, or if the code is `interaction_required`, `login_required`, `consent_required` or `account_selection_required` |
/// | [misconfigured](Self::misconfigured) | the configuration must be corrected | every five minutes |
///
/// Cloning is cheap: all requests that waited for one refresh get the same error.
///
/// # Secrets
///
/// The errors of this crate never contain a token, a client secret, a body or the query of a URL. The errors of your own source
/// are shown unchanged.
///
/// # Messages
///
/// [Troubleshooting](crate::docs::troubleshooting) lists the messages of this crate, with their causes and the change that helps.
///
/// # Remembered errors
///
/// After a failure the source is not asked again until the backoff is over, and requests get the same error at once. Its message
/// then states that it [is remembered](Self::is_remembered) and when the source is [asked again](Self::asked_again_in). Kind,
/// code, description and causes are those of the failure.
///
/// # Examples
///
/// Return an error from a source:
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::TokenError;
///
/// fn refused(status: u16) -> TokenError {
///     match status {
///         400 => TokenError::denied("the vault refused the role").with_code("invalid_grant"),
///         429 => TokenError::transient("the vault is busy").with_retry_after(Duration::from_secs(10)),
///         _ => TokenError::ambiguous(format!("the vault responded with status {status}")),
///     }
/// }
/// # assert!(refused(400).is_denied());
/// ```
///
/// Handle the error of a request:
///
/// ```
/// use tower_refresh::{BoxError, TokenError};
///
/// fn advice<B>(result: &Result<http::Response<B>, BoxError>) -> Option<&'static str> {
///     Some(match TokenError::of(result)? {
///         error if error.must_log_in() => "log in",
///         // The user has logged in or out meanwhile.
///         error if error.is_session_over() => "try again",
///         error if error.is_misconfigured() => "ask the operator",
///         _ => "try again later",
///     })
/// }
/// # let error: BoxError = TokenError::denied("expired").into();
/// # assert_eq!(advice::<()>(&Err(error)), Some("log in"));
/// ```
#[derive(Clone)]
pub struct TokenError {
    inner: Arc<Inner>,
    next: Option<NextAttempt>,
}

/// When the source is asked again. It is kept beside the shared part, so that setting it allocates nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NextAttempt {
    /// True if an earlier request caused the failure.
    pub(crate) is_remembered: bool,
    /// The time until then, or `None` if not before the credentials change.
    pub(crate) after: Option<Duration>,
}

#[derive(Clone)]
struct Inner {
    kind: TokenErrorKind,
    error: Arc<dyn Error + Send + Sync>,
    code: Option<Cow<'static, str>>,
    description: Option<String>,
    retry_after: Option<Duration>,
    /// Set if nothing was sent, because the refresh token may be sent again only after this time.
    held_back_for: Option<Duration>,
    /// True if the refresh token was not sent, so that the error is not about it.
    is_unsent: bool,
    /// True if a log-in or a log-out has ended the session of the request.
    is_session_over: bool,
    /// True if nothing was asked, because the token endpoint fails for other credentials.
    is_of_outage: bool,
    /// True if it is about a source that this source has asked first, and not about the token endpoint.
    is_of_other_source: bool,
}

/// The kind of a [`TokenError`], for a `match`.
///
/// For what each kind leads to, see the table at [`TokenError`].
///
/// # Examples
///
/// ```
/// use tower_refresh::{TokenError, TokenErrorKind};
///
/// let error = TokenError::transient("connection refused");
/// assert_eq!(error.kind(), TokenErrorKind::Transient);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum TokenErrorKind {
    /// A later attempt may succeed.
    Transient,
    /// The request was sent and its outcome is unknown.
    Ambiguous,
    /// The user must log in again.
    Denied,
    /// The configuration must be corrected.
    Misconfigured,
}

impl TokenErrorKind {
    /// Returns the name in snake case, for logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Ambiguous => "ambiguous",
            Self::Denied => "denied",
            Self::Misconfigured => "misconfigured",
        }
    }
}

impl TokenError {
    /// Creates an error for a failure that may not repeat: the token endpoint was not reached, or is overloaded.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::TokenError;
    ///
    /// let error = TokenError::transient("the vault is overloaded");
    /// assert!(error.is_transient());
    /// ```
    pub fn transient(error: impl Into<BoxError>) -> Self {
        Self::new(TokenErrorKind::Transient, error.into())
    }

    /// Creates a [transient](Self::is_transient) error for a token endpoint that was not reached, so that nothing was sent:
    /// its name does not resolve, or it refuses the connection.
    ///
    /// While requests need a token, the source is asked again after the shortest backoff, however often it failed.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::TokenError;
    ///
    /// let error = TokenError::unsent("the name of the token endpoint does not resolve");
    /// assert!(error.is_transient());
    /// ```
    pub fn unsent(error: impl Into<BoxError>) -> Self {
        let mut error = Self::transient(error);
        error.edit().is_unsent = true;
        error
    }

    /// Creates an error for a request that was sent and whose outcome is unknown: the refresh token may be spent.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::TokenError;
    ///
    /// let error = TokenError::ambiguous("the connection was closed before the response");
    /// assert!(error.is_ambiguous());
    /// ```
    pub fn ambiguous(error: impl Into<BoxError>) -> Self {
        Self::new(TokenErrorKind::Ambiguous, error.into())
    }

    /// Creates an error for a grant that the token endpoint no longer accepts: the user must log in again.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::TokenError;
    ///
    /// let error = TokenError::denied("the refresh token has expired").with_code("invalid_grant");
    /// assert!(error.is_denied());
    /// ```
    pub fn denied(error: impl Into<BoxError>) -> Self {
        Self::new(TokenErrorKind::Denied, error.into())
    }

    /// Creates an error for a configuration that must be corrected.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::TokenError;
    ///
    /// let error = TokenError::misconfigured("the variable CLIENT_ID is not set");
    /// assert_eq!(error.to_string(), "invalid configuration: the variable CLIENT_ID is not set");
    /// ```
    pub fn misconfigured(error: impl Into<BoxError>) -> Self {
        Self::new(TokenErrorKind::Misconfigured, error.into())
    }

    fn new(kind: TokenErrorKind, error: BoxError) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                error: error.into(),
                code: None,
                description: None,
                retry_after: None,
                held_back_for: None,
                is_unsent: false,
                is_session_over: false,
                is_of_outage: false,
                is_of_other_source: false,
            }),
            next: None,
        }
    }

    /// Sets the error code of the token endpoint (RFC 6749 §5.2), such as `invalid_grant`.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.edit().code = Some(code.into());
        self
    }

    /// Sets the error description of the token endpoint (RFC 6749 §5.2).
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.edit().description = Some(description.into());
        self
    }

    /// Sets how long the token endpoint asked clients to wait (`Retry-After`, RFC 9110 §10.2.3).
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.edit().retry_after = Some(retry_after);
        self
    }

    /// Changes the kind to transient, once the outcome is known.
    pub(crate) fn into_transient(mut self) -> Self {
        self.edit().kind = TokenErrorKind::Transient;
        self
    }

    /// Changes the kind to denied: only the user can provide another proof.
    #[cfg(feature = "oauth2")]
    pub(crate) fn into_denied(mut self) -> Self {
        self.edit().kind = TokenErrorKind::Denied;
        self
    }

    /// Changes the kind to ambiguous: the error covers only a part of what was sent.
    pub(crate) fn into_ambiguous(mut self) -> Self {
        let inner = self.edit();
        inner.kind = TokenErrorKind::Ambiguous;
        inner.is_unsent = false;
        self
    }

    /// Marks the request as not sent. Its outcome is known then, and no refresh token was refused.
    pub(crate) fn into_unsent(mut self) -> Self {
        let inner = self.edit();
        inner.is_unsent = true;
        if inner.kind == TokenErrorKind::Ambiguous {
            inner.kind = TokenErrorKind::Transient;
        }
        self
    }

    /// Marks the request as sent.
    pub(crate) fn into_sent(mut self) -> Self {
        self.edit().is_unsent = false;
        self
    }

    /// Notes that nothing was asked, because the token endpoint fails for other credentials.
    pub(crate) fn of_outage(mut self) -> Self {
        self.edit().is_of_outage = true;
        self
    }

    /// Notes that nothing was sent, because the refresh token may be sent again only after this time.
    pub(crate) fn held_back(mut self, time: Duration) -> Self {
        self.edit().held_back_for = Some(time);
        self
    }

    pub(crate) fn held_back_for(&self) -> Option<Duration> {
        self.inner.held_back_for
    }

    pub(crate) fn is_of_outage(&self) -> bool {
        self.inner.is_of_outage
    }

    /// Notes that it is about another source, which this source has asked. It proves nothing about the token endpoint of this one, and
    /// holds back no refresh token of it.
    pub(crate) fn of_other_source(mut self) -> Self {
        let inner = self.edit();
        inner.is_of_other_source = true;
        inner.held_back_for = None;
        self
    }

    pub(crate) fn is_of_other_source(&self) -> bool {
        self.inner.is_of_other_source
    }

    /// Marks the session of the request as ended.
    pub(crate) fn of_ended_session(mut self) -> Self {
        self.edit().is_session_over = true;
        self.into_unsent()
    }

    /// Returns whether the server refused what this source sent.
    pub(crate) fn is_refusal(&self) -> bool {
        self.is_denied() && !self.inner.is_unsent
    }

    /// Replaces the wrapped error, and keeps kind, code and all else.
    pub(crate) fn wrapped_as(mut self, error: impl Into<BoxError>) -> Self {
        self.edit().error = error.into().into();
        self
    }

    /// Sets when the source is asked again.
    pub(crate) fn with_next(mut self, next: NextAttempt) -> Self {
        self.next = Some(next);
        self
    }

    /// Marks the failure as new: a source may pass on an error that other credentials remember.
    pub(crate) fn without_next(mut self) -> Self {
        self.next = None;
        self
    }

    /// Returns whether nothing was sent to the token endpoint.
    pub(crate) fn is_unsent(&self) -> bool {
        self.inner.is_unsent
    }

    /// Returns whether the denial may end without a log-in: the user must do something first, or conditional access must change
    /// (OpenID Connect Core §3.1.2.6). The refresh token is still valid.
    pub(crate) fn is_conditional_denial(&self) -> bool {
        self.is_denied()
            && matches!(
                self.code(),
                Some(
                    "interaction_required"
                        | "login_required"
                        | "consent_required"
                        | "account_selection_required"
                )
            )
    }

    /// Returns the reason why a request was not answered with a token that the server accepts, or `None` if it is another one.
    ///
    /// The reason is the error, or one of its [sources](Error::source) if another layer has wrapped it, or an extension of the
    /// response that rejects the token. Only the error itself proves that the request was never sent.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::Response;
    /// use tower_refresh::{BoxError, TokenError};
    ///
    /// fn must_log_in<B>(result: &Result<Response<B>, BoxError>) -> bool {
    ///     TokenError::of(result).is_some_and(TokenError::must_log_in)
    /// }
    ///
    /// let mut rejected = Response::new(());
    /// assert!(!must_log_in(&Ok(rejected.clone())));
    /// rejected.extensions_mut().insert(TokenError::denied("the refresh token has expired"));
    /// assert!(must_log_in(&Ok(rejected)));
    /// ```
    pub fn of<B>(result: &Result<Response<B>, BoxError>) -> Option<&Self> {
        match result {
            Ok(response) => response.extensions().get(),
            Err(error) => Self::find(&**error),
        }
    }

    /// Returns the first `TokenError` among an error and its [sources](Error::source), such as those of a `tonic::Status`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::error::Error;
    /// use std::fmt;
    /// use tower_refresh::TokenError;
    ///
    /// #[derive(Debug)]
    /// struct Unavailable(TokenError);
    ///
    /// impl fmt::Display for Unavailable {
    ///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    ///         f.write_str("the catalogue is unavailable")
    ///     }
    /// }
    ///
    /// impl Error for Unavailable {
    ///     fn source(&self) -> Option<&(dyn Error + 'static)> {
    ///         Some(&self.0)
    ///     }
    /// }
    ///
    /// let error = Unavailable(TokenError::denied("the refresh token has expired"));
    /// assert!(TokenError::find(&error).is_some_and(TokenError::must_log_in));
    /// ```
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut errors = iter::successors(Some(error), |&error| error.source());
        errors.find_map(|error| error.downcast_ref())
    }

    fn edit(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.inner)
    }

    /// Returns the kind.
    pub fn kind(&self) -> TokenErrorKind {
        self.inner.kind
    }

    /// Returns whether a later attempt may succeed.
    pub fn is_transient(&self) -> bool {
        self.inner.kind == TokenErrorKind::Transient
    }

    /// Returns whether a request was sent and its outcome is unknown.
    pub fn is_ambiguous(&self) -> bool {
        self.inner.kind == TokenErrorKind::Ambiguous
    }

    /// Returns whether the user must log in again, unless the [session is over](Self::is_session_over).
    pub fn is_denied(&self) -> bool {
        self.inner.kind == TokenErrorKind::Denied
    }

    /// Returns whether the user must log in again.
    ///
    /// For the error of a request ([`TokenError::of`]), now. An [`Event`](crate::Event) and
    /// [`Status::error`](crate::Status::error) contain the error as soon as a refresh is denied, while the access token may still
    /// work: a time to warn the user, and not to interrupt.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::TokenError;
    ///
    /// assert!(TokenError::denied("the refresh token has expired").must_log_in());
    /// assert!(!TokenError::transient("connection refused").must_log_in());
    /// ```
    pub fn must_log_in(&self) -> bool {
        self.is_denied() && !self.is_session_over()
    }

    /// Returns whether the request was made before a log-in or a log-out, so that it must not be sent with the
    /// current tokens.
    ///
    /// Such an error is also [denied](Self::is_denied), so that no layer repeats the request. The user need not log in.
    pub fn is_session_over(&self) -> bool {
        self.inner.is_session_over
    }

    /// Returns whether the configuration must be corrected.
    pub fn is_misconfigured(&self) -> bool {
        self.inner.kind == TokenErrorKind::Misconfigured
    }

    /// Returns the error code of the token endpoint (RFC 6749 §5.2), such as `invalid_grant`.
    pub fn code(&self) -> Option<&str> {
        self.inner.code.as_deref()
    }

    /// Returns the error description of the token endpoint (RFC 6749 §5.2).
    pub fn description(&self) -> Option<&str> {
        self.inner.description.as_deref()
    }

    /// Returns how long the token endpoint asked clients to wait (`Retry-After`, RFC 9110 §10.2.3).
    pub fn retry_after(&self) -> Option<Duration> {
        self.inner.retry_after
    }

    /// Returns whether this is the error of an earlier attempt, and the [`Credentials`](crate::Credentials) did not ask the source
    /// again.
    pub fn is_remembered(&self) -> bool {
        self.next.is_some_and(|next| next.is_remembered)
    }

    /// Returns the time until the [`Credentials`](crate::Credentials) ask the source again, counted from when the error was
    /// returned, or `None` if that is not known or not before the credentials change. For the error of a rejection backoff, see
    /// [`Status::rejection_backoff`](crate::Status::rejection_backoff).
    pub fn asked_again_in(&self) -> Option<Duration> {
        self.next?.after
    }

    /// Returns the wrapped error.
    pub fn get_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.inner.error
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.inner.kind {
            TokenErrorKind::Transient => "no token for now",
            TokenErrorKind::Ambiguous => "outcome of the token request unknown",
            TokenErrorKind::Denied => "token denied",
            TokenErrorKind::Misconfigured => "invalid configuration",
        };
        write!(f, "{kind}: {}", self.inner.error)?;
        if let Some(code) = self.code() {
            write!(f, ": {code}")?;
        }
        if let Some(description) = self.description() {
            write!(f, " ({description})")?;
        }
        if let Some(next) = &self.next {
            write!(f, "; {next}")?;
        }
        Ok(())
    }
}

impl fmt::Display for NextAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remembered = if self.is_remembered { "remembered: " } else { "" };
        match self.after {
            Some(after) if after < Duration::from_secs(1) => {
                write!(f, "{remembered}the token source is asked again in less than a second")
            }
            // Rounded up: a request after this time asks it.
            Some(after) => {
                let seconds = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0));
                write!(f, "{remembered}the token source is asked again in {seconds}s")
            }
            None => write!(
                f,
                "{remembered}the token source is not asked again before the credentials change"
            ),
        }
    }
}

/// As in [`Status`](crate::Status): the kind, the message and the code.
#[cfg(feature = "serde")]
impl serde::Serialize for TokenError {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;

        let mut shown = serializer.serialize_struct("TokenError", 3)?;
        shown.serialize_field("kind", &self.kind())?;
        shown.serialize_field("message", &self.to_string())?;
        shown.serialize_field("code", &self.code())?;
        shown.end()
    }
}

impl fmt::Debug for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenError")
            .field("kind", &self.inner.kind)
            .field("error", &self.inner.error)
            .field("code", &self.inner.code)
            .field("description", &self.inner.description)
            .field("retry_after", &self.inner.retry_after)
            .field("next", &self.next)
            .finish()
    }
}

// As with `std::io::Error`: `Display` shows the wrapped error, so that `source` is the cause of that one.
impl Error for TokenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.inner.error.source()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn message_has_the_kind_the_code_and_the_description() {
        let error = TokenError::denied("the token endpoint refused the refresh token")
            .with_code("invalid_grant")
            .with_description("expired");
        assert!(error.is_denied());
        assert_eq!(
            error.to_string(),
            "token denied: the token endpoint refused the refresh token: invalid_grant (expired)"
        );
    }

    /// N9
    #[test]
    fn remembered_error_keeps_its_causes_and_adds_when_the_source_is_asked() {
        #[derive(Debug)]
        struct Down(io::Error);
        impl fmt::Display for Down {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("down")
            }
        }
        impl Error for Down {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }

        let error = TokenError::transient(Down(io::Error::other("refused"))).with_code("busy");
        let next = NextAttempt { is_remembered: true, after: Some(Duration::from_millis(4200)) };
        let remembered = error.clone().with_next(next);
        assert!(remembered.is_remembered() && !error.is_remembered());
        assert_eq!(
            remembered.to_string(),
            "no token for now: down: busy; remembered: the token source is asked again in 5s"
        );
        let next = NextAttempt { is_remembered: false, after: Some(Duration::from_millis(230)) };
        assert_eq!(
            error.clone().with_next(next).to_string(),
            "no token for now: down: busy; the token source is asked again in less than a second"
        );
        assert!(Arc::ptr_eq(&remembered.inner, &error.inner));
        assert_eq!(remembered.source().unwrap().to_string(), "refused");
    }

    #[test]
    fn source_does_not_repeat_the_wrapped_error() {
        let error = TokenError::transient(std::io::Error::other("connection refused"));
        assert_eq!(error.to_string(), "no token for now: connection refused");
        assert!(error.source().is_none());
        assert!(error.get_ref().is::<std::io::Error>());
    }
}
