//! Servers that stop, fail over, and are silent.

use std::time::Instant;

use super::*;

#[tokio::test]
async fn restart_of_the_server_keeps_the_record_and_the_lock() {
    let Some(mut server) = server(&[]) else { return };
    let database = Database::on(&server).await.unwrap();
    let store = database.store().lease(LONG);
    let first = record(None, "1");
    let lock = store.lock(LONG).await.unwrap();
    // Like the intent, which is saved under each lock.
    save(&store, &first, None).await;
    for _ in 0..3 {
        server.kill();
        let error = store.load().await.unwrap_err();
        assert!(
            error.is_unavailable() && error.to_string().contains("cannot be reached"),
            "{error}"
        );
        assert!(lock.is_held().await.unwrap_err().is_unavailable());
        server.start_again();
        let found = store.load().await.unwrap().unwrap();
        assert_eq!(found.write_id(), first.write_id());
        assert!(!found.is_doubted, "a restart loses nothing");
        assert!(held(&lock).await);
        assert!(!is_free(&database.store()).await);
    }
    lock.release().await;
    assert!(is_free(&store).await);
}

#[tokio::test]
async fn save_survives_a_crash_even_if_commits_are_asynchronous() {
    let settings = ["synchronous_commit=off", "wal_writer_delay=10s"];
    let Some(mut server) = server(&settings) else { return };
    let database = Database::on(&server).await.unwrap();
    let store = database.store();
    let mut last = record(None, "0");
    save(&store, &last, None).await;
    for number in 1..5 {
        let next = record(Some(&last), &number.to_string());
        save(&store, &next, Some(&last)).await;
        last = next;
        server.kill();
        server.start_again();
        assert_eq!(loaded(&store).await, Some(last.write_id()));
    }
}

#[tokio::test]
async fn standby_is_refused_and_doubted_after_its_promotion() {
    let Some(mut server) = server(&[]) else { return };
    let database = Database::on(&server).await.unwrap();
    let store = database.store();
    let first = record(None, "1");
    save(&store, &first, None).await;
    server.kill();
    std::fs::write(server.data().join("standby.signal"), "").unwrap();
    server.start_again();
    for error in [
        store.load().await.unwrap_err(),
        store.lock(LONG).await.unwrap_err(),
        store.save(&record(Some(&first), "2"), Some(first.write_id())).await.unwrap_err(),
    ] {
        assert!(error.is_unavailable() && error.to_string().contains("a standby"), "{error}");
    }
    assert!(database.ask("SELECT pg_promote()").await.get::<_, bool>(0));
    let found = store.load().await.unwrap().unwrap();
    assert!(found.is_doubted, "a standby may lack the last saves");
    let second = record(Some(&found), "2");
    save(&store, &second, Some(&found)).await;
    assert!(!store.load().await.unwrap().unwrap().is_doubted);
    let fresh = database.store().load().await.unwrap().unwrap();
    assert!(!fresh.is_doubted);
}

#[tokio::test]
async fn deleted_row_or_table_leaves_no_record_and_no_lock() {
    let Some(database) = Database::new().await else { return };
    let store = database.store();
    save(&store, &record(None, "1"), None).await;
    let lock = store.lock(LONG).await.unwrap();
    database.run("DELETE FROM tower_refresh").await;
    assert!(store.load().await.unwrap().is_none());
    assert!(!held(&lock).await);
    assert!(is_free(&store).await);
    database.run("DROP TABLE tower_refresh").await;
    let error = store.load().await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
}

#[tokio::test]
async fn silent_connections_are_replaced_within_the_timeout() {
    let Some(database) = Database::new().await else { return };
    let proxy = Proxy::to(SERVER.as_ref().unwrap().port()).await;
    let url = through(&proxy, &database.url);
    let limit = 2 * SECOND;
    let store = store_at(&url).timeout(limit);
    let first = record(None, "1");
    save(&store, &first, None).await;
    // Several connections.
    let loads = std::iter::repeat_with(|| store.load()).take(4);
    futures_util::future::join_all(loads).await;
    proxy.silence();
    let asked = Instant::now();
    // A request in flight still passes, and its answer does not.
    assert_eq!(loaded(&store).await, Some(first.write_id()));
    assert_eq!(loaded(&store).await, Some(first.write_id()));
    println!("found out after {:?} of {limit:?}", asked.elapsed());
}

#[tokio::test]
async fn row_locked_by_another_session_is_unavailable_in_time() {
    let Some(database) = Database::new().await else { return };
    let store = database.store().lease(LONG).timeout(SECOND);
    let first = record(None, "1");
    save(&store, &first, None).await;
    let lock = store.lock(LONG).await.unwrap();
    let other = connect(&database.url).await;
    other.batch_execute("BEGIN; SELECT FROM tower_refresh FOR UPDATE").await.unwrap();
    assert_eq!(loaded(&store).await, Some(first.write_id()), "a load does not wait");
    for error in [
        store.save(&record(Some(&first), "2"), Some(first.write_id())).await.unwrap_err(),
        lock.is_held().await.unwrap_err(),
    ] {
        assert!(error.is_unavailable() && error.to_string().contains("in time"), "{error}");
    }
    assert!(!is_free(&store).await, "a waiter only reads");
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    assert_eq!(database.ask(waiting).await.get::<_, i64>(0), 0, "a session is left behind");
    other.batch_execute("ROLLBACK").await.unwrap();
    assert!(held(&lock).await);
    lock.release().await;
}

#[tokio::test]
async fn lock_that_cannot_be_renewed_is_lost_with_its_lease() {
    let Some(database) = Database::new().await else { return };
    let store = database.store().lease(SECOND).timeout(ms(300));
    let lock = store.lock(LONG).await.unwrap();
    let other = connect(&database.url).await;
    other.batch_execute("BEGIN; SELECT FROM tower_refresh FOR UPDATE").await.unwrap();
    assert!(lock.is_held().await.is_err(), "the outcome is unknown");
    tokio::time::sleep(2 * SECOND).await;
    assert!(!held(&lock).await, "known without a statement");
    other.batch_execute("ROLLBACK").await.unwrap();
    assert!(!held(&lock).await);
}

#[tokio::test]
async fn exhausted_pool_is_unavailable_in_time() {
    let Some(database) = Database::new().await else { return };
    let pool = pool_at(&database.url, 1);
    let store = PostgresStore::new(pool.clone(), "grant").unwrap().pool_timeout(ms(200));
    let occupied = pool.get().await.unwrap();
    let error = store.load().await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("max_size"), "{error}");
    drop(occupied);
    assert!(store.load().await.unwrap().is_none());
    pool.close();
    assert!(store.load().await.unwrap_err().is_misconfigured());
}

#[tokio::test]
async fn missing_server_is_unavailable_without_the_password() {
    // Nothing listens on port 1.
    let store = store_at("host=127.0.0.1 port=1 user=compass password=sesame dbname=compass");
    let error = store.load().await.unwrap_err();
    let said = format!("{error} {error:?} {store:?}");
    assert!(error.is_unavailable() && said.contains("cannot be reached"), "{said}");
    assert!(!said.contains("sesame"), "{said}");
}

#[test]
fn store_outlives_the_runtime_that_connected_it() {
    let threads = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let one = threads();
    let Some(database) = one.block_on(Database::new()) else { return };
    let store = listening(&database.url);
    let first = record(None, "1");
    let lock = one.block_on(async {
        save(&store, &first, None).await;
        let lock = store.lock(LONG).await.unwrap();
        store.lock(ms(100)).await.unwrap_err();
        lock
    });
    one.shutdown_timeout(SECOND);

    let two = threads();
    two.block_on(async {
        assert_eq!(loaded(&store).await, Some(first.write_id()));
        assert!(held(&lock).await);
        let waiting = store.clone();
        let waiter = tokio::spawn(async move { waiting.lock(LONG).await });
        hears(&store, &database).await;
        lock.release().await;
        waiter.await.unwrap().unwrap().release().await;
    });
}

#[test]
fn store_without_a_runtime_is_misconfigured() {
    let store = store_at("host=127.0.0.1 port=1 user=compass");
    for poll in [
        tokio_test::task::spawn(store.load()).poll().map_ok(drop),
        tokio_test::task::spawn(store.lock(SECOND)).poll().map_ok(drop),
    ] {
        let std::task::Poll::Ready(Err(error)) = poll else { panic!("{poll:?}") };
        assert!(error.is_misconfigured(), "{error}");
    }
}
