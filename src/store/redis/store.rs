//! The store.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use super::connection::{Connector, Stream};
use super::entry::Entry;
use super::lock::{RedisLock, lock_or_wait};
use crate::store::{StoreError, StoredTokens, TokenStore, WriteId, lease};

/// A [`TokenStore`] in Redis, for processes on several machines that share a grant.
///
/// The record, the lock and its lease are one hash under one key. Every change is one script, so that nothing comes between its
/// parts. Requires Redis 6 or later, or a server that speaks its protocol (tested with 7.0).
///
/// # Examples
///
/// ```
/// use tower_refresh::store::{RedisStore, TokenStore};
///
/// # fn main() -> Result<(), tower_refresh::store::StoreError> {
/// // One key for each grant. All processes that share the grant use the same key.
/// let store = RedisStore::new("redis://fleet:password@redis.internal:6379/0", "compass")?;
/// assert_eq!(
///     store.describe(),
///     "the key `tower-refresh:compass` of the Redis at redis.internal:6379"
/// );
/// # Ok(())
/// # }
/// ```
///
/// # Many keys
///
/// Create one store for the server, and one with [`for_key`](Self::for_key) for each grant, such as that of a user. They share one
/// connection per process, which also carries the releases of locks. The feature `pool` keeps the credentials, in a
/// [`CredentialsPool`](../struct.CredentialsPool.html):
///
/// ```
/// # #[cfg(all(feature = "oauth2", feature = "pool"))]
/// # mod users {
/// use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
/// use tower_refresh::store::RedisStore;
/// use tower_refresh::{Credentials, CredentialsPool, TokenError};
///
/// fn users(store: RedisStore, endpoint: TokenEndpoint) -> CredentialsPool<String> {
///     let store = store.prefix("tower-refresh:users:");
///     CredentialsPool::new(move |user: &String| {
///         let grant = RefreshTokenGrant::new(endpoint.clone(), "");
///         Ok::<_, TokenError>(Credentials::builder(grant).store(store.for_key(user)?))
///     })
/// }
/// # }
/// ```
///
/// | Resource | Need |
/// |---|---|
/// | connections | one per process. Requests are pipelined: each is sent before the previous one is answered |
/// | an idle key | its name only: no task, timer or subscription |
/// | a refresh | five scripts, seven with an intent |
/// | a waiter for a lock | three to five scripts. All waiters of a key in a process share one subscription, which ends with the last of them |
///
/// If thousands of requests are made at once, a request waits behind the others for up to four times its [limit](Self::timeout), as
/// long as the server answers. While the server is not connected, the requests share one attempt to connect.
///
/// # Options
///
/// | Option | Default | Effect |
/// |---|---|---|
/// | [`prefix`](Self::prefix) | `tower-refresh:` | the start of the key |
/// | [`lease`](Self::lease) | 15 s | how long the lock outlives its holder |
/// | [`timeout`](Self::timeout) | 2 s | how long the server may answer nothing |
/// | [`connect_with`](Self::connect_with) | TCP, or a Unix socket | opens the connection: TLS with a CA of your own, a tunnel |
///
/// # Guarantees
///
/// One process at a time sends the refresh token, and its successor is kept, if there is **one primary that loses nothing**:
///
/// | Server setting | Reason |
/// |---|---|
/// | `appendonly yes` | a restart keeps the saves |
/// | `appendfsync always` | a power failure keeps the saves; with `everysec`, the default, the last second may be lost |
/// | `maxmemory-policy noeviction` | the key is not evicted; with `allkeys-…` and a `maxmemory`, the lock is [misconfigured](StoreError::is_misconfigured) |
/// | no writes to replicas | a replica loses them; they are refused |
///
/// A replica may take over from the primary. Replication is asynchronous, so that the last saves may be missing then.
///
/// # Data loss
///
/// | Event | State | Consequence |
/// |---|---|---|
/// | the server restarted, or a replica took over | a record of another run | [doubted](StoredTokens::doubted): its refresh token may be spent. The access token is used until it expires, then one process makes one attempt |
/// | the same, and the lease was lost during a refresh | a free lock | another process may start a refresh. The result of the first is saved if no other was |
/// | the data or the key was deleted | no record | a process that has used a token set does not start again with an older one. A new process has only its configuration |
///
/// Each record has the id of the run in which it was written (`run_id` and `master_replid`). It changes with each restart and each
/// change of the primary, at times without a loss. That costs one early refresh, and no token.
///
/// # The lock
///
/// The lock is a [lease](Self::lease) by the server's clock. It is renewed while the lock is held, however long a refresh takes.
/// A release wakes the waiters (`PUBLISH` to a channel with the name of the key, over the same connection). They also try again
/// at the end of the lease, and every five seconds. Credentials that are woken load the record first. They ask for the lock again
/// only if it has no newer token set.
///
/// If a process is killed or disconnected, the lock stays taken until its lease is over. If a process is frozen for longer than
/// the lease, it learns of the loss when it continues: [`is_held`](crate::store::StoreLock::is_held) asks the server and renews the
/// lease for its full length. A gap between that answer and the sending of the refresh token remains, as for
/// [each lease](crate::store#limits). A longer lease makes a loss there less likely, and prolongs the wait after a crash.
///
/// If the server's clock is set back, a lease lasts at most its full length from then. If it is set forward, leases end early, and
/// their holders are informed.
///
/// # Permissions
///
/// A user with these permissions is sufficient, with the prefix and the password of your choice:
///
/// ```text
/// ACL SETUSER fleet on >password ~tower-refresh:* &tower-refresh:* -@all +eval +info +time +hget +hmget +hset +hincrby +hdel +persist +publish +subscribe +unsubscribe +select
/// ```
///
/// `+select` is for databases other than 0. Without `+subscribe` or the channels (`&…`), a waiter tries four times per second.
/// Without `+publish`, it tries every five seconds. Without `+unsubscribe`, a subscription lasts as long as the connection.
///
/// The same commands must not be renamed (`rename-command`) or refused by a proxy. All except `eval`, `select`, `subscribe` and
/// `unsubscribe` are called in scripts. If one other than `publish`, `subscribe`, `unsubscribe` and `select` is missing, the error
/// is [misconfigured](StoreError::is_misconfigured) and names it.
///
/// # TLS and the password
///
/// The password is part of the URL, percent-encoded. It appears neither in messages nor in `Debug`.
///
/// `rediss://` is TLS with the certificates of the system. This crate includes no TLS library: choose one in your own
/// `Cargo.toml`, and for rustls a cryptography provider too:
///
/// ```toml
/// redis = { version = "1", default-features = false, features = ["tokio-rustls-comp"] }
/// rustls = { version = "0.23", default-features = false, features = ["ring"] }
/// ```
///
/// The major version of the crate `redis` is part of this API, and none of its types is. For a CA or a client certificate of your
/// own, use [`connect_with`](Self::connect_with), which needs no `redis` in your dependencies.
///
/// The tokens are stored in the clear: a reader of the key, the append-only file or a backup has them. Use an `EncryptedStore`
/// over this store to prevent that.
///
/// # Memory
///
/// A grant takes a few kilobytes, and its key never expires. If the server's memory is full, an intent to send a refresh token
/// cannot be saved, and the token is not sent. The save that follows an intent and the renewal of a lease succeed even then: a few
/// kilobytes above the limit are better than a lost token.
///
/// # Runtime
///
/// A tokio runtime with I/O and time enabled. The connection runs on the runtime that made it. If that runtime has ended or is not
/// polled, the next request makes another connection on its own.
///
/// # Limits
///
/// Not supported: Redis Cluster (the node that has the key works until the key moves), Sentinel (use a name or a proxy that leads
/// to the primary), and servers and proxies that do not speak RESP3 (`HELLO 3`).
///
/// # Errors
///
/// - [Unavailable](StoreError::is_unavailable): the server does not answer [in time](Self::timeout), is loading its data, is full,
///   cannot write to its disk, is a replica, or closes the connection.
/// - [Misconfigured](StoreError::is_misconfigured): the server refuses the user or the password, does not permit a command, does
///   not speak RESP3, has an untrusted certificate, or has another kind of data under the key.
///
/// The text of the server's errors is not passed on, since it may quote a request.
///
/// If the connection is dead, a request is sent once more over a new one. All requests are harmless to repeat.
///
/// # Cancel safety
///
/// As for [every store](TokenStore#cancel-safety). If you drop the future of [`lock`](TokenStore::lock), a lock that may have been
/// taken is released in the background.
#[doc(alias = "valkey")]
#[doc(alias = "fleet")]
#[derive(Clone)]
#[must_use]
pub struct RedisStore {
    pub(super) connector: Arc<Connector>,
    prefix: String,
    name: String,
    pub(super) lease: Duration,
    pub(super) timeout: Duration,
}

impl RedisStore {
    /// Creates a store for one grant, on the server at `url`, under the [prefix](Self::prefix) and `key`. It connects at the first
    /// use.
    ///
    /// The URL is `redis://host:port/db`, or `redis://user:password@host:port/db` with a percent-encoded password. A password alone
    /// is `:password@`. `rediss://` is [TLS](Self#tls-and-the-password), `redis+unix:///path` a Unix socket.
    ///
    /// # Errors
    ///
    /// [Misconfigured](StoreError::is_misconfigured) if the URL is invalid or the key is empty. The message does not contain the
    /// URL.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_refresh::store::RedisStore;
    ///
    /// # fn main() -> Result<(), tower_refresh::store::StoreError> {
    /// let store = RedisStore::new("redis://redis.internal:6379", "compass")?
    ///     .lease(Duration::from_secs(30));
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(url: impl AsRef<str>, key: impl Into<String>) -> Result<Self, StoreError> {
        Self {
            connector: Arc::new(Connector::new(url.as_ref())?),
            prefix: PREFIX.into(),
            name: String::new(),
            lease: LEASE,
            timeout: TIMEOUT,
        }
        .for_key(key)
    }

    /// Returns a store for another grant, with the same settings and over the same connection. See
    /// [Many keys](Self#many-keys).
    ///
    /// # Errors
    ///
    /// [Misconfigured](StoreError::is_misconfigured) if the key is empty.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::{RedisStore, StoreError};
    ///
    /// fn store_of(user: &str, grants: &RedisStore) -> Result<RedisStore, StoreError> {
    ///     grants.for_key(user)
    /// }
    /// ```
    pub fn for_key(&self, key: impl Into<String>) -> Result<Self, StoreError> {
        let name = key.into();
        if name.is_empty() {
            return Err(StoreError::misconfigured(
                "a store in Redis needs a key: choose one for each grant",
            ));
        }
        Ok(Self { name, ..self.clone() })
    }

    /// Sets the start of the key. The default is `tower-refresh:`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how long the lock outlives a holder that is killed, frozen or disconnected. The default is 15 seconds, the minimum 100
    /// milliseconds.
    ///
    /// A running process renews the lease after each third of it, however long a refresh takes. Use the same value in all processes
    /// that share the key.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.clamp(SHORTEST_LEASE, LONGEST);
        self
    }

    /// Sets how long a request waits while the server does not answer. The default is 2 seconds.
    ///
    /// The limit includes the time to connect, and to connect again if the connection turns out to be dead. While the server
    /// answers the requests in front of it, a request waits for up to four times the limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(LONGEST);
        self
    }

    /// Opens connections with `connect`, for example over TLS with a CA of your own, or through a tunnel.
    ///
    /// The host and the port of the URL then appear only in messages. The user, the password and the database still count. Write
    /// `redis://`, even if the stream is encrypted.
    ///
    /// # Examples
    ///
    /// ```
    /// use tokio::net::TcpStream;
    /// use tower_refresh::store::RedisStore;
    ///
    /// # fn main() -> Result<(), tower_refresh::store::StoreError> {
    /// let store = RedisStore::new("redis://:password@redis.internal:6380", "compass")?
    ///     .connect_with(|| async {
    ///         let stream = TcpStream::connect("redis.internal:6380").await?;
    ///         // With `tokio_rustls`: `connector.connect(name, stream).await`.
    ///         Ok(stream)
    ///     });
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "tls")]
    #[doc(alias = "certificate")]
    pub fn connect_with<F, S>(mut self, connect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.connector = Arc::new(self.connector.over(Arc::new(move || {
            let stream = connect();
            Box::pin(async { Ok(Box::new(stream.await?) as Box<dyn Stream>) })
        })));
        self
    }

    fn entry(&self) -> Entry {
        Entry {
            connector: Arc::clone(&self.connector),
            key: format!("{}{}", self.prefix, self.name),
            lease: self.lease,
            timeout: self.timeout,
        }
    }

    fn unreadable(&self, why: impl fmt::Display) -> StoreError {
        StoreError::unreadable(format!("{}: {why}", self.describe()))
    }
}

impl TokenStore for RedisStore {
    type Lock = RedisLock;

    async fn lock(&self, wait: Duration) -> Result<RedisLock, StoreError> {
        lease::lock(self, wait).await
    }

    /// Returns `None` when the lock was released, so that each waiter sends a few requests, however many there are.
    async fn lock_or_wait(&self, wait: Duration) -> Result<Option<RedisLock>, StoreError> {
        lock_or_wait(&self.entry(), wait).await
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        let loaded = self.entry().load().await?;
        let Some(record) = loaded.record.map(Zeroizing::new) else {
            return Ok(None);
        };
        let record =
            StoredTokens::from_json(&record).map_err(|error| self.unreadable(error.get_ref()))?;
        if loaded.write_id != Some(record.write_id().to_string()) {
            return Err(self.unreadable("its fields `record` and `write_id` do not match"));
        }
        Ok(Some(if loaded.is_of_another_run { record.doubted() } else { record }))
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        match &*self.entry().save(record, replaces).await? {
            "saved" => Ok(()),
            "conflict" => Err(StoreError::conflict()),
            _ => Err(self.unreadable(
                "it is not a record of tower-refresh, or one of a later version; nothing is saved",
            )),
        }
    }

    fn describe(&self) -> String {
        self.entry().describe()
    }

    /// Returns the key with its prefix. The server and the database are not part of it.
    fn place(&self) -> String {
        self.entry().key
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("place", &self.connector.place())
            .field("key", &self.place())
            .field("lease", &self.lease)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

const PREFIX: &str = "tower-refresh:";

const LEASE: Duration = Duration::from_secs(15);

const SHORTEST_LEASE: Duration = Duration::from_millis(100);

const TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum, so that no sum of times overflows.
const LONGEST: Duration = Duration::from_secs(86400);
