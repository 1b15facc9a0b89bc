//! The refreshes that rejections cost while one endpoint, one origin or the whole API rejects, and the repair of
//! revocations.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::time::{advance, sleep, timeout};
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::{
    Credentials, RefreshLayer, ReplayLimit, Replayable, Skip, TokenError, TokenStatus,
};

use crate::harness::{HOUR, Mint, policy, token_of};

type Body = Replayable<Full<Bytes>>;
type Client = BoxCloneSyncService<Request<Body>, Response<Full<Bytes>>, tower::BoxError>;

/// An API of two origins, where the paths below `/broken` reject every token and all others those that were revoked.
#[derive(Clone)]
struct Api {
    mint: Mint,
    revoked: Arc<AtomicUsize>,
    client: Client,
    credentials: Credentials,
}

/// The requests of the callers of the broken endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Callers {
    Retry,
    NoRetry,
    OverTheLimit,
    GiveUp,
}

const ALL: [Callers; 4] =
    [Callers::Retry, Callers::NoRetry, Callers::OverTheLimit, Callers::GiveUp];

impl Api {
    fn new() -> Self {
        Self::with(Mint::new(24 * HOUR))
    }

    fn with(mint: Mint) -> Self {
        let revoked = Arc::new(AtomicUsize::new(0));
        let layer = RefreshLayer::new(Credentials::with_policy(mint.clone(), policy()))
            .origin("https://api.test")
            .unwrap()
            .origin("https://other.test")
            .unwrap();
        let credentials = layer.credentials().clone();
        let up_to = Arc::clone(&revoked);
        let api = tower::service_fn(move |request: Request<Body>| {
            let token =
                token_of(&request).unwrap().trim_start_matches('t').parse::<usize>().unwrap();
            let is_broken = request.uri().path().starts_with("/broken");
            let is_public = request.uri().path() == "/public";
            let asks_for_more = request.uri().path() == "/step-up";
            let is_revoked = token <= up_to.load(Ordering::SeqCst) && !is_public;
            async move {
                sleep(Duration::from_millis(5)).await;
                let mut response = Response::new(Full::<Bytes>::default());
                if is_broken || asks_for_more || is_revoked {
                    *response.status_mut() = StatusCode::UNAUTHORIZED;
                }
                if asks_for_more && !is_revoked {
                    let challenge = "Bearer error=\"insufficient_user_authentication\"";
                    let challenge = HeaderValue::from_static(challenge);
                    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let client = BoxCloneSyncService::new(ServiceBuilder::new().layer(layer).service(api));
        Self { mint, revoked, client, credentials }
    }

    /// Revokes every token that was issued so far.
    fn revoke(&self) {
        self.revoked.store(self.mint.calls(), Ordering::SeqCst);
    }

    async fn send(&self, url: &str, callers: Callers) -> Option<StatusCode> {
        let body = Replayable::new(Full::from(vec![7; 100]));
        let mut request = Request::post(url).body(body).unwrap();
        match callers {
            Callers::NoRetry => drop(request.extensions_mut().insert(Skip::Retry)),
            Callers::OverTheLimit => drop(request.extensions_mut().insert(ReplayLimit(10))),
            Callers::Retry | Callers::GiveUp => {}
        }
        let sent = self.client.clone().oneshot(request);
        let patience = if callers == Callers::GiveUp { 20 } else { 60_000 };
        let response = timeout(Duration::from_millis(patience), sent).await.ok()?;
        Some(response.unwrap().status())
    }

    async fn get(&self, path: &str) -> StatusCode {
        self.send(&format!("https://api.test{path}"), Callers::Retry).await.unwrap()
    }

    /// For `seconds`, ten times a second, sends a request to each broken path in turn, and a good one.
    async fn mixed_traffic(&self, seconds: usize, callers: Callers) {
        for _ in 0..seconds * 10 {
            self.send("https://api.test/broken", callers).await;
            self.get("/good").await;
            sleep(Duration::from_millis(80)).await;
        }
    }
}

/// S8, E2.
#[tokio::test(start_paused = true)]
async fn one_endpoint_that_rejects_everything_costs_few_refreshes() {
    for callers in ALL {
        let api = Api::new();
        api.get("/good").await;
        api.mixed_traffic(1800, callers).await;
        assert!(api.mint.calls() - 1 <= 2, "{callers:?}: {}", api.mint.calls());
    }
}

/// S8: without other traffic no response speaks for the token, so that it costs an occasional refresh.
#[tokio::test(start_paused = true)]
async fn one_endpoint_without_other_traffic_costs_few_refreshes() {
    for callers in ALL {
        let api = Api::new();
        for _ in 0..36_000 {
            api.send("https://api.test/broken", callers).await;
            sleep(Duration::from_millis(95)).await;
        }
        assert!(api.mint.calls() - 1 <= 20, "{callers:?}: {}", api.mint.calls());
    }
}

/// E2: the broken endpoint shields no revocation, at any time.
#[tokio::test(start_paused = true)]
async fn a_revocation_is_repaired_by_the_first_rejection_elsewhere() {
    for callers in ALL {
        let api = Api::new();
        api.get("/good").await;
        for minute in 0..30 {
            api.mixed_traffic(40 + minute, callers).await;
            api.revoke();
            let before = api.mint.calls();
            assert_eq!(api.get("/another").await, StatusCode::OK, "{callers:?} {minute}");
            assert_eq!(api.mint.calls(), before + 1, "{callers:?} {minute}");
        }
    }
}

/// E2: also right after the refresh that the broken endpoint started.
#[tokio::test(start_paused = true)]
async fn a_revocation_right_after_a_useless_refresh_is_repaired() {
    for milliseconds in [0, 1, 30, 60, 70, 100, 1000] {
        let api = Api::new();
        api.get("/good").await;
        let broken = tokio::spawn({
            let api = api.clone();
            async move { api.get("/broken").await }
        });
        sleep(Duration::from_millis(milliseconds)).await;
        api.revoke();
        assert_eq!(api.get("/another").await, StatusCode::OK, "{milliseconds}");
        assert_eq!(broken.await.unwrap(), StatusCode::UNAUTHORIZED);
        assert!(api.mint.calls() <= 3, "{milliseconds}: {}", api.mint.calls());
    }
}

/// E2: also where good requests are rare, so that nothing speaks for the token while the broken endpoint backs off.
#[tokio::test(start_paused = true)]
async fn a_revocation_is_repaired_though_good_requests_are_rare() {
    for callers in ALL {
        for good_every in [20, 60, 600, 3600] {
            let api = Api::new();
            api.get("/good").await;
            for second in 1..=3600 {
                api.send("https://api.test/broken", callers).await;
                if second % good_every == 0 {
                    api.get("/good").await;
                }
                advance(Duration::from_millis(900)).await;
                if second % 400 == 0 {
                    api.revoke();
                    let status = api.get(&format!("/another/{second}")).await;
                    assert_eq!(status, StatusCode::OK, "{callers:?} {good_every} {second}");
                }
            }
            assert!(api.mint.calls() <= 30, "{callers:?} {good_every}: {}", api.mint.calls());
        }
    }
}

/// E2: a path that accepts any token does not speak for a revoked one forever.
#[tokio::test(start_paused = true)]
async fn revocation_is_repaired_although_a_public_path_accepts_all() {
    for callers in [Callers::Retry, Callers::NoRetry] {
        let api = Api::with(Mint::without_expiry());
        api.get("/public").await;
        // The first new token is revoked as well.
        api.revoked.store(2, Ordering::SeqCst);
        let mut seconds = 0;
        while api.send("https://api.test/good", callers).await != Some(StatusCode::OK) {
            api.get("/public").await;
            sleep(Duration::from_secs(1)).await;
            seconds += 1;
            assert!(seconds <= 2400, "{callers:?}");
        }
        assert_eq!(api.mint.calls(), 3, "{callers:?}");
    }
}

/// E2: a thousand paths that reject everything, and have used up the budget, shield none either.
#[tokio::test(start_paused = true)]
async fn a_revocation_among_a_thousand_broken_paths_is_repaired() {
    for callers in ALL {
        let api = Api::new();
        for n in 0..3600 {
            if n == 1200 || n == 2400 {
                api.revoke();
            }
            api.send(&format!("https://api.test/broken/{n}"), callers).await;
            let status = api.get("/good").await;
            let is_repaired = (n % 1200) > 70 || n < 1200;
            assert!(status == StatusCode::OK || !is_repaired, "{callers:?} {n}");
            sleep(Duration::from_millis(90)).await;
        }
    }
}

/// S8: a failed refresh is no evidence against the token, and is not repeated for an endpoint that rejects everything.
#[tokio::test(start_paused = true)]
async fn broken_endpoint_sends_nothing_to_a_token_endpoint_in_outage() {
    for callers in ALL {
        for down in [TokenError::transient("down"), TokenError::ambiguous("cut")] {
            let api = Api::new();
            api.get("/good").await;
            api.mint.fail(Some(down.clone()));
            api.mixed_traffic(900, callers).await;
            assert!(api.mint.calls() <= 3, "{callers:?} {down}: {}", api.mint.calls());

            api.mint.fail(None);
            api.revoke();
            if down.is_transient() {
                assert_eq!(api.get("/another").await, StatusCode::OK, "{callers:?}");
            }
        }
    }
}

/// S7: the refresh token may be spent, while the access token works.
#[tokio::test(start_paused = true)]
async fn broken_endpoint_does_not_risk_a_doubtful_refresh_token() {
    let api = Api::new();
    api.get("/good").await;
    api.mint.fail(Some(TokenError::ambiguous("cut")));
    api.credentials.refresh().await.unwrap_err();
    for path in 0..100 {
        advance(Duration::from_secs(30)).await;
        api.get("/good").await;
        assert_eq!(api.get(&format!("/broken/{path}")).await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(api.mint.calls(), 2);

    // No response has accepted the access token for long, so that the refresh token is the last resort.
    api.mint.fail(None);
    api.revoke();
    let mut rejected = 0;
    while api.get("/good").await == StatusCode::UNAUTHORIZED {
        rejected += 1;
        advance(Duration::from_secs(1)).await;
    }
    assert!((1..=301).contains(&rejected), "{rejected}");
}

/// S8: a genuine revocation during an outage is repaired as soon as the backoff allows.
#[tokio::test(start_paused = true)]
async fn a_revocation_during_an_outage_is_repaired_after_it() {
    for callers in [Callers::Retry, Callers::NoRetry] {
        let api = Api::new();
        api.mixed_traffic(60, callers).await;
        api.mint.fail(Some(TokenError::transient("down")));
        api.revoke();
        for _ in 0..3 {
            api.mixed_traffic(1, callers).await;
        }
        api.mint.fail(None);
        advance(Duration::from_secs(5)).await;
        api.send("https://api.test/good", callers).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(api.get("/good").await, StatusCode::OK, "{callers:?}");
    }
}

/// A token that works is used while it is renewed early, though a broken endpoint rejects it meanwhile.
#[tokio::test(start_paused = true)]
async fn broken_endpoint_does_not_delay_others_in_an_early_refresh() {
    let slow = Duration::from_secs(20);
    let api = Api::with(Mint::new(HOUR).delay(slow));
    api.get("/good").await;
    api.get("/broken").await;
    assert_eq!(api.mint.calls(), 2);
    advance(HOUR - Duration::from_secs(200)).await;
    api.get("/good").await;
    assert_eq!(api.mint.calls(), 3);
    let broken = tokio::spawn({
        let api = api.clone();
        async move { api.get("/broken").await }
    });
    sleep(Duration::from_secs(1)).await;
    let good = timeout(Duration::from_secs(1), api.get("/good")).await;
    assert_eq!(good.ok(), Some(StatusCode::OK));
    assert_eq!(api.credentials.status().token, TokenStatus::Stale);
    assert_eq!(broken.await.unwrap(), StatusCode::UNAUTHORIZED);
}

/// A token that works is used although a broken endpoint rejected it and its refresh failed.
#[tokio::test(start_paused = true)]
async fn failed_refresh_for_a_broken_endpoint_fails_no_other_request() {
    let api = Api::with(Mint::new(HOUR).delay(Duration::from_secs(1)));
    api.get("/good").await;
    api.mint.fail(Some(TokenError::transient("down")));
    let (broken, good) = tokio::join!(api.get("/broken"), async {
        sleep(Duration::from_millis(500)).await;
        api.get("/good").await
    });
    assert_eq!((broken, good), (StatusCode::UNAUTHORIZED, StatusCode::OK));
}

/// A token that was answered 401 during an early refresh is *rejected* also after that refresh has failed.
#[tokio::test(start_paused = true)]
async fn rejection_during_a_failed_early_refresh_is_reported() {
    let api = Api::with(Mint::new(HOUR).delay(Duration::from_secs(1)));
    api.get("/good").await;
    api.mint.fail(Some(TokenError::transient("down")));
    advance(HOUR - Duration::from_secs(200)).await;
    api.revoke();
    assert_eq!(api.get("/good").await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.mint.calls(), 2);
    assert_eq!(api.credentials.status().token, TokenStatus::Rejected);
}

/// E1.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_asks_for_more_starts_no_refresh() {
    let api = Api::new();
    for _ in 0..180 {
        assert_eq!(api.get("/step-up").await, StatusCode::UNAUTHORIZED);
        advance(Duration::from_secs(10)).await;
    }
    assert_eq!(api.mint.calls(), 1);
    api.revoke();
    api.get("/step-up").await;
    assert_eq!(api.mint.calls(), 2);
}

/// E2: without a retry, the same endpoint shows that its refresh was useful.
#[tokio::test(start_paused = true)]
async fn revocations_every_minute_are_repaired_without_retry() {
    let api = Api::new();
    for _ in 0..60 {
        let good = "https://api.test/good";
        api.send(good, Callers::NoRetry).await;
        let status = api.send(good, Callers::NoRetry).await;
        assert_eq!(status, Some(StatusCode::OK));
        advance(Duration::from_secs(60)).await;
        api.revoke();
    }
}

/// E2.
#[tokio::test(start_paused = true)]
async fn a_thousand_paths_that_reject_everything_stay_within_a_budget() {
    for callers in ALL {
        let api = Api::new();
        for n in 0..36_000 {
            api.send(&format!("https://api.test/broken/{}", n % 1000), callers).await;
            api.get("/good").await;
            sleep(Duration::from_millis(90)).await;
        }
        assert!(api.mint.calls() <= 20, "{callers:?}: {}", api.mint.calls());
    }
}

/// E2.
#[tokio::test(start_paused = true)]
async fn an_api_that_rejects_everything_costs_few_refreshes_a_minute() {
    for callers in ALL {
        for paths in [1, 3, 1000] {
            let api = Api::new();
            for n in 0..600 {
                api.send(&format!("https://api.test/broken/{}", n % paths), callers).await;
                sleep(Duration::from_millis(95)).await;
            }
            assert!(api.mint.calls() <= 5, "{callers:?} {paths}: {}", api.mint.calls());
        }
    }
}

/// E2.
#[tokio::test(start_paused = true)]
async fn a_broken_origin_does_not_hold_back_another() {
    let api = Api::new();
    for n in 0..1000 {
        api.get(&format!("/broken/{n}")).await;
    }
    for _ in 0..10 {
        api.revoke();
        let status = api.send("https://other.test/", Callers::Retry).await;
        assert_eq!(status, Some(StatusCode::OK));
    }
}

/// The status of a token that was answered 401 is *rejected* until a response accepts it.
#[tokio::test(start_paused = true)]
async fn token_is_reported_as_rejected_until_it_is_accepted() {
    let api = Api::new();
    api.get("/good").await;
    assert_eq!(api.credentials.status().token, TokenStatus::Fresh);
    api.get("/broken").await;
    assert_eq!(api.credentials.status().token, TokenStatus::Rejected);
    advance(Duration::from_secs(30)).await;
    assert_eq!(api.credentials.status().token, TokenStatus::Rejected);
    api.get("/good").await;
    assert_eq!(api.credentials.status().token, TokenStatus::Fresh);
}
