//! Logging out at the server.

use std::future::ready;

use super::endpoint::TokenEndpoint;
use super::request::Parameters;
use super::response::{self, Answer, Context};
use crate::error::TokenError;
use crate::source::FetchedFor;
use crate::token::TokenSet;

/// Revokes tokens (RFC 7009), as an application does when its user logs out.
///
/// ```
/// use tower_refresh::TokenSet;
/// use tower_refresh::oauth2::{Revocation, TokenEndpoint};
///
/// # async fn example(endpoint: TokenEndpoint, tokens: TokenSet) -> Result<(), tower_refresh::TokenError> {
/// // The same client and the same client authentication, at another URL.
/// let revocation = Revocation::new(endpoint.with_url("https://as.example.com/revoke")?);
/// revocation.revoke(&tokens).await?;
/// # Ok(())
/// # }
/// ```
///
/// Call [`Credentials::forget`](crate::Credentials::forget) first, so that nobody renews the tokens meanwhile.
#[derive(Clone, Debug)]
pub struct Revocation {
    endpoint: TokenEndpoint,
}

impl Revocation {
    /// Makes a revocation of an endpoint whose URL is that of the revocation endpoint (RFC 7009 §2).
    pub fn new(endpoint: TokenEndpoint) -> Self {
        Self { endpoint }
    }

    /// Revokes the refresh token, if there is one, and then the access token.
    ///
    /// A token that is no longer valid counts as revoked (RFC 7009 §2.2). A server need not be able to revoke access
    /// tokens; that one cannot is no error.
    ///
    /// # Errors
    ///
    /// The first of the two that failed; the other was tried all the same. Nothing is
    /// [ambiguous](TokenError::is_ambiguous) here: what failed may be tried again.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future drops the request that is under way; whether it counted is then not known. It may be called
    /// again.
    pub async fn revoke(&self, tokens: &TokenSet) -> Result<(), TokenError> {
        // The refresh token first: with it the server usually revokes the access tokens as well (RFC 7009 §2.1).
        let refresh = match tokens.refresh_token() {
            Some(token) => self.send(token.expose_secret(), "refresh_token").await,
            None => Ok(()),
        };
        let access = self.send(tokens.access_token().expose_secret(), "access_token").await;
        let access = match access {
            Err(error) if error.code() == Some("unsupported_token_type") => Ok(()),
            access => access,
        };
        refresh.and(access)
    }

    async fn send(&self, token: &str, hint: &str) -> Result<(), TokenError> {
        let mut parameters = Parameters::default();
        parameters.push("token", token);
        parameters.push("token_type_hint", hint);
        let nothing_more = ready(Ok(Parameters::default()));
        self.endpoint.post(parameters, nothing_more, FetchedFor::current(), read).await
    }
}

/// RFC 7009 §2.2: 200 is success, whatever the body.
fn read(answer: &Answer, context: Context<'_>) -> Result<(), TokenError> {
    if answer.status.is_success() { Ok(()) } else { Err(response::refusal(answer, context)) }
}
