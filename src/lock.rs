//! A lock that a panic does not poison.

use std::sync::{MutexGuard, PoisonError};

/// A mutex that a panic does not poison.
///
/// It is held for a moment, and never across an await. Code that holds it leaves the value consistent, also if it panics: it changes
/// plain data, or it clones a service or asks a body for its length, which are code of others and change nothing.
#[derive(Debug, Default)]
#[expect(clippy::disallowed_types, reason = "the others use this one")]
pub(crate) struct Lock<T>(std::sync::Mutex<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        #[expect(clippy::disallowed_types, reason = "see the type")]
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
