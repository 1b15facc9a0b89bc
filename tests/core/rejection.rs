//! A rejected token costs one refresh and one retry, and causes no storm.
#![allow(clippy::disallowed_methods, reason = "reads tokio's paused clock")]
#![allow(clippy::disallowed_types, reason = "locks shared with the code under test")]

use std::collections::HashSet;
use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::time::{Instant, advance, sleep};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _};
use tower_refresh::{
    Cause, Credentials, Event, RefreshLayer, Skip, TokenError, TokenStatus, Verdict,
};

use crate::harness::{self, HOUR, Mint, client, get, policy, puppet, token_of, tokens};

/// Answers 401 to every token but the newest of `mint`.
fn only_newest(
    mint: &Mint,
) -> impl Fn(String, String) -> std::future::Ready<StatusCode> + Clone + use<> {
    let mint = mint.clone();
    move |token, _| {
        let accepted = token == mint.newest();
        std::future::ready(if accepted { StatusCode::OK } else { StatusCode::UNAUTHORIZED })
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_late_rejections_of_one_token_cost_one_refresh() {
    let mint = Mint::new(HOUR);
    let accepts_first = Arc::new(AtomicBool::new(true));
    let valid = Arc::clone(&accepts_first);
    let layer = RefreshLayer::new(Credentials::with_policy(mint.clone(), policy()));
    let client = client(layer, move |token, path| {
        let valid = Arc::clone(&valid);
        async move {
            // The rejections arrive 10 ms apart.
            let late: u64 = path.trim_start_matches('/').parse().unwrap();
            if token == "t1" {
                sleep(Duration::from_millis(10 * late)).await;
            }
            let accepted = token != "t1" || valid.load(Ordering::SeqCst);
            if accepted { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
        }
    });
    client.clone().oneshot(get("/0")).await.unwrap();
    accepts_first.store(false, Ordering::SeqCst);

    let answers =
        join_all((0..100).map(|late| client.clone().oneshot(get(&format!("/{late}"))))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK));
    assert_eq!(mint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_rejects_everything_costs_few_refreshes() {
    let mint = Mint::new(HOUR);
    let layer = RefreshLayer::new(Credentials::with_policy(mint.clone(), policy()));
    let client = client(layer, |_, path| async move {
        if path == "/broken" { StatusCode::UNAUTHORIZED } else { StatusCode::OK }
    });
    client.clone().oneshot(get("/")).await.unwrap();
    assert_eq!(mint.calls(), 1);

    // Requests elsewhere wait at most for those few refreshes.
    let elsewhere = tokio::spawn({
        let client = client.clone();
        async move {
            let mut waited = Duration::ZERO;
            for _ in 0..1000 {
                let start = Instant::now();
                assert_eq!(
                    client.clone().oneshot(get("/")).await.unwrap().status(),
                    StatusCode::OK
                );
                waited += start.elapsed();
                sleep(Duration::from_millis(60)).await;
            }
            waited
        }
    });
    for _ in 0..1000 {
        let answer = client.clone().oneshot(get("/broken")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        sleep(Duration::from_millis(60)).await;
    }
    let refreshes = mint.calls() - 1;
    assert!((1..=5).contains(&refreshes), "{refreshes}");
    let waited = elsewhere.await.unwrap();
    assert!(waited <= Duration::from_millis(50) * refreshes as u32, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_that_cannot_be_sent_again_make_no_storm_either() {
    let mint = Mint::new(HOUR);
    let layer = RefreshLayer::new(Credentials::with_policy(mint.clone(), policy()));
    let client = client(layer, |_, _| async { StatusCode::UNAUTHORIZED });
    for _ in 0..1000 {
        let mut request = get("/");
        request.extensions_mut().insert(Skip::Retry);
        client.clone().oneshot(request).await.unwrap();
        sleep(Duration::from_millis(60)).await;
    }
    // One per five seconds of rejection backoff, and the first.
    assert!((2..=14).contains(&mint.calls()), "{}", mint.calls());
}

#[tokio::test(start_paused = true)]
async fn server_that_revokes_previous_tokens_causes_no_storm() {
    let mint = Mint::new(HOUR);
    let layer = RefreshLayer::new(Credentials::with_policy(mint.clone(), policy()));
    let credentials = layer.credentials().clone();
    let newest = only_newest(&mint);
    let client = client(layer, move |token, path| {
        let newest = newest.clone();
        async move {
            // Every other answer is late, so that rejections of superseded tokens keep coming in.
            if path == "/late" {
                sleep(Duration::from_millis(30)).await;
            }
            newest(token, path).await
        }
    });
    client.clone().oneshot(get("/")).await.unwrap();
    for _ in 0..20 {
        credentials.refresh().await.unwrap();
        let paths = ["/late", "/"].into_iter().cycle().take(50);
        let answers = join_all(paths.map(|path| client.clone().oneshot(get(path)))).await;
        assert!(answers.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK));
    }
    // The first, and one for each refresh that the application requested.
    assert_eq!(mint.calls(), 21);
}

#[tokio::test(start_paused = true)]
async fn the_first_rejection_renews_however_young_the_token() {
    let mint = Mint::new(HOUR);
    let layer = RefreshLayer::new(Credentials::with_policy(mint.clone(), policy()));
    let client = client(layer, |token, _| async move {
        if token == "t1" { StatusCode::UNAUTHORIZED } else { StatusCode::OK }
    });
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(mint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_accepted_retry_releases_the_rejection_backoff() {
    let mint = Mint::new(HOUR);
    let layer = RefreshLayer::new(Credentials::with_policy(mint.clone(), policy()));
    let credentials = layer.credentials().clone();
    let mut events = credentials.subscribe();
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let newest = only_newest(&mint);
    let client = client(layer, move |token, path| {
        let answer = newest(token, path);
        let broken = is_broken.load(Ordering::SeqCst);
        async move { if broken { StatusCode::UNAUTHORIZED } else { answer.await } }
    });
    assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert!(credentials.status().rejection_backoff.is_some());
    broken.store(false, Ordering::SeqCst);
    advance(Duration::from_secs(6)).await;

    // This rejection is justified: another process has refreshed.
    tower_refresh::TokenSource::fetch(&mint, tower_refresh::Renewal::new(Cause::Forced))
        .await
        .unwrap();
    assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), StatusCode::OK);
    assert!(credentials.status().rejection_backoff.is_none());
    let mut seen = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, events.recv()).await {
        seen.push(event);
    }
    assert!(seen.iter().any(|event| matches!(event, Event::RejectionBackoffStarted { .. })));
    assert!(seen.iter().any(|event| matches!(event, Event::RejectionBackoffEnded)), "{seen:?}");
}

/// Counts its clones, like a client whose clones share what all threads would write.
struct Counted<S> {
    inner: S,
    clones: Arc<AtomicUsize>,
}

impl<S: Clone> Clone for Counted<S> {
    fn clone(&self) -> Self {
        self.clones.fetch_add(1, Ordering::SeqCst);
        Self { inner: self.inner.clone(), clones: Arc::clone(&self.clones) }
    }
}

impl<S: Service<R>, R> Service<R> for Counted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.inner.call(request)
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_second_attempt_clones_the_inner_service() {
    let clones = Arc::new(AtomicUsize::new(0));
    let api = tower::service_fn(async |request: Request<Full<Bytes>>| {
        let status = match token_of(&request).unwrap() {
            "t1" if request.uri().path() == "/rejected" => StatusCode::UNAUTHORIZED,
            _ => StatusCode::OK,
        };
        let mut response = Response::new(Full::<Bytes>::default());
        *response.status_mut() = status;
        Ok::<_, Infallible>(response)
    });
    let credentials = Credentials::with_policy(Mint::new(HOUR), policy());
    credentials.warm_up().await.unwrap();
    let layer = RefreshLayer::new(credentials).origin("https://api.test").unwrap();
    let mut client = layer.layer(Counted { inner: api, clones: Arc::clone(&clones) });
    assert_eq!(clones.load(Ordering::SeqCst), 1);
    for (path, expected) in [("/", 1), ("/", 1), ("/rejected", 2), ("/", 2)] {
        let response = client.ready().await.unwrap().call(get(path)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(clones.load(Ordering::SeqCst), expected, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_rejection_reaches_the_caller() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let layer = RefreshLayer::new(Credentials::with_policy(Mint::new(HOUR), policy()));
    let client = client(layer, move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { StatusCode::UNAUTHORIZED }
    });
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(attempts.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn failed_refresh_after_a_rejection_returns_the_rejection() {
    let (source, mut strings) = puppet();
    let layer = RefreshLayer::new(Credentials::with_policy(source, policy()));
    layer.credentials().log_in(tokens("old").with_expires_in(HOUR)).await.unwrap();
    let client = client(layer, |_, _| async { StatusCode::UNAUTHORIZED });
    let (answer, ()) = tokio::join!(client.clone().oneshot(get("/")), async {
        let asked = strings.next().await;
        assert_eq!(asked.renewal.cause(), Cause::Rejected);
        asked.fail(TokenError::transient("overloaded"));
    });
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert!(answer.extensions().get::<TokenError>().unwrap().is_transient());
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "401");

    // In the backoff the unexpired token is sent, and the 401 is the answer.
    let answer = client.oneshot(get("/")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert!(answer.extensions().get::<TokenError>().is_some());
    assert_eq!(strings.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_late_rejection_of_an_older_token_does_not_renew_the_newer() {
    let mint = Mint::new(HOUR);
    let layer = RefreshLayer::new(Credentials::with_policy(mint.clone(), policy()));
    let credentials = layer.credentials().clone();
    let client = client(layer, |token, _| async move {
        if token == "t1" {
            sleep(Duration::from_secs(10)).await;
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::OK
        }
    });
    credentials.warm_up().await.unwrap();
    let late = tokio::spawn(client.oneshot(get("/")));
    sleep(Duration::from_secs(1)).await;
    credentials.refresh().await.unwrap();
    assert_eq!(late.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(mint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn new_requests_wait_while_a_rejected_token_is_refreshed() {
    let (source, mut strings) = puppet();
    let layer = RefreshLayer::new(Credentials::with_policy(source, policy()));
    let credentials = layer.credentials().clone();
    credentials.log_in(tokens("old").with_expires_in(HOUR)).await.unwrap();
    let sent_old = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent_old);
    let client = client(layer, move |token, _| {
        let old = token == "old";
        counted.fetch_add(usize::from(old), Ordering::SeqCst);
        async move { if old { StatusCode::UNAUTHORIZED } else { StatusCode::OK } }
    });
    let first = tokio::spawn(client.clone().oneshot(get("/")));
    let asked = strings.next().await;
    assert_eq!(credentials.status().token, TokenStatus::Rejected);
    let others: Vec<_> = (0..50).map(|_| tokio::spawn(client.clone().oneshot(get("/")))).collect();
    harness::let_others_run().await;
    asked.answer(tokens("new").with_expires_in(HOUR));
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
    for other in others {
        assert_eq!(other.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(sent_old.load(Ordering::SeqCst), 1);
    assert_eq!(strings.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn two_layers_on_one_credentials_renew_once() {
    let mint = Mint::new(HOUR);
    let credentials = Credentials::with_policy(mint.clone(), policy());
    let clients = [(); 2].map(|()| {
        client(RefreshLayer::new(credentials.clone()), |token, _| async move {
            if token == "t1" { StatusCode::UNAUTHORIZED } else { StatusCode::OK }
        })
    });
    let answers = join_all((0..100).map(|n: usize| clients[n % 2].clone().oneshot(get("/")))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK));
    assert_eq!(mint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn source_receives_the_challenge_of_the_rejection() {
    let (source, mut strings) = puppet();
    let layer = RefreshLayer::new(Credentials::with_policy(source, policy()))
        .origin("https://api.test")
        .unwrap();
    layer.credentials().log_in(tokens("old")).await.unwrap();
    let api = tower::service_fn(|request: Request<Full<Bytes>>| async move {
        let mut response = Response::new(Full::<Bytes>::default());
        if token_of(&request) == Some("old") {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            let challenge =
                r#"Basic realm="x", Bearer realm="api", error="invalid_token", scope="a b""#;
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
        }
        Ok::<_, Infallible>(response)
    });
    let client = ServiceBuilder::new().layer(layer).service(api);
    let (answer, ()) = tokio::join!(client.oneshot(get("/")), async {
        let asked = strings.next().await;
        let challenge = asked.renewal.challenge().unwrap();
        assert_eq!(challenge.error(), Some("invalid_token"));
        assert_eq!(challenge.scope(), Some("a b"));
        asked.answer(tokens("new"));
    });
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn late_challenge_for_an_older_token_is_not_passed_on() {
    let (source, strings) = puppet();
    let strings = Arc::new(tokio::sync::Mutex::new(strings));
    let layer = RefreshLayer::new(Credentials::with_policy(source, policy()))
        .origin("https://api.test")
        .unwrap();
    let credentials = layer.credentials().clone();
    credentials.log_in(tokens("old").with_expires_in(HOUR)).await.unwrap();
    let (renewed, answers) = (credentials.clone(), Arc::clone(&strings));
    let api = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let (credentials, strings) = (renewed.clone(), Arc::clone(&answers));
        async move {
            let mut response = Response::new(Full::<Bytes>::default());
            if token_of(&request) == Some("old") {
                // By the time of the rejection there is another token, and it is stale.
                let (other, ()) = tokio::join!(credentials.refresh(), async {
                    strings.lock().await.next().await.answer(tokens("other").with_expires_in(HOUR));
                });
                other.unwrap();
                advance(HOUR - Duration::from_secs(100)).await;
                *response.status_mut() = StatusCode::UNAUTHORIZED;
                let challenge = r#"Bearer error="invalid_token", scope="admin""#;
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
            }
            Ok::<_, Infallible>(response)
        }
    });
    let client = ServiceBuilder::new().layer(layer).service(api);
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), StatusCode::OK);
    let asked = strings.lock().await.next().await;
    assert_eq!(asked.renewal.cause(), Cause::Expiring);
    assert_eq!(asked.renewal.previous().unwrap().access_token().expose_secret(), "other");
    assert!(asked.renewal.challenge().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_counts_as_a_rejection_is_the_classifiers_business() {
    let mint = Mint::new(HOUR);
    let layer = RefreshLayer::new(Credentials::with_policy(mint.clone(), policy()))
        .origin("https://api.test")
        .unwrap()
        .classifier(|status: StatusCode, _: &http::HeaderMap| {
            if status == StatusCode::IM_A_TEAPOT { Verdict::Rejected } else { Verdict::Accepted }
        });
    let api = tower::service_fn(|request: Request<Full<Bytes>>| async move {
        let mut response = Response::new(Full::<Bytes>::default());
        if token_of(&request) == Some("t1") {
            *response.status_mut() = StatusCode::IM_A_TEAPOT;
        }
        Ok::<_, Infallible>(response)
    });
    let answer = ServiceBuilder::new().layer(layer).service(api).oneshot(get("/")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(mint.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_retry_the_next_request_gets_a_new_token() {
    let mint = Mint::new(HOUR);
    let attempts = Arc::new(AtomicUsize::new(0));
    let layer = RefreshLayer::new(Credentials::with_policy(mint.clone(), policy()))
        .origin("https://api.test")
        .unwrap()
        .without_retry();
    let counted = Arc::clone(&attempts);
    // A body that cannot be sent again.
    let api = tower::service_fn(move |request: Request<NotClone>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let old = token_of(&request) == Some("t1");
        async move {
            let mut response = Response::new(Full::<Bytes>::default());
            if old {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            Ok::<_, Infallible>(response)
        }
    });
    let client = ServiceBuilder::new().layer(layer).service(api);
    let request = || Request::get("https://api.test/").body(NotClone).unwrap();
    assert_eq!(client.clone().oneshot(request()).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(client.clone().oneshot(request()).await.unwrap().status(), StatusCode::OK);
    assert_eq!(attempts.load(Ordering::SeqCst), 2);
    assert_eq!(mint.calls(), 2);
}

struct NotClone;

#[tokio::test(start_paused = true)]
async fn a_request_may_ask_to_be_left_alone() {
    let mint = Mint::new(HOUR);
    let layer = RefreshLayer::new(Credentials::with_policy(mint.clone(), policy()));
    let client = client(layer, |token, _| async move {
        if token.is_empty() { StatusCode::UNAUTHORIZED } else { StatusCode::OK }
    });
    let mut request = get("/");
    request.extensions_mut().insert(Skip::Token);
    assert_eq!(client.oneshot(request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(mint.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_during_an_early_renewal_makes_new_requests_wait() {
    let (source, mut strings) = puppet();
    let layer = RefreshLayer::new(Credentials::with_policy(source, policy()));
    let credentials = layer.credentials().clone();
    credentials.log_in(tokens("old").with_expires_in(HOUR)).await.unwrap();
    advance(HOUR - Duration::from_secs(200)).await;
    let client = client(layer, |token, _| async move {
        if token == "old" { StatusCode::UNAUTHORIZED } else { StatusCode::OK }
    });
    let first = tokio::spawn(client.clone().oneshot(get("/")));
    let asked = strings.next().await;
    assert_eq!(asked.renewal.cause(), Cause::Expiring);
    assert_eq!(credentials.status().token, TokenStatus::Rejected);
    let mut other = task::spawn(client.oneshot(get("/")));
    assert_pending!(other.poll());
    asked.answer(tokens("new"));
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(assert_ready!(other.poll()).unwrap().status(), StatusCode::OK);
    assert_eq!(strings.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unexpired_token_is_used_when_its_renewal_hangs() {
    let (source, mut strings) = puppet();
    let layer = RefreshLayer::new(Credentials::with_policy(source, policy()));
    layer.credentials().log_in(tokens("t").with_expires_in(HOUR)).await.unwrap();
    let client = client(layer, |_, path| async move {
        if path == "/broken" { StatusCode::UNAUTHORIZED } else { StatusCode::OK }
    });
    let broken = tokio::spawn(client.clone().oneshot(get("/broken")));
    let _hung = strings.next().await;
    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), StatusCode::OK);
    }
    // One timeout has passed, and not one for each request.
    assert_eq!(start.elapsed(), Duration::from_secs(30));
    assert_eq!(broken.await.unwrap().unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test(start_paused = true)]
async fn refresh_failure_elsewhere_does_not_excuse_a_rejected_retry() {
    let (source, mut strings) = puppet();
    let layer = RefreshLayer::new(Credentials::with_policy(source, policy()));
    let credentials = layer.credentials().clone();
    credentials.log_in(tokens("old").with_expires_in(HOUR)).await.unwrap();
    let client = client(layer, |token, _| async move {
        if token != "old" {
            sleep(Duration::from_secs(2)).await;
        }
        StatusCode::UNAUTHORIZED
    });
    let request = tokio::spawn(client.oneshot(get("/")));
    strings.next().await.answer(tokens("new").with_expires_in(HOUR));
    harness::let_others_run().await;
    let (renewed, ()) = tokio::join!(credentials.refresh(), async {
        strings.next().await.fail(TokenError::transient("x"));
    });
    renewed.unwrap_err();
    assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(credentials.status().rejection_backoff, Some(Duration::from_secs(5)));
}

// ===== storms =====

/// Sends a thousand requests, each to a path of its own, within a minute, and returns how many refreshes that cost.
async fn refreshes_in_a_minute<F, Fut>(lifetime: Duration, answer: F) -> usize
where
    F: Fn(String, String) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = StatusCode> + Send + 'static,
{
    let mint = Mint::new(lifetime);
    let layer = RefreshLayer::new(Credentials::with_policy(mint.clone(), policy()));
    layer.credentials().warm_up().await.unwrap();
    let client = client(layer, answer);
    let mut requests = Vec::new();
    for number in 0..1000 {
        requests.push(tokio::spawn(client.clone().oneshot(get(&format!("/{number}")))));
        sleep(Duration::from_millis(60)).await;
    }
    for request in requests {
        request.await.unwrap().unwrap();
    }
    mint.calls() - 1
}

#[tokio::test(start_paused = true)]
async fn rejections_that_come_late_and_out_of_order_make_no_storm() {
    let attempts = Arc::new(AtomicU64::new(1));
    let refreshes = refreshes_in_a_minute(HOUR, move |_, _| {
        // Up to three seconds, in an order that repeats from run to run.
        let attempt = attempts.fetch_add(1, Ordering::SeqCst);
        let latency =
            Duration::from_millis((attempt.wrapping_mul(0x5851_F42D_4C95_7F2D) >> 33) % 3000);
        async move {
            sleep(latency).await;
            StatusCode::UNAUTHORIZED
        }
    })
    .await;
    assert!((1..=5).contains(&refreshes), "{refreshes}");
}

#[tokio::test(start_paused = true)]
async fn retries_slower_than_the_rejection_backoff_make_no_storm() {
    // Each first attempt is rejected at once, and each retry after twenty seconds.
    let seen: Arc<Mutex<HashSet<String>>> = Arc::default();
    let refreshes = refreshes_in_a_minute(HOUR, move |_, path| {
        let is_retry = !seen.lock().unwrap().insert(path);
        async move {
            if is_retry {
                sleep(Duration::from_secs(20)).await;
            }
            StatusCode::UNAUTHORIZED
        }
    })
    .await;
    assert!((1..=5).contains(&refreshes), "{refreshes}");
}

#[tokio::test(start_paused = true)]
async fn tokens_of_five_seconds_that_are_all_rejected_make_no_storm() {
    let lifetime = Duration::from_secs(5);
    let refreshes =
        refreshes_in_a_minute(lifetime, |_, _| async { StatusCode::UNAUTHORIZED }).await;
    // Each is refreshed once when it expires, and once more because it is rejected.
    assert!((12..=2 * 15).contains(&refreshes), "{refreshes}");
}

#[test]
fn a_rejected_answer_of_endless_empty_frames_is_read_to_an_end() {
    let (done, is_done) = mpsc::channel();
    // On a thread of its own, since an endless response would block the test itself.
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let status = runtime.block_on(async {
            let layer = RefreshLayer::new(Mint::new(HOUR).delay(Duration::ZERO));
            let api = tower::service_fn(|request: Request<Full<Bytes>>| async move {
                let frames = stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::new())));
                let mut response = Response::new(StreamBody::new(frames));
                if token_of(&request) == Some("t1") {
                    *response.status_mut() = StatusCode::UNAUTHORIZED;
                }
                Ok::<_, Infallible>(response)
            });
            let layer = layer.origin("https://api.test").unwrap();
            let client = ServiceBuilder::new().layer(layer).service(api);
            client.oneshot(get("/")).await.unwrap().status()
        });
        done.send(status)
    });
    assert_eq!(is_done.recv_timeout(Duration::from_secs(10)), Ok(StatusCode::OK));
}

#[test]
fn endless_rejection_is_abandoned_on_an_unpolled_runtime_too() {
    let idle = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let idle = Arc::new(idle);
    let other = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let mint = Mint::without_expiry().delay(Duration::ZERO);
    let policy = policy().runtime(idle.handle().clone());
    let credentials = Credentials::with_policy(mint, policy);
    // The runtime of the policy is polled for this, and not while the rejected answer is read.
    let renew = {
        let (credentials, idle) = (credentials.clone(), Arc::clone(&idle));
        move || thread::scope(|it| it.spawn(|| idle.block_on(credentials.refresh())).join().is_ok())
    };
    assert!(renew());
    other.block_on(async {
        let layer = RefreshLayer::new(credentials).origin("https://api.test").unwrap();
        let api = tower::service_fn(move |request: Request<Full<Bytes>>| {
            let mut response = Response::new(StreamBody::new(stream::pending::<
                Result<Frame<Bytes>, Infallible>,
            >()));
            if token_of(&request) == Some("t1") {
                assert!(renew());
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let client = ServiceBuilder::new().layer(layer).service(api);
        let answer = tokio::time::timeout(HOUR, client.oneshot(get("/"))).await.unwrap();
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
    });
}

/// E2: a WebSocket that was opened with a token speaks for it (RFC 9110 §15.2.2).
#[tokio::test(start_paused = true)]
async fn switching_protocols_after_a_refresh_ends_the_backoff() {
    let mint = Mint::new(HOUR);
    let layer = RefreshLayer::new(Credentials::with_policy(mint.clone(), policy()));
    let credentials = layer.credentials().clone();
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let newest = only_newest(&mint);
    let client = client(layer, move |token, path| {
        let answer = newest(token, path);
        let broken = is_broken.load(Ordering::SeqCst);
        async move {
            match answer.await {
                StatusCode::OK if !broken => StatusCode::SWITCHING_PROTOCOLS,
                _ => StatusCode::UNAUTHORIZED,
            }
        }
    });
    assert_eq!(client.clone().oneshot(get("/")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert!(credentials.status().rejection_backoff.is_some());
    assert_eq!(credentials.status().token, TokenStatus::Rejected);

    broken.store(false, Ordering::SeqCst);
    let opened = client.clone().oneshot(get("/")).await.unwrap();
    assert_eq!(opened.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert!(credentials.status().rejection_backoff.is_none());
    assert_eq!(credentials.status().token, TokenStatus::Fresh);
}
