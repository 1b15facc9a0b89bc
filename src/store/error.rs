//! The error of a store.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::error::{BoxError, TokenError};

/// The error of a [`TokenStore`](super::TokenStore).
///
/// | Kind | Meaning | Effect |
/// |---|---|---|
/// | [held](Self::held) | another process or task holds the lock | nothing is sent; another attempt follows later |
/// | [unavailable](Self::unavailable) | the store is down or full | see [`OnUnavailable`](crate::OnUnavailable) |
/// | [conflict](Self::conflict) | the store has another record than the one to be replaced | the record is loaded, and the decision made again |
/// | [unreadable](Self::unreadable) | the record cannot be parsed | the refresh fails, and the record stays unchanged |
/// | [misconfigured](Self::misconfigured) | the configuration must be corrected | the refresh fails |
///
/// Cloning is cheap. No error of this crate contains a token. [Troubleshooting](crate::docs::troubleshooting#stores) lists the
/// messages.
///
/// # Examples
///
/// ```
/// use tower_refresh::store::{StoreError, StoreErrorKind};
///
/// let error = StoreError::unavailable("connection refused");
/// assert_eq!(error.kind(), StoreErrorKind::Unavailable);
/// assert_eq!(error.to_string(), "the store is unavailable: connection refused");
/// ```
#[derive(Clone, Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    error: Arc<dyn Error + Send + Sync>,
}

/// The kind of a [`StoreError`], for a `match`.
///
/// # Examples
///
/// ```
/// use tower_refresh::store::{StoreError, StoreErrorKind};
///
/// assert_eq!(StoreError::conflict().kind(), StoreErrorKind::Conflict);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Another process or task holds the lock.
    Held,
    /// The store is down or full.
    Unavailable,
    /// The store has another record than the one to be replaced.
    Conflict,
    /// The record cannot be parsed.
    Unreadable,
    /// The configuration must be corrected.
    Misconfigured,
}

impl StoreError {
    /// Creates an error for a lock that was not released in time. This is not an outage of the store.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::StoreError;
    ///
    /// let error = StoreError::held("another process has held it for 5 seconds");
    /// assert!(error.is_held());
    /// ```
    pub fn held(error: impl Into<BoxError>) -> Self {
        Self::new(StoreErrorKind::Held, error.into())
    }

    /// Creates an error for a store that is down or full. After a save, its outcome is unknown.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::StoreError;
    ///
    /// let error = StoreError::unavailable("connection refused");
    /// assert!(error.is_unavailable());
    /// ```
    pub fn unavailable(error: impl Into<BoxError>) -> Self {
        Self::new(StoreErrorKind::Unavailable, error.into())
    }

    /// Creates an error for a save that came too late: the store has another record than the one to be replaced.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::StoreError;
    ///
    /// assert!(StoreError::conflict().is_conflict());
    /// ```
    pub fn conflict() -> Self {
        Self::new(
            StoreErrorKind::Conflict,
            "it has another record than the one to be replaced".into(),
        )
    }

    /// Creates an error for a record that is incomplete, foreign, encrypted with an unknown key, or written by a later version.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::StoreError;
    ///
    /// let error = StoreError::unreadable("the record ends early");
    /// assert!(error.is_unreadable());
    /// ```
    pub fn unreadable(error: impl Into<BoxError>) -> Self {
        Self::new(StoreErrorKind::Unreadable, error.into())
    }

    /// Creates an error for a configuration that must be corrected: a folder that does not exist, a wrong password.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::StoreError;
    ///
    /// let error = StoreError::misconfigured("the folder does not exist");
    /// assert!(error.is_misconfigured());
    /// ```
    pub fn misconfigured(error: impl Into<BoxError>) -> Self {
        Self::new(StoreErrorKind::Misconfigured, error.into())
    }

    fn new(kind: StoreErrorKind, error: BoxError) -> Self {
        Self { kind, error: error.into() }
    }

    /// Returns the kind.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Returns whether another process or task holds the lock.
    pub fn is_held(&self) -> bool {
        self.kind == StoreErrorKind::Held
    }

    /// Returns whether the store is down or full.
    pub fn is_unavailable(&self) -> bool {
        self.kind == StoreErrorKind::Unavailable
    }

    /// Returns whether the store has another record than the one to be replaced.
    pub fn is_conflict(&self) -> bool {
        self.kind == StoreErrorKind::Conflict
    }

    /// Returns whether the record cannot be parsed.
    pub fn is_unreadable(&self) -> bool {
        self.kind == StoreErrorKind::Unreadable
    }

    /// Returns whether the configuration must be corrected.
    pub fn is_misconfigured(&self) -> bool {
        self.kind == StoreErrorKind::Misconfigured
    }

    /// Returns the wrapped error.
    pub fn get_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.error
    }
}

impl From<StoreError> for TokenError {
    /// A store that is unavailable is transient and [unsent](TokenError::unsent): nothing was sent to the token endpoint, and a
    /// network outage often takes both down. A lock and a conflict are transient, and the other kinds are misconfigured.
    fn from(error: StoreError) -> Self {
        match error.kind {
            StoreErrorKind::Unavailable => Self::unsent(error),
            StoreErrorKind::Held | StoreErrorKind::Conflict => Self::transient(error),
            StoreErrorKind::Unreadable | StoreErrorKind::Misconfigured => {
                Self::misconfigured(error)
            }
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            StoreErrorKind::Held => "the store is locked",
            StoreErrorKind::Unavailable => "the store is unavailable",
            StoreErrorKind::Conflict => "the store has changed",
            StoreErrorKind::Unreadable => "the store cannot be read",
            StoreErrorKind::Misconfigured => "the store cannot be used",
        };
        write!(f, "{kind}: {}", self.error)
    }
}

// As with `TokenError`: `Display` shows the wrapped error.
impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}
