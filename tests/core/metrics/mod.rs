//! The metrics after each incident, with their labels.

mod pools;
mod recorders;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::Full;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::time::{advance, sleep, timeout};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer as _, ServiceExt as _};
use tower_refresh::store::{
    MemoryLock, MemoryStore, StoreError, StoredTokens, TokenStore, WriteId,
};
use tower_refresh::testing::TokioClock;
use tower_refresh::{Clock as _, Credentials, RefreshLayer, Renewal, TokenError, TokenSet};

use crate::harness::{HOUR, MINUTE, SECOND, Strings, policy, puppet, tokens};
use crate::scrape::{Scrape, recorded};

const API: (&str, &str) = ("credentials", "api");

fn test(test: impl AsyncFnOnce(Metrics)) {
    let recorder = PrometheusBuilder::new().with_recommended_naming(true).build_recorder();
    recorded(recorder, async |handle| test(Metrics(handle)).await);
}

struct Metrics(PrometheusHandle);

impl Metrics {
    fn scrape(&self) -> Scrape {
        Scrape::parse(&self.0.render())
    }

    #[track_caller]
    fn assert(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<_> = [API].into_iter().chain(labels.iter().copied()).collect();
        let scrape = self.scrape();
        assert_eq!(scrape.value(name, &labels), value, "{name} {labels:?} in\n{scrape}");
    }

    fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        let labels: Vec<_> = [API].into_iter().chain(labels.iter().copied()).collect();
        self.scrape().find(name, &labels).is_some()
    }

    #[track_caller]
    fn assert_requests(&self, outcome: &str, value: f64) {
        self.assert("tower_refresh_requests_total", &[("outcome", outcome)], value);
    }

    #[track_caller]
    fn assert_refreshes(&self, cause: &str, outcome: &str, kind: Option<&str>, value: f64) {
        let labels = [("cause", cause), ("outcome", outcome)].into_iter();
        let labels: Vec<_> = labels.chain(kind.map(|kind| ("error_kind", kind))).collect();
        self.assert("tower_refresh_refreshes_total", &labels, value);
    }

    #[track_caller]
    fn assert_backoff(&self, kind: &str, value: f64) {
        self.assert("tower_refresh_backoff", &[("error_kind", kind)], value);
    }
}

fn driven() -> (Credentials, Strings) {
    let (source, strings) = puppet();
    (Credentials::builder(source).name("api").policy(policy()).build(), strings)
}

/// Returns credentials whose refreshes succeed at once.
fn healthy() -> Credentials {
    let fetch = |_: Renewal| async { Ok(tokens("t").with_expires_in(HOUR)) };
    Credentials::builder(fetch).name("api").policy(policy()).build()
}

type Client = BoxCloneSyncService<Request<Full<Bytes>>, Response<Full<Bytes>>, BoxError>;

/// Returns a client of an API that answers with the status that is set.
fn client(credentials: &Credentials, status: &Arc<AtomicU16>) -> Client {
    let layer = RefreshLayer::new(credentials.clone()).origin("https://api.test").unwrap();
    let status = Arc::clone(status);
    let api = tower::service_fn(move |_: Request<Full<Bytes>>| {
        let status = status.load(Ordering::SeqCst);
        let answer = Response::builder().status(status).body(Full::<Bytes>::default());
        async move { Ok::<_, Infallible>(answer.unwrap()) }
    });
    BoxCloneSyncService::new(layer.layer(api))
}

async fn send(client: &Client, url: &str) -> Result<Response<Full<Bytes>>, BoxError> {
    client.clone().oneshot(Request::get(url).body(Full::default()).unwrap()).await
}

// ===== requests =====

#[test]
fn rejections_of_unnamed_origins_are_counted_however_many_there_are() {
    test(async |metrics| {
        let status = Arc::new(AtomicU16::new(401));
        let client = client(&healthy(), &status);
        for number in 0..100 {
            send(&client, &format!("https://host-{number}.test/")).await.unwrap();
        }
        metrics.assert_requests("untouched_rejected", 100.0);
        metrics.assert_requests("untouched", 0.0);
    });
}

#[test]
fn requests_are_counted_by_the_verdict_on_the_token() {
    test(async |metrics| {
        let (credentials, status) = (healthy(), Arc::new(AtomicU16::new(200)));
        let client = client(&credentials, &status);
        for (answer, count) in [(200, 3), (503, 2), (401, 1)] {
            status.store(answer, Ordering::SeqCst);
            for _ in 0..count {
                send(&client, "https://api.test/").await.unwrap();
            }
        }
        send(&client, "https://elsewhere.test/").await.unwrap();
        status.store(200, Ordering::SeqCst);
        send(&client, "https://elsewhere.test/").await.unwrap();
        metrics.assert_requests("accepted", 3.0);
        metrics.assert_requests("not_judged", 2.0);
        // The second attempt as well.
        metrics.assert_requests("rejected", 2.0);
        metrics.assert_requests("untouched", 1.0);
        metrics.assert_requests("untouched_rejected", 1.0);
        metrics.assert_requests("not_sent", 0.0);
        metrics.assert("tower_refresh_retries_total", &[("outcome", "rejected")], 1.0);
        metrics.assert("tower_refresh_retries_total", &[("outcome", "accepted")], 0.0);
        metrics.assert_refreshes("rejected", "success", None, 1.0);
    });
}

#[test]
fn requests_that_fail_for_lack_of_a_token_are_counted() {
    test(async |metrics| {
        let (credentials, mut source) = driven();
        let client = client(&credentials, &Arc::new(AtomicU16::new(200)));
        let waits = async { assert!(send(&client, "https://api.test/").await.is_err()) };
        let denies = async { source.next().await.fail(TokenError::denied("no")) };
        tokio::join!(waits, denies);
        metrics.assert_requests("not_sent", 1.0);
        // The failure is remembered.
        assert!(send(&client, "https://api.test/").await.is_err());
        metrics.assert_requests("not_sent", 2.0);
        metrics.assert_requests("accepted", 0.0);
    });
}

#[test]
fn requests_without_room_for_the_token_count_as_not_sent() {
    test(async |metrics| {
        let (credentials, mut source) = driven();
        let client = client(&credentials, &Arc::new(AtomicU16::new(200)));
        let send_full = async || {
            let mut request = Request::get("https://api.test/").body(Full::default()).unwrap();
            let mut names = (0..).map(|name| HeaderName::try_from(format!("x{name}")).unwrap());
            let mut insert = |name| request.headers_mut().try_insert(name, HeaderValue::from(0));
            while insert(names.next().unwrap()).is_ok() {}
            client.clone().oneshot(request).await.unwrap_err()
        };
        // After a wait for a token, and with a fresh one.
        let answers = async { source.next().await.answer(tokens("t")) };
        tokio::join!(send_full(), answers);
        metrics.assert_requests("not_sent", 1.0);
        send_full().await;
        metrics.assert_requests("not_sent", 2.0);
    });
}

#[test]
fn waits_are_counted_and_measured_also_if_the_caller_gives_up() {
    test(async |metrics| {
        let (credentials, mut source) = driven();
        let all = join_all((0..3).map(|_| credentials.tokens()));
        let gives_up = timeout(2 * SECOND, credentials.tokens());
        let answers = async {
            let asked = source.next().await;
            sleep(SECOND).await;
            metrics.assert("tower_refresh_waiters", &[], 4.0);
            metrics.assert("tower_refresh_active_refreshes", &[], 1.0);
            sleep(2 * SECOND).await;
            metrics.assert("tower_refresh_waiters", &[], 3.0);
            asked.answer(tokens("t"));
        };
        let (all, gave_up, ()) = tokio::join!(all, gives_up, answers);
        assert!(gave_up.is_err() && all.into_iter().all(|tokens| tokens.is_ok()));
        metrics.assert("tower_refresh_waiters", &[], 0.0);
        metrics.assert("tower_refresh_active_refreshes", &[], 0.0);
        metrics.assert("tower_refresh_wait_duration_seconds_count", &[], 4.0);
        metrics.assert("tower_refresh_wait_duration_seconds_sum", &[], 3.0 * 3.0 + 2.0);
        let success = [("outcome", "success")];
        metrics.assert("tower_refresh_refresh_duration_seconds_count", &success, 1.0);
        metrics.assert("tower_refresh_refresh_duration_seconds_sum", &success, 3.0);
        // A fresh token is not waited for.
        credentials.tokens().await.unwrap();
        metrics.assert("tower_refresh_wait_duration_seconds_count", &[], 4.0);
    });
}

// ===== refreshes =====

#[test]
fn refreshes_are_counted_by_cause_outcome_and_kind_of_error() {
    test(async |metrics| {
        let (credentials, mut source) = driven();
        let kinds = [
            (TokenError::transient("down"), "transient"),
            (TokenError::ambiguous("lost"), "ambiguous"),
            (TokenError::misconfigured("wrong"), "misconfigured"),
            (TokenError::denied("over"), "denied"),
        ];
        for (error, kind) in kinds {
            let fails = async { source.next().await.fail(error) };
            let _ = tokio::join!(credentials.refresh(), fails);
            metrics.assert_refreshes("forced", "failure", Some(kind), 1.0);
            for other in ["transient", "ambiguous", "misconfigured", "denied"] {
                metrics.assert_backoff(other, f64::from(other == kind));
            }
            credentials.log_in(tokens("user")).await.unwrap();
            metrics.assert_backoff(kind, 0.0);
        }
        let answers = async { source.next().await.answer(tokens("t").with_expires_in(HOUR)) };
        let _ = tokio::join!(credentials.refresh(), answers);
        metrics.assert_refreshes("forced", "success", None, 1.0);

        // In the background, after the expiry, and for the first token.
        advance(HOUR - MINUTE).await;
        credentials.tokens().await.unwrap();
        source.next().await.answer(tokens("t").with_expires_in(HOUR));
        sleep(SECOND).await;
        metrics.assert_refreshes("expiring", "success", None, 1.0);
        advance(2 * HOUR).await;
        let answers = async { source.next().await.answer(tokens("t")) };
        let _ = tokio::join!(credentials.tokens(), answers);
        metrics.assert_refreshes("expired", "success", None, 1.0);
        credentials.log_out().await.unwrap();
        let answers = async { source.next().await.answer(tokens("t")) };
        let _ = tokio::join!(credentials.tokens(), answers);
        metrics.assert_refreshes("missing", "success", None, 1.0);
    });
}

#[test]
fn counters_of_rare_refreshes_begin_with_zero() {
    test(async |metrics| {
        let (credentials, _source) = driven();
        let _waits = timeout(SECOND, credentials.tokens()).await;
        for cause in ["missing", "expiring", "expired", "rejected", "forced"] {
            metrics.assert_refreshes(cause, "success", None, 0.0);
            for kind in ["transient", "ambiguous", "misconfigured", "denied"] {
                metrics.assert_refreshes(cause, "failure", Some(kind), 0.0);
            }
        }
        metrics.assert("tower_refresh_refreshes_total", &[("outcome", "lost")], 0.0);
    });
}

#[test]
fn superseded_and_lost_refreshes_are_counted_as_such() {
    test(async |metrics| {
        let (credentials, mut source) = driven();
        let refresh = tokio::spawn({
            let credentials = credentials.clone();
            async move { credentials.refresh().await }
        });
        let asked = source.next().await;
        tokio::spawn({
            let credentials = credentials.clone();
            async move { credentials.log_in(tokens("user")).await }
        });
        sleep(SECOND).await;
        asked.answer(tokens("late"));
        refresh.await.unwrap().unwrap();
        sleep(SECOND).await;
        metrics.assert_refreshes("forced", "superseded", None, 1.0);

        let _hangs = timeout(SECOND, credentials.refresh()).await;
        let _asked = source.next().await;
        advance(11 * TIMEOUT).await;
        credentials.tokens().await.unwrap();
        advance(11 * TIMEOUT).await;
        credentials.tokens().await.unwrap();
        metrics.assert("tower_refresh_refreshes_total", &[("outcome", "lost")], 1.0);
        // It may still bring a token.
        metrics.assert("tower_refresh_active_refreshes", &[], 1.0);
    });
}

/// That of the default policy.
const TIMEOUT: Duration = Duration::from_secs(30);

#[test]
fn expiry_is_a_time_and_infinite_without_one() {
    test(async |metrics| {
        let expiry = "tower_refresh_token_expiry_seconds";
        let credentials = healthy();
        let since_1970 = || TokioClock::new().now().since_epoch().as_secs_f64();
        credentials.warm_up().await.unwrap();
        // The token counts as expired a while before it ends.
        let usable = credentials.status().usable_for.unwrap().as_secs_f64();
        metrics.assert(expiry, &[], since_1970() + usable);
        credentials.log_in(tokens("user").with_expires_in(2 * HOUR)).await.unwrap();
        let usable = credentials.status().usable_for.unwrap().as_secs_f64();
        metrics.assert(expiry, &[], since_1970() + usable);
        credentials.log_in(tokens("user")).await.unwrap();
        metrics.assert(expiry, &[], f64::INFINITY);
        credentials.log_in(tokens("user").with_expires_in(HOUR)).await.unwrap();
        credentials.log_out().await.unwrap();
        metrics.assert(expiry, &[], f64::INFINITY);
    });
}

#[test]
fn rejection_backoff_shows_until_the_target_accepts_a_token() {
    test(async |metrics| {
        let (credentials, status) = (healthy(), Arc::new(AtomicU16::new(200)));
        let client = client(&credentials, &status);
        send(&client, "https://api.test/").await.unwrap();
        metrics.assert("tower_refresh_rejection_backoff", &[], 0.0);
        status.store(401, Ordering::SeqCst);
        send(&client, "https://api.test/").await.unwrap();
        metrics.assert("tower_refresh_rejection_backoff", &[], 1.0);
        status.store(200, Ordering::SeqCst);
        send(&client, "https://api.test/").await.unwrap();
        metrics.assert("tower_refresh_rejection_backoff", &[], 0.0);
    });
}

#[test]
fn refresh_ends_the_backoff_of_an_application_that_is_silent() {
    test(async |metrics| {
        let credentials = healthy();
        let mut current = credentials.tokens().await.unwrap();
        while let Ok(newer) = credentials.rejected(&current).await {
            current = newer;
        }
        for (silence, expected) in [(MINUTE, 1.0), (5 * MINUTE, 0.0)] {
            advance(silence).await;
            credentials.refresh().await.unwrap();
            metrics.assert("tower_refresh_rejection_backoff", &[], expected);
        }
    });
}

#[test]
fn gauges_forget_credentials_that_are_dropped_in_trouble() {
    test(async |metrics| {
        let fail = |_: Renewal| async { Err::<TokenSet, _>(TokenError::denied("over")) };
        let failing = || Credentials::builder(fail).name("api").policy(policy()).build();
        let all = [failing(), failing()];
        for credentials in &all {
            credentials.warm_up().await.unwrap_err();
        }
        metrics.assert_backoff("denied", 2.0);
        drop(all);
        metrics.assert_backoff("denied", 0.0);
    });
}

// ===== stores =====

/// A store that is down at will.
#[derive(Clone, Default)]
struct Shaky {
    store: MemoryStore,
    is_down: Arc<AtomicBool>,
}

impl Shaky {
    fn answers(&self) -> Result<(), StoreError> {
        match self.is_down.load(Ordering::SeqCst) {
            true => Err(StoreError::unavailable("down")),
            false => Ok(()),
        }
    }
}

impl TokenStore for Shaky {
    type Lock = MemoryLock;

    async fn lock(&self, wait: Duration) -> Result<MemoryLock, StoreError> {
        self.store.lock(wait).await
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        self.store.load().await
    }

    async fn save(&self, it: &StoredTokens, replaces: Option<WriteId>) -> Result<(), StoreError> {
        self.answers()?;
        self.store.save(it, replaces).await
    }
}

#[test]
fn store_operations_are_counted_by_store_and_outcome() {
    test(async |metrics| {
        let store = Shaky::default();
        let with_store = || {
            let fetch = |_: Renewal| async { Ok(tokens("t").with_expires_in(HOUR)) };
            Credentials::builder(fetch).name("api").store(store.clone()).policy(policy()).build()
        };
        let credentials = with_store();
        credentials.warm_up().await.unwrap();
        let operations = "tower_refresh_store_operations_total";
        let of = |operation, outcome| {
            [("store", "Shaky"), ("operation", operation), ("outcome", outcome)]
        };
        for operation in ["load", "lock", "save", "release"] {
            assert!(metrics.has(operations, &of(operation, "success")), "{operation}");
            let took = "tower_refresh_store_operation_duration_seconds_count";
            assert!(metrics.has(took, &of(operation, "success")), "{operation}");
        }
        metrics.assert("tower_refresh_unsaved", &[], 0.0);

        // Another process finds the token.
        let another = with_store();
        another.warm_up().await.unwrap();
        metrics.assert_refreshes("missing", "found_in_store", None, 1.0);

        store.is_down.store(true, Ordering::SeqCst);
        credentials.log_in(tokens("user")).await.unwrap_err();
        assert!(metrics.has(operations, &of("save", "unavailable")));
        metrics.assert("tower_refresh_unsaved", &[], 1.0);
        store.is_down.store(false, Ordering::SeqCst);
        credentials.flush().await.unwrap();
        metrics.assert("tower_refresh_unsaved", &[], 0.0);
    });
}
