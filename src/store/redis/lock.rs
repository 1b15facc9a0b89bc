//! The lock: a lease by the server's clock, renewed while it is held.

use std::fmt;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

use super::entry::Entry;
use crate::store::lease::{Acquired, Claim, HeldLease, left_until, now};
use crate::store::{StoreError, StoreLock};

/// The lock of a [`RedisStore`](super::RedisStore): a lease that is renewed in the background until the lock is released,
/// dropped or lost.
///
/// The lock is lost if the server reports it, or if the server did not answer for the length of the lease: because the
/// connection is gone, the program was suspended, or the runtime on which the lock was taken is not polled.
/// [`is_held`](StoreLock::is_held) asks the server and renews the lease for its full length.
///
/// A dropped lock is released in the background. Without a runtime for that, the lease runs out.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::store::{RedisLock, RedisStore, StoreError, StoreLock as _, TokenStore as _};
///
/// # async fn example(store: RedisStore) -> Result<(), StoreError> {
/// let lock: RedisLock = store.lock(Duration::from_secs(5)).await?;
/// assert!(lock.is_held().await?);
/// lock.release().await;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "lease")]
pub struct RedisLock {
    lease: HeldLease<Entry>,
    fence: u64,
}

/// Takes the lock, or waits until it may be free and returns `None`.
pub(super) async fn lock_or_wait(
    entry: &Entry,
    wait: Duration,
) -> Result<Option<RedisLock>, StoreError> {
    let Ok(runtime) = Handle::try_current() else {
        return Err(StoreError::misconfigured("a store in Redis needs a tokio runtime"));
    };
    let until = now().checked_add(wait);
    entry.connector.check(&entry.key, entry.timeout).await?;
    let mut claim = Claim::new(entry.clone(), runtime);
    // Subscribe first and then ask, so that no release in between is missed. The first waiter of a connection also asks before
    // it subscribes, because the lock is usually free.
    let mut listener = entry.connector.listener(&entry.key);
    loop {
        let asked = now();
        let left = match entry.acquire(claim.ask()).await? {
            Acquired::Taken(fence) => {
                return Ok(Some(RedisLock { lease: claim.granted(asked), fence }));
            }
            Acquired::HeldFor(left) => left,
        };
        claim.refused();
        let left_to_wait = left_until(until);
        if left_to_wait.is_zero() {
            return Ok(None);
        }
        // A little longer than the lease, so that it is over by then.
        let pause = left.saturating_add(Duration::from_millis(1)).min(left_to_wait);
        match listener.filter(|listener| entry.connector.is_current(listener)) {
            Some(mut listener) => {
                listener.hear(pause.min(LOOK_EVERY)).await;
                return Ok(None);
            }
            None => listener = entry.connector.listen(&entry.key, entry.timeout).await,
        }
        // The server does not permit a subscription.
        if listener.is_none() {
            sleep(pause.min(POLL_EVERY)).await;
            return Ok(None);
        }
    }
}

// ===== impl RedisLock =====

impl StoreLock for RedisLock {
    async fn is_held(&self) -> Result<bool, StoreError> {
        self.lease.is_held().await
    }

    async fn release(self) {
        self.lease.release().await;
    }
}

impl fmt::Debug for RedisLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLock")
            .field("key", &self.lease.place().key)
            .field("fence", &self.fence)
            .field("is_lost", &self.lease.is_lost())
            .finish_non_exhaustive()
    }
}

/// How often a waiter tries without a message about a release: a dead connection may go undetected.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often a waiter tries if it cannot subscribe.
const POLL_EVERY: Duration = Duration::from_millis(250);
