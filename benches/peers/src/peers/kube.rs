//! kube-client: its `AuthLayer` over a token file. Its OIDC provider refuses endpoints without TLS.

use std::path::PathBuf;
use std::sync::Arc;

use http::{Request, StatusCode};
use kube_client::Config;
use kube_client::client::ConfigExt;
use kube_client::client::middleware::AuthLayer;
use tower::{Layer, Service};

use crate::api::{self, Api, Body, request};
use crate::client::TokenClient;
use crate::peer::{About, BoxError, Fetches, Peer, Scenario};

#[derive(Clone)]
pub struct Kube {
    service: <AuthLayer as Layer<Api<BoxError>>>::Service,
    _file: Arc<TokenFile>,
}

impl Peer for Kube {
    const ABOUT: About = About {
        name: "kube-client",
        packages: &["kube-client"],
        manifest: r#"kube-client = "=""#,
        fetches: Fetches::Never,
        skips: &[
            (Scenario::Cold, ONLY_TLS),
            (Scenario::Failing, ONLY_TLS),
            (Scenario::Dropped, ONLY_TLS),
        ],
        ..About::DEFAULT
    };

    async fn connect(url: &str, api: Api) -> Result<Self, BoxError> {
        let token = TokenClient::new(url)?.request().await?;
        let file = TokenFile::create(&token.access_token)?;
        let mut config = Config::new(api::ORIGIN.parse()?);
        config.auth_info.token_file = Some(file.0.display().to_string());
        let layer = config.auth_layer()?.ok_or("a token file leads to an auth layer")?;
        Ok(Self { service: layer.layer(api.with_error()), _file: Arc::new(file) })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        std::future::poll_fn(|cx| Service::<Request<Body>>::poll_ready(&mut self.service, cx))
            .await?;
        Ok(self.service.call(request(headers)).await?.status())
    }
}

/// A file that is removed at the end.
struct TokenFile(PathBuf);

impl TokenFile {
    fn create(token: &str) -> Result<Self, BoxError> {
        let path = std::env::temp_dir().join(format!("peers-{}.token", std::process::id()));
        std::fs::write(&path, token)?;
        Ok(Self(path))
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const ONLY_TLS: &str = "its OIDC provider needs TLS, and a token file has no endpoint";
