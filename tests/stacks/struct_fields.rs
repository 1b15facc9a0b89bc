//! A client is a field of a struct, with a type that can be written down and without a box: the first program of the README,
//! and one for each stack.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{ClientAuth, RefreshTokenGrant, TokenEndpoint};
use tower_refresh::reqwest::ReqwestService;
use tower_refresh::{BoxError, Credentials, Refresh, RefreshLayer};

const API: &str = "https://api.example.com";

type Https = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The first program of the README.
#[derive(Clone)]
struct First {
    client: Refresh<Https>,
    credentials: Credentials,
}

impl First {
    fn new() -> Result<Self, BoxError> {
        let https = HttpsConnectorBuilder::new().with_webpki_roots().https_only();
        let http = Client::builder(TokioExecutor::new()).build(https.enable_all_versions().build());
        let layer = RefreshLayer::new(grant(http.clone())?).origin(API)?;
        let credentials = layer.credentials().clone();
        Ok(Self { client: ServiceBuilder::new().layer(layer).service(http), credentials })
    }

    async fn get(&self, path: &str) -> Result<Response<Incoming>, BoxError> {
        let request = Request::get(format!("{API}{path}")).body(Full::default())?;
        self.client.clone().oneshot(request).await
    }
}

struct Hyper {
    client: Refresh<Client<HttpConnector, Full<Bytes>>>,
}

impl Hyper {
    fn new(credentials: Credentials) -> Result<Self, BoxError> {
        let http = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { client: RefreshLayer::new(credentials).origin(API)?.layer(http) })
    }

    async fn get(&self, path: &str) -> Result<Response<Incoming>, BoxError> {
        let request = Request::get(format!("{API}{path}")).body(Full::default())?;
        self.client.clone().oneshot(request).await
    }
}

struct Reqwest {
    client: Refresh<ReqwestService>,
}

impl Reqwest {
    fn new(credentials: Credentials) -> Result<Self, BoxError> {
        let http = ReqwestService::new(reqwest::Client::new());
        Ok(Self { client: RefreshLayer::new(credentials).origin(API)?.layer(http) })
    }

    async fn get(&self, path: &str) -> Result<String, BoxError> {
        let request = Request::get(format!("{API}{path}")).body(reqwest::Body::default())?;
        let response = self.client.clone().oneshot(request).await?;
        Ok(reqwest::Response::from(response).text().await?)
    }
}

#[derive(Clone)]
struct Tonic {
    client: HealthClient<Refresh<Channel>>,
}

impl Tonic {
    fn new(credentials: Credentials) -> Self {
        let channel = Channel::from_static(API).connect_lazy();
        Self { client: HealthClient::new(RefreshLayer::new(credentials).layer(channel)) }
    }

    async fn check(&self) -> Result<bool, tonic::Status> {
        let response = self.client.clone().check(HealthCheckRequest::default()).await?;
        Ok(response.into_inner().status == 1)
    }
}

fn grant(http: Https) -> Result<RefreshTokenGrant, BoxError> {
    let endpoint = TokenEndpoint::new(http, "https://auth.example.com/oauth2/token")?
        .client_auth(ClientAuth::basic("my-client", "s3cr3t"));
    Ok(RefreshTokenGrant::new(endpoint, "refresh-token"))
}

/// No request is sent: the futures are not polled.
#[tokio::test]
async fn client_of_each_stack_is_a_field_that_any_task_can_use() {
    fn shared<T: Send + Sync + 'static>(_: &T) {}
    fn spawnable<T: Send>(_: T) {}

    let first = First::new().unwrap();
    let hyper = Hyper::new(first.credentials.clone()).unwrap();
    let reqwest = Reqwest::new(first.credentials.clone()).unwrap();
    let tonic = Tonic::new(first.credentials.clone());
    shared(&first);
    shared(&hyper);
    shared(&reqwest);
    shared(&tonic);
    spawnable(first.get("/"));
    spawnable(hyper.get("/"));
    spawnable(reqwest.get("/"));
    spawnable(tonic.check());
}
