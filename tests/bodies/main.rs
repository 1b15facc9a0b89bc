//! Bodies that are sent twice, and the allocations of a request.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails in a helper fails its test"
)]
#![cfg_attr(not(feature = "full"), allow(dead_code, reason = "helpers of tests that were skipped"))]

mod allocations;
#[cfg(feature = "testing")]
mod bodies;
#[cfg(feature = "testing")]
#[path = "../harness/mod.rs"]
mod harness;
mod recorder;
mod streams;

/// Shows in the list of tests that some were skipped.
#[cfg(not(feature = "full"))]
#[test]
#[ignore = "the other tests of this crate need more features: run with `--all-features`"]
fn tests_skipped_without_all_features() {}
