//! Broken connections, ended runtimes, silent servers.

use std::time::Instant;

use super::*;
use crate::store::tests::cuts::{Cuts, everywhere};

#[tokio::test]
async fn connection_cut_at_any_byte_costs_one_reconnect() {
    cut(1).await;
}

#[tokio::test]
async fn connection_cut_each_time_is_unavailable_and_harmless() {
    cut(usize::MAX).await;
}

async fn cut(connections: usize) {
    let Some(server) = server_with(&["--appendonly", "no"]) else { return };
    let proxy = Proxy::to(server.port()).await;
    let direct = store(&server).lease(LONG);
    // More bytes than pass in either direction.
    let (to_server, to_client) = ((0..6000).step_by(157), (0..1700).step_by(19));
    let stores = |key: &str| {
        let cut = RedisStore::new(through(&proxy), key).unwrap().lease(LONG).timeout(10 * SECOND);
        [direct.for_key(key).unwrap(), cut]
    };
    everywhere(&proxy, Cuts { connections, to_server, to_client }, stores, break_off).await;
}

/// The next request makes a new connection.
fn break_off(store: &RedisStore) {
    store.connector.forget();
}

#[tokio::test]
async fn idle_connection_that_was_closed_is_replaced() {
    let Some(server) = server() else { return };
    let store = store(&server);
    let first = record(None, "1");
    save(&store, &first, None).await;
    for _ in 0..20 {
        server.ask::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        assert_eq!(loaded(&store).await, Some(first.write_id()));
    }
}

#[tokio::test]
async fn silent_connection_is_replaced_within_the_timeout() {
    let Some(server) = server() else { return };
    let proxy = Proxy::to(server.port()).await;
    let limit = 4 * SECOND;
    let store = store_at(&through(&proxy)).timeout(limit);
    let first = record(None, "1");
    save(&store, &first, None).await;
    proxy.silence();
    let asked = Instant::now();
    // A request in flight still passes, and its answer does not.
    assert_eq!(loaded(&store).await, Some(first.write_id()));
    assert_eq!(loaded(&store).await, Some(first.write_id()));
    println!("found out after {:?} of {limit:?}", asked.elapsed());
    assert!(asked.elapsed() >= limit / 2);
}

#[tokio::test]
async fn frozen_server_delays_a_request_by_no_more_than_the_timeout() {
    let Some(server) = server() else { return };
    let limit = SECOND;
    let store = store(&server).timeout(limit);
    let first = record(None, "1");
    save(&store, &first, None).await;
    let lock = store.lock(LONG).await.unwrap();
    let fresh = RedisStore::new(server.url(), "grant").unwrap().timeout(limit);
    server.freeze();
    for store in [&store, &fresh] {
        let asked = Instant::now();
        for error in [
            store.load().await.unwrap_err(),
            store.lock(LONG).await.unwrap_err(),
            store.save(&first, None).await.unwrap_err(),
            lock.is_held().await.unwrap_err(),
        ] {
            assert!(error.is_unavailable() && error.to_string().contains("in time"), "{error}");
        }
        println!("four requests took {:?}", asked.elapsed());
        assert!(asked.elapsed() >= 4 * limit && asked.elapsed() < 4 * limit + 5 * SECOND);
    }
    let asked = Instant::now();
    lock.release().await;
    assert!(asked.elapsed() < 5 * SECOND);
    server.thaw();
    assert_eq!(loaded(&store).await, Some(first.write_id()));
    assert_eq!(loaded(&fresh).await, Some(first.write_id()));
}

#[tokio::test]
async fn missing_server_is_unavailable_without_the_password() {
    // Nothing listens on port 1.
    let store = store_at("redis://user:sesame@127.0.0.1:1/0");
    let asked = Instant::now();
    let error = store.load().await.unwrap_err();
    let said = error.to_string();
    assert!(error.is_unavailable() && said.contains("the Redis at 127.0.0.1:1"), "{said}");
    assert!(!said.contains("sesame"), "{said}");
    assert!(asked.elapsed() < 5 * SECOND, "refused is refused");
}

#[test]
fn store_outlives_the_runtime_that_connected_it() {
    let Some(server) = server() else { return };
    let store = store(&server);
    let first = record(None, "1");
    let threads = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let one = threads();
    let lock = one.block_on(async {
        save(&store, &first, None).await;
        store.lock(LONG).await.unwrap()
    });
    one.shutdown_timeout(SECOND);

    let two = threads();
    two.block_on(async {
        let asked = Instant::now();
        assert_eq!(loaded(&store).await, Some(first.write_id()));
        assert!(asked.elapsed() < 2 * SECOND, "detected at once, not by the timeout");
        assert!(held(&lock).await);
        lock.release().await;
        assert!(is_free(&store).await);
    });

    // A runtime that is not polled drives no connection either.
    let (three, four) = (runtime(), runtime());
    let store = store.for_key("other").unwrap().timeout(4 * SECOND);
    break_off(&store);
    three.block_on(save(&store, &first, None));
    four.block_on(async { assert_eq!(loaded(&store).await, Some(first.write_id())) });
    three.block_on(async { assert_eq!(loaded(&store).await, Some(first.write_id())) });
}

#[test]
fn lock_dropped_with_its_runtime_is_released_or_runs_out() {
    let Some(server) = server() else { return };
    let store = store(&server).lease(SECOND);
    let one = runtime();
    let lock = one.block_on(store.lock(LONG)).unwrap();
    drop(one);
    drop(lock);
    runtime().block_on(async { store.lock(LONG).await.unwrap().release().await });
}

#[test]
fn store_without_a_runtime_is_misconfigured() {
    let store = RedisStore::new("redis://127.0.0.1:1/", "grant").unwrap();
    let poll = tokio_test::task::spawn(store.load()).poll();
    let std::task::Poll::Ready(Err(error)) = poll else { panic!("{poll:?}") };
    assert!(error.is_misconfigured(), "{error}");
    let poll = tokio_test::task::spawn(store.lock(SECOND)).poll();
    let std::task::Poll::Ready(Err(error)) = poll else { panic!("{poll:?}") };
    assert!(error.is_misconfigured(), "{error}");
}
