//! reqwest: `cargo run --example reqwest --features reqwest,testing`
//!
//! One client serves for the token endpoint and the API. The server revokes the access token before the second request, whose body is
//! in memory, and before the third, whose body is a stream. The requests succeed nevertheless.

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{ClientAuth, RefreshTokenGrant, TokenEndpoint};
use tower_refresh::reqwest::ReqwestService;
use tower_refresh::testing::AuthorizationServer;
use tower_refresh::{BoxError, RefreshLayer};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A server for this example: a token endpoint, and an API that returns the body it receives.
    let server = AuthorizationServer::builder().client("reqwest", "s3cr3t").build();
    let serving = server.serve().await?;

    // ===== a complete client =====
    // Token requests must not follow redirects. If the API redirects, put tower-http's `FollowRedirectLayer` outside the layer.
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    // The server is on loopback, without TLS. A proxy from the environment could read the tokens.
    let http = ReqwestService::new(http.no_proxy().build()?);
    let endpoint = TokenEndpoint::new(http.clone(), serving.url("/token"))?
        .client_auth(ClientAuth::basic("reqwest", "s3cr3t"));
    let source = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
    let layer = RefreshLayer::new(source).origin(serving.origin())?;
    let credentials = layer.credentials().clone();
    let client = ServiceBuilder::new().layer(layer).service(http);

    // ===== requests =====
    let request = Request::get(serving.url("/notes")).body(reqwest::Body::default())?;
    show(client.clone().oneshot(request).await?).await?;

    server.revoke_all_access_tokens();
    let request = Request::post(serving.url("/notes")).body(reqwest::Body::from("a note"))?;
    show(client.clone().oneshot(request).await?).await?;

    server.revoke_all_access_tokens();
    let chunks =
        ["a ", "longer ", "note"].map(|chunk| Ok::<_, BoxError>(Frame::data(Bytes::from(chunk))));
    let body = reqwest::Body::wrap(StreamBody::new(stream::iter(chunks)));
    let request = Request::put(serving.url("/notes/1")).body(body)?;
    show(client.clone().oneshot(request).await?).await?;

    // A refresh in flight would end with the runtime. Its response is the only copy of the next refresh token.
    credentials.flush().await?;

    let counters = server.counters();
    println!(
        "{} responses, {} of them after a rejection that the caller did not see; {} token requests",
        counters.resource_requests_ok,
        counters.resource_requests_unauthorized,
        counters.token_requests
    );
    if (counters.resource_requests_unauthorized, counters.token_requests) != (2, 3) {
        return Err("broken: expected one refresh and one retry for each revocation".into());
    }
    Ok(())
}

async fn show(response: Response<reqwest::Body>) -> Result<(), BoxError> {
    // Convert it to reqwest's response, for its methods: `error_for_status`, `text`, `json`, `bytes_stream`, …
    let response = reqwest::Response::from(response).error_for_status()?;
    println!("{}: {:?}", response.status(), response.text().await?);
    Ok(())
}
