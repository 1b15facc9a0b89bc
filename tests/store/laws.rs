//! The memory store keeps the laws of stores, and each store that breaks one is detected.
#![allow(clippy::disallowed_types, reason = "locks shared with the code under test")]

use std::collections::HashMap;
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::sleep;
use tower_refresh::store::{
    MemoryLock, MemoryStore, StoreError, StoreLock, StoredTokens, TokenStore, WriteId,
};
use tower_refresh::testing::store_laws;

#[test]
fn memory_store_keeps_the_laws() {
    let storages = Storages::default();
    let real = Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    for runtime in [paused(), real] {
        runtime.block_on(store_laws(async |name| storages.open(name)));
    }
}

#[test]
fn store_that_yields_between_its_steps_keeps_the_laws() {
    let storages = Storages::default();
    let run = store_laws(async |name| storages.open_broken(Flaw::None, name));
    paused().block_on(run);
}

#[test]
fn each_broken_law_is_reported_by_its_number() {
    let mut missed = Vec::new();
    for (flaw, law, words) in [
        (Flaw::IgnoresNames, "law 1", "is not empty"),
        (Flaw::LocksAll, "law 1", "another storage"),
        (Flaw::LockForAnyone, "law 2", "took it again"),
        (Flaw::LockForThisHandleOnly, "law 2", "another handle took it"),
        (Flaw::HeldIsUnavailable, "law 2", "`StoreError::held`"),
        (Flaw::NeverWaits, "law 2", "must wait that long"),
        (Flaw::WaitsForEver, "law 2", "did not end within"),
        (Flaw::LockSurvivesRelease, "law 2", "a released lock"),
        (Flaw::LockSurvivesDrop, "law 2", "a dropped lock"),
        (Flaw::LockSurvivesCancel, "cancel safety", "future was dropped"),
        (Flaw::LockOrWaitForAnyone, "law 2", "took it again with `lock_or_wait`"),
        (Flaw::SleepsThroughReleases, "law 2", "`lock_or_wait` for a released lock"),
        (Flaw::LockOrWaitSurvivesCancel, "cancel safety", "`lock_or_wait` whose future"),
        (Flaw::LockGoesToWhoGaveUp, "cancel safety", ""),
        (Flaw::SaysThatItIsNotHeld, "law 3", "`is_held` is false"),
        (Flaw::NeverCompares, "law 4", "succeeded, and must be a conflict"),
        (Flaw::NoneReplacesAnything, "law 4", "that is not empty succeeded"),
        (Flaw::ComparesAndThenWrites, "law 4", "of 8 concurrent saves over nothing"),
        (Flaw::UpdatesInTwoSteps, "law 4", "of 8 concurrent saves over the same record"),
        (Flaw::ConflictIsUnavailable, "law 4", "must be a conflict, and failed"),
        (Flaw::ConflictWrites, "law 4", "is a conflict, and changed"),
        (Flaw::SameSaveIsConflict, "law 4", "a repeated save"),
        (Flaw::SaveTakesTheLock, "law 4", "a save did not end"),
        (Flaw::ForgetsOpenIntents, "law 6", "an open intent"),
        (Flaw::ForgetsUnknownFields, "law 6", "a later version"),
        (Flaw::FullAt64Kilobytes, "law 4", "100 KB"),
        (Flaw::KeptWhileOpenOnly, "law 5", "all handles were closed"),
        (Flaw::LoadsWhatItSaved, "law 6", ""),
        (Flaw::LoadsLate, "law 6", "older record"),
        (Flaw::TearsRecords, "law 6", "torn"),
        (Flaw::DeletesBeforeItWrites, "law 6", "found nothing"),
        (Flaw::LosesCancelledSaves, "cancel safety", "neither the old record"),
    ] {
        let storages = Storages::default();
        let run = store_laws(async |name| storages.open_broken(flaw, name));
        let message = match catch_unwind(AssertUnwindSafe(|| paused().block_on(run))) {
            Ok(()) => "nothing was found".to_owned(),
            Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
        };
        let found = message.starts_with(&format!("the store breaks {law}"));
        if !found || !message.contains(words) {
            missed.push(format!("{flaw:?}: {message}"));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

/// The storages by their names.
#[derive(Default)]
struct Storages(Mutex<HashMap<String, Storage>>);

#[derive(Clone, Default)]
struct Storage {
    memory: MemoryStore,
    /// Replaces the lock of `memory`.
    lock: MemoryStore,
    /// Replaces the stored record in loads.
    torn: Arc<Mutex<Option<StoredTokens>>>,
    is_empty: Arc<AtomicBool>,
}

impl Storages {
    fn open(&self, name: &str) -> MemoryStore {
        self.0.lock().unwrap().entry(name.to_owned()).or_default().memory.clone()
    }

    fn open_broken(&self, flaw: Flaw, name: &str) -> Broken {
        let mut storages = self.0.lock().unwrap();
        let lock = storages.entry(String::new()).or_default().lock.clone();
        let name = if flaw == Flaw::IgnoresNames { "" } else { name };
        let storage = storages.entry(name.to_owned()).or_default();
        if flaw == Flaw::KeptWhileOpenOnly && Arc::strong_count(&storage.torn) == 1 {
            *storage = Storage::default();
        }
        let mut storage = storage.clone();
        if flaw == Flaw::LocksAll {
            storage.lock = lock;
        }
        Broken { flaw, storage, ..Broken::default() }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flaw {
    #[default]
    None,
    IgnoresNames,
    LocksAll,
    LockForAnyone,
    LockForThisHandleOnly,
    HeldIsUnavailable,
    NeverWaits,
    WaitsForEver,
    LockSurvivesRelease,
    LockSurvivesDrop,
    LockSurvivesCancel,
    LockOrWaitForAnyone,
    SleepsThroughReleases,
    LockOrWaitSurvivesCancel,
    LockGoesToWhoGaveUp,
    SaysThatItIsNotHeld,
    NeverCompares,
    NoneReplacesAnything,
    ComparesAndThenWrites,
    UpdatesInTwoSteps,
    ConflictIsUnavailable,
    ConflictWrites,
    SameSaveIsConflict,
    SaveTakesTheLock,
    ForgetsOpenIntents,
    ForgetsUnknownFields,
    FullAt64Kilobytes,
    KeptWhileOpenOnly,
    LoadsWhatItSaved,
    LoadsLate,
    TearsRecords,
    DeletesBeforeItWrites,
    LosesCancelledSaves,
}

/// A store in memory that yields between its steps, with a flaw.
#[derive(Default)]
struct Broken {
    flaw: Flaw,
    storage: Storage,
    /// The state of this handle.
    own: MemoryStore,
    own_loads: AtomicUsize,
}

impl Broken {
    async fn stored(&self) -> Option<WriteId> {
        self.storage.memory.load().await.unwrap().map(|stored| stored.write_id())
    }

    async fn overwrite(store: &MemoryStore, record: &StoredTokens) {
        loop {
            let stored = store.load().await.unwrap().map(|stored| stored.write_id());
            if store.save(record, stored).await.is_ok() {
                return;
            }
        }
    }
}

impl TokenStore for Broken {
    type Lock = BrokenLock;

    async fn lock(&self, wait: Duration) -> Result<BrokenLock, StoreError> {
        yield_now().await;
        let lock = &self.storage.lock;
        let held = match self.flaw {
            Flaw::LockForAnyone => MemoryStore::new().lock(wait).await,
            Flaw::LockForThisHandleOnly => self.own.lock(wait).await,
            Flaw::HeldIsUnavailable => {
                lock.lock(wait).await.map_err(|_| StoreError::unavailable("locked"))
            }
            Flaw::NeverWaits => lock.lock(Duration::ZERO).await,
            Flaw::WaitsForEver => lock.lock(Duration::MAX).await,
            Flaw::LockSurvivesCancel | Flaw::LockGoesToWhoGaveUp => {
                let at_once = lock.lock(Duration::ZERO).await;
                if self.flaw == Flaw::LockGoesToWhoGaveUp && at_once.is_ok() {
                    at_once
                } else {
                    drop(at_once);
                    let lock = lock.clone();
                    let (give, take) = oneshot::channel();
                    tokio::spawn(async move {
                        if let Err(lost) = give.send(lock.lock(wait).await) {
                            mem::forget(lost);
                        }
                    });
                    take.await.unwrap()
                }
            }
            _ => lock.lock(wait).await,
        };
        yield_now().await;
        held.map(|held| BrokenLock { flaw: self.flaw, held: Some(held) })
    }

    async fn lock_or_wait(&self, wait: Duration) -> Result<Option<BrokenLock>, StoreError> {
        let lock = &self.storage.lock;
        let held = match self.flaw {
            Flaw::LockOrWaitForAnyone => MemoryStore::new().lock(wait).await,
            Flaw::SleepsThroughReleases => {
                let at_once = lock.lock(Duration::ZERO).await;
                if at_once.is_err() {
                    sleep(wait).await;
                }
                at_once
            }
            Flaw::LockOrWaitSurvivesCancel => {
                let held = ManuallyDrop::new(lock.lock(wait).await?);
                yield_now().await;
                Ok(ManuallyDrop::into_inner(held))
            }
            _ => return self.lock(wait).await.map(Some),
        };
        match held {
            Ok(held) => Ok(Some(BrokenLock { flaw: self.flaw, held: Some(held) })),
            Err(error) if error.is_held() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        yield_now().await;
        match self.flaw {
            Flaw::LoadsWhatItSaved => {
                if let Some(own) = self.own.load().await? {
                    return Ok(Some(own));
                }
            }
            Flaw::LoadsLate => {
                let loads = self.own_loads.fetch_add(1, Ordering::SeqCst);
                if loads > 20 && !loads.is_multiple_of(8) {
                    return self.own.load().await;
                }
                if let Some(stored) = self.storage.memory.load().await? {
                    Self::overwrite(&self.own, &stored).await;
                }
            }
            _ => {}
        }
        if self.storage.is_empty.load(Ordering::SeqCst) {
            return Ok(None);
        }
        if let Some(torn) = &*self.storage.torn.lock().unwrap() {
            return Ok(Some(torn.clone()));
        }
        self.storage.memory.load().await
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        let memory = &self.storage.memory;
        yield_now().await;
        let stored = self.stored().await;
        let is_same = stored == Some(record.write_id());
        let saved = match self.flaw {
            Flaw::NeverCompares => memory.save(record, stored).await,
            Flaw::NoneReplacesAnything => memory.save(record, replaces.or(stored)).await,
            Flaw::ComparesAndThenWrites if stored == replaces => {
                yield_now().await;
                Self::overwrite(memory, record).await;
                Ok(())
            }
            Flaw::UpdatesInTwoSteps if stored.is_some() && stored == replaces => {
                yield_now().await;
                Self::overwrite(memory, record).await;
                Ok(())
            }
            Flaw::ConflictIsUnavailable => memory
                .save(record, replaces)
                .await
                .map_err(|_| StoreError::unavailable("0 rows were changed")),
            Flaw::ConflictWrites => {
                let saved = memory.save(record, replaces).await;
                Self::overwrite(memory, record).await;
                saved
            }
            Flaw::SameSaveIsConflict if is_same => Err(StoreError::conflict()),
            Flaw::SaveTakesTheLock => {
                let _held = self.storage.lock.lock(Duration::MAX).await?;
                memory.save(record, replaces).await
            }
            Flaw::ForgetsOpenIntents if record.has_open_intent() => Ok(()),
            Flaw::ForgetsUnknownFields => {
                let mut json: Value = serde_json::from_slice(&record.to_json()?).unwrap();
                json.as_object_mut().unwrap().remove("from_a_later_version");
                let record = StoredTokens::from_json(json.to_string().as_bytes())?;
                memory.save(&record, replaces).await
            }
            Flaw::FullAt64Kilobytes if record.to_json()?.len() > 64 * 1024 => {
                Err(StoreError::unavailable("the column is full"))
            }
            Flaw::LoadsWhatItSaved => {
                memory.save(record, replaces).await?;
                Self::overwrite(&self.own, record).await;
                Ok(())
            }
            Flaw::TearsRecords if stored.is_some() && stored == replaces => {
                let old = memory.load().await?.unwrap();
                memory.save(record, replaces).await?;
                let json = |record: &StoredTokens| -> Value {
                    serde_json::from_slice(&record.to_json().unwrap()).unwrap()
                };
                let mut torn = json(record);
                torn["body"] = json(&old)["body"].take();
                let torn = StoredTokens::from_json(torn.to_string().as_bytes())?;
                *self.storage.torn.lock().unwrap() = Some(torn);
                yield_now().await;
                *self.storage.torn.lock().unwrap() = None;
                Ok(())
            }
            Flaw::DeletesBeforeItWrites if stored.is_some() && stored == replaces => {
                self.storage.is_empty.store(true, Ordering::SeqCst);
                yield_now().await;
                let saved = memory.save(record, replaces).await;
                self.storage.is_empty.store(false, Ordering::SeqCst);
                saved
            }
            Flaw::LosesCancelledSaves => {
                let half_done = HalfDone(&self.storage.is_empty);
                yield_now().await;
                mem::forget(half_done);
                memory.save(record, replaces).await
            }
            _ => memory.save(record, replaces).await,
        };
        yield_now().await;
        saved
    }
}

struct HalfDone<'a>(&'a AtomicBool);

impl Drop for HalfDone<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct BrokenLock {
    flaw: Flaw,
    held: Option<MemoryLock>,
}

impl StoreLock for BrokenLock {
    async fn is_held(&self) -> Result<bool, StoreError> {
        Ok(self.flaw != Flaw::SaysThatItIsNotHeld)
    }

    async fn release(mut self) {
        let held = self.held.take();
        if self.flaw == Flaw::LockSurvivesRelease {
            // As if a lease had to run out.
            tokio::spawn(async move {
                sleep(Duration::from_secs(30)).await;
                drop(held);
            });
        }
    }
}

impl Drop for BrokenLock {
    fn drop(&mut self) {
        if self.flaw == Flaw::LockSurvivesDrop {
            mem::forget(self.held.take());
        }
    }
}

fn paused() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}
