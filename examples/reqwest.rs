//! reqwest: `cargo run --example reqwest --features reqwest,testing`
//!
//! One client asks the token endpoint and the API. The server revokes the access token before the second request, which is
//! in memory, and before the third, which is a stream; nobody sees it.

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
    // A server to try it on: a token endpoint, and an API that answers with what it was sent.
    let server = AuthorizationServer::builder().client("reqwest", "s3cr3t").build();
    let serving = server.serve().await?;

    // ===== all that a program needs =====
    // Refresh tokens follow no redirect. If the API redirects, put tower-http's `FollowRedirectLayer` outside the layer.
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    // The server is on loopback, without TLS. A proxy that the environment names could read the tokens.
    let http = ReqwestService::new(http.no_proxy().build()?);
    let endpoint = TokenEndpoint::new(http.clone(), serving.url("/token"))?
        .client_auth(ClientAuth::basic("reqwest", "s3cr3t"));
    let source = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
    let layer = RefreshLayer::new(source).origin(serving.origin());
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

    // A refresh that is under way ends with the runtime, and its answer is the only copy of the next refresh token.
    credentials.flush().await?;

    let counters = server.counters();
    println!(
        "{} answers, {} of them after a rejection that nobody saw; {} token requests",
        counters.resource_requests_ok,
        counters.resource_requests_unauthorized,
        counters.token_requests
    );
    if (counters.resource_requests_unauthorized, counters.token_requests) != (2, 3) {
        return Err("broken: one refresh and one retry for each revocation".into());
    }
    Ok(())
}

async fn show(answer: Response<reqwest::Body>) -> Result<(), BoxError> {
    // Back to reqwest's response, for its methods: `error_for_status`, `text`, `json`, `bytes_stream`, ...
    let answer = reqwest::Response::from(answer).error_for_status()?;
    println!("{}: {:?}", answer.status(), answer.text().await?);
    Ok(())
}
