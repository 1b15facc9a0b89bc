//! The lock: a lease by the server's clock, renewed while it is held.

use std::fmt;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{sleep_until, timeout};

use super::row::Grant;
use crate::store::lease::{Acquired, Claim, HeldLease, left_until, now};
use crate::store::{StoreError, StoreLock};

/// The lock of a [`PostgresStore`](super::PostgresStore): a lease that is renewed in the background until the lock is released,
/// dropped or lost. It occupies no connection.
///
/// The lock is lost if the server reports it, or if the server did not answer for the length of the lease: because the
/// connections are gone, the program was suspended, or the runtime on which the lock was taken is not polled.
/// [`is_held`](StoreLock::is_held) asks the server and renews the lease for its full length.
///
/// A dropped lock is released in the background. Without a runtime for that, the lease runs out.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::store::{PostgresLock, PostgresStore, StoreError, StoreLock as _, TokenStore as _};
///
/// # async fn example(store: PostgresStore) -> Result<(), StoreError> {
/// let lock: PostgresLock = store.lock(Duration::from_secs(5)).await?;
/// assert!(lock.is_held().await?);
/// lock.release().await;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "lease")]
pub struct PostgresLock {
    lease: HeldLease<Grant>,
    fence: u64,
}

/// Takes the lock, or waits until it may be free and returns `None`.
pub(super) async fn lock_or_wait(
    grant: &Grant,
    wait: Duration,
) -> Result<Option<PostgresLock>, StoreError> {
    let Ok(runtime) = Handle::try_current() else {
        return Err(StoreError::misconfigured("a store in PostgreSQL needs a tokio runtime"));
    };
    let until = now().checked_add(wait);
    let mut claim = Claim::new(grant.clone(), runtime);
    // Listen first and then ask, so that no release in between is missed. The first waiter of a process also asks before it
    // listens, because the lock is usually free.
    let payload = grant.payload();
    let mut listener = grant.notices.as_ref().and_then(|notices| notices.listener(&payload));
    loop {
        let asked = now();
        let owner = claim.ask();
        let left = match grant.acquire(owner, listener.is_some()).await? {
            Acquired::Taken(fence) => {
                return Ok(Some(PostgresLock { lease: claim.granted(asked), fence }));
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
        if let Some(mut listener) = listener.take() {
            // The caller asks for the lock in each case.
            drop(timeout(pause.min(LOOK_EVERY), listener.heard()).await);
            return Ok(None);
        }
        // A waiter polls while the connection opens, which may take as long as the server likes.
        let poll = pause.min(poll_after());
        let next = now() + poll;
        if let Some(notices) = &grant.notices {
            listener = notices.listen(&payload, grant.limits, poll).await;
        }
        if listener.is_none() {
            sleep_until(next).await;
            return Ok(None);
        }
    }
}

/// Returns how long a waiter that does not listen pauses: at random, so that many waiters do not ask at once.
fn poll_after() -> Duration {
    let mut random = [0];
    // Without a random number, the pause is the shortest.
    let _ = getrandom::fill(&mut random);
    POLL_EVERY + POLL_EVERY * u32::from(random[0]) / 256
}

// ===== impl PostgresLock =====

impl StoreLock for PostgresLock {
    async fn is_held(&self) -> Result<bool, StoreError> {
        self.lease.is_held().await
    }

    async fn release(self) {
        self.lease.release().await;
    }
}

impl fmt::Debug for PostgresLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresLock")
            .field("name", &self.lease.place().name)
            .field("fence", &self.fence)
            .field("is_lost", &self.lease.is_lost())
            .finish_non_exhaustive()
    }
}

/// How often a waiter tries without a notification of a release: a dead connection may go undetected.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The shortest pause of a waiter that does not listen. The longest is twice as long.
const POLL_EVERY: Duration = Duration::from_millis(200);
