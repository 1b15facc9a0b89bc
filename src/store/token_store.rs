//! A store and its lock.

use std::future::Future;
use std::time::Duration;

use super::error::StoreError;
use super::format::StoredTokens;
use crate::grant::record::WriteId;

/// Keeps the token set of one grant across restarts, processes or machines.
///
/// A store does three things, and decides nothing: it locks, it loads, and it saves a record if the stored one is still the
/// one to be replaced. The ledger of the [`Credentials`](crate::Credentials) decides what is saved and when a token may be sent, so
/// that the rules are the same for every store.
///
/// # The laws
///
/// 1. **One record and one lock per grant.** All processes that share the grant share both.
/// 2. **The lock is exclusive.** While one [`StoreLock`] is held, [`lock`](Self::lock) and [`lock_or_wait`](Self::lock_or_wait) return
///    no other. The lock is free again some time after [`release`](StoreLock::release), after it was dropped, or after its process
///    has ended.
/// 3. **A lock can be lost** if it is a lease. A lease ends by the clock of the storage, is renewed while the lock is held, and frees
///    the lock if its holder has died. [`is_held`](StoreLock::is_held) asks the storage and remembers nothing. A lock must not occupy a
///    connection, because it is held while a token endpoint is asked.
/// 4. **A save compares and swaps** in one atomic step, whether the lock is held or not. It replaces the stored record if that has
///    the [write id](StoredTokens::write_id) `replaces`, or if nothing is stored and `replaces` is `None`. If the stored record already
///    has the new write id, an earlier attempt has succeeded, and the save succeeds too. Otherwise it is a
///    [conflict](StoreError::conflict), and nothing changes.
/// 5. **A save is atomic**, also if the process is killed during it. Once it has returned, the record is as durable as the store can
///    make it.
/// 6. **A load returns a whole record**, the last one that was saved, with the lock or without it.
/// 7. **A record that cannot be parsed is left unchanged**: it is [unreadable](StoreError::unreadable), and no save replaces it.
/// 8. **A record with an [open intent](StoredTokens::has_open_intent) is followed by a larger one**, after a refresh token was
///    spent. A store that can run full fails the first of the two if the second will not fit.
///
/// `testing::store_laws` (feature `testing`) tests all laws that can be tested from outside. Its documentation explains how to
/// write a store, with a complete one.
///
/// # Cancel safety
///
/// Dropping a future leaves the record unchanged or saved, and no lock held.
///
/// # Examples
///
/// A store around another one, which counts the saves:
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::time::Duration;
/// use tower_refresh::store::{StoreError, StoredTokens, TokenStore, WriteId};
///
/// struct Counted<S> {
///     store: S,
///     saves: AtomicU64,
/// }
///
/// impl<S: TokenStore> TokenStore for Counted<S> {
///     type Lock = S::Lock;
///
///     async fn lock(&self, wait: Duration) -> Result<S::Lock, StoreError> {
///         self.store.lock(wait).await
///     }
///
///     async fn lock_or_wait(&self, wait: Duration) -> Result<Option<S::Lock>, StoreError> {
///         self.store.lock_or_wait(wait).await
///     }
///
///     async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
///         self.store.load().await
///     }
///
///     async fn save(&self, record: &StoredTokens, replaces: Option<WriteId>) -> Result<(), StoreError> {
///         self.saves.fetch_add(1, Ordering::Relaxed);
///         self.store.save(record, replaces).await
///     }
///
///     fn describe(&self) -> String {
///         self.store.describe()
///     }
///
///     fn place(&self) -> String {
///         self.store.place()
///     }
///
///     fn survives_drop(&self) -> bool {
///         self.store.survives_drop()
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `TokenStore`",
    label = "expected a store",
    note = "a path becomes a store with `FileStore::new(path)`; the module `store` lists the others, and how to write your own"
)]
pub trait TokenStore: Send + Sync + 'static {
    /// The lock, while it is held.
    type Lock: StoreLock;

    /// Takes the lock. Waits until it is free, for `wait` at most.
    ///
    /// # Errors
    ///
    /// [Held](StoreError::held) if another process still holds it after `wait`. Any other error if the storage does not answer.
    fn lock(&self, wait: Duration) -> impl Future<Output = Result<Self::Lock, StoreError>> + Send;

    /// Takes the lock if it is free. If it is not, waits for at most `wait`, and may return `None` instead of the lock.
    ///
    /// The credentials call this method and not [`lock`](Self::lock). After `None`, they load the record, and call it again only
    /// if they still need the lock. Usually they do not, because the previous holder has stored a new token set.
    ///
    /// The default calls `lock`, which is correct for locks with a queue, where a release wakes one waiter. Implement it if a
    /// release wakes all waiters, and return `None` when a waiter is woken. Otherwise, all of them ask for the lock after each
    /// release, and the number of requests grows with the square of the number of waiters. A store around another one passes
    /// the call on.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock). If another process still holds the lock after `wait`, both `None` and
    /// [held](StoreError::held) are correct.
    fn lock_or_wait(
        &self,
        wait: Duration,
    ) -> impl Future<Output = Result<Option<Self::Lock>, StoreError>> + Send {
        async move { self.lock(wait).await.map(Some) }
    }

    /// Returns the stored record, or `None` if nothing is stored.
    ///
    /// # Errors
    ///
    /// [Unavailable](StoreError::unavailable), [unreadable](StoreError::unreadable) or
    /// [misconfigured](StoreError::misconfigured).
    fn load(&self) -> impl Future<Output = Result<Option<StoredTokens>, StoreError>> + Send;

    /// Replaces the record with the write id `replaces` by this one. With `None`, saves the first record.
    ///
    /// # Errors
    ///
    /// [Conflict](StoreError::conflict) if another record is stored. After any other error the outcome of the save is unknown.
    /// Saving the same record again is harmless.
    fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Returns the name of this store in messages, such as `the file /var/lib/compass/tokens.json`, without a secret.
    fn describe(&self) -> String {
        "the store".into()
    }

    /// Returns the name of the record's place within the storage, such as a key or a file name, without a secret.
    ///
    /// An `EncryptedStore` binds each record to its place, so that two records cannot be swapped. The name must be the same in
    /// every process that shares the record, and after a restart. It is stored in the clear. A store around another one
    /// passes it on. If it is empty, which is the default, a record is not bound to a place.
    fn place(&self) -> String {
        String::new()
    }

    /// Returns whether the record outlives this store when the store is dropped. The default is true.
    ///
    /// A `CredentialsPool` does not evict credentials whose tokens would be lost with their store. A store around another one returns
    /// the result of the inner one. The pool holds a lock during the call, which must be fast and must not use the pool.
    fn survives_drop(&self) -> bool {
        true
    }
}

/// The lock of a [`TokenStore`], held until it is released, dropped or lost.
///
/// # Examples
///
/// A lock within one process, which cannot be lost:
///
/// ```
/// use tokio::sync::OwnedMutexGuard;
/// use tower_refresh::store::{StoreError, StoreLock};
///
/// struct Guard(OwnedMutexGuard<()>);
///
/// impl StoreLock for Guard {
///     async fn is_held(&self) -> Result<bool, StoreError> {
///         Ok(true)
///     }
///
///     async fn release(self) {
///         drop(self.0);
///     }
/// }
/// ```
pub trait StoreLock: Send + Sync + 'static {
    /// Returns whether the lock is still held, as the storage reports it.
    ///
    /// # Errors
    ///
    /// If the storage does not answer. The lock then counts as lost.
    fn is_held(&self) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Releases the lock. A lock that is dropped instead may stay locked for a while.
    fn release(self) -> impl Future<Output = ()> + Send;
}
