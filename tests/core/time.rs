//! Lifetimes of every length, and clocks that do not agree.
#![allow(clippy::disallowed_methods, reason = "reads tokio's paused clock")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, assert_ready, task};
use tower::ServiceExt as _;
use tower_refresh::testing::{ManualClock, TokioClock};
use tower_refresh::{
    Cause, Clock, Credentials, Event, RefreshLayer, RefreshPolicy, Renewal, Timestamp, TokenError,
    TokenSet, TokenSource, TokenStatus,
};

use crate::harness::{self, DAY, HOUR, Mint, accept, client, get, policy, puppet, tokens};
#[cfg(feature = "tracing")]
use crate::log::Log;

/// Asks a hundred times in each lifetime, and returns how often the source was asked in ten of them.
async fn fetches_in_ten_lifetimes(lifetime: Duration) -> usize {
    let mint = Mint::new(lifetime).delay((lifetime / 200).min(Duration::from_secs(1)));
    let credentials = Credentials::with_policy(mint.clone(), policy());
    for _ in 0..1000 {
        credentials.tokens().await.unwrap();
        // The current token has not expired.
        assert!(credentials.status().usable_for.unwrap() > Duration::ZERO);
        advance(lifetime / 100).await;
        harness::let_others_run().await;
    }
    mint.calls()
}

#[tokio::test(start_paused = true)]
async fn each_lifetime_costs_about_one_fetch() {
    for lifetime in [Duration::from_secs(1), Duration::from_secs(5), HOUR, 30 * DAY] {
        let fetches = fetches_in_ten_lifetimes(lifetime).await;
        // An early refresh takes at most a fifth, and the leeway at most a tenth.
        assert!((10..=14).contains(&fetches), "{lifetime:?}: {fetches}");
    }
}

/// The bench `steady` shows the same load on the wall clock.
#[tokio::test(start_paused = true)]
async fn no_request_waits_over_a_hundred_expiries() {
    for lifetime in [Duration::from_secs(5), HOUR] {
        let mint = Mint::new(lifetime).delay(lifetime / 200);
        let layer = RefreshLayer::new(Credentials::with_policy(mint.clone(), policy()));
        let credentials = layer.credentials().clone();
        let client = client(layer, accept);
        client.clone().oneshot(get("/")).await.unwrap();
        while mint.calls() <= 100 {
            let request = client.clone().oneshot(get("/"));
            // Ready when first polled.
            assert_ready!(task::spawn(request).poll()).unwrap();
            assert!(credentials.status().usable_for.unwrap() > Duration::ZERO);
            advance(lifetime / 100).await;
            harness::let_others_run().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_lifetime_the_token_is_used_until_it_is_rejected() {
    let mint = Mint::without_expiry();
    let credentials = Credentials::with_policy(mint.clone(), policy());
    for _ in 0..100 {
        credentials.tokens().await.unwrap();
        advance(365 * DAY).await;
    }
    assert_eq!(mint.calls(), 1);
    assert_eq!(credentials.status().usable_for, None);
}

/// S17
#[tokio::test(start_paused = true)]
async fn token_over_on_arrival_is_used_and_refreshed_in_seconds() {
    let sets: [fn() -> TokenSet; 6] = [
        || tokens("t").with_expires_in(Duration::ZERO),
        || tokens("t").with_expires_in(Duration::from_millis(1)),
        || tokens("t").with_expires_in(Duration::from_millis(40)),
        || tokens("t").with_expires_in(Duration::ZERO).with_refresh_in(Duration::ZERO),
        || tokens("t").with_expires_at(SystemTime::UNIX_EPOCH),
        || tokens("t").with_expires_at(SystemTime::UNIX_EPOCH + 365 * DAY),
    ];
    for set in sets {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let source = move |_: Renewal| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move { Ok(set()) }
        };
        let credentials = Credentials::with_policy(source, policy());
        let mut events = credentials.subscribe();
        for _ in 0..1000 {
            credentials.tokens().await.unwrap();
            advance(Duration::from_millis(1)).await;
            harness::let_others_run().await;
        }
        assert!(calls.load(Ordering::SeqCst) <= 2, "{:?}: {calls:?}", set());
        assert_eq!(credentials.status().token, TokenStatus::Fresh);
        assert_eq!(credentials.status().usable_for, None);
        for _ in 0..100 {
            credentials.tokens().await.unwrap();
            advance(Duration::from_secs(1)).await;
            credentials.flush().await.unwrap();
        }
        assert!((15..=25).contains(&calls.load(Ordering::SeqCst)), "{:?}: {calls:?}", set());
        drop(credentials);
        let mut reported = 0;
        while let Some(event) = events.recv().await {
            reported += usize::from(matches!(event, Event::ExpiredOnArrival { .. }));
        }
        assert_eq!(reported, 1);
    }
}

/// S17: a token that is over on arrival changes nothing for the tokens before and after it.
#[tokio::test(start_paused = true)]
async fn tokens_over_on_arrival_are_reported_once_per_change() {
    let lifetimes = [0_u64, 0, 4000, 250, 0, 0, 0];
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let source = move |_: Renewal| {
        let call = counted.fetch_add(1, Ordering::SeqCst);
        async move { Ok(tokens("t").with_expires_in(Duration::from_millis(lifetimes[call]))) }
    };
    let credentials = Credentials::with_policy(source, policy());
    let mut events = credentials.subscribe();
    for lifetime in lifetimes {
        credentials.refresh().await.unwrap();
        let usable = credentials.status().usable_for;
        let expected = Duration::from_millis(lifetime / 10 * 9);
        assert_eq!(usable, (lifetime > 0).then_some(expected));
    }
    drop(credentials);
    let mut reported = 0;
    while let Some(event) = events.recv().await {
        if let Event::ExpiredOnArrival { reason, .. } = event {
            assert!(reason.contains("lifetime of zero"), "{reason}");
            reported += 1;
        }
    }
    assert_eq!(reported, 2);
}

/// S17
#[cfg(feature = "tracing")]
#[tokio::test(start_paused = true)]
async fn token_over_on_arrival_is_a_warning_that_names_the_cause() {
    type Make = fn() -> TokenSet;
    let sets: [(Make, &str); 3] = [
        (|| tokens("sesame").with_expires_in(Duration::ZERO), "lifetime of zero"),
        (
            || tokens("sesame").with_expires_in(Duration::from_millis(1)),
            "the lifetime is too short",
        ),
        (|| tokens("sesame").with_expires_at(SystemTime::UNIX_EPOCH), "clock of this machine"),
    ];
    for (set, cause) in sets {
        let log = Log::start(tracing::Level::WARN);
        let source = move |_: Renewal| async move { Ok::<_, TokenError>(set()) };
        Credentials::with_policy(source, policy()).tokens().await.unwrap();
        harness::let_others_run().await;
        let lines = log.take();
        assert!(lines.contains("WARN") && lines.contains(cause), "{cause}: {lines}");
        assert!(!lines.contains("sesame"), "{lines}");
    }
}

/// S17: each token arrives a second after its end.
#[tokio::test(start_paused = true)]
async fn endpoint_slower_than_the_lifetime_causes_no_storm() {
    let mint = Mint::new(Duration::from_secs(2)).delay(Duration::from_secs(3));
    let credentials = Credentials::with_policy(mint.clone(), policy());
    for _ in 0..100 {
        credentials.tokens().await.unwrap();
        advance(Duration::from_secs(1)).await;
        harness::let_others_run().await;
    }
    // One every eight seconds: three for the response, and five until the next request.
    assert!((10..=14).contains(&mint.calls()), "{}", mint.calls());
}

/// S17: the token of a log-in may have expired, for example after a restart.
#[tokio::test(start_paused = true)]
async fn expired_token_of_a_log_in_is_refreshed_before_use() {
    let mint = Mint::new(HOUR);
    let credentials = Credentials::with_policy(mint.clone(), policy());
    credentials.log_in(tokens("old").with_expires_at(SystemTime::UNIX_EPOCH)).await.unwrap();
    assert_eq!(credentials.status().token, TokenStatus::Expired);
    assert_eq!(credentials.tokens().await.unwrap().access_token().expose_secret(), "t1");
}

/// A clock whose readings are a function of their number.
struct Odd(fn(u64) -> (Duration, SystemTime), AtomicU64);

impl Clock for Odd {
    fn now(&self) -> Timestamp {
        let (monotonic, wall) = (self.0)(self.1.fetch_add(1, Ordering::SeqCst));
        Timestamp::new(monotonic, wall)
    }
}

/// S18
#[tokio::test(start_paused = true)]
async fn clocks_that_jump_do_not_make_waiters_spin() {
    const WALL: SystemTime = SystemTime::UNIX_EPOCH;
    let clocks: [fn(u64) -> (Duration, SystemTime); 8] = [
        |_| (Duration::MAX, WALL),
        |_| (Duration::MAX, WALL + Duration::from_secs(i64::MAX as u64 - 1)),
        |_| (Duration::ZERO, WALL),
        |n| (Duration::MAX.saturating_sub(Duration::from_secs(n)), WALL),
        |n| (Duration::from_secs(u64::from(u32::MAX)) - Duration::from_secs(n), WALL),
        |n| (if n % 2 == 0 { Duration::MAX } else { Duration::ZERO }, WALL),
        |n| (Duration::from_secs(n * 365 * 86400), WALL),
        |n| (Duration::from_secs(n), WALL + Duration::from_secs(n % 2 * 1_000_000_000)),
    ];
    for (which, clock) in clocks.into_iter().enumerate() {
        for result in [Ok(()), Err(TokenError::transient("down")), Err(TokenError::denied("gone"))]
        {
            let asked = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&asked);
            let source = move |_: Renewal| {
                counted.fetch_add(1, Ordering::SeqCst);
                let result = result.clone();
                async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    result.map(|()| tokens("t").with_expires_in(HOUR))
                }
            };
            let policy = RefreshPolicy::default().clock(Odd(clock, AtomicU64::new(0)));
            let credentials = Credentials::with_policy(source, policy);
            let polls = Arc::new(AtomicUsize::new(0));
            let waiters = (0..10).map(|_| {
                let (credentials, polls) = (credentials.clone(), Arc::clone(&polls));
                async move {
                    let mut token = std::pin::pin!(credentials.tokens());
                    std::future::poll_fn(|cx| {
                        assert!(polls.fetch_add(1, Ordering::SeqCst) < 10_000, "spins");
                        std::future::Future::poll(token.as_mut(), cx)
                    })
                    .await
                }
            });
            let all = futures_util::future::join_all(waiters.map(tokio::spawn));
            let all = tokio::time::timeout(HOUR, all).await;
            for answer in all.unwrap() {
                let _ = answer.expect("bounded polls");
            }
            assert!(asked.load(Ordering::SeqCst) <= 200, "{which}: {asked:?}");
        }
    }
}

/// S18: a reading that was far ahead for a moment causes no longer wait.
#[tokio::test(start_paused = true)]
async fn backoff_that_began_at_a_wrong_time_ends() {
    let clock = TokioClock::new();
    let is_wrong = Arc::new(AtomicBool::new(true));
    struct Glitch(TokioClock, Arc<AtomicBool>);
    impl Clock for Glitch {
        fn now(&self) -> Timestamp {
            let now = self.0.now();
            let ahead =
                if self.1.load(Ordering::SeqCst) { 100 * 365 * DAY } else { Duration::ZERO };
            Timestamp::new(now.monotonic() + ahead, now.wall())
        }
    }
    let (source, mut strings) = puppet();
    let policy = RefreshPolicy::default().clock(Glitch(clock, Arc::clone(&is_wrong)));
    let credentials = Credentials::with_policy(source, policy);
    let (error, ()) = tokio::join!(credentials.tokens(), async {
        strings.next().await.fail(TokenError::transient("down"));
    });
    error.unwrap_err();
    is_wrong.store(false, Ordering::SeqCst);
    let (token, ()) = tokio::join!(credentials.tokens(), async {
        strings.next().await.answer(tokens("t"));
    });
    token.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_absurd_lifetime_is_ten_years() {
    for lifetime in [Duration::MAX, Duration::from_secs(u64::MAX), 10_000 * 365 * DAY] {
        let mint = Mint::new(lifetime);
        let credentials = Credentials::with_policy(mint.clone(), policy());
        credentials.tokens().await.unwrap();
        let usable = credentials.status().usable_for.unwrap();
        assert!(usable > 3649 * DAY && usable <= 3650 * DAY, "{usable:?}");
    }
    let (source, _strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let far = std::time::SystemTime::UNIX_EPOCH + 100_000 * DAY;
    credentials.log_in(tokens("t").with_expires_at(far)).await.unwrap();
    credentials.tokens().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_counts_from_before_the_token_was_asked_for() {
    let mint = Mint::new(Duration::from_secs(100)).delay(Duration::from_secs(20));
    let credentials = Credentials::with_policy(mint, policy());
    let start = Instant::now();
    credentials.tokens().await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(20));
    // 100 s, less 20 s on the way, less 10 s of leeway.
    assert_eq!(credentials.status().usable_for, Some(Duration::from_secs(70)));
}

#[tokio::test(start_paused = true)]
async fn source_can_set_the_time_of_the_next_refresh() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let set = tokens("t").with_expires_in(HOUR).with_refresh_in(Duration::from_secs(60));
    credentials.log_in(set).await.unwrap();
    advance(Duration::from_secs(59)).await;
    assert_eq!(credentials.status().token, TokenStatus::Fresh);
    advance(Duration::from_secs(1)).await;
    credentials.tokens().await.unwrap();
    assert_eq!(strings.next().await.renewal.cause(), Cause::Expiring);
}

#[tokio::test(start_paused = true)]
async fn refresh_ahead_of_zero_renews_at_expiry_and_not_before() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy().refresh_ahead(Duration::ZERO));
    credentials.log_in(tokens("t").with_expires_in(HOUR)).await.unwrap();
    advance(HOUR - Duration::from_secs(11)).await;
    credentials.tokens().await.unwrap();
    assert_eq!(strings.count(), 0);
    advance(Duration::from_secs(1)).await;
    assert_eq!(credentials.status().token, TokenStatus::Expired);
}

#[tokio::test(start_paused = true)]
async fn instances_of_a_fleet_do_not_renew_in_step() {
    let mut stale_at = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let clock = ManualClock::new();
        let (source, _strings) = puppet();
        let policy = RefreshPolicy::default().clock(clock.clone());
        let credentials = Credentials::with_policy(source, policy);
        credentials.log_in(tokens("t").with_expires_in(HOUR)).await.unwrap();
        clock.advance(HOUR - Duration::from_secs(370));
        let mut seconds = 0;
        while credentials.status().token == TokenStatus::Fresh {
            clock.advance(Duration::from_secs(1));
            seconds += 1;
        }
        assert!((10..=71).contains(&seconds), "{seconds}");
        stale_at.insert(seconds);
    }
    assert!(stale_at.len() > 5, "{stale_at:?}");
}

// ===== clocks that do not agree =====

async fn with_clock<S: TokenSource>(source: S) -> (Credentials, ManualClock) {
    let clock = ManualClock::new();
    let policy = RefreshPolicy::default().clock(clock.clone()).jitter(Duration::ZERO);
    let credentials = Credentials::with_policy(source, policy);
    credentials.log_in(tokens("t").with_expires_in(HOUR)).await.unwrap();
    (credentials, clock)
}

#[tokio::test(start_paused = true)]
async fn a_suspended_machine_knows_that_its_token_has_expired() {
    let (source, _strings) = puppet();
    let (credentials, clock) = with_clock(source).await;
    let before = clock.now().monotonic();
    clock.advance_wall(2 * HOUR);
    assert_eq!(clock.now().monotonic(), before);
    assert_eq!(credentials.status().token, TokenStatus::Expired);
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_set_back_does_not_prolong_a_token() {
    let (source, _strings) = puppet();
    let (credentials, clock) = with_clock(source).await;
    clock.rewind_wall(10 * DAY);
    assert_eq!(credentials.status().token, TokenStatus::Fresh);
    clock.advance(HOUR);
    assert_eq!(credentials.status().token, TokenStatus::Expired);
}

#[tokio::test(start_paused = true)]
async fn wall_clock_set_forward_costs_one_refresh_and_no_loop() {
    let mint = Mint::new(HOUR);
    let (credentials, clock) = with_clock(mint.clone()).await;
    clock.advance_wall(10 * DAY);
    for _ in 0..10 {
        credentials.tokens().await.unwrap();
    }
    assert_eq!(mint.calls(), 1);
    assert_eq!(credentials.status().token, TokenStatus::Fresh);
}

#[tokio::test(start_paused = true)]
async fn clocks_before_1970_and_at_the_end_of_time_do_no_harm() {
    for wall in [
        std::time::SystemTime::UNIX_EPOCH - 100 * DAY,
        std::time::SystemTime::UNIX_EPOCH,
        std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(i64::MAX as u64 - 1),
    ] {
        let clock = ManualClock::at(wall);
        let mint = Mint::new(Duration::MAX);
        let credentials =
            Credentials::with_policy(mint.clone(), RefreshPolicy::default().clock(clock.clone()));
        for _ in 0..3 {
            credentials.tokens().await.unwrap();
            credentials.refresh().await.unwrap();
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(mint.calls(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn extreme_policies_neither_panic_nor_block_requests() {
    for figure in [Duration::ZERO, Duration::MAX] {
        let (source, mut strings) = puppet();
        let policy = policy()
            .leeway(figure)
            .refresh_ahead(figure)
            .jitter(figure)
            .backoff(figure, figure)
            .rejection_backoff(figure, figure)
            .timeout(figure.max(Duration::from_secs(1)));
        let credentials = Credentials::with_policy(source, policy);
        credentials.log_in(tokens("t").with_expires_in(HOUR)).await.unwrap();
        let (error, ()) = tokio::join!(credentials.refresh(), async {
            strings.next().await.fail(tower_refresh::TokenError::transient("x"));
        });
        assert!(error.is_err());
        assert!(credentials.tokens().await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn wall_clock_jump_during_a_refresh_spends_no_token_twice() {
    // The machine is suspended, or the time daemon sets the clock.
    let (source, mut strings) = puppet();
    let (credentials, clock) = with_clock(source).await;
    clock.advance(HOUR - Duration::from_secs(60));
    credentials.tokens().await.unwrap();
    let flight = strings.next().await;
    clock.advance_wall(HOUR);

    let mut waiting = task::spawn(credentials.tokens());
    assert_pending!(waiting.poll());
    harness::let_others_run().await;
    assert_eq!(strings.count(), 0);
    flight.answer(tokens("new").with_expires_in(HOUR));
    harness::let_others_run().await;
    assert_eq!(assert_ready!(waiting.poll()).unwrap().access_token().expose_secret(), "new");
}

#[tokio::test(start_paused = true)]
async fn source_that_asks_for_a_refresh_at_once_causes_no_storm() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let credentials = Credentials::with_policy(
        move |_: Renewal| {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Ok(tokens("t").with_expires_in(HOUR).with_refresh_in(Duration::ZERO)) }
        },
        policy(),
    );
    for _ in 0..1000 {
        credentials.tokens().await.unwrap();
        credentials.flush().await.unwrap();
        advance(Duration::from_millis(10)).await;
    }
    // In ten seconds: one at the beginning, and one in the middle.
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}
