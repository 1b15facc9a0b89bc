//! Errors that prove that a token request was not sent, and errors that do not: connecting, repetition, inner layers.
#![allow(clippy::disallowed_types, reason = "locks shared with the code under test")]

use std::convert::Infallible;
use std::future::{pending, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{Connect, Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf,
};
use tokio::net::TcpListener;
use tower::{BoxError, ServiceBuilder, service_fn};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_http::follow_redirect::policy::clone_body_fn;
use tower_refresh::oauth2::{BodyFormat, Dialect, RefreshTokenGrant, TokenEndpoint};
use tower_refresh::reqwest::ReqwestService;
use tower_refresh::store::{MemoryStore, TokenStore as _};
use tower_refresh::testing::{AuthorizationServer, Fault, ManualClock};
use tower_refresh::{
    Cause, Credentials, RefreshPolicy, Renewal, TokenError, TokenSet, TokenSource,
};

use crate::harness::ClosedPort;

// ===== requests that were not sent =====

/// S5
#[tokio::test]
async fn each_error_of_connecting_is_transient_and_opens_no_intent() {
    let closed = ClosedPort::new();
    let refused = TokenEndpoint::new(hyper(HttpConnector::new()), closed.url("/token"));
    check_offline(refused.unwrap()).await;

    let mut no_name = HttpConnector::new_with_resolver(service_fn(|_: Name| {
        ready(Err::<std::vec::IntoIter<_>, _>(io::Error::other("no such host")))
    }));
    no_name.enforce_http(false);
    check_offline(TokenEndpoint::new(hyper(no_name), HTTPS).unwrap()).await;

    let plaintext = AuthorizationServer::new().serve().await.unwrap();
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_only()
        .enable_all_versions()
        .build();
    let url = plaintext.url("/token").replace("http://127.0.0.1", "https://localhost");
    check_offline(TokenEndpoint::new(hyper(https), &url).unwrap()).await;

    let reset = service_fn(|_: Uri| ready(Err::<TokioIo<Unreachable>, _>(unreachable())));
    check_offline(TokenEndpoint::new(hyper(reset), HTTPS).unwrap()).await;
}

#[tokio::test]
async fn http_client_without_tls_is_misconfigured_and_opens_no_intent() {
    let endpoint = TokenEndpoint::new(hyper(HttpConnector::new()), HTTPS).unwrap();
    let error = refresh(endpoint.clone()).await;
    assert!(error.is_misconfigured() && error.to_string().contains("TLS"), "{error}");
    let store = MemoryStore::new();
    let clock = ManualClock::new();
    let credentials = stored(RefreshTokenGrant::new(endpoint, "refresh"), &store, &clock);
    for _ in 0..3 {
        let error = credentials.refresh().await.unwrap_err();
        assert!(error.is_misconfigured(), "{error}");
        let record = store.load().await.unwrap();
        assert!(record.is_none_or(|record| !record.has_open_intent()), "{error}");
    }
}

/// S5
#[tokio::test(start_paused = true)]
async fn time_limit_that_passes_while_connecting_is_transient() {
    let silent = service_fn(|_: Uri| pending::<Result<TokioIo<Unreachable>, io::Error>>());
    check_offline(TokenEndpoint::new(hyper(silent), HTTPS).unwrap()).await;

    struct Silent;
    impl reqwest::dns::Resolve for Silent {
        fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
            Box::pin(pending())
        }
    }
    let client = reqwest::Client::builder().no_proxy().dns_resolver(Arc::new(Silent));
    check_offline(
        TokenEndpoint::new(
            ReqwestService::new(client.build().unwrap()),
            "http://localhost:9/token",
        )
        .unwrap(),
    )
    .await;
}

/// S5
#[tokio::test]
async fn errors_of_connecting_of_reqwest_are_transient_for_every_body() {
    let client = || reqwest::Client::builder().no_proxy().build().unwrap();
    let closed = ClosedPort::new();
    let url = closed.url("/token");
    check_offline(TokenEndpoint::new(ReqwestService::new(client()), &url).unwrap()).await;
    // The client may have followed a redirect, unless the configuration excludes that.
    let adapted = TokenEndpoint::new(Adapter(client()), &url).unwrap();
    let error = refresh(adapted.clone()).await;
    assert!(error.is_ambiguous() && error.to_string().contains("`ReqwestService`"), "{error}");
    let is_connect = |error: &reqwest::Error| error.is_connect();
    check_offline(adapted.is_unsent(move |error| error.downcast_ref().is_some_and(is_connect)))
        .await;
}

/// S5
#[tokio::test]
async fn first_request_after_an_outage_of_the_name_service_succeeds() {
    let server = AuthorizationServer::new();
    let serving = server.serve().await.unwrap();
    let (endpoint, is_online) = behind_a_name_service(serving.address());
    let grant = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
    let clock = ManualClock::new();
    let credentials = stored(grant, &MemoryStore::new(), &clock);
    for _ in 0..20 {
        let error = credentials.tokens().await.unwrap_err();
        assert!(error.is_transient() && !error.is_remembered(), "{error}");
        assert!(!error.to_string().contains("times"), "{error}");
        clock.advance(PAUSE);
    }
    is_online.store(true, Ordering::Relaxed);
    credentials.tokens().await.unwrap();
    let counters = server.counters();
    assert_eq!((counters.token_requests, counters.refresh_token_reuses), (1, 0));
}

/// S5: the program of the README, with and without a store.
#[tokio::test]
async fn first_token_after_an_outage_comes_within_a_second() {
    for with_store in [false, true] {
        let server = AuthorizationServer::new();
        let serving = server.serve().await.unwrap();
        let (endpoint, is_online) = behind_a_name_service(serving.address());
        let grant = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
        let clock = ManualClock::new();
        let credentials = match with_store {
            true => stored(grant, &MemoryStore::new(), &clock),
            false => Credentials::builder(grant).clock(clock.clone()).build(),
        };

        let second = Duration::from_secs(1);
        for _ in 0..300 {
            assert!(credentials.tokens().await.unwrap_err().is_transient());
            assert!(credentials.status().backoff.is_none_or(|backoff| backoff <= second));
            clock.advance(second);
        }
        credentials.tokens().await.unwrap_err();
        is_online.store(true, Ordering::Relaxed);
        clock.advance(second);
        credentials.tokens().await.unwrap();
        let counters = server.counters();
        assert_eq!((counters.token_requests, counters.refresh_token_reuses), (1, 0));
    }
}

/// S5
#[tokio::test]
async fn idle_connection_closed_before_the_request_is_transient() {
    let (client_end, mut server_end) = tokio::io::duplex(4096);
    let connection = Arc::new(std::sync::Mutex::new(Some(client_end)));
    let connector = service_fn(move |_: Uri| {
        let connection = connection.lock().unwrap().take().ok_or_else(unreachable);
        ready(connection.map(|connection| TokioIo::new(Idle(connection))))
    });
    let server = tokio::spawn(async move {
        let _ = server_end.read(&mut [0; 4096]).await.unwrap();
        let json = r#"{"access_token":"a","expires_in":60}"#;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{json}", json.len());
        server_end.write_all(answer.as_bytes()).await.unwrap();
        server_end
    });
    let endpoint = TokenEndpoint::new(hyper(connector), HTTPS).unwrap();
    let grant = RefreshTokenGrant::new(endpoint, "refresh");
    fetch(&grant).await.unwrap();
    let server_end = server.await.unwrap();
    // The connection goes back to the pool.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    // Before its task sees the end, as after a suspend.
    drop(server_end);
    let error = fetch(&grant).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("Connect"), "{error}");
}

// ===== requests that may have been sent =====

/// S3
#[tokio::test]
async fn soft_error_on_an_established_connection_is_ambiguous() {
    let connector =
        service_fn(|_: Uri| ready(Ok::<_, Infallible>(TokioIo::new(Unreachable(false)))));
    let error = refresh(TokenEndpoint::new(hyper(connector), HTTPS).unwrap()).await;
    assert!(error.is_ambiguous(), "{error}");
    assert!(error.to_string().contains("https://as.example.com"), "{error}");
    assert!(!error.to_string().contains("is_unsent"), "{error}");
}

/// S3
#[tokio::test]
async fn io_error_of_an_unknown_client_is_ambiguous_with_a_remedy() {
    use io::ErrorKind::*;
    for kind in [HostUnreachable, NetworkUnreachable, ConnectionRefused, AddrNotAvailable, TimedOut]
    {
        for error in [kind.into(), io::Error::other(io::Error::from(kind))] {
            let error = Arc::new(std::sync::OnceLock::from(error));
            let client = service_fn(move |_: Request<Full<Bytes>>| {
                let error = Arc::clone(&error);
                ready(Err::<http::Response<Full<Bytes>>, BoxError>(Box::new(Shown(error))))
            });
            let error = refresh(TokenEndpoint::new(client, HTTPS).unwrap()).await;
            assert!(error.is_ambiguous(), "{kind}: {error}");
            assert!(error.to_string().contains("TokenEndpoint::is_unsent"), "{error}");
            assert!(error.to_string().contains("`hyper-util`"), "{error}");
        }
    }
}

/// S3
#[tokio::test]
async fn second_connection_after_a_redirect_that_fails_is_ambiguous() {
    for is_empty in [false, true] {
        let server = AuthorizationServer::new();
        let serving = server.serve().await.unwrap();
        let closed = ClosedPort::new();
        let to = HeaderValue::try_from(closed.url("/token")).unwrap();
        let fault = Fault::status(StatusCode::TEMPORARY_REDIRECT).header(header::LOCATION, to);
        server.token_faults().always(fault.after_processing());
        let url = serving.url("/token");

        let copy = clone_body_fn(|body: &Full<Bytes>| Some(body.clone()));
        let follow = FollowRedirectLayer::with_policy(copy);
        let http = ServiceBuilder::new().layer(follow).service(hyper(HttpConnector::new()));
        let error =
            refresh_as(TokenEndpoint::new(http, &url).unwrap(), is_empty).await.unwrap_err();
        assert!(!error.is_transient(), "{error}");

        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        for endpoint in [
            TokenEndpoint::new(ReqwestService::new(client.clone()), &url).unwrap(),
            TokenEndpoint::new(Adapter(client), &url).unwrap(),
        ] {
            let error = refresh_as(endpoint, is_empty).await.unwrap_err();
            assert!(!error.is_transient(), "{error}");
        }
        assert_eq!(server.counters().token_requests, 3);
    }
}

/// reqwest follows these without the body, so that another server answers.
#[tokio::test]
async fn answer_that_reqwest_was_redirected_to_never_denies_the_grant() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let length = socket.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            assert!(request.ends_with("\r\n\r\n"), "no body: {request}");
            let (status, body) = match request.contains(" /login") {
                true => ("403 Forbidden", r#"{"error":"invalid_grant"}"#),
                false => ("502 Bad Gateway", ""),
            };
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
            socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for status in [StatusCode::MOVED_PERMANENTLY, StatusCode::FOUND, StatusCode::SEE_OTHER] {
        for (path, is_empty) in
            [("/login", false), ("/token", false), ("/login", true), ("/token", true)]
        {
            let server = AuthorizationServer::new();
            let serving = server.serve().await.unwrap();
            let http = ReqwestService::new(client.clone());
            let endpoint = TokenEndpoint::new(http, serving.url("/token")).unwrap();
            let to = HeaderValue::try_from(format!("{elsewhere}{path}")).unwrap();
            server.token_faults().always(Fault::status(status).header(header::LOCATION, to));
            let error = refresh_as(endpoint, is_empty).await.unwrap_err();
            // A URL with the query may spend the refresh token.
            let is_unknown = is_empty && path == "/token";
            assert_eq!(error.is_ambiguous(), is_unknown, "{status} {path}: {error}");
            assert!(error.is_ambiguous() || error.is_misconfigured(), "{status} {path}: {error}");
            assert!(error.to_string().contains("followed a redirect"), "{error}");
            assert!(!error.to_string().contains("login"), "{error}");
        }
    }
}

#[tokio::test]
async fn refusal_that_reqwest_was_not_redirected_to_is_the_servers() {
    let server = AuthorizationServer::new();
    let serving = server.serve().await.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in ["/token", "/token?", "/token?a=%7e|b&c", "/./token"] {
        let endpoint =
            TokenEndpoint::new(ReqwestService::new(client.clone()), serving.url(path)).unwrap();
        let error = refresh(endpoint).await;
        assert!(error.is_denied(), "{path}: {error}");
    }
}

/// A layer that repeats the request, outside a layer that then refuses it.
#[tokio::test]
async fn refusal_beneath_after_a_request_that_was_sent_is_ambiguous() {
    let server = AuthorizationServer::new();
    let serving = server.serve().await.unwrap();
    server.token_faults().always(Fault::drop_connection().after_processing());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let http = ReqwestService::new(client);
    let again = service_fn(move |request: Request<Full<Bytes>>| {
        let mut http = http.clone();
        async move {
            let _ = tower::Service::call(&mut http, request).await;
            let refused = TokenError::transient("no token for the second request");
            Err::<http::Response<Full<Bytes>>, BoxError>(refused.into())
        }
    });
    let error = refresh(TokenEndpoint::new(again, serving.url("/token")).unwrap()).await;
    assert!(error.is_ambiguous(), "{error}");
}

/// S5
#[tokio::test]
async fn first_failed_connection_is_transient_below_a_retry_layer() {
    let http = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .service(hyper(HttpConnector::new()));
    let closed = ClosedPort::new();
    check_offline(TokenEndpoint::new(http, closed.url("/token")).unwrap()).await;
}

// ===== helpers =====

/// Makes an endpoint whose name cannot be resolved before the switch is set.
fn behind_a_name_service(address: SocketAddr) -> (TokenEndpoint, Arc<AtomicBool>) {
    let is_online = Arc::new(AtomicBool::new(false));
    let known = Arc::clone(&is_online);
    let connector = HttpConnector::new_with_resolver(service_fn(move |_: Name| {
        ready(match known.load(Ordering::Relaxed) {
            true => Ok(vec![address].into_iter()),
            false => Err(io::Error::other("no such host")),
        })
    }));
    let url = format!("http://localhost:{}/token", address.port());
    (TokenEndpoint::new(hyper(connector), url).unwrap(), is_online)
}

async fn check_offline(endpoint: TokenEndpoint) {
    for is_empty in [false, true] {
        let error = refresh_as(endpoint.clone(), is_empty).await.unwrap_err();
        assert!(error.is_transient(), "{is_empty}: {error}");
    }
    let store = MemoryStore::new();
    let clock = ManualClock::new();
    let credentials = stored(RefreshTokenGrant::new(endpoint, "refresh"), &store, &clock);
    for _ in 0..10 {
        let error = credentials.tokens().await.unwrap_err();
        assert!(error.is_transient() && !error.is_remembered(), "{error}");
        assert!(!error.to_string().contains("times"), "{error}");
        clock.advance(PAUSE);
        let record = store.load().await.unwrap();
        assert!(record.is_none_or(|record| !record.has_open_intent()), "{error}");
    }
}

fn stored(grant: RefreshTokenGrant, store: &MemoryStore, clock: &ManualClock) -> Credentials {
    let policy = RefreshPolicy::default().clock(clock.clone()).timeout(Duration::from_secs(600));
    Credentials::builder(grant).store(store.clone()).policy(policy).build()
}

/// After it, the token endpoint is asked again.
const PAUSE: Duration = Duration::from_secs(6);

async fn refresh(endpoint: TokenEndpoint) -> TokenError {
    fetch(&RefreshTokenGrant::new(endpoint, "refresh")).await.unwrap_err()
}

/// Optionally with all parameters in the query, so that the body is empty.
async fn refresh_as(endpoint: TokenEndpoint, is_empty: bool) -> Result<TokenSet, TokenError> {
    let mut dialect = Dialect::rfc6749();
    if is_empty {
        dialect.body = BodyFormat::Query;
        dialect.allow_secrets_in_query = true;
    }
    fetch(&RefreshTokenGrant::new(endpoint.dialect(dialect), "refresh")).await
}

async fn fetch(source: &impl TokenSource) -> Result<TokenSet, TokenError> {
    source.fetch(Renewal::new(Cause::Missing)).await
}

fn hyper<C>(connector: C) -> Client<C, Full<Bytes>>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    Client::builder(TokioExecutor::new()).build(connector)
}

const HTTPS: &str = "https://as.example.com/token";

fn unreachable() -> io::Error {
    io::ErrorKind::HostUnreachable.into()
}

/// An error whose cause is an `io::Error`.
#[derive(Debug)]
struct Shown(Arc<std::sync::OnceLock<io::Error>>);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection failed")
    }
}

impl std::error::Error for Shown {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.get().map(|error| error as _)
    }
}

/// reqwest behind a custom adapter, which hides that a request was not sent.
#[derive(Clone)]
struct Adapter(reqwest::Client);

impl tower::Service<Request<Full<Bytes>>> for Adapter {
    type Response = http::Response<reqwest::Body>;
    type Error = reqwest::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), reqwest::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let client = self.0.clone();
        Box::pin(async move {
            let request = request.map(|body| body.into_inner().unwrap_or_default());
            Ok(client.execute(request.try_into()?).await?.into())
        })
    }
}

struct Idle(DuplexStream);

impl AsyncRead for Idle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Idle {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        sent: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, sent)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Connection for Idle {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// A connection that accepts the request and then loses its route.
struct Unreachable(bool);

impl AsyncRead for Unreachable {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0 {
            return Poll::Ready(Err(unreachable()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncWrite for Unreachable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        sent: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0 = true;
        Poll::Ready(Ok(sent.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Connection for Unreachable {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
