//! The row of one grant.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use zeroize::Zeroizing;

use super::client::{Database, Limits, Parameter};
use super::failure::Failure;
use super::notices::Notices;
use super::table::{CHANNEL, Runs, Table};
use crate::error::BoxError;
use crate::store::lease::{Acquired, Leased};
use crate::store::{StoreError, StoredTokens, WriteId};

/// The row of one grant, with the limits of its store.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) database: Arc<Database>,
    pub(super) notices: Option<Arc<Notices>>,
    pub(super) table: Arc<Table>,
    pub(super) name: String,
    pub(super) lease: Duration,
    pub(super) limits: Limits,
}

/// The columns that belong to the record.
pub(super) struct Loaded {
    pub(super) record: Option<Zeroizing<String>>,
    pub(super) write_id: Option<String>,
    /// True if a standby has taken over since the record was written.
    pub(super) is_of_another_run: bool,
}

/// The outcome of a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    Done,
    Conflict,
    Unreadable,
}

impl Grant {
    /// Takes the lock, unless another owner holds it. If `listens`, the next release is announced.
    pub(super) async fn acquire(
        &self,
        owner: WriteId,
        listens: bool,
    ) -> Result<Acquired, StoreError> {
        let lease = milliseconds(self.lease);
        let parameters: [Parameter<'_>; 4] = [
            (&self.name, Type::TEXT),
            (&owner.to_string(), Type::TEXT),
            (&lease, Type::FLOAT8),
            (&listens, Type::BOOL),
        ];
        let rows =
            self.run(&self.table.acquire(self.limits.answer), &parameters, self.limits).await?;
        // The row of another transaction that has just been inserted is not visible yet.
        let Some(row) = rows.first() else { return Ok(Acquired::HeldFor(Duration::ZERO)) };
        if self.column(row, 0)? {
            let fence: i64 = self.column(row, 1)?;
            return Ok(Acquired::Taken(fence.unsigned_abs()));
        }
        let left: f64 = self.column(row, 2)?;
        Ok(Acquired::HeldFor(Duration::try_from_secs_f64(left / 1000.0).unwrap_or_default()))
    }

    pub(super) async fn load(&self) -> Result<Loaded, StoreError> {
        let runs = self.runs().await?;
        let parameters: [Parameter<'_>; 1] = [(&self.name, Type::TEXT)];
        let rows = self.run(&self.table.load(runs), &parameters, self.limits).await?;
        let row = rows.first().ok_or_else(|| self.error(Failure::unexpected()))?;
        // A standby lags behind.
        if self.column(row, 3)? {
            return Err(self.error(Failure::standby()));
        }
        let record: Option<String> = self.column(row, 0)?;
        Ok(Loaded {
            record: record.map(Zeroizing::new),
            write_id: self.column(row, 1)?,
            is_of_another_run: self.column::<bool>(row, 2)? && runs == Runs::Known,
        })
    }

    /// Saves a record if the stored one has the write id `replaces`.
    pub(super) async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<Saved, StoreError> {
        let runs = self.runs().await?;
        let json = record.to_json()?;
        let json = std::str::from_utf8(&json).map_err(StoreError::unreadable)?;
        let parameters: [Parameter<'_>; 4] = [
            (&self.name, Type::TEXT),
            (&Secret(json), Type::TEXT),
            (&record.write_id().to_string(), Type::TEXT),
            (&replaces.map(|replaces| replaces.to_string()), Type::TEXT),
        ];
        let rows =
            self.run(&self.table.save(runs, self.limits.answer), &parameters, self.limits).await?;
        let row = rows.first().ok_or_else(|| self.error(Failure::unexpected()))?;
        Ok(if self.column(row, 0)? {
            Saved::Done
        } else if self.column(row, 1)? {
            Saved::Unreadable
        } else {
            Saved::Conflict
        })
    }

    /// Creates the table, unless it exists.
    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        // `IF NOT EXISTS` alone fails if two transactions create it at once.
        let statements =
            format!("SELECT pg_advisory_xact_lock({MIGRATION}); {}", self.table.migrate());
        let limits = Limits { answer: self.limits.answer.max(MIGRATION_TIMEOUT), ..self.limits };
        let done = self.database.run_all(&statements, limits).await;
        done.map_err(|failure| match failure {
            Failure::NoTable => StoreError::misconfigured(format!(
                "the schema {} does not exist: create it, or choose another one with `PostgresStore::table`",
                self.table.schema
            )),
            failure => self.error(failure),
        })
    }

    /// Returns the name that messages use for the row.
    pub(super) fn describe(&self) -> String {
        format!("the row `{}` of the table {}", self.name, self.table)
    }

    /// Returns the payload that announces a release.
    pub(super) fn payload(&self) -> String {
        self.table.payload(&self.name)
    }

    async fn runs(&self) -> Result<Runs, StoreError> {
        self.database.runs(self.limits).await.map_err(|failure| self.error(failure))
    }

    async fn run(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
        limits: Limits,
    ) -> Result<Vec<Row>, StoreError> {
        let rows = self.database.run(statement, parameters, limits).await;
        rows.map_err(|failure| self.error(failure))
    }

    fn column<'a, T: FromSql<'a>>(&self, row: &'a Row, number: usize) -> Result<T, StoreError> {
        row.try_get(number).map_err(|_| self.error(Failure::OtherTable))
    }

    fn error(&self, failure: Failure) -> StoreError {
        failure.into_error(&self.table)
    }
}

impl Leased for Grant {
    fn lease(&self) -> Duration {
        self.lease
    }

    fn timeout(&self) -> Duration {
        self.limits.answer
    }

    async fn renew(&self, owner: WriteId, within: Duration) -> Result<bool, StoreError> {
        let lease = milliseconds(self.lease);
        let parameters: [Parameter<'_>; 3] =
            [(&self.name, Type::TEXT), (&owner.to_string(), Type::TEXT), (&lease, Type::FLOAT8)];
        let limits = Limits { answer: within, pool: self.limits.pool.min(self.lease) };
        Ok(!self.run(&self.table.renew(within), &parameters, limits).await?.is_empty())
    }

    async fn release(&self, owner: WriteId) -> Result<bool, StoreError> {
        let parameters: [Parameter<'_>; 4] = [
            (&self.name, Type::TEXT),
            (&owner.to_string(), Type::TEXT),
            (&CHANNEL, Type::TEXT),
            (&self.payload(), Type::TEXT),
        ];
        let statement = self.table.release(self.limits.answer);
        Ok(!self.run(&statement, &parameters, self.limits).await?.is_empty())
    }
}

/// A record in the clear, which the client cannot log.
struct Secret<'a>(&'a str);

impl ToSql for Secret<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        self.0.to_sql(kind, out)
    }

    fn accepts(kind: &Type) -> bool {
        <&str as ToSql>::accepts(kind)
    }

    to_sql_checked!();
}

impl fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

fn milliseconds(lease: Duration) -> f64 {
    lease.as_secs_f64() * 1000.0
}

/// The number of the lock that migrations take for their transaction: "tower" in ASCII.
const MIGRATION: u64 = 0x74_6f77_6572;

/// Another process may be migrating at the same time.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(30);
