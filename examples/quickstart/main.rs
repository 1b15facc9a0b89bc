//! See the main job at work:
//!
//! ```text
//! cargo run --example quickstart --features file-store,hyper-util,testing
//! ```
//!
//! starts the crate's own authorization server on loopback, with tokens that live four seconds, and sends several hundred
//! concurrent requests through `RefreshLayer`, over several renewals, a revocation, an outage and a restart.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "a program: nobody imports it, and its clock is the real one"
)]

mod demo;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::args().len() > 1 {
        eprintln!(
            "quickstart: takes no arguments; `sidecar/README.md` shows how to call a real server"
        );
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
