//! Why a store did not do what it was asked.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::error::{BoxError, TokenError};

/// Why a [`TokenStore`](super::TokenStore) did not do what it was asked.
///
/// | kind | what it means | what [`Stored`](super::Stored) does |
/// |---|---|---|
/// | [held](Self::held) | somebody else holds the lock | asks again later |
/// | [unavailable](Self::unavailable) | the store is down, or full | what [`StoreDown`](super::StoreDown) says |
/// | [conflict](Self::conflict) | what is stored is not what was to be replaced | loads it, and decides again |
/// | [unreadable](Self::unreadable) | what is stored cannot be understood | fails, and leaves it as it is |
/// | [misconfigured](Self::misconfigured) | a human must mend the set-up | fails |
///
/// Cloning is cheap. No message contains a token.
#[derive(Clone)]
pub struct StoreError {
    kind: Kind,
    error: Arc<dyn Error + Send + Sync>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Held,
    Unavailable,
    Conflict,
    Unreadable,
    Misconfigured,
}

impl StoreError {
    /// Makes an error for a lock that somebody else did not let go of in time. The store itself is well.
    pub fn held(error: impl Into<BoxError>) -> Self {
        Self::new(Kind::Held, error.into())
    }

    /// Makes an error for a store that is down, or full: it may work later. After a save, nobody knows whether it counted.
    pub fn unavailable(error: impl Into<BoxError>) -> Self {
        Self::new(Kind::Unavailable, error.into())
    }

    /// Makes an error for a save that came too late: something else is stored than what it was to replace.
    pub fn conflict() -> Self {
        Self::new(Kind::Conflict, "something else is stored than what was to be replaced".into())
    }

    /// Makes an error for stored data that is torn, foreign, sealed with an unknown key, or written by a later version.
    pub fn unreadable(error: impl Into<BoxError>) -> Self {
        Self::new(Kind::Unreadable, error.into())
    }

    /// Makes an error for a set-up that a human must mend: a folder that does not exist, a password that is wrong.
    pub fn misconfigured(error: impl Into<BoxError>) -> Self {
        Self::new(Kind::Misconfigured, error.into())
    }

    fn new(kind: Kind, error: BoxError) -> Self {
        Self { kind, error: error.into() }
    }

    /// Returns whether somebody else holds the lock.
    pub fn is_held(&self) -> bool {
        self.kind == Kind::Held
    }

    /// Returns whether the store is down, or full.
    pub fn is_unavailable(&self) -> bool {
        self.kind == Kind::Unavailable
    }

    /// Returns whether something else is stored than what a save was to replace.
    pub fn is_conflict(&self) -> bool {
        self.kind == Kind::Conflict
    }

    /// Returns whether what is stored cannot be understood.
    pub fn is_unreadable(&self) -> bool {
        self.kind == Kind::Unreadable
    }

    /// Returns whether a human must mend the set-up.
    pub fn is_misconfigured(&self) -> bool {
        self.kind == Kind::Misconfigured
    }

    /// Returns the error that this one was made of.
    pub fn get_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.error
    }
}

impl From<StoreError> for TokenError {
    /// A store that is held, down or overtaken may work later; the rest is for a human. Nothing was sent to the token endpoint,
    /// so that a store which went down with the network is asked again as soon as an endpoint that cannot be reached.
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
            Kind::Held => "the store is locked by somebody else",
            Kind::Unavailable => "the store is unavailable",
            Kind::Conflict => "the store was overtaken",
            Kind::Unreadable => "the store cannot be read",
            Kind::Misconfigured => "the store is set up wrong",
        };
        write!(f, "{kind}: {}", self.error)
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreError").field("kind", &self.kind).field("error", &self.error).finish()
    }
}

// As with `TokenError`: what it was made of is shown by `Display`.
impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}
