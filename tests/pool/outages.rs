//! The outage of a token endpoint, which all keys notice together.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::advance;
use tower_refresh::testing::Fault;
use tower_refresh::{
    Credentials, CredentialsPool, Event, Renewal, SourceInfo, TokenError, TokenSet, TokenSource,
};

use crate::harness::{HOUR, MINUTE, SECOND, policy};
use crate::users::{Users, names};

fn pool(users: &Users) -> CredentialsPool<String> {
    let users = users.clone();
    CredentialsPool::builder(move |user: &String| users.stored(user))
        .concurrent_refreshes(8)
        .build()
}

async fn ask_all(pool: &CredentialsPool<String>, users: &[String]) -> usize {
    let all: Vec<_> = users.iter().map(|user| pool.get(user).unwrap()).collect();
    let tokens = join_all(all.iter().map(Credentials::tokens)).await;
    tokens.into_iter().filter(Result::is_ok).count()
}

#[tokio::test(start_paused = true)]
async fn thousand_users_cost_an_endpoint_that_fails_one_request_at_a_time() {
    let users = Users::new();
    let pool = pool(&users);
    let mut events = pool.subscribe();
    users.server.token_faults().always(Fault::unavailable());
    assert_eq!(ask_all(&pool, &names(1000)).await, 0);
    // Those that were under way when the third one failed.
    let at_once = users.server.counters().token_requests;
    assert!(at_once <= 3 + 8, "{at_once}");
    let outages = std::iter::from_fn(|| futures_util::FutureExt::now_or_never(events.recv()));
    let outages =
        outages.filter(|it| matches!(it.as_ref().unwrap().event, Event::OutageStarted { .. }));
    assert_eq!(outages.count(), 1);
    assert_eq!(pool.pool_status().outages.len(), 1);

    // In a minute, at least a second apart, and mostly five.
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
    let pool = CredentialsPool::new(|key: &u64| {
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
