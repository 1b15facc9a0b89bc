//! axum's body, sent twice: to a router that is the inner service, and from a handler to an API over real sockets.

use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::replay::ReplayLimit;
use tower_refresh::testing::{AuthorizationServer, Serving};
use tower_refresh::{BoxError, Refresh, RefreshLayer, StaticToken};

use crate::harness::{Mint, token_of};

// ===== a router as the inner service =====

#[tokio::test]
async fn a_body_in_memory_is_sent_again_with_its_length() {
    let whole = bytes(100_000);
    let mut request = post(Body::from(whole.clone()));
    request.extensions_mut().insert(ReplayLimit(100_000));
    let seen = send(request).await;
    assert_eq!((seen.status, seen.body), (StatusCode::OK, whole));
    assert_eq!((seen.length, seen.calls), (Some(100_000), 2));
}

#[tokio::test]
async fn a_stream_is_sent_again_with_its_trailers() {
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", HeaderValue::from_static("42"));
    let frames = (0..100).map(|at| Ok::<_, io::Error>(Frame::data(Bytes::from(vec![at; 500]))));
    let frames = frames.chain([Ok(Frame::trailers(trailers.clone()))]).collect::<Vec<_>>();
    let seen = send(post(Body::new(StreamBody::new(stream::iter(frames))))).await;
    let whole: Vec<u8> = (0..100).flat_map(|at| vec![at; 500]).collect();
    assert_eq!((seen.status, seen.body), (StatusCode::OK, whole.into()));
    assert_eq!((seen.trailers, seen.calls), (Some(trailers), 2));
}

#[tokio::test]
async fn empty_body_is_sent_again_with_any_limit() {
    let mut request = post(Body::empty());
    request.extensions_mut().insert(ReplayLimit(0));
    let seen = send(request).await;
    assert_eq!((seen.status, seen.calls), (StatusCode::OK, 2));
}

#[tokio::test]
async fn a_stream_over_the_limit_leaves_its_caller_the_rejection() {
    let seen = send(post(stream_of(&bytes(100_000)))).await;
    assert_eq!((seen.status, seen.calls), (StatusCode::UNAUTHORIZED, 2));
    let mut request = post(stream_of(&bytes(100_000)));
    request.extensions_mut().insert(ReplayLimit(100_000));
    assert_eq!(send(request).await.status, StatusCode::OK);
}

/// The response that the caller got. `calls` counts the fetches of a token.
struct Seen {
    status: StatusCode,
    body: Bytes,
    trailers: Option<HeaderMap>,
    /// The `Content-Length` that the router received.
    length: Option<u64>,
    calls: usize,
}

/// Sends a request to a router that rejects the first token, and otherwise echoes the request.
async fn send(request: Request<Body>) -> Seen {
    let router = Router::new().fallback(async |request: Request<Body>| {
        let rejected = token_of(&request) == Some("t1");
        let length = request.body().size_hint().exact();
        let collected = request.into_body().collect().await.unwrap();
        let mut response = Response::new(Body::new(collected));
        response.extensions_mut().insert(length);
        if rejected {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        response
    });
    let source = Mint::without_expiry().delay(Duration::ZERO);
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(source.clone()).origin("https://api.test").unwrap())
        .service(router);
    let answer = client.oneshot(request).await.unwrap();
    let (status, length) = (answer.status(), *answer.extensions().get::<Option<u64>>().unwrap());
    let collected = answer.into_body().collect().await.unwrap();
    // A rejection refreshes the token even if the request is not sent again.
    for _ in 0..1000 {
        if source.calls() == 2 {
            break;
        }
        tokio::task::yield_now().await;
    }
    let trailers = collected.trailers().cloned();
    Seen { status, body: collected.to_bytes(), trailers, length, calls: source.calls() }
}

// ===== a handler that forwards its body =====

#[tokio::test]
async fn a_handler_passes_a_body_on_as_it_comes_and_it_is_sent_again() {
    let gateway = Gateway::serve().await;
    assert_eq!(gateway.put(stream_of(b"first")).await, (StatusCode::OK, "first".into()));
    gateway.server.revoke_all_access_tokens();
    let whole = bytes(60_000);
    assert_eq!(gateway.put(stream_of(&whole)).await, (StatusCode::OK, whole));
    gateway.server.revoke_all_access_tokens();
    assert_eq!(gateway.put(Body::from("third")).await, (StatusCode::OK, "third".into()));
    let counters = gateway.server.counters();
    assert_eq!((counters.resource_requests_unauthorized, counters.token_requests), (2, 3));
}

#[tokio::test]
async fn of_a_body_over_the_limit_the_handler_sees_the_rejection() {
    let gateway = Gateway::serve().await;
    gateway.put(Body::empty()).await;
    gateway.server.revoke_all_access_tokens();
    assert_eq!(gateway.put(stream_of(&bytes(100_000))).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(gateway.put(Body::from("next")).await, (StatusCode::OK, "next".into()));
}

#[tokio::test]
async fn aborted_caller_leaves_no_complete_body_at_the_api() {
    // Reports when a body has begun, and how it ended.
    let (tell, mut told) = mpsc::unbounded_channel();
    let api = serve(Router::new().fallback(async move |mut body: Body| {
        // A task of its own: the handler ends with its connection.
        let reading = tokio::spawn(async move {
            body.frame().await.unwrap().unwrap();
            tell.send(None).unwrap();
            tell.send(Some(body.collect().await.is_ok())).unwrap();
        });
        drop(reading.await);
    }))
    .await;
    let source = StaticToken::new("sesame".parse().unwrap());
    let upstream = upstream(RefreshLayer::new(source).origin(&api).unwrap());
    let gateway = serve(Router::new().fallback(pass_on).with_state((api, upstream))).await;

    let (go_away, gone) = oneshot::channel::<()>();
    let half = stream::iter([Ok(Bytes::from_static(b"half"))]);
    let cut = stream::once(async move {
        drop(gone.await);
        Err(io::Error::other("the caller goes away"))
    });
    let body = Body::from_stream(half.chain(cut));
    let caller = Client::builder(TokioExecutor::new()).build_http();
    let request = tokio::spawn(caller.request(Request::put(gateway).body(body).unwrap()));
    assert_eq!(told.recv().await, Some(None));
    drop(go_away);
    assert_eq!(told.recv().await, Some(Some(false)));
    assert!(request.await.unwrap().is_err());
}

type Upstream = Refresh<Client<HttpConnector, Body>>;

fn upstream(layer: RefreshLayer) -> Upstream {
    layer.layer(Client::builder(TokioExecutor::new()).build_http())
}

struct Gateway {
    server: AuthorizationServer,
    _serving: Serving,
    url: String,
    caller: Client<HttpConnector, Body>,
}

impl Gateway {
    async fn serve() -> Self {
        let server = AuthorizationServer::new();
        let serving = server.serve().await.unwrap();
        let http = Client::builder(TokioExecutor::new()).build_http();
        let endpoint = TokenEndpoint::new(http, serving.url("/token")).unwrap();
        let source = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
        let upstream = upstream(RefreshLayer::new(source).origin(serving.origin()).unwrap());
        let router = Router::new().fallback(pass_on).with_state((serving.url("/files"), upstream));
        let url = serve(router).await;
        let caller = Client::builder(TokioExecutor::new()).build_http();
        Self { server, _serving: serving, url, caller }
    }

    async fn put(&self, body: Body) -> (StatusCode, Bytes) {
        let request = Request::put(&self.url).body(body).unwrap();
        let (head, body) = self.caller.request(request).await.unwrap().into_parts();
        (head.status, body.collect().await.unwrap().to_bytes())
    }
}

async fn pass_on(
    State((url, upstream)): State<(String, Upstream)>,
    body: Body,
) -> Result<Response<Body>, StatusCode> {
    let answer = upstream.oneshot(Request::put(url).body(body).unwrap()).await;
    let mut answer = answer.map_err(|_: BoxError| StatusCode::BAD_GATEWAY)?;
    // Hop by hop (RFC 9110 §7.6.1).
    answer.headers_mut().remove(header::CONNECTION);
    Ok(answer.map(Body::new))
}

/// Serves until the runtime ends, and returns the origin.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    origin
}

// ===== bodies =====

fn post(body: Body) -> Request<Body> {
    Request::post("https://api.test/").body(body).unwrap()
}

fn stream_of(whole: &[u8]) -> Body {
    let chunks = whole.chunks(7_000).map(|chunk| Ok::<_, io::Error>(Bytes::copy_from_slice(chunk)));
    Body::from_stream(stream::iter(chunks.collect::<Vec<_>>()))
}

fn bytes(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251) as u8).collect()
}
