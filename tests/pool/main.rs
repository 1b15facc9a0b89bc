//! `CredentialsPool` and the layer over it, in paused time.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails in a helper fails its test"
)]
#![cfg_attr(not(feature = "full"), allow(dead_code, reason = "helpers of tests that were skipped"))]

#[cfg(feature = "full")]
mod at_random;
#[cfg(feature = "full")]
mod eviction;
#[cfg(feature = "full")]
#[path = "../harness/mod.rs"]
mod harness;
#[cfg(feature = "full")]
mod keyed;
#[cfg(feature = "full")]
mod limits;
#[cfg(feature = "full")]
#[path = "../harness/log.rs"]
mod log;
#[cfg(feature = "full")]
mod logs;
#[cfg(feature = "full")]
mod on_behalf;
#[cfg(feature = "full")]
mod outages;
#[cfg(feature = "full")]
#[path = "../harness/records.rs"]
mod records;
#[cfg(feature = "full")]
mod repair;
#[cfg(feature = "full")]
mod users;

/// Shows in the list of tests that some were skipped.
#[cfg(not(feature = "full"))]
#[test]
#[ignore = "the other tests of this crate need more features: run with `--all-features`"]
fn tests_skipped_without_all_features() {}
