//! Many credentials that need a token at once, over a store whose releases wake all waiters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tower_refresh::store::{
    MemoryLock, MemoryStore, StoreError, StoreLock, StoredTokens, TokenStore, WriteId,
};
use tower_refresh::{Credentials, Renewal, TokenError, TokenSet};

use crate::world::SECOND;

const WAITERS: usize = 200;

/// S12
#[tokio::test(start_paused = true)]
async fn waiter_that_is_woken_loads_before_it_asks_for_the_lock() {
    let store = WakingStore::default();
    let tokens = join_all((0..WAITERS).map(|_| token(&store, Ok(SECOND)))).await;
    assert!(tokens.into_iter().all(|token| token.is_ok()));
    // Each waiter loads, asks for the lock, and loads again. The holder makes a few steps more.
    assert!(store.count() <= 3 * WAITERS + 10, "{}", store.count());
}

/// S12
#[tokio::test(start_paused = true)]
async fn waiters_that_are_woken_in_vain_spread_their_requests() {
    let store = WakingStore::default();
    let tokens = join_all((0..WAITERS).map(|_| token(&store, Err(Duration::from_millis(1))))).await;
    assert!(tokens.into_iter().all(|token| token.is_err()));
    // With a request of each waiter at each release, there would be 40,000.
    assert!(store.count() <= 30 * WAITERS, "{}", store.count());
}

#[tokio::test(start_paused = true)]
async fn waiter_gives_up_after_the_lock_timeout() {
    let store = WakingStore::default();
    let _held = store.lock(SECOND).await.unwrap();
    let error = token(&store, Ok(SECOND)).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("the table was not released within 600s"), "{error}");
    assert!(store.count() < 1300, "{}", store.count());
}

/// A process that needs a token. A refresh takes this time, and then succeeds or fails.
async fn token(
    store: &WakingStore,
    refresh: Result<Duration, Duration>,
) -> Result<TokenSet, TokenError> {
    let source = move |_: Renewal| async move {
        sleep(refresh.unwrap_or_else(|fails| fails)).await;
        match refresh {
            Ok(_) => TokenSet::bearer("access"),
            Err(_) => Err(TokenError::transient("down")),
        }
    };
    let credentials = Credentials::builder(source)
        .store(store.clone())
        .lock_timeout(600 * SECOND)
        .policy(tower_refresh::RefreshPolicy::default().timeout(1200 * SECOND))
        .build();
    credentials.tokens().await
}

/// A store that counts its operations.
#[derive(Clone, Default)]
struct WakingStore {
    memory: MemoryStore,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    released: Notify,
    count: AtomicUsize,
}

impl WakingStore {
    fn count(&self) -> usize {
        self.shared.count.load(Ordering::Relaxed)
    }

    fn step(&self) -> &MemoryStore {
        self.shared.count.fetch_add(1, Ordering::Relaxed);
        &self.memory
    }
}

impl TokenStore for WakingStore {
    type Lock = WakingLock;

    async fn lock(&self, wait: Duration) -> Result<WakingLock, StoreError> {
        let lock = self.step().lock(wait).await?;
        Ok(WakingLock { lock, shared: Arc::clone(&self.shared) })
    }

    async fn lock_or_wait(&self, wait: Duration) -> Result<Option<WakingLock>, StoreError> {
        let released = self.shared.released.notified();
        match self.lock(Duration::ZERO).await {
            Ok(lock) => Ok(Some(lock)),
            Err(_) => {
                let _ = timeout(wait.min(SECOND), released).await;
                Ok(None)
            }
        }
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        self.step().load().await
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        self.step().save(record, replaces).await
    }

    fn describe(&self) -> String {
        "the table".into()
    }
}

struct WakingLock {
    lock: MemoryLock,
    shared: Arc<Shared>,
}

impl StoreLock for WakingLock {
    async fn is_held(&self) -> Result<bool, StoreError> {
        self.lock.is_held().await
    }

    async fn release(self) {
        self.lock.release().await;
        self.shared.released.notify_waiters();
    }
}
