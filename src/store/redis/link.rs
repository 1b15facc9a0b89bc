//! One connection.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use super::failure::{Asked, Failure};
use super::releases::Releases;
use crate::lock::Lock;
use crate::store::lease::now;

/// One connection, over which all keys send their requests without a wait for the answers of others.
pub(super) struct Link {
    connection: MultiplexedConnection,
    /// The runtime that made it.
    pub(super) runtime: Handle,
    pub(super) made: Instant,
    /// When the server last answered.
    heard: Lock<Instant>,
    pub(super) releases: Arc<Releases>,
}

impl Link {
    pub(super) fn new(connection: MultiplexedConnection, releases: Arc<Releases>) -> Self {
        let made = now();
        Self { connection, runtime: Handle::current(), made, heard: Lock::new(made), releases }
    }

    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, Failure> {
        let answer = command.query_async(&mut self.connection.clone()).await;
        answer.map_err(|error| Failure::of(&error, Asked::Script))
    }

    pub(super) async fn subscribe(&self, channel: &str) -> Result<(), Failure> {
        let answer = self.connection.clone().subscribe(channel).await;
        answer.map_err(|error| Failure::of(&error, Asked::Subscription))
    }

    pub(super) async fn unsubscribe(&self, channel: &str) -> Result<(), Failure> {
        let answer = self.connection.clone().unsubscribe(channel).await;
        answer.map_err(|error| Failure::of(&error, Asked::Subscription))
    }

    /// Awaits an answer for as long as the server answers nothing else.
    ///
    /// It answers in order. If it answers other requests, this one is behind them, and another connection would not help.
    pub(super) async fn answer<T>(
        &self,
        answer: impl Future<Output = Result<T, Failure>>,
        patience: Duration,
        at_most: Instant,
    ) -> Result<T, Failure> {
        let mut answer = pin!(answer);
        let mut limit = now() + patience;
        loop {
            if let Ok(answer) = timeout_at(limit, &mut answer).await {
                *self.heard.lock() = now();
                return answer;
            }
            limit = *self.heard.lock() + patience;
            let now = now();
            if limit <= now {
                return Err(Failure::timed_out());
            }
            if at_most <= now {
                return Err(Failure::overloaded());
            }
            limit = limit.min(at_most);
        }
    }
}
