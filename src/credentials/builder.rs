//! Credentials, step by step.

use std::fmt;
use std::time::Duration;

use tokio::runtime::Handle;

use super::handle::Credentials;
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

    /// Begins credentials that obtain their tokens from `source`.
    pub fn builder(source: impl TokenSource) -> CredentialsBuilder {
        CredentialsBuilder::new(source.boxed())
    }
}

/// Builds [`Credentials`]: a source, and optionally a store, a policy, a clock and a runtime.
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
    name: String,
    lock_timeout: Duration,
    on_unavailable: Option<OnUnavailable>,
}

/// What the credentials do while their store is unavailable.
///
/// Lock contention is not an outage: without the lock, nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnUnavailable {
    /// Send nothing. An access token is used until it expires; then requests fail.
    ///
    /// The default if the refresh token may rotate: one that is only in memory is lost with the process, and one that two
    /// processes send ends the session.
    Fail,
    /// Go on with what is in memory, and save it when the store is available again. The default if the server does not rotate.
    ///
    /// A process that starts while the store is unavailable has nothing in memory, and sends the configured refresh token. If that
    /// was spent before, the server ends the session.
    Continue,
}

impl CredentialsBuilder {
    pub(super) fn new(source: BoxTokenSource) -> Self {
        Self {
            source,
            policy: RefreshPolicy::default(),
            #[cfg(feature = "store")]
            store: None,
            name: String::new(),
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

    /// Sets the name of the credentials, which a stored record is bound to; empty by default.
    ///
    /// Together with the token endpoint and the client id it keeps two credentials that are given the same store by mistake
    /// from using each other's tokens.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets what the credentials do while the store is unavailable.
    ///
    /// By default [`OnUnavailable::Fail`] if the source's refresh token may rotate, and otherwise [`OnUnavailable::Continue`].
    pub fn on_unavailable(mut self, on_unavailable: OnUnavailable) -> Self {
        self.on_unavailable = Some(on_unavailable);
        self
    }

    /// Sets how long a refresh waits for the lock of the store before it fails; 60 seconds by default.
    ///
    /// Requests wait no longer than the policy's [`timeout`](RefreshPolicy::timeout).
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Sets when to refresh and how long to wait.
    pub fn policy(mut self, policy: RefreshPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the clock; the operating system's by default.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.policy = self.policy.clock(clock);
        self
    }

    /// Sets the runtime that refreshes run on; by default that of the request that starts one.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.policy = self.policy.runtime(runtime);
        self
    }

    /// Returns the credentials. Nothing is fetched until the first token is wanted.
    pub fn build(self) -> Credentials {
        #[cfg(feature = "store")]
        let store = self.store.map(|backing| Store {
            backing,
            name: self.name,
            lock_timeout: self.lock_timeout,
            goes_on: self.on_unavailable.map(|on| on == OnUnavailable::Continue),
        });
        #[cfg(not(feature = "store"))]
        let store = None;
        Credentials::from_parts(self.source, store, self.policy)
    }
}

/// Longer than most token endpoints take, for the process that comes second.
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
