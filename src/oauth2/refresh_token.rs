//! The refresh token grant.

use std::future::Future;

use super::endpoint::TokenEndpoint;
use super::request::{Parameters, from_previous};
use super::response;
use super::token_request::{TokenRequest, setters};
use crate::error::TokenError;
use crate::source::{Missing, Renewal, SourceInfo, TokenSource};
use crate::token::{RefreshToken, TokenSet};

/// The refresh token grant (RFC 6749 §6).
///
/// It sends the refresh token that [the renewal names](Renewal::refresh_token): that of the current token set, and at first the one
/// it was created with. Which one that is, and whether it may be sent, is decided by the [`Credentials`](crate::Credentials), so
/// that one refresh token is spent once. Share the credentials rather than clones of the grant: two credentials do not know of
/// each other.
///
/// Fields that an answer leaves out keep their last value: the refresh token, the scope, the id token, and
/// [extra fields](super::Fields::extra).
///
/// # Examples
///
/// ```
/// # use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
/// # fn example(endpoint: TokenEndpoint) -> RefreshTokenGrant {
/// let refresh_token = std::env::var("REFRESH_TOKEN").unwrap_or_default();
/// RefreshTokenGrant::new(endpoint, refresh_token).scope("mail contacts")
/// # }
/// ```
///
/// # A refresh token is spent once
///
/// The configured refresh token is not sent again once the server has replaced or refused it, nor after the application
/// logged in or out ([`Credentials::log_in`](crate::Credentials::log_in), [`log_out`](crate::Credentials::log_out)). The user
/// must then log in, and the error is [denied](TokenError::is_denied). After a restart the configured token is sent again
/// unless a store (feature `store`) has recorded its fate.
///
/// If the answer to a request is lost, the refresh token may be spent, and the error is [ambiguous](TokenError::is_ambiguous). With
/// a dialect that names a [`reuse_grace`](super::Dialect::reuse_grace), it is sent again at once, one time, while that lasts.
/// Otherwise the access token is used until it expires, and then the refresh token is sent once more.
///
/// If an answer has a new refresh token and no usable access token, the new one is kept and sent the next time.
///
/// A refresh token is sent after its [stated expiry](TokenSet::refresh_token_expires_at) as well. The server decides, so that
/// a wrong clock does not log the user out.
///
/// # Claims of a challenge
///
/// Microsoft Entra rejects a token with `error="insufficient_claims"` if a new one must fulfil further claims, which the
/// challenge contains in base64. They are sent with the refresh request. By default such a challenge starts no refresh, since
/// the token is good and not enough: add [`Unauthorized::reject_error`](crate::Unauthorized::reject_error) to the layer.
///
/// ```
/// use base64::Engine as _;
/// use base64::engine::general_purpose::STANDARD;
/// use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
/// use tower_refresh::{Challenge, RefreshLayer, Renewal, TokenError, Unauthorized};
///
/// fn claims(challenge: &Challenge) -> Result<Option<String>, TokenError> {
///     if challenge.error() != Some("insufficient_claims") {
///         return Ok(None);
///     }
///     let Some(claims) = challenge.param("claims") else { return Ok(None) };
///     let claims = STANDARD.decode(claims).map_err(TokenError::misconfigured)?;
///     String::from_utf8(claims).map(Some).map_err(TokenError::misconfigured)
/// }
///
/// # fn example(endpoint: TokenEndpoint, refresh_token: String) -> Result<(), tower_refresh::BoxError> {
/// let grant = RefreshTokenGrant::new(endpoint, refresh_token).params_with(|renewal: Renewal| async move {
///     let claims = renewal.challenge().map(claims).transpose()?.flatten();
///     Ok(claims.map(|claims| ("claims", claims)))
/// });
/// let layer = RefreshLayer::new(grant)
///     .origin("https://graph.microsoft.com")?
///     .classifier(Unauthorized::default().reject_error("insufficient_claims"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RefreshTokenGrant {
    request: TokenRequest,
    configured: RefreshToken,
}

impl RefreshTokenGrant {
    /// Creates a source from an endpoint and the refresh token to begin with.
    ///
    /// If `refresh_token` is empty, no request is made until [`Credentials::log_in`](crate::Credentials::log_in) brings one.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
    ///
    /// /// Sends nothing until the user has logged in.
    /// fn logged_out(endpoint: TokenEndpoint) -> RefreshTokenGrant {
    ///     RefreshTokenGrant::new(endpoint, "")
    /// }
    /// ```
    pub fn new(endpoint: TokenEndpoint, refresh_token: impl Into<RefreshToken>) -> Self {
        Self {
            request: TokenRequest::new(endpoint, "refresh_token"),
            configured: refresh_token.into(),
        }
    }

    setters!();

    /// Returns the refresh token to send.
    fn refresh_token<'a>(&'a self, renewal: &'a Renewal) -> Result<&'a RefreshToken, TokenError> {
        match renewal.missing() {
            // A closure around this source does not pass on its facts.
            Some(Missing::None)
                if renewal.previous().is_none() && !self.configured.expose_secret().is_empty() =>
            {
                Ok(&self.configured)
            }
            _ => renewal.refresh_token(),
        }
    }
}

impl TokenSource for RefreshTokenGrant {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        let token = self.refresh_token(&renewal)?;
        let previous = renewal.previous();
        let mut first = Parameters::default();
        first.push("refresh_token", token.expose_secret());
        from_previous(self.request.endpoint.checked_dialect()?, previous, token, &mut first)?;
        let read = |answer: &_, context: response::Context<'_>| {
            let result = response::read(answer, context);
            if result.is_err()
                && let Some(successor) = response::refresh_token(answer, context)
            {
                renewal.replace_refresh_token(successor);
            }
            result
        };
        let tokens = self.request.send(first, &renewal, read).await?;
        Ok(self.request.with_scope(tokens.filled_from(token, previous)))
    }

    fn info(&self) -> SourceInfo {
        self.request.endpoint.info().refresh_token(self.configured.clone()).remembering_refusals()
    }
}
