//! Concurrent requests share one refresh, no matter which of them is dropped, times out or panics.
#![allow(clippy::disallowed_methods, reason = "reads tokio's paused clock")]

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use http::StatusCode;
use tokio::time::{Instant, advance, timeout};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Service as _, ServiceExt as _};
use tower_refresh::{
    Cause, Credentials, RefreshLayer, RefreshPolicy, Renewal, TokenError, TokenSet, TokenSource,
    TokenStatus, source_fn,
};

use crate::harness::{
    self, HOUR, Mint, accept, client, get, let_others_run, policy, puppet, tokens,
};

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_without_a_token_cost_one_fetch() {
    let mint = Mint::new(HOUR);
    let client =
        client(RefreshLayer::new(Credentials::with_policy(mint.clone(), policy())), accept);
    let answers = join_all((0..1000).map(|_| client.clone().oneshot(get("/")))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK));
    assert_eq!(mint.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn stale_token_serves_a_thousand_requests_and_costs_one_fetch() {
    let (source, mut strings) = puppet();
    let layer = RefreshLayer::new(Credentials::with_policy(source, policy()));
    let credentials = layer.credentials().clone();
    credentials.log_in(tokens("old").with_expires_in(HOUR)).await.unwrap();
    let client = client(layer, accept);
    advance(HOUR - Duration::from_secs(200)).await;
    assert_eq!(credentials.status().token, TokenStatus::Stale);

    for _ in 0..1000 {
        let mut client = client.clone();
        let mut answer = task::spawn(async move { client.ready().await?.call(get("/")).await });
        // Ready when first polled: the test never lets the refresh run.
        assert_ready!(answer.poll()).unwrap();
    }

    let asked = strings.next().await;
    assert_eq!(asked.renewal.cause(), Cause::Expiring);
    assert_eq!(strings.count(), 0);
    asked.answer(tokens("new").with_expires_in(HOUR));
    credentials.flush().await.unwrap();
    assert_eq!(credentials.tokens().await.unwrap().access_token().expose_secret(), "new");
}

#[tokio::test(start_paused = true)]
async fn current_returns_a_usable_token_and_starts_no_refresh() {
    let (source, mut strings) = puppet();
    let layer = RefreshLayer::new(Credentials::with_policy(source, policy()));
    let credentials = layer.credentials().clone();
    let current = || credentials.current().map(|set| set.access_token().expose_secret().to_owned());
    assert_eq!(current(), None);

    credentials.log_in(tokens("fresh").with_expires_in(HOUR)).await.unwrap();
    assert_eq!(current().as_deref(), Some("fresh"));
    advance(HOUR - Duration::from_secs(200)).await;
    assert_eq!(credentials.status().token, TokenStatus::Stale);
    assert_eq!(current().as_deref(), Some("fresh"));
    advance(Duration::from_secs(200)).await;
    assert_eq!(current(), None);

    credentials.log_in(tokens("rejected").with_expires_in(HOUR)).await.unwrap();
    let client = client(layer, |_, _| async { StatusCode::UNAUTHORIZED });
    let mut rejected = task::spawn(client.oneshot(get("/")));
    assert_pending!(rejected.poll());
    assert_eq!(current(), None);
    strings.next().await.answer(tokens("new").with_expires_in(HOUR));
    assert_eq!(rejected.await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(current().as_deref(), Some("new"));

    credentials.log_out().await.unwrap();
    assert_eq!(current(), None);
    assert_eq!(strings.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn failure_is_shared_at_once_and_followed_by_the_backoff() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let waiting = join_all((0..100).map(|_| credentials.tokens()));
    let (errors, ()) = tokio::join!(waiting, async {
        strings.next().await.fail(TokenError::transient("overloaded"));
    });
    let start = Instant::now();
    for error in errors {
        assert_eq!(error.unwrap_err().to_string(), "no token for now: overloaded");
    }
    assert_eq!(strings.count(), 0);

    // The remembered error is returned at once, and the source is not asked.
    assert!(credentials.tokens().await.unwrap_err().is_transient());
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(strings.count(), 0);
    let backoff = credentials.status().backoff.unwrap();
    assert!(
        backoff >= Duration::from_millis(500) && backoff <= Duration::from_secs(1),
        "{backoff:?}"
    );

    advance(backoff).await;
    let (token, ()) = tokio::join!(credentials.tokens(), async {
        strings.next().await.answer(tokens("t"));
    });
    assert_eq!(token.unwrap().access_token().expose_secret(), "t");
}

#[tokio::test(start_paused = true)]
async fn failed_early_refresh_does_not_displace_a_working_token() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.log_in(tokens("old").with_expires_in(HOUR)).await.unwrap();
    advance(HOUR - Duration::from_secs(200)).await;
    for error in [
        TokenError::transient("later"),
        TokenError::misconfigured("a wrong configuration"),
        TokenError::ambiguous("who knows"),
    ] {
        assert_eq!(credentials.tokens().await.unwrap().access_token().expose_secret(), "old");
        strings.next().await.fail(error);
        credentials.flush().await.unwrap();
        assert_eq!(credentials.tokens().await.unwrap().access_token().expose_secret(), "old");
        let backoff = credentials.status().backoff.unwrap();
        // Late enough for the next refresh, and still before expiry.
        credentials.log_in(tokens("old").with_expires_in(HOUR)).await.unwrap();
        advance((HOUR - Duration::from_secs(200)).max(backoff)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_unknown_outcome_one_attempt_follows_at_expiry() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.log_in(tokens("old").with_expires_in(HOUR)).await.unwrap();
    advance(HOUR - Duration::from_secs(300)).await;
    credentials.tokens().await.unwrap();
    strings.next().await.fail(TokenError::ambiguous("the connection was cut"));
    credentials.flush().await.unwrap();

    for _ in 0..28 {
        advance(Duration::from_secs(10)).await;
        assert_eq!(credentials.tokens().await.unwrap().access_token().expose_secret(), "old");
        assert!(credentials.refresh().await.unwrap_err().is_ambiguous());
    }
    credentials.flush().await.unwrap();
    assert_eq!(strings.count(), 0);

    advance(Duration::from_secs(30)).await;
    let (token, ()) = tokio::join!(credentials.tokens(), async {
        let asked = strings.next().await;
        assert_eq!(asked.renewal.cause(), Cause::Expired);
        asked.answer(tokens("new"));
    });
    assert_eq!(token.unwrap().access_token().expose_secret(), "new");
}

#[tokio::test(start_paused = true)]
async fn after_an_unknown_outcome_a_token_without_expiry_is_refreshed() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.log_in(tokens("old")).await.unwrap();
    let (error, ()) = tokio::join!(credentials.refresh(), async {
        strings.next().await.fail(TokenError::ambiguous("the connection was cut"));
    });
    assert!(error.unwrap_err().is_ambiguous());
    advance(credentials.status().backoff.unwrap()).await;
    let (token, ()) = tokio::join!(credentials.refresh(), async {
        strings.next().await.answer(tokens("new"));
    });
    assert_eq!(token.unwrap().access_token().expose_secret(), "new");
}

#[tokio::test(start_paused = true)]
async fn denied_stays_until_the_credentials_change() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let (error, ()) = tokio::join!(credentials.tokens(), async {
        strings.next().await.fail(TokenError::denied("log in again").with_code("invalid_grant"));
    });
    assert_eq!(error.unwrap_err().code(), Some("invalid_grant"));
    advance(100 * 24 * HOUR).await;
    assert!(credentials.tokens().await.unwrap_err().is_denied());
    assert!(credentials.refresh().await.unwrap_err().is_denied());
    assert_eq!(strings.count(), 0);

    credentials.log_in(tokens("new").with_expires_in(HOUR)).await.unwrap();
    assert_eq!(credentials.tokens().await.unwrap().access_token().expose_secret(), "new");
    assert!(credentials.status().error.is_none());
}

#[tokio::test(start_paused = true)]
async fn backoff_grows_to_its_limit_over_a_thousand_failures() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let credentials = Credentials::with_policy(
        move |_: Renewal| {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Err::<TokenSet, _>(TokenError::ambiguous("cut")) }
        },
        policy(),
    );
    let mut longest = Duration::ZERO;
    for call in 1..=1000 {
        assert!(credentials.tokens().await.is_err());
        assert_eq!(calls.load(Ordering::SeqCst), call);
        let backoff = credentials.status().backoff.unwrap();
        longest = longest.max(backoff);
        advance(backoff).await;
    }
    assert!(longest > Duration::from_secs(30) && longest <= Duration::from_secs(60), "{longest:?}");
}

// ===== callers that are dropped =====

#[tokio::test(start_paused = true)]
async fn the_caller_that_started_a_flight_may_be_dropped_at_any_point() {
    // How often the caller is polled before it is dropped, with others running in between.
    for polls in 0..6 {
        let (source, mut strings) = puppet();
        let credentials = Credentials::with_policy(source, policy());
        let layer = RefreshLayer::new(credentials.clone());
        let mut caller = Box::pin(client(layer, accept).oneshot(get("/")));
        for _ in 0..polls {
            poll_fn(|cx| {
                let _ = caller.as_mut().poll(cx);
                Poll::Ready(())
            })
            .await;
            let_others_run().await;
        }
        drop(caller);

        if polls == 0 {
            assert_eq!(strings.count(), 0);
            continue;
        }
        strings.next().await.answer(tokens("t"));
        credentials.flush().await.unwrap();
        assert_eq!(credentials.tokens().await.unwrap().access_token().expose_secret(), "t");
        assert_eq!(strings.count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn waiters_of_a_dropped_caller_share_its_one_fetch() {
    let (source, mut strings) = puppet();
    let client = client(RefreshLayer::new(Credentials::with_policy(source, policy())), accept);
    let mut first = task::spawn(client.clone().oneshot(get("/")));
    assert_pending!(first.poll());
    let mut waiting: Vec<_> =
        (0..100).map(|_| task::spawn(client.clone().oneshot(get("/")))).collect();
    for waiting in &mut waiting {
        assert_pending!(waiting.poll());
    }
    drop(first);
    strings.next().await.answer(tokens("t"));
    for answer in join_all(waiting).await {
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(strings.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn refresh_without_callers_completes_and_its_token_is_used() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    {
        let mut callers: Vec<_> =
            (0..100).map(|_| task::spawn(async { credentials.tokens().await })).collect();
        for caller in &mut callers {
            assert_pending!(caller.poll());
        }
        let_others_run().await;
    }
    strings.next().await.answer(tokens("t"));
    credentials.flush().await.unwrap();
    assert_eq!(credentials.tokens().await.unwrap().access_token().expose_secret(), "t");
    assert_eq!(strings.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn waiter_times_out_and_the_late_token_is_still_used() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy().timeout(Duration::from_secs(3)));
    let start = Instant::now();
    let error = credentials.tokens().await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("3s"), "{error}");
    assert_eq!(start.elapsed(), Duration::from_secs(3));

    strings.next().await.answer(tokens("late"));
    credentials.flush().await.unwrap();
    assert_eq!(credentials.tokens().await.unwrap().access_token().expose_secret(), "late");
    assert_eq!(strings.count(), 0);
}

/// S15
#[tokio::test(start_paused = true)]
async fn of_two_late_answers_the_one_asked_for_later_is_kept() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy().timeout(Duration::from_secs(1)));
    assert!(credentials.tokens().await.is_err());
    let lost = strings.next().await;
    for _ in 0..9 {
        assert!(credentials.tokens().await.is_err());
        assert_eq!(strings.count(), 0);
    }

    // Ten timeouts have passed. The next request asks again, and does not wait for the lost refresh.
    let mut next = task::spawn(async { credentials.tokens().await });
    assert_pending!(next.poll());
    let second = strings.next().await;
    lost.answer(tokens("first"));
    let_others_run().await;
    assert_eq!(assert_ready!(next.poll()).unwrap().access_token().expose_secret(), "first");
    second.answer(tokens("second"));
    credentials.flush().await.unwrap();
    assert_eq!(credentials.tokens().await.unwrap().access_token().expose_secret(), "second");
}

// ===== sources that panic and runtimes that end =====

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_is_an_error_and_the_next_fetch_works() {
    let calls = Arc::new(AtomicUsize::new(0));
    let credentials = Credentials::with_policy(
        move |_: Renewal| {
            let call = calls.fetch_add(1, Ordering::SeqCst);
            assert!(call != 0, "on purpose: before there is a future");
            async move {
                assert!(call != 1, "on purpose: within the future");
                TokenSet::bearer("t")
            }
        },
        policy(),
    );
    for _ in 0..2 {
        let errors = join_all((0..10).map(|_| credentials.tokens())).await;
        for error in errors {
            let error = error.unwrap_err();
            assert!(error.is_ambiguous() && error.to_string().contains("panicked"), "{error}");
        }
        advance(Duration::from_secs(60)).await;
    }
    assert_eq!(credentials.tokens().await.unwrap().access_token().expose_secret(), "t");
}

#[test]
fn error_that_reads_the_credentials_on_drop_does_not_deadlock() {
    static CREDENTIALS: OnceLock<Credentials> = OnceLock::new();

    #[derive(Debug)]
    struct Curious;
    impl fmt::Display for Curious {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("curious")
        }
    }
    impl std::error::Error for Curious {}
    impl Drop for Curious {
        fn drop(&mut self) {
            CREDENTIALS.get().map(Credentials::status);
        }
    }

    let (done, is_done) = mpsc::channel();
    // On a thread of its own, since a deadlock would block the test itself.
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let source = |_: Renewal| async { Err::<TokenSet, _>(TokenError::transient(Curious)) };
            let credentials = CREDENTIALS.get_or_init(|| Credentials::new(source.boxed()));
            assert!(credentials.tokens().await.is_err());
            // The remembered error is dropped.
            credentials.log_in(tokens("t")).await.unwrap();
        });
        done.send(())
    });
    assert_eq!(is_done.recv_timeout(Duration::from_secs(10)), Ok(()));
}

#[test]
fn runtime_shutdown_during_a_refresh_is_an_error_not_a_hang() {
    let first =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let second = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let (started, is_started) = mpsc::channel();
    let credentials = Credentials::with_policy(
        move |_: Renewal| {
            let call = calls.fetch_add(1, Ordering::SeqCst);
            started.send(()).unwrap();
            async move {
                if call == 0 {
                    pending::<()>().await;
                }
                TokenSet::bearer("t")
            }
        },
        RefreshPolicy::default().backoff(Duration::ZERO, Duration::ZERO),
    );

    // The refresh runs on the first runtime, and its waiter on the second.
    let mut waiting = pin!(credentials.tokens());
    first.block_on(poll_fn(|cx| {
        assert!(waiting.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }));
    is_started.recv_timeout(Duration::from_secs(10)).unwrap();
    first.shutdown_timeout(Duration::from_secs(5));
    let error = second.block_on(waiting).unwrap_err();
    assert!(error.is_ambiguous() && error.to_string().contains("shut down"), "{error}");

    let token = second.block_on(credentials.tokens()).unwrap();
    assert_eq!(token.access_token().expose_secret(), "t");
}

/// Tokio's timers panic there, as documented.
#[test]
fn panic_without_a_time_driver_leaves_no_flight_without_a_task() {
    let with = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let without = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let credentials = Credentials::with_policy(
        |_: Renewal| async { TokenSet::bearer("t") },
        RefreshPolicy::default().runtime(with.handle().clone()),
    );
    let call = || without.block_on(credentials.tokens());
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err());
    let token = with.block_on(credentials.tokens()).unwrap();
    assert_eq!(token.access_token().expose_secret(), "t");
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let credentials = Credentials::new(|_: Renewal| async { TokenSet::bearer("t") });
    let layer = RefreshLayer::new(credentials.clone());
    for _ in 0..2 {
        let error = futures_executor(credentials.tokens()).unwrap_err();
        assert!(error.is_misconfigured() && error.to_string().contains("runtime"), "{error}");
        let error = futures_executor(client(layer.clone(), accept).oneshot(get("/"))).unwrap_err();
        assert!(error.downcast_ref::<TokenError>().unwrap().is_misconfigured());
        assert!(futures_executor(credentials.log_in(tokens("x"))).unwrap_err().is_misconfigured());
    }

    // It does not delay the next refresh, which has a runtime. A fresh token needs none.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(runtime.block_on(credentials.tokens()).is_ok());
    drop(runtime);
    assert!(futures_executor(credentials.tokens()).is_ok());
    assert!(futures_executor(client(layer, accept).oneshot(get("/"))).is_ok());
}

#[test]
fn a_runtime_named_in_the_policy_serves_callers_without_one() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let policy = RefreshPolicy::default().runtime(runtime.handle().clone());
    let credentials =
        Credentials::with_policy(|_: Renewal| async { TokenSet::bearer("t") }, policy);
    assert!(futures_executor(credentials.tokens()).is_ok());
}

#[test]
fn refresh_on_an_unpolled_runtime_does_not_block_the_others() {
    let idle = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let other = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let (source, mut strings) = puppet();
    let credentials = other.block_on(async { Credentials::with_policy(source, policy()) });

    let mut starter = pin!(credentials.tokens());
    idle.block_on(poll_fn(|cx| {
        assert!(starter.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }));
    // The refresh runs on `idle`, which is not polled now.
    other.block_on(async {
        let start = Instant::now();
        assert!(credentials.tokens().await.unwrap_err().is_transient());
        assert_eq!(start.elapsed(), Duration::from_secs(30));
    });
    idle.block_on(async {
        let asked = timeout(Duration::from_secs(5), strings.next()).await.unwrap();
        asked.answer(tokens("late"));
        credentials.flush().await.unwrap();
    });
    let token = other.block_on(credentials.tokens()).unwrap();
    assert_eq!(token.access_token().expose_secret(), "late");
}

#[test]
fn waiter_times_out_although_the_runtime_is_not_polled() {
    let idle = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let other = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let (source, _strings) = puppet();
    other.block_on(async {
        let policy = policy().runtime(idle.handle().clone());
        let credentials = Credentials::with_policy(source, policy);
        let start = Instant::now();
        let released = timeout(HOUR, credentials.tokens()).await.unwrap();
        assert!(released.unwrap_err().is_transient());
        assert_eq!(start.elapsed(), Duration::from_secs(30));
    });
}

// ===== recursion =====

#[tokio::test(start_paused = true)]
async fn token_endpoint_behind_its_own_layer_is_an_error_at_once() {
    let slot: Arc<OnceLock<harness::Client>> = Arc::default();
    let inside = Arc::clone(&slot);
    let credentials = Credentials::with_policy(
        move |_: Renewal| {
            let client = inside.get().cloned().unwrap();
            async move {
                match client.oneshot(get("/token")).await {
                    Ok(_) => TokenSet::bearer("t"),
                    Err(error) => Err(TokenError::transient(error)),
                }
            }
        },
        policy(),
    );
    let client = client(RefreshLayer::new(credentials.clone()), accept);
    slot.set(client.clone()).ok().unwrap();

    let start = Instant::now();
    let error = client.oneshot(get("/")).await.unwrap_err();
    assert!(
        error.to_string().contains("must not pass through the RefreshLayer that it feeds"),
        "{error}"
    );
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn two_credentials_that_wait_for_each_other_are_a_clear_error() {
    let second: Arc<OnceLock<Credentials>> = Arc::default();
    let inside = Arc::clone(&second);
    let first = Credentials::with_policy(
        move |_: Renewal| {
            let second = inside.get().cloned().unwrap();
            async move { second.tokens().await }
        },
        policy(),
    );
    let back = first.clone();
    let source = tower_refresh::TokenSource::boxed(move |_: Renewal| {
        let first = back.clone();
        async move { first.tokens().await }
    });
    second.set(Credentials::with_policy(source, policy())).ok().unwrap();

    let error = first.tokens().await.unwrap_err();
    assert!(error.to_string().contains("waits for its own token"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn recursion_that_leaves_the_task_ends_at_the_timeout() {
    let slot: Arc<OnceLock<harness::Client>> = Arc::default();
    let inside = Arc::clone(&slot);
    let credentials = Credentials::with_policy(
        move |_: Renewal| {
            let client = inside.get().cloned().unwrap();
            async move {
                let answer = tokio::spawn(client.oneshot(get("/token"))).await.unwrap();
                match answer {
                    Ok(_) => TokenSet::bearer("t"),
                    Err(error) => Err(TokenError::transient(error)),
                }
            }
        },
        policy(),
    );
    let client = client(RefreshLayer::new(credentials.clone()), accept);
    slot.set(client.clone()).ok().unwrap();
    let start = Instant::now();
    assert!(client.oneshot(get("/")).await.is_err());
    assert_eq!(start.elapsed(), Duration::from_secs(30));
}

/// S13: each method that waits, called from inside a source.
#[tokio::test(start_paused = true)]
async fn waiting_for_credentials_inside_their_source_is_an_error() {
    type Call = fn(Credentials) -> BoxFuture<'static, Result<(), TokenError>>;
    let calls: [(&str, Call); 6] = [
        ("tokens", |it| Box::pin(async move { it.tokens().await.map(drop) })),
        ("refresh", |it| Box::pin(async move { it.refresh().await.map(drop) })),
        ("warm_up", |it| Box::pin(async move { it.warm_up().await })),
        ("log_in", |it| Box::pin(async move { it.log_in(tokens("t")).await })),
        ("log_out", |it| Box::pin(async move { it.log_out().await })),
        ("flush", |it| Box::pin(async move { it.flush().await })),
    ];
    for (name, call) in calls {
        for keeps_a_chain in [false, true] {
            let (errors, mut error) = tokio::sync::mpsc::unbounded_channel();
            let outer: Arc<OnceLock<Credentials>> = Arc::default();
            let waited_for = Arc::clone(&outer);
            let source = source_fn(move |_| {
                let (waited_for, errors) = (waited_for.get().cloned().unwrap(), errors.clone());
                async move {
                    let _ = errors.send(call(waited_for).await);
                    Err(TokenError::transient("the end"))
                }
            });
            let inner = Credentials::with_policy(source.boxed(), policy());
            let credentials = if keeps_a_chain {
                let inner = inner.clone();
                let source = source_fn(move |_| {
                    let inner = inner.clone();
                    async move { inner.tokens().await }
                });
                Credentials::with_policy(source.boxed(), policy())
            } else {
                inner
            };
            outer.set(credentials.clone()).unwrap();

            let start = Instant::now();
            timeout(HOUR, credentials.tokens()).await.unwrap().unwrap_err();
            assert_eq!(start.elapsed(), Duration::ZERO, "{name}");
            let error = error.recv().await.unwrap().unwrap_err();
            assert!(error.is_misconfigured(), "{name}: {error}");
        }
    }
}

/// S13: two sources that flush each other's credentials wait for each other, although neither fetch started the other.
#[tokio::test(start_paused = true)]
async fn flush_inside_any_source_is_an_error() {
    let slots: [Arc<OnceLock<Credentials>>; 2] = Default::default();
    for (at, slot) in slots.iter().enumerate() {
        let other = Arc::clone(&slots[1 - at]);
        let source = source_fn(move |_| {
            let other = other.get().cloned().unwrap();
            async move {
                tokio::task::yield_now().await;
                other.flush().await?;
                Ok(tokens("t"))
            }
        });
        slot.set(Credentials::with_policy(source.boxed(), policy())).unwrap();
    }
    let fetched = join_all(slots.iter().map(|slot| slot.get().unwrap().tokens()));
    for token in timeout(HOUR, fetched).await.unwrap() {
        assert!(token.unwrap_err().is_misconfigured());
    }
}

// ===== random use =====

#[test]
fn random_use_by_threads_runs_one_refresh_and_never_hangs() {
    for round in 0..10 {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .unwrap();
        let moody = Moody::default();
        // No pause and no rejection backoff, so that there is always something under way. A caller that is not woken would end at
        // the timeout, which is longer than the test waits.
        let policy = RefreshPolicy::default()
            .timeout(Duration::from_secs(120))
            .backoff(Duration::ZERO, Duration::ZERO)
            .rejection_backoff(Duration::ZERO, Duration::ZERO);
        let credentials = Credentials::with_policy(moody.clone(), policy);
        let answers = Arc::new(AtomicUsize::new(0));
        let client = client(RefreshLayer::new(credentials.clone()), move |_, _| {
            let answer = answers.fetch_add(1, Ordering::Relaxed);
            async move {
                if answer.is_multiple_of(13) {
                    tokio::task::yield_now().await;
                }
                if answer.is_multiple_of(3) { StatusCode::UNAUTHORIZED } else { StatusCode::OK }
            }
        });
        runtime.block_on(async {
            let users = (0..16).map(|user| {
                let seed = user * 7919 + round * 104_729 + 1;
                tokio::spawn(use_at_random(credentials.clone(), client.clone(), seed))
            });
            for user in join_all(users.map(|user| timeout(Duration::from_secs(30), user))).await {
                user.expect("a waiter was never woken").unwrap();
            }
            timeout(Duration::from_secs(30), credentials.flush()).await.unwrap().unwrap();
        });
        assert_eq!(moody.most_at_once.load(Ordering::SeqCst), 1);
        assert!(!credentials.status().refreshing);
    }
}

/// Gets tokens, refreshes, logs in and out, and sends requests. Some of these are dropped halfway.
async fn use_at_random(credentials: Credentials, client: harness::Client, seed: u64) {
    let short_lived = || tokens("mine").with_expires_in(Duration::from_millis(30));
    let mut dice = seed;
    for _ in 0..100 {
        // xorshift64: an order of its own for each user, repeated in each run.
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        match dice % 9 {
            0 => drop(credentials.refresh().await),
            1 => drop(credentials.tokens().await),
            2 => drop(credentials.log_in(short_lived()).await),
            3 => drop(credentials.log_out().await),
            4 => poll_times(dice % 4, client.clone().oneshot(get("/"))).await,
            5 => poll_times(1, credentials.log_in(short_lived())).await,
            _ => drop(client.clone().oneshot(get("/")).await),
        }
    }
}

/// Polls a future at most `times` times, and drops it.
async fn poll_times<F: Future>(times: u64, future: F) {
    let mut future = pin!(future);
    for _ in 0..times {
        if poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await {
            return;
        }
    }
}

/// Fails in every way, and counts how many fetches run at once.
#[derive(Clone, Debug, Default)]
struct Moody {
    calls: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
}

impl TokenSource for Moody {
    async fn fetch(&self, _: Renewal) -> Result<TokenSet, TokenError> {
        struct Running<'a>(&'a AtomicUsize);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }

        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        let _running = Running(&self.running);
        self.most_at_once.fetch_max(running, Ordering::SeqCst);
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        for _ in 0..call % 5 {
            tokio::task::yield_now().await;
        }
        match call % 11 {
            3 => Err(TokenError::transient("on purpose")),
            5 => Err(TokenError::ambiguous("on purpose")),
            7 => panic!("on purpose"),
            _ => Ok(tokens("t").with_expires_in(Duration::from_millis(call as u64 % 7 * 20))),
        }
    }
}

// ===== helpers =====

/// Runs a future on this thread without any runtime.
fn futures_executor<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
