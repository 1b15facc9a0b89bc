//! The error of a store.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use self::StoreErrorKind as Kind;
use crate::error::{BoxError, TokenError};

/// The error of a [`TokenStore`](super::TokenStore).
///
/// Cloning is cheap. No message contains a token.
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
#[derive(Clone)]
pub struct StoreError {
    kind: StoreErrorKind,
    error: Arc<dyn Error + Send + Sync>,
}

/// The kind of a [`StoreError`].
///
/// # Examples
///
/// ```
/// use tower_refresh::store::{StoreError, StoreErrorKind};
///
/// fn is_for_the_operator(error: &StoreError) -> bool {
///     matches!(error.kind(), StoreErrorKind::Unreadable | StoreErrorKind::Misconfigured)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Another process holds the lock. The refresh is tried again later.
    Held,
    /// The store is down or full. It may work later.
    Unavailable,
    /// The stored record is not the one that the save was to replace. The record is loaded again.
    Conflict,
    /// The stored record cannot be read. It is left unchanged.
    Unreadable,
    /// A person must correct the configuration.
    Misconfigured,
}

impl StoreError {
    /// Creates an error for a lock that another process did not release in time. The store itself works.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::StoreError;
    ///
    /// let error = StoreError::held("row compass after 5 s");
    /// assert!(error.is_held());
    /// ```
    pub fn held(error: impl Into<BoxError>) -> Self {
        Self::new(Kind::Held, error.into())
    }

    /// Creates an error for a store that is down or full and may work later. After a save, the outcome is unknown.
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
        Self::new(Kind::Unavailable, error.into())
    }

    /// Creates an error for a save that came too late: another record is stored than the one that it was to replace.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::StoreError;
    ///
    /// assert!(StoreError::conflict().is_conflict());
    /// ```
    pub fn conflict() -> Self {
        Self::new(Kind::Conflict, "another record is stored than the one to be replaced".into())
    }

    /// Creates an error for a record that is torn, foreign, encrypted with an unknown key, or written by a later version.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::StoreError;
    ///
    /// let error = StoreError::unreadable("the file is empty");
    /// assert!(error.is_unreadable());
    /// ```
    pub fn unreadable(error: impl Into<BoxError>) -> Self {
        Self::new(Kind::Unreadable, error.into())
    }

    /// Creates an error that a person must correct, such as a missing folder or a wrong password.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::store::StoreError;
    ///
    /// let error = StoreError::misconfigured("the folder does not exist: create it");
    /// assert!(error.is_misconfigured());
    /// ```
    pub fn misconfigured(error: impl Into<BoxError>) -> Self {
        Self::new(Kind::Misconfigured, error.into())
    }

    fn new(kind: Kind, error: BoxError) -> Self {
        Self { kind, error: error.into() }
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Returns whether another process holds the lock.
    pub fn is_held(&self) -> bool {
        self.kind == Kind::Held
    }

    /// Returns whether the store is down or full.
    pub fn is_unavailable(&self) -> bool {
        self.kind == Kind::Unavailable
    }

    /// Returns whether another record is stored than the one that a save was to replace.
    pub fn is_conflict(&self) -> bool {
        self.kind == Kind::Conflict
    }

    /// Returns whether the stored record cannot be read.
    pub fn is_unreadable(&self) -> bool {
        self.kind == Kind::Unreadable
    }

    /// Returns whether a person must correct the configuration.
    pub fn is_misconfigured(&self) -> bool {
        self.kind == Kind::Misconfigured
    }

    /// Returns the error from which this one was created.
    pub fn get_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.error
    }
}

impl From<StoreError> for TokenError {
    /// A store that is unavailable or locked may work later. Any other error needs a person. Nothing was sent to the token
    /// endpoint, so that the store is tried again as soon as an endpoint that cannot be reached.
    fn from(error: StoreError) -> Self {
        match error.kind {
            Kind::Unavailable => Self::unsent(error),
            Kind::Held | Kind::Conflict => Self::transient(error),
            Kind::Unreadable | Kind::Misconfigured => Self::misconfigured(error),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Held => "the store is locked by another process",
            Kind::Unavailable => "the store is unavailable",
            Kind::Conflict => "the store has changed",
            Kind::Unreadable => "the store cannot be read",
            Kind::Misconfigured => "the store is misconfigured",
        };
        write!(f, "{kind}: {}", self.error)
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreError").field("kind", &self.kind).field("error", &self.error).finish()
    }
}

// As with `TokenError`, `Display` shows the error from which it was created.
impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}
