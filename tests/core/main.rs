//! The layer and its credentials, in paused time, and the authorization server of `testing`.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails in a helper fails its test"
)]
#![cfg_attr(not(feature = "full"), allow(dead_code, reason = "helpers of tests that were skipped"))]

#[cfg(feature = "testing")]
mod api;
#[cfg(feature = "testing")]
mod attach;
#[cfg(feature = "testing")]
mod authorization_server;
#[cfg(all(feature = "oauth2", feature = "testing"))]
mod backoff;
#[cfg(feature = "testing")]
mod flight;
#[cfg(all(feature = "oauth2", feature = "testing"))]
#[path = "../harness/folder.rs"]
mod folder;
#[cfg(feature = "testing")]
#[path = "../harness/mod.rs"]
mod harness;
#[cfg(feature = "testing")]
mod host_header;
#[cfg(feature = "tracing")]
#[path = "../harness/log.rs"]
mod log;
#[cfg(feature = "testing")]
mod login_and_logout;
#[cfg(all(feature = "oauth2", feature = "testing", feature = "tracing"))]
mod logs;
#[cfg(feature = "full")]
mod metrics;
#[cfg(feature = "full")]
mod observe;
#[cfg(feature = "testing")]
mod origins;
#[cfg(all(feature = "oauth2", feature = "testing", feature = "tracing"))]
#[path = "../harness/records.rs"]
mod records;
#[cfg(all(feature = "oauth2", feature = "store", feature = "testing", feature = "tonic"))]
mod recursion;
#[cfg(feature = "testing")]
mod refresh_now;
#[cfg(feature = "testing")]
mod rejection;
#[cfg(feature = "testing")]
mod rejection_backoff;
#[cfg(feature = "testing")]
mod reports;
#[cfg(feature = "full")]
#[path = "../harness/scrape.rs"]
mod scrape;
#[cfg(all(feature = "oauth2", feature = "testing", feature = "tracing"))]
mod secrets;
#[cfg(feature = "testing")]
mod status;
#[cfg(all(feature = "oauth2", feature = "store", feature = "testing"))]
mod stopped;
#[cfg(feature = "testing")]
mod time;
mod troubleshooting;
#[cfg(all(feature = "oauth2", feature = "testing"))]
mod what_happens;

/// Shows in the list of tests that some were skipped.
#[cfg(not(feature = "full"))]
#[test]
#[ignore = "the other tests of this crate need more features: run with `--all-features`"]
fn tests_skipped_without_all_features() {}
