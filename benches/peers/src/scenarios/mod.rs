//! The measurements, one file each.

pub mod attach;
pub mod cold;
pub mod dropped;
pub mod failing;
pub mod late;

use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::endpoint::Endpoint;
use crate::peer::{BoxError, Peer};
use crate::report::Event;

/// The longest time that a scenario waits for responses.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Requests in flight, and the outcomes of those that have finished.
pub struct Crowd {
    tasks: JoinSet<Result<StatusCode, BoxError>>,
    began: Instant,
    event: Event,
}

impl Crowd {
    pub fn new() -> Self {
        Self { tasks: JoinSet::new(), began: Instant::now(), event: Event::default() }
    }

    /// Sends a number of requests at once, each in a task.
    pub fn send<P: Peer>(&mut self, peer: &P, requests: usize) {
        for _ in 0..requests {
            let mut peer = peer.clone();
            self.tasks.spawn(async move { peer.send(0).await });
        }
    }

    /// Waits until one more request has finished. Returns false at the [`LIMIT`], and if none is left.
    pub async fn one(&mut self) -> bool {
        let deadline = (self.began + LIMIT).into();
        let Ok(Some(finished)) = timeout_at(deadline, self.tasks.join_next()).await else {
            return false;
        };
        match finished {
            Ok(Ok(StatusCode::OK)) => self.event.accepted += 1,
            Ok(Ok(_)) => self.event.rejected += 1,
            _ => self.event.failed += 1,
        }
        true
    }

    /// Waits for the other requests, and returns the counts.
    pub async fn finish(mut self, endpoint: &Endpoint) -> Event {
        while self.one().await {}
        self.event.unfinished = self.tasks.len();
        self.event.milliseconds = self.began.elapsed().as_secs_f64() * 1e3;
        self.event.token_requests = endpoint.calls();
        self.event
    }
}
