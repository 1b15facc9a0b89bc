//! tower-refresh, with and without the retry of rejected requests.

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::Layer as _;
use tower_refresh::oauth2::{ClientAuth, RefreshTokenGrant, TokenEndpoint};
use tower_refresh::replay::NoRetry;
use tower_refresh::{Credentials, Refresh, RefreshLayer, Unauthorized};

use crate::api::{self, Api, ORIGIN, request};
use crate::peer::{About, BoxError, Fetches, Peer};

#[derive(Clone)]
pub struct WithoutRetry {
    service: Refresh<Api, Credentials, Unauthorized, NoRetry>,
}

impl Peer for WithoutRetry {
    const ABOUT: About = About {
        name: "tower-refresh, without retry",
        packages: &["tower-refresh"],
        manifest: r#"tower-refresh = { path = "=" }"#,
        fetches: Fetches::TaskOnDemand,
        ..About::DEFAULT
    };

    async fn connect(url: &str, api: Api) -> Result<Self, BoxError> {
        Ok(Self { service: layer(url)?.without_retry().layer(api) })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        api::send(&mut self.service, request(headers)).await
    }
}

#[derive(Clone)]
pub struct Armed {
    service: Refresh<Api>,
}

impl Peer for Armed {
    const ABOUT: About = About { name: "tower-refresh, retry armed", ..WithoutRetry::ABOUT };

    async fn connect(url: &str, api: Api) -> Result<Self, BoxError> {
        Ok(Self { service: layer(url)?.layer(api) })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        api::send(&mut self.service, request(headers)).await
    }
}

fn layer(url: &str) -> Result<RefreshLayer, BoxError> {
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let endpoint =
        TokenEndpoint::new(http, url)?.client_auth(ClientAuth::basic("benches", "secret"));
    let grant = RefreshTokenGrant::new(endpoint, "a-refresh-token");
    Ok(RefreshLayer::new(grant).origin(ORIGIN)?)
}
