//! Stores, and credentials that share one.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails in a helper fails its test"
)]
#![cfg_attr(not(feature = "full"), allow(dead_code, reason = "helpers of tests that were skipped"))]

#[cfg(all(feature = "oauth2", feature = "store", feature = "testing"))]
mod continued;
#[cfg(all(feature = "oauth2", feature = "store", feature = "testing"))]
mod earlier_versions;
#[cfg(all(feature = "encrypted-store", feature = "testing"))]
mod encrypted_store;
#[cfg(all(unix, feature = "file-store"))]
mod file_store;
#[cfg(all(feature = "oauth2", feature = "store", feature = "testing"))]
mod fleet_model;
#[cfg(all(unix, feature = "file-store"))]
#[path = "../harness/folder.rs"]
mod folder;
#[cfg(feature = "testing")]
#[path = "../harness/mod.rs"]
mod harness;
#[cfg(all(feature = "store", feature = "testing"))]
mod laws;
#[cfg(all(feature = "oauth2", feature = "store", feature = "testing"))]
mod ledger;
#[cfg(all(feature = "oauth2", feature = "store", feature = "testing", feature = "tracing"))]
mod logs;
#[cfg(feature = "tracing")]
#[path = "../harness/records.rs"]
mod records;
#[cfg(all(feature = "oauth2", feature = "store", feature = "testing"))]
mod scripted;
#[cfg(all(feature = "oauth2", feature = "store", feature = "testing"))]
mod stored;
#[cfg(all(feature = "oauth2", feature = "store", feature = "testing"))]
mod stored_at_random;
#[cfg(all(feature = "oauth2", feature = "store", feature = "testing"))]
mod stored_failures;
#[cfg(all(unix, feature = "file-store", feature = "oauth2", feature = "testing"))]
mod stored_in_a_file;
#[cfg(all(feature = "oauth2", feature = "store", feature = "testing"))]
mod stored_sessions;
#[cfg(all(feature = "store", feature = "testing"))]
mod waiters;
#[cfg(all(feature = "oauth2", feature = "store", feature = "testing"))]
mod world;

/// Shows in the list of tests that some were skipped.
#[cfg(not(feature = "full"))]
#[test]
#[ignore = "the other tests of this crate need more features: run with `--all-features`"]
fn tests_skipped_without_all_features() {}
