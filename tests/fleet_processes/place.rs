//! The store that the processes share, as a text for the environment.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower_refresh::store::{
    FileLock, FileStore, RedisLock, RedisStore, StoreError, StoreLock, StoredTokens, TokenStore,
    WriteId,
};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Place {
    File { path: PathBuf },
    Redis { url: String, lease_ms: u64 },
}

/// The stores of many users.
pub struct Stores {
    place: Place,
}

impl Stores {
    pub fn of(&self, user: u64) -> AnyStore {
        match &self.place {
            Place::File { path } => AnyStore::File(FileStore::new(path.join(user.to_string()))),
            Place::Redis { url, lease_ms } => {
                let store = RedisStore::new(url, user.to_string()).unwrap();
                let store = store.timeout(Duration::from_secs(10));
                AnyStore::Redis(store.lease(Duration::from_millis(*lease_ms)))
            }
        }
    }
}

impl Place {
    pub fn stores(&self) -> Stores {
        Stores { place: self.clone() }
    }

    pub fn store(&self) -> AnyStore {
        match self {
            Self::File { path } => AnyStore::File(FileStore::new(path)),
            Self::Redis { url, lease_ms } => {
                let store = RedisStore::new(url, "grant").unwrap();
                // The machine may be busy.
                let store = store.timeout(Duration::from_secs(10));
                AnyStore::Redis(store.lease(Duration::from_millis(*lease_ms)))
            }
        }
    }
}

#[derive(Clone)]
pub enum AnyStore {
    File(FileStore),
    Redis(RedisStore),
}

pub enum AnyLock {
    File(FileLock),
    Redis(RedisLock),
}

impl TokenStore for AnyStore {
    type Lock = AnyLock;

    async fn lock(&self, wait: Duration) -> Result<AnyLock, StoreError> {
        match self {
            Self::File(store) => store.lock(wait).await.map(AnyLock::File),
            Self::Redis(store) => store.lock(wait).await.map(AnyLock::Redis),
        }
    }

    async fn lock_or_wait(&self, wait: Duration) -> Result<Option<AnyLock>, StoreError> {
        Ok(match self {
            Self::File(store) => store.lock_or_wait(wait).await?.map(AnyLock::File),
            Self::Redis(store) => store.lock_or_wait(wait).await?.map(AnyLock::Redis),
        })
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        match self {
            Self::File(store) => store.load().await,
            Self::Redis(store) => store.load().await,
        }
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        match self {
            Self::File(store) => store.save(record, replaces).await,
            Self::Redis(store) => store.save(record, replaces).await,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::File(store) => store.describe(),
            Self::Redis(store) => store.describe(),
        }
    }
}

impl StoreLock for AnyLock {
    async fn is_held(&self) -> Result<bool, StoreError> {
        match self {
            Self::File(lock) => lock.is_held().await,
            Self::Redis(lock) => lock.is_held().await,
        }
    }

    async fn release(self) {
        match self {
            Self::File(lock) => lock.release().await,
            Self::Redis(lock) => lock.release().await,
        }
    }
}
