//! gRPC with tonic: a generated client over `RefreshLayer` over a `Channel`.
//!
//! ```text
//! cargo run --example tonic --features hyper-util,testing,tonic
//! ```
//!
//! The authorization server is the crate's own; the gRPC service is tonic's health service, behind an interceptor that
//! looks at the token. Both are on loopback.

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

    // ===== the client: this is all that a program needs =====
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let endpoint = TokenEndpoint::new(http, serving.url("/token"))?;
    let source = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
    // No origin: the channel knows where the calls go.
    let layer = RefreshLayer::new(source);
    let credentials = layer.credentials().clone();
    // If your server says UNAUTHENTICATED in trailers, `grpc::HoldTrailersLayer` goes between these two.
    let mut client = HealthClient::new(ServiceBuilder::new().layer(layer).service(channel));

    // ===== calls, over a revocation =====
    let mut watched = client.watch(HealthCheckRequest::default()).await?.into_inner();
    println!("watch: {:?}", watched.message().await?.map(|answer| answer.status()));
    for _ in 0..3 {
        let answer = client.check(HealthCheckRequest::default()).await?.into_inner();
        println!("check: {:?}", answer.status());
        println!("the server revokes the access token");
        server.revoke_all_access_tokens();
    }
    let obtained = server.counters().token_requests_granted;
    println!("tokens obtained so far: {obtained}");
    if obtained != 3 {
        return Err("broken: one refresh for each revocation that a call has met".into());
    }

    // ===== what a caller sees when there is no token =====
    credentials.forget().await?;
    match client.check(HealthCheckRequest::default()).await {
        Ok(_) => return Err("broken: a call without a token".into()),
        Err(status) => println!("check: {:?}: {}", status.code(), status.message()),
    }

    // A refresh that is under way has the only copy of the next refresh token.
    credentials.flush().await?;
    Ok(())
}

/// Serves tonic's health service to whoever has a token that is alive, and returns its URL.
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
