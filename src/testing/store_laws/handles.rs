//! The store under test, with a time limit for every operation.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;
use tokio::task::JoinHandle;

use super::checks::{
    LAW_1, LAW_2, LAW_4, LAW_6, PATIENCE, broken, in_time, joined, must, must_in_time,
};
use super::records::is_same;
use crate::store::{StoreError, StoredTokens, TokenStore, WriteId};

/// Opens storages, each with a name of its own.
pub(super) struct Laws<F> {
    make_store: F,
    /// The prefix of the names of this run.
    run: String,
    named: usize,
}

impl<T: TokenStore, F: AsyncFnMut(&str) -> T> Laws<F> {
    pub(super) fn new(make_store: F) -> Self {
        Self { make_store, run: WriteId::random().to_string(), named: 0 }
    }

    /// Returns the name of a new storage.
    pub(super) fn storage(&mut self) -> String {
        self.named += 1;
        format!("{}-{}", self.run, self.named)
    }

    pub(super) async fn open(&mut self, storage: &str) -> Handle<T> {
        let store = (self.make_store)(storage).await;
        Handle { store: Arc::new(store), storage: storage.to_owned() }
    }

    /// Opens a new storage twice.
    pub(super) async fn handles(&mut self) -> [Handle<T>; 2] {
        let storage = self.storage();
        let handles = [self.open(&storage).await, self.open(&storage).await];
        for store in &handles {
            if store.load().await.is_some() {
                broken(LAW_1, "a storage with a new name is not empty: open another for each name");
            }
        }
        handles
    }

    /// Saves each of these records through its own handle, all at once.
    pub(super) async fn race(
        &mut self,
        storage: &str,
        records: &[StoredTokens],
        replaces: Option<WriteId>,
    ) -> Vec<Result<(), StoreError>> {
        let start = Arc::new(Barrier::new(records.len()));
        let mut savers = Vec::new();
        for record in records {
            let (store, record) = (self.open(storage).await, record.clone());
            let start = Arc::clone(&start);
            savers.push(tokio::spawn(async move {
                start.wait().await;
                store.save(&record, replaces).await
            }));
        }
        let mut saved = Vec::new();
        for saver in savers {
            saved.push(joined(saver).await);
        }
        saved
    }
}

/// One of several handles to a storage.
pub(super) struct Handle<T> {
    pub(super) store: Arc<T>,
    pub(super) storage: String,
}

impl<T: TokenStore> Handle<T> {
    pub(super) async fn load(&self) -> Option<StoredTokens> {
        must_in_time(LAW_6, "a load", PATIENCE, self.store.load()).await
    }

    pub(super) async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        in_time(LAW_4, "a save", PATIENCE, self.store.save(record, replaces)).await
    }

    pub(super) async fn lock(&self, wait: Duration) -> Result<T::Lock, StoreError> {
        let what = format!("a lock with a limit of {wait:?}");
        in_time(LAW_2, &what, wait.saturating_add(PATIENCE), self.store.lock(wait)).await
    }

    pub(super) async fn lock_or_wait(&self, wait: Duration) -> Result<Option<T::Lock>, StoreError> {
        let what = format!("`lock_or_wait` with a limit of {wait:?}");
        in_time(LAW_2, &what, wait.saturating_add(PATIENCE), self.store.lock_or_wait(wait)).await
    }

    /// Asks for the lock until it is there, in another task.
    pub(super) fn spawn_lock_or_wait(
        &self,
        wait: Duration,
    ) -> JoinHandle<Result<T::Lock, StoreError>> {
        let store = Arc::clone(&self.store);
        tokio::spawn(async move {
            loop {
                if let Some(lock) = store.lock_or_wait(wait).await? {
                    return Ok(lock);
                }
            }
        })
    }

    /// Waits for the lock in another task.
    pub(super) fn spawn_lock(&self, wait: Duration) -> JoinHandle<Result<T::Lock, StoreError>> {
        let store = Arc::clone(&self.store);
        tokio::spawn(async move { store.lock(wait).await })
    }

    pub(super) async fn must_have(&self, law: &str, what: &str, record: &StoredTokens) {
        let Some(loaded) = self.load().await else {
            broken(law, format_args!("{what} is missing"));
        };
        let difference = if loaded.write_id() != record.write_id() {
            "it is another record"
        } else if !is_same(&loaded, record) {
            "it was changed"
        } else if loaded.has_open_intent() != record.has_open_intent() {
            "it has another `has_open_intent`"
        } else {
            return;
        };
        broken(law, format_args!("{what} is not the saved one: {difference}"));
    }

    pub(super) async fn must_save(
        &self,
        law: &str,
        what: &str,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) {
        must(law, what, self.save(record, replaces).await);
    }

    pub(super) async fn must_conflict(
        &self,
        what: &str,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) {
        match self.save(record, replaces).await {
            Ok(()) => broken(LAW_4, format_args!("{what} succeeded, and must be a conflict")),
            Err(error) if error.is_conflict() => {}
            Err(error) => {
                broken(LAW_4, format_args!("{what} must be a conflict, and failed with: {error}"));
            }
        }
    }

    pub(super) async fn must_lock(&self, law: &str, what: &str, wait: Duration) -> T::Lock {
        must(law, what, self.lock(wait).await)
    }
}
