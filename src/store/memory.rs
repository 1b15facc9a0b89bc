//! A store in memory.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{StoreError, StoreLock, StoredTokens, TokenStore, WriteId};
use crate::lock::Lock;

/// A [`TokenStore`] in memory: for tests, and for several [`Credentials`](crate::Credentials) of one process that share a grant.
///
/// Clones share the record and the lock. They do not outlive the program.
///
/// # Examples
///
/// ```
/// use tower_refresh::store::{MemoryStore, TokenStore as _};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_refresh::store::StoreError> {
/// let store = MemoryStore::new();
/// assert!(store.load().await?.is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stored: Lock<Option<StoredTokens>>,
    lock: Arc<Mutex<()>>,
}

impl MemoryStore {
    /// Creates an empty store.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::MemoryStore;
    ///
    /// let store = MemoryStore::new();
    /// let shared = store.clone();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }
}

impl TokenStore for MemoryStore {
    type Lock = MemoryLock;

    async fn lock(&self, wait: Duration) -> Result<MemoryLock, StoreError> {
        let lock = Arc::clone(&self.shared.lock).lock_owned();
        match tokio::time::timeout(wait, lock).await {
            Ok(held) => Ok(MemoryLock { _held: held }),
            Err(_) => Err(StoreError::held(format!("not released within {wait:?}"))),
        }
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        Ok(self.shared.stored.lock().clone())
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        let mut stored = self.shared.stored.lock();
        let current = stored.as_ref().map(StoredTokens::write_id);
        if current == Some(record.write_id()) {
            return Ok(());
        }
        if current != replaces {
            return Err(StoreError::conflict());
        }
        *stored = Some(record.clone());
        Ok(())
    }

    fn describe(&self) -> String {
        "the store in memory".into()
    }

    /// Returns whether there is a clone.
    fn survives_drop(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

/// The lock of a [`MemoryStore`]. It is never lost, and released when it is dropped.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use tower_refresh::store::{MemoryLock, MemoryStore, StoreError, TokenStore as _};
///
/// # async fn example(store: MemoryStore) -> Result<(), StoreError> {
/// let lock: MemoryLock = store.lock(Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
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
