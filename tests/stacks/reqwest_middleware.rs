//! The layer as a middleware of reqwest-middleware, over real sockets.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream;
use http::{Extensions, Method, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use reqwest::Request;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Middleware, Next};
use tokio::time::timeout;
use tower_refresh::reqwest::RefreshMiddleware;
use tower_refresh::{
    BoxError, Credentials, CredentialsPool, RefreshLayer, ReplayLimit, Skip, StaticToken,
    TokenError,
};

use crate::echo::Echo;
use crate::harness::{ClosedPort, Mint};

// ===== the guarantees of the layer =====

#[tokio::test]
async fn rejected_requests_share_one_refresh_and_are_sent_again() {
    let api = Api::serve().await;
    api.echo.reject("t1");
    let post = || send(api.client.post(api.echo.url("/notes?a=b")).body("note"));
    let responses = join_all((0..50).map(|_| post())).await;
    for response in responses {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.url().as_str(), api.echo.url("/notes?a=b"));
    }
    assert_eq!(api.source.calls(), 2);
    assert_eq!(post().await.error_for_status().unwrap().status(), StatusCode::OK);
    assert_eq!(api.echo.received("authorization").last().unwrap(), "Bearer t2");
}

#[tokio::test]
async fn stream_is_sent_again_from_its_beginning() {
    let api = Api::serve().await;
    api.echo.reject("t1");
    let response = send(api.client.put(api.echo.url("/")).body(streamed(["one ", "two"]))).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(api.echo.received("body"), ["one two", "one two"]);
}

#[tokio::test]
async fn rejection_that_is_not_retried_is_returned_unchanged() {
    for by in [Extension::Limit, Extension::SkipRetry] {
        let api = Api::serve().await;
        api.echo.reject("t1");
        let request = api.client.put(api.echo.url("/?a=b")).body(streamed(["one ", "two"]));
        let response = send(match by {
            Extension::Limit => request.with_extension(ReplayLimit(5)),
            Extension::SkipRetry => request.with_extension(Skip::Retry),
        })
        .await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.url().as_str(), api.echo.url("/?a=b"));
        assert_eq!(response.text().await.unwrap(), "the token was revoked");
        assert_eq!(api.echo.received("uri").len(), 1);
    }
}

enum Extension {
    Limit,
    SkipRetry,
}

#[tokio::test]
async fn second_rejection_is_returned_and_not_retried() {
    let api = Api::serve().await;
    api.echo.reject("t1");
    api.echo.reject("t2");
    let response = send(api.client.get(api.echo.url("/"))).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(api.echo.received("authorization"), ["Bearer t1", "Bearer t2"]);
}

#[tokio::test]
async fn token_goes_to_named_origins_and_replaces_no_other() {
    let (api, other) = (Api::serve().await, Echo::serve().await);
    send(api.client.get(other.url("/"))).await;
    send(api.client.get(api.echo.url("/")).bearer_auth("own")).await;
    send(api.client.get(api.echo.url("/")).with_extension(Skip::Token)).await;
    assert_eq!(other.received("authorization"), [""]);
    assert_eq!(api.echo.received("authorization"), ["Bearer own", ""]);
}

#[tokio::test]
async fn timeout_of_a_request_limits_its_second_attempt() {
    let api = Api::serve().await;
    api.echo.reject("t1");
    let request = api.client.get(api.echo.url("/hang")).timeout(Duration::from_millis(50));
    assert!(in_time(request.send()).await.unwrap_err().is_timeout());
    assert_eq!(api.echo.received("authorization"), ["Bearer t1", "Bearer t2"]);
}

#[tokio::test]
async fn request_carries_the_token_of_the_user_in_its_extension() {
    #[derive(Clone)]
    struct User(&'static str);

    let echo = Echo::serve().await;
    let pool = CredentialsPool::new(|user: &String| {
        Credentials::builder(StaticToken::new(format!("token-of-{user}").parse().unwrap()))
    });
    let layer = RefreshLayer::keyed(pool, |request| {
        request.extensions().get().map(|User(name)| String::from(*name))
    });
    let layer = layer.origin(&echo.origin).unwrap();
    let client = http().with(RefreshMiddleware::new(layer)).build();
    for user in ["alice", "bob"] {
        send(client.get(echo.url("/")).with_extension(User(user))).await;
    }
    assert_eq!(echo.received("authorization"), ["Bearer token-of-alice", "Bearer token-of-bob"]);
}

// ===== other middleware =====

#[tokio::test]
async fn both_attempts_pass_through_inner_middleware_with_extensions() {
    let api = Api::serve().await;
    api.echo.reject("t1");
    let (outer, inner) = (Count::default(), Count::default());
    let client = http()
        .with(middleware(outer.clone()))
        .with(api.refresh())
        .with(middleware(inner.clone()))
        .build();
    let mut extensions = Extensions::new();
    extensions.insert(Passed(0));
    let request = Request::new(Method::GET, api.echo.url("/").parse().unwrap());
    let response = in_time(client.execute_with_extensions(request, &mut extensions)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!((outer.get(), inner.get()), (1, 2));
    // The changes of each are seen by the next, and by the caller.
    assert_eq!(extensions.get(), Some(&Passed(3)));
    assert_eq!(api.echo.received("x-passed"), ["2", "3"]);
}

#[tokio::test]
async fn outer_middleware_can_drop_a_request_and_send_it_again() {
    #[derive(Clone)]
    struct Impatient;

    impl Middleware for Impatient {
        fn handle<'layer, 'extensions, 'next, 'future>(
            &'layer self,
            request: Request,
            extensions: &'extensions mut Extensions,
            next: Next<'next>,
        ) -> BoxFuture<'future, Result<reqwest::Response, Error>>
        where
            'layer: 'future,
            'extensions: 'future,
            'next: 'future,
        {
            let handled = async move {
                let mut again = request.try_clone().unwrap();
                again.url_mut().set_path("/");
                assert!(next.clone().run(request, extensions).now_or_never().is_none());
                next.run(again, extensions).await
            };
            handled.boxed()
        }
    }

    let api = Api::serve().await;
    let client = http().with(Impatient).with(api.refresh()).build();
    send(client.get(api.echo.url("/hang")).with_extension(Skip::Token)).await;
    assert_eq!(api.echo.received("authorization").last().unwrap(), "");
}

#[tokio::test]
async fn request_of_another_scheme_reaches_inner_middleware_unchanged() {
    fn read<'a>(
        request: Request,
        _: &'a mut Extensions,
        _: Next<'a>,
    ) -> BoxFuture<'a, Result<reqwest::Response, Error>> {
        assert!(request.headers().is_empty());
        let read = http::Response::new(request.url().to_string());
        Box::pin(async { Ok(read.into()) })
    }

    let api = Api::serve().await;
    let client = http().with(api.refresh()).with(read).build();
    let request = Request::new(Method::GET, "file:///notes#last".parse().unwrap());
    let response = in_time(client.execute(request)).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "file:///notes#last");
    assert_eq!(api.source.calls(), 0);
}

#[tokio::test]
async fn errors_of_inner_middleware_and_client_are_unchanged() {
    fn fail<'a>(
        _: Request,
        _: &'a mut Extensions,
        _: Next<'a>,
    ) -> BoxFuture<'a, Result<reqwest::Response, Error>> {
        Box::pin(async { Err(Error::middleware(io::Error::other("out of order"))) })
    }

    let api = Api::serve().await;
    let client = http().with(api.refresh()).with(fail).build();
    match in_time(client.get(api.echo.url("/")).send()).await.unwrap_err() {
        Error::Middleware(error) => assert!(error.is::<io::Error>(), "{error:?}"),
        error => panic!("{error:?}"),
    }

    let closed = ClosedPort::new();
    let error = in_time(api.client.get(closed.url("/")).send()).await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
}

#[tokio::test]
async fn token_error_is_the_source_of_the_error_of_middleware() {
    let api = Api::serve().await;
    api.source.fail(Some(TokenError::denied("expired")));
    let error = in_time(api.client.get(api.echo.url("/")).send()).await.unwrap_err();
    let reason = error.source().unwrap().downcast_ref::<TokenError>();
    assert!(reason.unwrap().is_denied(), "{error:?}");
    assert!(api.echo.received("uri").is_empty());
}

// ===== helpers =====

struct Api {
    echo: Echo,
    source: Mint,
    credentials: Credentials,
    client: ClientWithMiddleware,
}

impl Api {
    async fn serve() -> Self {
        let echo = Echo::serve().await;
        let source = Mint::without_expiry().delay(Duration::ZERO);
        let credentials = Credentials::new(source.clone());
        let layer = RefreshLayer::new(credentials.clone()).origin(&echo.origin).unwrap();
        let client = http().with(RefreshMiddleware::new(layer)).build();
        Self { echo, source, credentials, client }
    }

    fn refresh(&self) -> RefreshMiddleware {
        let layer = RefreshLayer::new(self.credentials.clone());
        RefreshMiddleware::new(layer.origin(&self.echo.origin).unwrap())
    }
}

/// Counts the requests that pass, and shows the count in the extensions and in a header.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

#[derive(Clone, Debug, PartialEq)]
struct Passed(usize);

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn middleware(count: Count) -> impl Middleware {
    fn as_middleware<F>(handle: F) -> F
    where
        F: for<'a> Fn(
            Request,
            &'a mut Extensions,
            Next<'a>,
        ) -> BoxFuture<'a, Result<reqwest::Response, Error>>,
    {
        handle
    }

    as_middleware(move |mut request, extensions, next| {
        count.0.fetch_add(1, Ordering::Relaxed);
        let passed = extensions.get_or_insert_with(|| Passed(0));
        passed.0 += 1;
        let shown = passed.0.into();
        request.headers_mut().insert("x-passed", shown);
        next.run(request, extensions)
    })
}

fn http() -> ClientBuilder {
    ClientBuilder::new(reqwest::Client::builder().no_proxy().build().unwrap())
}

fn streamed(chunks: [&'static str; 2]) -> reqwest::Body {
    let frames = chunks.map(|chunk| Ok::<_, BoxError>(Frame::data(Bytes::from(chunk))));
    reqwest::Body::wrap(StreamBody::new(stream::iter(frames)))
}

async fn send(request: reqwest_middleware::RequestBuilder) -> reqwest::Response {
    in_time(request.send()).await.unwrap()
}

/// Fails a test that hangs.
async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(20), future).await.unwrap()
}
