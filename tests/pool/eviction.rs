//! The credentials that are evicted, and those that are kept.

use std::cmp::max;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tower_refresh::store::MemoryStore;
use tower_refresh::testing::ManualClock;
use tower_refresh::{
    Credentials, CredentialsPool, Renewal, SourceInfo, TokenError, TokenSet, TokenSource,
    TokenStatus,
};

use crate::harness::{HOUR, MINUTE, puppet};
use crate::users::{Users, names};

/// A pool that counts how often its closure is called.
fn counted(
    users: &Users,
    capacity: usize,
    clock: &ManualClock,
) -> (CredentialsPool<String>, Arc<AtomicUsize>) {
    let (users, made) = (users.clone(), Arc::<AtomicUsize>::default());
    let counter = Arc::clone(&made);
    let pool = CredentialsPool::builder(move |user: &String| {
        counter.fetch_add(1, Ordering::SeqCst);
        users.stored(user)
    });
    (pool.capacity(capacity).clock(clock.clone()).build(), made)
}

#[tokio::test(start_paused = true)]
async fn pool_of_stored_credentials_keeps_to_its_capacity() {
    let users = Users::new();
    let (pool, made) = counted(&users, 10, &ManualClock::new());
    for user in names(100) {
        pool.get(&user).unwrap().warm_up().await.unwrap();
    }
    assert!(pool.len() <= 10, "{}", pool.len());
    // Evicted credentials come back with their tokens.
    let asked = users.server.counters().token_requests;
    for user in names(100) {
        pool.get(&user).unwrap().warm_up().await.unwrap();
    }
    assert!(made.load(Ordering::SeqCst) >= 190);
    assert_eq!(users.server.counters().token_requests, asked);
    users.assert_no_reuse();
}

#[tokio::test(start_paused = true)]
async fn credentials_that_something_holds_are_not_made_twice() {
    let users = Users::new();
    let clock = ManualClock::new();
    let (pool, made) = counted(&users, 1, &clock);
    let held: Vec<_> = names(50).iter().map(|user| pool.get(user).unwrap()).collect();
    assert_eq!((pool.len(), made.load(Ordering::SeqCst)), (50, 50));
    for (user, held) in names(50).iter().zip(&held) {
        held.warm_up().await.unwrap();
        assert_eq!(pool.status(user).unwrap().generation, held.status().generation);
    }
    assert_eq!(made.load(Ordering::SeqCst), 50);
    drop(held);
    clock.advance(MINUTE);
    assert_eq!(pool.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn credentials_with_a_refresh_in_flight_are_not_evicted() {
    let (source, mut strings) = puppet();
    let pool = CredentialsPool::builder(move |_: &u64| Credentials::builder(source.clone()));
    let pool = pool.capacity(1).build();
    let waiting = tokio::spawn({
        let credentials = pool.get(&0).unwrap();
        async move { credentials.tokens().await }
    });
    let asked = strings.next().await;
    waiting.abort();
    assert!(waiting.await.is_err());
    for key in 1..20 {
        pool.get(&key).unwrap();
    }
    assert!(pool.status(&0).unwrap().refreshing);
    asked.answer(TokenSet::bearer("t").unwrap().with_expires_in(HOUR));
    while pool.status(&0).unwrap().refreshing {
        tokio::task::yield_now().await;
    }
    assert_eq!(pool.status(&0).unwrap().token, TokenStatus::Fresh);
}

#[tokio::test(start_paused = true)]
async fn refresh_token_that_is_nowhere_else_is_not_evicted() {
    let users = Users::new();
    let make = users.clone();
    let pool = CredentialsPool::builder(move |user: &String| make.without_store(user));
    let pool = pool.capacity(5).build();
    for user in names(50) {
        pool.get(&user).unwrap().warm_up().await.unwrap();
    }
    assert_eq!(pool.len(), 50);
    for user in names(50) {
        pool.get(&user).unwrap().refresh().await.unwrap();
    }
    users.assert_no_reuse();
}

#[tokio::test(start_paused = true)]
async fn tokens_in_a_store_that_is_dropped_with_them_are_not_evicted() {
    let users = Users::new();
    let make = users.clone();
    let pool = CredentialsPool::builder(move |user: &String| {
        make.without_store(user).store(MemoryStore::new())
    });
    let pool = pool.capacity(5).build();
    for user in names(50) {
        pool.get(&user).unwrap().warm_up().await.unwrap();
    }
    assert_eq!(pool.len(), 50);
}

#[tokio::test(start_paused = true)]
async fn log_in_and_log_out_without_a_store_are_not_evicted() {
    let pool = CredentialsPool::builder(|_: &u64| {
        Credentials::builder(|_: Renewal| async { TokenSet::bearer("of-the-source") })
    });
    let pool = pool.capacity(1).build();
    pool.log_in(&0, TokenSet::bearer("of-the-user").unwrap()).await.unwrap();
    pool.log_out(&1).await.unwrap();
    for key in 2..20 {
        pool.get(&key).unwrap().warm_up().await.unwrap();
    }
    assert!(pool.len() <= 3, "{}", pool.len());
    let current = pool.get(&0).unwrap().current().unwrap();
    assert_eq!(current.access_token().expose_secret(), "of-the-user");
    assert_eq!(pool.status(&1).unwrap().token, TokenStatus::Missing);
}

#[tokio::test(start_paused = true)]
async fn users_without_a_store_are_evicted_after_their_log_out() {
    let (users, clock) = (Users::new(), ManualClock::new());
    let make = users.clone();
    let pool = CredentialsPool::builder(move |_: &String| make.logged_out());
    let pool = pool.clock(clock.clone()).build();
    for user in names(50) {
        pool.log_in(&user, users.server.issue()).await.unwrap();
    }
    clock.advance(2 * HOUR);
    assert_eq!(pool.len(), 50);

    for user in &names(50)[..40] {
        pool.log_out(user).await.unwrap();
    }
    clock.advance(2 * HOUR);
    assert_eq!(pool.len(), 10);
    let error = pool.get(&names(1)[0]).unwrap().tokens().await.unwrap_err();
    assert!(error.is_denied());
    assert!(pool.get(&names(50)[49]).unwrap().current().is_some());
    assert_eq!(users.server.counters().token_requests, 0);
}

#[tokio::test(start_paused = true)]
async fn idle_keys_are_evicted_and_used_ones_are_kept() {
    let (users, clock) = (Users::new(), ManualClock::new());
    let pool = CredentialsPool::builder(move |user: &String| users.stored(user));
    let pool = pool.idle(20 * MINUTE).clock(clock.clone()).build();
    for user in names(10) {
        pool.get(&user).unwrap();
    }
    for _ in 0..3 {
        clock.advance(10 * MINUTE);
        pool.get(&"user-3".to_owned()).unwrap();
    }
    assert!(pool.status(&"user-3".to_owned()).is_some());
    clock.advance(Duration::from_secs(1));
    while pool.len() > 1 {
        tokio::task::yield_now().await;
    }
    clock.advance(25 * MINUTE);
    assert!(pool.is_empty());
}

/// A pool with this number of idle keys, whose sources report the thread that drops them.
fn idle_pool(keys: u64, clock: &ManualClock) -> (CredentialsPool<u64>, mpsc::Receiver<ThreadId>) {
    struct Dropped(mpsc::Sender<ThreadId>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }

    let (sender, dropped) = mpsc::channel();
    let pool = CredentialsPool::builder(move |_: &u64| {
        let report = Dropped(sender.clone());
        Credentials::builder(move |_: Renewal| {
            let _ = &report;
            async { TokenSet::bearer("t") }
        })
    });
    let pool = pool.capacity(10_000).idle(MINUTE).clock(clock.clone()).build();
    for key in 0..keys {
        pool.get(&key).unwrap();
    }
    (pool, dropped)
}

#[tokio::test]
async fn many_keys_are_dropped_where_no_other_task_waits() {
    let (pool, dropped) = idle_pool(1_000, &ManualClock::new());
    // The first search for idle keys has ended, and holds the pool no longer.
    tokio::task::yield_now().await;
    drop(pool);
    for _ in 0..1_000 {
        let thread = dropped.recv_timeout(MINUTE).unwrap();
        assert_ne!(thread, thread::current().id());
    }
}

#[test]
fn pool_is_dropped_at_once_where_there_is_no_runtime() {
    let (pool, dropped) = idle_pool(1_000, &ManualClock::new());
    drop(pool);
    assert_eq!(dropped.try_iter().count(), 1_000);
}

#[tokio::test]
async fn eviction_of_many_idle_keys_gives_way_to_other_tasks() {
    let clock = ManualClock::new();
    let (pool, dropped) = idle_pool(1_000, &clock);
    clock.advance(2 * MINUTE);
    pool.get(&1_000).unwrap();
    let (mut all, mut at_once) = (0, 0);
    while all < 1_000 {
        tokio::task::yield_now().await;
        let now = dropped.try_iter().count();
        (all, at_once) = (all + now, max(at_once, now));
    }
    assert!(at_once < 200, "{at_once}");
}

#[tokio::test(start_paused = true)]
async fn limits_of_any_size_make_a_pool_that_works() {
    for capacity in [0, 1, 2, usize::MAX] {
        for idle in [Duration::ZERO, Duration::MAX] {
            let users = Users::new();
            let pool = CredentialsPool::builder(move |user: &String| users.stored(user));
            let pool = pool.capacity(capacity).idle(idle).concurrent_refreshes(capacity).build();
            for user in names(5) {
                pool.get(&user).unwrap().warm_up().await.unwrap();
            }
            pool.flush().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn closure_that_asks_for_its_own_key_gets_an_error() {
    use std::sync::OnceLock;

    let itself: Arc<OnceLock<CredentialsPool<u64>>> = Arc::default();
    let inner = Arc::clone(&itself);
    let pool = CredentialsPool::new(move |key: &u64| {
        inner.get().unwrap().get(key)?;
        Ok(Credentials::builder(|_: Renewal| async { TokenSet::bearer("t") }))
    });
    itself.set(pool.clone()).unwrap();
    let error = pool.get(&1).unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("the same key"), "{error}");
}

#[test]
fn closure_that_panics_leaves_the_key_for_the_next() {
    let first = AtomicUsize::new(0);
    let pool = CredentialsPool::new(move |_: &u64| {
        assert_ne!(first.fetch_add(1, Ordering::SeqCst), 0, "a bug of the closure");
        Credentials::builder(|_: Renewal| async { TokenSet::bearer("t") })
    });
    let once = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pool.get(&1).map(drop)));
    assert!(once.is_err() && pool.is_empty());
    assert!(pool.get(&1).is_ok());
}

/// A source that calls code of the test when it is dropped.
struct Farewell<F: Fn() + Send + Sync + 'static>(F);

impl<F: Fn() + Send + Sync + 'static> TokenSource for Farewell<F> {
    async fn fetch(&self, _: Renewal) -> Result<TokenSet, TokenError> {
        TokenSet::bearer("t")
    }
}

impl<F: Fn() + Send + Sync + 'static> Drop for Farewell<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn source_that_uses_the_pool_when_dropped_does_not_hang() {
    use std::sync::{OnceLock, mpsc};

    let itself: Arc<OnceLock<CredentialsPool<u64>>> = Arc::default();
    let inner = Arc::clone(&itself);
    let pool = CredentialsPool::builder(move |_: &u64| {
        let inner = Arc::clone(&inner);
        Credentials::builder(Farewell(move || {
            inner.get().unwrap().status(&0);
        }))
    });
    let pool = pool.capacity(2).build();
    itself.set(pool.clone()).unwrap();
    let (done, is_done) = mpsc::channel();
    drop(std::thread::spawn(move || {
        for key in 0..20 {
            pool.get(&key).unwrap();
        }
        done.send(pool.len())
    }));
    assert_eq!(is_done.recv_timeout(Duration::from_secs(10)), Ok(2));
}

#[test]
fn source_that_panics_when_dropped_does_not_break_the_pool() {
    let pool = CredentialsPool::builder(|key: &u64| {
        let key = *key;
        Credentials::builder(Farewell(move || assert_ne!(key, 0, "a bug of the source")))
    });
    let pool = pool.capacity(1).build();
    pool.get(&0).unwrap();
    let once = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pool.get(&1).map(drop)));
    assert!(once.is_err());
    assert!(pool.get(&1).is_ok() && pool.get(&2).is_ok());
    assert_eq!(pool.len(), 1);
}

/// A source whose facts are code of others.
struct Facts<F: Fn() + Send + Sync + 'static>(F);

impl<F: Fn() + Send + Sync + 'static> TokenSource for Facts<F> {
    async fn fetch(&self, _: Renewal) -> Result<TokenSet, TokenError> {
        TokenSet::bearer("t")
    }

    fn info(&self) -> SourceInfo {
        (self.0)();
        SourceInfo::new()
    }
}

#[tokio::test]
async fn source_whose_facts_panic_does_not_break_the_pool() {
    let fails = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let of_source = Arc::clone(&fails);
    let pool = CredentialsPool::builder(move |_: &u64| {
        let fails = Arc::clone(&of_source);
        Credentials::builder(Facts(move || assert!(!fails.load(Ordering::SeqCst), "a bug")))
    });
    let pool = pool.capacity(1).build();
    pool.get(&0).unwrap().warm_up().await.unwrap();
    fails.store(true, Ordering::SeqCst);
    let get = |key| pool.get(&key).map(drop);
    for key in 0..3 {
        drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| get(key))));
    }
    fails.store(false, Ordering::SeqCst);
    assert!(get(0).is_ok() && get(1).is_ok() && get(2).is_ok());
}

#[tokio::test(start_paused = true)]
async fn source_whose_facts_use_the_pool_does_not_hang() {
    use std::sync::{OnceLock, mpsc};

    let itself: Arc<OnceLock<CredentialsPool<u64>>> = Arc::default();
    let inner = Arc::clone(&itself);
    let pool = CredentialsPool::builder(move |_: &u64| {
        let inner = Arc::clone(&inner);
        Credentials::builder(Facts(move || drop(inner.get().unwrap().status(&0))))
    });
    let pool = pool.capacity(1).build();
    itself.set(pool.clone()).unwrap();
    pool.get(&0).unwrap().warm_up().await.unwrap();
    let (done, is_done) = mpsc::channel();
    drop(std::thread::spawn(move || {
        pool.get(&1).unwrap();
        done.send(())
    }));
    assert!(is_done.recv_timeout(Duration::from_secs(10)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn spent_refresh_token_is_not_sent_again_after_an_eviction() {
    let users = Users::new();
    let make = users.clone();
    let pool = CredentialsPool::builder(move |user: &String| {
        // Has no refresh token.
        make.without_store_or_else(user, |_: Renewal| async {
            Ok(TokenSet::bearer("of-the-fallback")?.with_expires_in(HOUR))
        })
    });
    let pool = pool.capacity(1).build();
    let alice = "alice".to_owned();
    // The configured refresh token is spent, and its successor is refused.
    let first = pool.get(&alice).unwrap().tokens().await.unwrap();
    let successor = first.refresh_token().unwrap().expose_secret();
    assert!(users.server.revoke_refresh_token(successor));
    pool.get(&alice).unwrap().refresh().await.unwrap();
    let asked = users.server.counters().refresh_token_requests;
    for user in names(5) {
        drop(pool.get(&user).unwrap());
    }
    tokio::time::advance(2 * HOUR).await;
    pool.get(&alice).unwrap().tokens().await.unwrap();
    users.assert_no_reuse();
    assert_eq!(users.server.counters().refresh_token_requests, asked);
}

#[tokio::test(start_paused = true)]
async fn refresh_token_with_an_unknown_outcome_is_not_evicted() {
    struct Silent;
    impl TokenSource for Silent {
        async fn fetch(&self, renewal: Renewal) -> Result<TokenSet, TokenError> {
            renewal.refresh_token().map(drop)?;
            Err(TokenError::ambiguous("no answer"))
        }
        fn info(&self) -> SourceInfo {
            SourceInfo::new().refresh_token("configured")
        }
    }
    let pool = CredentialsPool::builder(|_: &u64| Credentials::builder(Silent));
    let pool = pool.capacity(1).build();
    assert!(pool.get(&0).unwrap().tokens().await.unwrap_err().is_ambiguous());
    for key in 1..5 {
        pool.get(&key).unwrap();
    }
    assert!(pool.status(&0).is_some_and(|status| status.error.is_some()));
}
