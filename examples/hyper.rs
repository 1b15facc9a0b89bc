//! hyper's client: `cargo run --example hyper --features hyper-util,testing`
//!
//! Sends a request without a body, one with a body in memory and one with a stream. The server revokes the access token
//! before each of the last two; nobody sees it.

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

/// One type for every body that the program sends. A program with bodies in memory only takes `Full<Bytes>`.
type Body = UnsyncBoxBody<Bytes, BoxError>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A server to try it on: a token endpoint, and an API that answers with what it was sent.
    let server = AuthorizationServer::builder().client("hyper", "s3cr3t").build();
    let serving = server.serve().await?;

    // ===== all that a program needs; with hyper-rustls' connector for https =====
    let endpoint = TokenEndpoint::new(
        Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>(),
        serving.url("/token"),
    )?
    .client_auth(ClientAuth::basic("hyper", "s3cr3t"));
    let source = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
    let layer = RefreshLayer::new(source).origin(serving.origin());
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

async fn show(answer: Response<hyper::body::Incoming>) -> Result<(), BoxError> {
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    println!("{status}: {:?}", String::from_utf8_lossy(&body));
    if status.is_success() { Ok(()) } else { Err(format!("the API answered {status}").into()) }
}
