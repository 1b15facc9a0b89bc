//! The laws of the lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::checks::{
    CANCEL_SAFETY, LAW_2, LAW_4, LAW_6, LEASE, PATIENCE, SHORT, all_of, broken, in_time, joined,
    must, must_be_held, must_in_time, passed_on, polled,
};
use super::handles::{Handle, Laws};
use super::records::example;
use crate::store::{StoreLock as _, TokenStore};

impl<T: TokenStore, F: AsyncFnMut(&str) -> T> Laws<F> {
    pub(super) async fn lock_is_exclusive(&mut self) {
        let [store, other] = self.handles().await;
        let held = store.must_lock(LAW_2, "a free lock", PATIENCE).await;
        must_be_held(&held).await;
        for (who, store) in [("the same handle", &store), ("another handle", &other)] {
            for wait in [Duration::ZERO, SHORT, SHORT] {
                match store.lock(wait).await {
                    Ok(_) => {
                        broken(LAW_2, format_args!("the lock was held, and {who} took it again"));
                    }
                    Err(error) if error.is_held() => {}
                    Err(error) => broken(
                        LAW_2,
                        format_args!(
                            "a lock that another handle holds must fail with `StoreError::held`, and failed with: {error}"
                        ),
                    ),
                }
                match store.lock_or_wait(wait).await {
                    Ok(None) => {}
                    Ok(Some(_)) => broken(
                        LAW_2,
                        format_args!(
                            "the lock was held, and {who} took it again with `lock_or_wait`"
                        ),
                    ),
                    Err(error) if error.is_held() => {}
                    Err(error) => broken(
                        LAW_2,
                        format_args!(
                            "`lock_or_wait` for a lock that another handle holds failed with: {error}"
                        ),
                    ),
                }
            }
        }
        must_be_held(&held).await;
        held.release().await;
        for store in [&store, &other] {
            // Longer than any clock can represent.
            let wait = Duration::MAX;
            let lock = store.store.lock(wait);
            let what = "a wait for a released lock";
            must_in_time(LAW_2, what, PATIENCE, lock).await.release().await;
        }
    }

    pub(super) async fn holders_take_turns(&mut self) {
        let storage = self.storage();
        let inside = Arc::new(AtomicUsize::new(0));
        let mut holders = JoinSet::new();
        for _ in 0..4 {
            let store = self.open(&storage).await;
            let inside = Arc::clone(&inside);
            holders.spawn(async move {
                for _ in 0..6 {
                    let held = store
                        .must_lock(LAW_2, "a lock that four handles take in turns", LEASE)
                        .await;
                    if inside.fetch_add(1, Ordering::SeqCst) != 0 {
                        broken(LAW_2, "two handles held the lock at once");
                    }
                    sleep(Duration::from_millis(2)).await;
                    must_be_held(&held).await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    held.release().await;
                }
            });
        }
        all_of(holders).await;
    }

    pub(super) async fn lock_is_released(&mut self) {
        let [store, other] = self.handles().await;
        let held = store.must_lock(LAW_2, "a free lock", PATIENCE).await;
        let waiter = other.spawn_lock(LEASE);
        sleep(SHORT).await;
        if waiter.is_finished() {
            match joined(waiter).await {
                Ok(_) => broken(LAW_2, "the lock was held, and another handle took it"),
                Err(error) => broken(
                    LAW_2,
                    format_args!(
                        "a lock with a limit of {LEASE:?} must wait that long, and failed before: {error}"
                    ),
                ),
            }
        }
        held.release().await;
        let what = "a wait for a released lock";
        let held = must_in_time(LAW_2, what, PATIENCE, joined(waiter)).await;
        must_be_held(&held).await;

        let waiter = other.spawn_lock_or_wait(LEASE);
        sleep(SHORT).await;
        if waiter.is_finished() {
            must(LAW_2, "`lock_or_wait` while another handle holds the lock", joined(waiter).await);
            broken(LAW_2, "the lock was held, and another handle took it with `lock_or_wait`");
        }
        held.release().await;
        let what = "a wait with `lock_or_wait` for a released lock";
        let held = must_in_time(LAW_2, what, PATIENCE, joined(waiter)).await;
        must_be_held(&held).await;
        held.release().await;

        // Longer than any clock can represent.
        let wait = Duration::MAX;
        for waits in [Handle::spawn_lock, Handle::spawn_lock_or_wait] {
            let held = store.must_lock(LAW_2, "a free lock", PATIENCE).await;
            let waiter = waits(&other, wait);
            sleep(SHORT).await;
            held.release().await;
            let what = "a wait for a released lock, without a limit,";
            must_in_time(LAW_2, what, PATIENCE, joined(waiter)).await.release().await;
        }

        let held = store.must_lock(LAW_2, "a free lock", PATIENCE).await;
        drop(held);
        let what = "a dropped lock";
        let held = store.must_lock(LAW_2, what, LEASE).await;
        // Together with its store.
        drop((store, held));
        other.must_lock(LAW_2, what, LEASE).await.release().await;
    }

    pub(super) async fn lock_blocks_no_load_and_no_save(&mut self) {
        let [store, other] = self.handles().await;
        let held = store.must_lock(LAW_2, "a free lock", PATIENCE).await;
        let first = example(None, 16, false);
        let second = example(Some(&first), 16, false);
        let what = "a save while another handle holds the lock";
        other.must_save(LAW_4, what, &first, None).await;
        other.must_have(LAW_6, "the record, while another handle holds the lock,", &first).await;
        let what = "a save with the lock held";
        store.must_save(LAW_4, what, &second, Some(first.write_id())).await;
        for store in [&store, &other] {
            store.must_have(LAW_6, "the record, while the lock is held,", &second).await;
        }
        must_be_held(&held).await;
        held.release().await;
    }

    pub(super) async fn dropped_lock_future_holds_nothing(&mut self) {
        let [store, other] = self.handles().await;
        for polls in 1..=12 {
            if let Some(locked) = polled(store.store.lock(PATIENCE), polls).await {
                // Dropped like the future.
                drop(must(LAW_2, "a free lock", locked));
            }
            let what = format!("a lock whose future was dropped after {polls} polls");
            other.must_lock(CANCEL_SAFETY, &what, LEASE).await.release().await;
            if let Some(locked) = polled(store.store.lock_or_wait(PATIENCE), polls).await {
                drop(must(LAW_2, "`lock_or_wait` for a free lock", locked));
            }
            let what = format!("a `lock_or_wait` whose future was dropped after {polls} polls");
            other.must_lock(CANCEL_SAFETY, &what, LEASE).await.release().await;
        }
    }

    pub(super) async fn waiter_that_gave_up_is_skipped(&mut self) {
        let [store, other] = self.handles().await;
        let held = store.must_lock(LAW_2, "a free lock", PATIENCE).await;
        let mut waiters = Vec::new();
        for _ in 0..3 {
            waiters.push(other.spawn_lock(LEASE));
            // So that they wait in this order, if the store has a queue.
            sleep(SHORT / 2).await;
        }
        let gave_up = waiters.remove(0);
        gave_up.abort();
        // Until the task has ended.
        drop(gave_up.await);
        // A waiter whose limit is over.
        drop(other.lock(SHORT).await);
        held.release().await;

        let mut waiters: JoinSet<_> = waiters
            .into_iter()
            .map(|waiter| async move {
                must(CANCEL_SAFETY, WAIT_BEHIND, joined(waiter).await).release().await;
            })
            .collect();
        while let Some(waited) =
            in_time(CANCEL_SAFETY, WAIT_BEHIND, PATIENCE, waiters.join_next()).await
        {
            passed_on(waited);
        }
    }
}

const WAIT_BEHIND: &str = "a wait for the lock behind a waiter that gave up";
