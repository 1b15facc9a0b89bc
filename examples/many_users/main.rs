//! A web backend that calls an API for many users, each with a refresh token of their own.
//!
//! ```text
//! cargo run --example many_users --features axum,hyper-util,pool,serde,store,testing
//! ```
//!
//! [`backend`] is the part to copy: axum, sessions by cookie, log-in, log-out with revocation, `/health`, and one client for all users
//! that attaches the token of the session's user. [`demo`] is 50 browsers. They log in and send requests while all access tokens
//! are revoked, while the token endpoint is down, and after one user has logged out and another has lost the session at the
//! authorization server. The server is that of `tower_refresh::testing`, on loopback.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program has no importers, and uses the real clock"
)]

mod backend;
mod demo;
mod sessions;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower_refresh::BoxError;
use tower_refresh::oauth2::{ClientAuth, Revocation, TokenEndpoint};
use tower_refresh::testing::AuthorizationServer;
use tracing::Level;

use crate::backend::Backend;
use crate::demo::{PASSWORD, USERS, name};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().with_max_level(Level::ERROR).init();

    // A server for this example: a token endpoint, a revocation endpoint, and an API.
    let server = (0..USERS)
        .fold(AuthorizationServer::builder(), |server, user| server.user(name(user), PASSWORD))
        .client("many-users", "s3cr3t")
        .build();
    let serving = server.serve().await?;

    // ===== the backend =====
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let endpoint = TokenEndpoint::new(http, serving.url("/token"))?
        .client_auth(ClientAuth::basic("many-users", "s3cr3t"));
    let revocation = Revocation::new(endpoint.clone().with_url(&serving.url("/revoke"))?);
    let backend = Backend::new(endpoint, revocation, &serving.origin())?;
    let pool = backend.pool().clone();

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = axum::serve(listener, backend.routes())
        // A real program waits for `tokio::signal::ctrl_c` or SIGTERM.
        .with_graceful_shutdown(async { drop(stopped.await) });
    let at_the_end = pool.clone();
    let backend = tokio::spawn(async move {
        let served = serve.await;
        // The requests have ended, but a refresh may be in flight. Its response is the only copy of the next refresh token.
        let flushed = at_the_end.flush().await;
        served.map_err(BoxError::from).and(flushed.map_err(BoxError::from))
    });

    let figures = demo::run(&server, &origin, &pool).await?;
    drop(stop);
    backend.await??;
    figures.report()
}
