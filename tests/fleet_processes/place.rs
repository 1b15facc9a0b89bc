//! The store that the processes share, as a text for the environment.

use std::path::PathBuf;
use std::time::Duration;

use deadpool_postgres::{Manager, Pool};
use serde::{Deserialize, Serialize};
use tokio_postgres::{Config, NoTls};
use tower_refresh::store::{
    FileLock, FileStore, PostgresLock, PostgresStore, RedisLock, RedisStore, StoreError, StoreLock,
    StoredTokens, TokenStore, WriteId,
};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Place {
    File { path: PathBuf },
    Redis { url: String, lease_ms: u64 },
    Postgres { url: String, lease_ms: u64 },
}

/// The stores of many users, which share their connections.
pub struct Stores(AnyStore);

impl Stores {
    pub fn of(&self, user: u64) -> AnyStore {
        let user = user.to_string();
        match &self.0 {
            AnyStore::File(_) => unreachable!("many users have a store that machines share"),
            AnyStore::Redis(store) => AnyStore::Redis(store.for_key(user).unwrap()),
            AnyStore::Postgres(store) => AnyStore::Postgres(store.for_name(user).unwrap()),
        }
    }
}

impl Place {
    /// Sets the lease, for tests in which no process ends and a busy machine may be slow.
    pub fn set_lease(&mut self, lease: Duration) {
        match self {
            Self::File { .. } => {}
            Self::Redis { lease_ms, .. } | Self::Postgres { lease_ms, .. } => {
                *lease_ms = u64::try_from(lease.as_millis()).unwrap();
            }
        }
    }

    pub fn stores(&self) -> Stores {
        Stores(self.store())
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
            Self::Postgres { url, lease_ms } => {
                let store = Self::postgres(url).timeout(Duration::from_secs(10));
                AnyStore::Postgres(store.lease(Duration::from_millis(*lease_ms)))
            }
        }
    }

    /// Returns the same place, with leases of this length.
    pub fn with_lease_ms(&self, lease_ms: u64) -> Self {
        match self.clone() {
            Self::File { path } => Self::File { path },
            Self::Redis { url, .. } => Self::Redis { url, lease_ms },
            Self::Postgres { url, .. } => Self::Postgres { url, lease_ms },
        }
    }

    pub fn postgres(url: &str) -> PostgresStore {
        let config: Config = url.parse().unwrap();
        let pool = Pool::builder(Manager::new(config.clone(), NoTls)).max_size(10).build().unwrap();
        PostgresStore::new(pool, "grant").unwrap().listen_with(config, NoTls)
    }
}

#[derive(Clone)]
pub enum AnyStore {
    File(FileStore),
    Redis(RedisStore),
    Postgres(PostgresStore),
}

pub enum AnyLock {
    File(FileLock),
    Redis(RedisLock),
    Postgres(PostgresLock),
}

impl TokenStore for AnyStore {
    type Lock = AnyLock;

    async fn lock(&self, wait: Duration) -> Result<AnyLock, StoreError> {
        match self {
            Self::File(store) => store.lock(wait).await.map(AnyLock::File),
            Self::Redis(store) => store.lock(wait).await.map(AnyLock::Redis),
            Self::Postgres(store) => store.lock(wait).await.map(AnyLock::Postgres),
        }
    }

    async fn lock_or_wait(&self, wait: Duration) -> Result<Option<AnyLock>, StoreError> {
        Ok(match self {
            Self::File(store) => store.lock_or_wait(wait).await?.map(AnyLock::File),
            Self::Redis(store) => store.lock_or_wait(wait).await?.map(AnyLock::Redis),
            Self::Postgres(store) => store.lock_or_wait(wait).await?.map(AnyLock::Postgres),
        })
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        match self {
            Self::File(store) => store.load().await,
            Self::Redis(store) => store.load().await,
            Self::Postgres(store) => store.load().await,
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
            Self::Postgres(store) => store.save(record, replaces).await,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::File(store) => store.describe(),
            Self::Redis(store) => store.describe(),
            Self::Postgres(store) => store.describe(),
        }
    }
}

impl StoreLock for AnyLock {
    async fn is_held(&self) -> Result<bool, StoreError> {
        match self {
            Self::File(lock) => lock.is_held().await,
            Self::Redis(lock) => lock.is_held().await,
            Self::Postgres(lock) => lock.is_held().await,
        }
    }

    async fn release(self) {
        match self {
            Self::File(lock) => lock.release().await,
            Self::Redis(lock) => lock.release().await,
            Self::Postgres(lock) => lock.release().await,
        }
    }
}
