//! Any grant without a type of its own.

use std::future::Future;

use super::endpoint::TokenEndpoint;
use super::token_request::{TokenRequest, setters};
use crate::error::TokenError;
use crate::source::{Renewal, SourceInfo, TokenSource};
use crate::token::TokenSet;

/// A grant of any other type, such as password, or a SAML assertion (RFC 7522).
///
/// For token exchange and JWT bearer, see [`TokenExchangeGrant`](super::TokenExchangeGrant) and
/// [`JwtBearerGrant`](super::JwtBearerGrant).
///
/// After a refusal, the request is repeated every five minutes if [`params_with`](Self::params_with) is set or the grant type is
/// an assertion (RFC 7521). A fixed password is not sent again, because servers lock accounts for that.
///
/// # Examples
///
/// Log in again after the refresh token is gone:
///
/// ```
/// use tower_refresh::oauth2::{Grant, TokenEndpoint};
///
/// fn log_in(endpoint: TokenEndpoint, password: String) -> Grant {
///     Grant::new(endpoint, "password").param("username", "compass").param("password", password)
/// }
/// ```
///
/// Make a fresh assertion for each request:
///
/// ```
/// use tower_refresh::oauth2::{Grant, TokenEndpoint};
///
/// async fn sign() -> String {
///     // …ask the identity provider for a SAML assertion, in base64url…
/// #   String::new()
/// }
///
/// fn grant(endpoint: TokenEndpoint) -> Grant {
///     Grant::new(endpoint, "urn:ietf:params:oauth:grant-type:saml2-bearer")
///         .params_with(|_renewal| async { Ok([("assertion", sign().await)]) })
/// }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Grant {
    request: TokenRequest,
}

impl Grant {
    /// Creates a source for an endpoint and a grant type, such as `password`.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::oauth2::{Grant, TokenEndpoint};
    ///
    /// fn device(endpoint: TokenEndpoint, device_code: String) -> Grant {
    ///     Grant::new(endpoint, "urn:ietf:params:oauth:grant-type:device_code").param("device_code", device_code)
    /// }
    /// ```
    pub fn new(endpoint: TokenEndpoint, grant_type: impl Into<String>) -> Self {
        Self { request: TokenRequest::new(endpoint, grant_type) }
    }

    setters!();
}

impl TokenSource for Grant {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        self.request.send_alone(&renewal).await
    }

    fn info(&self) -> SourceInfo {
        let info = self.request.endpoint.info();
        if self.request.more.is_some() {
            return info.fresh_proof(true);
        }
        // Without the closure, the grant receives no refresh token and spends none. An assertion may be refused because the
        // clock is not set yet, and does not lock an account.
        let is_assertion = ["jwt-bearer", "saml2-bearer"]
            .iter()
            .any(|name| self.request.grant_type.strip_prefix(GRANT_TYPES) == Some(name));
        info.rotates(false).fresh_proof(is_assertion)
    }
}

/// The prefix of grant types (RFC 6749 §4.5, RFC 7521 §8.1).
const GRANT_TYPES: &str = "urn:ietf:params:oauth:grant-type:";
