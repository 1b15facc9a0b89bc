//! Many credentials that wait for one lock.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::*;
use crate::{Credentials, Renewal, TokenError};

const WAITERS: usize = 60;

/// S12
#[tokio::test]
async fn waiters_for_a_refresh_send_a_constant_number_of_scripts_each() {
    let Some(server) = Server::start() else { return };
    let scripts = scripts_of_waiters(&server, Ok("access")).await;
    println!("{WAITERS} waiters for a token: {scripts} scripts");
    assert!(scripts <= 8 * WAITERS, "{scripts}");
}

/// S12, while the server is down: each of them makes a refresh of its own, and all wait for each one.
#[tokio::test]
async fn waiters_for_failing_refreshes_send_a_bounded_number_of_scripts_each() {
    let Some(server) = Server::start() else { return };
    let scripts = scripts_of_waiters(&server, Err("down")).await;
    println!("{WAITERS} waiters for an error: {scripts} scripts");
    assert!(scripts <= 40 * WAITERS, "{scripts}");
}

/// Lets the first of many refreshes end with this result once the others wait for it. Returns how many scripts were sent until
/// all have ended.
async fn scripts_of_waiters(server: &Server, result: Result<&'static str, &'static str>) -> usize {
    let go = Arc::new(Notify::new());
    let mut refreshes = JoinSet::new();
    for _ in 0..=WAITERS {
        let go = Arc::clone(&go);
        let source = move |_: Renewal| {
            let go = Arc::clone(&go);
            async move {
                go.notified().await;
                go.notify_one();
                match result {
                    Ok(token) => TokenSet::bearer(token),
                    Err(error) => Err(TokenError::transient(error)),
                }
            }
        };
        let credentials = Credentials::builder(source).store(store(server).lease(LONG)).build();
        refreshes.spawn(async move { credentials.tokens().await.is_ok() });
    }
    listening(server, WAITERS).await;
    go.notify_one();
    while let Some(refreshed) = refreshes.join_next().await {
        assert_eq!(refreshed.unwrap(), result.is_ok());
    }
    calls(server, "eval")
}
