//! The tests that the stores in PostgreSQL and in Redis share, and their helpers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests, of servers and processes that do not follow a paused clock, which print what they measure"
)]

pub(super) mod cuts;
pub(super) mod leases;
pub(super) mod processes;
pub(super) mod proxy;
pub(super) mod records;
#[path = "../../../tests/harness/servers/mod.rs"]
pub(super) mod servers;
pub(super) mod waiters;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::{StoreError, StoreLock, StoredTokens, TokenStore, WriteId};
use crate::token::TokenSet;

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// Longer than anything here takes.
pub(super) const LONG: Duration = Duration::from_secs(30);

pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Returns the path of a new folder.
pub(super) fn folder(of: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);

    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("tower-refresh-{of}-{}-{next}", std::process::id()))
}

/// Returns a runtime that is polled only while it blocks on a future.
pub(super) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

pub(super) fn record(after: Option<&StoredTokens>, name: &str) -> StoredTokens {
    example(after, name, false)
}

pub(super) fn intent(after: &StoredTokens) -> StoredTokens {
    example(Some(after), "intent", true)
}

fn example(after: Option<&StoredTokens>, name: &str, has_open_intent: bool) -> StoredTokens {
    let tokens = TokenSet::bearer(format!("access-{name}")).unwrap();
    let tokens = tokens.with_refresh_token(format!("refresh-{name}"));
    StoredTokens::example(after, &tokens, has_open_intent)
}

pub(super) async fn save(
    store: &impl TokenStore,
    record: &StoredTokens,
    replaces: Option<&StoredTokens>,
) {
    store.save(record, replaces.map(StoredTokens::write_id)).await.unwrap();
}

pub(super) async fn loaded(store: &impl TokenStore) -> Option<WriteId> {
    store.load().await.unwrap().as_ref().map(StoredTokens::write_id)
}

pub(super) async fn is_free(store: &impl TokenStore) -> bool {
    match store.lock(Duration::ZERO).await {
        Ok(lock) => {
            lock.release().await;
            true
        }
        Err(error) => {
            assert!(error.is_held(), "{error}");
            false
        }
    }
}

pub(super) async fn held(lock: &impl StoreLock) -> bool {
    lock.is_held().await.unwrap()
}

/// Does everything that a store does.
pub(super) async fn everything(store: &impl TokenStore) -> Result<(), StoreError> {
    let lock = store.lock(SECOND).await?;
    let found = store.load().await?;
    let next = record(found.as_ref(), "next");
    let open = intent(&next);
    store.save(&next, found.as_ref().map(StoredTokens::write_id)).await?;
    store.save(&open, Some(next.write_id())).await?;
    assert!(lock.is_held().await?);
    let error = store.lock(ms(100)).await.err().unwrap();
    if !error.is_held() {
        return Err(error);
    }
    lock.release().await;
    if is_free(store).await { Ok(()) } else { Err(StoreError::misconfigured("not released")) }
}
