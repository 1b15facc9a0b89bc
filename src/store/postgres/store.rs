//! The store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Config, Socket};

use super::client::{Database, Limits};
use super::lock::{PostgresLock, lock_or_wait};
use super::notices::Notices;
use super::row::{Grant, Saved};
use super::table::{Table, identifier};
use crate::store::{StoreError, StoredTokens, TokenStore, WriteId, lease};

/// A [`TokenStore`] in PostgreSQL, for processes on several machines that share grants.
///
/// A grant is one row. Every operation is one statement over a connection of your own pool, and the lock is a lease in the row:
/// no connection is occupied while a token endpoint is asked, and a pooler such as PgBouncer may be in between. Requires
/// PostgreSQL 12 or later (tested with 15), with UTF8.
///
/// # Examples
///
/// ```no_run
/// use tokio_postgres::{Config, NoTls};
/// use deadpool_postgres::{Manager, Pool};
/// use tower_refresh::store::{PostgresStore, TokenStore as _};
///
/// # async fn example() -> Result<(), tower_refresh::BoxError> {
/// let config: Config = "host=db.internal user=compass dbname=compass".parse()?;
/// let pool = Pool::builder(Manager::new(config.clone(), NoTls)).max_size(10).build()?;
///
/// // One name for each grant. All processes that share the grant use the same name.
/// let store = PostgresStore::new(pool, "user-1")?.listen_with(config, NoTls);
/// // Creates the table. Needs other privileges than the store.
/// store.migrate().await?;
/// assert_eq!(store.describe(), "the row `user-1` of the table public.tower_refresh");
///
/// // Another grant, over the same pool.
/// let other = store.for_name("user-2")?;
/// # Ok(())
/// # }
/// ```
///
/// # Options
///
/// | Option | Default | Effect |
/// |---|---|---|
/// | [`table`](Self::table) | `public`, `tower_refresh` | the schema and the table |
/// | [`listen_with`](Self::listen_with) | none | one connection that is notified of releases; without it, waiters poll |
/// | [`lease`](Self::lease) | 15 s | how long the lock outlives its holder |
/// | [`timeout`](Self::timeout) | 2 s | the limit for an answer |
/// | [`pool_timeout`](Self::pool_timeout) | 10 s | the limit for a connection of the pool |
///
/// # The table
///
/// [`migrate`](Self::migrate) runs this statement, and [`sql`](Self::sql) returns it for your own migrations:
///
/// ```sql
/// CREATE TABLE IF NOT EXISTS "public"."tower_refresh" (
///     name text COLLATE "C" PRIMARY KEY,
///     record json,
///     write_id text,
///     run text,
///     lease_owner text,
///     lease_until timestamptz,
///     lease interval,
///     fence bigint NOT NULL DEFAULT 0,
///     is_waited boolean NOT NULL DEFAULT false
/// ) WITH (fillfactor = 50);
/// ```
///
/// A row stays until you delete it. Delete only rows of grants that no process uses.
///
/// # Privileges
///
/// A role with these privileges is sufficient:
///
/// ```sql
/// GRANT USAGE ON SCHEMA public TO compass;
/// GRANT SELECT, INSERT, UPDATE ON public.tower_refresh TO compass;
/// ```
///
/// `migrate` also requires `CREATE ON SCHEMA public`. The tokens are stored in the clear: a reader of the table, the write-ahead
/// log or a backup has them. Use an `EncryptedStore` over this store to prevent that. A server that logs
/// statements (`log_statement`, `log_min_duration_statement`) logs the records with them, unless `log_parameter_max_length` is 0.
///
/// # The pool and TLS
///
/// The size of the pool, its TLS and its password are up to you. `deadpool_postgres` 0.14 and `tokio_postgres` 0.7 are part of
/// this API. The store occupies a connection for the time of a statement, so that ten are enough for thousands of grants. Do not set the
/// isolation level or `synchronous_commit` for this store: it repeats statements that could not be serialized, and a save waits for
/// the disk even if the default is `off`.
///
/// # Behind PgBouncer
///
/// The transaction mode of PgBouncer works: the store uses no prepared statement, and no variable or lock of a session.
/// Notifications do not pass such a pooler. Give [`listen_with`](Self::listen_with) the address of the server itself, or do not call
/// it. A connection that receives no notification is detected, and waiters poll.
///
/// # The lock
///
/// The lock is a [lease](Self::lease) by the server's clock. It is renewed while the lock is held, however long a refresh takes.
/// A release wakes the waiters that listen (`NOTIFY`, with a hash of the name). They also try again at the end of the lease, and
/// every five seconds. Waiters that do not listen try again after 0.2 to 0.4 s, at random. Credentials that are woken load the
/// record first. They ask for the lock again only if it has no newer token set.
///
/// If a process is killed or disconnected, the lock stays taken until its lease is over. If a process is frozen for longer than
/// the lease, it learns of the loss when it continues: [`is_held`](crate::store::StoreLock::is_held) asks the server and renews the
/// lease for its full length. A gap between that answer and the sending of the refresh token remains, as for
/// [each lease](crate::store#limits).
///
/// A lease is committed without waiting for the disk or a standby, so that a refresh waits for them twice and not five times: for
/// the intent, and for the new token set. If a crash loses a lease, the intent that was saved under it remains: the next holder
/// sends the token only after the access token has expired.
///
/// If the server's clock is set back, a lease lasts at most its full length from then. If it is set forward, leases end early, and
/// their holders are informed.
///
/// # Data loss
///
/// A confirmed save survives a crash of the server, unless `fsync` or `full_page_writes` is off. A standby that takes over lacks
/// the last saves if replication is asynchronous, and has them if it is synchronous (`synchronous_standby_names`).
///
/// | Event | State | Consequence |
/// |---|---|---|
/// | a standby took over, or a backup was restored to a point in time | a record of another run | [doubted](StoredTokens::doubted): its refresh token may be spent. The access token is used until it expires, then one process makes one attempt |
/// | the same, or a crash of the server, during a refresh | a lock without its lease | another process may start a refresh. The result of the first is saved if no other was |
/// | the row or the table was deleted | no record | a process that has used a token set does not start again with an older one. A new process has only its configuration |
/// | a dump was restored into the same cluster, a copy of its disk was restored, or a row was replaced by hand | an older record | not detected |
///
/// Each record has the run in which it was written: the identifier of the cluster and its timeline. The timeline changes each time
/// a standby takes over, at times without a loss. That costs one early refresh, and no token. A service that does not offer
/// `pg_control_system` and `pg_walfile_name` can be used, and then no takeover is detected.
///
/// # Runtime
///
/// A tokio runtime with I/O and time enabled. A connection of a runtime that has ended is replaced.
///
/// # Errors
///
/// - [Unavailable](StoreError::is_unavailable): the pool has no connection [in time](Self::pool_timeout), or the server does not
///   answer [in time](Self::timeout), is starting or shutting down, is a standby or read-only, or has no room.
/// - [Misconfigured](StoreError::is_misconfigured): the table does not exist or is another one, the role lacks a privilege, or the
///   pool cannot log in. The error names the remedy.
///
/// The text of the server's errors is not passed on, since it may quote a record.
///
/// If a connection is dead, a statement is sent again over another one. All statements are harmless to repeat.
///
/// # Cancel safety
///
/// As for [every store](TokenStore#cancel-safety). If you drop the future of [`lock`](TokenStore::lock), a lock that may have been
/// taken is released in the background.
#[doc(alias = "postgresql")]
#[doc(alias = "database")]
#[doc(alias = "fleet")]
#[derive(Clone)]
#[must_use]
pub struct PostgresStore {
    pub(super) grant: Grant,
}

impl PostgresStore {
    /// Creates a store for one grant, in the row with this name. It takes a connection of the pool at the first use.
    ///
    /// # Errors
    ///
    /// [Misconfigured](StoreError::is_misconfigured) if the name is empty, contains a null character, or has more than 1,000 bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use deadpool_postgres::Pool;
    /// use tower_refresh::store::{PostgresStore, StoreError};
    ///
    /// fn store(pool: Pool) -> Result<PostgresStore, StoreError> {
    ///     Ok(PostgresStore::new(pool, "compass")?.lease(Duration::from_secs(30)))
    /// }
    /// ```
    pub fn new(pool: Pool, name: impl Into<String>) -> Result<Self, StoreError> {
        let table = Table { schema: "public".into(), name: "tower_refresh".into() };
        let grant = Grant {
            database: Arc::new(Database::new(pool)),
            notices: None,
            table: Arc::new(table),
            name: String::new(),
            lease: LEASE,
            limits: Limits { pool: POOL_TIMEOUT, answer: TIMEOUT },
        };
        Self { grant }.for_name(name)
    }

    /// Returns a store for another grant, with the same settings and over the same connections.
    ///
    /// A row begins with the first use of its store. In a pool of users, the name that was given to [`new`](Self::new) is not used, and
    /// has no row.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::{PostgresStore, StoreError};
    ///
    /// fn store_of(user: &str, grants: &PostgresStore) -> Result<PostgresStore, StoreError> {
    ///     grants.for_name(user)
    /// }
    /// ```
    pub fn for_name(&self, name: impl Into<String>) -> Result<Self, StoreError> {
        let name = name.into();
        let why = match name.len() {
            0 => "needs a name: choose one for each grant",
            1001.. => "needs a shorter name for the grant: at most 1,000 bytes",
            _ if name.contains('\0') => "needs a name without null characters",
            _ => return Ok(Self { grant: Grant { name, ..self.grant.clone() } }),
        };
        Err(StoreError::misconfigured(format!("a store in PostgreSQL {why}")))
    }

    /// Sets the schema and the table. The default is `public` and `tower_refresh`.
    ///
    /// The names are case-sensitive. The search path is not used: two processes with different ones would have two locks for one
    /// grant.
    ///
    /// # Errors
    ///
    /// [Misconfigured](StoreError::is_misconfigured) if a name is empty, contains a null character, or has more than 63 bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use deadpool_postgres::Pool;
    /// use tower_refresh::store::{PostgresStore, StoreError};
    ///
    /// fn store(pool: Pool) -> Result<PostgresStore, StoreError> {
    ///     PostgresStore::new(pool, "compass")?.table("auth", "grants")
    /// }
    /// ```
    pub fn table(
        mut self,
        schema: impl Into<String>,
        table: impl Into<String>,
    ) -> Result<Self, StoreError> {
        let schema = identifier(schema.into(), "schema")?;
        let name = identifier(table.into(), "table")?;
        self.grant.table = Arc::new(Table { schema, name });
        Ok(self)
    }

    /// Opens one connection with this configuration while something waits for a lock, so that a release wakes the waiters at once.
    ///
    /// All grants of this store share the connection ([`for_name`](Self::for_name), clones). It is closed a few seconds after the
    /// last wait. It must lead to the server and not to a [pooler](Self#behind-pgbouncer). Set `connect_timeout` and
    /// `keepalives` in the configuration as you need them.
    pub fn listen_with<T>(mut self, config: Config, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let notices = Notices::new(Arc::clone(&self.grant.database), config, tls);
        self.grant.notices = Some(Arc::new(notices));
        self
    }

    /// Sets how long the lock outlives a holder that is killed, frozen or disconnected. The default is 15 seconds, the minimum 100
    /// milliseconds.
    ///
    /// A running process renews the lease after each third of it, however long a refresh takes. Use the same value in all processes
    /// that share the grant.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.grant.lease = lease.clamp(SHORTEST_LEASE, LONGEST);
        self
    }

    /// Sets the limit for an answer of the server. The default is 2 seconds.
    ///
    /// A statement that takes longer fails, and its connection is closed. If it only waits for the row, because another session has
    /// locked it, the server ends it before that. A connection that does not answer within half of the limit is replaced.
    #[doc(alias = "statement_timeout")]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.grant.limits.answer = timeout.min(LONGEST);
        self
    }

    /// Sets the limit for a connection of the pool: to become free, or to be opened. The default is 10 seconds.
    pub fn pool_timeout(mut self, timeout: Duration) -> Self {
        self.grant.limits.pool = timeout.min(LONGEST);
        self
    }

    /// Returns the statement that creates the [table](Self#the-table), for your own migrations.
    pub fn sql(&self) -> String {
        self.grant.table.migrate()
    }

    /// Creates the [table](Self#the-table), unless it exists. Several processes may do so at once.
    ///
    /// The schema must exist.
    ///
    /// # Errors
    ///
    /// [Misconfigured](StoreError::is_misconfigured) if the schema does not exist or the role may not create a table there, and
    /// [unavailable](StoreError::is_unavailable) as for all other operations.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.grant.migrate().await
    }

    fn unreadable(&self, why: impl fmt::Display) -> StoreError {
        StoreError::unreadable(format!("{}: {why}", self.describe()))
    }
}

impl TokenStore for PostgresStore {
    type Lock = PostgresLock;

    async fn lock(&self, wait: Duration) -> Result<PostgresLock, StoreError> {
        lease::lock(self, wait).await
    }

    /// Returns `None` when the lock was released, so that each waiter sends a few statements, however many there are.
    async fn lock_or_wait(&self, wait: Duration) -> Result<Option<PostgresLock>, StoreError> {
        lock_or_wait(&self.grant, wait).await
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        let loaded = self.grant.load().await?;
        let Some(record) = loaded.record else {
            return Ok(None);
        };
        let record = StoredTokens::from_json(record.as_bytes())
            .map_err(|error| self.unreadable(error.get_ref()))?;
        if loaded.write_id != Some(record.write_id().to_string()) {
            return Err(self.unreadable("its columns `record` and `write_id` do not match"));
        }
        Ok(Some(if loaded.is_of_another_run { record.doubted() } else { record }))
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        match self.grant.save(record, replaces).await? {
            Saved::Done => Ok(()),
            Saved::Conflict => Err(StoreError::conflict()),
            Saved::Unreadable => Err(self.unreadable(
                "it is not a record of tower-refresh, or one of a later version; nothing is saved",
            )),
        }
    }

    fn describe(&self) -> String {
        self.grant.describe()
    }

    /// Returns the name of the table and that of the grant. The schema, the database and the server are not part of it.
    fn place(&self) -> String {
        format!("{}:{}", self.grant.table.name, self.grant.name)
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("table", &self.grant.table.to_string())
            .field("name", &self.grant.name)
            .field("listens", &self.grant.notices.is_some())
            .field("lease", &self.grant.lease)
            .field("timeout", &self.grant.limits.answer)
            .field("pool_timeout", &self.grant.limits.pool)
            .finish_non_exhaustive()
    }
}

const LEASE: Duration = Duration::from_secs(15);

const SHORTEST_LEASE: Duration = Duration::from_millis(100);

const TIMEOUT: Duration = Duration::from_secs(2);

const POOL_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum, so that no sum of times overflows.
const LONGEST: Duration = Duration::from_secs(86400);
