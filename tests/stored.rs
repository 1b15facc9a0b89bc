//! What `Stored` promises: a refresh token is spent at most once, and what comes of it is saved before it is used.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by where it fails"
)]

mod harness;

use std::time::Duration;

use harness::policy;
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::store::{MemoryStore, Stored};
use tower_refresh::testing::{AuthorizationServer, TokioClock};
use tower_refresh::{Credentials, RefreshToken};

type Worker = Credentials<Stored<RefreshTokenGrant, MemoryStore>>;

/// A process of its own, as far as the store can tell.
fn worker(
    server: &AuthorizationServer,
    clock: TokioClock,
    refresh_token: RefreshToken,
    store: &MemoryStore,
) -> Worker {
    let endpoint = TokenEndpoint::new(server.token_service(), "https://as.test/token")
        .unwrap()
        .clock(clock.clone());
    let grant = RefreshTokenGrant::new(endpoint, refresh_token);
    let source = Stored::new(grant, store.clone()).clock(clock.clone());
    Credentials::with_policy(source, policy().clock(clock))
}

#[tokio::test(start_paused = true)]
async fn eight_that_share_a_store_spend_each_refresh_token_once() {
    let clock = TokioClock::new();
    let server = AuthorizationServer::builder()
        .access_token_lifetime(Duration::from_secs(60))
        .clock(clock.clone())
        .build();
    let store = MemoryStore::new();
    let first = server.issue_refresh_token();
    let workers: Vec<_> =
        (0..8).map(|_| worker(&server, clock.clone(), first.clone(), &store)).collect();

    for round in 1..=20 {
        let tokens =
            futures_util::future::join_all(workers.iter().map(|worker| worker.token())).await;
        for token in tokens {
            assert!(server.is_live(token.unwrap().access_token().expose_secret()));
        }
        assert_eq!(server.counters().token_requests, round);
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(server.counters().refresh_token_reuses, 0);
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_with_what_is_stored() {
    let clock = TokioClock::new();
    let server = AuthorizationServer::builder().clock(clock.clone()).build();
    let store = MemoryStore::new();
    let first = server.issue_refresh_token();

    let before = worker(&server, clock.clone(), first.clone(), &store);
    let token = before.token().await.unwrap();
    drop(before);
    let after = worker(&server, clock, first, &store);
    assert_eq!(
        after.token().await.unwrap().access_token().expose_secret(),
        token.access_token().expose_secret()
    );
    assert_eq!(server.counters().token_requests, 1);
    after.renew().await.unwrap();
    assert_eq!(server.counters().token_requests, 2);
    assert_eq!(server.counters().refresh_token_reuses, 0);
}
