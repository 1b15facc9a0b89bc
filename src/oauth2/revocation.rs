//! Revoking tokens.

use std::future::ready;

use super::endpoint::TokenEndpoint;
use super::request::Parameters;
use super::response::{self, Answer, Context};
use crate::error::TokenError;
use crate::source::FetchedFor;
use crate::token::TokenSet;

/// Revokes tokens (RFC 7009), for example when a user logs out.
///
/// Call [`Credentials::log_out`](crate::Credentials::log_out) first, so that the tokens are not refreshed meanwhile.
///
/// # Examples
///
/// ```
/// use tower_refresh::oauth2::{Revocation, TokenEndpoint};
/// use tower_refresh::{TokenError, TokenSet};
///
/// async fn log_out(endpoint: TokenEndpoint, tokens: TokenSet) -> Result<(), TokenError> {
///     // The same client authentication, at another URL.
///     let revocation = Revocation::new(endpoint.with_url("https://as.example.com/revoke")?);
///     revocation.revoke(&tokens).await
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Revocation {
    endpoint: TokenEndpoint,
}

impl Revocation {
    /// Creates a revocation from an endpoint with the URL of the revocation endpoint (RFC 7009 §2).
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::TokenError;
    /// use tower_refresh::oauth2::{Revocation, TokenEndpoint};
    ///
    /// fn revocation(endpoint: &TokenEndpoint) -> Result<Revocation, TokenError> {
    ///     Ok(Revocation::new(endpoint.clone().with_url("https://as.example.com/revoke")?))
    /// }
    /// ```
    pub fn new(endpoint: TokenEndpoint) -> Self {
        Self { endpoint }
    }

    /// Revokes the refresh token, if there is one, and then the access token.
    ///
    /// A token that is no longer valid counts as revoked (RFC 7009 §2.2). A server that cannot revoke access tokens is not an
    /// error.
    ///
    /// # Errors
    ///
    /// The error of the refresh token, or else that of the access token. Both tokens are tried. No error is
    /// [ambiguous](TokenError::is_ambiguous): the revocation can be repeated.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future drops the request in flight, and its outcome is then unknown. The revocation can be repeated.
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
        let sent = self.endpoint.post(parameters, nothing_more, FetchedFor::current(), read).await;
        // A dialect may call the refresh token `token` too, but a revocation spends none.
        sent.map_err(|error| if error.is_ambiguous() { error.into_transient() } else { error })
    }
}

/// Reads an answer: 200 is success with any body (RFC 7009 §2.2).
fn read(answer: &Answer, context: Context<'_>) -> Result<(), TokenError> {
    if answer.status.is_success() { Ok(()) } else { Err(response::refusal(answer, context)) }
}
