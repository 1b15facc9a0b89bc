//! Requests to a token endpoint, and its responses.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails in a helper fails its test"
)]
#![cfg_attr(not(feature = "full"), allow(dead_code, reason = "helpers of tests that were skipped"))]

#[cfg(all(feature = "decompression", feature = "oauth2"))]
mod answer_bodies;
#[cfg(feature = "oauth2")]
mod answers;
#[cfg(feature = "oauth2")]
mod configuration;
#[cfg(all(feature = "oauth2", feature = "testing"))]
mod endpoint;
#[cfg(feature = "testing")]
#[path = "../harness/folder.rs"]
mod folder;
#[cfg(feature = "testing")]
#[path = "../harness/mod.rs"]
mod harness;
#[cfg(feature = "tracing")]
#[path = "../harness/log.rs"]
mod log;
#[cfg(all(feature = "oauth2", feature = "tracing"))]
mod logs;
#[cfg(all(feature = "oauth2", feature = "testing"))]
mod on_behalf;
#[cfg(feature = "tracing")]
#[path = "../harness/records.rs"]
mod records;
#[cfg(all(feature = "oauth2", feature = "store", feature = "testing"))]
mod refresh;
#[cfg(feature = "oauth2")]
mod refusals;
#[cfg(feature = "oauth2")]
mod scripted;
#[cfg(all(
    feature = "hyper-util",
    feature = "oauth2",
    feature = "reqwest",
    feature = "store",
    feature = "testing"
))]
mod unsent;
#[cfg(feature = "oauth2")]
mod wire;
#[cfg(all(feature = "oauth2", feature = "store", feature = "testing"))]
mod wrong_clock;

/// Shows in the list of tests that some were skipped.
#[cfg(not(feature = "full"))]
#[test]
#[ignore = "the other tests of this crate need more features: run with `--all-features`"]
fn tests_skipped_without_all_features() {}
