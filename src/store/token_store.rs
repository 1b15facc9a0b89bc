//! A store and its lock.

use std::future::Future;
use std::time::Duration;

use super::error::StoreError;
use super::format::StoredTokens;
use crate::grant::record::WriteId;

/// Keeps the token set of one grant across restarts, processes or machines.
///
/// A store does three things, and decides nothing: it locks, it loads, and it saves a record if the stored one is still the
/// one to be replaced. What is saved, and when a token may be sent, is decided by the ledger of the
/// [`Credentials`](crate::Credentials), so that it is the same for every store.
///
/// # The laws
///
/// 1. **One row and one lock for a grant.** All who share the grant share both.
/// 2. **The lock is exclusive.** As long as one [`StoreLock`] is held, [`lock`](Self::lock) and
///    [`lock_or_wait`](Self::lock_or_wait) give no other. It ends with [`release`](StoreLock::release), when it is dropped, and with
///    the process that held it; not necessarily at once.
/// 3. **A lock can be lost**, where it is a lease. [`is_held`](StoreLock::is_held) asks the storage and remembers nothing.
/// 4. **A save compares and swaps**, in one step that nothing comes between, whether the lock is held or not. It counts if
///    the [write id](StoredTokens::write_id) of what is stored is `replaces` (none: if nothing is stored). If it is
///    already the record's own, the save has counted before, and that is no error. Otherwise it is a
///    [conflict](StoreError::conflict), and nothing changes.
/// 5. **A save is whole or not at all**, also if the process is killed during it. Once it has returned, the record is as durable as
///    the store can make it.
/// 6. **A load sees a whole record**, the last that was saved, with the lock or without it.
/// 7. **A record that cannot be parsed is left unchanged**: it is [unreadable](StoreError::unreadable), and no save replaces it.
/// 8. **A record with an [open intent](StoredTokens::has_open_intent) is followed by a larger one**, after a refresh token was
///    spent. A store that can run full fails the first of the two if the second will not fit.
///
/// `testing::store_laws` (feature `testing`) tests all of them that can be tested from outside, and its documentation is
/// about writing a store of one's own, with a complete one.
///
/// # Cancel safety
///
/// Dropping a future leaves the record unchanged or saved, and no lock held.
pub trait TokenStore: Send + Sync + 'static {
    /// The lock, while it is held.
    type Lock: StoreLock;

    /// Takes the lock. Waits until it is free.
    ///
    /// # Errors
    ///
    /// [Held](StoreError::held) if another process still holds it after `wait`; other errors if that cannot be known.
    fn lock(&self, wait: Duration) -> impl Future<Output = Result<Self::Lock, StoreError>> + Send;

    /// Takes the lock if it is free. If it is not, waits for at most `wait`, and may return `None` instead of the lock.
    ///
    /// The credentials call this method and not [`lock`](Self::lock). After `None`, they load the record, and call it again only
    /// if they still need the lock. Usually they do not, because the previous holder has stored a new token set.
    ///
    /// The default calls `lock`, which is right for locks with a queue, where a release wakes one waiter. Implement it if a
    /// release wakes all waiters, and return `None` when a waiter is woken. Otherwise, all of them ask for the lock after each
    /// release, and the number of requests grows with the square of the number of waiters. A store around another one passes
    /// the call on.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock). If another process still holds the lock after `wait`, both `None` and
    /// [held](StoreError::held) are right.
    fn lock_or_wait(
        &self,
        wait: Duration,
    ) -> impl Future<Output = Result<Option<Self::Lock>, StoreError>> + Send {
        async move { self.lock(wait).await.map(Some) }
    }

    /// Returns what is stored, or none if nothing is.
    ///
    /// # Errors
    ///
    /// [Unavailable](StoreError::unavailable), [unreadable](StoreError::unreadable) or
    /// [misconfigured](StoreError::misconfigured).
    fn load(&self) -> impl Future<Output = Result<Option<StoredTokens>, StoreError>> + Send;

    /// Replaces the record that `replaces` names by this one.
    ///
    /// # Errors
    ///
    /// [Conflict](StoreError::conflict) if something else is stored. After any other error it is not known whether the save
    /// counted; to save the same record again is harmless.
    fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Returns what messages call this store, such as `the file /var/lib/compass/tokens.json`; no secret.
    fn describe(&self) -> String {
        "the store".into()
    }

    /// Returns the name of the record's place within the storage, such as a key or a file name; no secret.
    ///
    /// An `EncryptedStore` binds each record to its place, so that two records cannot be swapped. The name must be the same in
    /// every process that shares the record, and after a restart. It is stored in the clear. A store around another one
    /// passes it on. If it is empty, which is the default, a record is not bound to a place.
    fn place(&self) -> String {
        String::new()
    }
}

/// The lock of a [`TokenStore`], held until it is released, dropped or lost.
pub trait StoreLock: Send + Sync + 'static {
    /// Asks whether the lock is still held.
    ///
    /// # Errors
    ///
    /// If that cannot be known; the lock then counts as lost.
    fn is_held(&self) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Releases the lock. One that is dropped instead may stay locked for a while.
    fn release(self) -> impl Future<Output = ()> + Send;
}
