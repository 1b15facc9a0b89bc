//! Credentials by key: one for each user, tenant or audience.
//!
//! | Module | Content |
//! |---|---|
//! | `builder` | limits, and the closure that makes the credentials of a key |
//! | `key` | the types that can be a key |
//! | `kept` | the map, and the rule for eviction |
//! | `keyed` | how a request names its key |
//! | `events`, `status` | reports about all keys |

mod builder;
mod events;
mod kept;
mod key;
mod keyed;
mod status;

use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::Semaphore;

pub use self::builder::{CredentialsPoolBuilder, MakeCredentials};
pub use self::events::{PoolEvent, PoolEvents};
use self::kept::Kept;
pub use self::key::PoolKey;
pub use self::keyed::{Keyed, RequestHead};
pub use self::status::{OutageStatus, PoolStatus};
use crate::credentials::{Credentials, Status};
use crate::error::TokenError;
use crate::token::TokenSet;

/// A bounded number of [`Credentials`], one for each key, such as a user.
///
/// A closure makes the credentials of a key when they are first needed. They are bound to the name of the key, so that no user gets
/// the tokens of another one from a store. Clones share everything.
///
/// [`RefreshLayer::keyed`](crate::RefreshLayer::keyed) makes a layer whose requests name their key. A
/// [guide](crate::docs::many_users) shows the parts of a backend with many users.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use tower_refresh::{Credentials, CredentialsPool, RefreshLayer, Renewal, TokenSet};
///
/// /// Who the request is for.
/// #[derive(Clone)]
/// struct User(String);
///
/// # fn main() -> Result<(), tower_refresh::BoxError> {
/// let pool = CredentialsPool::new(|user: &String| {
///     let user = user.clone();
///     Credentials::builder(move |renewal: Renewal| {
///         let user = user.clone();
///         async move {
///             // Obtains a token for the user.
/// #           let _ = (renewal, user);
///             TokenSet::bearer("sesame")
///         }
///     })
/// });
/// let layer = RefreshLayer::keyed(pool, |request| request.extensions().get().map(|User(user)| user.clone()))
///     .origin("https://api.example.com")?;
///
/// let request = Request::get("https://api.example.com/v1/me")
///     .extension(User("alice".into()))
///     .body(Full::<Bytes>::default())?;
/// # let _ = (layer, request);
/// # Ok(())
/// # }
/// ```
///
/// # What is kept
///
/// Credentials are evicted if the pool is over its [capacity](CredentialsPoolBuilder::capacity), or if they were not used for
/// [some time](CredentialsPoolBuilder::idle). The next use of the key makes them anew, and loads their tokens from the store. The
/// pool never evicts
///
/// | Credentials | Reason |
/// |---|---|
/// | that something else holds, such as a clone, a request in flight or a refresh | A key never has two. |
/// | with tokens that are not saved in their store | The tokens would be lost. |
/// | without a store, if their source cannot begin anew | The same. |
///
/// The pool grows beyond its capacity only by such credentials. If there are many without a store, add one. A `MemoryStore` that
/// nothing else holds is lost with the credentials, and counts as no store.
///
/// | Source | Can begin anew |
/// |---|---|
/// | sends no refresh token, such as a client credentials grant or a token exchange | unless the application has logged in |
/// | was configured with a refresh token | while that token is the current one, no request with it has an unknown outcome, and the application has not logged in or out |
/// | was configured without a refresh token, such as for a user who logs in | until the application logs in or a token set has a refresh token, and after a log-out if the source names its token endpoint |
///
/// # Guarantees
///
/// - There is one refresh for a key at a time, and a [limit](CredentialsPoolBuilder::concurrent_refreshes) for all keys together,
///   first come, first served. A refresh that takes longer than the timeout of its policy no longer counts, so that slow ones do not
///   hold up the others.
/// - If a token endpoint fails for three keys without an answer in between, it is an outage. No refresh is sent to it for up to a
///   second, and then one at a time, with pauses of up to five seconds, until it answers. A single failure with a `Retry-After` is
///   an outage too, and its first pause lasts that long, up to an hour. Requests that need a token meanwhile get the error of the
///   outage, unless a token is in their store.
/// - Keys share an outage if their sources name the same [token endpoint](crate::SourceInfo::token_endpoint). A source that names
///   none is asked regardless of the others.
/// - A key without a name, such as an empty user id, is an error, and never another user's token.
///
/// # Cost of a fleet
///
/// `cargo bench --all-features --bench fleet` simulates processes that share a store, with this pool, in paused time. Access tokens last
/// an hour, the token endpoint answers after 50 ms, the store after 1 ms, and each user sends a request every 10 s, to a random
/// process. The table shows figures per second for 100,000 users, in the busiest 10 s after an event. They are scaled up from 20,000
/// users with one process, and from 3,125, 500 and 100 with 10, 100 and 1,000. With so few users the last columns are coarse.
///
/// | Event | Token requests: 1 process | 10 processes | 100 processes | Store operations: 1 process | 10 processes | 100 processes | 1,000 processes |
/// |---|---|---|---|---|---|---|---|
/// | none, mean | 30 | 30 | 30 | 210 | 490 | 3,200 | 8,700 |
/// | all users logged in within 10 s, no jitter | 1,050 | 2,500 | 2,500 | 7,400 | 21,000 | 21,000 | 15,000 |
/// | the same, jitter of a minute | 800 | 1,500 | 1,600 | 5,600 | 13,500 | 15,600 | 15,000 |
/// | the same, jitter of 3 minutes | 300 | 820 | 1,000 | 2,100 | 6,900 | 9,500 | 15,000 |
/// | all processes restarted | 65 | 86 | 120 | 6,300 | 9,300 | 10,600 | 12,600 |
/// | token endpoint down for 10 minutes | 1,000 | 990 | 940 | 5,400 | 7,400 | 13,300 | 22,000 |
/// | all access tokens revoked | 1,060 | 6,100 | 5,500 | 7,400 | 46,000 | 44,000 | 50,000 |
///
/// - **Routing.** A refresh is seven store operations, and each other process that the user's requests reach adds one. With
///   1,000 processes, 83 % of the requests find no usable token in their process, and wait for the store. Send the requests of a
///   user to few processes.
/// - [`jitter`](crate::RefreshPolicy::jitter) spreads the refreshes of tokens that were obtained at the same time, over at most a
///   twentieth of the lifetime. The first process to find a token stale refreshes it for all, so that jitter has less effect with
///   more processes.
/// - [`concurrent_refreshes`](CredentialsPoolBuilder::concurrent_refreshes) limits the load on the token endpoint after a
///   revocation of all tokens. The last user of a process waits for users × duration / limit, which must be less than the
///   [timeout](crate::RefreshPolicy::timeout) of the policy. In the simulation with one process a refresh takes 57 ms with its store
///   operations. The limit of 64 makes that wait 89 s, and 0.16 % of the requests of 70 minutes fail. With 256 it is 22 s.
/// - [`capacity`](CredentialsPoolBuilder::capacity) saves store operations: credentials that were evicted load their tokens again.
///   Set it above the number of active users of a process.
///
/// # Before the runtime ends
///
/// Await [`flush`](Self::flush), as for one `Credentials`.
pub struct CredentialsPool<K> {
    kept: Arc<Kept<K>>,
}

impl<K: PoolKey> CredentialsPool<K> {
    /// Creates a pool with the default limits. The closure makes the credentials of a key.
    ///
    /// The closure is called once for each key, and again after an eviction. It must not block. It returns a
    /// [`CredentialsBuilder`](crate::CredentialsBuilder), or a `Result` with one and a [`TokenError`]. The credentials get
    /// the name of the key, and a name that was set on the builder is ignored.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{Credentials, CredentialsPool, StaticToken, TokenError};
    ///
    /// let pool = CredentialsPool::new(|user: &String| {
    ///     if user == "mallory" {
    ///         return Err(TokenError::denied("this user may not call the API"));
    ///     }
    ///     Ok(Credentials::builder(StaticToken::new("sesame".parse()?)))
    /// });
    /// assert!(pool.get(&"alice".to_owned()).is_ok());
    /// assert!(pool.get(&"mallory".to_owned()).is_err());
    /// ```
    pub fn new<M: MakeCredentials>(make: impl Fn(&K) -> M + Send + Sync + 'static) -> Self {
        Self::builder(make).build()
    }

    /// Creates a builder for a pool with other limits.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_refresh::{Credentials, CredentialsPool, TokenFile};
    ///
    /// let pool = CredentialsPool::builder(|tenant: &u64| {
    ///     Credentials::builder(TokenFile::new(format!("/run/secrets/{tenant}")))
    /// })
    /// .capacity(500)
    /// .idle(Duration::from_secs(600))
    /// .build();
    /// # let _ = pool;
    /// ```
    pub fn builder<M: MakeCredentials>(
        make: impl Fn(&K) -> M + Send + Sync + 'static,
    ) -> CredentialsPoolBuilder<K> {
        CredentialsPoolBuilder::new(move |key| make(key).into_builder())
    }

    /// Returns the credentials of a key. If the pool does not have them, it makes them.
    ///
    /// # Errors
    ///
    /// - A [misconfigured](TokenError::is_misconfigured) error if the name of the key is empty, if the closure asks for the key that
    ///   it makes, or if another thread has been making the credentials of the key for five seconds.
    /// - The error of the closure. The next call calls the closure again.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{Credentials, CredentialsPool, StaticToken};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_refresh::TokenError> {
    /// let token = "sesame".parse()?;
    /// let pool = CredentialsPool::new(move |_: &u64| Credentials::builder(StaticToken::new(Clone::clone(&token))));
    /// let tokens = pool.get(&7)?.tokens().await?;
    /// assert_eq!(tokens.access_token().expose_secret(), "sesame");
    /// # Ok(())
    /// # }
    /// ```
    pub fn get(&self, key: &K) -> Result<Credentials, TokenError> {
        self.kept.get(key)
    }

    /// Replaces the tokens of a key, for example after the user has logged in. See [`Credentials::log_in`].
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get) and [`Credentials::log_in`].
    ///
    /// # Cancel safety
    ///
    /// After the first poll, dropping this future does not stop the log-in.
    pub async fn log_in(&self, key: &K, tokens: TokenSet) -> Result<(), TokenError> {
        self.get(key)?.log_in(tokens).await
    }

    /// Removes the tokens of a key, also from its store, for example after the user has logged out. See [`Credentials::log_out`].
    ///
    /// The credentials stay in the pool. A later request of the key asks its source again.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get) and [`Credentials::log_out`].
    ///
    /// # Cancel safety
    ///
    /// After the first poll, dropping this future does not stop the log-out.
    pub async fn log_out(&self, key: &K) -> Result<(), TokenError> {
        self.get(key)?.log_out().await
    }

    /// Waits until no refresh is in flight and each log-in and log-out is recorded, and then saves unsaved tokens, for all keys.
    ///
    /// At most [as many keys](CredentialsPoolBuilder::concurrent_refreshes) are saved at once as are refreshed at once. Await it
    /// before the runtime ends, with a time limit of your own.
    ///
    /// # Errors
    ///
    /// The first error of [`Credentials::flush`], with the number of keys that have failed. The other keys are flushed nevertheless.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future changes nothing. A save that has begun is not stopped.
    pub async fn flush(&self) -> Result<(), TokenError> {
        let all = self.kept.all();
        let number = all.len();
        let unsettled = all.into_iter().filter(|credentials| !credentials.is_settled());
        let places = Semaphore::new(self.kept.limits().refreshes.min(Semaphore::MAX_PERMITS));
        let flushes = unsettled.map(async |credentials| credentials.flush_in(Some(&places)).await);
        let results = join_all(flushes).await;
        let mut errors = results.into_iter().filter_map(Result::err);
        let Some(first) = errors.next() else { return Ok(()) };
        let failed = 1 + errors.count();
        let message = format!("{failed} of {number} keys are not flushed: {}", first.get_ref());
        Err(first.wrapped_as(message))
    }

    /// Subscribes to the events of all keys from now on.
    pub fn subscribe(&self) -> PoolEvents {
        PoolEvents::new(self.kept.common().subscribe())
    }

    /// Returns a snapshot of one key, or `None` if the pool has no credentials for it now.
    ///
    /// It makes no credentials, and does not count as a use of the key.
    pub fn status(&self, key: &K) -> Option<Status> {
        self.kept.look(key).map(|credentials| credentials.status())
    }

    /// Returns a snapshot of the pool, for a health endpoint. It reads the status of every key.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{Credentials, CredentialsPool, TokenFile};
    ///
    /// let pool = CredentialsPool::new(|tenant: &u64| Credentials::builder(TokenFile::new(format!("/run/secrets/{tenant}"))));
    /// pool.get(&7)?;
    /// let status = pool.pool_status();
    /// assert_eq!((status.keys, status.denied), (1, 0));
    /// # Ok::<(), tower_refresh::TokenError>(())
    /// ```
    pub fn pool_status(&self) -> PoolStatus {
        PoolStatus::new(&self.kept.all(), self.kept.outages())
    }

    /// Returns the number of keys that have credentials now.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Returns whether no key has credentials now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K> Clone for CredentialsPool<K> {
    fn clone(&self) -> Self {
        Self { kept: Arc::clone(&self.kept) }
    }
}

impl<K> fmt::Debug for CredentialsPool<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialsPool").finish_non_exhaustive()
    }
}
