//! Counts the bytes of a body that are still in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// Counts the bytes of its buffers that are alive.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Memory {
    pub fn hold(&self, bytes: Vec<u8>) -> Bytes {
        let now = self.0.now.fetch_add(bytes.len(), Ordering::SeqCst) + bytes.len();
        self.0.most.fetch_max(now, Ordering::SeqCst);
        Bytes::from_owner(Held(bytes, self.clone()))
    }

    pub fn now(&self) -> usize {
        self.0.now.load(Ordering::SeqCst)
    }

    /// Returns the largest number of bytes that were alive at once.
    pub fn most(&self) -> usize {
        self.0.most.load(Ordering::SeqCst)
    }

    /// Restarts the measurement of the largest number.
    pub fn forget(&self) {
        self.0.most.store(self.now(), Ordering::SeqCst);
    }
}

struct Held(Vec<u8>, Memory);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.1.0.now.fetch_sub(self.0.len(), Ordering::SeqCst);
    }
}
