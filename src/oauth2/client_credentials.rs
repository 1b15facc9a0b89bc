//! The client credentials grant.

use std::fmt;
use std::future::Future;

use super::endpoint::TokenEndpoint;
use super::token_request::{TokenRequest, more};
use crate::error::TokenError;
use crate::source::{Renewal, SourceInfo, TokenSource};
use crate::token::TokenSet;

/// The client credentials grant (RFC 6749 §4.4): the client acts for itself.
///
/// ```
/// # use tower_refresh::oauth2::{ClientCredentialsGrant, TokenEndpoint};
/// # fn example(endpoint: TokenEndpoint) -> ClientCredentialsGrant {
/// ClientCredentialsGrant::new(endpoint).scope("reports:read")
/// # }
/// ```
#[derive(Clone)]
pub struct ClientCredentialsGrant {
    request: TokenRequest,
}

impl ClientCredentialsGrant {
    /// Makes a source of an endpoint, which must have a [`ClientAuth`](super::ClientAuth).
    pub fn new(endpoint: TokenEndpoint) -> Self {
        Self { request: TokenRequest::new(endpoint, "client_credentials") }
    }

    /// Asks for a scope (RFC 6749 §3.3): words with spaces between them.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.request.scope = Some(scope.into());
        self
    }

    /// Asks for a token for a resource (RFC 8707). May be called several times.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.request.parameters.push("resource", resource);
        self
    }

    /// Adds a parameter, such as `audience`.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.parameters.push(name, value);
        self
    }

    /// Asks a closure for more parameters, anew for each attempt.
    ///
    /// It is given the [`Renewal`]: the previous token set, why it is renewed, and the challenge of the response that
    /// rejected it. The time it takes counts towards [`TokenEndpoint::timeout`]. A parameter that is set twice is an error,
    /// and nothing is sent. Another call replaces the closure.
    #[must_use]
    pub fn params_with<F, Fut, P, N, V>(mut self, f: F) -> Self
    where
        F: Fn(Renewal) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<P, TokenError>> + Send + 'static,
        P: IntoIterator<Item = (N, V)>,
        N: Into<String>,
        V: Into<String>,
    {
        self.request.more = Some(more(f));
        self
    }
}

impl TokenSource for ClientCredentialsGrant {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        self.request.send_alone(&renewal).await
    }

    fn info(&self) -> SourceInfo {
        self.request.endpoint.info().rotates(false).fresh_proof(true)
    }
}

impl fmt::Debug for ClientCredentialsGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentialsGrant").field("request", &self.request).finish()
    }
}
