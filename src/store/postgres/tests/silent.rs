//! Servers that accept connections and statements, and do not answer.

use tokio::net::TcpListener;

use super::*;

/// Returns the settings of a server that accepts connections and reads nothing.
async fn silent_server() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, format!("host=127.0.0.1 port={port} user=postgres dbname=postgres"))
}

#[tokio::test]
async fn release_is_noticed_while_the_listener_cannot_connect() {
    let Some(database) = Database::new().await else { return };
    let (_silent, url) = silent_server().await;
    let store = database.store().lease(LONG).listen_with(config(&url), NoTls);
    takes_a_released_lock_soon(&database, &store).await;
}

#[tokio::test]
async fn release_is_noticed_while_listen_is_not_answered() {
    let Some(database) = Database::new().await else { return };
    let proxy = Proxy::to(SERVER.as_ref().unwrap().port()).await;
    // The greeting passes, and the answer to `LISTEN` does not.
    proxy.swallow(b"LISTEN");
    let url = through(&proxy, &database.url);
    let store = database.store().lease(LONG).timeout(3 * SECOND).listen_with(config(&url), NoTls);
    takes_a_released_lock_soon(&database, &store).await;
    for _ in 0..1000 {
        if store.grant.notices.as_ref().unwrap().is_deaf() {
            return;
        }
        tokio::time::sleep(ms(10)).await;
    }
    panic!("the task still waits for an answer");
}

/// Polls as a store does that listens to nothing.
async fn takes_a_released_lock_soon(database: &Database, store: &PostgresStore) {
    let lock = database.store().lease(LONG).lock(LONG).await.unwrap();
    let waiting = store.clone();
    let waiter = tokio::spawn(async move { waiting.lock(LONG).await });
    tokio::time::sleep(ms(200)).await;
    lock.release().await;
    let took = tokio::time::timeout(10 * SECOND, waiter).await;
    took.expect("before the listener gives up").unwrap().unwrap().release().await;
}
