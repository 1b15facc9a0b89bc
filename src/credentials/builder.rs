//! The constructors of credentials, and the builder for those with a store, a clock or a runtime.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::handle::Credentials;
#[cfg(feature = "pool")]
use super::member::Common;
use super::member::Member;
use super::policy::RefreshPolicy;
use crate::clock::Clock;
#[cfg(feature = "store")]
use crate::grant::Store;
use crate::source::{BoxTokenSource, TokenSource};

impl Credentials {
    /// Creates credentials that obtain their tokens from `source`, with the default policy and no store.
    ///
    /// No token is requested until one is needed.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::{Credentials, StaticToken};
    ///
    /// let credentials = Credentials::new(StaticToken::new("sesame".parse()?));
    /// # Ok::<(), tower_refresh::TokenError>(())
    /// ```
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source).build()
    }

    /// Creates credentials that obtain their tokens from `source`, with a policy.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_refresh::{Credentials, RefreshPolicy, StaticToken};
    ///
    /// let policy = RefreshPolicy::default().timeout(Duration::from_secs(5));
    /// let credentials = Credentials::with_policy(StaticToken::new("sesame".parse()?), policy);
    /// # Ok::<(), tower_refresh::TokenError>(())
    /// ```
    pub fn with_policy(source: impl TokenSource, policy: RefreshPolicy) -> Self {
        Self::builder(source).policy(policy).build()
    }

    /// Creates a builder for credentials that obtain their tokens from `source`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_refresh::store::MemoryStore;
    /// use tower_refresh::{Credentials, RefreshPolicy, StaticToken};
    ///
    /// let credentials = Credentials::builder(StaticToken::new("sesame".parse()?))
    ///     .store(MemoryStore::new())
    ///     .policy(RefreshPolicy::default().timeout(Duration::from_secs(5)))
    ///     .build();
    /// # Ok::<(), tower_refresh::TokenError>(())
    /// ```
    pub fn builder(source: impl TokenSource) -> CredentialsBuilder {
        CredentialsBuilder::new(source.boxed())
    }
}

/// A builder of [`Credentials`]: a source, and optionally a store, a policy, a clock and a runtime.
///
/// Create one with [`Credentials::builder`].
///
/// # Examples
///
/// ```
/// use tower_refresh::store::MemoryStore;
/// use tower_refresh::{Credentials, StaticToken};
///
/// let credentials = Credentials::builder(StaticToken::new("sesame".parse()?))
///     .store(MemoryStore::new())
///     .name("billing")
///     .build();
/// # Ok::<(), tower_refresh::TokenError>(())
/// ```
#[must_use = "call `build` for the credentials"]
pub struct CredentialsBuilder {
    source: BoxTokenSource,
    policy: RefreshPolicy,
    #[cfg(feature = "store")]
    store: Option<Box<dyn crate::grant::backing::Backing>>,
    name: Arc<str>,
    lock_timeout: Duration,
    on_unavailable: Option<OnUnavailable>,
}

/// The behavior of credentials while their store is unavailable, set with
/// [`on_unavailable`](CredentialsBuilder::on_unavailable).
///
/// Lock contention is not an outage: without the lock, nothing is sent.
///
/// # Examples
///
/// ```
/// use tower_refresh::store::MemoryStore;
/// use tower_refresh::{Credentials, OnUnavailable, StaticToken};
///
/// // The server does not rotate refresh tokens: an outage of the store need not stop the program.
/// let credentials = Credentials::builder(StaticToken::new("sesame".parse()?))
///     .store(MemoryStore::new())
///     .on_unavailable(OnUnavailable::Continue)
///     .build();
/// # Ok::<(), tower_refresh::TokenError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnUnavailable {
    /// Sends no refresh token. The access token is used until it expires, and then requests fail.
    ///
    /// This is the default if the server may rotate the refresh token. A refresh token that is only in memory is lost with the
    /// process, and if two processes send the same one, the server may end the session.
    Fail,
    /// Refreshes with the tokens in memory, and saves them when the store is available again.
    ///
    /// This is the default if the server does not rotate the refresh token. A process that starts while the store is unavailable has
    /// no tokens in memory, and sends the configured refresh token. If that was spent before, the server may end the session.
    Continue,
}

impl CredentialsBuilder {
    pub(super) fn new(source: BoxTokenSource) -> Self {
        Self {
            source,
            policy: RefreshPolicy::default(),
            #[cfg(feature = "store")]
            store: None,
            name: Arc::default(),
            lock_timeout: LOCK_TIMEOUT,
            on_unavailable: None,
        }
    }

    /// Sets the store that keeps the tokens across restarts, processes and machines.
    ///
    /// Without a store, the tokens are lost when the program ends.
    #[cfg(feature = "store")]
    #[cfg_attr(docsrs, doc(cfg(feature = "store")))]
    pub fn store(mut self, store: impl crate::store::TokenStore) -> Self {
        self.store = Some(crate::store::backing(store));
        self
    }

    /// Sets the name of the credentials, which logs show, and to which the record in the store is bound. The default is the empty
    /// name.
    ///
    /// A record is bound to the name, the token endpoint and the client id. If two credentials get the same store by mistake, they do
    /// not use each other's tokens.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into().into();
        self
    }

    /// Sets the behavior while the store is unavailable.
    ///
    /// The default is [`OnUnavailable::Fail`] if the server may rotate the refresh token, and [`OnUnavailable::Continue`] if not.
    pub fn on_unavailable(mut self, on_unavailable: OnUnavailable) -> Self {
        self.on_unavailable = Some(on_unavailable);
        self
    }

    /// Sets how long a refresh waits for the lock of the store before it fails. The default is 60 seconds.
    ///
    /// Requests wait no longer than the policy's [`timeout`](RefreshPolicy::timeout).
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Sets when to refresh and how long to wait. The policy's clock and runtime replace those that were set before.
    pub fn policy(mut self, policy: RefreshPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the clock. The default is the clock of the operating system.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.policy = self.policy.clock(clock);
        self
    }

    /// Sets the runtime that refreshes run on. The default is the runtime of the request that starts the refresh.
    ///
    /// See [`RefreshPolicy::runtime`].
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.policy = self.policy.runtime(runtime);
        self
    }

    /// Creates the credentials.
    ///
    /// No token is requested until one is needed.
    pub fn build(self) -> Credentials {
        self.build_as(None)
    }

    /// Creates the credentials of a pool's key.
    #[cfg(feature = "pool")]
    pub(crate) fn build_for(mut self, common: &Arc<Common>, name: String) -> Credentials {
        self.name = name.into();
        let id = Credentials::new_id();
        let (member, source) = Member::new(common, id, &self.name, self.source);
        self.source = source;
        self.build_as(Some(Box::new(member)))
    }

    fn build_as(self, member: Option<Box<Member>>) -> Credentials {
        #[cfg(feature = "store")]
        let store = self.store.map(|backing| Store {
            backing,
            name: Arc::clone(&self.name),
            lock_timeout: self.lock_timeout,
            goes_on: self.on_unavailable.map(|on| on == OnUnavailable::Continue),
        });
        #[cfg(not(feature = "store"))]
        let store = None;
        Credentials::from_parts(self.source, self.name, store, self.policy, member)
    }
}

/// The process that comes second waits for the refresh of the first one, and most token endpoints respond sooner.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

impl fmt::Debug for CredentialsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialsBuilder")
            .field("source", &self.source)
            .field("policy", &self.policy)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
