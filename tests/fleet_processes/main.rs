//! A fleet of processes that share a store spends each refresh token once, while processes and servers are killed and frozen.
//!
//! The processes are real. Each is this program again ([`worker`]), with its orders in the environment, and ends when its
//! standard input does. The authorization server and the API run in the process of the test.
//!
//! The tests compare the counters of the server with the reports of the processes, and assert no duration. Waits are as long as
//! a busy machine may need.
//!
//! `TOWER_REFRESH_FLEET=full` runs all rounds: 200 expiries, 500 kills, a token endpoint that takes 30 seconds. With it,
//! `TOWER_REFRESH_FLEET_EXPIRIES` sets the number of expiries of each of many users, which is 5 by default, and
//! `TOWER_REFRESH_FLEET_OUTAGE` the seconds that their token endpoint is down, which are 10. Without `redis-server`
//! or PostgreSQL the part that needs it is skipped, unless `TOWER_REFRESH_REQUIRE_REDIS` or `TOWER_REFRESH_REQUIRE_POSTGRES` is
//! set. `-- --nocapture` shows the figures.
#![cfg(all(
    unix,
    feature = "file-store",
    feature = "hyper-util",
    feature = "oauth2",
    feature = "pool",
    feature = "postgres",
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
    reason = "what fails in a helper fails its test; other processes do not follow a paused clock"
)]

#[path = "../harness/folder.rs"]
mod folder;
mod freezes;
mod kills;
mod load;
mod many;
mod many_users;
mod oidc_provider;
mod outages;
mod place;
mod process;
#[path = "../harness/servers/mod.rs"]
mod servers;
mod sessions;
mod stage;
mod steps;
mod worker;

/// The entry of the other processes.
#[tokio::test]
#[ignore = "is run by the other tests, in processes of its own"]
async fn worker() {
    if let Some(orders) = worker::Orders::from_environment() {
        worker::run(orders).await;
    }
}
