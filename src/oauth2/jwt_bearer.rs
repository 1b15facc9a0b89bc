//! The JWT bearer grant.

use std::future::Future;

use super::endpoint::TokenEndpoint;
use super::proof::{Proof, Proofs};
use super::security_token::SecurityToken;
use super::token_request::{TokenRequest, setters};
use crate::error::TokenError;
use crate::source::{Renewal, SourceInfo, TokenSource};
use crate::token::TokenSet;

/// The JWT bearer grant (RFC 7523 §2.1): the client presents a JWT, the *assertion*, for an access token.
///
/// The assertion is either one that the program signs for each request, or with [`on_behalf_of`](Self::on_behalf_of) the access
/// token that a user has sent to the program.
///
/// # Examples
///
/// ```
/// use tower_refresh::oauth2::{JwtBearerGrant, SecurityToken, TokenEndpoint};
///
/// async fn sign() -> String {
///     // …ask the key service for a JWT…
/// #   String::new()
/// }
///
/// fn grant(endpoint: TokenEndpoint) -> JwtBearerGrant {
///     let assertion = SecurityToken::from_fn(|_renewal| async { Ok(sign().await) });
///     JwtBearerGrant::new(endpoint, assertion).scope("reports:read")
/// }
/// ```
///
/// # An assertion that is not accepted
///
/// The server answers `invalid_grant` (RFC 7523 §3.1). The source of the assertion is then asked for another one. With
/// another one, the request is sent once more, and the second answer counts. Without one, the error is
/// [denied](TokenError::is_denied).
///
/// An error of the source of the assertion keeps its kind and its code. A denied request is tried again under the conditions that
/// [`TokenExchangeGrant`](super::TokenExchangeGrant#a-subject-token-that-is-not-accepted) lists.
///
/// # Refresh tokens
///
/// As with [`TokenExchangeGrant`](super::TokenExchangeGrant#refresh-tokens), a refresh token in the answer is kept and not sent.
#[derive(Clone, Debug)]
#[must_use]
#[doc(alias("assertion", "obo"))]
pub struct JwtBearerGrant {
    request: TokenRequest,
    proofs: Proofs,
}

impl JwtBearerGrant {
    /// Creates a source for an endpoint and an assertion: a string, an [`AccessToken`](crate::AccessToken), the
    /// [`Credentials`](crate::Credentials) of a user, or any other [`SecurityToken`].
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::AccessToken;
    /// use tower_refresh::oauth2::{JwtBearerGrant, TokenEndpoint};
    ///
    /// fn on_behalf_of(endpoint: TokenEndpoint, user: AccessToken) -> JwtBearerGrant {
    ///     JwtBearerGrant::new(endpoint, user)
    ///         .on_behalf_of()
    ///         .scope("https://graph.microsoft.com/User.Read")
    /// }
    /// ```
    pub fn new(endpoint: TokenEndpoint, assertion: impl Into<SecurityToken>) -> Self {
        let assertion = Proof { name: "assertion", type_name: None, token: assertion.into() };
        Self {
            request: TokenRequest::new(endpoint, "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            proofs: Proofs::new(assertion, &["invalid_token"]),
        }
    }

    /// Requests a token on behalf of the user whose access token is the assertion (`requested_token_use=on_behalf_of`), for
    /// Microsoft Entra ID and AD FS.
    ///
    /// The assertion must be an access token that was issued for this program, which its `aud` names. Entra requires a
    /// [client authentication](super::ClientAuth) and a [`scope`](Self::scope), AD FS a [`resource`](Self::resource). If the user must
    /// do something first, such as pass a second factor, the code of the error is `interaction_required`.
    pub fn on_behalf_of(self) -> Self {
        self.param("requested_token_use", "on_behalf_of")
    }

    setters!();
}

impl TokenSource for JwtBearerGrant {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        self.proofs.send(&self.request, &renewal).await
    }

    fn info(&self) -> SourceInfo {
        self.proofs.info(&self.request.endpoint)
    }
}
