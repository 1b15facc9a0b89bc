//! Why there is no token.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Request;

use crate::token::RefreshToken;

/// A boxed error, as tower's own middleware returns it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Makes the error that the caller of this request gets in place of an answer: for gRPC, one that tonic's clients know.
pub(crate) fn for_caller<B>(request: &Request<B>, error: impl Into<BoxError>) -> BoxError {
    #[cfg(feature = "tonic")]
    return crate::grpc::for_caller(request.headers(), error.into());
    #[cfg(not(feature = "tonic"))]
    {
        let _ = request;
        error.into()
    }
}

/// Why a [`TokenSource`](crate::TokenSource) has no token to give.
///
/// One of four kinds, which decide what happens next:
///
/// | kind | what it means | what the [`Credentials`](crate::Credentials) do |
/// |---|---|---|
/// | [transient](Self::transient) | may work later | ask again after a backoff, a short one while requests have no token |
/// | [ambiguous](Self::ambiguous) | was sent, and nobody knows whether it counted | ask again only when the access token at hand is used up |
/// | [denied](Self::denied) | somebody must log in again | do not ask again until the credentials change, or every five minutes if the source [makes a new proof](crate::SourceInfo::fresh_proof) for each attempt, or if the code is `interaction_required`, `login_required`, `consent_required` or `account_selection_required` |
/// | [misconfigured](Self::misconfigured) | the configuration must be corrected | ask again every five minutes |
///
/// Cloning is cheap: everybody who waited for the same refresh gets the same error.
///
/// # Secrets
///
/// What the crate itself puts here never contains a token, a client secret, a body or a URL's query. What your own
/// source puts here is shown as it is.
///
/// # Remembered errors
///
/// After a failure the source is left alone for a while, and requests get the same error again at once. Its message then states
/// that it [is remembered](Self::is_remembered) and when the source is [asked again](Self::asked_again_in); kind, code,
/// description and causes are those of the failure.
#[derive(Clone)]
pub struct TokenError {
    inner: Arc<Inner>,
    next: Option<NextAttempt>,
}

/// When the source is asked again. Beside the shared part, so that to note it allocates nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NextAttempt {
    /// Whether the failure was one of an earlier request.
    pub(crate) is_remembered: bool,
    /// After this long; `None` if not before the credentials change.
    pub(crate) after: Option<Duration>,
}

#[derive(Clone)]
#[cfg_attr(not(feature = "store"), allow(dead_code, reason = "the successor is for a store"))]
struct Inner {
    kind: Kind,
    error: Arc<dyn Error + Send + Sync>,
    code: Option<Cow<'static, str>>,
    description: Option<String>,
    retry_after: Option<Duration>,
    /// The refresh token that the server issued with an answer that is of no other use.
    successor: Option<RefreshToken>,
    /// Whether the refresh token is known not to have been sent, so that the error is not about it.
    is_unsent: bool,
    /// Whether a log-in or a log-out has ended the session of the request.
    is_session_over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Transient,
    Ambiguous,
    Denied,
    Misconfigured,
}

impl TokenError {
    /// Makes an error for what may work later: the token endpoint was not reached, or said "not now".
    pub fn transient(error: impl Into<BoxError>) -> Self {
        Self::new(Kind::Transient, error.into())
    }

    /// Creates a [transient](Self::is_transient) error for a token endpoint that was not reached: nothing was sent, such as when
    /// its name does not resolve or it refuses the connection.
    ///
    /// While requests need a token, the source is asked again after the shortest backoff, however often it failed.
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

    /// Makes an error for a request that was sent and whose outcome nobody knows: the refresh token may be spent.
    pub fn ambiguous(error: impl Into<BoxError>) -> Self {
        Self::new(Kind::Ambiguous, error.into())
    }

    /// Makes an error for a grant that the token endpoint no longer accepts: somebody must log in again.
    pub fn denied(error: impl Into<BoxError>) -> Self {
        Self::new(Kind::Denied, error.into())
    }

    /// Makes an error for a set-up that a human must mend.
    pub fn misconfigured(error: impl Into<BoxError>) -> Self {
        Self::new(Kind::Misconfigured, error.into())
    }

    fn new(kind: Kind, error: BoxError) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                error: error.into(),
                code: None,
                description: None,
                retry_after: None,
                successor: None,
                is_unsent: false,
                is_session_over: false,
            }),
            next: None,
        }
    }

    /// Adds the error code that the token endpoint gave (RFC 6749 §5.2), such as `invalid_grant`.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.edit().code = Some(code.into());
        self
    }

    /// Adds the description that the token endpoint gave (RFC 6749 §5.2).
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.edit().description = Some(description.into());
        self
    }

    /// Adds how long the token endpoint asked to be left alone (RFC 9110 §10.2.3).
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.edit().retry_after = Some(retry_after);
        self
    }

    /// Returns the error as one that may work later: the unknown has become known.
    #[cfg(feature = "oauth2")]
    pub(crate) fn into_transient(mut self) -> Self {
        self.edit().kind = Kind::Transient;
        self
    }

    /// Returns the error as one of unknown outcome: what it says does not cover all that was sent.
    #[cfg(feature = "oauth2")]
    pub(crate) fn into_ambiguous(mut self) -> Self {
        let inner = self.edit();
        inner.kind = Kind::Ambiguous;
        inner.is_unsent = false;
        self
    }

    /// Returns the error of a request that was not sent: nothing is unknown about its refresh token, and nothing was refused.
    pub(crate) fn into_unsent(mut self) -> Self {
        let inner = self.edit();
        inner.is_unsent = true;
        inner.successor = None;
        if inner.kind == Kind::Ambiguous {
            inner.kind = Kind::Transient;
        }
        self
    }

    /// Returns the error as one of a fetch that sent something after all.
    pub(crate) fn into_sent(mut self) -> Self {
        self.edit().is_unsent = false;
        self
    }

    /// Returns the error of a request whose session is over.
    pub(crate) fn of_ended_session(mut self) -> Self {
        self.edit().is_session_over = true;
        self.into_unsent()
    }

    /// Returns whether the server refused what it was sent: a refusal of something else is not about the refresh token.
    pub(crate) fn is_refusal(&self) -> bool {
        self.is_denied() && !self.inner.is_unsent
    }

    /// Adds the refresh token that took the place of the one that was spent, all the same.
    #[cfg(feature = "oauth2")]
    pub(crate) fn with_successor(mut self, successor: RefreshToken) -> Self {
        self.edit().successor = Some(successor);
        self
    }

    /// Returns the refresh token that took the place of the one that was spent, all the same.
    #[cfg(feature = "store")]
    pub(crate) fn successor(&self) -> Option<&RefreshToken> {
        self.inner.successor.as_ref()
    }

    /// Returns an error of the same kind, code and all else, that is made of another.
    pub(crate) fn told_as(mut self, error: impl Into<BoxError>) -> Self {
        self.edit().error = error.into().into();
        self
    }

    /// Adds when the source is asked again.
    pub(crate) fn with_next(mut self, next: NextAttempt) -> Self {
        self.next = Some(next);
        self
    }

    /// Returns the error as one of a new failure: a source may have got it from other credentials, which remember it.
    pub(crate) fn without_next(mut self) -> Self {
        self.next = None;
        self
    }

    /// Returns whether nothing was sent to the token endpoint.
    pub(crate) fn is_unsent(&self) -> bool {
        self.inner.is_unsent
    }

    /// Returns whether the server denies the grant for now and not for good: the user must do something first, or conditional
    /// access must change (OpenID Connect Core §3.1.2.6). The refresh token still stands.
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

    fn edit(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.inner)
    }

    /// Returns whether it may work later.
    pub fn is_transient(&self) -> bool {
        self.inner.kind == Kind::Transient
    }

    /// Returns whether a request was sent whose outcome nobody knows.
    pub fn is_ambiguous(&self) -> bool {
        self.inner.kind == Kind::Ambiguous
    }

    /// Returns whether somebody must log in again.
    pub fn is_denied(&self) -> bool {
        self.inner.kind == Kind::Denied
    }

    /// Returns whether the request was made before a log-in or a log-out, so that it must not be sent with the tokens that
    /// are current now.
    ///
    /// Such an error is [denied](Self::is_denied) as well, so that no layer repeats the request, but asks for no log-in.
    pub fn is_session_over(&self) -> bool {
        self.inner.is_session_over
    }

    /// Returns whether a human must mend the set-up.
    pub fn is_misconfigured(&self) -> bool {
        self.inner.kind == Kind::Misconfigured
    }

    /// Returns the error code that the token endpoint gave (RFC 6749 §5.2), such as `invalid_grant`.
    pub fn code(&self) -> Option<&str> {
        self.inner.code.as_deref()
    }

    /// Returns the description that the token endpoint gave (RFC 6749 §5.2).
    pub fn description(&self) -> Option<&str> {
        self.inner.description.as_deref()
    }

    /// Returns how long the token endpoint asked to be left alone (RFC 9110 §10.2.3).
    pub fn retry_after(&self) -> Option<Duration> {
        self.inner.retry_after
    }

    /// Returns whether the [`Credentials`](crate::Credentials) return the error of an earlier attempt, and did not ask the source
    /// again.
    pub fn is_remembered(&self) -> bool {
        self.next.is_some_and(|next| next.is_remembered)
    }

    /// Returns the time until the [`Credentials`](crate::Credentials) ask the source again, counted from when the error was
    /// returned; `None` if that is not known, or not before the credentials change.
    pub fn asked_again_in(&self) -> Option<Duration> {
        self.next?.after
    }

    /// Returns the error that this one was made of.
    pub fn get_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.inner.error
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.inner.kind {
            Kind::Transient => "no token for now",
            Kind::Ambiguous => "outcome of the token request unknown",
            Kind::Denied => "token denied",
            Kind::Misconfigured => "token set-up is wrong",
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
            Some(after) => write!(f, "{remembered}the token source is asked again in {after:.1?}"),
            None => write!(
                f,
                "{remembered}the token source is not asked again before the credentials change"
            ),
        }
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

// As with `std::io::Error`: the error it was made of is shown by `Display`, so that its source is the next in the chain.
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
    fn says_what_it_is_and_what_the_server_said() {
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
            "no token for now: down: busy; remembered: the token source is asked again in 4.2s"
        );
        assert!(Arc::ptr_eq(&remembered.inner, &error.inner));
        assert_eq!(remembered.source().unwrap().to_string(), "refused");
    }

    #[test]
    fn does_not_repeat_its_cause() {
        let error = TokenError::transient(std::io::Error::other("connection refused"));
        assert_eq!(error.to_string(), "no token for now: connection refused");
        assert!(error.source().is_none());
        assert!(error.get_ref().is::<std::io::Error>());
    }
}
