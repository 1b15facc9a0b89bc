//! The laws of a store, as tests that anybody can run against their own.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::{JoinError, JoinHandle, JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use crate::store::{StoreError, StoreLock, StoredTokens, TokenStore, WriteId};
use crate::token::{AccessToken, TokenSet};

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
/// test of your own, [`StoredTokens::from_json`] makes records.
///
/// # Writing your own store
///
/// [`Stored`](crate::store::Stored) decides everything: what to save, when a refresh token may be spent, what to do when the
/// store is down. A store is a lock, a row, and a comparison; it never looks into a record. In the order in which people
/// get them wrong:
///
/// 1. **Compare and swap in one step.** To load, compare and then write is a race even with the lock held, since a lock
///    can be lost, and since a log-out does not take it. In SQL it is one statement with the
///    [write id](StoredTokens::write_id) in a column of its own, and the number of rows that it changed:
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
/// 3. **Tell "held" from "down".** [Held](StoreError::held) means that a sibling is refreshing: all is well, and soon there
///    will be something to adopt. [Unavailable](StoreError::unavailable) means that nobody knows.
/// 4. **The lock goes with its holder.** One that is a row in a table needs a lease, by the clock of the database, an
///    owner token that is compared when it is released, and a task that renews it while it is held. One that belongs to a
///    connection, such as `pg_try_advisory_lock`, goes when the connection does: give each lock a connection, and close
///    it, rather than return it to a pool, when it is dropped.
/// 5. **A future that is dropped leaves no lock behind**: neither one that it waited for nor one that it just got. The wait
///    may be by tries a few milliseconds apart, but it must end in time.
/// 6. **Store the JSON as it is.** [`to_json`](StoredTokens::to_json) and [`from_json`](StoredTokens::from_json) keep what a
///    later version has added. Columns of your own for parts of it are copies, for people.
/// 7. **Keep strangers out.** The record has the tokens in the clear: file mode, grants of the database, or a
///    `Sealed` store (feature `sealed`) around yours.
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
    let mut laws = Laws { make_store, run: WriteId::random().to_string(), named: 0 };
    what_is_saved_is_loaded(&mut laws).await;
    storages_are_apart(&mut laws).await;
    a_save_compares_and_swaps(&mut laws).await;
    a_save_counts_once(&mut laws).await;
    one_of_many_savers_wins(&mut laws).await;
    loads_are_whole_and_go_forward(&mut laws).await;
    the_lock_is_exclusive(&mut laws).await;
    the_lock_is_let_go_of(&mut laws).await;
    one_at_a_time_holds_the_lock(&mut laws).await;
    the_lock_stops_no_load_and_no_save(&mut laws).await;
    a_lock_that_was_not_awaited_is_not_held(&mut laws).await;
    a_waiter_that_gave_up_is_passed_over(&mut laws).await;
    a_save_that_was_not_awaited_is_whole_or_not_at_all(&mut laws).await;
}

// ===== the laws =====

async fn what_is_saved_is_loaded<T: TokenStore>(laws: &mut Laws<impl AsyncFnMut(&str) -> T>) {
    let [store, other] = laws.handles().await;
    let short = example(None, 16, false);
    let with_intent = example(Some(&short), 16, true);
    let without = example(Some(&with_intent), 16, false);
    let long = example(Some(&without), 4 * 1024, false);
    let very_long = example(Some(&long), 100 * 1024, true);
    let records = [
        ("a record", &short),
        ("a record with an open intent", &with_intent),
        ("a record whose intent is done with", &without),
        ("a record with a name that is not ASCII", &named(&without)),
        ("a record with fields of a later version", &with_unknown_fields(&without)),
        ("a record with tokens of 4 KB", &long),
        ("a record with tokens of 100 KB", &very_long),
        ("a record that is shorter than the one before it", &example(Some(&very_long), 16, false)),
    ];
    let mut replaces = None;
    for (place, (what, record)) in records.into_iter().enumerate() {
        // Each handle over what the other has saved.
        let saver = [&store, &other][place % 2];
        saver.must_save(LAW_4, what, record, replaces).await;
        for store in [&store, &other] {
            store.must_have(LAW_6, &format!("{what}, saved and then loaded,"), record).await;
        }
        replaces = Some(record.write_id());
    }

    // Nobody has it open now.
    let storage = store.storage.clone();
    drop((store, other));
    let store = laws.open(&storage).await;
    let last = records[records.len() - 1].1;
    store.must_have(LAW_5, "what was saved, loaded when everything was closed,", last).await;
}

async fn storages_are_apart<T: TokenStore>(laws: &mut Laws<impl AsyncFnMut(&str) -> T>) {
    let [one, _] = laws.handles().await;
    let [other, _] = laws.handles().await;
    let first = example(None, 16, false);
    one.must_save(LAW_1, "the first record of one storage", &first, None).await;
    if other.load().await.is_some() {
        broken(LAW_1, "what was saved to one storage was loaded from another");
    }
    let second = example(None, 16, false);
    other.must_save(LAW_1, "the first record of another storage", &second, None).await;
    one.must_have(LAW_1, "after a save to another storage, what is loaded", &first).await;

    let held = one.must_lock(LAW_1, "a lock that is free", PATIENCE).await;
    other
        .must_lock(LAW_1, "the lock of another storage than the one that is locked", PATIENCE)
        .await
        .release()
        .await;
    held.release().await;
}

async fn a_save_compares_and_swaps<T: TokenStore>(laws: &mut Laws<impl AsyncFnMut(&str) -> T>) {
    let [store, other] = laws.handles().await;
    let first = example(None, 16, false);
    let stranger = example(None, 16, false);
    let what = "a save to an empty storage that is to replace something";
    store.must_conflict(what, &first, Some(stranger.write_id())).await;
    if store.load().await.is_some() {
        broken(LAW_4, format_args!("{what} is a conflict, and changed what is stored"));
    }

    let second = example(Some(&first), 16, true);
    let third = example(Some(&second), 16, false);
    let mut stored: Option<&StoredTokens> = None;
    for record in [&first, &second, &third] {
        let replaces = stored.map(StoredTokens::write_id);
        store.must_save(LAW_4, "a save over what it names", record, replaces).await;
        stored = Some(record);
        for (what, replaces) in [
            ("a save to an empty storage that is not empty", None),
            ("a save over something that is not stored", Some(stranger.write_id())),
            ("a save over what it would save", Some(WriteId::random())),
        ] {
            for store in [&store, &other] {
                let late = example(Some(record), 16, true);
                store.must_conflict(what, &late, replaces).await;
                let what = format!("{what} is a conflict, and what is loaded after it");
                store.must_have(LAW_4, &what, record).await;
            }
        }
    }

    // A save that was under way for long.
    store
        .must_conflict("a save over what was stored once", &stranger, Some(first.write_id()))
        .await;
    store.must_have(LAW_4, "after that, what is loaded", &third).await;
}

async fn a_save_counts_once<T: TokenStore>(laws: &mut Laws<impl AsyncFnMut(&str) -> T>) {
    let [store, other] = laws.handles().await;
    let first = example(None, 16, true);
    let second = example(Some(&first), 16, false);
    let again = "the same save once more";
    for (record, replaces) in [(&first, None), (&second, Some(first.write_id()))] {
        store.must_save(LAW_4, "a save over what it names", record, replaces).await;
        for store in [&store, &other] {
            store.must_save(LAW_4, again, record, replaces).await;
            store.must_have(LAW_4, "what is loaded after the same save twice", record).await;
        }
    }
    store.must_conflict("a save once more that was replaced meanwhile", &first, None).await;
    store.must_have(LAW_4, "after that, what is loaded", &second).await;

    // All at once.
    let third = example(Some(&second), 16, false);
    let same = vec![third.clone(); 4];
    for saved in laws.race(&store.storage, &same, Some(second.write_id())).await {
        if let Err(error) = saved {
            broken(LAW_4, format_args!("of the same save four times at once, one failed: {error}"));
        }
    }
    store.must_have(LAW_4, "what is loaded after the same save four times at once", &third).await;
}

async fn one_of_many_savers_wins<T: TokenStore>(laws: &mut Laws<impl AsyncFnMut(&str) -> T>) {
    let [store, other] = laws.handles().await;
    let mut stored: Option<StoredTokens> = None;
    for round in 0..8 {
        let replaces = stored.as_ref().map(StoredTokens::write_id);
        let length = if round % 2 == 0 { 16 } else { 2048 };
        let records: Vec<_> = (0..8).map(|_| example(stored.as_ref(), length, false)).collect();
        let mut winners = Vec::new();
        let saved = laws.race(&store.storage, &records, replaces).await;
        for (record, saved) in records.iter().zip(saved) {
            match saved {
                Ok(()) => winners.push(record),
                Err(error) if error.is_conflict() => {}
                Err(error) => broken(
                    LAW_4,
                    format_args!(
                        "of 8 saves at once, one is to count, and the others are to be conflicts, not: {error}"
                    ),
                ),
            }
        }
        let [winner] = winners[..] else {
            let over = if replaces.is_some() { "the same record" } else { "nothing" };
            let winners = winners.len();
            broken(
                LAW_4,
                format_args!(
                    "of 8 saves at once over {over}, {winners} counted: compare and write in one step"
                ),
            );
        };
        for store in [&store, &other] {
            store.must_have(LAW_4, "of many saves at once, the one that counted", winner).await;
        }
        stored = Some(winner.clone());
    }
}

async fn loads_are_whole_and_go_forward<T: TokenStore>(
    laws: &mut Laws<impl AsyncFnMut(&str) -> T>,
) {
    const SAVES: usize = 60;

    let [store, _] = laws.handles().await;
    let mut records = vec![example(None, 16, false)];
    while records.len() < SAVES {
        // Of very different lengths, so that halves do not fit together.
        let length = [16, 500, 10_000][records.len() % 3];
        records.push(example(records.last(), length, records.len() % 2 == 0));
    }
    let known: Arc<HashMap<WriteId, (usize, StoredTokens)>> = Arc::new(
        records
            .iter()
            .enumerate()
            .map(|(place, record)| (record.write_id(), (place, record.clone())))
            .collect(),
    );
    store.must_save(LAW_4, "the first record", &records[0], None).await;

    // How many saves have returned.
    let saved = Arc::new(AtomicUsize::new(1));
    let is_over = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for _ in 0..3 {
        let store = laws.open(&store.storage).await;
        let (known, saved, is_over) =
            (Arc::clone(&known), Arc::clone(&saved), Arc::clone(&is_over));
        readers.spawn(async move {
            let mut last = 0;
            while !is_over.load(Ordering::SeqCst) {
                let before = saved.load(Ordering::SeqCst);
                let Some(loaded) = store.load().await else {
                    broken(LAW_6, "while records were saved, a load found nothing");
                };
                let Some((place, record)) = known.get(&loaded.write_id()) else {
                    broken(LAW_6, "a load gave a record that was never saved");
                };
                if !is_same(&loaded, record) {
                    broken(LAW_6, "while records were saved, a load gave a torn one");
                }
                if *place < last {
                    broken(LAW_6, "a load gave an older record than the load before it");
                }
                if place + 1 < before {
                    broken(LAW_6, "a load gave an older record than was saved when it began");
                }
                last = *place;
                yield_now().await;
            }
        });
    }
    for pair in records.windows(2) {
        let what = "a save while others load";
        store.must_save(LAW_4, what, &pair[1], Some(pair[0].write_id())).await;
        saved.fetch_add(1, Ordering::SeqCst);
        yield_now().await;
    }
    is_over.store(true, Ordering::SeqCst);
    all_of(readers).await;
}

async fn the_lock_is_exclusive<T: TokenStore>(laws: &mut Laws<impl AsyncFnMut(&str) -> T>) {
    let [store, other] = laws.handles().await;
    let free = "a lock that is free";
    let held = store.must_lock(LAW_2, free, PATIENCE).await;
    held.must_be_held().await;
    for (who, store) in [("the same handle", &store), ("another handle", &other)] {
        for wait in [Duration::ZERO, SHORT, SHORT] {
            match store.lock(wait).await {
                Ok(_) => {
                    broken(LAW_2, format_args!("the lock was held, and {who} got it once more"));
                }
                Err(error) if error.is_held() => {}
                Err(error) => broken(
                    LAW_2,
                    format_args!(
                        "a lock that somebody else holds is to fail with `StoreError::held`, and failed with: {error}"
                    ),
                ),
            }
        }
    }
    held.must_be_held().await;
    held.release().await;
    for store in [&store, &other] {
        // Longer than any clock can say.
        let wait = Duration::MAX;
        let lock = store.store.lock(wait);
        match in_time(LAW_2, "to lock what was released", PATIENCE, lock).await {
            Ok(held) => held.release().await,
            Err(error) => {
                broken(LAW_2, format_args!("what was released was not to be had: {error}"))
            }
        }
    }
}

async fn one_at_a_time_holds_the_lock<T: TokenStore>(laws: &mut Laws<impl AsyncFnMut(&str) -> T>) {
    let storage = laws.storage();
    let inside = Arc::new(AtomicUsize::new(0));
    let mut holders = JoinSet::new();
    for _ in 0..4 {
        let store = laws.open(&storage).await;
        let inside = Arc::clone(&inside);
        holders.spawn(async move {
            for _ in 0..6 {
                let held = store.must_lock(LAW_2, "a lock that four want in turn", LEASE).await;
                if inside.fetch_add(1, Ordering::SeqCst) != 0 {
                    broken(LAW_2, "two had the lock at once");
                }
                sleep(Duration::from_millis(2)).await;
                held.must_be_held().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                held.release().await;
            }
        });
    }
    all_of(holders).await;
}

async fn the_lock_is_let_go_of<T: TokenStore>(laws: &mut Laws<impl AsyncFnMut(&str) -> T>) {
    let [store, other] = laws.handles().await;
    let held = store.must_lock(LAW_2, "a lock that is free", PATIENCE).await;
    let waiter = other.spawn_lock(LEASE);
    sleep(SHORT).await;
    if waiter.is_finished() {
        match joined(waiter).await {
            Ok(_) => broken(LAW_2, "the lock was held, and somebody else got it"),
            Err(error) => broken(
                LAW_2,
                format_args!(
                    "to lock is to wait for {LEASE:?} if told so, and failed before: {error}"
                ),
            ),
        }
    }
    held.release().await;
    let held = match in_time(LAW_2, "a wait for a lock that was released", PATIENCE, joined(waiter))
        .await
    {
        Ok(held) => held,
        Err(error) => {
            broken(LAW_2, format_args!("a wait for a lock that was released ended with: {error}"))
        }
    };
    held.must_be_held().await;

    drop(held);
    let what = "a lock that was dropped";
    let held = store.must_lock(LAW_2, what, LEASE).await;
    // Together with the store that it is of.
    drop((store, held));
    other.must_lock(LAW_2, what, LEASE).await.release().await;
}

async fn the_lock_stops_no_load_and_no_save<T: TokenStore>(
    laws: &mut Laws<impl AsyncFnMut(&str) -> T>,
) {
    let [store, other] = laws.handles().await;
    let held = store.must_lock(LAW_2, "a lock that is free", PATIENCE).await;
    let first = example(None, 16, false);
    let second = example(Some(&first), 16, false);
    let what = "a save while another handle holds the lock";
    other.must_save(LAW_4, what, &first, None).await;
    other.must_have(LAW_6, "while another handle holds the lock, what is loaded", &first).await;
    let what = "a save with the lock held";
    store.must_save(LAW_4, what, &second, Some(first.write_id())).await;
    for store in [&store, &other] {
        store.must_have(LAW_6, "while the lock is held, what is loaded", &second).await;
    }
    held.must_be_held().await;
    held.release().await;
}

async fn a_lock_that_was_not_awaited_is_not_held<T: TokenStore>(
    laws: &mut Laws<impl AsyncFnMut(&str) -> T>,
) {
    let [store, other] = laws.handles().await;
    for polls in 1..=12 {
        let got = polled(store.store.lock(PATIENCE), polls).await;
        match got {
            // Dropped, as the future was.
            Some(Ok(held)) => drop(held),
            Some(Err(error)) => {
                broken(LAW_2, format_args!("a lock that is free was not to be had: {error}"));
            }
            None => {}
        }
        let what = format!("a lock whose future was dropped after {polls} polls");
        other.must_lock(CANCEL_SAFETY, &what, LEASE).await.release().await;
    }
}

async fn a_waiter_that_gave_up_is_passed_over<T: TokenStore>(
    laws: &mut Laws<impl AsyncFnMut(&str) -> T>,
) {
    let [store, other] = laws.handles().await;
    let held = store.must_lock(LAW_2, "a lock that is free", PATIENCE).await;
    let mut waiters = Vec::new();
    for _ in 0..3 {
        waiters.push(other.spawn_lock(LEASE));
        // So that they stand in line, where there is one.
        sleep(SHORT / 2).await;
    }
    let gave_up = waiters.remove(0);
    gave_up.abort();
    // Over when it is gone altogether.
    drop(gave_up.await);
    // And one whose time was up.
    drop(other.lock(SHORT).await);
    held.release().await;

    let mut waiters: JoinSet<_> = waiters
        .into_iter()
        .map(|waiter| async move {
            match joined(waiter).await {
                Ok(held) => held.release().await,
                Err(error) => broken(
                    CANCEL_SAFETY,
                    format_args!("after a waiter gave up, the next in line failed: {error}"),
                ),
            }
        })
        .collect();
    let what = "a wait for the lock behind one who gave up";
    while let Some(waited) = in_time(CANCEL_SAFETY, what, PATIENCE, waiters.join_next()).await {
        passed_on(waited);
    }
}

async fn a_save_that_was_not_awaited_is_whole_or_not_at_all<T: TokenStore>(
    laws: &mut Laws<impl AsyncFnMut(&str) -> T>,
) {
    let [store, other] = laws.handles().await;
    let mut stored = example(None, 16, false);
    store.must_save(LAW_4, "the first record", &stored, None).await;
    for polls in 1..=12 {
        let next = example(Some(&stored), [16, 10_000][polls % 2], polls % 2 == 0);
        let replaces = Some(stored.write_id());
        if let Some(Err(error)) = polled(store.store.save(&next, replaces), polls).await {
            broken(LAW_4, format_args!("a save over what it names failed: {error}"));
        }
        // It may still come about, behind our back.
        for store in [&other, &store, &other] {
            let is_whole = |loaded| is_same(&loaded, &stored) || is_same(&loaded, &next);
            if !store.load().await.is_some_and(is_whole) {
                broken(
                    CANCEL_SAFETY,
                    format_args!(
                        "a save whose future was dropped after {polls} polls left neither what was stored nor what was to be"
                    ),
                );
            }
            yield_now().await;
        }
        let what = "a save once more, after its future was dropped,";
        other.must_save(CANCEL_SAFETY, what, &next, replaces).await;
        store.must_have(CANCEL_SAFETY, &format!("{what} and what is loaded then"), &next).await;
        stored = example(Some(&next), 16, false);
        store.must_save(LAW_4, "a save over it", &stored, Some(next.write_id())).await;
    }
    sleep(SHORT).await;
    let what = "what is loaded a while after saves whose futures were dropped";
    for store in [&store, &other] {
        store.must_have(CANCEL_SAFETY, what, &stored).await;
    }
}

// ===== handles =====

/// Opens storages, each with a name of its own.
struct Laws<F> {
    make_store: F,
    /// Tells the names of this run from those of all others.
    run: String,
    named: usize,
}

impl<T: TokenStore, F: AsyncFnMut(&str) -> T> Laws<F> {
    /// Names a storage that is empty.
    fn storage(&mut self) -> String {
        self.named += 1;
        format!("{}-{}", self.run, self.named)
    }

    async fn open(&mut self, storage: &str) -> Handle<T> {
        let store = (self.make_store)(storage).await;
        Handle { store: Arc::new(store), storage: storage.to_owned() }
    }

    /// Opens a storage that is empty, twice.
    async fn handles(&mut self) -> [Handle<T>; 2] {
        let storage = self.storage();
        let handles = [self.open(&storage).await, self.open(&storage).await];
        for store in &handles {
            if store.load().await.is_some() {
                broken(LAW_1, "a storage with a new name is not empty: open another for each name");
            }
        }
        handles
    }

    /// Saves each of these records through a handle of its own, all at once.
    async fn race(
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

/// One of several handles to a storage. Nothing that is asked of it takes for ever.
struct Handle<T> {
    store: Arc<T>,
    storage: String,
}

impl<T: TokenStore> Handle<T> {
    async fn load(&self) -> Option<StoredTokens> {
        match in_time(LAW_6, "a load", PATIENCE, self.store.load()).await {
            Ok(loaded) => loaded,
            Err(error) => broken(LAW_6, format_args!("a load failed: {error}")),
        }
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        in_time(LAW_4, "a save", PATIENCE, self.store.save(record, replaces)).await
    }

    async fn lock(&self, wait: Duration) -> Result<T::Lock, StoreError> {
        let what = format!("a lock that was to be waited for for {wait:?}");
        in_time(LAW_2, &what, wait.saturating_add(PATIENCE), self.store.lock(wait)).await
    }

    /// Waits for the lock in a task of its own.
    fn spawn_lock(&self, wait: Duration) -> JoinHandle<Result<T::Lock, StoreError>> {
        let store = Arc::clone(&self.store);
        tokio::spawn(async move { store.lock(wait).await })
    }

    async fn must_have(&self, law: &str, what: &str, record: &StoredTokens) {
        match self.load().await {
            None => broken(law, format_args!("{what} is not there")),
            Some(loaded) if !is_same(&loaded, record) => {
                let same = if loaded.write_id() == record.write_id() {
                    "it has changed"
                } else {
                    "it is another record"
                };
                broken(law, format_args!("{what} is not what was saved: {same}"));
            }
            Some(loaded) if loaded.has_open_intent() != record.has_open_intent() => {
                broken(law, format_args!("{what} has another `has_open_intent` than was saved"));
            }
            Some(_) => {}
        }
    }

    async fn must_save(
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

    async fn must_conflict(&self, what: &str, record: &StoredTokens, replaces: Option<WriteId>) {
        match self.save(record, replaces).await {
            Ok(()) => broken(LAW_4, format_args!("{what} counted, and is to be a conflict")),
            Err(error) if error.is_conflict() => {}
            Err(error) => {
                broken(LAW_4, format_args!("{what} is to be a conflict, and is: {error}"));
            }
        }
    }

    async fn must_lock(&self, law: &str, what: &str, wait: Duration) -> T::Lock {
        match self.lock(wait).await {
            Ok(held) => held,
            Err(error) => broken(law, format_args!("{what} was not to be had: {error}")),
        }
    }
}

trait MustBeHeld: StoreLock {
    async fn must_be_held(&self) {
        match in_time(LAW_3, "to ask whether a lock is held", PATIENCE, self.is_held()).await {
            Ok(true) => {}
            Ok(false) => broken(LAW_3, "a lock that is held says that it is not"),
            Err(error) => {
                broken(LAW_3, format_args!("whether a lock is held could not be asked: {error}"));
            }
        }
    }
}

impl<L: StoreLock> MustBeHeld for L {}

// ===== records =====

/// Makes a record with tokens of this length, to follow this one or to be the first.
fn example(after: Option<&StoredTokens>, length: usize, has_open_intent: bool) -> StoredTokens {
    // What RFC 6749 (appendix A.12 and A.17) allows in a token, so that no two are the same and nothing goes unescaped.
    let token = |kind: &str| {
        let salt = WriteId::random();
        let visible = (b'!'..=b'~').map(char::from).cycle();
        format!("{kind}-{salt}-{}", visible.take(length).collect::<String>())
    };
    let access_token = match AccessToken::new(token("at")) {
        Ok(access_token) => access_token,
        Err(error) => broken("no law", format_args!("the test has a mistake: {error}")),
    };
    let tokens = TokenSet::builder(access_token)
        .expires_in(Duration::from_secs(300))
        .refresh_token(token("rt"))
        .scope("read write")
        .id_token(token("id"))
        .build();
    StoredTokens::example(after, &tokens, has_open_intent)
}

fn named(after: &StoredTokens) -> StoredTokens {
    edited(&example(Some(after), 16, false), |json| {
        json["binding"] = json!({
            "token_endpoint": "https://as.example.com",
            "client_id": "it's \"100%\" \\ {me}",
            "name": "Zoë’s 店 🗝",
        });
    })
}

fn with_unknown_fields(after: &StoredTokens) -> StoredTokens {
    edited(&example(Some(after), 16, true), |json| {
        let later = json!({ "list": [1, 2.5, null, true, "…"], "": { "nested": [[], {}] } });
        json["from_a_later_version"] = later.clone();
        json["body"]["plain"]["from_a_later_version"] = later.clone();
        json["body"]["plain"]["tokens"]["from_a_later_version"] = later;
    })
}

fn edited(record: &StoredTokens, edit: impl FnOnce(&mut Value)) -> StoredTokens {
    let mut json = as_value(record);
    edit(&mut json);
    match StoredTokens::from_json(json.to_string().as_bytes()) {
        Ok(record) => record,
        Err(error) => broken("no law", format_args!("the test has a mistake: {error}")),
    }
}

/// Returns whether two records are the same in all that is written of them, fields that nobody knows included.
fn is_same(one: &StoredTokens, other: &StoredTokens) -> bool {
    one.write_id() == other.write_id() && as_value(one) == as_value(other)
}

fn as_value(record: &StoredTokens) -> Value {
    match serde_json::to_value(record) {
        Ok(json) => json,
        Err(_) => broken(LAW_6, "a record was loaded that cannot be written as JSON"),
    }
}

// ===== what a test needs =====

const LAW_1: &str = "law 1 (one row and one lock for a grant)";
const LAW_2: &str = "law 2 (the lock is exclusive)";
const LAW_3: &str = "law 3 (a lock is asked whether it is held)";
const LAW_4: &str = "law 4 (a save compares and swaps)";
const LAW_5: &str = "law 5 (a save is whole, and lasts)";
const LAW_6: &str = "law 6 (a load sees the whole record that was saved last)";
const CANCEL_SAFETY: &str = "cancel safety";

/// What is done at once takes no longer, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A lock that was dropped is gone by then: longer than the lease of any store.
const LEASE: Duration = Duration::from_secs(60);

/// Long enough to see that somebody waits.
const SHORT: Duration = Duration::from_millis(100);

#[expect(clippy::panic, reason = "an assertion, for the tests of others")]
fn broken(law: &str, seen: impl fmt::Display) -> ! {
    panic!("the store breaks {law}, see `TokenStore`: {seen}")
}

async fn in_time<F: Future>(law: &str, what: &str, limit: Duration, future: F) -> F::Output {
    match timeout(limit, future).await {
        Ok(output) => output,
        Err(_) => broken(law, format_args!("{what} did not end within {limit:?}")),
    }
}

/// Polls a future so many times and drops it, or returns its output if it has one by then.
async fn polled<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = times;
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        left -= 1;
        if left == 0 { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

async fn joined<T>(task: JoinHandle<T>) -> T {
    passed_on(task.await)
}

async fn all_of(mut tasks: JoinSet<()>) {
    while let Some(task) = tasks.join_next().await {
        passed_on(task);
    }
}

/// The panic of a task is the test's.
fn passed_on<T>(task: Result<T, JoinError>) -> T {
    match task.map_err(JoinError::try_into_panic) {
        Ok(output) => output,
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(error)) => broken("no law", format_args!("a task of the test is gone: {error}")),
    }
}
