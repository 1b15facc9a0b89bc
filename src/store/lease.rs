//! A lock that is a lease in a storage, renewed while it is held.
//!
//! A [`Claim`] exists from before the first request for the lock until the storage has confirmed its release. If it is dropped
//! before that, it releases the lock in the background, so that neither an early return nor a dropped future leaves the lock
//! taken.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::{StoreError, TokenStore, WriteId};
use crate::lock::Lock;

/// The place of a lease, which has one owner at a time.
pub(super) trait Leased: Clone + Send + Sync + 'static {
    /// The length of a lease.
    fn lease(&self) -> Duration;

    /// The limit for an answer of the storage.
    fn timeout(&self) -> Duration;

    /// Renews the lease. Returns false if it was over or belongs to another owner.
    fn renew(
        &self,
        owner: WriteId,
        within: Duration,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Releases the lock if the owner holds it, and wakes the waiters. Returns false if the owner does not hold it.
    fn release(&self, owner: WriteId) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// The answer to a request for the lock.
pub(super) enum Acquired {
    /// The lock was taken, with this fence.
    Taken(u64),
    /// Another owner holds it, for this long unless it is renewed.
    HeldFor(Duration),
}

/// Takes the lock of a store whose [`lock_or_wait`](TokenStore::lock_or_wait) returns after each release, or waits until it can be
/// taken.
pub(super) async fn lock<S: TokenStore>(store: &S, wait: Duration) -> Result<S::Lock, StoreError> {
    let until = now().checked_add(wait);
    loop {
        let left = left_until(until);
        if let Some(lock) = store.lock_or_wait(left).await? {
            return Ok(lock);
        }
        if left.is_zero() {
            let place = store.describe();
            return Err(StoreError::held(format!("{place} was not released within {wait:?}")));
        }
    }
}

/// The lock while it is held.
pub(super) struct HeldLease<L: Leased> {
    claim: Claim<L>,
    lease: Arc<Lease>,
    renewals: AbortHandle,
}

impl<L: Leased> HeldLease<L> {
    /// Returns whether the lease is held, as the storage reports it, and renews it for its full length.
    pub(super) async fn is_held(&self) -> Result<bool, StoreError> {
        // Another process may hold a lock that was lost once.
        if self.lease.is_lost() {
            return Ok(false);
        }
        let asked = now();
        let place = &self.claim.place;
        if place.renew(self.claim.owner, place.timeout()).await? {
            self.lease.renewed(asked, place.lease());
        } else {
            self.lease.lose();
        }
        Ok(!self.lease.is_lost())
    }

    pub(super) async fn release(mut self) {
        self.renewals.abort();
        if self.claim.place.release(self.claim.owner).await.is_ok() {
            self.claim.is_open = false;
        }
    }

    /// Returns whether the lock is lost, as far as this process knows.
    pub(super) fn is_lost(&self) -> bool {
        self.lease.is_lost()
    }

    pub(super) fn place(&self) -> &L {
        &self.claim.place
    }
}

impl<L: Leased> Drop for HeldLease<L> {
    fn drop(&mut self) {
        self.renewals.abort();
    }
}

/// A request for the lock, which the storage may have granted.
pub(super) struct Claim<L: Leased> {
    place: L,
    /// A random token that no other owner has.
    owner: WriteId,
    /// The runtime on which the lock was requested.
    runtime: Handle,
    /// True if the storage may regard this owner as the holder.
    is_open: bool,
}

impl<L: Leased> Claim<L> {
    pub(super) fn new(place: L, runtime: Handle) -> Self {
        Self { place, owner: WriteId::random(), runtime, is_open: false }
    }

    /// Returns the owner for a request for the lock, which may be granted from now on.
    pub(super) fn ask(&mut self) -> WriteId {
        self.is_open = true;
        self.owner
    }

    /// Another owner holds the lock.
    pub(super) fn refused(&mut self) {
        self.is_open = false;
    }

    /// Returns the lock that was requested at `asked`.
    pub(super) fn granted(self, asked: Instant) -> HeldLease<L> {
        let lease = Arc::new(Lease::new(asked, self.place.lease()));
        let renewals = keep_renewing(self.place.clone(), self.owner, Arc::clone(&lease));
        let renewals = self.runtime.spawn(renewals).abort_handle();
        HeldLease { claim: self, lease, renewals }
    }
}

impl<L: Leased> Drop for Claim<L> {
    fn drop(&mut self) {
        if self.is_open {
            let (place, owner) = (self.place.clone(), self.owner);
            let runtime = Handle::try_current().unwrap_or_else(|_| self.runtime.clone());
            // If that runtime is gone too, the lease runs out.
            runtime.spawn(release_soon(place, owner));
        }
    }
}

/// Releases a lock whose request may still be under way: over another connection, the release may be first. In half of the limit,
/// the request has ended.
async fn release_soon<L: Leased>(place: L, owner: WriteId) {
    if let Ok(false) = place.release(owner).await {
        sleep(place.timeout() / 2).await;
        drop(place.release(owner).await);
    }
}

/// The latest possible end of a lease by the local clock, or `None` once it is lost. A lost lease stays lost.
struct Lease(Lock<Option<Instant>>);

impl Lease {
    /// Begins a lease of a lock that was requested at `asked`: it begins no earlier than that.
    fn new(asked: Instant, length: Duration) -> Self {
        Self(Lock::new(Some(asked + length)))
    }

    /// Gives the lease its full length again, after a renewal that was requested at `asked`.
    fn renewed(&self, asked: Instant, length: Duration) {
        let mut end = self.0.lock();
        *end = end.map(|end| end.max(asked + length));
    }

    fn left(&self, now: Instant) -> Duration {
        self.0.lock().map_or(Duration::ZERO, |end| end.saturating_duration_since(now))
    }

    fn lose(&self) {
        *self.0.lock() = None;
    }

    fn is_lost(&self) -> bool {
        self.0.lock().is_none()
    }
}

/// Renews a lease until it is lost.
async fn keep_renewing<L: Leased>(place: L, owner: WriteId, lease: Arc<Lease>) {
    let interval = place.lease() / RENEWALS_PER_LEASE;
    let mut pause = interval;
    loop {
        sleep(pause).await;
        let asked = now();
        // If it seems to be over, the storage decides: it may have granted the lock long after the request.
        let limit = Some(lease.left(asked)).filter(|left| !left.is_zero());
        let limit = limit.unwrap_or(Duration::MAX).min(place.timeout());
        let renewed = place.renew(owner, limit).await;
        let left = lease.left(now());
        match renewed {
            Ok(true) => {
                lease.renewed(asked, place.lease());
                pause = interval;
            }
            // `is_held` may have renewed it meanwhile.
            Err(_) if !left.is_zero() => pause = (interval / 4).min(left),
            Ok(false) | Err(_) => return lease.lose(),
        }
    }
}

/// If two renewals fail, the third is still in time.
const RENEWALS_PER_LEASE: u32 = 3;

/// Returns the time left to wait. `None` is later than the clock can count.
pub(super) fn left_until(until: Option<Instant>) -> Duration {
    until.map_or(Duration::MAX, |until| until.saturating_duration_since(now()))
}

/// Returns the local time, by which limits and leases are counted.
#[expect(
    clippy::disallowed_methods,
    reason = "leases end by the clocks of the machines, not by the clock of a policy"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}
