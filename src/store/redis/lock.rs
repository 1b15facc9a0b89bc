//! The lock: a lease by the server's clock, renewed while it is held.
//!
//! A `Claim` exists from before the first request for the lock until the server has confirmed its release. If it is dropped
//! before that, it releases the lock in the background, so that neither an early return nor a dropped future leaves the lock
//! taken.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::connection::now;
use super::entry::{Acquired, Entry};
use super::lease::{Lease, keep_renewing};
use crate::store::{StoreError, StoreLock, WriteId};

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
    claim: Claim,
    fence: u64,
    lease: Arc<Lease>,
    renewals: AbortHandle,
}

/// Takes the lock, or waits until it can be taken.
pub(super) async fn lock(entry: &Entry, wait: Duration) -> Result<RedisLock, StoreError> {
    let until = now().checked_add(wait);
    loop {
        let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(now()));
        if let Some(lock) = lock_or_wait(entry, left).await? {
            return Ok(lock);
        }
        if left.is_zero() {
            return Err(StoreError::held(format!(
                "{} was not released within {wait:?}",
                entry.describe()
            )));
        }
    }
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
    let mut claim =
        Claim { entry: entry.clone(), owner: WriteId::random(), runtime, is_open: false };
    // Subscribe first and then ask, so that no release in between is missed. The first waiter of a connection also asks before
    // it subscribes, because the lock is usually free.
    let mut listener = entry.connector.listener(&entry.key);
    loop {
        let asked = now();
        let left = match claim.acquire().await? {
            Acquired::Taken(fence) => return Ok(Some(RedisLock::new(claim, fence, asked))),
            Acquired::HeldFor(left) => left,
        };
        let left_to_wait =
            until.map_or(Duration::MAX, |until| until.saturating_duration_since(now()));
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

impl RedisLock {
    fn new(claim: Claim, fence: u64, asked: Instant) -> Self {
        let lease = Arc::new(Lease::new(asked, claim.entry.lease));
        let renewals = keep_renewing(claim.entry.clone(), claim.owner, Arc::clone(&lease));
        let renewals = claim.runtime.spawn(renewals).abort_handle();
        Self { claim, fence, lease, renewals }
    }
}

impl StoreLock for RedisLock {
    async fn is_held(&self) -> Result<bool, StoreError> {
        // Another process may hold a lock that was lost once.
        if self.lease.is_lost() {
            return Ok(false);
        }
        let asked = now();
        if self.claim.entry.renew(self.claim.owner, self.claim.entry.timeout).await? {
            self.lease.renewed(asked, self.claim.entry.lease);
        } else {
            self.lease.lose();
        }
        Ok(!self.lease.is_lost())
    }

    async fn release(mut self) {
        self.renewals.abort();
        if self.claim.entry.release(self.claim.owner).await.is_ok() {
            self.claim.is_open = false;
        }
    }
}

impl fmt::Debug for RedisLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLock")
            .field("key", &self.claim.entry.key)
            .field("fence", &self.fence)
            .field("is_lost", &self.lease.is_lost())
            .finish_non_exhaustive()
    }
}

impl Drop for RedisLock {
    fn drop(&mut self) {
        self.renewals.abort();
    }
}

// ===== impl Claim =====

/// A request for the lock, which the server may have granted.
struct Claim {
    entry: Entry,
    /// A random token that no other owner has.
    owner: WriteId,
    /// The runtime on which the lock was requested.
    runtime: Handle,
    /// True if the server may regard this owner as the holder.
    is_open: bool,
}

impl Claim {
    async fn acquire(&mut self) -> Result<Acquired, StoreError> {
        self.is_open = true;
        let acquired = self.entry.acquire(self.owner).await?;
        self.is_open = matches!(acquired, Acquired::Taken(_));
        Ok(acquired)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_open {
            let (entry, owner) = (self.entry.clone(), self.owner);
            let runtime = Handle::try_current().unwrap_or_else(|_| self.runtime.clone());
            // If that runtime is gone too, the lease runs out.
            runtime.spawn(async move { drop(entry.release(owner).await) });
        }
    }
}

/// How often a waiter tries although it heard of no release: the connection may be dead without a sign.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often a waiter tries if it cannot subscribe.
const POLL_EVERY: Duration = Duration::from_millis(250);
