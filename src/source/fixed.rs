//! A token that does not change.

use super::{Cause, Renewal, TokenSource};
use crate::error::TokenError;
use crate::token::{AccessToken, TokenSet};

/// A source with one fixed token, such as an API key or a personal access token.
///
/// The token never expires. If a server rejects it, the source is [denied](TokenError::is_denied) until the application provides a
/// new token with [`Credentials::log_in`](crate::Credentials::log_in).
///
/// # Examples
///
/// ```
/// use tower_refresh::StaticToken;
///
/// let source = StaticToken::new("sesame".parse()?);
/// # Ok::<(), tower_refresh::TokenError>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "api_key")]
pub struct StaticToken {
    tokens: TokenSet,
}

impl StaticToken {
    /// Creates a source with this token.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{AccessToken, Credentials, StaticToken};
    ///
    /// let token = AccessToken::new("sesame")?;
    /// let credentials = Credentials::new(StaticToken::new(token));
    /// # Ok::<(), tower_refresh::TokenError>(())
    /// ```
    pub fn new(token: AccessToken) -> Self {
        Self { tokens: TokenSet::new(token) }
    }
}

impl TokenSource for StaticToken {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        match renewal.cause() {
            Cause::Rejected => Err(TokenError::denied(
                "the token is fixed and a server rejected it: configure another one",
            )),
            Cause::Forced => Err(TokenError::denied(
                "the token is fixed and there is no newer one: configure another one",
            )),
            Cause::Missing | Cause::Expiring | Cause::Expired => Ok(self.tokens.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fixed_token_is_returned_until_a_newer_one_is_needed() {
        let source = StaticToken::new("sesame".parse().unwrap());
        for cause in [Cause::Missing, Cause::Expiring, Cause::Expired] {
            let tokens = source.fetch(Renewal::new(cause)).await.unwrap();
            assert_eq!(tokens.access_token().expose_secret(), "sesame");
            assert!(tokens.expiry().is_none());
        }
        for cause in [Cause::Rejected, Cause::Forced] {
            let error = source.fetch(Renewal::new(cause)).await.unwrap_err();
            assert!(error.is_denied() && error.to_string().contains("is fixed"));
        }
        assert!(!format!("{source:?}").contains("sesame"));
    }
}
