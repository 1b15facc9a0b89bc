//! A lock for plain data.

use std::sync::{MutexGuard, PoisonError};

/// A mutex that a panic does not poison.
///
/// It is held for a moment, and never across an await. The value is consistent between two statements, so that a panic of the code
/// that holds it leaves nothing half done.
#[derive(Debug, Default)]
#[expect(clippy::disallowed_types, reason = "all others use this one")]
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
