//! gRPC with tonic: a generated client over `RefreshLayer` over a `Channel`.
//!
//! ```text
//! cargo run --example tonic --features hyper-util,testing,tonic
//! ```
//!
//! The authorization server is that of `tower_refresh::testing`. The gRPC service is tonic's health service behind an interceptor that
//! checks the token. Both are on loopback.

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tonic::service::InterceptorLayer;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceBuilder;
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::testing::AuthorizationServer;
use tower_refresh::{BoxError, RefreshLayer};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = AuthorizationServer::new();
    let serving = server.serve().await?;
    let channel = Channel::from_shared(serve_health(&server)?)?.connect().await?;

    // ===== a complete client =====
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let endpoint = TokenEndpoint::new(http, serving.url("/token"))?;
    let source = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
    // No origin is needed: the channel determines where the calls go.
    let layer = RefreshLayer::new(source);
    let credentials = layer.credentials().clone();
    // If your server returns UNAUTHENTICATED in trailers, put `grpc::HoldTrailersLayer` between the layer and the channel.
    let mut client = HealthClient::new(ServiceBuilder::new().layer(layer).service(channel));

    // ===== calls and revocations =====
    let mut watched = client.watch(HealthCheckRequest::default()).await?.into_inner();
    println!("watch: {:?}", watched.message().await?.map(|response| response.status()));
    for _ in 0..3 {
        let response = client.check(HealthCheckRequest::default()).await?.into_inner();
        println!("check: {:?}", response.status());
        println!("the server revokes the access token");
        server.revoke_all_access_tokens();
    }
    let obtained = server.counters().token_requests_granted;
    println!("tokens obtained so far: {obtained}");
    if obtained != 3 {
        return Err("broken: expected one refresh for each revocation before a call".into());
    }

    // ===== the error without a token =====
    credentials.log_out().await?;
    match client.check(HealthCheckRequest::default()).await {
        Ok(_) => return Err("broken: a call was sent without a token".into()),
        Err(status) => println!("check: {:?}: {}", status.code(), status.message()),
    }

    // A refresh in flight would end with the runtime. Its response is the only copy of the next refresh token.
    credentials.flush().await?;
    Ok(())
}

/// Serves tonic's health service to callers with a valid token, and returns its URL.
fn serve_health(server: &AuthorizationServer) -> Result<String, BoxError> {
    let server = server.clone();
    let check = move |request: Request<()>| {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        match header.and_then(|value| value.strip_prefix("Bearer ")) {
            Some(token) if server.is_live(token) => Ok(request),
            _ => Err(Status::unauthenticated("the access token is missing or was revoked")),
        }
    };
    let (_reporter, health) = tonic_health::server::health_reporter();
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into())?;
    let url = format!("http://{}", incoming.local_addr()?);
    let service = ServiceBuilder::new().layer(InterceptorLayer::new(check)).service(health);
    tokio::spawn(Server::builder().serve_with_incoming(service, incoming));
    Ok(url)
}
