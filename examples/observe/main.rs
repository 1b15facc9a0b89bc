//! Metrics for Prometheus, a dashboard for Grafana and alert rules, with the incidents that they show.
//!
//! ```text
//! cargo run --example observe --features metrics,oauth2,pool,store,testing
//! cargo run --example observe --features metrics,oauth2,pool,store,testing -- --serve
//! ```
//!
//! The program has healthy refreshes, an outage of the token endpoint, a revocation, a rejected token and an ended session. Then it
//! prints what Prometheus would scrape, and ends. With `--serve` it goes on until it is interrupted, and prints the address to scrape.
//!
//! [`endpoint`] is the part to copy. `dashboard.json` and `alerts.yml` fit its names.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "a program has no importers, and uses the real clock"
)]

mod endpoint;
mod incidents;

use std::future::IntoFuture as _;
use std::time::{Duration, Instant, SystemTime};

use tokio::net::TcpListener;
use tower_refresh::{BoxError, Clock, Timestamp};

use crate::incidents::Program;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let serves = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--serve"] => true,
        _ => return Err("usage: observe [--serve]".into()),
    };

    // Before the first request: metrics that change before are lost.
    let recorder = endpoint::recorder()?;
    let metrics = recorder.handle();
    ::metrics::set_global_recorder(recorder)?;
    let routes = endpoint::routes(metrics.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("Prometheus scrapes http://{}/metrics", listener.local_addr()?);
    let served = tokio::spawn(axum::serve(listener, routes).into_future());

    let lifetime = if serves { Duration::from_secs(15) } else { Duration::from_secs(1) };
    let program = Program::new(RealClock(Instant::now()), lifetime)?;
    loop {
        program.run().await?;
        if !serves {
            break;
        }
    }
    program.stop().await?;
    println!("\n{}", metrics.render());
    served.abort();
    Ok(())
}

/// The clock of the machine, which the server of this example uses too.
#[derive(Clone, Copy)]
struct RealClock(Instant);

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        Timestamp::new(self.0.elapsed(), SystemTime::now())
    }
}
