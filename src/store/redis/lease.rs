//! The lease of a lock, as far as this process knows it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::connection::now;
use super::entry::Entry;
use crate::store::WriteId;

/// The latest possible end of a lease by the local clock, or `None` once it is lost. A lost lease stays lost.
pub(super) struct Lease(watch::Sender<Option<Instant>>);

impl Lease {
    /// Begins a lease of a lock that was requested at `asked`: it begins no earlier than that.
    pub(super) fn new(asked: Instant, length: Duration) -> Self {
        Self(watch::Sender::new(Some(asked + length)))
    }

    /// Gives the lease its full length again, after a renewal that was requested at `asked`.
    pub(super) fn renewed(&self, asked: Instant, length: Duration) {
        self.0.send_modify(|end| *end = end.map(|end| end.max(asked + length)));
    }

    fn left(&self, now: Instant) -> Duration {
        self.0.borrow().map_or(Duration::ZERO, |end| end.saturating_duration_since(now))
    }

    pub(super) fn lose(&self) {
        self.0.send_replace(None);
    }

    pub(super) fn is_lost(&self) -> bool {
        self.0.borrow().is_none()
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
                lease.renewed(asked, entry.lease);
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
