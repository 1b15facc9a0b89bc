//! Where a record is kept besides memory, as the keeper sees it. Every store is one.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::record::{Record, WriteId};
use crate::error::TokenError;

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Keeps the record of one grant. The laws are those of [`TokenStore`](crate::store::TokenStore).
pub(crate) trait Backing: Send + Sync {
    /// Takes the lock, or returns `None` after a wait in which the record may have changed.
    fn lock_or_wait(
        &self,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Option<Box<dyn BackingLock>>, Failure>>;

    fn load(&self) -> BoxFuture<'_, Result<Option<Record>, Failure>>;

    fn save<'a>(
        &'a self,
        record: &'a Record,
        replaces: Option<WriteId>,
    ) -> BoxFuture<'a, Result<(), Failure>>;

    fn describe(&self) -> String;

    /// Returns the name of the type. It names no place, so that few stores differ in it.
    #[cfg(feature = "metrics")]
    fn type_name(&self) -> &'static str;

    /// Returns whether the record is still there after this was dropped.
    #[cfg(feature = "pool")]
    fn survives_drop(&self) -> bool;
}

/// The lock of a [`Backing`], while it is held.
pub(crate) trait BackingLock: Send + Sync {
    fn is_held(&self) -> BoxFuture<'_, Result<bool, Failure>>;

    fn release(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Why a step was not made.
#[derive(Debug)]
#[cfg_attr(not(feature = "store"), allow(dead_code, reason = "only a store is unavailable"))]
pub(crate) enum Failure {
    /// The record has changed.
    Conflict,
    /// The store cannot be reached.
    Unavailable(TokenError),
    Failed(TokenError),
}

impl Failure {
    pub(super) fn into_error(self) -> TokenError {
        match self {
            Self::Conflict => TokenError::transient(
                "gave up after too many concurrent changes to the record of the grant: use one store for each grant",
            ),
            Self::Unavailable(error) | Self::Failed(error) => error,
        }
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        Self::Failed(error)
    }
}
