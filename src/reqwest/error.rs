//! The error of a client.

use std::error::Error;
use std::fmt;

use super::response::without_query;
use crate::error::{BoxError, TokenError};

/// The error of a request of a [`ReqwestClient`](super::ReqwestClient).
///
/// It converts from `reqwest::Error`, so that a function that sends a request and reads the response needs one error type. The
/// [`TokenError`] is its [source](Error::source). Message and source of the other variants are those of the error within.
///
/// Send with [`send_ok`](super::RequestBuilder::send_ok) to find a denied log-in here. The chain `send().await?.error_for_status()?`
/// of reqwest loses the reason of a 401, because reqwest's error has no place for it.
///
/// # Examples
///
/// ```
/// use tower_refresh::reqwest::{ReqwestClient, ReqwestError};
///
/// async fn note(client: &ReqwestClient) -> Result<String, ReqwestError> {
///     Ok(client.get("https://api.example.com/v1/notes/1").send_ok().await?.text().await?)
/// }
///
/// fn advice(error: &ReqwestError) -> &'static str {
///     match error {
///         ReqwestError::Token(error) if error.must_log_in() => "log in",
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
    /// There is no token that the server accepts. [`send`](super::RequestBuilder::send) returns this error only if the request was
    /// never sent, and [`send_ok`](super::RequestBuilder::send_ok) also if the response rejects the token and there is no newer one.
    Token(TokenError),
    /// The request failed in reqwest, the response could not be read, or its status is an error.
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
    ///     ReqwestError::token_error(result).is_some_and(|error| error.must_log_in())
    /// }
    /// ```
    pub fn token_error(result: &Result<reqwest::Response, Self>) -> Option<&TokenError> {
        match result {
            Ok(response) => response.extensions().get(),
            Err(error) => TokenError::find(error),
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
            Self::Token(_) => f.write_str("the request has no valid access token"),
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
