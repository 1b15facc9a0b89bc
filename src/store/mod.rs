//! Stores that keep token sets across restarts, processes and machines.
//!
//! Most servers let a client send a refresh token once, and return the next one with the answer. To the server, a client that
//! sends the old one again looks like a thief, and it ends the session: the user must log in. A program that restarts must
//! therefore have saved the newest refresh token before it used what came with it, and programs that share one must take turns.
//!
//! [`Credentials`](crate::Credentials) keep a *ledger* of their grant: the current token set, and what has become of each refresh
//! token. It is in memory, and decides what is sent. Add a store with
//! [`CredentialsBuilder::store`](crate::CredentialsBuilder::store) to save the ledger and to share it:
//!
//! ```no_run
//! # #[cfg(all(feature = "file-store", feature = "oauth2"))]
//! # async fn example(http: tower::util::BoxCloneService<http::Request<http_body_util::Full<bytes::Bytes>>, http::Response<http_body_util::Full<bytes::Bytes>>, tower_refresh::BoxError>) -> Result<(), tower_refresh::BoxError> {
//! use tower::ServiceBuilder;
//! use tower_refresh::oauth2::{ClientAuth, RefreshTokenGrant, TokenEndpoint};
//! use tower_refresh::store::FileStore;
//! use tower_refresh::{Credentials, RefreshLayer};
//!
//! let endpoint = TokenEndpoint::new(http.clone(), "https://auth.example.com/oauth2/token")?
//!     .client_auth(ClientAuth::basic("my-client", std::env::var("CLIENT_SECRET")?));
//! // Sent once, at the first start. Later refresh tokens come from the store.
//! let grant = RefreshTokenGrant::new(endpoint, std::env::var("REFRESH_TOKEN")?);
//!
//! let credentials = Credentials::builder(grant)
//!     .store(FileStore::new("/var/lib/my-program/tokens.json"))
//!     .name("my-program")
//!     .build();
//! let client = ServiceBuilder::new()
//!     .layer(RefreshLayer::new(credentials.clone()).origin("https://api.example.com")?)
//!     .service(http);
//!
//! // …requests…
//!
//! // Before the program ends. An error here means that a token set exists only in this process.
//! credentials.flush().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Which store
//!
//! | Store | Shared by | Survives |
//! |---|---|---|
//! | [`MemoryStore`] | one process | nothing; for tests |
//! | `FileStore` (feature `file-store`) | the processes of one machine, on a local file system | a crash of the program |
//! | `RedisStore` (feature `redis`) | a fleet | what the configuration of the server survives |
//! | `EncryptedStore` (feature `encrypted-store`), around any of them | as the inner store | as the inner store; the tokens cannot be read without the key |
//! | your own ([`TokenStore`]) | | |
//!
//! One store holds one grant: one log-in of one user at one server. A program with many of them has as many files or keys.
//! Programs that do not share a refresh token need not share a store. Without a store, a restart sends the configured refresh
//! token again, which is right only if the server does not rotate.
//!
//! # What happens in a refresh
//!
//! 1. **Load.** If another process has stored a newer token set that works, it is used, and nothing is sent.
//! 2. **Lock.** One process of all that share the store continues. The others wait, load again, and find what it has stored. They
//!    ask for the lock again only if they still need it.
//! 3. **Load** again, and check once more.
//! 4. **Save the intent**: which refresh token is about to be sent (a keyed fingerprint of it), when, and how often it was
//!    sent before.
//! 5. **Check the lock.** If it was lost, nothing is sent, and the intent is taken back.
//! 6. **Send.**
//! 7. **Save** the new token set together with the end of the intent.
//! 8. Only then is the new token used.
//!
//! Without a store the steps are the same on the ledger in memory, except that no lock is needed.
//!
//! # What is promised
//!
//! With a store and without one:
//!
//! - **A refresh token that may rotate is sent once**, unless an answer was lost.
//! - **An unknown outcome is never hidden.** If no answer comes, the refresh token may be spent. The error is
//!   [ambiguous](crate::TokenError::is_ambiguous). The access token is used until it expires, and nothing is sent. Then the refresh
//!   token is sent once more: either that works, or the server refuses it, and the error reports both. If no answer comes again,
//!   further attempts are one minute apart, then two, and at most a quarter of an hour. If the server is known to accept a refresh
//!   token again (`reuse_grace` in the dialect), it is asked again at once, one time, within that window.
//! - **A refresh token that the server has refused or replaced is not sent again**, although a log-in brings it. A configured
//!   refresh token has its turn once.
//! - **A session that has ended does not come back.** [`log_in`](crate::Credentials::log_in) and
//!   [`log_out`](crate::Credentials::log_out) begin a new session. The result of a refresh of an earlier session is not used. The tokens
//!   of a fallback source ([`or_else`](crate::TokenSource::or_else)) begin a new session too.
//! - **Two late answers are ordered by when they were asked for**: the later one is used, also if it arrives first.
//!
//! With a store, also across restarts and processes:
//!
//! - Wherever a process is killed, the next start finds a whole record. A token set that was saved is not lost.
//! - If a process ends between steps 4 and 7, the intent stays **open**. The process that finds it reports that
//!   ([`Event::OutcomeUnknown`](crate::Event::OutcomeUnknown)), and one process, for all, sends the refresh token once more after the
//!   access token has expired.
//! - While the store is unavailable, nothing is sent, and the access token is used until it expires. If the server does not
//!   rotate, or with [`OnUnavailable::Continue`](crate::OnUnavailable::Continue), the credentials go on with what is in memory. Lock
//!   contention is not an outage: without the lock, nothing is sent.
//! - A token set that could not be saved is used, kept in memory, and saved as soon as the store is available.
//!   [`Event::Unsaved`](crate::Event::Unsaved) and [`Credentials::flush`](crate::Credentials::flush) report it.
//! - The successor of what is stored is always saved, also by a process that was suspended and has lost its lock.
//! - `log_in` and `log_out` are saved at once. Other processes learn of them with their next refresh, and use their access token
//!   until then.
//! - A *different* configured refresh token replaces what is stored, because the user has logged in again. One that had its turn
//!   does not, so that neither a restart nor an old configuration sends it.
//! - A record is bound to the origin of the token endpoint, the client id and the
//!   [name](crate::CredentialsBuilder::name). With another configuration nothing is sent and nothing is changed. An `EncryptedStore`
//!   record is also bound to its [place](TokenStore::place), so that two records cannot be swapped.
//! - A `FileStore` does not use a record that another user owns or can write.
//! - A record that cannot be parsed (cut short, of another program, of a later version) is left unchanged, and no refresh token is
//!   sent, not even a configured one, because it may be spent. The access token is used until it expires. Then the error is
//!   [misconfigured](crate::TokenError::is_misconfigured) and names the record. Once a valid record is in its place, the
//!   credentials continue from there.
//!
//! # Limits
//!
//! - Between the check of the lock (5) and the sending (6) a process can be suspended for longer than its lease. If another process
//!   sends the same refresh token meanwhile, the server sees it twice. It takes a suspension of that length within a few
//!   microseconds, and can happen only with a lock that is a lease.
//! - Two credentials over clones of one grant have two ledgers, which do not know of each other. Share the credentials, or a store.
//! - A store that loses what it has confirmed (a disk that reports success too early, a failover of Redis, a restored backup)
//!   loses it for the ledger as well. Where that can be detected, it counts as an open intent.
//! - Configured refresh tokens have no order. One that the store has not seen counts as newer, once, and ends the stored session,
//!   even if it is invalid. Start no process with an older configuration after one with a newer, nor with a wrong one.
//! - If a store comes back empty, the first process that needs a token stores what it has. Another one that has a newer set
//!   stores that with its next refresh. If that comes after the access token of the first has expired, the first sends the older
//!   refresh token, as one that may be spent.
//! - A token set that could not be saved is in one process. If that process has no more requests, so that it does not try again,
//!   another one may find the open intent and send the refresh token once more.
//! - Wall clocks are compared: an access token from another machine is used for as long as the clock of this one allows, and of
//!   two log-ins that could not be saved at once, the one with the later time of day is the later.

mod backing;
#[cfg(feature = "encrypted-store")]
mod encrypted;
mod error;
#[cfg(feature = "file-store")]
mod file;
mod format;
mod memory;
#[cfg(feature = "redis")]
mod redis;

use std::future::Future;
use std::time::Duration;

#[cfg(feature = "encrypted-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "encrypted-store")))]
pub use self::encrypted::{EncryptedStore, EncryptionKey};
pub use self::error::{StoreError, StoreErrorKind};
#[cfg(feature = "file-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "file-store")))]
pub use self::file::{FileLock, FileStore};
pub use self::format::StoredTokens;
pub use self::memory::{MemoryLock, MemoryStore};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use self::redis::{RedisLock, RedisStore};
pub use crate::grant::record::{Binding, WriteId};

/// Gives a store to the ledger.
pub(crate) fn backing(store: impl TokenStore) -> Box<dyn crate::grant::backing::Backing> {
    Box::new(self::backing::Backed(store))
}

/// Keeps the token set of one grant across restarts, processes or machines.
///
/// A store does three things, and decides nothing: it locks, it loads, and it saves a record if the stored one is still the
/// one to be replaced. What is saved, and when a token may be sent, is decided by the ledger of the
/// [`Credentials`](crate::Credentials), so that it is the same for every store.
///
/// # The laws
///
/// 1. **One row and one lock for a grant.** All who share the grant share both.
/// 2. **The lock is exclusive.** As long as one [`StoreLock`] is held, [`lock`](Self::lock) and
///    [`lock_or_wait`](Self::lock_or_wait) give no other. It ends with [`release`](StoreLock::release), when it is dropped, and with
///    the process that held it; not necessarily at once.
/// 3. **A lock can be lost**, where it is a lease. [`is_held`](StoreLock::is_held) asks the storage and remembers nothing.
/// 4. **A save compares and swaps**, in one step that nothing comes between, whether the lock is held or not. It counts if
///    the [write id](StoredTokens::write_id) of what is stored is `replaces` (none: if nothing is stored). If it is
///    already the record's own, the save has counted before, and that is no error. Otherwise it is a
///    [conflict](StoreError::conflict), and nothing changes.
/// 5. **A save is whole or not at all**, also if the process is killed during it. Once it has returned, the record is as durable as
///    the store can make it.
/// 6. **A load sees a whole record**, the last that was saved, with the lock or without it.
/// 7. **A record that cannot be parsed is left unchanged**: it is [unreadable](StoreError::unreadable), and no save replaces it.
/// 8. **A record with an [open intent](StoredTokens::has_open_intent) is followed by a larger one**, after a refresh token was
///    spent. A store that can run full fails the first of the two if the second will not fit.
///
/// `testing::store_laws` (feature `testing`) tests all of them that can be tested from outside, and its documentation is
/// about writing a store of one's own, with a complete one.
///
/// # Cancel safety
///
/// Dropping a future leaves the record unchanged or saved, and no lock held.
pub trait TokenStore: Send + Sync + 'static {
    /// The lock, while it is held.
    type Lock: StoreLock;

    /// Takes the lock. Waits until it is free.
    ///
    /// # Errors
    ///
    /// [Held](StoreError::held) if another process still holds it after `wait`; other errors if that cannot be known.
    fn lock(&self, wait: Duration) -> impl Future<Output = Result<Self::Lock, StoreError>> + Send;

    /// Takes the lock if it is free. If it is not, waits for at most `wait`, and may return `None` instead of the lock.
    ///
    /// The credentials call this method and not [`lock`](Self::lock). After `None`, they load the record, and call it again only
    /// if they still need the lock. Usually they do not, because the previous holder has stored a new token set.
    ///
    /// The default calls `lock`, which is right for locks with a queue, where a release wakes one waiter. Implement it if a
    /// release wakes all waiters, and return `None` when a waiter is woken. Otherwise, all of them ask for the lock after each
    /// release, and the number of requests grows with the square of the number of waiters. A store around another one passes
    /// the call on.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock). If another process still holds the lock after `wait`, both `None` and
    /// [held](StoreError::held) are right.
    fn lock_or_wait(
        &self,
        wait: Duration,
    ) -> impl Future<Output = Result<Option<Self::Lock>, StoreError>> + Send {
        async move { self.lock(wait).await.map(Some) }
    }

    /// Returns what is stored, or none if nothing is.
    ///
    /// # Errors
    ///
    /// [Unavailable](StoreError::unavailable), [unreadable](StoreError::unreadable) or
    /// [misconfigured](StoreError::misconfigured).
    fn load(&self) -> impl Future<Output = Result<Option<StoredTokens>, StoreError>> + Send;

    /// Replaces the record that `replaces` names by this one.
    ///
    /// # Errors
    ///
    /// [Conflict](StoreError::conflict) if something else is stored. After any other error it is not known whether the save
    /// counted; to save the same record again is harmless.
    fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Returns what messages call this store, such as `the file /var/lib/compass/tokens.json`; no secret.
    fn describe(&self) -> String {
        "the store".into()
    }

    /// Returns the name of the record's place within the storage, such as a key or a file name; no secret.
    ///
    /// An `EncryptedStore` binds each record to its place, so that two records cannot be swapped. The name must be the same in
    /// every process that shares the record, and after a restart. It is stored in the clear. A store around another one
    /// passes it on. If it is empty, which is the default, a record is not bound to a place.
    fn place(&self) -> String {
        String::new()
    }
}

/// The lock of a [`TokenStore`], held until it is released, dropped or lost.
pub trait StoreLock: Send + Sync + 'static {
    /// Asks whether the lock is still held.
    ///
    /// # Errors
    ///
    /// If that cannot be known; the lock then counts as lost.
    fn is_held(&self) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Releases the lock. One that is dropped instead may stay locked for a while.
    fn release(self) -> impl Future<Output = ()> + Send;
}
