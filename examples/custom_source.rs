//! Tokens that do not come from an OAuth token endpoint: `cargo run --example custom_source --features testing`
//!
//! Implements `TokenSource` for a metadata server, such as cloud providers run for each machine, and maps its errors to the four
//! kinds of `TokenError`. For simple cases, use a closure, as in the second part.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use tokio::time::timeout;
use tower::{Layer as _, ServiceExt as _};
use tower_refresh::testing::AuthorizationServer;
use tower_refresh::{
    BoxError, Cause, RefreshLayer, Renewal, TokenError, TokenSet, TokenSource, source_fn,
};

/// The time limit for the metadata server, which is nearby.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The metadata server of the machine that the program runs on.
struct MetadataServer {
    http: Client<HttpConnector, Full<Bytes>>,
    url: String,
}

/// The response of the metadata server.
#[derive(Deserialize)]
struct Response {
    access_token: String,
    /// In seconds, like `refresh_in`.
    expires_in: u64,
    refresh_in: Option<u64>,
}

impl TokenSource for MetadataServer {
    async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
        // The server returns the same token until it is about to expire, unless a fresh one is requested.
        let query = if renewal.cause() == Cause::Rejected { "?fresh=true" } else { "" };
        let body = self.ask(Method::GET, query).await?;
        let response: Response = serde_json::from_slice(&body)
            // The error is dropped, because its text may quote the token.
            .map_err(|_| {
                TokenError::transient("the response of the metadata server is malformed")
            })?;
        let mut tokens = TokenSet::bearer(response.access_token)?
            .with_expires_in(Duration::from_secs(response.expires_in));
        if let Some(seconds) = response.refresh_in {
            tokens = tokens.with_refresh_in(Duration::from_secs(seconds));
        }
        Ok(tokens)
    }
}

impl MetadataServer {
    /// Logs out. A source is only asked for tokens: to end a session at the server is up to the program.
    async fn log_out(&self) -> Result<(), TokenError> {
        self.ask(Method::DELETE, "").await.map(drop)
    }

    async fn ask(&self, method: Method, query: &str) -> Result<Bytes, TokenError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{query}", self.url))
            // Metadata servers require a header that a browser cannot be tricked into sending.
            .header("metadata", "true")
            .body(Full::default())
            .map_err(|_| TokenError::misconfigured("the URL of the metadata server is invalid"))?;
        let exchange = async {
            let response = self.http.request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), 64 * 1024).collect().await?.to_bytes();
            Ok::<_, BoxError>((status, body))
        };
        // A request spends nothing, so no outcome is ambiguous: every failure may be retried.
        let (status, body) = match timeout(TIMEOUT, exchange).await {
            Ok(exchange) => exchange.map_err(TokenError::transient)?,
            Err(_) => return Err(TokenError::transient("the metadata server does not respond")),
        };
        match status {
            status if status.is_success() => Ok(body),
            // A person must act: give the machine an identity, or restore the rights of this identity.
            StatusCode::NOT_FOUND => Err(TokenError::misconfigured("this machine has no identity")),
            StatusCode::FORBIDDEN => {
                Err(TokenError::denied("the identity of this machine was withdrawn"))
            }
            status => Err(TokenError::transient(format!("the metadata server returned {status}"))),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Servers for this example: an API that accepts the tokens of `server`, and a metadata server that issues them.
    let server = AuthorizationServer::new();
    let serving = server.serve().await?;
    let metadata = metadata::serve(server.clone()).await?;
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let get = || Request::get(serving.url("/things")).body(Full::default());

    // ===== a `TokenSource` =====
    let source = Arc::new(MetadataServer { http: http.clone(), url: metadata.url.clone() });
    let layer = RefreshLayer::new(Arc::clone(&source)).origin(serving.origin())?;
    let credentials = layer.credentials().clone();
    let client = layer.layer(http.clone());
    for what in ["with a new token", "after a revocation"] {
        let status = client.clone().oneshot(get()?).await?.status();
        println!("metadata server: {status} {what}");
        if !status.is_success() {
            return Err(format!("broken: the API returned {status}").into());
        }
        server.revoke_all_access_tokens();
    }
    credentials.log_out().await?;
    source.log_out().await?;
    println!("metadata server: {} log-out received", metadata.log_outs());

    // The caller of a request gets the error of the source. The request was not sent.
    metadata.withdraw();
    let result = client.oneshot(get()?).await;
    let error = TokenError::of(&result).ok_or("broken: a request was sent without a token")?;
    println!("metadata server: {error}; log in again: {}", error.must_log_in());
    if metadata.log_outs() != 1 || !error.must_log_in() {
        return Err("broken: the log-out or the error was lost".into());
    }

    // ===== a closure =====
    // `issue` stands for any other origin of a token: a broker, a command, a secret that the platform mounts.
    let calls = Arc::new(AtomicUsize::new(0));
    let (broker, counted) = (server.clone(), Arc::clone(&calls));
    let source = source_fn(move |renewal| {
        let (broker, call) = (broker.clone(), counted.fetch_add(1, Ordering::Relaxed) + 1);
        async move {
            println!("closure: call {call}, because the token is {:?}", renewal.cause());
            Ok(broker.issue())
        }
    });
    let client = RefreshLayer::new(source).origin(serving.origin())?.layer(http);
    for _ in 0..2 {
        let status = client.clone().oneshot(get()?).await?.status();
        println!("closure: {status}");
        if !status.is_success() {
            return Err(format!("broken: the API returned {status}").into());
        }
        server.revoke_all_access_tokens();
    }
    if calls.load(Ordering::Relaxed) != 2 {
        return Err("broken: expected one call, and another after the revocation".into());
    }
    Ok(())
}

/// A metadata server for this example.
mod metadata {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::routing::get;
    use serde_json::json;
    use tokio::net::TcpListener;
    use tower_refresh::testing::AuthorizationServer;

    pub(crate) struct Metadata {
        pub(crate) url: String,
        state: Arc<Inner>,
    }

    struct Inner {
        server: AuthorizationServer,
        log_outs: AtomicUsize,
        withdrawn: AtomicBool,
    }

    /// Serves until the program ends.
    pub(crate) async fn serve(server: AuthorizationServer) -> io::Result<Metadata> {
        let inner =
            Inner { server, log_outs: AtomicUsize::new(0), withdrawn: AtomicBool::new(false) };
        let state = Arc::new(inner);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/identity/token", listener.local_addr()?);
        let router = axum::Router::new()
            .route("/identity/token", get(token).delete(log_out))
            .with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Metadata { url, state })
    }

    async fn token(State(state): State<Arc<Inner>>) -> Result<String, StatusCode> {
        if state.withdrawn.load(Ordering::Relaxed) {
            return Err(StatusCode::FORBIDDEN);
        }
        let token = state.server.issue();
        let token = token.access_token().expose_secret();
        let response = json!({ "access_token": token, "expires_in": 3600, "refresh_in": 3000 });
        Ok(response.to_string())
    }

    async fn log_out(State(state): State<Arc<Inner>>) {
        state.log_outs.fetch_add(1, Ordering::Relaxed);
    }

    impl Metadata {
        pub(crate) fn log_outs(&self) -> usize {
            self.state.log_outs.load(Ordering::Relaxed)
        }

        pub(crate) fn withdraw(&self) {
            self.state.withdrawn.store(true, Ordering::Relaxed);
        }
    }
}
