//! The store under test, with a time limit for every operation.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;
use tokio::task::JoinHandle;

use super::checks::{LAW_1, LAW_2, LAW_3, LAW_4, LAW_6, PATIENCE, broken, in_time, joined};
use super::records::is_same;
use crate::store::{StoreError, StoreLock, StoredTokens, TokenStore, WriteId};

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
        match in_time(LAW_6, "a load", PATIENCE, self.store.load()).await {
            Ok(loaded) => loaded,
            Err(error) => broken(LAW_6, format_args!("a load failed: {error}")),
        }
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

    /// Waits for the lock in another task.
    pub(super) fn spawn_lock(&self, wait: Duration) -> JoinHandle<Result<T::Lock, StoreError>> {
        let store = Arc::clone(&self.store);
        tokio::spawn(async move { store.lock(wait).await })
    }

    pub(super) async fn must_have(&self, law: &str, what: &str, record: &StoredTokens) {
        match self.load().await {
            None => broken(law, format_args!("{what} is missing")),
            Some(loaded) if !is_same(&loaded, record) => {
                let same = if loaded.write_id() == record.write_id() {
                    "it was changed"
                } else {
                    "it is another record"
                };
                broken(law, format_args!("{what} is not the saved one: {same}"));
            }
            Some(loaded) if loaded.has_open_intent() != record.has_open_intent() => {
                broken(
                    law,
                    format_args!("{what} has another `has_open_intent` than the saved one"),
                );
            }
            Some(_) => {}
        }
    }

    pub(super) async fn must_save(
        &self,
        law: &str,
        what: &str,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) {
        if let Err(error) = self.save(record, replaces).await {
            broken(law, format_args!("{what} failed: {error}"));
        }
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
        match self.lock(wait).await {
            Ok(held) => held,
            Err(error) => broken(law, format_args!("{what} could not be taken: {error}")),
        }
    }
}

pub(super) trait MustBeHeld: StoreLock {
    async fn must_be_held(&self) {
        match in_time(LAW_3, "`is_held`", PATIENCE, self.is_held()).await {
            Ok(true) => {}
            Ok(false) => broken(LAW_3, "`is_held` is false for a held lock"),
            Err(error) => {
                broken(LAW_3, format_args!("`is_held` failed: {error}"));
            }
        }
    }
}

impl<L: StoreLock> MustBeHeld for L {}
