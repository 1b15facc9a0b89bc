//! Any grant that has no type of its own.

use std::fmt;
use std::future::Future;

use super::endpoint::TokenEndpoint;
use super::token_request::{TokenRequest, more};
use crate::error::TokenError;
use crate::source::{Renewal, SourceInfo, TokenSource};
use crate::token::TokenSet;

/// Any other grant: password, token exchange (RFC 8693), JWT bearer (RFC 7523).
///
/// After a refusal it is asked again every five minutes if it has [`params_with`](Self::params_with), or if it is an assertion
/// grant (RFC 7521). A fixed password is not sent again, because servers lock accounts for that.
///
/// To log in again when the refresh token is gone:
///
/// ```
/// # use tower_refresh::oauth2::{Grant, TokenEndpoint};
/// # fn example(endpoint: TokenEndpoint) -> Grant {
/// let password = std::env::var("PASSWORD").unwrap_or_default();
/// Grant::new(endpoint, "password")
///     .param("username", "compass")
///     .param("password", password)
/// # }
/// ```
///
/// Parameters that must be fresh each time come from a closure:
///
/// ```
/// # use tower_refresh::oauth2::{Grant, TokenEndpoint};
/// # async fn sign() -> String { String::new() }
/// # fn example(endpoint: TokenEndpoint) -> Grant {
/// Grant::new(endpoint, "urn:ietf:params:oauth:grant-type:jwt-bearer")
///     .params_with(|_renewal| async { Ok([("assertion", sign().await)]) })
/// # }
/// ```
#[derive(Clone)]
pub struct Grant {
    request: TokenRequest,
}

impl Grant {
    /// Makes a source of an endpoint and a grant type, such as `password`.
    pub fn new(endpoint: TokenEndpoint, grant_type: impl Into<String>) -> Self {
        Self { request: TokenRequest::new(endpoint, grant_type) }
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

    /// Adds a parameter. Its value counts as a secret, unless it is known to be none.
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

impl TokenSource for Grant {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        self.request.send_alone(&renewal).await
    }

    fn info(&self) -> SourceInfo {
        let info = self.request.endpoint.info();
        if self.request.more.is_some() {
            return info.fresh_proof(true);
        }
        // Without the closure it never sees a refresh token, and spends none. An assertion may be refused for a clock that is
        // not set yet, and locks no account.
        let is_assertion = ["jwt-bearer", "saml2-bearer"]
            .iter()
            .any(|name| self.request.grant_type.strip_prefix(GRANT_TYPES) == Some(name));
        info.rotates(false).fresh_proof(is_assertion)
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("request", &self.request).finish()
    }
}

/// The prefix of grant types (RFC 6749 §4.5, RFC 7521 §8.1).
const GRANT_TYPES: &str = "urn:ietf:params:oauth:grant-type:";
