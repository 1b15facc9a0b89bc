//! The API that the clients are tested against, and the guides whose programs need crates that only this package has.

/// The programs of two guides.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../src/docs/log_in.md")]
    mod log_in {}
    #[doc = include_str!("../../src/docs/beyond_http.md")]
    mod beyond_http {}
}

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::testing::{AuthorizationServer, Serving};
use tower_refresh::{BoxError, RefreshLayer};

/// A token endpoint and an API on loopback. The API echoes requests with a valid token.
pub struct Api {
    pub server: AuthorizationServer,
    pub serving: Serving,
}

impl Api {
    pub async fn serve() -> Result<Self, BoxError> {
        let server = AuthorizationServer::new();
        let serving = server.serve().await?;
        Ok(Self { server, serving })
    }

    pub fn layer(&self) -> Result<RefreshLayer, BoxError> {
        let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let endpoint = TokenEndpoint::new(http, self.serving.url("/token"))?;
        let source = RefreshTokenGrant::new(endpoint, self.server.issue_refresh_token());
        Ok(RefreshLayer::new(source).origin(self.serving.origin())?)
    }

    /// Requests that the API accepted, those that it rejected, and refreshes.
    pub fn counts(&self) -> [u64; 3] {
        let counters = self.server.counters();
        [
            counters.resource_requests_ok,
            counters.resource_requests_unauthorized,
            counters.token_requests,
        ]
    }
}
