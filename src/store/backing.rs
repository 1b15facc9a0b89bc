//! A store as the ledger's keeper sees it.

use std::time::Duration;

use super::{StoreError, StoreLock, StoredTokens, TokenStore};
use crate::grant::backing::{Backing, BackingLock, BoxFuture, Failure};
use crate::grant::record::{Record, WriteId};

/// Gives a store to the ledger.
pub(crate) fn backing(store: impl TokenStore) -> Box<dyn Backing> {
    Box::new(Backed(store))
}

/// A store as a [`Backing`], which has records rather than their stored form.
struct Backed<T>(T);

impl<T: TokenStore> Backing for Backed<T> {
    fn lock_or_wait(
        &self,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Option<Box<dyn BackingLock>>, Failure>> {
        Box::pin(async move {
            let lock = self.0.lock_or_wait(wait).await?;
            Ok(lock.map(|lock| Box::new(Held(lock)) as Box<dyn BackingLock>))
        })
    }

    fn load(&self) -> BoxFuture<'_, Result<Option<Record>, Failure>> {
        Box::pin(async move {
            let stored = self.0.load().await?;
            Ok(stored.map(|stored| stored.to_record()).transpose()?)
        })
    }

    fn save<'a>(
        &'a self,
        record: &'a Record,
        replaces: Option<WriteId>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move { Ok(self.0.save(&StoredTokens::of(record), replaces).await?) })
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    #[cfg(feature = "metrics")]
    fn type_name(&self) -> &'static str {
        std::any::type_name::<T>()
    }

    #[cfg(feature = "pool")]
    fn survives_drop(&self) -> bool {
        self.0.survives_drop()
    }
}

struct Held<L>(L);

impl<L: StoreLock> BackingLock for Held<L> {
    fn is_held(&self) -> BoxFuture<'_, Result<bool, Failure>> {
        Box::pin(async move { Ok(self.0.is_held().await?) })
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(self.0.release())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        if error.is_conflict() {
            Self::Conflict
        } else if error.is_unavailable() {
            Self::Unavailable(error.into())
        } else {
            Self::Failed(error.into())
        }
    }
}
