//! The lock: a lease by the server's clock, renewed as long as it is held.
//!
//! Whoever may have taken it has a `Claim`, from before the first request is sent until the server has said that it is free
//! again. One that is dropped lets go of the lock behind everybody's back, so that no early return and no dropped future
//! leaves it taken.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::super::{StoreError, StoreLock, WriteId};
use super::connection::{Listener, now};
use super::{RedisStore, scripts};

/// The lock of a [`RedisStore`]: a lease, which is renewed in the background until the lock is released, dropped or lost.
///
/// It is lost when the server says so, and when the server could not be asked for as long as the lease lasts: because the
/// connection is gone, because the program was suspended, or because the runtime on which the lock was taken is not polled.
/// [`is_held`](StoreLock::is_held) asks the server, and gives the lease its full length again, so that whoever is told that
/// the lock is held has that long.
///
/// If it is dropped, it is released in the background; if there is no runtime to do that, the lease runs out.
pub struct RedisLock {
    claim: Claim,
    fence: u64,
    lease: Arc<Lease>,
    renewals: AbortHandle,
}

/// Takes the lock, or waits until it can be taken.
pub(super) async fn lock(store: &RedisStore, wait: Duration) -> Result<RedisLock, StoreError> {
    let Ok(runtime) = Handle::try_current() else {
        return Err(StoreError::misconfigured("a store in Redis needs a tokio runtime"));
    };
    let until = now().checked_add(wait);
    store.connector.check(&store.key(), store.timeout).await?;
    let mut claim =
        Claim { store: store.clone(), owner: WriteId::random(), runtime, is_open: false };
    let mut ear = Ear::Closed;
    loop {
        let asked = now();
        let left = match claim.acquire().await? {
            Answer::Taken(fence) => return Ok(RedisLock::new(claim, fence, asked)),
            Answer::HeldFor(left) => left,
        };
        let left_to_wait =
            until.map_or(Duration::MAX, |until| until.saturating_duration_since(now()));
        if left_to_wait.is_zero() {
            return Err(StoreError::held(format!(
                "{} was not let go of within {wait:?}",
                store.describe_key()
            )));
        }

        // Listen first, then look: whatever happens in between is heard.
        let is_to_listen = match &ear {
            Ear::Closed => true,
            Ear::Open(listener) => !store.connector.is_current(listener),
            Ear::Forbidden => false,
        };
        if is_to_listen {
            ear = match store.connector.listen(&store.key(), store.timeout).await {
                Some(listener) => Ear::Open(listener),
                None => Ear::Forbidden,
            };
            continue;
        }

        // A little later than the lease ends, so that it is over by then.
        let pause = left.saturating_add(Duration::from_millis(1)).min(left_to_wait);
        match &mut ear {
            Ear::Open(listener) => {
                if !listener.hear(pause.min(LOOK_EVERY)).await {
                    ear = Ear::Closed;
                }
            }
            Ear::Closed | Ear::Forbidden => sleep(pause.min(POLL_EVERY)).await,
        }
    }
}

/// How whoever waits for the lock learns that it is free.
enum Ear {
    /// It does not, so far.
    Closed,
    Open(Listener),
    /// It has to look: to listen does not work.
    Forbidden,
}

// ===== impl RedisLock =====

impl RedisLock {
    fn new(claim: Claim, fence: u64, asked: Instant) -> Self {
        let lease = Arc::new(Lease::new(asked, claim.store.lease));
        let renewals =
            Renewals { store: claim.store.clone(), owner: claim.owner, lease: Arc::clone(&lease) };
        let renewals = claim.runtime.spawn(renewals.run()).abort_handle();
        Self { claim, fence, lease, renewals }
    }
}

impl StoreLock for RedisLock {
    async fn is_held(&self) -> Result<bool, StoreError> {
        // What was lost once may be somebody else's.
        if self.lease.is_lost() {
            return Ok(false);
        }
        let asked = now();
        if self.claim.store.renew(self.claim.owner, self.claim.store.timeout).await? {
            self.lease.begin_again(asked);
        } else {
            self.lease.lose();
        }
        Ok(!self.lease.is_lost())
    }

    async fn release(mut self) {
        self.renewals.abort();
        if self.claim.release().await.is_ok() {
            self.claim.is_open = false;
        }
    }
}

impl fmt::Debug for RedisLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLock")
            .field("key", &self.claim.store.key())
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

/// What may have taken the lock.
struct Claim {
    store: RedisStore,
    /// Nobody else has the same: a write id is as good as any.
    owner: WriteId,
    /// Where the lock was asked for.
    runtime: Handle,
    /// Whether the server may take this one for the holder.
    is_open: bool,
}

enum Answer {
    /// With the fence.
    Taken(u64),
    HeldFor(Duration),
}

impl Claim {
    async fn acquire(&mut self) -> Result<Answer, StoreError> {
        let store = &self.store;
        let command = scripts::acquire(&store.key(), &self.owner.to_string(), store.lease_ms());
        self.is_open = true;
        let (is_taken, number): scripts::Acquired =
            store.connector.ask(&command, store.timeout).await?;
        self.is_open = is_taken;
        Ok(if is_taken {
            Answer::Taken(number)
        } else {
            Answer::HeldFor(Duration::from_millis(number))
        })
    }

    async fn release(&self) -> Result<(), StoreError> {
        release(&self.store, self.owner).await
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_open {
            let (store, owner) = (self.store.clone(), self.owner);
            let runtime = Handle::try_current().unwrap_or_else(|_| self.runtime.clone());
            // If that runtime is gone too, the lease runs out.
            runtime.spawn(async move { drop(release(&store, owner).await) });
        }
    }
}

async fn release(store: &RedisStore, owner: WriteId) -> Result<(), StoreError> {
    let command = scripts::release(&store.key(), &owner.to_string());
    let _was_held: bool = store.connector.ask(&command, store.timeout).await?;
    Ok(())
}

// ===== impl Lease =====

/// What is known here of a lease. Once it is lost, it stays lost.
struct Lease {
    /// When the lock was asked for.
    asked: Instant,
    length: Duration,
    /// How long after that the lease is over, by our own clock and at the latest: it begins no earlier than it is asked for.
    ends_ms: AtomicU64,
    is_lost: AtomicBool,
}

impl Lease {
    fn new(asked: Instant, length: Duration) -> Self {
        let lease =
            Self { asked, length, ends_ms: AtomicU64::new(0), is_lost: AtomicBool::new(false) };
        lease.begin_again(asked);
        lease
    }

    /// It was renewed, by a request that was made then.
    fn begin_again(&self, asked: Instant) {
        let ends = asked.saturating_duration_since(self.asked).saturating_add(self.length);
        let ends_ms = u64::try_from(ends.as_millis()).unwrap_or(u64::MAX);
        self.ends_ms.fetch_max(ends_ms, Ordering::AcqRel);
    }

    fn left(&self, now: Instant) -> Duration {
        let ends = Duration::from_millis(self.ends_ms.load(Ordering::Acquire));
        ends.saturating_sub(now.saturating_duration_since(self.asked))
    }

    fn lose(&self) {
        self.is_lost.store(true, Ordering::Release);
    }

    fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }
}

// ===== impl Renewals =====

/// Renews a lease until it is lost.
struct Renewals {
    store: RedisStore,
    owner: WriteId,
    lease: Arc<Lease>,
}

impl Renewals {
    async fn run(self) {
        let interval = self.store.lease / RENEWALS_PER_LEASE;
        let mut pause = interval;
        loop {
            sleep(pause).await;
            let asked = now();
            let left = self.lease.left(asked);
            // With nothing left there is nothing to renew, and the server would say the same.
            let renewed = self.store.renew(self.owner, self.store.timeout.min(left)).await;
            let left = self.lease.left(now());
            match renewed {
                Ok(true) => {
                    self.lease.begin_again(asked);
                    pause = interval;
                }
                // Who asked whether the lock is held may have renewed it meanwhile.
                Err(_) if !left.is_zero() => pause = (interval / 4).min(left),
                Ok(false) | Err(_) => return self.lease.lose(),
            }
        }
    }
}

/// Two may fail, and the third still comes in time.
const RENEWALS_PER_LEASE: u32 = 3;

/// How often whoever waits for the lock looks, though nothing was heard: the connection may be dead without a word.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often a waiter looks if it cannot listen.
const POLL_EVERY: Duration = Duration::from_millis(250);
