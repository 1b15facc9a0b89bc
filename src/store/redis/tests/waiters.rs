//! Many credentials that wait for one lock.

use super::*;

const WAITERS: usize = 60;

/// S12
#[tokio::test]
async fn waiters_for_a_refresh_send_a_constant_number_of_scripts_each() {
    let Some(server) = server() else { return };
    let scripts = scripts_of_waiters(&server, Ok("access")).await;
    println!("{WAITERS} waiters for a token: {scripts} scripts");
    assert!(scripts <= 8 * WAITERS, "{scripts}");
}

/// S12, while the server is down: each of them makes a refresh of its own, and all wait for each one.
#[tokio::test]
async fn waiters_for_failing_refreshes_send_a_bounded_number_of_scripts_each() {
    let Some(server) = server() else { return };
    let scripts = scripts_of_waiters(&server, Err("down")).await;
    println!("{WAITERS} waiters for an error: {scripts} scripts");
    assert!(scripts <= 40 * WAITERS, "{scripts}");
}

/// Lets the first of many refreshes end with this result once the others wait for it. Returns how many scripts were sent until
/// all have ended.
async fn scripts_of_waiters(
    server: &RedisServer,
    result: Result<&'static str, &'static str>,
) -> usize {
    let stores = (0..=WAITERS).map(|_| store(server).lease(LONG));
    shared::waiters::refresh(stores, listening(server, WAITERS), result).await;
    calls(server, "eval")
}
