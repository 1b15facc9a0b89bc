//! hyper's client: `cargo run --example hyper --features hyper-util,testing`
//!
//! Sends a request without a body, one with a body in memory and one with a stream. The server revokes the access token before each
//! of the last two. The requests succeed nevertheless.

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{ClientAuth, RefreshTokenGrant, TokenEndpoint};
use tower_refresh::testing::AuthorizationServer;
use tower_refresh::{BoxError, RefreshLayer};

/// One type for all bodies that the program sends. If all of them are in memory, use `Full<Bytes>`.
type Body = UnsyncBoxBody<Bytes, BoxError>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A server for this example: a token endpoint, and an API that returns the body it receives.
    let server = AuthorizationServer::builder().client("hyper", "s3cr3t").build();
    let serving = server.serve().await?;

    // ===== a complete client; for https, use hyper-rustls' connector =====
    let endpoint = TokenEndpoint::new(
        Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>(),
        serving.url("/token"),
    )?
    .client_auth(ClientAuth::basic("hyper", "s3cr3t"));
    let source = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
    let layer = RefreshLayer::new(source).origin(serving.origin())?;
    let credentials = layer.credentials().clone();
    let client = ServiceBuilder::new()
        .layer(layer)
        .service(Client::builder(TokioExecutor::new()).build_http::<Body>());

    // ===== requests =====
    let request = Request::get(serving.url("/notes")).body(empty())?;
    show(client.clone().oneshot(request).await?).await?;

    server.revoke_all_access_tokens();
    let request = Request::post(serving.url("/notes")).body(in_memory("a note"))?;
    show(client.clone().oneshot(request).await?).await?;

    server.revoke_all_access_tokens();
    let request =
        Request::put(serving.url("/notes/1")).body(streamed(["a ", "longer ", "note"]))?;
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

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn in_memory(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn streamed<const N: usize>(chunks: [&'static str; N]) -> Body {
    let frames = chunks.map(|chunk| Ok(Frame::data(Bytes::from(chunk))));
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

async fn show(response: Response<hyper::body::Incoming>) -> Result<(), BoxError> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    println!("{status}: {:?}", String::from_utf8_lossy(&body));
    if status.is_success() { Ok(()) } else { Err(format!("the API returned {status}").into()) }
}
