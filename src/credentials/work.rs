//! The flights, log-ins and log-outs that have not ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the work that has not ended, and waits for the end of all of it.
///
/// tokio's watch channel could do the same, but would make up a tenth of the memory of idle credentials.
#[derive(Debug, Default)]
pub(super) struct Work {
    open: AtomicUsize,
    ended: Notify,
}

/// A piece of work. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Piece(Arc<Work>);

impl Work {
    pub(super) fn begin(self: &Arc<Self>) -> Piece {
        self.open.fetch_add(1, Ordering::Relaxed);
        Piece(Arc::clone(self))
    }

    pub(super) async fn ended(&self) {
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

impl Drop for Piece {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Release) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}
