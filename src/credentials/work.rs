//! The flights, log-ins and log-outs that have not ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::lock::Lock;

/// Counts the work that has not ended.
///
/// tokio's watch channel could do the same, but would make up a tenth of the memory of idle credentials.
#[derive(Debug, Default)]
pub(super) struct Work {
    open: AtomicUsize,
    /// Made for the first caller that waits, until all work has ended.
    ended: Lock<Option<Arc<Notify>>>,
}

impl Work {
    pub(super) fn begin(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns whether this was the last.
    pub(super) fn end(&self) -> bool {
        let is_last = self.open.fetch_sub(1, Ordering::Release) == 1;
        if is_last {
            let ended = self.ended.lock().take();
            ended.inspect(|ended| ended.notify_waiters());
        }
        is_last
    }

    #[cfg(feature = "pool")]
    pub(super) fn has_ended(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }

    /// Waits until all work has ended.
    pub(super) async fn all_ended(&self) {
        loop {
            let ended;
            let notified = {
                let mut waiting = self.ended.lock();
                // Under the lock: what ends from now on is notified.
                if self.open.load(Ordering::Acquire) == 0 {
                    return;
                }
                ended = Arc::clone(waiting.get_or_insert_default());
                ended.notified()
            };
            notified.await;
        }
    }
}
