//! axum in front of an API: `cargo run --example axum_gateway --features axum,hyper-util,testing`
//!
//! Handlers call the API through one client in `State`, which attaches the token; the gateway's callers need none. The program
//! serves on loopback and sends requests to itself. The token is revoked between them, and the gateway shuts down while a response
//! and a refresh are in flight.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower::timeout::error::Elapsed;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_http::trace::{DefaultOnResponse, TraceLayer};
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::replay::ReplayLimit;
use tower_refresh::testing::{AuthorizationServer, Fault};
use tower_refresh::{BoxError, Credentials, OriginError, RefreshLayer, TokenError};
use tracing::Level;

// ===== the gateway =====

/// The state that the handlers share. Cloning it is cheap.
#[derive(Clone)]
struct Gateway {
    api: Arc<str>,
    client: ApiClient,
}

type ApiClient = BoxCloneSyncService<Request<Body>, Response, BoxError>;

impl Gateway {
    fn new(api: String, credentials: &Credentials) -> Result<Self, OriginError> {
        let layer = RefreshLayer::new(credentials.clone()).origin(&api)?;
        Ok(Self { client: client(layer), api: api.into() })
    }

    fn routes(self) -> Router {
        // Every caller of these routes uses the token. Authenticate callers in a layer here.
        Router::new()
            .route("/notes/{id}", get(note))
            .route("/files/{id}", put(upload))
            .layer(TraceLayer::new_for_http())
            .with_state(self)
    }
}

fn client(layer: RefreshLayer) -> ApiClient {
    // For https, use hyper-rustls' connector.
    let http = Client::builder(TokioExecutor::new()).build_http::<Body>();
    BoxCloneSyncService::new(
        ServiceBuilder::new()
            .map_response(|response: http::Response<_>| response.map(Body::new))
            // Limits the whole request: the wait for a token and both attempts. It does not stop a refresh.
            .timeout(Duration::from_secs(60))
            .layer(layer)
            // Traces each attempt, with the path but not the query, which may be secret.
            .layer(
                TraceLayer::new_for_http()
                    .make_span_with(|request: &Request<Body>| {
                        let path = request.uri().path();
                        tracing::info_span!("api", method = %request.method(), path)
                    })
                    .on_response(DefaultOnResponse::new().level(Level::INFO)),
            )
            .service(http),
    )
}

async fn note(State(gateway): State<Gateway>, Path(id): Path<u64>) -> Result<Response, Failure> {
    let request = Request::get(format!("{}/notes/{id}", gateway.api)).body(Body::empty())?;
    pass_back(gateway.client.oneshot(request).await)
}

/// Streams the body to the API. The part that was sent is kept until the response arrives, so that the request can be retried.
/// The limit is higher than for other requests.
async fn upload(
    State(gateway): State<Gateway>,
    Path(id): Path<u64>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let mut request = Request::put(format!("{}/files/{id}", gateway.api))
        .extension(ReplayLimit(8 * 1024 * 1024))
        .body(body)?;
    if let Some(content_type) = headers.get(header::CONTENT_TYPE) {
        request.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
    }
    pass_back(gateway.client.oneshot(request).await)
}

/// Converts the API's response to the caller's. Headers that are not meant for the caller are dropped.
fn pass_back(result: Result<Response, BoxError>) -> Result<Response, Failure> {
    // The request was not sent, or the gateway's token was rejected and there is no newer one.
    if let Some(reason) = TokenError::of(&result) {
        return Err(reason.clone().into());
    }
    let response = result?;
    if response.status() == StatusCode::UNAUTHORIZED {
        return Err(Failure("the API rejects the token".into()));
    }
    let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
    let content_type = content_type.map(|value| [(header::CONTENT_TYPE, value)]);
    Ok((response.status(), content_type, response.into_body()).into_response())
}

/// An error between the gateway and the API. The caller gets a status only.
struct Failure(BoxError);

impl<E: Into<BoxError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.downcast_ref::<TokenError>() {
            Some(error) if error.is_transient() => StatusCode::SERVICE_UNAVAILABLE,
            None if self.0.is::<Elapsed>() => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        };
        tracing::error!(error = %self.0, because = self.0.source(), "no response from the API");
        status.into_response()
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().with_max_level(Level::INFO).init();

    // A server for this example: a token endpoint, and an API that returns the body it receives.
    let server = AuthorizationServer::new();
    let serving = server.serve().await?;

    // ===== all that the program needs =====
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let endpoint = TokenEndpoint::new(http, serving.url("/token"))?;
    let source = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
    let credentials = Credentials::new(source);
    let gateway = Gateway::new(serving.origin(), &credentials)?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = axum::serve(listener, gateway.routes())
        // A real program waits for `tokio::signal::ctrl_c` or SIGTERM.
        .with_graceful_shutdown(async { drop(stopped.await) });
    let at_the_end = credentials.clone();
    let gateway = tokio::spawn(async move {
        let served = serve.await;
        // The requests have ended, but a refresh may be in flight. Its response is the only copy of the next refresh token.
        // There is no error to handle: without a store, nothing has to be saved.
        let _ = at_the_end.flush().await;
        served
    });

    // ===== callers =====
    let caller = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let get = |id: u64| Request::get(format!("{origin}/notes/{id}")).body(Body::empty());
    let response = caller.request(get(1)?).await?;
    println!("a note: {}", response.status());

    server.revoke_all_access_tokens();
    let chunks = (0..100_u8).map(|at| Ok::<_, BoxError>(Bytes::from(vec![at; 10_000])));
    let upload = Request::put(format!("{origin}/files/1"))
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .body(Body::from_stream(stream::iter(chunks)))?;
    let response = caller.request(upload).await?;
    println!("an upload of a megabyte, streamed: {}", response.status());
    let sent: Vec<u8> = (0..100_u8).flat_map(|at| vec![at; 10_000]).collect();
    let same = response.into_body().collect().await?.to_bytes() == sent;
    println!("the API received it unchanged: {same}");

    // The gateway shuts down while the body of one response is in flight, and while a refresh is in flight whose caller has given
    // up.
    server.resource_faults().once(Fault::normal().delay_body(Duration::from_millis(300)));
    let slow = caller.request(get(2)?).await?;
    server.revoke_all_access_tokens();
    server.token_faults().once(Fault::normal().delay(Duration::from_secs(1)));
    let refreshing = async {
        while !credentials.status().refreshing {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = caller.request(get(3)?) => return Err("broken: a response without a token".into()),
        // The caller gives up.
        () = refreshing => {}
    }
    drop(stop);
    let status = slow.status();
    let whole = slow.into_body().collect().await.is_ok();
    println!("a note, requested before the shutdown: {status}, complete: {whole}");
    gateway.await??;
    // This refresh token is valid for the next start of the process.
    let tokens = credentials.current();
    let kept = tokens.as_ref().and_then(|tokens| tokens.refresh_token());
    let kept = kept.is_some_and(|it| server.is_unspent(it.expose_secret()));
    println!("the last refresh token is unspent: {kept}");
    let refused = caller.request(get(4)?).await.is_err();
    println!("requests after the shutdown are refused: {refused}");

    // ===== checks =====
    let counters = server.counters();
    println!(
        "{} responses, {} rejections hidden from callers, {} token requests",
        counters.resource_requests_ok,
        counters.resource_requests_unauthorized,
        counters.token_requests
    );
    let counts = (counters.resource_requests_ok, counters.resource_requests_unauthorized);
    if counts != (3, 2) || counters.token_requests != 3 || !(same && whole && refused && kept) {
        return Err("broken: expected one refresh per rejection, and no loss at shutdown".into());
    }
    Ok(())
}
