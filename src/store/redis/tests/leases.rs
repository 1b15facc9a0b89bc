//! The lock.

use std::time::Instant;

use tokio::task::JoinSet;

use super::*;

#[tokio::test]
async fn the_lock_is_exclusive_until_it_is_released() {
    let Some(server) = Server::start() else { return };
    let (one, two) = (store(&server), store(&server));
    let lock = one.lock(LONG).await.unwrap();
    assert!(held(&lock).await);

    let asked = Instant::now();
    let error = two.lock(ms(200)).await.unwrap_err();
    assert!(error.is_held(), "{error}");
    assert!(asked.elapsed() >= ms(200));
    assert!(!is_free(&two).await);
    assert!(!is_free(&one).await, "the same handle shares it with nobody, not even itself");

    lock.release().await;
    assert!(is_free(&two).await);
    assert!(two.load().await.unwrap().is_none(), "a lock is no record");
}

#[tokio::test]
async fn a_lock_that_is_dropped_is_let_go_of_behind_everybodys_back() {
    let Some(server) = Server::start() else { return };
    let store = store(&server);
    drop(store.lock(LONG).await.unwrap());
    // Before the lease runs out.
    store.lock(10 * SECOND).await.unwrap().release().await;
}

#[tokio::test]
async fn a_lock_is_dropped_where_there_is_no_runtime() {
    let Some(server) = Server::start() else { return };
    let store = store(&server);
    let lock = store.lock(LONG).await.unwrap();
    std::thread::spawn(move || drop(lock)).join().unwrap();
    store.lock(10 * SECOND).await.unwrap().release().await;
}

#[tokio::test]
async fn to_lock_and_give_up_at_any_moment_leaves_no_lock_behind() {
    let Some(server) = Server::start() else { return };
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
async fn those_who_wait_are_woken() {
    const WAITERS: usize = 20;

    let Some(server) = Server::start() else { return };
    let lock = store(&server).lease(LONG).lock(LONG).await.unwrap();
    let mut waiters = JoinSet::new();
    for _ in 0..WAITERS {
        let store = store(&server).lease(LONG);
        waiters.spawn(async move {
            let lock = store.lock(LONG).await.unwrap();
            let taken = Instant::now();
            // The next is then woken by this one.
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
    assert!(longest < 3 * SECOND, "woken, and not by the clock: {longest:?}");
}

#[tokio::test]
async fn one_who_waits_is_woken_promptly() {
    let Some(server) = Server::start() else { return };
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
        // Its connection goes with it.
        listening(&server, 0).await;
    }
    took.sort_unstable();
    println!("from release to lock: median {:?}, longest {:?}", took[10], took[19]);
    assert!(took[10] < SECOND, "{took:?}");
}

#[tokio::test]
async fn those_who_may_not_listen_look() {
    let Some(server) = Server::start() else { return };
    server.ask::<()>(&["ACL", "SETUSER", "default", "resetchannels"]);
    let lock = store(&server).lock(LONG).await.unwrap();
    let waiting = store(&server);
    let waiter = tokio::spawn(async move { waiting.lock(LONG).await });
    tokio::time::sleep(ms(300)).await;
    let calls = server.ask::<String>(&["INFO", "commandstats"]);
    let calls = calls.split("cmdstat_eval:calls=").nth(1).unwrap();
    let calls: u32 = calls.split(',').next().unwrap().parse().unwrap();
    assert!(calls < 10, "{calls} in a third of a second");

    let released = Instant::now();
    lock.release().await;
    waiter.await.unwrap().unwrap().release().await;
    assert!(released.elapsed() < 10 * SECOND, "before the lease has run out");
}

#[tokio::test]
async fn one_who_waits_hears_over_another_connection_when_the_first_is_gone() {
    let Some(server) = Server::start() else { return };
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
    assert!(released.elapsed() < 4 * SECOND, "woken, and not by the clock");
}

#[tokio::test]
async fn a_lease_is_renewed_as_long_as_the_lock_is_held() {
    let Some(server) = Server::start() else { return };
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
fn a_lease_runs_out_where_nobody_polls_and_the_lock_is_lost() {
    let Some(server) = Server::start() else { return };
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (frozen, lively) = (runtime(), runtime());
    let first = store(&server).lease(ms(300));
    let second = store(&server);
    let old = frozen.block_on(first.lock(LONG)).unwrap();

    let asked = Instant::now();
    let new = lively.block_on(second.lock(LONG)).unwrap();
    println!("a lease of 300 ms was over after {:?}", asked.elapsed());
    assert!(asked.elapsed() < 5 * SECOND);

    frozen.block_on(async {
        assert!(!held(&old).await);
        old.release().await;
    });
    assert!(lively.block_on(held(&new)), "who comes late lets go of nothing that is another's");
    lively.block_on(new.release());
}

#[tokio::test]
async fn a_lease_that_ran_out_is_lost_though_nobody_took_it() {
    let Some(server) = Server::start() else { return };
    let lock = store(&server).lease(LONG).lock(LONG).await.unwrap();
    assert!(held(&lock).await);
    server.ask::<()>(&["HSET", KEY, "lease_until_ms", "1"]);
    assert!(!held(&lock).await);
    assert!(!held(&lock).await, "once and for all");
}

#[tokio::test]
async fn to_ask_whether_a_lock_is_held_gives_the_lease_its_length_again() {
    let Some(server) = Server::start() else { return };
    let lock = store(&server).lease(LONG).lock(LONG).await.unwrap();
    let until = || server.field(KEY, "lease_until_ms").unwrap().parse::<u64>().unwrap();
    let before = until();
    tokio::time::sleep(ms(50)).await;
    assert!(held(&lock).await);
    assert!(until() >= before + 50);
}

#[test]
fn a_lease_that_was_given_its_length_again_is_over_that_much_later() {
    let Some(server) = Server::start() else { return };
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
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
async fn a_lock_that_cannot_be_renewed_is_lost_when_its_lease_is_over() {
    let Some(server) = Server::start() else { return };
    let lock = store(&server).lease(2 * SECOND).timeout(ms(500)).lock(LONG).await.unwrap();
    server.freeze();
    assert!(lock.is_held().await.is_err(), "nobody knows");
    tokio::time::sleep(3 * SECOND).await;
    assert!(!held(&lock).await, "it knows without asking");
    server.thaw();
    assert!(!held(&lock).await);
}

#[tokio::test]
async fn a_clock_that_was_set_back_holds_nobody_up_for_long() {
    let Some(server) = Server::start() else { return };
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
    let Some(server) = Server::start() else { return };
    let store = store(&server);
    for fence in ["1", "2", "3"] {
        let lock = store.lock(LONG).await.unwrap();
        assert_eq!(server.field(KEY, "fence").as_deref(), Some(fence));
        assert!(format!("{lock:?}").contains(&format!("fence: {fence}")), "{lock:?}");
        lock.release().await;
    }
}

/// Waits until so many listen for the lock.
async fn listening(server: &Server, waiters: usize) {
    for _ in 0..3000 {
        let (_, listening): (String, usize) = server.ask(&["PUBSUB", "NUMSUB", KEY]);
        if listening == waiters {
            return;
        }
        tokio::time::sleep(ms(10)).await;
    }
    panic!("not {waiters} listen");
}
