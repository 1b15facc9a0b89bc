//! What a fleet promises: processes that share a store spend each refresh token once, whatever is killed, frozen or cut off.
//!
//! The processes are real. Each is this program again ([`worker`]), with what to do in its environment, and ends when its
//! standard input does. The authorization server and the API are in the process of the test.
//!
//! What is promised is said as equations over what the server counted and what the processes said, never as a time. Waits are
//! as long as a busy machine may need.
//!
//! `TOWER_REFRESH_FLEET=full` runs all of it: 200 expiries, 500 kills, a token endpoint that takes 30 seconds. Without
//! `redis-server` the half that needs it is left out, unless `TOWER_REFRESH_REQUIRE_REDIS` is set. The figures are printed:
//! `-- --nocapture`.
#![cfg(all(
    unix,
    feature = "file-store",
    feature = "hyper-util",
    feature = "oauth2",
    feature = "redis",
    feature = "testing"
))]
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test says what went wrong by where it fails; other processes do not follow a paused clock"
)]

#[path = "../harness/folder.rs"]
mod folder;
mod freezes;
mod kills;
mod load;
mod oidc_provider;
mod outages;
mod place;
mod process;
mod redis_server;
mod sessions;
mod stage;
mod steps;
mod worker;

/// What the other processes are.
#[tokio::test]
#[ignore = "is run by the other tests, in processes of its own"]
async fn worker() {
    if let Some(orders) = worker::Orders::from_environment() {
        worker::run(orders).await;
    }
}
