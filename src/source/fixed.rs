//! A token that does not change.

use super::{Cause, Renewal, TokenSource};
use crate::error::TokenError;
use crate::token::{AccessToken, TokenSet};

/// A source with one fixed token, which never expires: an API key, a personal access token.
///
/// A server that rejects it has the last word: there is no other one, which is [denied](TokenError::is_denied) until the
/// program itself brings a new token with [`Credentials::replace`](crate::Credentials::replace).
///
/// ```
/// use tower_refresh::StaticToken;
///
/// let source = StaticToken::new("sesame")?;
/// # Ok::<(), tower_refresh::TokenError>(())
/// ```
#[derive(Clone, Debug)]
pub struct StaticToken {
    tokens: TokenSet,
}

impl StaticToken {
    /// Makes a source of a token.
    ///
    /// # Errors
    ///
    /// As [`AccessToken::new`].
    pub fn new(token: impl AsRef<str>) -> Result<Self, TokenError> {
        AccessToken::new(token).map(Self::from)
    }
}

impl From<AccessToken> for StaticToken {
    fn from(token: AccessToken) -> Self {
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
    async fn a_fixed_token_is_given_until_a_newer_one_is_wanted() {
        let source = StaticToken::new("sesame").unwrap();
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
