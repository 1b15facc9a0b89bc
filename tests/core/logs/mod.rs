//! The log lines and the spans: each trouble once, with the fields that name its cause.

mod incidents;
mod page;
mod refreshes;
mod rejections;
mod spans;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{ClientAuth, RefreshTokenGrant, TokenEndpoint};
use tower_refresh::testing::{AuthorizationServer, TokioClock};
use tower_refresh::{Credentials, RefreshLayer};

use crate::harness::{HOUR, policy};

/// A program with a client of one API, and the authorization server that is also the API of every origin.
struct Program {
    server: AuthorizationServer,
    credentials: Credentials,
    client: BoxCloneSyncService<Request<Full<Bytes>>, u16, BoxError>,
}

impl Program {
    fn new() -> Self {
        let server = AuthorizationServer::builder()
            .access_token_lifetime(HOUR)
            .client("compass", "s3cr3t")
            .clock(TokioClock::new())
            .build();
        let endpoint = TokenEndpoint::new(server.token_service(), "https://as.test/token?tenant=1")
            .unwrap()
            .client_auth(ClientAuth::basic("compass", "s3cr3t"))
            .clock(TokioClock::new());
        let grant = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
        let credentials = Credentials::builder(grant).name("billing").policy(policy()).build();
        let layer = RefreshLayer::new(credentials.clone()).origin("https://api.test").unwrap();
        let client = ServiceBuilder::new()
            .map_response(|response: http::Response<_>| response.status().as_u16())
            .layer(layer)
            .service(server.resource_service());
        Self { server, credentials, client: BoxCloneSyncService::new(client) }
    }

    /// Sends a request. Returns its status, or none if it was not sent.
    async fn get(&self, url: &str) -> Option<u16> {
        self.send(Request::get(url).body(Full::default()).unwrap()).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Option<u16> {
        self.client.clone().oneshot(request).await.ok()
    }
}
