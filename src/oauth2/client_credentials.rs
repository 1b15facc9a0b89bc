//! The client credentials grant.

use std::future::Future;

use super::endpoint::TokenEndpoint;
use super::token_request::{TokenRequest, setters};
use crate::error::TokenError;
use crate::source::{Renewal, SourceInfo, TokenSource};
use crate::token::TokenSet;

/// The client credentials grant (RFC 6749 §4.4): the client acts on its own behalf.
///
/// # Examples
///
/// ```
/// use tower_refresh::oauth2::{ClientCredentialsGrant, TokenEndpoint};
///
/// fn grant(endpoint: TokenEndpoint) -> ClientCredentialsGrant {
///     ClientCredentialsGrant::new(endpoint).scope("reports:read")
/// }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientCredentialsGrant {
    request: TokenRequest,
}

impl ClientCredentialsGrant {
    /// Creates a source for an endpoint with a [`ClientAuth`](super::ClientAuth).
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::oauth2::{ClientAuth, ClientCredentialsGrant, TokenEndpoint};
    ///
    /// fn grant(endpoint: TokenEndpoint, secret: String) -> ClientCredentialsGrant {
    ///     let endpoint = endpoint.client_auth(ClientAuth::basic("my-service", secret));
    ///     ClientCredentialsGrant::new(endpoint)
    /// }
    /// ```
    pub fn new(endpoint: TokenEndpoint) -> Self {
        Self { request: TokenRequest::new(endpoint, "client_credentials") }
    }

    setters!();
}

impl TokenSource for ClientCredentialsGrant {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        self.request.send_alone(&renewal).await
    }

    fn info(&self) -> SourceInfo {
        self.request.endpoint.info().rotates(false).sending_no_refresh_token().fresh_proof(true)
    }
}
