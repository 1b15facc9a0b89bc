//! cf-gears-toolkit-auth: its tower layers, with and without a refresh after a 401.

use http::StatusCode;
use toolkit_auth::oauth2::BearerAuthAutoRefreshService;
use toolkit_auth::oauth2::layer::BearerAuthService;
use toolkit_auth::{
    BearerAuthAutoRefreshLayer, BearerAuthLayer, OAuthClientConfig, SecretString, TokenProvider,
};
use toolkit_http::HttpError;
use tower::Layer as _;

use crate::api::{self, Api, request};
use crate::peer::{About, BoxError, Fetches, Peer};

#[derive(Clone)]
pub struct BearerAuth {
    service: BearerAuthService<Api<HttpError>>,
}

impl Peer for BearerAuth {
    const ABOUT: About = About {
        name: "cf-gears-toolkit-auth, BearerAuth",
        packages: &["cf-gears-toolkit-auth"],
        manifest: r#"cf-gears-toolkit-auth = "=""#,
        fetches: Fetches::TaskOnDemand,
        ..About::DEFAULT
    };

    async fn connect(url: &str, api: Api) -> Result<Self, BoxError> {
        Ok(Self { service: BearerAuthLayer::new(provider(url)?).layer(api.with_error()) })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        api::send(&mut self.service, request(headers)).await
    }
}

#[derive(Clone)]
pub struct AutoRefresh {
    service: BearerAuthAutoRefreshService<Api<HttpError>>,
}

impl Peer for AutoRefresh {
    const ABOUT: About = About { name: "cf-gears-toolkit-auth, AutoRefresh", ..BearerAuth::ABOUT };

    async fn connect(url: &str, api: Api) -> Result<Self, BoxError> {
        let layer = BearerAuthAutoRefreshLayer::new(provider(url)?);
        Ok(Self { service: layer.layer(api.with_error()) })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        api::send(&mut self.service, request(headers)).await
    }
}

fn provider(url: &str) -> Result<TokenProvider, BoxError> {
    Ok(TokenProvider::new(OAuthClientConfig {
        token_endpoint: Some(url.parse()?),
        client_id: "benches".into(),
        client_secret: SecretString::new("secret"),
        ..OAuthClientConfig::default()
    })?)
}
