//! The error of a client.

use std::error::Error;
use std::fmt;
use std::iter;

use super::response::without_query;
use crate::error::{BoxError, TokenError};

/// The error of a request of a [`ReqwestClient`](super::ReqwestClient).
///
/// It converts from `reqwest::Error`, so that a function that sends a request and reads the response needs one error type. The
/// [`TokenError`] is its [source](Error::source). Message and source of the other variants are those of the error within.
///
/// # Examples
///
/// ```
/// use tower_refresh::reqwest::ReqwestError;
///
/// fn advice(error: &ReqwestError) -> &'static str {
///     match error {
///         ReqwestError::Token(error) if error.is_denied() && !error.is_session_over() => "log in",
///         ReqwestError::Http(error) if error.is_timeout() => "try again",
///         _ => "try again later",
///     }
/// }
/// # let error = tower_refresh::TokenError::denied("expired");
/// # assert_eq!(advice(&ReqwestError::Token(error)), "log in");
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ReqwestError {
    /// There is no token: the request was never sent.
    Token(TokenError),
    /// The request failed in reqwest, or the response could not be read.
    Http(reqwest::Error),
    /// An error of another layer, or the token for the second attempt was withdrawn before it could be sent.
    Other(BoxError),
}

impl ReqwestError {
    /// Returns the reason why there is no token, of a request that failed and of one whose response rejects the token.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::reqwest::ReqwestError;
    ///
    /// fn must_log_in(result: &Result<reqwest::Response, ReqwestError>) -> bool {
    ///     let reason = ReqwestError::token_error(result);
    ///     reason.is_some_and(|error| error.is_denied() && !error.is_session_over())
    /// }
    /// ```
    pub fn token_error(result: &Result<reqwest::Response, Self>) -> Option<&TokenError> {
        match result {
            Ok(response) => response.extensions().get(),
            Err(error) => {
                let mut errors = iter::successors(error.source(), |&error| error.source());
                errors.find_map(|error| error.downcast_ref())
            }
        }
    }

    /// Recognises the error of a service.
    pub(super) fn of_service(error: BoxError) -> Self {
        let error = match error.downcast() {
            Ok(error) => return Self::Http(without_query(*error)),
            Err(error) => error,
        };
        match error.downcast() {
            Ok(error) => Self::Token(*error),
            Err(error) => Self::Other(error),
        }
    }
}

impl From<reqwest::Error> for ReqwestError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error)
    }
}

impl From<TokenError> for ReqwestError {
    fn from(error: TokenError) -> Self {
        Self::Token(error)
    }
}

impl fmt::Display for ReqwestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => {
                f.write_str("the request was not sent, because there is no access token")
            }
            Self::Http(error) => error.fmt(f),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl Error for ReqwestError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // A source, so that it is found in the error of reqwest-middleware as well.
            Self::Token(error) => Some(error),
            Self::Http(error) => error.source(),
            Self::Other(error) => error.source(),
        }
    }
}
