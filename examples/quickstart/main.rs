//! See the main job at work:
//!
//! ```text
//! cargo run --example quickstart --features file-store,hyper-util,testing
//! ```
//!
//! starts the crate's own authorization server on loopback, with tokens that live four seconds, and sends several hundred
//! concurrent requests through `RefreshLayer`, over several renewals, a revocation, an outage and a restart.
//!
//! ```text
//! cargo run --example quickstart --features file-store,hyper-util,testing -- --config FILE
//! ```
//!
//! does one authorised call against a real server, with tokens that it keeps for the next call and shares with whoever else
//! is given the file; see `config.rs` for it.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "a program: nobody imports it, and its clock is the real one"
)]

#[path = "../../sidecar/src/config.rs"]
mod config;
mod demo;
mod live;
#[path = "../../sidecar/src/source.rs"]
mod source;
#[path = "../../sidecar/src/trust.rs"]
mod trust;

use std::process::ExitCode;

use tower_refresh::BoxError;

const USAGE: &str = "usage: quickstart [--config FILE]";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let outcome = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => demo::run().await,
        ["--config", file] => live::run(file.as_ref()).await,
        _ => Err(BoxError::from(USAGE)),
    };
    match outcome {
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
