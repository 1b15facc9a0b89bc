//! The laws of the lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::checks::{
    CANCEL_SAFETY, LAW_2, LAW_4, LAW_6, LEASE, PATIENCE, SHORT, all_of, broken, in_time, joined,
    passed_on, polled,
};
use super::handles::{Laws, MustBeHeld as _};
use super::records::example;
use crate::store::{StoreLock as _, TokenStore};

pub(super) async fn the_lock_is_exclusive<T: TokenStore>(
    laws: &mut Laws<impl AsyncFnMut(&str) -> T>,
) {
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

pub(super) async fn one_at_a_time_holds_the_lock<T: TokenStore>(
    laws: &mut Laws<impl AsyncFnMut(&str) -> T>,
) {
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

pub(super) async fn the_lock_is_let_go_of<T: TokenStore>(
    laws: &mut Laws<impl AsyncFnMut(&str) -> T>,
) {
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

pub(super) async fn the_lock_stops_no_load_and_no_save<T: TokenStore>(
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

pub(super) async fn a_lock_that_was_not_awaited_is_not_held<T: TokenStore>(
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

pub(super) async fn a_waiter_that_gave_up_is_passed_over<T: TokenStore>(
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
