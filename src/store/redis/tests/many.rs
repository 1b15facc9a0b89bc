//! Many keys over one connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::*;
use crate::store::redis::releases::{Listener, unsubscribe};
use crate::{Credentials, Renewal};

#[tokio::test]
async fn thousand_users_refresh_over_one_connection() {
    const USERS: usize = 1000;

    let Some(server) = server() else { return };
    let store = store(&server);
    // A waiter of one key does not hold up the others.
    let held = store.lock(LONG).await.unwrap();
    let waiting = store.clone();
    let wait = async move { waiting.lock(Duration::MAX).await.unwrap().release().await };
    let waiter = tokio::spawn(wait);
    listening(&server, 1).await;
    let before = scripts(&server);

    let refreshes = Arc::new(AtomicUsize::new(0));
    let mut users = JoinSet::new();
    for user in 0..USERS {
        let refreshes = Arc::clone(&refreshes);
        let source = move |_: Renewal| {
            refreshes.fetch_add(1, Ordering::SeqCst);
            async move { TokenSet::bearer(format!("access-{user}")) }
        };
        let store = store.for_key(user.to_string()).unwrap();
        let credentials = Credentials::builder(source).store(store).build();
        users.spawn(async move {
            let tokens = credentials.tokens().await.unwrap();
            assert_eq!(tokens.access_token().expose_secret(), format!("access-{user}"));
        });
    }
    while let Some(user) = users.join_next().await {
        user.unwrap();
    }
    assert_eq!(refreshes.load(Ordering::SeqCst), USERS);
    let scripts = scripts(&server) - before;
    println!("{USERS} refreshes: {scripts} scripts");
    assert!(scripts <= 6 * USERS, "{scripts}");

    held.release().await;
    waiter.await.unwrap();
    assert_eq!(calls(&server, "hello"), 1, "one connection");
}

#[tokio::test]
async fn subscription_of_a_key_ends_with_its_last_waiter() {
    const KEYS: usize = 50;
    const WAITERS: usize = 3;

    let Some(server) = server() else { return };
    let store = store(&server).lease(LONG);
    let mut locks = Vec::new();
    let mut waiters = Vec::new();
    for key in 0..KEYS {
        let store = store.for_key(key.to_string()).unwrap();
        locks.push(store.lock(LONG).await.unwrap());
        for _ in 0..WAITERS {
            let store = store.clone();
            let wait = async move { store.lock(LONG).await.unwrap().release().await };
            waiters.push(tokio::spawn(wait));
        }
    }
    subscribed(&server, KEYS).await;
    assert_eq!(store.connector.current().unwrap().releases.len(), KEYS);

    // The waiters of half the keys give up: first one of each key, then the others.
    for waiter in waiters.iter().take(KEYS / 2 * WAITERS).skip(1).step_by(WAITERS) {
        waiter.abort();
    }
    subscribed(&server, KEYS).await;
    for waiter in waiters.drain(..KEYS / 2 * WAITERS) {
        waiter.abort();
        assert!(waiter.await.is_err());
    }
    subscribed(&server, KEYS - KEYS / 2).await;

    // The waiters of the other keys get the lock.
    drop(locks);
    for waiter in waiters {
        waiter.await.unwrap();
    }
    subscribed(&server, 0).await;
    assert_eq!(store.connector.current().unwrap().releases.len(), 0);
    let clients: String = server.ask(&["CLIENT", "LIST"]);
    assert_eq!(clients.lines().count(), 2, "with the one that asks: {clients}");
}

#[test]
fn waiter_of_a_runtime_that_ends_leaves_no_subscription() {
    let Some(server) = server() else { return };
    let store = store(&server).lease(LONG);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (of_the_connection, of_the_waiter) = (runtime(), runtime());
    let link = of_the_connection.block_on(async {
        store.load().await.unwrap();
        store.connector.current().unwrap()
    });
    let listener = Listener::subscribe(Arc::clone(&link), KEY);
    let listener = of_the_connection.block_on(listener).unwrap().unwrap();
    of_the_waiter.spawn(async move {
        let _listener = listener;
        std::future::pending::<()>().await;
    });
    drop(of_the_waiter);
    of_the_connection.block_on(async {
        listening(&server, 0).await;
        while link.releases.len() > 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[tokio::test]
async fn listener_after_the_last_one_misses_no_release() {
    let Some(server) = server() else { return };
    let store = store(&server).lease(LONG);
    let mut longest = Duration::ZERO;
    for round in 0..100 {
        let lock = store.lock(LONG).await.unwrap();
        let wait = || {
            let store = store.clone();
            tokio::spawn(async move { store.lock(LONG).await.unwrap().release().await })
        };
        let last = wait();
        listening(&server, 1).await;
        // The subscription ends while the next one begins.
        last.abort();
        for _ in 0..round % 10 {
            tokio::task::yield_now().await;
        }
        let next = wait();
        tokio::time::sleep(Duration::from_micros(100 * (round % 20))).await;
        let released = Instant::now();
        lock.release().await;
        next.await.unwrap();
        longest = longest.max(released.elapsed());
        listening(&server, 0).await;
    }
    println!("at most {longest:?} from release to lock");
    assert!(longest < 4 * SECOND, "woken by the release: {longest:?}");
}

#[tokio::test]
async fn subscription_that_begins_while_another_ends_is_restored() {
    let Some(server) = server() else { return };
    let store = store(&server);
    store.load().await.unwrap();
    let link = store.connector.current().unwrap();
    let mut listener = Listener::subscribe(Arc::clone(&link), KEY).await.unwrap().unwrap();
    // As if the previous subscription of the key had just ended.
    unsubscribe(&link, KEY).await;
    listening(&server, 1).await;
    let began = Instant::now();
    listener.hear(LONG).await;
    assert!(began.elapsed() < 10 * SECOND, "asks again, because a release may have been missed");
    drop(listener);
    listening(&server, 0).await;
}

/// S12
#[tokio::test]
async fn five_hundred_waiters_of_a_key_share_one_subscription() {
    const WAITERS: usize = 500;

    let Some(server) = server() else { return };
    let store = store(&server).lease(LONG);
    let go = Arc::new(Notify::new());
    let mut waiters = JoinSet::new();
    for _ in 0..WAITERS {
        let go = Arc::clone(&go);
        let source = move |_: Renewal| {
            let go = Arc::clone(&go);
            async move {
                go.notified().await;
                TokenSet::bearer("access")
            }
        };
        let credentials = Credentials::builder(source).store(store.clone());
        let credentials = credentials.lock_timeout(Duration::MAX).build();
        waiters.spawn(async move { credentials.tokens().await });
    }
    // The others have asked for the lock, and the server has answered.
    while calls(&server, "eval") < 2 * WAITERS || subscriptions(&server) != 1 {
        tokio::time::sleep(ms(10)).await;
    }
    go.notify_one();
    while let Some(waiter) = waiters.join_next().await {
        waiter.unwrap().unwrap();
    }
    let (scripts, subscriptions) = (scripts(&server), calls(&server, "subscribe"));
    println!("{WAITERS} waiters: {scripts} scripts, {subscriptions} subscriptions");
    assert!(scripts <= 6 * WAITERS, "{scripts}");
    assert!(subscriptions <= 2, "{subscriptions}");
}

#[tokio::test]
async fn request_behind_others_is_not_given_up() {
    const REQUESTS: usize = 25;

    let server = Slow::start(Some(ms(40))).await;
    // The last answer takes twice as long as the limit.
    let store = store_at(&server.url).timeout(ms(500));
    let results = loads(&store, REQUESTS).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn server_that_does_not_greet_is_asked_by_few_connections() {
    let server = Slow::start(None).await;
    let store = store_at(&server.url).timeout(ms(800));
    let results = loads(&store, 500).await;
    for result in results {
        let error = result.unwrap_err();
        assert!(error.is_unavailable() && error.to_string().contains("in time"), "{error}");
    }
    let connections = server.connections();
    assert!(connections < 30, "{connections} connections for 500 keys");
}

async fn loads(store: &RedisStore, keys: usize) -> Vec<Result<(), StoreError>> {
    let mut loads = JoinSet::new();
    for key in 0..keys {
        let store = store.for_key(key.to_string()).unwrap();
        loads.spawn(async move { store.load().await.map(drop) });
    }
    loads.join_all().await
}

/// A server that delays each answer, or does not answer the greeting.
struct Slow {
    url: String,
    connections: Arc<AtomicUsize>,
}

impl Slow {
    async fn start(pause: Option<Duration>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://127.0.0.1:{}/", listener.local_addr().unwrap().port());
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut asked = Vec::new();
                    while client.read_buf(&mut asked).await.is_ok_and(|length| length > 0) {
                        let Some(pause) = pause else { continue };
                        if take(&mut asked, b"HELLO") {
                            client.write_all(b"%1\r\n+proto\r\n:3\r\n").await.unwrap();
                        }
                        while take(&mut asked, b"EVAL") {
                            tokio::time::sleep(pause).await;
                            client.write_all(b"*4\r\n_\r\n_\r\n_\r\n$1\r\n1\r\n").await.unwrap();
                        }
                    }
                });
            }
        });
        Self { url, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Takes the bytes up to the end of this command's name.
fn take(asked: &mut Vec<u8>, name: &[u8]) -> bool {
    let found = asked.windows(name.len()).position(|bytes| bytes == name);
    found.map(|at| asked.drain(..at + name.len())).is_some()
}

/// Waits until this many keys have subscribers.
async fn subscribed(server: &RedisServer, keys: usize) {
    for _ in 0..3000 {
        if subscriptions(server) == keys {
            return;
        }
        tokio::time::sleep(ms(10)).await;
    }
    panic!("{} keys have subscribers, and not {keys}", subscriptions(server));
}

fn subscriptions(server: &RedisServer) -> usize {
    server.ask::<Vec<String>>(&["PUBSUB", "CHANNELS"]).len()
}

fn scripts(server: &RedisServer) -> usize {
    calls(server, "eval")
}
