//! Several hundred concurrent requests through `RefreshLayer`, with refreshes, a revocation, an outage and a restart.
//!
//! ```text
//! cargo run --example quickstart --features file-store,hyper-util,testing
//! ```
//!
//! The authorization server is that of `tower_refresh::testing`, on loopback. Its access tokens live for four seconds.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "a program has no importers, and uses the real clock"
)]

mod demo;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::args().len() > 1 {
        eprintln!("quickstart: takes no arguments; to call a real server, see `sidecar/README.md`");
        return ExitCode::FAILURE;
    }
    match demo::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                eprintln!("  because: {error}");
                source = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
