//! The outage of a token endpoint, which all keys notice together.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::time::advance;
use tower_refresh::testing::{Fault, TokioClock};
use tower_refresh::{
    Clock, Credentials, CredentialsPool, Event, MakeCredentials, PoolKey, Renewal, SourceInfo,
    Timestamp, TokenError, TokenSet, TokenSource,
};
use tracing::Level;

use crate::harness::{HOUR, MINUTE, SECOND, policy};
use crate::log::Log;
use crate::users::{Users, names};

fn pool(users: &Users) -> CredentialsPool<String> {
    let users = users.clone();
    CredentialsPool::builder(move |user: &String| users.stored(user))
        .concurrent_refreshes(8)
        .clock(TokioClock::new())
        .build()
}

/// A pool whose pauses follow tokio's paused clock.
fn paused<K: PoolKey, M: MakeCredentials>(
    make: impl Fn(&K) -> M + Send + Sync + 'static,
) -> CredentialsPool<K> {
    CredentialsPool::builder(make).clock(TokioClock::new()).build()
}

async fn ask_all(pool: &CredentialsPool<String>, users: &[String]) -> usize {
    let all: Vec<_> = users.iter().map(|user| pool.get(user).unwrap()).collect();
    let tokens = join_all(all.iter().map(Credentials::tokens)).await;
    tokens.into_iter().filter(Result::is_ok).count()
}

#[tokio::test(start_paused = true)]
async fn thousand_users_ask_an_endpoint_that_fails_one_at_a_time() {
    let users = Users::new();
    let pool = pool(&users);
    let mut events = pool.subscribe();
    users.server.token_faults().always(Fault::unavailable());
    assert_eq!(ask_all(&pool, &names(1000)).await, 0);
    // Some requests were in flight when the third one failed.
    let at_once = users.server.counters().token_requests;
    assert!(at_once <= 3 + 8, "{at_once}");
    let outages = std::iter::from_fn(|| futures_util::FutureExt::now_or_never(events.recv()));
    let outages =
        outages.filter(|it| matches!(it.as_ref().unwrap().event, Event::OutageStarted { .. }));
    assert_eq!(outages.count(), 1);
    assert_eq!(pool.pool_status().outages.len(), 1);

    // The probes of a minute, with pauses of up to five seconds.
    for _ in 0..600 {
        advance(Duration::from_millis(100)).await;
        assert_eq!(ask_all(&pool, &names(50)).await, 0);
    }
    let probes = users.server.counters().token_requests - at_once;
    assert!((10..=30).contains(&probes), "{probes}");

    users.server.token_faults().clear();
    let mut waited = Duration::ZERO;
    while ask_all(&pool, &names(1000)).await < 1000 {
        advance(Duration::from_millis(100)).await;
        waited += Duration::from_millis(100);
    }
    assert!(waited <= 11 * SECOND, "{waited:?}");
    assert!(pool.pool_status().outages.is_empty());
    users.assert_no_reuse();
}

#[tokio::test(start_paused = true)]
async fn failed_refreshes_without_a_store_leave_nothing_to_save() {
    let users = Users::new();
    let make = users.clone();
    let pool = CredentialsPool::builder(move |_: &String| make.logged_out()).build();
    for user in names(3) {
        let tokens = users.server.issue();
        users.server.revoke_refresh_token(tokens.refresh_token().unwrap().expose_secret());
        pool.log_in(&user, tokens).await.unwrap();
        assert!(pool.get(&user).unwrap().refresh().await.unwrap_err().is_denied());
    }
    let status = pool.pool_status();
    assert_eq!((status.denied, status.unsaved), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn log_lines_of_a_pool_have_the_key_of_the_user() {
    let log = Log::start(Level::WARN);
    let users = Users::new();
    let pool = pool(&users);
    users.server.token_faults().always(Fault::unavailable());
    assert_eq!(ask_all(&pool, &names(3)).await, 0);
    let lines = log.take();
    for key in names(3) {
        let is_about = |line: &&str| line.contains(&format!("credentials=\"{key}\""));
        let line = lines.lines().filter(|line| line.contains("refresh failed")).find(is_about);
        assert!(line.is_some(), "{lines}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_one_key_counts_for_all() {
    let users = Users::new();
    let pool = pool(&users);
    users.server.token_faults().once(Fault::unavailable().retry_after(MINUTE));
    assert_eq!(ask_all(&pool, &names(1)).await, 0);
    for _ in 0..59 {
        assert_eq!(ask_all(&pool, &names(100)).await, 0);
        advance(SECOND).await;
    }
    assert_eq!(users.server.counters().token_requests, 1);
    advance(2 * SECOND).await;
    assert_eq!(ask_all(&pool, &names(100)[..1]).await, 1);
}

#[tokio::test(start_paused = true)]
async fn refusals_and_failures_of_one_key_are_no_outage() {
    let users = Users::new();
    let pool = pool(&users);
    users.server.token_faults().times(20, Fault::oauth_error("invalid_grant"));
    assert_eq!(ask_all(&pool, &names(20)).await, 0);
    assert!(pool.pool_status().outages.is_empty());
    assert_eq!(pool.pool_status().denied, 20);

    users.server.token_faults().times(10, Fault::unavailable());
    let one = pool.get(&"one".to_owned()).unwrap();
    for _ in 0..10 {
        assert!(one.refresh().await.is_err());
        advance(MINUTE).await;
    }
    assert!(pool.pool_status().outages.is_empty());
}

#[tokio::test(start_paused = true)]
async fn other_token_endpoints_are_asked_during_an_outage() {
    let (down, up) = (Users::new(), Users::new());
    down.server.token_faults().always(Fault::unavailable());
    struct At<S>(S, &'static str);
    impl<S: TokenSource> TokenSource for At<S> {
        async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
            self.0.fetch(renewal).await
        }
        fn info(&self) -> SourceInfo {
            SourceInfo::new().token_endpoint(self.1)
        }
    }
    let pool = paused(|key: &u64| {
        match key % 2 {
            0 => Credentials::builder(At(
                |_: Renewal| async { Err::<TokenSet, _>(TokenError::transient("503")) },
                "https://down.test",
            )),
            _ => Credentials::builder(At(
                |_: Renewal| async { Ok(TokenSet::bearer("t")?.with_expires_in(HOUR)) },
                "https://up.test",
            )),
        }
        .policy(policy())
    });
    for key in 0..20 {
        let tokens = pool.get(&key).unwrap().tokens().await;
        assert_eq!(tokens.is_ok(), key % 2 == 1);
    }
    let outages = pool.pool_status().outages;
    assert_eq!(outages.len(), 1);
    assert_eq!(outages[0].endpoint, "https://down.test");
    drop(up);
}

#[tokio::test(start_paused = true)]
async fn probe_that_never_ends_is_followed_by_another() {
    let users = Users::new();
    let pool = pool(&users);
    users.server.token_faults().always(Fault::unavailable());
    assert_eq!(ask_all(&pool, &names(8)).await, 0);
    assert_eq!(pool.pool_status().outages.len(), 1);
    users.server.token_faults().clear();
    users.server.token_faults().once(Fault::hang());
    advance(2 * SECOND).await;
    let probe = pool.get(&"user-20".to_owned()).unwrap();
    let probe = tokio::spawn(async move { probe.tokens().await });
    tokio::task::yield_now().await;
    let mut waited = Duration::ZERO;
    while ask_all(&pool, &names(1)).await == 0 {
        advance(SECOND).await;
        waited += SECOND;
    }
    assert!(waited <= 40 * SECOND, "{waited:?}");
    assert!(probe.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn error_of_the_outage_names_the_endpoint_and_the_cause() {
    let users = Users::new();
    let pool = pool(&users);
    users.server.token_faults().always(Fault::unavailable());
    ask_all(&pool, &names(8)).await;
    let error = pool.get(&"late".to_owned()).unwrap().tokens().await.unwrap_err();
    assert!(error.is_transient() && error.retry_after().is_some(), "{error}");
    let message = error.to_string();
    assert!(message.contains("https://auth.test") && message.contains("503"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn tokens_in_the_store_are_used_during_an_outage() {
    let users = Users::new();
    assert_eq!(ask_all(&pool(&users), &names(20)).await, 20);
    // As after a restart.
    let pool = pool(&users);
    users.server.token_faults().always(Fault::unavailable());
    let others: Vec<_> = (100..110).map(|n| format!("user-{n}")).collect();
    assert_eq!(ask_all(&pool, &others).await, 0);
    assert_eq!(pool.pool_status().outages.len(), 1);
    let asked = users.server.counters().token_requests;
    assert_eq!(ask_all(&pool, &names(20)).await, 20);
    assert_eq!(users.server.counters().token_requests, asked);
}

/// Asks an endpoint, for itself or with the token of another key.
struct Exchange {
    subject: Option<Credentials>,
    endpoint: &'static str,
    asks: Arc<dyn Fn() -> Result<TokenSet, TokenError> + Send + Sync>,
}

impl TokenSource for Exchange {
    async fn fetch(&self, _: Renewal) -> Result<TokenSet, TokenError> {
        if let Some(subject) = &self.subject {
            subject.tokens().await?;
        }
        (self.asks)()
    }

    fn info(&self) -> SourceInfo {
        SourceInfo::new().token_endpoint(self.endpoint)
    }
}

fn issue() -> Result<TokenSet, TokenError> {
    Ok(TokenSet::bearer("t")?.with_expires_in(HOUR))
}

#[tokio::test(start_paused = true)]
async fn probe_that_first_needs_another_key_ends_the_outage() {
    let is_up = Arc::new(AtomicBool::new(false));
    let asks: Arc<dyn Fn() -> _ + Send + Sync> = Arc::new({
        let is_up = Arc::clone(&is_up);
        move || match is_up.load(Ordering::SeqCst) {
            true => issue(),
            false => Err(TokenError::transient("503")),
        }
    });
    let endpoint = "https://auth.test";
    // One pool: the keys below 100 are the users, and the others exchange their tokens.
    let itself: Arc<OnceLock<CredentialsPool<u64>>> = Arc::default();
    let inner = Arc::clone(&itself);
    let pool = paused(move |key: &u64| {
        let subject = match *key {
            0..100 => None,
            key => Some(inner.get().unwrap().get(&(key - 100))?),
        };
        let asks = Arc::clone(&asks);
        Ok(Credentials::builder(Exchange { subject, endpoint, asks }).policy(policy()))
    });
    itself.set(pool.clone()).unwrap();
    for key in 0..5 {
        assert!(pool.get(&key).unwrap().tokens().await.is_err());
    }
    assert_eq!(pool.pool_status().outages.len(), 1);
    is_up.store(true, Ordering::SeqCst);
    // Only the exchanged tokens are needed.
    let mut waited = Duration::ZERO;
    while pool.get(&150).unwrap().tokens().await.is_err() {
        advance(SECOND).await;
        waited += SECOND;
        assert!(waited < MINUTE, "{:?}", pool.pool_status().outages);
    }
}

#[tokio::test(start_paused = true)]
async fn outage_of_one_endpoint_begins_none_at_another() {
    let subjects = paused(|_: &u64| {
        let asks = Arc::new(|| Err(TokenError::transient("503")));
        let endpoint = "https://login.test";
        Credentials::builder(Exchange { subject: None, endpoint, asks }).policy(policy())
    });
    let of = subjects.clone();
    let pool = paused(move |key: &u64| {
        let (subject, endpoint) = (Some(of.get(key)?), "https://exchange.test");
        let asks = Arc::new(issue);
        Ok(Credentials::builder(Exchange { subject, endpoint, asks }).policy(policy()))
    });
    for key in 0..3 {
        assert!(subjects.get(&key).unwrap().tokens().await.is_err());
    }
    assert_eq!(subjects.pool_status().outages.len(), 1);
    for key in 10..20 {
        assert!(pool.get(&key).unwrap().tokens().await.is_err());
    }
    assert!(pool.pool_status().outages.is_empty(), "{:?}", pool.pool_status().outages);
}

#[tokio::test(start_paused = true)]
async fn error_of_the_subject_is_no_failure_of_the_exchange() {
    let subject = |_: Renewal| async { Err::<TokenSet, _>(TokenError::transient("503")) };
    let subject = Credentials::with_policy(subject, policy());
    let pool = paused(move |_: &u64| {
        let (subject, endpoint) = (Some(subject.clone()), "https://exchange.test");
        let asks = Arc::new(issue);
        Credentials::builder(Exchange { subject, endpoint, asks }).policy(policy())
    });
    for key in 0..5 {
        assert!(pool.get(&key).unwrap().tokens().await.is_err());
    }
    assert!(pool.pool_status().outages.is_empty());
}

#[tokio::test(start_paused = true)]
async fn outage_of_a_second_source_does_not_stop_the_first() {
    let source = |endpoint, error: fn(&str) -> TokenError| {
        let asks = Arc::new(move || Err(error(endpoint)));
        Exchange { subject: None, endpoint, asks }
    };
    for (second, outages) in [("https://second.test", 0), ("https://first.test", 1)] {
        let pool = paused(move |_: &u64| {
            let first = source("https://first.test", |_| TokenError::denied("the session is over"));
            let second = source(second, |_| TokenError::transient("503"));
            Credentials::builder(first.or_else(second)).policy(policy())
        });
        for key in 0..5 {
            assert!(pool.get(&key).unwrap().tokens().await.is_err());
        }
        let status = pool.pool_status();
        assert_eq!(status.outages.len(), outages, "{second}: {:?}", status.outages);
    }
}

#[tokio::test(start_paused = true)]
async fn two_keys_that_were_evicted_and_made_anew_are_two_keys() {
    let users = Users::new();
    let make = users.clone();
    let pool = CredentialsPool::builder(move |user: &String| make.stored(user));
    let pool = pool.capacity(1).clock(TokioClock::new()).build();
    users.server.token_faults().always(Fault::unavailable());
    for user in names(2).iter().cycle().take(10) {
        assert!(pool.get(user).unwrap().tokens().await.is_err());
    }
    assert!(pool.pool_status().outages.is_empty());
    assert!(pool.get(&"another".to_owned()).unwrap().tokens().await.is_err());
    assert_eq!(pool.pool_status().outages.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn long_retry_after_ends_for_all_when_the_endpoint_answers_one() {
    let users = Users::new();
    let pool = pool(&users);
    let user = |n: usize| pool.get(&format!("user-{n}")).unwrap();
    // This request is sent before the endpoint asks for a pause, and answered later.
    users.server.token_faults().once(Fault::normal().delay(10 * SECOND));
    let slow = tokio::spawn({
        let slow = user(0);
        async move { slow.tokens().await }
    });
    advance(SECOND).await;
    users.server.token_faults().once(Fault::unavailable().retry_after(HOUR));
    assert!(user(1).tokens().await.is_err());
    let refused = user(2).tokens().await.unwrap_err();
    assert!(refused.retry_after().unwrap() > 59 * MINUTE, "{refused}");
    assert!(slow.await.unwrap().is_ok());
    assert!(pool.pool_status().outages.is_empty());
    advance(10 * SECOND).await;
    assert!(user(2).tokens().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn probe_that_hangs_without_a_timeout_is_followed_by_another() {
    let mut users = Users::new();
    users.policy = users.policy.timeout(Duration::MAX);
    let pool = pool(&users);
    users.server.token_faults().always(Fault::unavailable());
    assert_eq!(ask_all(&pool, &names(8)).await, 0);
    users.server.token_faults().clear();
    users.server.token_faults().once(Fault::hang());
    advance(2 * SECOND).await;
    let probe = pool.get(&"user-20".to_owned()).unwrap();
    let probe = tokio::spawn(async move { probe.tokens().await });
    tokio::task::yield_now().await;
    let mut waited = Duration::ZERO;
    while ask_all(&pool, &names(1)).await == 0 {
        advance(SECOND).await;
        waited += SECOND;
        assert!(waited <= 90 * SECOND);
    }
    probe.abort();
}

#[tokio::test(start_paused = true)]
async fn clock_that_goes_back_does_not_prolong_an_outage() {
    #[derive(Clone)]
    struct Seconds(Arc<AtomicU64>);
    impl Clock for Seconds {
        fn now(&self) -> Timestamp {
            let now = Duration::from_secs(self.0.load(Ordering::SeqCst));
            Timestamp::new(now, SystemTime::UNIX_EPOCH)
        }
    }
    let clock = Seconds(Arc::new(AtomicU64::new(1_000_000)));
    let endpoint = "https://auth.test";
    let is_up = Arc::new(AtomicBool::new(false));
    let (of_policy, of_source) = (clock.clone(), Arc::clone(&is_up));
    let pool = CredentialsPool::builder(move |_: &u64| {
        let is_up = Arc::clone(&of_source);
        let asks: Arc<dyn Fn() -> _ + Send + Sync> =
            Arc::new(move || match is_up.load(Ordering::SeqCst) {
                true => issue(),
                false => Err(TokenError::transient("503")),
            });
        Credentials::builder(Exchange { subject: None, endpoint, asks })
            .policy(policy().clock(of_policy.clone()))
    });
    let pool = pool.clock(clock.clone()).build();
    for key in 0..5 {
        assert!(pool.get(&key).unwrap().tokens().await.is_err());
    }
    assert_eq!(pool.pool_status().outages.len(), 1);
    is_up.store(true, Ordering::SeqCst);
    clock.0.store(1_000, Ordering::SeqCst);
    assert!(pool.get(&9).unwrap().tokens().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn many_keys_with_an_endpoint_each_are_made() {
    let pool = CredentialsPool::builder(|tenant: &u64| {
        struct Tenant(u64);
        impl TokenSource for Tenant {
            async fn fetch(&self, _: Renewal) -> Result<TokenSet, TokenError> {
                issue()
            }
            fn info(&self) -> SourceInfo {
                SourceInfo::new().token_endpoint(format!("https://{}.test", self.0))
            }
        }
        Credentials::builder(Tenant(*tenant))
    });
    let pool = pool.capacity(50_000).clock(TokioClock::new()).build();
    for tenant in 0..20_000 {
        pool.get(&tenant).unwrap();
    }
    assert_eq!(pool.len(), 20_000);
}

#[tokio::test(start_paused = true)]
async fn failures_with_an_answer_in_between_are_no_outage() {
    let users = Users::new();
    let pool = pool(&users);
    for user in names(18).chunks(3) {
        users.server.token_faults().times(2, Fault::unavailable());
        assert_eq!(ask_all(&pool, &user[..1]).await, 0);
        assert_eq!(ask_all(&pool, &user[1..2]).await, 0);
        assert_eq!(ask_all(&pool, &user[2..]).await, 1);
    }
    assert!(pool.pool_status().outages.is_empty());
}

#[tokio::test(start_paused = true)]
async fn probe_that_panics_is_followed_by_another_at_once() {
    let is_up = Arc::new(AtomicBool::new(false));
    // All keys have the same clock.
    let (of_source, policy) = (Arc::clone(&is_up), policy());
    let pool = paused(move |key: &u64| {
        let (key, is_up) = (*key, Arc::clone(&of_source));
        let asks: Arc<dyn Fn() -> _ + Send + Sync> = Arc::new(move || {
            assert_ne!(key, 100, "a bug of the source");
            match is_up.load(Ordering::SeqCst) {
                true => issue(),
                false => Err(TokenError::transient("503")),
            }
        });
        let endpoint = "https://auth.test";
        Credentials::builder(Exchange { subject: None, endpoint, asks }).policy(policy.clone())
    });
    for key in 0..3 {
        assert!(pool.get(&key).unwrap().tokens().await.is_err());
    }
    assert_eq!(pool.pool_status().outages.len(), 1);
    is_up.store(true, Ordering::SeqCst);
    advance(2 * SECOND).await;
    let error = pool.get(&100).unwrap().tokens().await.unwrap_err();
    assert!(error.is_ambiguous(), "{error}");
    assert_eq!(pool.pool_status().outages.len(), 1);
    assert!(pool.get(&101).unwrap().tokens().await.is_ok());
}
