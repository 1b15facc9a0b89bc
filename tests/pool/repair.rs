//! A refresh that the operator asks for once a token endpoint is repaired.

use futures_util::future::join_all;
use tokio::time::advance;
use tower_refresh::testing::{Fault, TokioClock};
use tower_refresh::{Credentials, CredentialsPool};

use crate::harness::{MINUTE, SECOND, policy};
use crate::users::{Users, names};

fn pool(users: &Users, refreshes: usize) -> CredentialsPool<String> {
    let users = users.clone();
    CredentialsPool::builder(move |user: &String| users.stored(user).policy(policy()))
        .concurrent_refreshes(refreshes)
        .clock(TokioClock::new())
        .build()
}

async fn ask_all(all: &[Credentials]) -> usize {
    let tokens = join_all(all.iter().map(Credentials::tokens)).await;
    tokens.into_iter().filter(Result::is_ok).count()
}

#[tokio::test(start_paused = true)]
async fn refresh_after_a_repair_is_the_next_probe_of_an_outage() {
    let users = Users::new();
    let pool = pool(&users, 8);
    let all: Vec<_> = names(100).iter().map(|user| pool.get(user).unwrap()).collect();
    users.server.token_faults().once(Fault::unavailable().retry_after(10 * MINUTE));
    assert_eq!(ask_all(&all[..1]).await, 0);
    advance(SECOND).await;
    assert_eq!(ask_all(&all).await, 0);
    assert!(pool.pool_status().to_string().contains("; outage of http"), "{}", pool.pool_status());
    assert_eq!(users.server.counters().token_requests, 1);

    // The endpoint answers one of them, and requests for the others ask it within their backoff.
    all[7].refresh_now().await.unwrap();
    assert_eq!(users.server.counters().token_requests, 2);
    assert!(pool.pool_status().outages.is_empty());
    advance(5 * SECOND).await;
    assert_eq!(ask_all(&all[1..]).await, 99);
    users.assert_no_reuse();
}

#[tokio::test(start_paused = true)]
async fn refreshes_after_a_repair_probe_one_at_a_time_while_it_fails() {
    let users = Users::new();
    let pool = pool(&users, 8);
    let all: Vec<_> = names(100).iter().map(|user| pool.get(user).unwrap()).collect();
    users.server.token_faults().always(Fault::unavailable().retry_after(MINUTE).delay(SECOND));
    assert_eq!(ask_all(&all[..1]).await, 0);
    let before = users.server.counters().token_requests;
    let probes = join_all(all.iter().map(Credentials::refresh_now)).await;
    assert!(probes.iter().all(Result::is_err));
    let sent = users.server.counters().token_requests - before;
    assert_eq!(sent, 1, "those beside the probe are refused");
    users.assert_no_reuse();
}
