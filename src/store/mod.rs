//! Where token sets are kept: across restarts, processes and machines.
//!
//! Most servers let a client spend a refresh token once, and hand out the next one with the answer. Whoever sends the old one
//! again looks like a thief, and the server ends the session: a human must log in. So a program that restarts must have
//! written down the newest refresh token before it used what came with it, and programs that share one must take turns.
//! [`Stored`] does both, around any [`TokenSource`](crate::TokenSource), with a [`TokenStore`] to keep the tokens in:
//!
//! ```no_run
//! # #[cfg(all(feature = "file-store", feature = "oauth2"))]
//! # async fn example(http: tower::util::BoxCloneService<http::Request<http_body_util::Full<bytes::Bytes>>, http::Response<http_body_util::Full<bytes::Bytes>>, tower_refresh::BoxError>) -> Result<(), tower_refresh::BoxError> {
//! use tower::ServiceBuilder;
//! use tower_refresh::oauth2::{ClientAuth, RefreshTokenGrant, TokenEndpoint};
//! use tower_refresh::store::{FileStore, Stored};
//! use tower_refresh::{Credentials, RefreshLayer};
//!
//! let endpoint = TokenEndpoint::new(http.clone(), "https://auth.example.com/oauth2/token")?
//!     .client_auth(ClientAuth::basic("my-client", std::env::var("CLIENT_SECRET")?));
//! // Sent once, at the very first start. From then on the store knows better.
//! let grant = RefreshTokenGrant::new(endpoint, std::env::var("REFRESH_TOKEN")?);
//!
//! let store = FileStore::new("/var/lib/my-program/tokens.json");
//! let credentials = Credentials::new(Stored::new(grant, store).name("my-program"));
//! let client = ServiceBuilder::new()
//!     .layer(RefreshLayer::new(credentials.clone()).origin("https://api.example.com")?)
//!     .service(http);
//!
//! // …requests…
//!
//! // Before the program ends: an error here is a token that only this process has.
//! credentials.flush().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Which store
//!
//! | store | who shares it | survives |
//! |---|---|---|
//! | [`MemoryStore`] | one process | nothing; for tests |
//! | `FileStore` (feature `file-store`) | the processes of one machine, on a local file system | a crash of the program |
//! | `RedisStore` (feature `redis`) | a fleet | what the server's set-up survives |
//! | `EncryptedStore` (feature `encrypted-store`), over any of them | as the store under it | as the store under it; nobody reads the tokens without the key |
//! | one of your own ([`TokenStore`]) | | |
//!
//! One store holds one grant: one log-in of one user at one server. A program with many of them has as many files or keys.
//! Programs that do not share a refresh token need not share a store. Without one, a restart sends the configured refresh
//! token again, which is right only if the server does not rotate.
//!
//! # What happens in a refresh
//!
//! 1. **Look.** If somebody else has stored a newer token set, it is used, and nothing is sent.
//! 2. **Lock.** One of all who share the store goes on; the others wait, and then find what it has stored.
//! 3. **Load**, and look once more.
//! 4. **Write down the intent**: which refresh token is about to be sent (a keyed fingerprint of it), when, and how often
//!    it was sent before.
//! 5. **Look at the lock once more.** If it was lost, nothing is sent, and the intent is taken back.
//! 6. **Send.**
//! 7. **Save** the new token set in place of the one that it came of, and with it the end of the intent.
//! 8. Only then anybody uses it.
//!
//! # What is promised
//!
//! - A refresh token that may rotate is sent once, by one of all who share the store, unless an answer was lost.
//! - Wherever a process is killed, the next start finds a whole record. A token set that was saved is not lost.
//! - If a process ends between steps 4 and 7, or no answer comes, the intent stays **open**: nobody knows whether the refresh
//!   token is spent. Whoever finds it says so ([`Event::OutcomeUnknown`](crate::Event::OutcomeUnknown), or an
//!   [ambiguous](crate::TokenError::is_ambiguous) error). The access token is used to its end, and nothing is sent. Then the
//!   refresh token is sent once more, by one for all: either that works, or the server refuses it, and the error says what is
//!   known. If no answer comes again, the next attempts are a minute apart, then two, at last a quarter of an hour.
//!   A server that is known to bear it (`reuse_grace` in the dialect) is asked again at once, one time, in its window.
//! - If the store is down, at the start or later, nothing is sent, and the access token is used as long as it works. Where the
//!   server does not rotate, and where it is [told to](StoreDown::Serve), `Stored` goes on with what it has in memory. A lock that
//!   somebody else holds is no store that is down: nothing is sent without it.
//! - A token set that could not be saved is used, kept in memory, and saved as soon as the store takes it;
//!   [`Event::Unsaved`](crate::Event::Unsaved) and [`Credentials::flush`](crate::Credentials::flush) report it.
//! - The successor of what is stored is always saved, whoever brings it: also by a process that was suspended and lost its lock
//!   meanwhile.
//! - [`replace`](crate::Credentials::replace) and [`forget`](crate::Credentials::forget) reach the store at once and begin a new
//!   session. What a refresh of the last one brings afterwards, here or elsewhere, is not saved. Others who share the store
//!   learn of it with their next refresh, and use the access token that they have until then.
//! - A refresh token that the server refused, or that another one took the place of, is not sent again, whoever brings it: not
//!   by a restart, not by an old configuration. A configured refresh token has its turn once; a *different* one in the
//!   configuration takes the place of what is stored, since a human has logged in.
//! - What is stored is bound to the origin of the token endpoint, the client id and the [name](Stored::name): with an edited
//!   configuration nothing is sent, and nothing is changed. An `EncryptedStore` record is also bound to its
//!   [place](TokenStore::place), so that two records cannot be swapped.
//! - A `FileStore` does not use a record that another user owns or can write.
//! - A record that cannot be understood (torn, of something else, of a later version) is left as it is, and no refresh token is
//!   sent, not even a configured one: it may be spent. The access token is used as long as it works; then the error, a
//!   [misconfigured](crate::TokenError::is_misconfigured) one, says where the record is. Once somebody has put a good one in its
//!   place, it goes on from there.
//!
//! # What nobody can promise
//!
//! - Between the last look at the lock (5) and the sending (6) a process can be suspended for so long that its lease is over. If
//!   somebody else has sent the same refresh token meanwhile, the server sees it twice. It takes a suspension of more than the
//!   lease within a few microseconds, and can happen only where the lock is a lease.
//! - A request may be sent and its answer never come. That is what the open intent is for; it cannot be undone.
//! - A store that loses what it has confirmed (a disk that lies, a failover of Redis, a backup that was put back) loses it for
//!   us as well. Where that can be noticed, it counts as an open intent.
//! - Configured refresh tokens have no order. One that the store has not seen is taken for a newer one, once, whoever brings it
//!   first, and ends the session that is stored, even if it is of no use: let no process start with an older configuration after
//!   one with a newer has, nor with a wrong one.
//! - If a store comes back empty, the first process that asks stores what it has. If another has a newer set, it stores that as
//!   soon as it asks; if it does not until the access token of the first is used up, the first sends the older refresh token, as
//!   one that may have been spent.
//! - A token set that could not be saved is in one process. If that one then has no requests, so that it never tries again,
//!   another may find the open intent, and send the refresh token once more.
//! - Wall clocks are compared: an access token that another machine obtained is used as long as this machine's clock says, and
//!   the later of two log-ins is the one with the later time of day, if one of them could not be stored when it happened.

#[cfg(feature = "encrypted-store")]
mod encrypted;
mod error;
#[cfg(feature = "file-store")]
mod file;
mod memory;
mod plan;
mod recollection;
mod record;
#[cfg(feature = "redis")]
mod redis;
mod stored;

use std::future::Future;
use std::time::Duration;

#[cfg(feature = "encrypted-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "encrypted-store")))]
pub use self::encrypted::{EncryptedStore, EncryptionKey};
pub use self::error::{StoreError, StoreErrorKind};
#[cfg(feature = "file-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "file-store")))]
pub use self::file::{FileLock, FileStore};
pub use self::memory::{MemoryLock, MemoryStore};
pub use self::record::{Binding, StoredTokens, WriteId};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use self::redis::{RedisLock, RedisStore};
pub use self::stored::{StoreDown, Stored};

/// Keeps the token set of one grant across restarts, processes or machines.
///
/// A store does three things, and decides nothing: it locks, it loads, and it saves if what is stored is still what the
/// save was made for. What to save, and when a token may be spent, is for [`Stored`], so that it is the same for every
/// store.
///
/// # The laws
///
/// 1. **One row and one lock for a grant.** All who share the grant share both.
/// 2. **The lock is exclusive.** As long as one [`StoreLock`] is held, [`lock`](Self::lock) gives no other. It ends with
///    [`release`](StoreLock::release), when it is dropped, and with the process that held it; not necessarily at once.
/// 3. **A lock can be lost**, where it is a lease. [`is_held`](StoreLock::is_held) asks whoever decides, not a memory.
/// 4. **A save compares and swaps**, in one step that nothing comes between, whether the lock is held or not. It counts if
///    the [write id](StoredTokens::write_id) of what is stored is `replaces` (none: if nothing is stored). If it is
///    already the record's own, the save has counted before, and that is no error. Otherwise it is a
///    [conflict](StoreError::conflict), and nothing changes.
/// 5. **A save is whole or not at all**, whatever is killed in the middle; and once it has returned, what is saved is as
///    durable as the store can make it.
/// 6. **A load sees a whole record**, the last that was saved, with the lock or without it.
/// 7. **What cannot be understood is left as it is**: [unreadable](StoreError::unreadable), and no save replaces it.
/// 8. **A record with an [open intent](StoredTokens::has_open_intent) is followed by a larger one**, after a refresh token was
///    spent. A store that can run full fails the first of the two if the second will not fit.
///
/// `testing::store_laws` (feature `testing`) tests all of them that can be tested from outside, and its documentation is
/// about writing a store of one's own, with a complete one.
///
/// # Cancel safety
///
/// A future that is dropped leaves the store as it was or as it was to be, and no lock held.
pub trait TokenStore: Send + Sync + 'static {
    /// The lock, while it is held.
    type Lock: StoreLock;

    /// Takes the lock, at once if it is free, and else as soon as it is.
    ///
    /// # Errors
    ///
    /// [Held](StoreError::held) if it was not to be had within `wait`; others if that cannot be known.
    fn lock(&self, wait: Duration) -> impl Future<Output = Result<Self::Lock, StoreError>> + Send;

    /// Returns what is stored, or none if nothing is.
    ///
    /// # Errors
    ///
    /// [Unavailable](StoreError::unavailable), [unreadable](StoreError::unreadable) or
    /// [misconfigured](StoreError::misconfigured).
    fn load(&self) -> impl Future<Output = Result<Option<StoredTokens>, StoreError>> + Send;

    /// Saves a record in place of the one that `replaces` names.
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

    /// Lets go of the lock. One that is dropped instead may stay locked for a while.
    fn release(self) -> impl Future<Output = ()> + Send;
}
