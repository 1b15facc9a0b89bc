//! Several processes that share one refresh token through Redis and are killed at random.
//!
//! ```text
//! cargo run --example fleet --features hyper-util,redis,testing
//! cargo run --example fleet --features hyper-util,redis,testing -- --redis redis://127.0.0.1:6379
//! ```
//!
//! Without `--redis` (or `FLEET_REDIS`), starts its own `redis-server`, which must be on the `PATH`. Further options: `--workers 6`,
//! `--seconds 15`.
//!
//! This process runs the authorization server and the API. Access tokens live for half a second. A refresh token can be used once: its
//! second use ends the session. The workers are processes of the same program ([`worker`]). Each sends requests, and one of them
//! refreshes the token for all. At random, a worker is killed with SIGKILL and another one started.
//!
//! If a worker dies between sending the refresh token and saving the next one, the next one is lost, which no client can prevent. The
//! other workers find the recorded intent, report that the outcome is unknown, use the access token until it expires, and try once
//! more. Only then, and only after that report, is a refresh token sent twice. If the server ends the session for it, the program
//! logs in again.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program has no importers, and uses the real clock"
)]

mod manager;
mod redis_server;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use tower_refresh::BoxError;

const USAGE: &str = "usage: fleet [--redis URL] [--workers N] [--seconds N]";

struct Options {
    redis: Option<String>,
    workers: usize,
    run: Duration,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1).as_deref() {
        Some("worker") => worker::run().await,
        _ => match options() {
            Ok(options) => manager::run(options).await,
            Err(error) => Err(error),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, BoxError> {
    let redis = std::env::var("FLEET_REDIS").ok();
    let mut options = Options { redis, workers: 6, run: Duration::from_secs(15) };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        match name.as_str() {
            "--redis" => options.redis = Some(value),
            "--workers" => options.workers = value.parse::<usize>().map_err(|_| USAGE)?.max(1),
            "--seconds" => options.run = Duration::from_secs(value.parse().map_err(|_| USAGE)?),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}
