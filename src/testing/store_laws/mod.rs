//! The laws of a store, as tests that anybody can run against their own.

mod checks;
mod handles;
mod locks;
mod records;
mod saves;

use self::handles::Laws;
use crate::store::TokenStore;

/// Tests a store of your own against [the laws](TokenStore#the-laws), as far as they can be tested from outside.
///
/// `make_store` opens a storage by its name: a file, a row, a key. A name that it has not seen is a storage that is empty,
/// and one that it has is the same storage again, through another handle: as much apart from the first as two processes
/// would be, with a connection of its own and nothing shared in memory.
///
/// Names are of `a` to `z`, digits and `-`, at most 40 bytes, and differ from run to run, so that nothing needs to be
/// cleaned up beforehand. Fourteen of them are asked for, and left behind.
///
/// # Panics
///
/// If a law is broken. The message names the law and what was seen.
///
/// # Time
///
/// About two seconds, and what some hundreds of loads and saves take, most of them small and a few of 300 KB. With a store
/// that breaks a law it may be longer: what should be done at once has 10 seconds, and a lock that was dropped 60.
///
/// Time is tokio's: do not pause it for a store that does real input and output. A runtime of several threads tests more.
///
/// # What it cannot test
///
/// That a save survives a power cut or a `kill -9` (law 5), that a lock is known to be lost (law 3), what becomes of a
/// record that somebody else has spoilt (law 7), and a store that is full (law 8): nothing here can cut the power. For a
/// test of your own, [`StoredTokens::from_json`](crate::store::StoredTokens::from_json) makes records.
///
/// # Writing your own store
///
/// [`Stored`](crate::store::Stored) decides everything: what to save, when a refresh token may be spent, what to do when the
/// store is down. A store is a lock, a row, and a comparison; it never looks into a record. In the order in which people
/// get them wrong:
///
/// 1. **Compare and swap in one step.** To load, compare and then write is a race even with the lock held, since a lock
///    can be lost, and since a log-out does not take it. In SQL it is one statement with the
///    [write id](crate::store::StoredTokens::write_id) in a column of its own, and the number of rows that it changed:
///    ```sql
///    -- replaces: None
///    INSERT INTO tokens (name, write_id, record) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING;
///    -- replaces: Some(id)
///    UPDATE tokens SET write_id = $2, record = $3 WHERE name = $1 AND write_id = $4;
///    -- Nothing changed? It counted before if this is $2, and is a conflict otherwise.
///    SELECT write_id FROM tokens WHERE name = $1;
///    ```
///    Where a transaction fails because it met another one, try again within `save`.
/// 2. **The same save twice is no error.** The answer to the first may have been lost on its way, and then this is the
///    second.
/// 3. **Tell "held" from "down".** [Held](crate::store::StoreError::held) means that a sibling is refreshing: all is well, and
///    soon there will be something to adopt. [Unavailable](crate::store::StoreError::unavailable) means that nobody knows.
/// 4. **The lock goes with its holder.** One that is a row in a table needs a lease, by the clock of the database, an
///    owner token that is compared when it is released, and a task that renews it while it is held. One that belongs to a
///    connection, such as `pg_try_advisory_lock`, goes when the connection does: give each lock a connection, and close
///    it, rather than return it to a pool, when it is dropped.
/// 5. **A future that is dropped leaves no lock behind**: neither one that it waited for nor one that it just got. The wait
///    may be by tries a few milliseconds apart, but it must end in time.
/// 6. **Store the JSON as it is.** [`to_json`](crate::store::StoredTokens::to_json) and
///    [`from_json`](crate::store::StoredTokens::from_json) keep what a later version has added. Columns of your own for parts
///    of it are copies, for people.
/// 7. **Keep strangers out.** The record has the tokens in the clear: file mode, grants of the database, or a
///    `EncryptedStore` (feature `encrypted-store`) around yours. It binds a record to the [place](crate::store::TokenStore::place) that
///    your store names.
///
/// # Examples
///
/// A store in a table, complete but for the database.
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
/// /// The database: one row for each grant.
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
///     // What happens in `f` is one statement: nothing comes between.
///     fn row<T>(&self, name: &str, f: impl FnOnce(&mut Row) -> T) -> Result<T, StoreError> {
///         let mut rows = self.0.lock().map_err(|_| StoreError::unavailable("the database is gone"))?;
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
pub async fn store_laws<T: TokenStore>(make_store: impl AsyncFnMut(&str) -> T) {
    let mut laws = Laws::new(make_store);
    saves::what_is_saved_is_loaded(&mut laws).await;
    saves::storages_are_apart(&mut laws).await;
    saves::a_save_compares_and_swaps(&mut laws).await;
    saves::a_save_counts_once(&mut laws).await;
    saves::one_of_many_savers_wins(&mut laws).await;
    saves::loads_are_whole_and_go_forward(&mut laws).await;
    locks::the_lock_is_exclusive(&mut laws).await;
    locks::the_lock_is_let_go_of(&mut laws).await;
    locks::one_at_a_time_holds_the_lock(&mut laws).await;
    locks::the_lock_stops_no_load_and_no_save(&mut laws).await;
    locks::a_lock_that_was_not_awaited_is_not_held(&mut laws).await;
    locks::a_waiter_that_gave_up_is_passed_over(&mut laws).await;
    saves::a_save_that_was_not_awaited_is_whole_or_not_at_all(&mut laws).await;
}
