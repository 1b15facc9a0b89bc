//! qcs-api-client-grpc: its `RefreshLayer` over tonic's bodies, with a refresh function of our own.

use http::{Request, StatusCode};
use qcs_api_client_common::configuration::ClientConfiguration;
use qcs_api_client_common::configuration::settings::AuthServer;
use qcs_api_client_common::configuration::tokens::{ExternallyManaged, OAuthSession};
use qcs_api_client_grpc::tonic::{RefreshLayer, RefreshService};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::transport::Error;
use tower::Layer as _;

use crate::api::{Api, request};
use crate::client::TokenClient;
use crate::peer::{About, BoxError, Fetches, Peer};

#[derive(Clone)]
pub struct Qcs {
    service: RefreshService<Api<Error>, ClientConfiguration>,
}

impl Peer for Qcs {
    const ABOUT: About = About {
        name: "qcs-api-client-grpc",
        packages: &["qcs-api-client-grpc"],
        manifest: r#"qcs-api-client-grpc = "=""#,
        baseline: "qcs-api-client-grpc, no layer",
        ..About::DEFAULT
    };

    async fn connect(url: &str, api: Api) -> Result<Self, BoxError> {
        let client = TokenClient::new(url)?;
        let tokens = ExternallyManaged::from_async(move |_| {
            let client = client.clone();
            async move { Ok(client.request().await?.access_token) }
        });
        let session = OAuthSession::from_externally_managed(tokens, AuthServer::default(), None);
        let config = ClientConfiguration::builder().oauth_session(Some(session)).build()?;
        Ok(Self { service: RefreshLayer::with_config(config).layer(api.with_error()) })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        send(&mut self.service, grpc_request(headers)).await
    }
}

/// tonic's requests without a token.
#[derive(Clone)]
pub struct NoLayer {
    api: Api<Error>,
}

impl Peer for NoLayer {
    const ABOUT: About = About {
        name: "qcs-api-client-grpc, no layer",
        baseline: "qcs-api-client-grpc, no layer",
        fetches: Fetches::Never,
        ..About::DEFAULT
    };

    async fn connect(_: &str, api: Api) -> Result<Self, BoxError> {
        Ok(Self { api: api.with_error() })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        send(&mut self.api, grpc_request(headers)).await
    }
}

fn grpc_request(headers: usize) -> Request<Body> {
    request(headers).map(Body::new)
}

async fn send<S>(service: &mut S, request: Request<Body>) -> Result<StatusCode, BoxError>
where
    S: GrpcService<Body, Error: std::error::Error + Send + Sync + 'static>,
{
    std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
    Ok(service.call(request).await?.status())
}
