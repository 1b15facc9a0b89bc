//! A store for as long as the program runs.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{StoreError, StoreLock, StoredTokens, TokenStore, WriteId};

/// A [`TokenStore`] in memory: for tests, and for several [`Credentials`](crate::Credentials) of one process that share a
/// grant.
///
/// Clones share what is stored. Nothing outlives the program.
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    #[expect(
        clippy::disallowed_types,
        reason = "held for a comparison and a move, never across an await"
    )]
    stored: std::sync::Mutex<Option<StoredTokens>>,
    lock: Arc<Mutex<()>>,
}

impl MemoryStore {
    /// Makes an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn with<T>(&self, f: impl FnOnce(&mut Option<StoredTokens>) -> T) -> T {
        f(&mut self.shared.stored.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl TokenStore for MemoryStore {
    type Lock = MemoryLock;

    async fn lock(&self, wait: Duration) -> Result<MemoryLock, StoreError> {
        let lock = Arc::clone(&self.shared.lock).lock_owned();
        match tokio::time::timeout(wait, lock).await {
            Ok(held) => Ok(MemoryLock { _held: held }),
            Err(_) => Err(StoreError::held(format!("not let go of within {wait:?}"))),
        }
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        Ok(self.with(|stored| stored.clone()))
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        self.with(|stored| {
            let current = stored.as_ref().map(StoredTokens::write_id);
            if current == Some(record.write_id()) {
                return Ok(());
            }
            if current != replaces {
                return Err(StoreError::conflict());
            }
            *stored = Some(record.clone());
            Ok(())
        })
    }

    fn describe(&self) -> String {
        "the store in memory".into()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

/// The lock of a [`MemoryStore`]. It is never lost, and let go of when it is dropped.
#[derive(Debug)]
pub struct MemoryLock {
    _held: OwnedMutexGuard<()>,
}

impl StoreLock for MemoryLock {
    async fn is_held(&self) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn release(self) {}
}
