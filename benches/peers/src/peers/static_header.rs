//! tower-http's `AddAuthorizationLayer`: a token that never changes, the least that a layer can do.

use http::StatusCode;
use tower::Layer as _;
use tower_http::auth::{AddAuthorization, AddAuthorizationLayer};

use crate::api::{self, Api, request};
use crate::client::TokenClient;
use crate::peer::{About, BoxError, Fetches, Peer, Scenario};

#[derive(Clone)]
pub struct StaticHeader {
    service: AddAuthorization<Api>,
}

impl Peer for StaticHeader {
    const ABOUT: About = About {
        name: "static header",
        packages: &["tower-http"],
        manifest: r#"tower-http = { version = "=", features = ["auth"] }"#,
        fetches: Fetches::Never,
        skips: &[
            (Scenario::Cold, NO_REFRESH),
            (Scenario::Failing, NO_REFRESH),
            (Scenario::Dropped, NO_REFRESH),
            (Scenario::Late, NO_REFRESH),
        ],
        ..About::DEFAULT
    };

    async fn connect(url: &str, api: Api) -> Result<Self, BoxError> {
        let token = TokenClient::new(url)?.request().await?;
        Ok(Self { service: AddAuthorizationLayer::bearer(&token.access_token).layer(api) })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        api::send(&mut self.service, request(headers)).await
    }
}

const NO_REFRESH: &str = "never refreshes";
