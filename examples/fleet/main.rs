//! A fleet: several processes that share one refresh token through Redis, and are killed at random.
//!
//! ```text
//! cargo run --example fleet --features hyper-util,redis,testing
//! cargo run --example fleet --features hyper-util,redis,testing -- --redis redis://127.0.0.1:6379
//! ```
//!
//! Without `--redis` (or `FLEET_REDIS`) it starts a `redis-server` of its own, which must be on the `PATH`. Further options:
//! `--workers 6`, `--seconds 15`.
//!
//! This process is the authorization server and the API, of which tokens live for half a second and refresh tokens can be spent
//! once: whoever spends one again ends the session. The workers are this program again ([`worker`]): each sends requests, and
//! renews the token if it is first. Every now and then one of them is killed with SIGKILL, and another started. If it dies
//! between sending the refresh token and saving the next, the next one is lost: no client can do anything about it. What the
//! others can do is to know it: they say that the refresh token was sent and nobody knows what became of it, use the access token to
//! its end, and try once more. Only then, and never unannounced, can a token be spent twice; somebody has to log in again, and it
//! goes on.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program: nobody imports it, and its clock is the real one"
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
