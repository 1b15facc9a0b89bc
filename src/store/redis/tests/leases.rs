//! The lock.

use std::time::Instant;

use tokio::task::JoinSet;

use super::*;

#[tokio::test]
async fn lock_is_exclusive_until_it_is_released() {
    let Some(server) = server() else { return };
    let stores = [store(&server), store(&server)];
    shared::leases::lock_is_exclusive_until_it_is_released(stores).await;
}

#[tokio::test]
async fn dropped_lock_is_released_in_the_background() {
    let Some(server) = server() else { return };
    let store = store(&server);
    drop(store.lock(LONG).await.unwrap());
    // Before the lease runs out.
    store.lock(10 * SECOND).await.unwrap().release().await;
}

#[tokio::test]
async fn lock_dropped_without_a_runtime_is_released() {
    let Some(server) = server() else { return };
    let store = store(&server);
    let lock = store.lock(LONG).await.unwrap();
    std::thread::spawn(move || drop(lock)).join().unwrap();
    store.lock(10 * SECOND).await.unwrap().release().await;
}

#[tokio::test]
async fn lock_future_dropped_at_any_time_leaves_no_lock() {
    let Some(server) = server() else { return };
    let store = store(&server).lease(LONG);
    let other = RedisStore::new(server.url(), "grant").unwrap().timeout(10 * SECOND);
    let mut given_up = 0;
    for step in 0..60 {
        // From before the connection is made to after the lock is taken.
        let patience = Duration::from_micros(step * 50);
        store.connector.forget();
        given_up += u32::from(tokio::time::timeout(patience, store.lock(LONG)).await.is_err());
        let asked = Instant::now();
        other.lock(LONG).await.unwrap().release().await;
        assert!(asked.elapsed() < 20 * SECOND, "after {patience:?}");
    }
    println!("given up {given_up} times of 60");
}

#[tokio::test]
async fn waiters_are_woken_one_after_the_other() {
    const WAITERS: usize = 20;

    let Some(server) = server() else { return };
    let lock = store(&server).lease(LONG).lock(LONG).await.unwrap();
    let mut waiters = JoinSet::new();
    for _ in 0..WAITERS {
        let store = store(&server).lease(LONG);
        waiters.spawn(async move {
            let lock = store.lock(LONG).await.unwrap();
            let taken = Instant::now();
            // This release wakes the next waiter.
            let released = Instant::now();
            lock.release().await;
            (taken, released)
        });
    }
    listening(&server, WAITERS).await;

    let mut released = Instant::now();
    lock.release().await;
    let mut longest = Duration::ZERO;
    while let Some(waiter) = waiters.join_next().await {
        let (taken, next) = waiter.unwrap();
        longest = longest.max(taken.saturating_duration_since(released));
        released = next;
    }
    println!("{WAITERS} in a row: at most {longest:?} from release to lock");
    assert!(longest < 3 * SECOND, "woken by the release and not by the lease: {longest:?}");
}

#[tokio::test]
async fn waiter_is_woken_promptly() {
    let Some(server) = server() else { return };
    let mut took = Vec::new();
    for _ in 0..20 {
        let lock = store(&server).lease(LONG).lock(LONG).await.unwrap();
        let waiting = store(&server);
        let waiter = tokio::spawn(async move {
            let lock = waiting.lock(LONG).await.unwrap();
            let taken = Instant::now();
            lock.release().await;
            taken
        });
        listening(&server, 1).await;
        let released = Instant::now();
        lock.release().await;
        took.push(waiter.await.unwrap().saturating_duration_since(released));
        // Its connection is closed with it.
        listening(&server, 0).await;
    }
    took.sort_unstable();
    println!("from release to lock: median {:?}, longest {:?}", took[10], took[19]);
    assert!(took[10] < SECOND, "{took:?}");
}

#[tokio::test]
async fn waiter_without_permission_to_subscribe_polls() {
    let Some(server) = server() else { return };
    server.ask::<()>(&["ACL", "SETUSER", "default", "resetchannels"]);
    let lock = store(&server).lock(LONG).await.unwrap();
    let waiting = store(&server);
    let waiter = tokio::spawn(async move { waiting.lock(LONG).await });
    tokio::time::sleep(ms(300)).await;
    let calls = calls(&server, "eval");
    assert!(calls < 10, "{calls} in a third of a second");

    let released = Instant::now();
    lock.release().await;
    waiter.await.unwrap().unwrap().release().await;
    assert!(released.elapsed() < 10 * SECOND, "before the lease has run out");
}

#[tokio::test]
async fn waiter_subscribes_again_after_its_connection_is_closed() {
    let Some(server) = server() else { return };
    let store_of_holder = store(&server).lease(LONG);
    let lock = store_of_holder.lock(LONG).await.unwrap();
    let waiting = store(&server);
    let waiter = tokio::spawn(async move { waiting.lock(LONG).await });
    listening(&server, 1).await;
    let killed: usize = server.ask(&["CLIENT", "KILL", "SKIPME", "yes", "TYPE", "pubsub"]);
    assert_eq!(killed, 1);
    listening(&server, 1).await;
    let released = Instant::now();
    lock.release().await;
    waiter.await.unwrap().unwrap().release().await;
    assert!(released.elapsed() < 4 * SECOND, "woken by the release and not by the lease");
}

#[tokio::test]
async fn lease_is_renewed_while_the_lock_is_held() {
    let Some(server) = server() else { return };
    let lease = ms(1500);
    let lock = store(&server).lease(lease).lock(LONG).await.unwrap();
    let other = store(&server);
    let error = other.lock(4 * lease).await.unwrap_err();
    assert!(error.is_held(), "{error}");
    assert!(held(&lock).await);
    lock.release().await;
    assert!(is_free(&other).await);
}

#[test]
fn lease_of_a_runtime_that_is_not_polled_runs_out() {
    let Some(server) = server() else { return };
    let stores = [store(&server).lease(ms(300)), store(&server)];
    let took = shared::leases::lease_of_a_runtime_that_is_not_polled_runs_out(stores);
    assert!(took < 5 * SECOND);
}

#[tokio::test]
async fn expired_lease_is_lost_even_if_the_lock_is_free() {
    let Some(server) = server() else { return };
    let lock = store(&server).lease(LONG).lock(LONG).await.unwrap();
    assert!(held(&lock).await);
    server.ask::<()>(&["HSET", KEY, "lease_until_ms", "1"]);
    assert!(!held(&lock).await);
    assert!(!held(&lock).await, "a lost lock stays lost");
}

#[tokio::test]
async fn is_held_renews_the_lease_for_its_full_length() {
    let Some(server) = server() else { return };
    let lock = store(&server).lease(LONG).lock(LONG).await.unwrap();
    let until = || server.field(KEY, "lease_until_ms").unwrap().parse::<u64>().unwrap();
    let before = until();
    tokio::time::sleep(ms(50)).await;
    assert!(held(&lock).await);
    assert!(until() >= before + 50);
}

#[test]
fn lease_renewed_by_is_held_ends_later() {
    let Some(server) = server() else { return };
    // Nothing is renewed while the first is not polled.
    let (idle, lively) = (runtime(), runtime());
    let store = store(&server).lease(6 * SECOND);
    let lock = idle.block_on(async {
        let lock = store.lock(LONG).await.unwrap();
        tokio::time::sleep(ms(1)).await;
        lock
    });
    std::thread::sleep(ms(4500));
    store.connector.forget();
    assert!(lively.block_on(held(&lock)), "in the last of its first six seconds");
    std::thread::sleep(ms(1700));
    store.connector.forget();
    // Now they are over, it is time to renew, and there is no answer.
    server.freeze();
    idle.block_on(async { tokio::time::sleep(ms(300)).await });
    server.thaw();
    assert!(idle.block_on(held(&lock)), "the next six seconds are not over");
    idle.block_on(lock.release());
}

#[tokio::test]
async fn lock_that_cannot_be_renewed_is_lost_with_its_lease() {
    let Some(server) = server() else { return };
    let lock = store(&server).lease(2 * SECOND).timeout(ms(500)).lock(LONG).await.unwrap();
    server.freeze();
    assert!(lock.is_held().await.is_err(), "the outcome is unknown");
    tokio::time::sleep(3 * SECOND).await;
    assert!(!held(&lock).await, "known without a request");
    server.thaw();
    assert!(!held(&lock).await);
}

#[tokio::test]
async fn clock_set_back_prolongs_a_lease_by_at_most_its_length() {
    let Some(server) = server() else { return };
    let lock = store(&server).lease(ms(300)).lock(LONG).await.unwrap();
    // As if the process were gone, and the server's clock were an hour behind what it was.
    std::mem::forget(lock);
    server.ask::<()>(&["HSET", KEY, "owner", "gone"]);
    let until: u64 = server.field(KEY, "lease_until_ms").unwrap().parse().unwrap();
    server.ask::<()>(&["HSET", KEY, "lease_until_ms", &(until + 3_600_000).to_string()]);
    let asked = Instant::now();
    store(&server).lock(10 * SECOND).await.unwrap().release().await;
    println!("a lease of 300 ms was over {:?} after the clock was set back", asked.elapsed());
}

#[tokio::test]
async fn each_holder_has_a_higher_fence() {
    let Some(server) = server() else { return };
    let store = store(&server);
    for fence in ["1", "2", "3"] {
        let lock = store.lock(LONG).await.unwrap();
        assert_eq!(server.field(KEY, "fence").as_deref(), Some(fence));
        assert!(format!("{lock:?}").contains(&format!("fence: {fence}")), "{lock:?}");
        lock.release().await;
    }
}
