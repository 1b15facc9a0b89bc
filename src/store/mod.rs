//! Where token sets are kept: across restarts, processes and machines.

mod error;
mod memory;
mod plan;
mod record;
mod stored;

use std::future::Future;
use std::time::Duration;

pub use self::error::StoreError;
pub use self::memory::{MemoryLock, MemoryStore};
pub use self::record::{Binding, StoredTokens, WriteId};
pub use self::stored::{StoreDown, Stored};

/// Keeps the token set of one grant across restarts, processes or machines.
///
/// A store does three things, and decides nothing: it locks, it loads, and it saves if what is stored is still what the
/// save was made for. What to save, and when a token may be spent, is for [`Stored`], so that it is the same for every
/// store.
///
/// # The laws
///
/// 1. **One row and one lock for a grant.** All who share the grant share both.
/// 2. **The lock is exclusive.** As long as one [`StoreLock`] is held, [`lock`](Self::lock) gives no other. It ends with
///    [`release`](StoreLock::release), when it is dropped, and with the process that held it; not necessarily at once.
/// 3. **A lock can be lost**, where it is a lease. [`is_held`](StoreLock::is_held) asks whoever decides, not a memory.
/// 4. **A save compares and swaps**, in one step that nothing comes between, whether the lock is held or not. It counts if
///    the [write id](StoredTokens::write_id) of what is stored is `replaces` (none: if nothing is stored). If it is
///    already the record's own, the save has counted before, and that is no error. Otherwise it is a
///    [conflict](StoreError::conflict), and nothing changes.
/// 5. **A save is whole or not at all**, whatever is killed in the middle; and once it has returned, what is saved is as
///    durable as the store can make it.
/// 6. **A load sees a whole record**, the last that was saved, with the lock or without it.
/// 7. **What cannot be understood is left as it is**: [unreadable](StoreError::unreadable), and no save replaces it.
/// 8. **A record with an [open intent](StoredTokens::has_open_intent) is followed by a larger one**, after a refresh token was
///    spent. A store that can run full fails the first of the two if the second will not fit.
///
/// [`testing::store_laws`](crate::testing) tests all of them that can be tested from outside.
///
/// # Cancel safety
///
/// A future that is dropped leaves the store as it was or as it was to be, and no lock held.
pub trait TokenStore: Send + Sync + 'static {
    /// The lock, while it is held.
    type Lock: StoreLock;

    /// Takes the lock, at once if it is free, and else as soon as it is.
    ///
    /// # Errors
    ///
    /// [Held](StoreError::held) if it was not to be had within `wait`; others if that cannot be known.
    fn lock(&self, wait: Duration) -> impl Future<Output = Result<Self::Lock, StoreError>> + Send;

    /// Returns what is stored, or none if nothing is.
    ///
    /// # Errors
    ///
    /// [Unavailable](StoreError::unavailable), [unreadable](StoreError::unreadable) or
    /// [misconfigured](StoreError::misconfigured).
    fn load(&self) -> impl Future<Output = Result<Option<StoredTokens>, StoreError>> + Send;

    /// Saves a record in place of the one that `replaces` names.
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
}

/// The lock of a [`TokenStore`], held until it is released, dropped or lost.
pub trait StoreLock: Send + Sync + 'static {
    /// Asks whether the lock is still held.
    ///
    /// # Errors
    ///
    /// If that cannot be known; the lock then counts as lost.
    fn is_held(&self) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Lets go of the lock. One that is dropped instead may stay locked for a while.
    fn release(self) -> impl Future<Output = ()> + Send;
}
