//! reqwest beneath the layer and at the token endpoint, over real sockets.
#![allow(clippy::disallowed_types, reason = "locks shared with the code under test")]

use std::error::Error;
use std::future::{Future, ready};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use bytes::Bytes;
use futures_util::future::join;
use futures_util::{StreamExt as _, stream};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header,
};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use reqwest::dns::{Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{pause, resume, timeout};
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_refresh::oauth2::{BodyFormat, Dialect, RefreshTokenGrant, TokenEndpoint};
use tower_refresh::reqwest::{ReqwestService, ResponseFuture};
use tower_refresh::testing::{AuthorizationServer, Fault, Serving};
use tower_refresh::{BoxError, Refresh, RefreshLayer, StaticToken};

use crate::harness::{self, ClosedPort, Mint};

// ===== bodies =====

#[tokio::test]
async fn a_rejected_request_is_sent_again_with_the_same_bytes() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let api = Api::serve(version).await;
        assert_eq!(api.post("/", "first").await, (StatusCode::OK, "first".into()));
        api.server.revoke_all_access_tokens();
        assert_eq!(api.post("/", "second").await, (StatusCode::OK, "second".into()));
        assert_eq!(api.rejections(), 1);
        assert_eq!(api.server.counters().token_requests, 2);
        assert_eq!(api.server.counters().refresh_token_reuses, 0);
    }
}

#[tokio::test]
async fn a_stream_is_sent_again_with_the_same_bytes() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let api = Api::serve(version).await;
        api.post("/", "").await;
        api.server.revoke_all_access_tokens();
        let whole = bytes(60_000);
        let body = streamed(whole.chunks(7_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))));
        assert_eq!(api.post("/", body).await, (StatusCode::OK, whole.into()));
        assert_eq!(api.rejections(), 1);
    }
}

#[tokio::test]
async fn stream_over_the_limit_returns_its_401_and_refreshes() {
    let api = Api::serve(Version::HTTP_11).await;
    api.post("/", "").await;
    api.server.revoke_all_access_tokens();
    let chunk = Bytes::from(bytes(10_000));
    let body = streamed((0..10).map(move |_| Ok(chunk.clone())));
    assert_eq!(api.post("/", body).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(api.post("/", "next").await, (StatusCode::OK, "next".into()));
    assert_eq!(api.rejections(), 1);
}

#[tokio::test]
async fn body_that_fails_midway_returns_its_own_error() {
    let api = Api::serve(Version::HTTP_11).await;
    let body = streamed([Ok("half".into()), Err(io::Error::other("the disk is gone").into())]);
    let error = api.send("/", body).await.unwrap_err();
    assert!(error.is::<reqwest::Error>());
    assert!(chain(&*error).contains("the disk is gone"), "{}", chain(&*error));
    assert_eq!(api.post("/", "next").await.0, StatusCode::OK);
}

#[tokio::test]
async fn bodies_of_every_kind_reach_the_server() {
    let foreign = Recorder::serve().await;
    let http = service(reqwest::Client::builder());
    // A body that is not `Sync`.
    let unsync = stream_of([Ok("unsync".into())]).boxed_unsync();
    http.clone().oneshot(foreign.request("/", unsync)).await.unwrap();
    http.clone().oneshot(foreign.request("/", Full::from("full"))).await.unwrap();
    http.clone().oneshot(foreign.request("/", String::from("string"))).await.unwrap();
    http.clone().oneshot(foreign.request("/", reqwest::Body::from("reqwest"))).await.unwrap();
    http.oneshot(foreign.request("/", Empty::<Bytes>::new())).await.unwrap();
    assert_eq!(foreign.bodies(), ["unsync", "full", "string", "reqwest", ""]);
    // A stream is chunked, a body in memory announces its length, and an empty body announces none.
    let lengths = [None, Some("4"), Some("6"), Some("7"), None];
    assert_eq!(foreign.header(header::CONTENT_LENGTH), lengths.map(|it| it.map(str::to_owned)));
}

#[tokio::test]
async fn stream_rejected_midway_is_resent_from_its_beginning() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        // Rejects the first token after the first frame of the body, and otherwise echoes the body.
        let (tell, told) = oneshot::channel();
        let tell = Arc::new(Mutex::new(Some(tell)));
        let router = axum::Router::new().fallback(async move |request: axum::extract::Request| {
            if harness::token_of(&request) == Some("t1") {
                request.into_body().frame().await.unwrap().unwrap();
                tell.lock().unwrap().take().unwrap().send(()).unwrap();
                return Err(StatusCode::UNAUTHORIZED);
            }
            Ok(request.into_body().collect().await.unwrap().to_bytes())
        });
        let api = serve(router).await;
        let client = match version {
            Version::HTTP_2 => reqwest::Client::builder().http2_prior_knowledge(),
            _ => reqwest::Client::builder(),
        };
        let source = Mint::without_expiry().delay(Duration::ZERO);
        let layer = RefreshLayer::new(source.clone()).origin(&api).unwrap();
        let client = ServiceBuilder::new().layer(layer).service(service(client));
        let frame = |text| Ok::<_, BoxError>(Frame::data(Bytes::from_static(text)));
        let rest = stream::once(async move { told.await.map_err(BoxError::from) });
        let frames = stream::iter([frame(b"one ")])
            .chain(rest.map(move |told| told.and_then(|()| frame(b"two "))))
            .chain(stream::iter([frame(b"three")]));
        let body = reqwest::Body::wrap(StreamBody::new(Box::pin(frames)));
        let request = Request::post(&api).body(body).unwrap();
        let answer = in_time(client.oneshot(request)).await.unwrap();
        assert_eq!(read(answer).await, (StatusCode::OK, "one two three".into()));
        assert_eq!(source.calls(), 2);
    }
}

#[tokio::test]
async fn both_directions_of_a_stream_flow_before_either_ends() {
    // Rejects the first token before it reads the body.
    let echo =
        axum::Router::new().fallback(
            async |request: axum::extract::Request| match harness::token_of(&request) {
                Some("t1") => Err(StatusCode::UNAUTHORIZED),
                _ => Ok(request.into_body()),
            },
        );
    let echo = serve(echo).await;
    let source = Mint::without_expiry().delay(Duration::ZERO);
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(source.clone()).origin(&echo).unwrap())
        .service(service(reqwest::Client::builder().http2_prior_knowledge()));
    let (sender, receiver) = mpsc::unbounded_channel();
    let frames = stream::unfold(receiver, async |mut receiver: mpsc::UnboundedReceiver<_>| {
        let data: &'static str = receiver.recv().await?;
        Some((Ok::<_, BoxError>(Frame::data(Bytes::from_static(data.as_bytes()))), receiver))
    });
    let body = reqwest::Body::wrap(StreamBody::new(Box::pin(frames)));
    let request = Request::post(&echo).body(body).unwrap();
    let mut answer = in_time(client.oneshot(request)).await.unwrap().into_body();
    assert_eq!(source.calls(), 2);
    for part in ["one", "two", "three"] {
        sender.send(part).unwrap();
        let frame = in_time(answer.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), part);
    }
    drop(sender);
    assert_eq!(in_time(answer.collect()).await.unwrap().to_bytes(), "");
}

#[tokio::test]
async fn trailers_go_both_ways_and_with_the_retry() {
    // Echoes the trailers, and rejects the first token.
    let router = axum::Router::new().fallback(async |request: axum::extract::Request| {
        let rejected = harness::token_of(&request) == Some("t1");
        let collected = request.into_body().collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let body = Full::new(collected.to_bytes()).with_trailers(ready(Some(Ok(trailers))));
        let mut response = Response::new(axum::body::Body::new(body));
        if rejected {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        response
    });
    let echo = serve(router).await;
    let source = Mint::without_expiry().delay(Duration::ZERO);
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(source.clone()).origin(&echo).unwrap())
        .service(service(reqwest::Client::builder().http2_prior_knowledge()));
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", HeaderValue::from_static("42"));
    let body = Full::<Bytes>::from("body").with_trailers(ready(Some(Ok(trailers.clone()))));
    let request = Request::post(&echo).body(reqwest::Body::wrap(body)).unwrap();
    let answer = client.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let collected = answer.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers(), Some(&trailers));
    assert_eq!(collected.to_bytes(), "body");
    assert_eq!(source.calls(), 2);
}

// ===== redirects =====

#[tokio::test]
async fn a_redirect_within_the_origin_is_followed_with_body_and_token() {
    let api = Api::serve(Version::HTTP_11).await;
    api.redirect_once(api.serving.url("/moved"));
    let answer = api.send("/", "body").await.unwrap();
    assert_eq!(answer.headers()["echo-path"], "/moved");
    assert_eq!(read(answer).await, (StatusCode::OK, "body".into()));
    assert_eq!(api.rejections(), 0);
}

#[tokio::test]
async fn a_redirect_to_another_origin_carries_the_body_and_no_token() {
    let api = Api::serve(Version::HTTP_11).await;
    let foreign = Recorder::serve().await;
    api.redirect_once(foreign.url("/"));
    assert_eq!(api.post("/", "body").await.0, StatusCode::OK);
    assert_eq!(foreign.bodies(), ["body"]);
    assert_eq!(foreign.header(header::AUTHORIZATION), [None]);
}

#[tokio::test]
async fn outer_redirect_layer_never_carries_a_custom_token_header() {
    let home = Recorder::serve().await;
    let foreign = Recorder::serve().await;
    home.redirect_to(foreign.url("/"));
    let name = HeaderName::from_static("x-api-token");
    let layer = RefreshLayer::new(StaticToken::new("sesame".parse().unwrap()))
        .origin(&home.origin)
        .unwrap()
        .header(name.clone());
    let client = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(layer)
        .map_err(BoxError::from)
        .service(service(reqwest::Client::builder().redirect(Policy::none())));
    client.oneshot(home.request("/", Full::<Bytes>::default())).await.unwrap();
    assert_eq!(home.header(name.clone()), [Some("Bearer sesame".to_owned())]);
    assert_eq!(foreign.header(name), [None]);
}

#[tokio::test]
async fn redirect_resends_a_body_in_memory_and_returns_for_a_stream() {
    let home = Recorder::serve().await;
    let moved = Recorder::serve().await;
    home.redirect_to(moved.url("/"));
    let http = service(reqwest::Client::builder());
    http.clone().oneshot(home.request("/", Full::from("full"))).await.unwrap();
    http.clone().oneshot(home.request("/", String::from("string"))).await.unwrap();
    http.clone().oneshot(home.request("/", reqwest::Body::from("reqwest"))).await.unwrap();
    assert_eq!(moved.bodies(), ["full", "string", "reqwest"]);
    let answer = http.oneshot(home.request("/", stream_of([Ok("stream".into())]))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(moved.bodies().len(), 3);
}

#[tokio::test]
async fn refresh_token_follows_no_redirect_with_policy_none() {
    let server = AuthorizationServer::new();
    let serving = server.serve().await.unwrap();
    let foreign = Recorder::serve().await;
    let to = HeaderValue::try_from(foreign.url("/token")).unwrap();
    let fault = Fault::status(StatusCode::TEMPORARY_REDIRECT).header(header::LOCATION, to);
    server.token_faults().once(fault);
    let http = service(reqwest::Client::builder().redirect(Policy::none()));
    let endpoint = TokenEndpoint::new(http, serving.url("/token")).unwrap();
    let source = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
    RefreshLayer::new(source).credentials().tokens().await.unwrap_err();
    assert_eq!(foreign.bodies(), [""; 0]);
}

#[tokio::test]
async fn reqwest_takes_its_answer_back_with_the_url_that_it_came_from() {
    let api = Api::serve(Version::HTTP_11).await;
    let moved = api.serving.url("/moved?a=b");
    api.redirect_once(moved.clone());
    let answer = reqwest::Response::from(api.send("/", "body").await.unwrap());
    assert_eq!(answer.url().as_str(), moved);
    assert_eq!(answer.text().await.unwrap(), "body");
}

// ===== errors =====

#[tokio::test]
async fn a_timeout_is_reqwests_own_error_before_the_head_and_after_it() {
    let api = Api::with(|client| client.timeout(Duration::from_secs(1))).await;
    api.post("/", "").await;
    let arrived = Arc::new(Notify::new());
    let notify = Arc::clone(&arrived);
    api.server.resource_faults().when(move |_| {
        notify.notify_one();
        Some(Fault::hang())
    });
    let received = async {
        arrived.notified().await;
        // From here on nothing is on its way.
        pause();
    };
    let (answer, ()) = in_time(join(api.send("/", ""), received)).await;
    assert!(answer.unwrap_err().downcast_ref::<reqwest::Error>().unwrap().is_timeout());
    resume();

    api.server.resource_faults().clear();
    api.server.resource_faults().once(Fault::normal().drip(1, Duration::from_secs(60)));
    let answer = in_time(api.send("/", "two bytes and more")).await.unwrap();
    pause();
    assert!(in_time(answer.into_body().collect()).await.unwrap_err().is_timeout());
}

#[tokio::test]
async fn an_error_shows_neither_query_nor_user_of_the_url() {
    let closed = ClosedPort::new();
    let url = format!("http://alibaba:thieves@{}/cave?word=sesame", closed.address());
    let request = Request::get(url).body(String::new()).unwrap();
    let error = service(reqwest::Client::builder()).oneshot(request).await.unwrap_err();
    assert!(error.is_connect());
    let shown = format!("{} {error:?} {}", chain(&error), error.url().unwrap());
    assert!(shown.contains("/cave"), "{shown}");
    for secret in ["sesame", "alibaba", "thieves"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[tokio::test]
async fn a_request_that_reqwest_cannot_take_is_an_error_of_reqwest() {
    let request = Request::get("/relative?word=sesame").body(String::new()).unwrap();
    let error = service(reqwest::Client::builder()).oneshot(request).await.unwrap_err();
    assert!(error.is_builder());
    assert!(!chain(&error).contains("sesame"));
}

#[tokio::test]
async fn a_path_is_never_read_as_a_part_of_the_host() {
    /// A resolver that records the names.
    #[derive(Clone, Default)]
    struct Asked(Arc<Mutex<Vec<String>>>);
    impl Resolve for Asked {
        fn resolve(&self, name: Name) -> Resolving {
            self.0.lock().unwrap().push(name.as_str().to_owned());
            Box::pin(ready(Err("there is no such name".into())))
        }
    }

    let asked = Asked::default();
    let http = service(reqwest::Client::builder().dns_resolver(Arc::new(asked.clone())));
    let layer = RefreshLayer::new(StaticToken::new("sesame".parse().unwrap()));
    let client = layer.origin("https://api.test").unwrap().layer(http);
    // `http` before 1.4.1 accepts the others.
    for path in ["*", ".evil.test/", "@evil.test/", ":99/"] {
        let uri = Uri::builder().scheme("https").authority("api.test").path_and_query(path);
        let Ok(uri) = uri.build() else {
            continue;
        };
        let request = Request::options(uri).body(String::new()).unwrap();
        let error = client.clone().oneshot(request).await.unwrap_err();
        assert!(error.downcast_ref::<reqwest::Error>().unwrap().is_builder(), "{path}: {error}");
    }
    assert_eq!(*asked.0.lock().unwrap(), [""; 0]);
}

/// S5
#[tokio::test]
async fn a_token_endpoint_that_cannot_be_reached_was_sent_nothing() {
    /// A resolver that fails for each name.
    struct Nowhere;
    impl Resolve for Nowhere {
        fn resolve(&self, _: Name) -> Resolving {
            Box::pin(ready(Err("there is no such name".into())))
        }
    }

    let http = service(reqwest::Client::builder().dns_resolver(Arc::new(Nowhere)));
    let endpoint = TokenEndpoint::new(http, "http://localhost:9/token").unwrap();
    let layer = |endpoint| RefreshLayer::new(RefreshTokenGrant::new(endpoint, "refresh"));
    let recognised = layer(endpoint).credentials().tokens().await.unwrap_err();
    assert!(recognised.is_transient(), "{recognised}");
}

/// S3
#[tokio::test]
async fn token_request_that_was_received_is_never_unsent() {
    let server = AuthorizationServer::new();
    let serving = server.serve().await.unwrap();
    server.token_faults().once(Fault::drop_connection().after_processing());
    let http = service(reqwest::Client::builder());
    let endpoint = TokenEndpoint::new(http, serving.url("/token")).unwrap();
    let source = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
    let error = RefreshLayer::new(source).credentials().tokens().await.unwrap_err();
    assert!(error.is_ambiguous(), "{error}");
}

/// Asks a token endpoint that redirects the first request to a closed port.
async fn redirected_to_a_closed_port(
    status: StatusCode,
) -> (AuthorizationServer, tower_refresh::TokenError) {
    let server = AuthorizationServer::new();
    let serving = server.serve().await.unwrap();
    let closed = ClosedPort::new();
    let to = HeaderValue::try_from(closed.url("/token")).unwrap();
    let fault = Fault::status(status).header(header::LOCATION, to);
    server.token_faults().once(fault.after_processing());
    // The default of reqwest: it follows redirects.
    let http = service(reqwest::Client::builder());
    let endpoint = TokenEndpoint::new(http, serving.url("/token")).unwrap();
    let source = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
    let error = RefreshLayer::new(source).credentials().tokens().await.unwrap_err();
    (server, error)
}

/// S3
#[tokio::test]
async fn redirected_token_request_is_never_reported_as_unsent() {
    for status in [StatusCode::SEE_OTHER, StatusCode::TEMPORARY_REDIRECT] {
        let (server, error) = redirected_to_a_closed_port(status).await;
        assert_eq!(server.counters().token_requests, 1, "it was sent");
        assert!(!error.is_transient(), "{status}: {error}");
    }
}

/// S3
#[tokio::test]
async fn retry_policy_of_reqwest_never_repeats_a_token_request() {
    let received = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&received);
    let origin = serve(axum::Router::new().fallback(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        async { StatusCode::BAD_GATEWAY }
    }))
    .await;
    for body in [BodyFormat::Form, BodyFormat::Query] {
        received.store(0, Ordering::Relaxed);
        let policy = reqwest::retry::for_host("127.0.0.1").classify_fn(|tried| tried.retryable());
        let http = service(reqwest::Client::builder().redirect(Policy::none()).retry(policy));
        let mut dialect = Dialect::rfc6749();
        dialect.body = body;
        dialect.allow_secrets_in_query = body == BodyFormat::Query;
        let endpoint = TokenEndpoint::new(http, format!("{origin}/token")).unwrap();
        let source = RefreshTokenGrant::new(endpoint.dialect(dialect), "refresh");
        let error = RefreshLayer::new(source).credentials().tokens().await.unwrap_err();
        assert!(error.is_ambiguous(), "{error}");
        assert_eq!(received.load(Ordering::Relaxed), 1, "{body:?}");
    }
}

#[test]
fn the_service_can_be_shared_and_its_future_spawned_and_named() {
    fn shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    fn spawnable<T: Send + Sync + 'static>(_: T) {}
    let mut http = ReqwestService::from(reqwest::Client::new());
    shared(&http);
    let named: ResponseFuture = http.call(Request::new(String::new()));
    spawnable(named);
}

#[test]
fn debug_output_shows_no_default_header() {
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", HeaderValue::from_static("sesame"));
    let http = service(reqwest::Client::builder().default_headers(headers));
    assert_eq!(format!("{http:?}"), "ReqwestService { .. }");
}

// ===== an API that echoes =====

struct Api {
    server: AuthorizationServer,
    serving: Serving,
    client: Refresh<ReqwestService>,
}

impl Api {
    async fn serve(version: Version) -> Self {
        Self::with(|client| match version {
            Version::HTTP_2 => client.http2_prior_knowledge(),
            _ => client.http1_only(),
        })
        .await
    }

    async fn with(set_up: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder) -> Self {
        let server = AuthorizationServer::new();
        let serving = server.serve().await.unwrap();
        let http = service(set_up(reqwest::Client::builder()));
        let endpoint = TokenEndpoint::new(http.clone(), serving.url("/token")).unwrap();
        let source = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
        let client = ServiceBuilder::new()
            .layer(RefreshLayer::new(source).origin(serving.origin()).unwrap())
            .service(http);
        Self { server, serving, client }
    }

    async fn send(
        &self,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> Result<Response<reqwest::Body>, BoxError> {
        let request = Request::post(self.serving.url(path)).body(body.into()).unwrap();
        in_time(self.client.clone().oneshot(request)).await
    }

    async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> (StatusCode, Bytes) {
        read(self.send(path, body).await.unwrap()).await
    }

    fn redirect_once(&self, to: String) {
        let to = HeaderValue::try_from(to).unwrap();
        let fault = Fault::status(StatusCode::TEMPORARY_REDIRECT).header(header::LOCATION, to);
        self.server.resource_faults().once(fault);
    }

    fn rejections(&self) -> u64 {
        self.server.counters().resource_requests_unauthorized
    }
}

// ===== a server that records =====

struct Recorder {
    origin: String,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<(HeaderMap, Bytes)>>,
    redirect: Mutex<Option<HeaderValue>>,
}

impl Recorder {
    async fn serve() -> Self {
        let seen = Arc::new(Seen::default());
        let router = axum::Router::new().fallback(record).with_state(Arc::clone(&seen));
        Self { origin: serve(router).await, seen }
    }

    fn redirect_to(&self, url: String) {
        *self.seen.redirect.lock().unwrap() = Some(url.try_into().unwrap());
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    fn request<B>(&self, path: &str, body: B) -> Request<B> {
        Request::post(self.url(path)).body(body).unwrap()
    }

    fn bodies(&self) -> Vec<Bytes> {
        self.seen.requests.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }

    fn header(&self, name: HeaderName) -> Vec<Option<String>> {
        let requests = self.seen.requests.lock().unwrap();
        let value = |headers: &HeaderMap| Some(headers.get(&name)?.to_str().unwrap().to_owned());
        requests.iter().map(|(headers, _)| value(headers)).collect()
    }
}

async fn record(
    State(seen): State<Arc<Seen>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<axum::body::Body> {
    seen.requests.lock().unwrap().push((headers, body));
    let mut response = Response::new(axum::body::Body::empty());
    if let Some(location) = seen.redirect.lock().unwrap().clone() {
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Serves until the runtime ends, and returns the origin.
async fn serve(router: axum::Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    origin
}

// ===== helpers =====

fn service(client: reqwest::ClientBuilder) -> ReqwestService {
    ReqwestService::new(client.no_proxy().build().unwrap())
}

type Frames = stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, BoxError>>>;

fn stream_of(chunks: impl IntoIterator<Item = Result<Bytes, BoxError>>) -> StreamBody<Frames> {
    let frames: Vec<_> = chunks.into_iter().map(|chunk| chunk.map(Frame::data)).collect();
    StreamBody::new(stream::iter(frames))
}

fn streamed(chunks: impl IntoIterator<Item = Result<Bytes, BoxError>>) -> reqwest::Body {
    reqwest::Body::wrap(stream_of(chunks))
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

async fn read(answer: Response<reqwest::Body>) -> (StatusCode, Bytes) {
    let (head, body) = answer.into_parts();
    (head.status, body.collect().await.unwrap().to_bytes())
}

fn chain(error: &(dyn Error + 'static)) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Fails a test that hangs.
async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(20), future).await.unwrap()
}
