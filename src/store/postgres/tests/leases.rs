//! The lock.

use std::time::Instant;

use tokio::task::JoinSet;

use super::*;

#[tokio::test]
async fn lock_is_exclusive_until_it_is_released() {
    let Some(database) = Database::new().await else { return };
    let stores = [database.store(), database.store()];
    shared::leases::lock_is_exclusive_until_it_is_released(stores).await;
}

#[tokio::test]
async fn held_lock_occupies_no_connection_of_the_pool() {
    let Some(database) = Database::new().await else { return };
    // One connection for a hundred locks.
    let grants = PostgresStore::new(pool_at(&database.url, 1), "0").unwrap().timeout(10 * SECOND);
    let mut locks = Vec::new();
    for number in 0..100 {
        let grant = grants.for_name(number.to_string()).unwrap();
        locks.push(grant.lock(LONG).await.unwrap());
    }
    for lock in locks {
        assert!(held(&lock).await);
        lock.release().await;
    }
}

#[tokio::test]
async fn dropped_lock_is_released_in_the_background() {
    let Some(database) = Database::new().await else { return };
    let store = database.store().lease(LONG);
    drop(store.lock(LONG).await.unwrap());
    // Before the lease runs out.
    store.lock(10 * SECOND).await.unwrap().release().await;
    let lock = store.lock(LONG).await.unwrap();
    std::thread::spawn(move || drop(lock)).join().unwrap();
    store.lock(10 * SECOND).await.unwrap().release().await;
}

#[tokio::test]
async fn lock_future_dropped_at_any_time_leaves_no_lock() {
    let Some(database) = Database::new().await else { return };
    let other = database.store();
    let mut given_up = 0;
    for step in 0..60 {
        // From before the connection is made to after the lock is taken.
        let patience = Duration::from_micros(step * 100);
        let store = database.store().lease(LONG);
        given_up += u32::from(tokio::time::timeout(patience, store.lock(LONG)).await.is_err());
        other.lock(20 * SECOND).await.expect("before the lease runs out").release().await;
    }
    println!("given up {given_up} times of 60");
}

/// The release goes over another connection, and comes first.
#[tokio::test]
async fn lock_taken_after_its_future_was_dropped_is_released() {
    let Some(database) = Database::new().await else { return };
    database
        .run(
            "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END';
             CREATE TRIGGER pause BEFORE INSERT ON tower_refresh FOR EACH ROW EXECUTE FUNCTION pause()",
        )
        .await;
    let store = database.store().lease(LONG).timeout(4 * SECOND);
    // The connections are open.
    futures_util::future::join_all(std::iter::repeat_with(|| store.load()).take(4)).await;
    assert!(tokio::time::timeout(ms(200), store.lock(LONG)).await.is_err());
    database.run("DROP TRIGGER pause ON tower_refresh").await;
    assert_eq!(database.column("fence").await.as_deref(), Some("1"), "it was taken");
    let lock = database.store().lock(20 * SECOND).await;
    lock.expect("before the lease runs out").release().await;
}

#[tokio::test]
async fn lease_begins_when_a_connection_is_available() {
    let Some(database) = Database::new().await else { return };
    let pool = pool_at(&database.url, 1);
    let store = PostgresStore::new(pool.clone(), "grant").unwrap().pool_timeout(LONG);
    let store = store.lease(SECOND);
    let occupied = pool.get().await.unwrap();
    let waiting = store.clone();
    let waiter = tokio::spawn(async move { waiting.lock(LONG).await });
    tokio::time::sleep(2 * SECOND).await;
    drop(occupied);
    let lock = waiter.await.unwrap().unwrap();
    tokio::time::sleep(2 * SECOND).await;
    assert!(held(&lock).await, "it was renewed");
    lock.release().await;
}

#[tokio::test]
async fn lease_is_renewed_while_the_lock_is_held() {
    let Some(database) = Database::new().await else { return };
    // As if the token endpoint took twenty times as long as the lease.
    let lease = ms(300);
    let lock = database.store().lease(lease).lock(LONG).await.unwrap();
    let other = database.store();
    let error = other.lock(20 * lease).await.unwrap_err();
    assert!(error.is_held(), "{error}");
    assert!(held(&lock).await);
    lock.release().await;
    assert!(is_free(&other).await);
}

#[test]
fn lease_of_a_runtime_that_is_not_polled_runs_out() {
    let Some(database) = runtime().block_on(Database::new()) else { return };
    let stores = [database.store().lease(ms(300)), database.store()];
    shared::leases::lease_of_a_runtime_that_is_not_polled_runs_out(stores);
}

/// The endpoint takes longer than the lease, and the process was frozen meanwhile.
#[test]
fn successor_of_a_holder_that_lost_its_lease_is_saved() {
    let (frozen, lively) = (runtime(), runtime());
    let Some(database) = lively.block_on(Database::new()) else { return };
    let (first, second) = (database.store().lease(ms(300)), database.store());
    let one = record(None, "1");
    lively.block_on(save(&second, &one, None));
    let old = frozen.block_on(first.lock(LONG)).unwrap();
    let new = lively.block_on(second.lock(LONG)).unwrap();
    frozen.block_on(async {
        let two = record(Some(&one), "2");
        save(&first, &two, Some(&one)).await;
        assert!(!held(&old).await);
        // The other holder finds it with its load.
        assert_eq!(loaded(&second).await, Some(two.write_id()));
    });
    lively.block_on(new.release());
}

#[tokio::test]
async fn expired_lease_is_lost_even_if_the_lock_is_free() {
    let Some(database) = Database::new().await else { return };
    let lock = database.store().lease(LONG).lock(LONG).await.unwrap();
    assert!(held(&lock).await);
    database.run("UPDATE tower_refresh SET lease_until = '2000-01-01'").await;
    assert!(!held(&lock).await);
    assert!(!held(&lock).await, "a lost lock stays lost");
}

#[tokio::test]
async fn is_held_renews_the_lease_for_its_full_length() {
    let Some(database) = Database::new().await else { return };
    let lock = database.store().lease(LONG).lock(LONG).await.unwrap();
    let before = database.column("lease_until").await.unwrap();
    assert!(held(&lock).await);
    let query = format!("SELECT lease_until > '{before}' FROM tower_refresh");
    assert!(database.ask(&query).await.get::<_, bool>(0));
}

#[tokio::test]
async fn clock_set_back_prolongs_a_lease_by_at_most_its_length() {
    let Some(database) = Database::new().await else { return };
    let lock = database.store().lease(ms(300)).lock(LONG).await.unwrap();
    // As if the process were gone, and the server's clock were an hour behind what it was.
    std::mem::forget(lock);
    let update = "UPDATE tower_refresh SET lease_owner = 'gone', lease_until = lease_until + interval '1 hour'";
    database.run(update).await;
    let asked = Instant::now();
    database.store().lock(10 * SECOND).await.unwrap().release().await;
    println!("a lease of 300 ms was over {:?} after the clock was set back", asked.elapsed());
}

#[tokio::test]
async fn each_holder_has_a_higher_fence() {
    let Some(database) = Database::new().await else { return };
    let store = database.store();
    for fence in ["1", "2", "3"] {
        let lock = store.lock(LONG).await.unwrap();
        assert_eq!(database.column("fence").await.as_deref(), Some(fence));
        assert!(format!("{lock:?}").contains(&format!("fence: {fence}")), "{lock:?}");
        lock.release().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn longest_possible_wait_ends_with_the_release() {
    let Some(database) = Database::new().await else { return };
    for store in [database.store(), listening(&database.url)] {
        let lock = store.lock(Duration::MAX).await.unwrap();
        let mut waiters = JoinSet::new();
        for _ in 0..3 {
            let store = store.clone();
            waiters.spawn(async move { store.lock(Duration::MAX).await.unwrap().release().await });
        }
        tokio::time::sleep(ms(100)).await;
        assert!(waiters.try_join_next().is_none());
        lock.release().await;
        tokio::time::timeout(LONG, waiters.join_all()).await.unwrap();
    }
}
