//! Statements over the pool of the program.
//!
//! Each statement is sent as one message with its parameters, over any connection of the pool, and leaves nothing behind in the
//! session. So a pooler that assigns another server to each transaction changes nothing.

use std::sync::OnceLock;
use std::time::Duration;

use deadpool_postgres::{Client, Object, Pool};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout, timeout_at};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::failure::Failure;
use super::table::{RUN, Runs};
use crate::store::lease::now;

/// The database as all grants of a store see it.
pub(super) struct Database {
    pool: Pool,
    runs: OnceLock<Runs>,
    /// The number of statements that were sent.
    #[cfg(all(test, unix, feature = "testing"))]
    pub(super) sent: std::sync::atomic::AtomicUsize,
}

/// The limits of a statement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For a connection of the pool.
    pub(super) pool: Duration,
    /// For the answer.
    pub(super) answer: Duration,
}

pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

impl Database {
    pub(super) fn new(pool: Pool) -> Self {
        Self {
            pool,
            runs: OnceLock::new(),
            #[cfg(all(test, unix, feature = "testing"))]
            sent: Default::default(),
        }
    }

    /// Runs a statement, and runs it again over another connection if the first breaks. So it must be harmless to run it twice.
    pub(super) async fn run(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
        limits: Limits,
    ) -> Result<Vec<Row>, Failure> {
        let mut attempts = 1;
        // The wait for the pool does not count.
        let mut left = limits.answer;
        loop {
            let client = self.connection(limits.pool).await;
            let asked = now();
            // A dead connection is detected in time to try another.
            let within = if attempts == 1 { left / 2 } else { left };
            let failure = match client {
                Ok(client) => match self.try_once(client, statement, parameters, within).await {
                    Ok(rows) => return Ok(rows),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            left = left.saturating_sub(asked.elapsed());
            match failure {
                Failure::Reconnect(_) if attempts < CONNECTIONS && !left.is_zero() => {}
                Failure::Again if attempts < REPETITIONS => {
                    sleep(Duration::from_millis(attempts.into())).await;
                }
                failure => return Err(failure),
            }
            attempts += 1;
        }
    }

    async fn try_once(
        &self,
        client: Client,
        statement: &str,
        parameters: &[Parameter<'_>],
        within: Duration,
    ) -> Result<Vec<Row>, Failure> {
        #[cfg(all(test, unix, feature = "testing"))]
        self.sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let answer = timeout(within, client.query_typed(statement, parameters)).await;
        let failure = match answer {
            Ok(Ok(rows)) => return Ok(rows),
            Ok(Err(error)) => Failure::of(&error),
            Err(_) => Failure::timed_out(),
        };
        if let Failure::Reconnect(_) = failure {
            self.discard(client, within);
        }
        Err(failure)
    }

    /// Runs statements that have no parameters, in one transaction.
    pub(super) async fn run_all(&self, statements: &str, limits: Limits) -> Result<(), Failure> {
        let client = self.connection(limits.pool).await?;
        match timeout(limits.answer, client.batch_execute(statements)).await {
            Ok(done) => done.map_err(|error| Failure::of(&error)),
            Err(_) => {
                self.discard(client, limits.answer);
                Err(Failure::timed_out())
            }
        }
    }

    /// Returns whether the server can identify the run in which a record is written. Some managed services and compatible servers
    /// cannot.
    pub(super) async fn runs(&self, limits: Limits) -> Result<Runs, Failure> {
        if let Some(runs) = self.runs.get() {
            return Ok(*runs);
        }
        let runs = match self.run(&format!("SELECT {RUN}"), &[], limits).await {
            Ok(_) => Runs::Known,
            // No such function, or no permission to call it.
            Err(Failure::Denied | Failure::OtherTable | Failure::Unsupported) => Runs::Unknown,
            Err(failure) => return Err(failure),
        };
        // Many grants may ask at once, without waiting for each other.
        Ok(*self.runs.get_or_init(|| runs))
    }

    /// Closes the idle connections.
    #[cfg(all(test, unix, feature = "testing"))]
    pub(super) fn forget(&self) {
        self.pool.retain(|_, _| false);
    }

    async fn connection(&self, within: Duration) -> Result<Client, Failure> {
        if Handle::try_current().is_err() {
            return Err(Failure::Misconfigured(
                "a store in PostgreSQL needs a tokio runtime".into(),
            ));
        }
        match timeout_at(now() + within, self.pool.get()).await {
            Ok(connected) => connected.map_err(|error| Failure::of_pool(&error)),
            Err(_) => Err(Failure::pool_is_exhausted()),
        }
    }

    /// Closes a connection, and those that are idle for some time: if the network has dropped one, it has dropped all.
    fn discard(&self, client: Client, idle: Duration) {
        drop(Object::take(client));
        self.pool.retain(|_, metrics| metrics.last_used() < idle);
    }
}

/// How many connections are tried, one after the other.
const CONNECTIONS: u32 = 3;

/// How often a statement is repeated if other transactions come in between.
const REPETITIONS: u32 = 20;
