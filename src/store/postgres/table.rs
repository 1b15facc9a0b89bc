//! The table, and the statements that use it.
//!
//! A grant is one row:
//!
//! | Column | Content |
//! |---|---|
//! | `name` | the name of the grant |
//! | `record` | the record, as JSON |
//! | `write_id` | the write id of the record |
//! | `run` | the cluster and the timeline in which the record was written |
//! | `lease_owner` | the owner token of the lock's holder |
//! | `lease_until` | the end of the lease, by the server's clock |
//! | `lease` | the length of the lease when it was taken or renewed |
//! | `fence` | how often the lock was taken |
//! | `is_waited` | true if a waiter listens for the release |
//!
//! Each change is one statement, so that nothing comes between its parts, and so that it needs no session.

use std::fmt;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::store::StoreError;

/// The name of a table with its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) schema: String,
    pub(super) name: String,
}

/// Returns whether the server can identify the run in which a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runs {
    Known,
    Unknown,
}

impl Table {
    pub(super) fn acquire(&self, limit: Duration) -> String {
        self.fill(include_str!("statements/acquire.sql"), Runs::Unknown, limit)
    }

    pub(super) fn renew(&self, limit: Duration) -> String {
        self.fill(include_str!("statements/renew.sql"), Runs::Unknown, limit)
    }

    pub(super) fn release(&self, limit: Duration) -> String {
        self.fill(include_str!("statements/release.sql"), Runs::Unknown, limit)
    }

    pub(super) fn load(&self, runs: Runs) -> String {
        self.fill(include_str!("statements/load.sql"), runs, Duration::ZERO)
    }

    pub(super) fn save(&self, runs: Runs, limit: Duration) -> String {
        self.fill(include_str!("statements/save.sql"), runs, limit)
    }

    /// Returns the statements that create the table.
    pub(super) fn migrate(&self) -> String {
        self.fill(include_str!("statements/migrate.sql"), Runs::Unknown, Duration::ZERO)
    }

    /// Returns the payload of the notifications about a grant. It is a hash, because every role of the database can listen.
    pub(super) fn payload(&self, grant: &str) -> String {
        let hash = Sha256::new()
            .chain_update(&self.schema)
            .chain_update([0])
            .chain_update(&self.name)
            .chain_update([0])
            .chain_update(grant)
            .finalize();
        hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    fn fill(&self, statement: &str, runs: Runs, limit: Duration) -> String {
        let run = match runs {
            Runs::Known => RUN,
            Runs::Unknown => "NULL::text",
        };
        // Before this process gives up.
        let milliseconds = (limit * 2 / 5).as_millis().max(1).to_string();
        let table = format!("{}.{}", quoted(&self.schema), quoted(&self.name));
        let parts = [
            ("{changes}", include_str!("statements/changes.sql")),
            ("{free}", include_str!("statements/free.sql")),
            ("{readable}", include_str!("statements/readable.sql")),
            ("{run}", run),
            ("{lease}", include_str!("statements/lease.sql")),
            ("{patience}", include_str!("statements/patience.sql")),
            ("{milliseconds}", &milliseconds),
            // The last one, because it may contain a brace.
            ("{table}", &table),
        ];
        parts.iter().fold(statement.to_owned(), |statement, (name, part)| {
            statement.replace(name, part.trim_end())
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// Returns the name of a schema or a table, if PostgreSQL can have one of this name.
pub(super) fn identifier(name: String, what: &str) -> Result<String, StoreError> {
    let why = match name.len() {
        0 => "is empty",
        64.. => "has more than 63 bytes",
        _ if name.contains('\0') => "contains a null character",
        _ => return Ok(name),
    };
    Err(StoreError::misconfigured(format!("the name of the {what} {why}: choose another one")))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// An expression that changes when a standby has taken over, or when the data is that of a backup.
pub(super) const RUN: &str = include_str!("statements/run.sql");

/// The channel of the notifications. Their payload names the table and the grant.
pub(super) const CHANNEL: &str = "tower_refresh";
