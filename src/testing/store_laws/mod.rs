//! The laws of a store, as tests for any implementation.

mod checks;
mod handles;
mod locks;
mod records;
mod saves;

use self::handles::Laws;
use crate::store::TokenStore;

/// Tests a [`TokenStore`] of your own against [the laws](TokenStore#the-laws).
///
/// `make_store` opens the storage with the given name: a file, a row, a key. An unknown name is an empty storage. A known name is
/// the same storage through another handle, as separate from the first as in two processes: with its own connection, and with
/// nothing shared in memory.
///
/// Names consist of `a` to `z`, digits and `-`, and have at most 40 bytes. They differ in each run, so that you need not clean up
/// before a run. A run uses fourteen names and leaves their storages behind.
///
/// # Panics
///
/// Panics if the store breaks a law. The message has the law and the observation.
///
/// # Run time
///
/// About two seconds, plus some hundred loads and saves, of which a few have 300 KB. With a store that breaks a law, it may take
/// longer: an operation that does not wait has a limit of 10 seconds, and the release of a dropped lock has 60.
///
/// All waiting uses tokio's timer: do not pause it for a store with real I/O. A runtime with several threads tests more.
///
/// # Limits
///
/// These properties cannot be tested from outside: a save survives a power failure or a `kill -9` (law 5), a lost lock is detected
/// (law 3), a damaged record is left unchanged (law 7), and a store runs full (law 8). Use
/// [`StoredTokens::from_json`](crate::store::StoredTokens::from_json) to create records for tests of your own.
///
/// # How to write a store
///
/// A store is a lock, a row and a comparison. It never interprets a record: this crate decides what is saved, when a refresh token
/// may be spent, and what happens if the store is down. Implement [`TokenStore`] and [`StoreLock`](crate::store::StoreLock), and call
/// `store_laws` in a test. These are the common mistakes, most frequent first:
///
/// 1. **Compare and swap in one step.** Loading, comparing and then writing is a race even while the lock is held: a lock can be
///    lost, and a log-out does not take it. In SQL, keep the [write id](crate::store::StoredTokens::write_id) in its own column, and
///    check the number of changed rows:
///    ```sql
///    CREATE TABLE tokens (name text PRIMARY KEY, write_id text, record text, lease_owner text, lease_until timestamptz);
///
///    -- replaces: None
///    INSERT INTO tokens (name, write_id, record) VALUES ($1, $2, $3)
///      ON CONFLICT (name) DO UPDATE SET write_id = $2, record = $3 WHERE tokens.write_id IS NULL;
///    -- replaces: Some(id)
///    UPDATE tokens SET write_id = $2, record = $3 WHERE name = $1 AND write_id = $4;
///    -- If no row was changed: success if the result is $2, and otherwise a conflict.
///    SELECT write_id FROM tokens WHERE name = $1;
///    ```
///    If a transaction fails because of a concurrent one, repeat it within `save`.
/// 2. **A repeated save is no error.** The answer to the first one may have been lost.
/// 3. **A held lock is not an outage.** Return [held](crate::store::StoreError::held) if another process holds the lock: it is
///    refreshing, and soon there is a new record. Return [unavailable](crate::store::StoreError::unavailable) if the state is unknown.
/// 4. **The lock ends with its holder.** A lock in a table is a lease by the clock of the database, with an owner token that
///    each statement compares, and a task that renews the lease:
///    ```sql
///    -- Taken if a row was changed. $2 is the owner, $3 the length of the lease.
///    INSERT INTO tokens (name, lease_owner, lease_until) VALUES ($1, $2, now() + $3)
///      ON CONFLICT (name) DO UPDATE SET lease_owner = $2, lease_until = now() + $3
///      WHERE tokens.lease_until IS NULL OR tokens.lease_until <= now();
///    -- `is_held`, and the renewal: held if a row was changed.
///    UPDATE tokens SET lease_until = now() + $3 WHERE name = $1 AND lease_owner = $2 AND lease_until > now();
///    -- The release.
///    UPDATE tokens SET lease_until = NULL WHERE name = $1 AND lease_owner = $2;
///    ```
///    Do not use the lock of a connection, such as `pg_try_advisory_lock`. It occupies the connection while the token endpoint is
///    asked, so that the size of the pool limits the number of refreshes at once, and others time out. Behind a pooler it is lost
///    without notice.
/// 5. **A dropped future holds no lock**, neither one that it waited for nor one that it has just taken. You may poll for the lock
///    every few milliseconds, within the limit `wait`.
/// 6. **Do not wake all waiters for one lock.** If your lock has no queue and a release wakes all waiters, implement
///    [`lock_or_wait`](crate::store::TokenStore::lock_or_wait): return `None` to the waiter instead of asking for the lock again. Its
///    lock is under law 2, but the number of requests that your waiters send cannot be tested from outside.
/// 7. **Store the JSON unchanged.** [`to_json`](crate::store::StoredTokens::to_json) and
///    [`from_json`](crate::store::StoredTokens::from_json) keep the fields of later versions. Other columns can only be copies for
///    people.
/// 8. **Protect the record.** It contains the tokens in the clear: restrict the file mode or the database grants, or use an
///    `EncryptedStore` (feature `encrypted-store`) over your store. It binds a record to the
///    [place](crate::store::TokenStore::place) that your store returns.
///
/// # Examples
///
/// A complete store in a table. A map stands for the database.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::{Arc, Mutex};
/// use std::time::Duration;
///
/// use tokio::sync::OwnedMutexGuard;
/// use tower_refresh::store::{StoreError, StoreLock, StoredTokens, TokenStore, WriteId};
/// use tower_refresh::testing::store_laws;
///
/// /// The database, with one row for each grant.
/// #[derive(Clone, Default)]
/// struct Database(Arc<Mutex<HashMap<String, Row>>>);
///
/// #[derive(Default)]
/// struct Row {
///     content: Option<(WriteId, Vec<u8>)>,
///     // A database has locks of its own.
///     lock: Arc<tokio::sync::Mutex<()>>,
/// }
///
/// impl Database {
///     // `f` is one statement.
///     fn row<T>(&self, name: &str, f: impl FnOnce(&mut Row) -> T) -> Result<T, StoreError> {
///         let mut rows = self.0.lock().map_err(|_| StoreError::unavailable("the database is down"))?;
///         Ok(f(rows.entry(name.to_owned()).or_default()))
///     }
/// }
///
/// struct TableStore {
///     database: Database,
///     name: String,
/// }
///
/// impl TokenStore for TableStore {
///     type Lock = TableLock;
///
///     async fn lock(&self, wait: Duration) -> Result<TableLock, StoreError> {
///         let lock = self.database.row(&self.name, |row| Arc::clone(&row.lock))?;
///         match tokio::time::timeout(wait, lock.lock_owned()).await {
///             Ok(held) => Ok(TableLock(held)),
///             Err(_) => Err(StoreError::held(format!("row {} after {wait:?}", self.name))),
///         }
///     }
///
///     async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
///         let json = self.database.row(&self.name, |row| {
///             row.content.as_ref().map(|(_, json)| json.clone())
///         })?;
///         json.map(|json| StoredTokens::from_json(&json)).transpose()
///     }
///
///     async fn save(
///         &self,
///         record: &StoredTokens,
///         replaces: Option<WriteId>,
///     ) -> Result<(), StoreError> {
///         let json = record.to_json()?;
///         self.database.row(&self.name, |row| {
///             let stored = row.content.as_ref().map(|(write_id, _)| *write_id);
///             if stored == Some(record.write_id()) {
///                 return Ok(());
///             }
///             if stored != replaces {
///                 return Err(StoreError::conflict());
///             }
///             row.content = Some((record.write_id(), json.to_vec()));
///             Ok(())
///         })?
///     }
///
///     fn describe(&self) -> String {
///         format!("the row {} of the table tokens", self.name)
///     }
///
///     fn place(&self) -> String {
///         self.name.clone()
///     }
/// }
///
/// struct TableLock(OwnedMutexGuard<()>);
///
/// impl StoreLock for TableLock {
///     // A lease would ask the database.
///     async fn is_held(&self) -> Result<bool, StoreError> {
///         Ok(true)
///     }
///
///     async fn release(self) {}
/// }
///
/// // A test: `#[tokio::test]`.
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let database = Database::default();
/// store_laws(async |name| TableStore { database: database.clone(), name: name.to_owned() }).await;
/// # }
/// ```
#[doc(alias = "conformance")]
#[doc(alias = "custom store")]
pub async fn store_laws<T: TokenStore>(make_store: impl AsyncFnMut(&str) -> T) {
    let mut laws = Laws::new(make_store);
    laws.loads_return_saved_records().await;
    laws.storages_are_separate().await;
    laws.saves_compare_and_swap().await;
    laws.repeated_save_is_no_error().await;
    laws.one_of_many_concurrent_saves_wins().await;
    laws.loads_are_whole_and_monotonic().await;
    laws.lock_is_exclusive().await;
    laws.lock_is_released().await;
    laws.holders_take_turns().await;
    laws.lock_blocks_no_load_and_no_save().await;
    laws.dropped_lock_future_holds_nothing().await;
    laws.waiter_that_gave_up_is_skipped().await;
    laws.dropped_save_is_whole_or_absent().await;
}
