//! The request that all grants send.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::endpoint::TokenEndpoint;
use super::narrowed::Narrowed;
use super::request::Parameters;
use super::response::{self, Answer, Context};
use crate::error::TokenError;
use crate::source::Renewal;
use crate::target::Target;
use crate::token::TokenSet;

/// The request that all grants send.
#[derive(Clone)]
pub(super) struct TokenRequest {
    pub(super) endpoint: TokenEndpoint,
    pub(super) grant_type: String,
    pub(super) scope: Option<String>,
    pub(super) parameters: Parameters,
    pub(super) more: Option<Arc<More>>,
    narrowed: Narrowed,
}

type More = dyn Fn(Renewal) -> BoxFuture<'static, Result<Parameters, TokenError>> + Send + Sync;

/// The setters of a grant, which holds its `TokenRequest` in `request`.
macro_rules! setters {
    () => {
        /// Requests a scope (RFC 6749 §3.3): words separated by spaces.
        pub fn scope(mut self, scope: impl Into<String>) -> Self {
            self.request.scope = Some(scope.into());
            self
        }

        /// Requests a token for a resource (RFC 8707). Can be called several times.
        pub fn resource(self, resource: impl Into<String>) -> Self {
            self.param("resource", resource)
        }

        /// Adds a parameter, such as `audience`.
        ///
        /// The values of most parameters count as secrets. Those of `audience`, `scope` and the like do not.
        pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            self.request.parameters.push(name, value);
            self
        }

        /// Calls a closure before each request, and adds the parameters that it returns.
        ///
        /// Its argument is the [`Renewal`]: the previous token set, the reason for the refresh, and the challenge of the
        /// response that rejected the previous token. The time that the closure takes counts towards
        /// [`TokenEndpoint::timeout`](crate::oauth2::TokenEndpoint::timeout). If a parameter is set twice, nothing is sent and
        /// the request fails. Another call replaces the closure.
        pub fn params_with<F, Fut, P, N, V>(mut self, f: F) -> Self
        where
            F: Fn(Renewal) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<P, TokenError>> + Send + 'static,
            P: IntoIterator<Item = (N, V)>,
            N: Into<String>,
            V: Into<String>,
        {
            self.request.more = Some(std::sync::Arc::new(move |renewal| {
                let parameters = f(renewal);
                Box::pin(async move { Ok(parameters.await?.into_iter().collect()) })
            }));
            self
        }
    };
}
pub(super) use setters;

impl TokenRequest {
    pub(super) fn new(endpoint: TokenEndpoint, grant_type: impl Into<String>) -> Self {
        Self {
            endpoint,
            grant_type: grant_type.into(),
            scope: None,
            parameters: Parameters::default(),
            more: None,
            narrowed: Narrowed::default(),
        }
    }

    /// Sends the request, the grant's own parameters first, in the order of the examples of RFC 6749.
    pub(super) async fn send(
        &self,
        first: Parameters,
        renewal: &Renewal,
        read: impl FnOnce(&Answer, Context<'_>) -> Result<TokenSet, TokenError>,
    ) -> Result<TokenSet, TokenError> {
        let mut parameters = Parameters::default();
        parameters.push("grant_type", &self.grant_type);
        parameters.extend(&first);
        if let Some(scope) = &self.scope {
            parameters.push("scope", scope);
        }
        parameters.extend(&self.parameters);
        let more = async {
            match &self.more {
                Some(more) => more(renewal.clone()).await,
                None => Ok(Parameters::default()),
            }
        };
        let tokens = self.endpoint.post(parameters, more, renewal.fetched_for(), read).await?;
        let (endpoint, scope) = (self.endpoint.origin(), self.scope.as_deref());
        self.narrowed.log(&endpoint, scope, renewal.previous(), &tokens);
        Ok(tokens)
    }

    /// Returns the target that a proof is sent to. An endpoint may refuse it for one audience, and accept it for another.
    pub(super) fn target(&self) -> Target {
        let parameters =
            ["audience", "resource"].into_iter().flat_map(|it| self.parameters.all(it));
        let purpose: Vec<_> = self.scope.as_deref().into_iter().chain(parameters).collect();
        self.endpoint.target(&purpose.join("\n"))
    }

    /// Sends the request without parameters of the grant.
    pub(super) async fn send_alone(&self, renewal: &Renewal) -> Result<TokenSet, TokenError> {
        self.send_with(Parameters::default(), renewal).await
    }

    /// Sends the request with parameters of the grant.
    pub(super) async fn send_with(
        &self,
        first: Parameters,
        renewal: &Renewal,
    ) -> Result<TokenSet, TokenError> {
        let tokens = self.send(first, renewal, response::read).await?;
        Ok(self.with_scope(tokens))
    }

    /// Returns the tokens with their scope. An answer without a scope grants the requested one (RFC 6749 §5.1).
    pub(super) fn with_scope(&self, tokens: TokenSet) -> TokenSet {
        match &self.scope {
            Some(scope) if tokens.scope().is_none() => tokens.with_scope(scope),
            _ => tokens,
        }
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRequest")
            .field("endpoint", &self.endpoint)
            .field("grant_type", &self.grant_type)
            .field("scope", &self.scope)
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}
