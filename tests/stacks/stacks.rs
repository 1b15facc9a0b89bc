//! The layer with other layers on either side: buffer, concurrency limit, load shed, timeout and redirect.
#![allow(clippy::disallowed_methods, reason = "reads tokio's paused clock")]
#![allow(clippy::disallowed_types, reason = "locks shared with the code under test")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use tokio::time::{Instant, sleep};
use tower::util::{BoxCloneService, BoxService};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt as _};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_refresh::{Credentials, RefreshLayer, Renewal, TokenError};

use crate::harness::{HOUR, Mint, get, let_others_run, policy, puppet, token_of, tokens};

type Body = Full<Bytes>;

/// Rejects `t1` and accepts the others. Each answer takes 10 ms.
fn api() -> impl Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Body>, Infallible>> + Send,
> + Clone
+ Send
+ 'static {
    tower::service_fn(async |request: Request<Body>| {
        sleep(Duration::from_millis(10)).await;
        let mut response = Response::new(Body::default());
        if token_of(&request).is_none_or(|token| token == "t1") {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        Ok(response)
    })
}

fn layer(mint: &Mint) -> RefreshLayer {
    RefreshLayer::new(Credentials::with_policy(mint.clone(), policy()))
        .origin("https://api.test")
        .unwrap()
}

/// Sends a hundred requests at once: all are accepted, for two fetches (`t1` is rejected).
async fn works<C>(client: C, mint: &Mint)
where
    C: Service<Request<Body>, Response = Response<Body>> + Clone,
    C::Error: Into<BoxError>,
{
    let answers = join_all((0..100).map(|_| client.clone().oneshot(get("/")))).await;
    for answer in answers {
        assert_eq!(answer.map_err(Into::into).unwrap().status(), StatusCode::OK);
    }
    assert_eq!(mint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn layer_works_over_a_boxed_service() {
    let mint = Mint::new(HOUR);
    let client = ServiceBuilder::new().layer(layer(&mint)).service(BoxCloneService::new(api()));
    works(client, &mint).await;
}

#[tokio::test(start_paused = true)]
async fn layer_works_over_a_service_that_is_not_clone_if_buffered() {
    let mint = Mint::new(HOUR);
    let client =
        ServiceBuilder::new().layer(layer(&mint)).buffer(4).service(BoxService::new(api()));
    works(client, &mint).await;
}

#[tokio::test(start_paused = true)]
async fn layer_works_beneath_a_buffer_layer() {
    let mint = Mint::new(HOUR);
    let client = ServiceBuilder::new().buffer(4).layer(layer(&mint)).service(api());
    works(client, &mint).await;
}

#[tokio::test(start_paused = true)]
async fn layer_works_with_a_concurrency_limit_on_either_side() {
    let mint = Mint::new(HOUR);
    let client = ServiceBuilder::new().layer(layer(&mint)).concurrency_limit(1).service(api());
    works(client, &mint).await;

    let mint = Mint::new(HOUR);
    let client = ServiceBuilder::new().concurrency_limit(1).layer(layer(&mint)).service(api());
    works(client, &mint).await;
}

#[tokio::test(start_paused = true)]
async fn layer_works_with_a_timeout_on_either_side() {
    let mint = Mint::new(HOUR);
    let client =
        ServiceBuilder::new().layer(layer(&mint)).timeout(Duration::from_millis(20)).service(api());
    // Each attempt takes 10 ms; the 50 ms for the token do not count beneath the layer.
    works(client, &mint).await;

    let mint = Mint::new(HOUR);
    let client =
        ServiceBuilder::new().timeout(Duration::from_millis(20)).layer(layer(&mint)).service(api());
    // Outside they do, and the refresh continues nevertheless.
    assert!(
        client.clone().oneshot(get("/")).await.unwrap_err().is::<tower::timeout::error::Elapsed>()
    );
    sleep(Duration::from_millis(100)).await;
    assert_eq!(client.oneshot(get("/")).await.ok().map(|answer| answer.status()), None);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(mint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn layer_works_with_load_shed_on_either_side() {
    let mint = Mint::new(HOUR);
    let client =
        ServiceBuilder::new().load_shed().concurrency_limit(100).layer(layer(&mint)).service(api());
    works(client, &mint).await;

    let mint = Mint::new(HOUR);
    let client =
        ServiceBuilder::new().layer(layer(&mint)).load_shed().concurrency_limit(100).service(api());
    works(client, &mint).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_token_holds_no_permit() {
    // The token endpoint and the API share a client that serves one request at a time.
    let shared = ServiceBuilder::new().concurrency_limit(1).service(api());
    let client = shared.clone();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let source = move |_: Renewal| {
        let client = client.clone();
        let call = counted.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            client.oneshot(get("/token")).await.map_err(TokenError::transient)?;
            Ok::<_, TokenError>(tokens(&format!("t{call}")).with_expires_in(HOUR))
        }
    };
    let layer = RefreshLayer::new(Credentials::with_policy(source, policy()))
        .origin("https://api.test")
        .unwrap();
    let client = ServiceBuilder::new().layer(layer).service(shared);
    let start = Instant::now();
    let answers = join_all((0..10).map(|_| client.clone().oneshot(get("/")))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK));
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_gives_its_permit_back() {
    let (source, mut strings) = puppet();
    let limited = ServiceBuilder::new().concurrency_limit(1).service(api());
    let layer = RefreshLayer::new(Credentials::with_policy(source, policy()))
        .origin("https://api.test")
        .unwrap();
    let mut client = ServiceBuilder::new().layer(layer).service(limited.clone());
    let (answer, ()) = tokio::join!(client.ready().await.unwrap().call(get("/")), async {
        strings.next().await.fail(TokenError::denied("x"));
    });
    assert!(answer.unwrap_err().downcast_ref::<TokenError>().unwrap().is_denied());
    // In the backoff the error comes without a wait, from `call` itself.
    let refused = client.ready().await.unwrap().call(get("/"));
    assert!(refused.await.is_err());
    let another = limited.oneshot(get("/"));
    assert!(tokio::time::timeout(Duration::from_secs(1), another).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn token_is_acquired_before_readiness_and_attached_last() {
    // A request that waited for a token and then for the service carries the newest token.
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let layer = RefreshLayer::new(credentials.clone()).origin("https://api.test").unwrap();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sent);
    let api = tower::service_fn(move |request: Request<Body>| {
        seen.lock().unwrap().push(token_of(&request).unwrap().to_owned());
        async { Ok::<_, Infallible>(Response::new(Body::default())) }
    });
    let limited = ServiceBuilder::new().concurrency_limit(1).service(api);
    let client = ServiceBuilder::new().layer(layer).service(limited.clone());
    let waiting = tokio::spawn(client.oneshot(get("/")));
    let asked = strings.next().await;
    // Another request takes the only permit.
    let mut holder = limited.clone();
    holder.ready().await.unwrap();
    asked.answer(tokens("first").with_expires_in(HOUR));
    let_others_run().await;
    let (second, ()) = tokio::join!(credentials.refresh(), async {
        strings.next().await.answer(tokens("second").with_expires_in(HOUR));
    });
    second.unwrap();
    drop(holder);
    waiting.await.unwrap().unwrap();
    assert_eq!(*sent.lock().unwrap(), ["second"]);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_layer_outside_carries_no_token_away() {
    let seen: Arc<Mutex<Vec<(String, bool)>>> = Arc::default();
    let log = Arc::clone(&seen);
    let api = tower::service_fn(move |request: Request<Body>| {
        let has_token = request.headers().contains_key(header::AUTHORIZATION);
        log.lock().unwrap().push((request.uri().to_string(), has_token));
        let mut response = Response::new(Body::default());
        if request.uri().host() == Some("api.test") {
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            response.headers_mut().insert(header::LOCATION, "https://evil.test/".parse().unwrap());
        }
        async { Ok::<_, Infallible>(response) }
    });
    let mint = Mint::new(HOUR);
    let client = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(layer(&mint))
        .map_err(|error: Infallible| match error {})
        .service(api);
    client.oneshot(get("/a")).await.unwrap();
    assert_eq!(
        *seen.lock().unwrap(),
        [("https://api.test/a".to_owned(), true), ("https://evil.test/".to_owned(), false)]
    );
}

#[tokio::test(start_paused = true)]
async fn outer_retry_sends_each_attempt_with_the_current_token() {
    #[derive(Clone)]
    struct Twice(usize);
    impl tower::retry::Policy<Request<Body>, Response<Body>, BoxError> for Twice {
        type Future = std::future::Ready<()>;
        fn retry(
            &mut self,
            _: &mut Request<Body>,
            result: &mut Result<Response<Body>, BoxError>,
        ) -> Option<Self::Future> {
            let failed = result.as_ref().is_ok_and(|answer| answer.status().is_server_error());
            (failed && self.0 > 0).then(|| {
                self.0 -= 1;
                std::future::ready(())
            })
        }
        fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
            Some(request.clone())
        }
    }

    let mint = Mint::new(HOUR);
    let credentials = Credentials::with_policy(mint.clone(), policy());
    let renewing = credentials.clone();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sent);
    let api = tower::service_fn(move |request: Request<Body>| {
        let mut seen = seen.lock().unwrap();
        seen.push(token_of(&request).unwrap().to_owned());
        let first = seen.len() == 1;
        let renewing = renewing.clone();
        async move {
            let mut response = Response::new(Body::default());
            if first {
                renewing.refresh().await.unwrap();
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            Ok::<_, Infallible>(response)
        }
    });
    let client = ServiceBuilder::new()
        .retry(Twice(2))
        .layer(RefreshLayer::new(credentials).origin("https://api.test").unwrap())
        .service(api);
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(*sent.lock().unwrap(), ["t1", "t2"]);
}

/// The service must be usable in spawned futures, and nameable in a struct.
#[test]
fn the_service_is_send_and_sync_and_clone() {
    fn spawnable<T: Send + Sync + Clone + 'static>(_: T) {}
    fn nameable(layer: &RefreshLayer) -> tower_refresh::Refresh<()> {
        tower::Layer::layer(layer, ())
    }
    let mint = Mint::new(HOUR);
    let layer = RefreshLayer::new(mint);
    spawnable(nameable(&layer));
    spawnable(layer.credentials().clone());
    spawnable(layer);
}

/// Serves one request at a time. One to `/slow` takes a minute. Rejects `old`, and records the tokens.
fn one_at_a_time(
    sent: &Arc<Mutex<Vec<String>>>,
) -> impl Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Body>, Infallible>> + Send,
> + Clone
+ Send
+ 'static {
    let sent = Arc::clone(sent);
    ServiceBuilder::new().concurrency_limit(1).service_fn(move |request: Request<Body>| {
        let token = token_of(&request).map(str::to_owned);
        sent.lock().unwrap().extend(token.clone());
        async move {
            if request.uri().path() == "/slow" {
                sleep(Duration::from_secs(60)).await;
            }
            let mut response = Response::new(Body::default());
            if token.as_deref() == Some("old") {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            Ok(response)
        }
    })
}

#[tokio::test(start_paused = true)]
async fn request_waiting_for_readiness_sends_no_logged_out_token() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let layer = RefreshLayer::new(credentials.clone()).origin("https://api.test").unwrap();
    let sent = Arc::default();
    let api = one_at_a_time(&sent);
    let client = ServiceBuilder::new().layer(layer).service(api.clone());
    let waiting = tokio::spawn(client.oneshot(get("/")));
    let asked = strings.next().await;
    let slow = tokio::spawn(api.oneshot(get("/slow")));
    let_others_run().await;
    asked.answer(tokens("alice").with_expires_in(HOUR));
    let_others_run().await;
    credentials.log_out().await.unwrap();
    slow.await.unwrap().unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.downcast_ref::<TokenError>().unwrap().is_denied(), "{error}");
    assert!(sent.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn retry_waiting_past_token_expiry_acquires_a_newer_one() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.log_in(tokens("old").with_expires_in(HOUR)).await.unwrap();
    let layer = RefreshLayer::new(credentials).origin("https://api.test").unwrap();
    let sent = Arc::default();
    let api = one_at_a_time(&sent);
    let client = ServiceBuilder::new().layer(layer).service(api.clone());
    let request = tokio::spawn(client.oneshot(get("/")));
    let asked = strings.next().await;
    let slow = tokio::spawn(api.oneshot(get("/slow")));
    let_others_run().await;
    asked.answer(tokens("short").with_expires_in(Duration::from_secs(5)));
    slow.await.unwrap().unwrap();
    strings.next().await.answer(tokens("new").with_expires_in(HOUR));
    assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(*sent.lock().unwrap(), ["old", "new"]);
    assert_eq!(strings.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn request_without_room_for_a_header_is_an_error() {
    let mint = Mint::new(HOUR);
    let client = ServiceBuilder::new().layer(layer(&mint)).service(api());
    let mut request = get("/");
    for number in 0.. {
        let name = HeaderName::from_bytes(format!("x-{number}").as_bytes()).unwrap();
        if request.headers_mut().try_append(name, HeaderValue::from_static("x")).is_err() {
            break;
        }
    }
    let error = client.oneshot(request).await.unwrap_err();
    assert!(error.downcast_ref::<TokenError>().unwrap().is_misconfigured(), "{error}");
}
