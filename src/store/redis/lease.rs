//! The lease of a lock, as far as this process knows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::connection::now;
use super::entry::Entry;
use crate::store::WriteId;

/// The end of a lease by the local clock. A lease that was lost once stays lost.
pub(super) struct Lease {
    /// The time at which the lock was requested.
    asked: Instant,
    length: Duration,
    /// The latest possible end, after `asked`: a lease begins no earlier than it is requested.
    ends_ms: AtomicU64,
    is_lost: AtomicBool,
}

impl Lease {
    pub(super) fn new(asked: Instant, length: Duration) -> Self {
        let lease =
            Self { asked, length, ends_ms: AtomicU64::new(0), is_lost: AtomicBool::new(false) };
        lease.renewed(asked);
        lease
    }

    /// Gives the lease its full length again, after a renewal that was requested at `asked`.
    pub(super) fn renewed(&self, asked: Instant) {
        let ends = asked.saturating_duration_since(self.asked).saturating_add(self.length);
        let ends_ms = u64::try_from(ends.as_millis()).unwrap_or(u64::MAX);
        self.ends_ms.fetch_max(ends_ms, Ordering::AcqRel);
    }

    fn left(&self, now: Instant) -> Duration {
        let ends = Duration::from_millis(self.ends_ms.load(Ordering::Acquire));
        ends.saturating_sub(now.saturating_duration_since(self.asked))
    }

    pub(super) fn lose(&self) {
        self.is_lost.store(true, Ordering::Release);
    }

    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }
}

/// Renews a lease until it is lost.
pub(super) async fn keep_renewing(entry: Entry, owner: WriteId, lease: Arc<Lease>) {
    let interval = entry.lease / RENEWALS_PER_LEASE;
    let mut pause = interval;
    loop {
        sleep(pause).await;
        let asked = now();
        // A lease that is over is not renewed: the server would refuse.
        let renewed = entry.renew(owner, entry.timeout.min(lease.left(asked))).await;
        let left = lease.left(now());
        match renewed {
            Ok(true) => {
                lease.renewed(asked);
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
