//! How many refreshes are in flight, over all keys.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower_refresh::store::{MemoryLock, StoreError, StoredTokens, TokenStore, WriteId};
use tower_refresh::{
    Credentials, CredentialsBuilder, CredentialsPool, Event, Renewal, TokenError, TokenSet,
};

use crate::harness::{HOUR, Mint, SECOND, Strings, let_others_run, policy, puppet};
use crate::users::{Users, names};

#[tokio::test(start_paused = true)]
async fn number_of_refreshes_in_flight_has_a_limit() {
    let users = Users::new();
    let make = users.clone();
    users
        .server
        .token_faults()
        .always(tower_refresh::testing::Fault::normal().delay(Duration::from_millis(50)));
    let pool = CredentialsPool::builder(move |user: &String| make.stored(user));
    let pool = pool.concurrent_refreshes(7).build();
    let users_credentials: Vec<_> = names(100).iter().map(|user| pool.get(user).unwrap()).collect();
    for tokens in join_all(users_credentials.iter().map(Credentials::tokens)).await {
        tokens.unwrap();
    }
    assert_eq!(users.server.counters().max_concurrent_token_requests, 7);
}

#[tokio::test(start_paused = true)]
async fn slow_refreshes_do_not_hold_up_the_others() {
    let (slow, mut strings) = puppet();
    let fast = Mint::new(HOUR);
    let pool = CredentialsPool::builder(move |key: &u64| {
        match key {
            0..4 => Credentials::builder(slow.clone()),
            _ => Credentials::builder(fast.clone()),
        }
        .policy(policy())
    });
    let pool = pool.concurrent_refreshes(4).build();
    let hanging: Vec<_> = (0..4)
        .map(|key| {
            tokio::spawn({
                let credentials = pool.get(&key).unwrap();
                async move { credentials.tokens().await }
            })
        })
        .collect();
    for _ in 0..4 {
        strings.next().await;
    }
    // After the timeout of the policy the slow ones give way.
    let other = pool.get(&4).unwrap();
    assert!(timeout(29 * SECOND, other.tokens()).await.is_err());
    assert!(timeout(2 * SECOND, other.tokens()).await.is_ok());
    drop(hanging);
}

#[tokio::test(start_paused = true)]
async fn source_that_waits_for_another_key_needs_no_second_place() {
    let users = Mint::new(HOUR);
    let pool = CredentialsPool::builder(move |_: &u64| {
        Credentials::builder(users.clone()).policy(policy())
    });
    let subjects = pool.concurrent_refreshes(1).build();
    let of = subjects.clone();
    let exchanged = CredentialsPool::builder(move |key: &u64| {
        let subject = of.get(key)?;
        Ok(Credentials::builder(move |_: Renewal| {
            let subject = subject.clone();
            async move {
                let subject = subject.tokens().await?;
                TokenSet::bearer(format!("for-{}", subject.access_token().expose_secret()))
            }
        })
        .policy(policy()))
    });
    let exchanged = exchanged.concurrent_refreshes(1).build();
    let all: Vec<_> = (0..5).map(|key| exchanged.get(&key).unwrap()).collect();
    for tokens in join_all(all.iter().map(Credentials::tokens)).await {
        assert!(tokens.unwrap().access_token().expose_secret().starts_with("for-t"));
    }
}

#[tokio::test(start_paused = true)]
async fn refreshes_that_wait_for_their_place_are_served_in_order() {
    let mint = Mint::new(HOUR);
    let pool = CredentialsPool::builder(move |_: &String| {
        Credentials::builder(mint.clone()).policy(policy())
    });
    let pool = pool.concurrent_refreshes(1).build();
    let mut events = pool.subscribe();
    let waiting: Vec<_> = names(20)
        .into_iter()
        .map(|user| {
            let credentials = pool.get(&user).unwrap();
            tokio::spawn(async move { credentials.tokens().await })
        })
        .collect();
    for task in waiting {
        task.await.unwrap().unwrap();
    }
    let mut refreshed = Vec::new();
    while refreshed.len() < 20 {
        let event = events.recv().await.unwrap();
        if matches!(event.event, Event::Refreshed { .. }) {
            refreshed.push(event.key.to_string());
        }
    }
    assert_eq!(refreshed, names(20));
}

#[tokio::test(start_paused = true)]
async fn flush_saves_what_is_unsaved_for_all_keys() {
    let users = Users::new();
    let make = users.clone();
    let pool = CredentialsPool::new(move |user: &String| make.stored(user));
    for user in names(30) {
        let tokens = users.server.issue();
        // Recorded in the background.
        drop(tokio::spawn({
            let pool = pool.clone();
            async move { pool.log_in(&user, tokens).await }
        }));
    }
    tokio::task::yield_now().await;
    pool.flush().await.unwrap();
    let status = pool.pool_status();
    assert_eq!((status.keys, status.fresh, status.unsaved), (30, 30, 0));
}

/// A pool with one place. The source of key 0 is a puppet, and that of key 2 exchanges the token of key 1.
fn exchanging(
    subject: impl Fn() -> CredentialsBuilder + Send + Sync + 'static,
) -> (CredentialsPool<u64>, Strings) {
    let (slow, strings) = puppet();
    let itself: Arc<OnceLock<CredentialsPool<u64>>> = Arc::default();
    let inner = Arc::clone(&itself);
    let pool = CredentialsPool::builder(move |key: &u64| {
        let builder = match *key {
            0 => Credentials::builder(slow.clone()),
            1 => subject(),
            _ => {
                let inner = Arc::clone(&inner);
                Credentials::builder(move |_: Renewal| {
                    let subject = inner.get().unwrap().get(&1);
                    async move { subject?.tokens().await }
                })
            }
        };
        builder.policy(policy())
    });
    let pool = pool.concurrent_refreshes(1).build();
    itself.set(pool.clone()).unwrap();
    (pool, strings)
}

fn ask(pool: &CredentialsPool<u64>, key: u64) -> JoinHandle<Result<TokenSet, TokenError>> {
    let credentials = pool.get(&key).unwrap();
    tokio::spawn(async move { credentials.tokens().await })
}

fn token() -> TokenSet {
    TokenSet::bearer("t").unwrap().with_expires_in(HOUR)
}

#[tokio::test(start_paused = true)]
async fn refresh_that_a_source_waits_for_leaves_the_queue() {
    let mint = Mint::new(HOUR);
    let (pool, mut strings) = exchanging(move || Credentials::builder(mint.clone()));
    let first = ask(&pool, 0);
    let asked = strings.next().await;
    let exchanged = ask(&pool, 2);
    let_others_run().await;
    let subject = ask(&pool, 1);
    let_others_run().await;
    asked.answer(token());
    for task in [first, exchanged, subject] {
        timeout(SECOND, task).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn refresh_after_a_log_in_leaves_the_queue_for_a_source() {
    let mint = Mint::new(HOUR);
    let (pool, mut strings) = exchanging(move || Credentials::builder(mint.clone()));
    let first = ask(&pool, 0);
    let asked = strings.next().await;
    let exchanged = ask(&pool, 2);
    let_others_run().await;
    let subject = ask(&pool, 1);
    let_others_run().await;
    // The refresh before the log-in is still in the queue.
    pool.log_in(&1, TokenSet::bearer("old").unwrap().with_expires_in(Duration::ZERO))
        .await
        .unwrap();
    let_others_run().await;
    asked.answer(token());
    for task in [first, exchanged, subject] {
        timeout(SECOND, task).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn later_refresh_keeps_its_turn_if_no_source_waits_for_it() {
    let (subject, mut subject_strings) = puppet();
    let (pool, mut strings) = exchanging(move || Credentials::builder(subject.clone()));
    let subject = ask(&pool, 1);
    let asked = subject_strings.next().await;
    // A source waits for the refresh that has begun.
    let of = pool.get(&1).unwrap();
    let outside = Credentials::new(move |_: Renewal| {
        let of = of.clone();
        async move { of.tokens().await }
    });
    let exchanged = tokio::spawn(async move { outside.tokens().await });
    let_others_run().await;
    asked.answer(token());
    for task in [subject, exchanged] {
        timeout(SECOND, task).await.unwrap().unwrap().unwrap();
    }

    let first = ask(&pool, 0);
    let asked = strings.next().await;
    let credentials = pool.get(&1).unwrap();
    let later = tokio::spawn(async move { credentials.refresh().await });
    let_others_run().await;
    assert_eq!(subject_strings.count(), 0, "the only place is taken");
    asked.answer(token());
    first.await.unwrap().unwrap();
    subject_strings.next().await.answer(token());
    later.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn refresh_that_waits_long_for_its_turn_keeps_its_place() {
    let (slow, mut strings) = puppet();
    let mint = Mint::new(HOUR);
    let pool = CredentialsPool::builder(move |key: &u64| {
        match key {
            0..20 => Credentials::builder(slow.clone()),
            _ => Credentials::builder(mint.clone()),
        }
        .policy(policy())
    });
    let pool = pool.concurrent_refreshes(1).build();
    let mut events = pool.subscribe();
    let hanging: Vec<_> = (0..20)
        .map(|key| {
            let credentials = pool.get(&key).unwrap();
            tokio::spawn(async move { credentials.tokens().await })
        })
        .collect();
    let_others_run().await;
    // Each of the 20 gives way after 30 seconds.
    let last = pool.get(&20).unwrap();
    let mut waited = 0;
    while last.tokens().await.is_err() {
        waited += 1;
        assert!(waited < 21, "it has lost its place");
    }
    while let Some(Some(event)) = futures_util::FutureExt::now_or_never(events.recv()) {
        assert!(&*event.key != "20" || !matches!(event.event, Event::RefreshLost));
    }
    assert_eq!(strings.count(), 20);
    drop(hanging);
}

#[tokio::test(start_paused = true)]
async fn flush_saves_the_other_keys_while_a_refresh_hangs() {
    let (slow, mut strings) = puppet();
    let users = Users::new();
    let make = users.clone();
    let pool = CredentialsPool::builder(move |user: &String| match user.as_str() {
        "user-0" => Credentials::builder(slow.clone()).policy(policy()),
        user => make.failing_once(user),
    });
    let pool = pool.concurrent_refreshes(1).build();
    let hanging = tokio::spawn({
        let credentials = pool.get(&"user-0".to_owned()).unwrap();
        async move { credentials.tokens().await }
    });
    let asked = strings.next().await;
    for user in &names(20)[1..] {
        pool.log_in(user, users.server.issue()).await.unwrap_err();
    }
    assert_eq!(pool.pool_status().unsaved, 19);
    assert!(timeout(10 * SECOND, pool.flush()).await.is_err());
    assert_eq!(pool.pool_status().unsaved, 0);
    drop((hanging, asked));
}

/// A store that has a bug.
struct Panics;

impl TokenStore for Panics {
    type Lock = MemoryLock;

    async fn lock(&self, _: Duration) -> Result<MemoryLock, StoreError> {
        panic!("a bug of the store")
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        panic!("a bug of the store")
    }

    async fn save(&self, _: &StoredTokens, _: Option<WriteId>) -> Result<(), StoreError> {
        panic!("a bug of the store")
    }
}

#[tokio::test(start_paused = true)]
async fn store_that_panics_while_a_refresh_is_queued_is_named() {
    let (slow, mut strings) = puppet();
    let pool = CredentialsPool::builder(move |key: &u64| match *key {
        0 => Credentials::builder(slow.clone()).policy(policy()),
        _ => Credentials::builder(Mint::new(HOUR)).store(Panics).policy(policy()),
    });
    let pool = pool.concurrent_refreshes(1).build();
    let first = ask(&pool, 0);
    let asked = strings.next().await;
    let error = ask(&pool, 1).await.unwrap().unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("panicked"), "{error}");
    asked.answer(token());
    first.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn source_that_flushes_the_pool_gets_an_error() {
    let itself: Arc<OnceLock<CredentialsPool<u64>>> = Arc::default();
    let inner = Arc::clone(&itself);
    let pool = CredentialsPool::new(move |_: &u64| {
        let pool = inner.get().unwrap().clone();
        Credentials::builder(move |_: Renewal| {
            let pool = pool.clone();
            async move {
                pool.flush().await?;
                TokenSet::bearer("never")
            }
        })
        .policy(policy())
    });
    itself.set(pool.clone()).unwrap();
    let error = timeout(SECOND, pool.get(&0).unwrap().tokens()).await.unwrap().unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
}
