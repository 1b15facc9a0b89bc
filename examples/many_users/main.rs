//! A web backend that calls an API for many users, each with a refresh token of their own.
//!
//! ```text
//! cargo run --example many_users --features axum,hyper-util,pool,postgres,serde,testing
//! cargo run --example many_users --features axum,hyper-util,pool,postgres,serde,testing -- --postgres postgres://user@127.0.0.1/db
//! ```
//!
//! Sessions and tokens are in memory, or in PostgreSQL with `--postgres`. Then the backend is also started again, and no user logs in
//! again.
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
mod storage;

use std::future::IntoFuture as _;
use std::io;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower_refresh::oauth2::{ClientAuth, Revocation, TokenEndpoint};
use tower_refresh::testing::AuthorizationServer;
use tower_refresh::{BoxError, CredentialsPool};
use tracing::Level;

use crate::backend::{Backend, User};
use crate::demo::{PASSWORD, USERS, name};
use crate::storage::Storage;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().with_max_level(Level::ERROR).init();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let storage = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Storage::in_memory(),
        ["--postgres", url] => Storage::in_postgres(url).await?,
        _ => return Err("usage: many_users [--postgres URL]".into()),
    };

    // A server for this example: a token endpoint, a revocation endpoint, and an API.
    let server = (0..USERS)
        .fold(AuthorizationServer::builder(), |server, user| server.user(name(user), PASSWORD))
        .client("many-users", "s3cr3t")
        .build();
    let serving = server.serve().await?;

    let start = async || {
        let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let endpoint = TokenEndpoint::new(http, serving.url("/token"))?
            .client_auth(ClientAuth::basic("many-users", "s3cr3t"));
        let revocation = Revocation::new(endpoint.clone().with_url(serving.url("/revoke"))?);
        let backend = Backend::new(endpoint, revocation, &serving.origin(), storage.clone())?;
        Running::start(backend).await
    };
    let backend = start().await?;
    let mut shown = demo::run(&server, &backend.origin, &backend.pool).await?;
    backend.stop().await?;
    if storage.tokens.is_some() {
        let backend = start().await?;
        shown.after_a_restart(&backend.origin).await?;
        backend.stop().await?;
    }
    shown.report()
}

/// The backend on a port of loopback.
struct Running {
    origin: String,
    pool: CredentialsPool<User>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

impl Running {
    async fn start(backend: Backend) -> Result<Self, BoxError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let origin = format!("http://{}", listener.local_addr()?);
        let pool = backend.pool().clone();
        let (stop, stopped) = oneshot::channel();
        let serve = axum::serve(listener, backend.routes())
            // A real program waits for `tokio::signal::ctrl_c` or SIGTERM.
            .with_graceful_shutdown(async { drop(stopped.await) });
        let served = tokio::spawn(serve.into_future());
        Ok(Self { origin, pool, stop, served })
    }

    async fn stop(self) -> Result<(), BoxError> {
        drop(self.stop);
        self.served.await??;
        // The requests have ended, but a refresh may be in flight. Its response is the only copy of the next refresh token.
        self.pool.flush().await?;
        Ok(())
    }
}
