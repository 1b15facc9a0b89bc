//! The layer in its stacks: tower, hyper-util, axum, tonic and reqwest.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails in a helper fails its test"
)]
#![cfg_attr(not(feature = "full"), allow(dead_code, reason = "helpers of tests that were skipped"))]

#[cfg(all(feature = "axum", feature = "oauth2", feature = "testing"))]
mod axum;
#[cfg(all(feature = "oauth2", feature = "testing"))]
mod connections;
#[cfg(all(feature = "pool", feature = "reqwest", feature = "testing"))]
mod echo;
#[cfg(all(feature = "testing", feature = "tonic"))]
mod grpc;
#[cfg(all(feature = "testing", feature = "tonic"))]
mod grpc_deadline;
#[cfg(feature = "testing")]
#[path = "../harness/mod.rs"]
mod harness;
#[cfg(feature = "tonic")]
mod hold_trailers;
#[cfg(feature = "tonic")]
mod raw_grpc;
#[cfg(all(feature = "oauth2", feature = "reqwest", feature = "testing"))]
mod reqwest;
#[cfg(all(feature = "pool", feature = "reqwest", feature = "testing"))]
mod reqwest_client;
#[cfg(all(feature = "pool", feature = "reqwest-middleware", feature = "testing"))]
mod reqwest_middleware;
#[cfg(feature = "testing")]
mod stacks;
#[cfg(all(feature = "oauth2", feature = "reqwest", feature = "tonic"))]
mod struct_fields;

/// Shows in the list of tests that some were skipped.
#[cfg(not(feature = "full"))]
#[test]
#[ignore = "the other tests of this crate need more features: run with `--all-features`"]
fn tests_skipped_without_all_features() {}
