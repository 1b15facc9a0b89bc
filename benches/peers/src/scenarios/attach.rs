//! The time and the allocations of a request while the token is fresh.
//!
//! The peers take turns: each round measures all of them, so that a change of the clock rate reaches all of them. Each future is
//! ready when it is first polled, without a runtime's scheduler in between.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::runtime::Runtime;

use crate::api::Api;
use crate::endpoint::{Behaviour, Endpoint};
use crate::peer::{BoxError, Peer};
use crate::report::Added;

/// The numbers of headers of a request, without the token.
pub const HEADERS: [usize; 2] = [0, 8];
pub const ROUNDS: usize = 401;
pub const REQUESTS: u32 = 500;

/// A peer with a fresh token.
pub struct Attach {
    run: Box<dyn FnMut(u32) -> Result<(), BoxError>>,
    nanoseconds: Vec<f64>,
    allocations: f64,
    bytes: f64,
}

/// Connects a peer and sends a first request, so that it has a token.
pub fn prepare<P: Peer>(runtime: &Runtime, headers: usize) -> Result<Attach, BoxError> {
    let behaviour = Behaviour { latency: Duration::ZERO, status: StatusCode::OK };
    let endpoint = runtime.block_on(Endpoint::start(behaviour))?;
    let mut peer = runtime.block_on(P::connect(endpoint.url(), Api::new()))?;
    runtime.block_on(peer.send(headers))?;
    let calls = endpoint.calls();

    let run = move |requests| {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..requests {
            match pin!(peer.send(headers)).poll(&mut cx) {
                Poll::Ready(Ok(StatusCode::OK)) => {}
                Poll::Ready(Ok(status)) => return Err(format!("status {status}").into()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Err("waits although its token is fresh".into()),
            }
        }
        if endpoint.calls() != calls {
            return Err("requests a token although it has one".into());
        }
        Ok(())
    };
    Ok(Attach { run: Box::new(run), nanoseconds: Vec::new(), allocations: 0.0, bytes: 0.0 })
}

impl Attach {
    /// Counts allocations, per request.
    pub fn count(&mut self) -> Result<(), BoxError> {
        (self.run)(REQUESTS)?;
        let mut result = Ok(());
        let counted = allocation_counter::measure(|| result = (self.run)(REQUESTS));
        self.allocations = counted.count_total as f64 / f64::from(REQUESTS);
        self.bytes = counted.bytes_total as f64 / f64::from(REQUESTS);
        result
    }

    /// Measures one round.
    pub fn round(&mut self) -> Result<(), BoxError> {
        let began = Instant::now();
        (self.run)(REQUESTS)?;
        let elapsed = began.elapsed().as_secs_f64() * 1e9;
        self.nanoseconds.push(elapsed / f64::from(REQUESTS));
        Ok(())
    }

    /// Returns what this peer adds to the baseline. The median is that of the differences in each round.
    pub fn added(&self, baseline: &Attach, headers: usize) -> Added {
        let rounds = self.nanoseconds.iter().zip(&baseline.nanoseconds);
        let differences = rounds.map(|(peer, baseline)| peer - baseline).collect();
        Added {
            headers,
            median: tenths(median(self.nanoseconds.clone())),
            added_median: tenths(median(differences)),
            added_fastest: tenths(fastest(&self.nanoseconds) - fastest(&baseline.nanoseconds)),
            added_allocations: self.allocations - baseline.allocations,
            added_bytes: self.bytes - baseline.bytes,
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Rounds to one decimal place.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn fastest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::min)
}
