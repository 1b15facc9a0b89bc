//! Stores that keep token sets across restarts, processes and machines.
//!
//! Most servers accept a refresh token once, and return the next one with the answer. If a client sends the old one again, the
//! server takes it for stolen and ends the session: the user must log in. A program that restarts must therefore save the newest
//! refresh token before it uses the access token that came with it, and programs that share a refresh token must take turns.
//!
//! [`Credentials`](crate::Credentials) keep a *ledger* of their grant: the current token set, and the fate of each refresh token. It
//! is in memory, and decides what is sent. Add a store with [`CredentialsBuilder::store`](crate::CredentialsBuilder::store) to save the
//! ledger and to share it:
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
//! // The refresh token of the first start. It may be left out later: the next ones are in the store.
//! let grant = RefreshTokenGrant::new(endpoint, std::env::var("REFRESH_TOKEN").unwrap_or_default());
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
//! // Before the program ends. An error means that a token set is not saved.
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
//! | `RedisStore` (feature `redis`) | several machines | as much as the configuration of the server |
//! | `PostgresStore` (feature `postgres`) | several machines | as much as the configuration of the server |
//! | `EncryptedStore` (feature `encrypted-store`), around any of them | as the inner store | as the inner store; the tokens cannot be read without the key |
//! | your own ([`TokenStore`]) | | |
//!
//! One store contains one grant: one log-in of one user at one server. A program with many grants has as many files, keys or rows.
//! Programs with different refresh tokens use different stores. Without a store, a restart sends the configured refresh token again,
//! which is correct only if the server does not replace refresh tokens.
//!
//! # Steps of a refresh
//!
//! 1. **Load.** If another process has stored a newer token set that works, it is used, and nothing is sent.
//! 2. **Lock.** One process of all that share the store continues. The others wait, load again, and find the set that it has
//!    stored. They ask for the lock again only if they still need it.
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
//! # Guarantees
//!
//! With a store and without one:
//!
//! - **A refresh token that may rotate is sent once**, unless an answer was lost.
//! - **An unknown outcome is reported.** If no answer comes, the refresh token may be spent, and the error is
//!   [ambiguous](crate::TokenError::is_ambiguous). The access token is used until it expires, and nothing is sent. Then the refresh
//!   token is sent once more. If the server refuses it, the error reports both attempts. If no answer comes again, further attempts
//!   are one minute apart, then two, and at most 15 minutes. If the server is known to accept a refresh token again (`reuse_grace` in
//!   the dialect), it is asked again at once, one time, within that period.
//! - **A failed refresh does not shorten the life of a token.** After it, the policy's
//!   [leeway](crate::RefreshPolicy::leeway) no longer counts, and requests use the access token to its true end.
//! - **A refresh token that the server has refused or replaced is not sent again**, even if a log-in brings it. A configured refresh
//!   token begins a session once.
//! - **A session that has ended does not come back.** [`log_in`](crate::Credentials::log_in) and
//!   [`log_out`](crate::Credentials::log_out) begin a new session. The result of a refresh of an earlier session is not used. The tokens
//!   of a fallback source ([`or_else`](crate::TokenSource::or_else)) begin a new session too.
//! - **Two late answers are ordered by their requests.** The answer to the later request is used, even if it arrives first.
//!
//! With a store, also across restarts and processes:
//!
//! - No matter when a process is killed, the next start finds a whole record. A token set that was saved is not lost.
//! - If a process ends between steps 4 and 7, the intent stays **open**. The process that finds it reports that
//!   ([`Event::OutcomeUnknown`](crate::Event::OutcomeUnknown)), and one process sends the refresh token once more after the access token
//!   has expired.
//! - While the store is unavailable, nothing is sent, and the access token is used until it expires. If the server does not replace
//!   refresh tokens, or with [`OnUnavailable::Continue`](crate::OnUnavailable::Continue), the credentials continue in memory. Lock
//!   contention is not an outage: without the lock, nothing is sent.
//! - A token set that could not be saved is used, kept in memory, and saved as soon as the store is available.
//!   [`Event::Unsaved`](crate::Event::Unsaved) and [`Credentials::flush`](crate::Credentials::flush) report it.
//! - The successor of what is stored is always saved, also by a process that was suspended and has lost its lock.
//! - `log_in` and `log_out` are saved at once. Other processes learn of them with their next refresh, and use their access token
//!   until then.
//! - A *different* configured refresh token ends the stored session, because the user has logged in again. One that has begun a
//!   session before does not, so that neither a restart nor an old configuration sends it.
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
//!   sends the same refresh token meanwhile, the server sees it twice. The suspension must begin within a few microseconds, and the
//!   lock must be a lease, such as that of Redis or PostgreSQL.
//! - Two credentials over clones of one grant have two ledgers, which do not know of each other. Share the credentials, or a store.
//! - A store can lose a confirmed save: a disk that reports success too early, a failover to an asynchronous replica, a restored
//!   backup. The ledger loses it too. Where the loss can be detected, it counts as an open intent.
//! - Configured refresh tokens have no order. One that the store has not seen counts as newer, once, and ends the stored session,
//!   even if it is invalid. Start no process with an older or a wrong configuration.
//! - If a store comes back empty, the first process that needs a token saves its token set. A process with a newer set saves that
//!   with its next refresh. If the access token of the first process expires before that, it sends the older refresh token, as one
//!   that may be spent.
//! - A token set that could not be saved exists in one process. If that process has no more requests, it does not try again, and
//!   another process may find the open intent and send the refresh token once more.
//! - Wall clocks are compared. An access token from another machine is used until it expires by the clock of this one. If two
//!   log-ins could not be saved at once, the one with the later time of day counts as the later.

mod backing;
#[cfg(feature = "encrypted-store")]
mod encrypted;
mod error;
#[cfg(feature = "file-store")]
mod file;
mod format;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod lease;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(all(test, unix, feature = "testing", any(feature = "postgres", feature = "redis")))]
mod tests;
mod token_store;

pub(crate) use self::backing::backing;
#[cfg(feature = "encrypted-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "encrypted-store")))]
pub use self::encrypted::{EncryptedStore, EncryptionKey};
pub use self::error::{StoreError, StoreErrorKind};
#[cfg(feature = "file-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "file-store")))]
pub use self::file::{FileLock, FileStore};
pub use self::format::StoredTokens;
pub use self::memory::{MemoryLock, MemoryStore};
#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub use self::postgres::{PostgresLock, PostgresStore};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use self::redis::{RedisLock, RedisStore};
pub use self::token_store::{StoreLock, TokenStore};
pub use crate::grant::record::{Binding, WriteId};
