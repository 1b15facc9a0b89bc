//! The token request that the grants have in common.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::endpoint::TokenEndpoint;
use super::request::Parameters;
use super::response::{self, Answer, Context};
use crate::error::TokenError;
use crate::source::Renewal;
use crate::token::TokenSet;

/// What every grant sends.
#[derive(Clone)]
pub(super) struct TokenRequest {
    pub(super) endpoint: TokenEndpoint,
    pub(super) grant_type: String,
    pub(super) scope: Option<String>,
    pub(super) parameters: Parameters,
    pub(super) more: Option<Arc<More>>,
}

pub(super) type More =
    dyn Fn(Renewal) -> BoxFuture<'static, Result<Parameters, TokenError>> + Send + Sync;

/// Makes the closure of `params_with`.
pub(super) fn more<F, Fut, P, N, V>(f: F) -> Arc<More>
where
    F: Fn(Renewal) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<P, TokenError>> + Send + 'static,
    P: IntoIterator<Item = (N, V)>,
    N: Into<String>,
    V: Into<String>,
{
    Arc::new(move |renewal| {
        let parameters = f(renewal);
        Box::pin(async move {
            let mut all = Parameters::default();
            for (name, value) in parameters.await? {
                all.push(name, value);
            }
            Ok(all)
        })
    })
}

impl TokenRequest {
    pub(super) fn new(endpoint: TokenEndpoint, grant_type: impl Into<String>) -> Self {
        Self {
            endpoint,
            grant_type: grant_type.into(),
            scope: None,
            parameters: Parameters::default(),
            more: None,
        }
    }

    /// Sends it with the grant's own parameters first, as the examples of RFC 6749 have them.
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
        self.endpoint.post(parameters, more, renewal.fetched_for(), read).await
    }

    /// Sends it; what the answer does not say of the scope is as it was asked for (RFC 6749 §5.1).
    pub(super) async fn send_alone(&self, renewal: &Renewal) -> Result<TokenSet, TokenError> {
        let tokens = self.send(Parameters::default(), renewal, response::read).await?;
        Ok(match (tokens.scope(), &self.scope) {
            (None, Some(scope)) => tokens.clone().with_scope(scope),
            _ => tokens,
        })
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
