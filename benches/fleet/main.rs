//! The cost of many users: a hit in a pool, a pool of 100,000 keys, and fleets of processes that share a store.
//!
//! `cargo bench --all-features --bench fleet`. The fleets are simulated with the crate's own pools in paused time. With `-- --draw`,
//! the picture of this folder is renewed.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a bench fails by panicking, and measures time"
)]

mod fleets;
mod hit;
mod many_keys;
mod simulation;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::time::Duration;

use tower_refresh::{TokenError, TokenSet};

fn main() {
    if support::lists() {
        return;
    }
    hit::print();
    many_keys::print();
    fleets::print();
}

/// Returns a token of 1 KiB that is valid for an hour.
fn token() -> Result<TokenSet, TokenError> {
    TokenSet::bearer("t".repeat(1024)).map(|tokens| tokens.with_expires_in(HOUR))
}

const HOUR: Duration = Duration::from_secs(3600);
