//! Many waiters for one lock.

use std::time::Instant;

use tokio::task::JoinSet;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_for_a_refresh_send_a_constant_number_each() {
    let Some(database) = Database::new().await else { return };
    for waiters in [60, 500] {
        let statements = statements_of_waiters(&database, waiters, Ok("access")).await;
        println!("{waiters} waiters for a token: {statements} statements");
        assert!(statements <= 8 * waiters, "{statements}");
    }
}

/// While the endpoint is down: each of them makes a refresh of its own, and all wait for each one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_for_failing_refreshes_send_a_bounded_number_each() {
    let Some(database) = Database::new().await else { return };
    let waiters = 60;
    let statements = statements_of_waiters(&database, waiters, Err("down")).await;
    println!("{waiters} waiters for an error: {statements} statements");
    assert!(statements <= 40 * waiters, "{statements}");
}

/// Lets the first of many refreshes end with this result once the others wait for it. Returns how many statements were sent until
/// all have ended.
async fn statements_of_waiters(
    database: &Database,
    waiters: usize,
    result: Result<&'static str, &'static str>,
) -> usize {
    let name = waiters.to_string();
    let store = listening(&database.url).for_name(name).unwrap().lease(LONG);
    let stores = std::iter::repeat_n(store.clone(), waiters + 1);
    let all_others_wait = async {
        while store.grant.notices.as_ref().unwrap().listeners() < waiters {
            tokio::time::sleep(ms(10)).await;
        }
    };
    shared::waiters::refresh(stores, all_others_wait, result).await;
    store.grant.database.sent.load(Ordering::Relaxed)
}

#[tokio::test]
async fn release_wakes_a_waiter_that_listens() {
    let Some(database) = Database::new().await else { return };
    let store = listening(&database.url).lease(LONG);
    let lock = store.lock(LONG).await.unwrap();
    let grant = &store.grant;
    let notices = grant.notices.as_ref().unwrap();
    let mut listener = notices.listen(&grant.payload(), grant.limits, LONG).await.unwrap();
    let mut other = notices.listen("other", grant.limits, LONG).await.unwrap();
    grant.acquire(WriteId::random(), true).await.unwrap();
    lock.release().await;
    tokio::time::timeout(LONG, listener.heard()).await.unwrap();
    assert!(tokio::time::timeout(Duration::ZERO, other.heard()).await.is_err());
}

#[tokio::test]
async fn waiters_of_another_process_take_the_released_lock() {
    let Some(database) = Database::new().await else { return };
    let mut took = Vec::new();
    let waiting = listening(&database.url);
    for _ in 0..20 {
        let lock = database.store().lease(LONG).lock(LONG).await.unwrap();
        let store = waiting.clone();
        let waiter = tokio::spawn(async move {
            let lock = store.lock(LONG).await.unwrap();
            let taken = Instant::now();
            lock.release().await;
            taken
        });
        hears(&waiting, &database).await;
        let released = Instant::now();
        lock.release().await;
        took.push(waiter.await.unwrap().saturating_duration_since(released));
    }
    took.sort_unstable();
    println!("from release to lock: median {:?}, longest {:?}", took[10], took[19]);
}

#[test]
fn waiters_that_stop_at_once_leave_nothing_behind() {
    let store = listening("host=127.0.0.1");
    let notices = store.grant.notices.as_ref().unwrap();
    let (threads, rounds) = (4, 2000);
    let together = std::sync::Barrier::new(threads);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for round in 0..rounds {
                    let listener =
                        super::super::notices::Listener::new(notices, &round.to_string());
                    together.wait();
                    drop(listener);
                }
            });
        }
    });
    assert_eq!((notices.listeners(), notices.payloads()), (0, 0));
}

#[tokio::test]
async fn connection_that_listens_is_opened_for_waiters_only() {
    let Some(database) = Database::new().await else { return };
    let store = listening(&database.url);
    let others = async || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
        database.ask(query).await.get::<_, i64>(0)
    };
    everything(&store.for_name("other").unwrap()).await.unwrap();
    let notices = store.grant.notices.as_ref().unwrap();
    while notices.is_on() {
        tokio::time::sleep(ms(50)).await;
    }
    store.lock(LONG).await.unwrap().release().await;
    assert_eq!(others().await, 0, "a free lock needs none");

    let lock = store.lock(LONG).await.unwrap();
    let mut waiters = JoinSet::new();
    for _ in 0..20 {
        let store = store.clone();
        waiters.spawn(async move { store.lock(LONG).await.unwrap().release().await });
    }
    hears(&store, &database).await;
    assert_eq!(others().await, 1);
    lock.release().await;
    waiters.join_all().await;
    for _ in 0..3000 {
        if others().await == 0 {
            return;
        }
        tokio::time::sleep(ms(10)).await;
    }
    panic!("the connection is still open");
}

#[tokio::test]
async fn release_without_a_listener_sends_no_notification() {
    let Some(database) = Database::new().await else { return };
    let lock = database.store().lock(LONG).await.unwrap();
    database.store().lock(ms(1)).await.unwrap_err();
    assert_eq!(database.column("is_waited").await.as_deref(), Some("false"));
    lock.release().await;
}

#[tokio::test]
async fn waiter_listens_again_after_its_connection_is_closed() {
    let Some(database) = Database::new().await else { return };
    let lock = database.store().lease(LONG).lock(LONG).await.unwrap();
    let waiting = listening(&database.url);
    let store = waiting.clone();
    let waiter = tokio::spawn(async move { store.lock(LONG).await });
    hears(&waiting, &database).await;
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    assert_eq!(database.ask(kill).await.get::<_, i64>(0), 1);
    hears(&waiting, &database).await;
    lock.release().await;
    waiter.await.unwrap().unwrap().release().await;
}

#[tokio::test]
async fn waiter_that_cannot_listen_polls_a_few_times_per_second() {
    let Some(database) = Database::new().await else { return };
    // Nothing listens on port 1.
    let wrong = config("host=127.0.0.1 port=1 user=postgres dbname=postgres");
    for store in [database.store(), database.store().listen_with(wrong, NoTls)] {
        let lock = store.lock(LONG).await.unwrap();
        let waiting = store.clone();
        let waiter = tokio::spawn(async move { waiting.lock(LONG).await });
        tokio::time::sleep(SECOND).await;
        let sent = store.grant.database.sent.load(Ordering::Relaxed);
        assert!(sent < 10, "{sent} in a second");
        lock.release().await;
        waiter.await.unwrap().unwrap().release().await;
    }
}

#[tokio::test]
async fn listening_behind_a_pooler_is_detected_as_deaf() {
    let Some(database) = Database::new().await else { return };
    let server = SERVER.as_ref().unwrap();
    let Some(pooler) = PgBouncer::start(&folder("pgbouncer"), server, 2) else { return };
    let waiting = listening(&pooler.url(&database.name)).timeout(SECOND);
    let lock = database.store().lease(LONG).lock(LONG).await.unwrap();
    let store = waiting.clone();
    let waiter = tokio::spawn(async move { store.lock(LONG).await });
    tokio::time::sleep(2 * SECOND).await;
    assert!(!waiting.grant.notices.as_ref().unwrap().is_on());
    lock.release().await;
    waiter.await.unwrap().unwrap().release().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn store_behind_a_pooler_in_transaction_mode_keeps_the_laws() {
    let Some(database) = Database::new().await else { return };
    let server = SERVER.as_ref().unwrap();
    let Some(pooler) = PgBouncer::start(&folder("pgbouncer"), server, 3) else { return };
    let url = pooler.url(&database.name);
    store_at(&url).migrate().await.unwrap();
    // Some listen to the server itself.
    let mut opened = 0;
    let open = async |name: &str| {
        opened += 1;
        let store = store_at(&url).for_name(name).unwrap();
        if opened % 2 == 0 { store } else { store.listen_with(config(&database.url), NoTls) }
    };
    crate::testing::store_laws(open).await;
}
