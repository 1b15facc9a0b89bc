//! A store in Redis, for fleets.

mod connection;
mod failure;
mod lock;
mod scripts;
#[cfg(all(test, unix, feature = "testing"))]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Client, ErrorKind};
use zeroize::Zeroizing;

use self::connection::Connector;
pub use self::lock::RedisLock;
use super::{StoreError, StoredTokens, TokenStore, WriteId};

/// A [`TokenStore`] in Redis, for processes on several machines that share a grant.
///
/// All that belongs to a grant is one hash under one key: the record, the lock and its lease. Every change is one script,
/// so that nothing comes between its parts. Redis 6 or later, or what speaks its protocol (tested with 7.0).
///
/// ```
/// use tower_refresh::store::{RedisStore, TokenStore};
///
/// # fn main() -> Result<(), tower_refresh::store::StoreError> {
/// // One key for each grant. Those who share the grant share the key.
/// let store = RedisStore::new("redis://fleet:password@redis.internal:6379/0", "compass")?;
/// assert_eq!(
///     store.describe(),
///     "the key `tower-refresh:compass` of the Redis at redis.internal:6379"
/// );
///
/// // For another grant, over the same connection.
/// let other = store.for_key("sextant")?;
/// # Ok(())
/// # }
/// ```
///
/// # What is guaranteed, and on what
///
/// That a refresh token is sent by one process at a time and that its successor is kept, as long as there is **one
/// primary that loses nothing**:
///
/// | setting of the server | why |
/// |---|---|
/// | `appendonly yes` | a restart finds what was saved |
/// | `appendfsync always` | so does one after a power cut; with `everysec`, the default, the last second may be gone |
/// | `maxmemory-policy noeviction` | the key is not thrown away; with `allkeys-…` and a `maxmemory`, the lock is refused as [misconfigured](StoreError::misconfigured) |
/// | no writes to replicas | what they are told is lost; they are refused |
///
/// Replicas of the primary may take over. They get everything a moment later, so that the last saves may be missing then.
///
/// # What can be lost, and what then happens
///
/// | what happened | what is found | what becomes of it |
/// |---|---|---|
/// | the server restarted, or a replica took over | a record of another run | [doubted](StoredTokens::doubted): its refresh token may have been spent. The access token is used to its end, then the fleet makes one attempt |
/// | the same, and the lease of a flight was lost | a free lock | another process may begin a flight; what the first one brings is saved if nothing else was |
/// | the data is gone, or the key was deleted | nothing | whoever has had a token set from the store does not begin anew with an older one; a process that starts now has only what it is configured with |
///
/// Each record has the id of the run that wrote it (`run_id` and `master_replid`), which changes with each restart and each
/// change of the primary, now and then without a loss: that costs one early refresh, and no token.
///
/// # The lock
///
/// It is a [lease](Self::lease), counted by the server's clock and renewed as long as the lock is held, however long a refresh
/// takes. Whoever waits is told when it is let go of (`PUBLISH`, under the name of the key, over the connection that is there
/// anyway), and looks for itself when the lease would be over, and every five seconds.
///
/// A process that is killed or cut off holds the lock until its lease is over. One that is frozen for longer finds out when it
/// wakes: [`is_held`](super::StoreLock::is_held) asks the server, and gives the lease its full length again. Between that look
/// and the moment when the refresh token is sent there is a gap that no store can close: a process that is frozen *there*, for
/// longer than a lease, sends a token that another may have sent meanwhile. The longer the lease, the less likely; the longer,
/// too, the wait after a crash.
///
/// If the server's clock is set back, a lease lasts once more as long as it was made for, and no longer; if it is set forward,
/// leases end early, and whoever holds the lock is told so.
///
/// # Permissions
///
/// The store needs no more than this user may, with the prefix and the password of your choice:
///
/// ```text
/// ACL SETUSER fleet on >password ~tower-refresh:* &tower-refresh:* -@all +eval +info +time +hget +hmget +hset +hincrby +hdel +persist +publish +subscribe +select
/// ```
///
/// `+select` is for a database other than 0. Without `+subscribe` or the channels (`&…`), a process that waits for the lock looks
/// four times a second; without `+publish`, it looks every five seconds.
///
/// The same commands must not be renamed (`rename-command`), nor be refused by a proxy: all but `eval`, `select` and `subscribe`
/// are called in scripts. If one is missing, the error is [misconfigured](StoreError::misconfigured) and names it.
///
/// # TLS and the password
///
/// The password is part of the URL, percent-encoded. It is in no message and in no `Debug`.
///
/// `rediss://` is TLS. This crate brings none: say in your own `Cargo.toml` which one the client is to use, and in case of
/// rustls, which cryptography.
///
/// ```toml
/// redis = { version = "1", default-features = false, features = ["tokio-rustls-comp"] }
/// rustls = { version = "0.23", default-features = false, features = ["ring"] }
/// ```
///
/// The certificates of the system then count. For others, build a client with them: [`with_client`](Self::with_client). The
/// tokens are stored in the clear, unless an `EncryptedStore` is over this one: whoever may read the key, the append-only file or
/// a backup has them.
///
/// # Memory
///
/// A grant takes a few kilobytes; the key never expires. If the server's memory is full, an intent to send a refresh token
/// cannot be saved, so that it is not sent. What follows an intent is saved all the same, and the lease renewed: a few kilobytes
/// over the limit are better than a token that is lost.
///
/// # The runtime
///
/// A tokio runtime with I/O and time enabled. The connection lives on the runtime that made it; if that is gone or not polled,
/// another one is made where it is needed.
///
/// # What is not supported
///
/// Redis Cluster (a node that has the key will do, until the key moves), Sentinel (use a name or a proxy that leads to the
/// primary), and servers and proxies that do not speak RESP3 (`HELLO 3`).
///
/// # Errors
///
/// [Unavailable](StoreError::unavailable) if the server does not answer [in time](Self::timeout), still loads its data, is full,
/// cannot write to its disk, is a replica, or closes the connection. [Misconfigured](StoreError::misconfigured) if it refuses
/// the user or the password, does not permit a command, does not speak RESP3, cannot be trusted over TLS, or has something else
/// under the key. The text of its errors is not passed on, since it may quote what it was sent.
///
/// A request is made again at once, over a new connection, if the old one is dead: all of them are harmless to repeat.
///
/// # Cancel safety
///
/// As with [every store](TokenStore#cancel-safety). A lock that may have been taken when the future of
/// [`lock`](TokenStore::lock) was dropped is let go of in the background.
#[derive(Clone)]
pub struct RedisStore {
    connector: Arc<Connector>,
    prefix: String,
    name: String,
    lease: Duration,
    timeout: Duration,
}

impl RedisStore {
    /// Makes a store for one grant, in the Redis at this URL, under [the prefix](Self::prefix) and this key. It connects when
    /// it is first used.
    ///
    /// The URL is `redis://host:port/db`, with `user:password@` before the host if the server wants that, percent-encoded
    /// where they have characters that a URL has not. A password alone is `:password@`. `rediss://` is TLS,
    /// see [above](Self#tls-and-the-password).
    ///
    /// # Errors
    ///
    /// [Misconfigured](StoreError::misconfigured) if the URL cannot be used, or the key is empty. The message does not contain
    /// the URL.
    pub fn new(url: impl AsRef<str>, key: impl Into<String>) -> Result<Self, StoreError> {
        let client = Client::open(url.as_ref()).map_err(|error| {
            // The client says nothing of the URL but what is wrong with it; to be sure, not even that is repeated.
            let is_tls = ["rediss:", "valkeys:"].iter().any(|tls| url.as_ref().starts_with(tls));
            let why = if is_tls && error.kind() == ErrorKind::InvalidClientConfig && error.to_string().contains("TLS") {
                "the URL wants TLS, which the crate `redis` was built without: add its feature `tokio-rustls-comp` or `tokio-native-tls-comp` to your own dependencies"
            } else {
                "the URL cannot be used: write redis://user:password@host:port/db, with special characters of the password percent-encoded"
            };
            StoreError::misconfigured(why)
        })?;
        Self::with_client(&client, key)
    }

    /// Makes a store for one grant, with a client that is already set up: with certificates of its own, say. Only what it is to
    /// connect to is taken from it; the limits and the protocol are this store's.
    ///
    /// # Errors
    ///
    /// [Misconfigured](StoreError::misconfigured) if the key is empty.
    pub fn with_client(client: &Client, key: impl Into<String>) -> Result<Self, StoreError> {
        Self {
            connector: Arc::new(Connector::new(client)?),
            prefix: PREFIX.into(),
            name: String::new(),
            lease: LEASE,
            timeout: TIMEOUT,
        }
        .for_key(key)
    }

    /// Makes a store for another grant, with the same settings and over the same connection.
    ///
    /// Who has waited for the lock of a key is told whenever that lock is let go of, as long as the connection lasts.
    ///
    /// # Errors
    ///
    /// [Misconfigured](StoreError::misconfigured) if the key is empty.
    pub fn for_key(&self, key: impl Into<String>) -> Result<Self, StoreError> {
        let name = key.into();
        if name.is_empty() {
            return Err(StoreError::misconfigured(
                "a store in Redis needs a key: name the grant whose tokens it keeps",
            ));
        }
        Ok(Self { name, ..self.clone() })
    }

    /// Sets what the key begins with; `tower-refresh:` by default.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how long the lock outlives a process that holds it and is killed, frozen or cut off; 15 seconds by default, and at
    /// least 100 milliseconds.
    ///
    /// As long as the process is well, the lease is renewed each time that a third of it is over, however long a refresh takes.
    /// All who share the key should have the same.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.clamp(SHORTEST_LEASE, LONGEST);
        self
    }

    /// Sets how long the server may take to answer, with the time to connect, and to connect again if the connection turns out
    /// to be dead; 2 seconds by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(LONGEST);
        self
    }

    fn key(&self) -> String {
        format!("{}{}", self.prefix, self.name)
    }

    fn describe_key(&self) -> String {
        format!("the key `{}` of {}", self.key(), self.connector.place())
    }

    fn lease_ms(&self) -> u64 {
        u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX)
    }

    /// Renews the lease of the lock's owner; returns whether it was still there.
    async fn renew(&self, owner: WriteId, within: Duration) -> Result<bool, StoreError> {
        let command = scripts::renew(&self.key(), &owner.to_string(), self.lease_ms());
        self.connector.ask(&command, within).await
    }

    fn unreadable(&self, why: impl fmt::Display) -> StoreError {
        StoreError::unreadable(format!("{}: {why}", self.describe_key()))
    }
}

impl TokenStore for RedisStore {
    type Lock = RedisLock;

    async fn lock(&self, wait: Duration) -> Result<RedisLock, StoreError> {
        lock::lock(self, wait).await
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        let command = scripts::load(&self.key());
        let (record, write_id, run, answering): scripts::Loaded =
            self.connector.ask(&command, self.timeout).await?;
        let Some(record) = record.map(Zeroizing::new) else {
            return Ok(None);
        };
        let record =
            StoredTokens::from_json(&record).map_err(|error| self.unreadable(error.get_ref()))?;
        if write_id != Some(record.write_id().to_string()) {
            return Err(
                self.unreadable("its fields `record` and `write_id` do not belong together")
            );
        }
        Ok(Some(if run == Some(answering) { record } else { record.doubted() }))
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        let command = scripts::save(
            &self.key(),
            record.write_id(),
            replaces,
            &record.to_json()?,
            record.has_open_intent(),
        );
        let outcome: String = self.connector.ask(&command, self.timeout).await?;
        match &*outcome {
            "saved" => Ok(()),
            "conflict" => Err(StoreError::conflict()),
            _ => Err(self.unreadable(
                "it is not a record of tower-refresh, or one of a later version, and is left as it is",
            )),
        }
    }

    fn describe(&self) -> String {
        self.describe_key()
    }

    /// Returns the key, with its prefix. The server and the database are not part of it.
    fn place(&self) -> String {
        self.key()
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("place", &self.connector.place())
            .field("key", &self.key())
            .field("lease", &self.lease)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

const PREFIX: &str = "tower-refresh:";

const LEASE: Duration = Duration::from_secs(15);

const SHORTEST_LEASE: Duration = Duration::from_millis(100);

const TIMEOUT: Duration = Duration::from_secs(2);

/// So that no sum of times overflows.
const LONGEST: Duration = Duration::from_secs(86400);
