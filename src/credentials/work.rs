//! The flights, log-ins and log-outs that have not ended.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the work that has not ended.
///
/// tokio's watch channel could do the same, but would make up a tenth of the memory of idle credentials.
#[derive(Debug, Default)]
pub(super) struct Work {
    open: AtomicUsize,
    ended: Notify,
}

impl Work {
    pub(super) fn begin(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        if self.open.fetch_sub(1, Ordering::Release) == 1 {
            self.ended.notify_waiters();
        }
    }

    #[cfg(feature = "pool")]
    pub(super) fn has_ended(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }

    /// Waits until all work has ended.
    pub(super) async fn all_ended(&self) {
        loop {
            // Made before the count is read: from then on it is notified.
            let ended = self.ended.notified();
            if self.open.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}
