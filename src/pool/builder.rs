//! The limits of a pool, and the closure that makes the credentials of a key.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::CredentialsPool;
use super::kept::{Kept, Make};
use super::key::PoolKey;
use crate::clock::{Clock, SystemClock};
use crate::credentials::CredentialsBuilder;
use crate::error::TokenError;

/// A builder of a [`CredentialsPool`].
///
/// Create one with [`CredentialsPool::builder`].
///
/// # Examples
///
/// ```
/// use tower_refresh::{Credentials, CredentialsPool, TokenFile};
///
/// let pool = CredentialsPool::builder(|tenant: &u64| {
///     Credentials::builder(TokenFile::new(format!("/run/secrets/{tenant}")))
/// })
/// .concurrent_refreshes(8)
/// .build();
/// assert!(pool.is_empty());
/// ```
#[must_use = "call `build` for the pool"]
pub struct CredentialsPoolBuilder<K> {
    make: Make<K>,
    pub(super) limits: Limits,
    clock: Arc<dyn Clock>,
    name: Arc<str>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) capacity: usize,
    pub(super) idle: Duration,
    pub(super) refreshes: usize,
}

impl<K: PoolKey> CredentialsPoolBuilder<K> {
    pub(super) fn new(
        make: impl Fn(&K) -> Result<CredentialsBuilder, TokenError> + Send + Sync + 'static,
    ) -> Self {
        let limits = Limits { capacity: CAPACITY, idle: IDLE, refreshes: REFRESHES };
        Self { make: Box::new(make), limits, clock: Arc::new(SystemClock), name: NAME.into() }
    }

    /// Sets the name of the pool, which is the label `credentials` of its metrics. The default is `pool`.
    ///
    /// The metrics never name a key. Give each pool of a program a name of its own.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into().into();
        self
    }

    /// Sets how many keys have credentials at once. The default is 10,000, and the minimum is 1.
    ///
    /// Beyond it, credentials that were not used for long are evicted, except for those that [must stay](CredentialsPool#what-is-kept).
    /// The pool consists of equal parts, and a part may be full before the others. It may therefore keep a few per cent fewer keys.
    pub fn capacity(mut self, keys: usize) -> Self {
        self.limits.capacity = keys.max(1);
        self
    }

    /// Sets for how long the credentials of an unused key are kept. The default is an hour.
    ///
    /// They are evicted at a later use of the pool, at most a quarter of the time late if the pool is in use.
    pub fn idle(mut self, time: Duration) -> Self {
        self.limits.idle = time;
        self
    }

    /// Sets how many refreshes are in flight at once, over all keys. The default is 64, and the minimum is 1.
    ///
    /// If the token source of one key waits for a refresh of another key, such as a token exchange for the tokens of the user, that
    /// refresh does not count.
    pub fn concurrent_refreshes(mut self, refreshes: usize) -> Self {
        self.limits.refreshes = refreshes.max(1);
        self
    }

    /// Sets the clock that measures idle times and the pauses of an outage. The default is the clock of the operating system.
    ///
    /// The clock of the credentials is set in the closure.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Creates the pool. No credentials are made until a key is used.
    pub fn build(self) -> CredentialsPool<K> {
        CredentialsPool { kept: Arc::new(Kept::new(self.make, self.name, self.limits, self.clock)) }
    }
}

impl<K> fmt::Debug for CredentialsPoolBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialsPoolBuilder")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// A [`CredentialsBuilder`], or a `Result` with one: the closure of a pool returns it.
///
/// Sealed.
///
/// # Examples
///
/// ```
/// use tower_refresh::{CredentialsPool, MakeCredentials};
///
/// fn pool<M: MakeCredentials + 'static>(make: fn(&String) -> M) -> CredentialsPool<String> {
///     CredentialsPool::new(make)
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "the closure of a pool returns `{Self}`",
    label = "expected a `CredentialsBuilder`",
    note = "return `Credentials::builder(source)` without `.build()`, or a `Result<CredentialsBuilder, TokenError>`"
)]
pub trait MakeCredentials: sealed::Sealed {
    #[doc(hidden)]
    fn into_builder(self) -> Result<CredentialsBuilder, TokenError>;
}

impl MakeCredentials for CredentialsBuilder {
    fn into_builder(self) -> Result<CredentialsBuilder, TokenError> {
        Ok(self)
    }
}

impl MakeCredentials for Result<CredentialsBuilder, TokenError> {
    fn into_builder(self) -> Result<CredentialsBuilder, TokenError> {
        self
    }
}

mod sealed {
    use super::{CredentialsBuilder, TokenError};

    #[expect(
        unnameable_types,
        reason = "a trait without a public name cannot be implemented elsewhere"
    )]
    pub trait Sealed {}

    impl Sealed for CredentialsBuilder {}
    impl Sealed for Result<CredentialsBuilder, TokenError> {}
}

const NAME: &str = "pool";
const CAPACITY: usize = 10_000;
const IDLE: Duration = Duration::from_secs(60 * 60);
const REFRESHES: usize = 64;
