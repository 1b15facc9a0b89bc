//! axum in front of an API: `cargo run --example axum_gateway --features axum,testing`
//!
//! Handlers call the API through clients in `State`, which share one token; callers know nothing of it. The program serves
//! on loopback, sends itself some requests, has the token revoked before each, and shuts down while the last is under way.

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
use tower_refresh::testing::{AuthorizationServer, Fault};
use tower_refresh::{BoxError, Credentials, RefreshLayer, TokenError};
use tracing::Level;

// ===== the gateway =====

/// What the handlers share. Cloning it is cheap.
#[derive(Clone)]
struct Gateway {
    api: Arc<str>,
    notes: ApiClient,
    files: ApiClient,
}

type ApiClient = BoxCloneSyncService<Request<Body>, Response, BoxError>;

impl Gateway {
    /// Two clients, each with patience and limits of its own: one token, and one refresh at a time, for both.
    fn new(api: String, credentials: &Credentials<RefreshTokenGrant>) -> Self {
        let layer = RefreshLayer::with_credentials(credentials.clone()).origin(&api);
        Self {
            notes: client(layer.clone(), Duration::from_secs(10)),
            files: client(layer.replay_limit(8 * 1024 * 1024), Duration::from_secs(300)),
            api: api.into(),
        }
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

fn client(layer: RefreshLayer<RefreshTokenGrant>, patience: Duration) -> ApiClient {
    // With hyper-rustls' connector for https.
    let http = Client::builder(TokioExecutor::new()).build_http::<Body>();
    BoxCloneSyncService::new(
        ServiceBuilder::new()
            .map_response(|answer: http::Response<_>| answer.map(Body::new))
            // For all of it: the wait for a token, and both attempts. It stops no refresh.
            .timeout(patience)
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
    pass_back(gateway.notes.oneshot(request).await?)
}

/// Passes the body on as it comes. What was sent is kept until the answer is there, up to `replay_limit`.
async fn upload(
    State(gateway): State<Gateway>,
    Path(id): Path<u64>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let mut request = Request::put(format!("{}/files/{id}", gateway.api)).body(body)?;
    if let Some(content_type) = headers.get(header::CONTENT_TYPE) {
        request.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
    }
    pass_back(gateway.files.oneshot(request).await?)
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
    let gateway = tokio::spawn(async move {
        let served = serve.await;
        // Requests have ended, and a refresh may not: its answer is the only copy of the next refresh token.
        credentials.settled().await;
        served.map(|()| credentials)
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

    // The last one is slow, and its token is rejected too; the gateway is told to stop in the midst of it.
    server.revoke_all_access_tokens();
    server.token_faults().once(Fault::honest().delay(Duration::from_millis(300)));
    let rejections = server.counters().resource_requests_unauthorized;
    let last = tokio::spawn(caller.request(get(2)?));
    let rejected = async {
        while server.counters().resource_requests_unauthorized == rejections {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(10), rejected).await;
    in_time.map_err(|_| "broken: a revoked token is sent and rejected")?;
    drop(stop);
    let answer = last.await??;
    println!("a note, asked for before the shutdown: {}", answer.status());
    let credentials = gateway.await??;
    let refused = caller.request(get(3)?).await.is_err();
    println!("afterwards the gateway answers nobody: {refused}");

    // ===== what must have happened =====
    let counters = server.counters();
    println!(
        "{} answers, {} rejections that nobody saw, {} token requests",
        counters.resource_requests_ok,
        counters.resource_requests_unauthorized,
        counters.token_requests
    );
    let tokens = credentials.token().await?;
    let kept = tokens.refresh_token().is_some_and(|it| server.is_unspent(it.expose_secret()));
    let counts = (counters.resource_requests_ok, counters.resource_requests_unauthorized);
    if counts != (3, 2) || counters.token_requests != 3 || !(same && refused && kept) {
        return Err("broken: each rejected request is renewed and sent again, once".into());
    }
    Ok(())
}
