//! The errors of the pool, the client and the server, in terms of this crate.
//!
//! Only the code of a server's error is passed on: its text may quote a token.

use std::error::Error;
use std::io;

use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

use super::table::Table;
use crate::store::StoreError;

/// The reason why a statement failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another connection may help: this one broke, did not answer in time, or does not lead to the primary. The outcome is
    /// unknown.
    Reconnect(String),
    /// Another transaction came in between: the same statement may work now.
    Again,
    /// The server refuses, and would refuse again for now.
    Busy(String),
    /// The stored record cannot be read.
    Unreadable,
    /// There is no such table.
    NoTable,
    /// The table has other columns.
    OtherTable,
    /// The server does not know a part of a statement.
    Unsupported,
    /// The role lacks a privilege.
    Denied,
    /// The configuration is wrong.
    Misconfigured(String),
}

impl Failure {
    pub(super) fn timed_out() -> Self {
        Self::Reconnect("PostgreSQL did not answer in time: check its load and the network, or raise `PostgresStore::timeout`".into())
    }

    pub(super) fn unexpected() -> Self {
        Self::Busy(
            "PostgreSQL returned an unexpected answer: check that it is PostgreSQL 12 or later"
                .into(),
        )
    }

    pub(super) fn standby() -> Self {
        Self::Reconnect(STANDBY.into())
    }

    /// Classifies an error of the pool, which has no connection.
    pub(super) fn of_pool(error: &PoolError) -> Self {
        match error {
            PoolError::Backend(error) => Self::of(error),
            PoolError::Timeout(_) => Self::pool_is_exhausted(),
            PoolError::Closed => {
                wrong("the pool of connections is closed: close it after the last use of the store")
            }
            PoolError::NoRuntimeSpecified => wrong(
                "the pool of connections has time limits but no runtime: set `Runtime::Tokio1` in its builder",
            ),
            PoolError::PostCreateHook(_) => wrong(
                "a hook of the pool of connections has refused a new connection: check the hook",
            ),
        }
    }

    pub(super) fn pool_is_exhausted() -> Self {
        Self::Busy(
            "the pool had no connection in time: PostgreSQL cannot be reached, or the pool is too small (raise its `max_size`, or `PostgresStore::pool_timeout`)".into(),
        )
    }

    /// Classifies an error of the client or of the server.
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(error) => of_answer(error.code()),
            None => of_connection(error),
        }
    }

    /// Returns the error for this failure of a statement over this table.
    pub(super) fn into_error(self, table: &Table) -> StoreError {
        match self {
            Self::Reconnect(why) | Self::Busy(why) => StoreError::unavailable(why),
            Self::Again => StoreError::unavailable(
                "PostgreSQL was busy with other transactions over the same row",
            ),
            Self::Unreadable => StoreError::unreadable(format!(
                "a record in the table {table} is not one of tower-refresh; nothing is saved"
            )),
            Self::NoTable => StoreError::misconfigured(format!(
                "the table {table} does not exist: call `PostgresStore::migrate`, or run the statement that `PostgresStore::sql` returns"
            )),
            Self::OtherTable => StoreError::misconfigured(format!(
                "the table {table} is not one of this store: choose another name with `PostgresStore::table`"
            )),
            Self::Unsupported => StoreError::misconfigured(
                "the server does not know a statement of the store, which requires PostgreSQL 12 or later",
            ),
            Self::Denied => StoreError::misconfigured(format!(
                "PostgreSQL denies the role of the pool a privilege: GRANT USAGE ON SCHEMA {schema}, GRANT SELECT, INSERT, UPDATE ON {table}, and for `PostgresStore::migrate` CREATE ON SCHEMA {schema}",
                schema = table.schema
            )),
            Self::Misconfigured(why) => StoreError::misconfigured(why),
        }
    }
}

/// Classifies an error of the connection: of the operating system, of TLS, or of the settings.
fn of_connection(error: &tokio_postgres::Error) -> Failure {
    let mut cause = error.source();
    while let Some(error) = cause {
        match error.downcast_ref::<io::Error>() {
            // TLS reports its errors like this. TCP reports no invalid data.
            Some(error) if error.kind() == io::ErrorKind::InvalidData => return no_tls(error),
            Some(error) => {
                return Failure::Reconnect(format!("PostgreSQL cannot be reached: {error}"));
            }
            None => cause = error.source(),
        }
    }
    if error.is_closed() {
        return Failure::Reconnect("PostgreSQL closed the connection without an answer".into());
    }
    let message = error.to_string();
    match message.split(':').next().unwrap_or_default() {
        "error performing TLS handshake" => no_tls(&message),
        "invalid configuration" | "authentication error" => {
            let why = error.source().map_or(message, ToString::to_string);
            Failure::Misconfigured(format!(
                "PostgreSQL cannot be connected to with the settings of the pool: {why}"
            ))
        }
        _ => Failure::Reconnect("PostgreSQL cannot be reached, or does not answer like one".into()),
    }
}

fn no_tls(error: &dyn std::fmt::Display) -> Failure {
    Failure::Misconfigured(format!(
        "PostgreSQL cannot be reached over TLS ({error}): check the connector of the pool and its certificates"
    ))
}

/// Classifies an error answer of the server, or of a pooler in front of it.
fn of_answer(code: &SqlState) -> Failure {
    let busy = |why: &str| Failure::Busy(format!("PostgreSQL {why}"));
    let refused = |why: &str| Failure::Misconfigured(format!("PostgreSQL {why}"));
    match code.code() {
        "42P01" | "3F000" => Failure::NoTable,
        // Another column, type or key, or an operator that the type does not have.
        "42703" | "42804" | "42809" | "42P10" | "42883" | "42846" | "23502" | "23514" => {
            Failure::OtherTable
        }
        "42501" => Failure::Denied,
        "40001" | "40P01" => Failure::Again,
        "28P01" | "28000" => {
            refused("refuses the role or the password: check the settings of the pool")
        }
        "3D000" => refused("has no database of this name: check the settings of the pool"),
        "22P05" | "22021" => refused("has no UTF8 in this database, which the store requires"),
        "0A000" | "42601" => Failure::Unsupported,
        "26000" | "42P05" => {
            refused("has lost a prepared statement, which the store does not use: check the pooler")
        }
        "25006" | "55000" => Failure::standby(),
        "53300" => busy(
            "has too many connections: raise its `max_connections`, or lower the `max_size` of the pools",
        ),
        "53100" => busy("has no room on its disk"),
        "57014" => {
            busy("cancelled a statement: check `statement_timeout` of the role and the database")
        }
        "55P03" => busy("did not get the row in time: another session has locked it"),
        "57P03" => busy("is starting or shutting down"),
        // The connection was ended, or the pooler has none.
        code if code.starts_with("57P") || code.starts_with("08") => {
            Failure::Reconnect(format!("PostgreSQL or a pooler ended the connection ({code})"))
        }
        // Invalid data: the record is not JSON, or its version is no number.
        code if code.starts_with("22") => Failure::Unreadable,
        code => busy(&format!("answered with the error {code}")),
    }
}

fn wrong(why: &str) -> Failure {
    Failure::Misconfigured(why.into())
}

const STANDBY: &str = "PostgreSQL is a standby or read-only: connect to the primary (`target_session_attrs=read-write`), or wait until the failover is complete";
