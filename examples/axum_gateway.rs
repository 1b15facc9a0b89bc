//! axum in front of an API: `cargo run --example axum_gateway --features axum,hyper-util,testing`
//!
//! Handlers call the API through one client in `State`, which has the token; callers know nothing of it. The program serves
//! on loopback, sends itself some requests, has the token revoked between them, and shuts down while an answer and a refresh
//! are under way.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
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
use tower_refresh::testing::{AuthorizationServer, Fault};
use tower_refresh::{BoxError, Credentials, RefreshLayer, ReplayLimit, TokenError};
use tracing::Level;

// ===== the gateway =====

/// What the handlers share. Cloning it is cheap.
#[derive(Clone)]
struct Gateway {
    api: Arc<str>,
    client: ApiClient,
}

type ApiClient = BoxCloneSyncService<Request<Body>, Response, BoxError>;

impl Gateway {
    fn new(api: String, credentials: &Credentials<RefreshTokenGrant>) -> Self {
        let layer = RefreshLayer::with_credentials(credentials.clone()).origin(&api);
        Self { client: client(layer), api: api.into() }
    }

    fn routes(self) -> Router {
        // Whoever gets this far uses the token: who may is to be asked by a layer out here.
        Router::new()
            .route("/notes/{id}", get(note))
            .route("/files/{id}", put(upload))
            .layer(TraceLayer::new_for_http())
            .with_state(self)
    }
}

fn client(layer: RefreshLayer<RefreshTokenGrant>) -> ApiClient {
    // With hyper-rustls' connector for https.
    let http = Client::builder(TokioExecutor::new()).build_http::<Body>();
    BoxCloneSyncService::new(
        ServiceBuilder::new()
            .map_response(|answer: http::Response<_>| answer.map(Body::new))
            // For all of it: the wait for a token, and both attempts. It stops no refresh.
            .timeout(Duration::from_secs(60))
            .layer(layer)
            // For each attempt. Of the URL only the path: a query may be a secret.
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
    pass_back(gateway.client.oneshot(request).await?)
}

/// Passes the body on as it comes. What was sent is kept until the answer is there, so that it can be sent again: of an
/// upload more than of other requests.
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
    pass_back(gateway.client.oneshot(request).await?)
}

/// Makes the caller's answer out of the API's: of its headers those that are meant for the caller.
fn pass_back(answer: Response) -> Result<Response, Failure> {
    if answer.status() == StatusCode::UNAUTHORIZED {
        // Ours is the token that was rejected. If there was no newer one, this is why.
        let why = answer.extensions().get::<TokenError>().cloned();
        return Err(why.map_or_else(|| Failure("the API rejects the token".into()), Failure::from));
    }
    let content_type = answer.headers().get(header::CONTENT_TYPE).cloned();
    let content_type = content_type.map(|value| [(header::CONTENT_TYPE, value)]);
    Ok((answer.status(), content_type, answer.into_body()).into_response())
}

/// What went wrong between the gateway and the API: the caller learns no more than the kind of it.
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
        tracing::error!(error = %self.0, because = self.0.source(), "no answer from the API");
        status.into_response()
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().with_max_level(Level::INFO).init();

    // A server to try it on: a token endpoint, and an API that answers with what it was sent.
    let server = AuthorizationServer::new();
    let serving = server.serve().await?;

    // ===== all that the program needs =====
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let endpoint = TokenEndpoint::new(http, serving.url("/token"))?;
    let source = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
    let credentials = Credentials::new(source);
    let gateway = Gateway::new(serving.origin(), &credentials);

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = axum::serve(listener, gateway.routes())
        // In life: until `tokio::signal::ctrl_c` or SIGTERM.
        .with_graceful_shutdown(async { drop(stopped.await) });
    let at_the_end = credentials.clone();
    let gateway = tokio::spawn(async move {
        let served = serve.await;
        // Requests have ended, and a refresh may not: its answer is the only copy of the next refresh token.
        // Without a store there is nothing to save, so that there is no error.
        let _ = at_the_end.flush().await;
        served
    });

    // ===== callers =====
    let caller = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let get = |id: u64| Request::get(format!("{origin}/notes/{id}")).body(Body::empty());
    let answer = caller.request(get(1)?).await?;
    println!("a note: {}", answer.status());

    server.revoke_all_access_tokens();
    let chunks = (0..100_u8).map(|at| Ok::<_, BoxError>(Bytes::from(vec![at; 10_000])));
    let upload = Request::put(format!("{origin}/files/1"))
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .body(Body::from_stream(stream::iter(chunks)))?;
    let answer = caller.request(upload).await?;
    println!("an upload of a megabyte, streamed: {}", answer.status());
    let sent: Vec<u8> = (0..100_u8).flat_map(|at| vec![at; 10_000]).collect();
    let same = answer.into_body().collect().await?.to_bytes() == sent;
    println!("the API got it byte for byte: {same}");

    // The gateway is told to stop while the body of one answer is on its way, and while a token is renewed that nobody
    // waits for any more.
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
        _ = caller.request(get(3)?) => return Err("broken: there is no answer without a token".into()),
        // Here the caller gives up.
        () = refreshing => {}
    }
    drop(stop);
    let status = slow.status();
    let whole = slow.into_body().collect().await.is_ok();
    println!("a note, asked for before the shutdown: {status}, whole: {whole}");
    gateway.await??;
    // A process that ended now would have this refresh token for the next start.
    let tokens = credentials.token().now_or_never().transpose()?;
    let kept = tokens.as_ref().and_then(|tokens| tokens.refresh_token());
    let kept = kept.is_some_and(|it| server.is_unspent(it.expose_secret()));
    println!("the refresh token that it leaves behind is unspent: {kept}");
    let refused = caller.request(get(4)?).await.is_err();
    println!("afterwards the gateway answers nobody: {refused}");

    // ===== what must have happened =====
    let counters = server.counters();
    println!(
        "{} answers, {} rejections that nobody saw, {} token requests",
        counters.resource_requests_ok,
        counters.resource_requests_unauthorized,
        counters.token_requests
    );
    let counts = (counters.resource_requests_ok, counters.resource_requests_unauthorized);
    if counts != (3, 2) || counters.token_requests != 3 || !(same && whole && refused && kept) {
        return Err("broken: a rejection costs one refresh, and a shutdown loses nothing".into());
    }
    Ok(())
}
