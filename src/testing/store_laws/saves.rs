//! The laws of saves and loads.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;

use super::checks::{
    CANCEL_SAFETY, LAW_1, LAW_4, LAW_5, LAW_6, PATIENCE, SHORT, all_of, broken, must, polled,
};
use super::handles::Laws;
use super::records::{example, is_same, named, with_unknown_fields};
use crate::store::{StoreLock as _, StoredTokens, TokenStore, WriteId};

impl<T: TokenStore, F: AsyncFnMut(&str) -> T> Laws<F> {
    pub(super) async fn loads_return_saved_records(&mut self) {
        let [store, other] = self.handles().await;
        let short = example(None, 16, false);
        let with_intent = example(Some(&short), 16, true);
        let without = example(Some(&with_intent), 16, false);
        let long = example(Some(&without), 4 * 1024, false);
        let very_long = example(Some(&long), 100 * 1024, true);
        let records = [
            ("a record", &short),
            ("a record with an open intent", &with_intent),
            ("a record whose intent has ended", &without),
            ("a record with a name that is not ASCII", &named(&without)),
            ("a record with fields of a later version", &with_unknown_fields(&without)),
            ("a record with tokens of 4 KB", &long),
            ("a record with tokens of 100 KB", &very_long),
            (
                "a record that is shorter than the one before it",
                &example(Some(&very_long), 16, false),
            ),
        ];
        let mut replaces = None;
        for (place, (what, record)) in records.into_iter().enumerate() {
            // Each handle replaces a record of the other.
            let saver = [&store, &other][place % 2];
            saver.must_save(LAW_4, what, record, replaces).await;
            for store in [&store, &other] {
                store.must_have(LAW_6, &format!("{what}, saved and loaded,"), record).await;
            }
            replaces = Some(record.write_id());
        }

        // No handle is open now.
        let storage = store.storage.clone();
        drop((store, other));
        let store = self.open(&storage).await;
        let last = records[records.len() - 1].1;
        store.must_have(LAW_5, "a saved record, loaded after all handles were closed,", last).await;
    }

    pub(super) async fn storages_are_separate(&mut self) {
        let [one, _] = self.handles().await;
        let [other, _] = self.handles().await;
        let first = example(None, 16, false);
        one.must_save(LAW_1, "the first record of one storage", &first, None).await;
        if other.load().await.is_some() {
            broken(LAW_1, "a record saved to one storage was loaded from another");
        }
        let second = example(None, 16, false);
        other.must_save(LAW_1, "the first record of another storage", &second, None).await;
        one.must_have(LAW_1, "the record, after a save to another storage,", &first).await;

        let held = one.must_lock(LAW_1, "a lock that is free", PATIENCE).await;
        other
            .must_lock(LAW_1, "the lock of another storage while one is locked", PATIENCE)
            .await
            .release()
            .await;
        held.release().await;
    }

    pub(super) async fn saves_compare_and_swap(&mut self) {
        let [store, other] = self.handles().await;
        let first = example(None, 16, false);
        let stranger = example(None, 16, false);
        let what = "a save to an empty storage that replaces a record";
        store.must_conflict(what, &first, Some(stranger.write_id())).await;
        if store.load().await.is_some() {
            broken(LAW_4, format_args!("{what} is a conflict, and changed the storage"));
        }

        let second = example(Some(&first), 16, true);
        let third = example(Some(&second), 16, false);
        let mut stored: Option<&StoredTokens> = None;
        for record in [&first, &second, &third] {
            let replaces = stored.map(StoredTokens::write_id);
            store.must_save(LAW_4, "a save over the stored record", record, replaces).await;
            stored = Some(record);
            for (what, replaces) in [
                ("a first save to a storage that is not empty", None),
                ("a save over a record that is not stored", Some(stranger.write_id())),
                ("a save over an unknown record", Some(WriteId::random())),
            ] {
                for store in [&store, &other] {
                    let late = example(Some(record), 16, true);
                    store.must_conflict(what, &late, replaces).await;
                    let what = format!("the record, after {what} was a conflict,");
                    store.must_have(LAW_4, &what, record).await;
                }
            }
        }

        // A save that took long.
        store
            .must_conflict(
                "a save over a record that was replaced before",
                &stranger,
                Some(first.write_id()),
            )
            .await;
        store.must_have(LAW_4, "the record after that", &third).await;
    }

    pub(super) async fn repeated_save_is_no_error(&mut self) {
        let [store, other] = self.handles().await;
        let first = example(None, 16, true);
        let second = example(Some(&first), 16, false);
        let again = "a repeated save";
        for (record, replaces) in [(&first, None), (&second, Some(first.write_id()))] {
            store.must_save(LAW_4, "a save over the stored record", record, replaces).await;
            for store in [&store, &other] {
                store.must_save(LAW_4, again, record, replaces).await;
                store.must_have(LAW_4, "the record after the same save twice", record).await;
            }
        }
        store.must_conflict("the same save after the record was replaced", &first, None).await;
        store.must_have(LAW_4, "the record after that", &second).await;

        // All at once.
        let third = example(Some(&second), 16, false);
        let same = vec![third.clone(); 4];
        for saved in self.race(&store.storage, &same, Some(second.write_id())).await {
            must(LAW_4, "one of four concurrent saves of the same record", saved);
        }
        store.must_have(LAW_4, "the record after four concurrent saves of it", &third).await;
    }

    pub(super) async fn one_of_many_concurrent_saves_wins(&mut self) {
        let [store, other] = self.handles().await;
        let mut stored: Option<StoredTokens> = None;
        for round in 0..8 {
            let replaces = stored.as_ref().map(StoredTokens::write_id);
            let length = if round % 2 == 0 { 16 } else { 2048 };
            let records: Vec<_> = (0..8).map(|_| example(stored.as_ref(), length, false)).collect();
            let mut winners = Vec::new();
            let saved = self.race(&store.storage, &records, replaces).await;
            for (record, saved) in records.iter().zip(saved) {
                match saved {
                    Ok(()) => winners.push(record),
                    Err(error) if error.is_conflict() => {}
                    Err(error) => broken(
                        LAW_4,
                        format_args!(
                            "one of 8 concurrent saves must succeed and the others must be conflicts, but one failed with: {error}"
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
                        "{winners} of 8 concurrent saves over {over} succeeded: compare and write in one step"
                    ),
                );
            };
            for store in [&store, &other] {
                store
                    .must_have(LAW_4, "the record of the concurrent save that succeeded", winner)
                    .await;
            }
            stored = Some(winner.clone());
        }
    }

    pub(super) async fn loads_are_whole_and_monotonic(&mut self) {
        const SAVES: usize = 60;

        let [store, _] = self.handles().await;
        let mut records = vec![example(None, 16, false)];
        while records.len() < SAVES {
            // Records of very different lengths reveal a torn one.
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

        // The number of saves that have returned.
        let saved = Arc::new(AtomicUsize::new(1));
        let is_over = Arc::new(AtomicBool::new(false));
        let mut readers = JoinSet::new();
        for _ in 0..3 {
            let store = self.open(&store.storage).await;
            let (known, saved, is_over) =
                (Arc::clone(&known), Arc::clone(&saved), Arc::clone(&is_over));
            readers.spawn(async move {
                let mut last = 0;
                while !is_over.load(Ordering::SeqCst) {
                    let before = saved.load(Ordering::SeqCst);
                    let Some(loaded) = store.load().await else {
                        broken(LAW_6, "during a save, a load found nothing");
                    };
                    let Some((place, record)) = known.get(&loaded.write_id()) else {
                        broken(LAW_6, "a load returned a record that was never saved");
                    };
                    if !is_same(&loaded, record) {
                        broken(LAW_6, "during a save, a load returned a torn record");
                    }
                    if *place < last {
                        broken(LAW_6, "a load returned an older record than the load before it");
                    }
                    if place + 1 < before {
                        broken(
                            LAW_6,
                            "a load returned an older record than the last one saved before it",
                        );
                    }
                    last = *place;
                    yield_now().await;
                }
            });
        }
        for pair in records.windows(2) {
            let what = "a save during loads";
            store.must_save(LAW_4, what, &pair[1], Some(pair[0].write_id())).await;
            saved.fetch_add(1, Ordering::SeqCst);
            yield_now().await;
        }
        is_over.store(true, Ordering::SeqCst);
        all_of(readers).await;
    }

    pub(super) async fn dropped_save_is_whole_or_absent(&mut self) {
        let [store, other] = self.handles().await;
        let mut stored = example(None, 16, false);
        store.must_save(LAW_4, "the first record", &stored, None).await;
        for polls in 1..=12 {
            let next = example(Some(&stored), [16, 10_000][polls % 2], polls % 2 == 0);
            let replaces = Some(stored.write_id());
            if let Some(saved) = polled(store.store.save(&next, replaces), polls).await {
                must(LAW_4, "a save over the stored record", saved);
            }
            // The save may still complete in the background.
            for store in [&other, &store, &other] {
                let is_whole = |loaded| is_same(&loaded, &stored) || is_same(&loaded, &next);
                if !store.load().await.is_some_and(is_whole) {
                    broken(
                        CANCEL_SAFETY,
                        format_args!(
                            "a save whose future was dropped after {polls} polls left neither the old record nor the new one"
                        ),
                    );
                }
                yield_now().await;
            }
            let what = "a repeated save, after its future was dropped,";
            other.must_save(CANCEL_SAFETY, what, &next, replaces).await;
            store.must_have(CANCEL_SAFETY, "the record of a repeated save", &next).await;
            stored = example(Some(&next), 16, false);
            store.must_save(LAW_4, "a save over it", &stored, Some(next.write_id())).await;
        }
        sleep(SHORT).await;
        let what = "the record, a while after saves whose futures were dropped,";
        for store in [&store, &other] {
            store.must_have(CANCEL_SAFETY, what, &stored).await;
        }
    }
}
