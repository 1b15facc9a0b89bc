//! `RedisStore` against a `redis-server`, and against what can happen to one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests, of servers and processes that do not follow a paused clock, which print what they measure"
)]

mod answers;
mod cuts;
mod leases;
mod many;
mod processes;
mod proxy;
mod records;
mod server;
mod set_up;
mod waiters;

use std::time::Duration;

use super::{RedisLock, RedisStore};
use crate::store::{StoreError, StoreLock as _, StoredTokens, TokenStore as _, WriteId};
use crate::token::TokenSet;
use server::Server;

const SECOND: Duration = Duration::from_secs(1);

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A store under the key `tower-refresh:grant`, over a connection of its own.
fn store(server: &Server) -> RedisStore {
    store_at(&server.url())
}

fn store_at(url: &str) -> RedisStore {
    // The machine may have a lot to do.
    RedisStore::new(url, "grant").unwrap().timeout(10 * SECOND)
}

const KEY: &str = "tower-refresh:grant";

fn record(after: Option<&StoredTokens>, name: &str) -> StoredTokens {
    example(after, name, false)
}

fn intent(after: &StoredTokens) -> StoredTokens {
    example(Some(after), "intent", true)
}

fn example(after: Option<&StoredTokens>, name: &str, has_open_intent: bool) -> StoredTokens {
    let tokens = TokenSet::bearer(format!("access-{name}")).unwrap();
    let tokens = tokens.with_refresh_token(format!("refresh-{name}"));
    StoredTokens::example(after, &tokens, has_open_intent)
}

async fn save(store: &RedisStore, record: &StoredTokens, replaces: Option<&StoredTokens>) {
    store.save(record, replaces.map(StoredTokens::write_id)).await.unwrap();
}

async fn loaded(store: &RedisStore) -> Option<WriteId> {
    store.load().await.unwrap().as_ref().map(StoredTokens::write_id)
}

async fn is_free(store: &RedisStore) -> bool {
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

async fn held(lock: &RedisLock) -> bool {
    lock.is_held().await.unwrap()
}

/// Waits until this many waiters have subscribed.
async fn listening(server: &Server, waiters: usize) {
    for _ in 0..3000 {
        let (_, listening): (String, usize) = server.ask(&["PUBSUB", "NUMSUB", KEY]);
        if listening == waiters {
            return;
        }
        tokio::time::sleep(ms(10)).await;
    }
    panic!("there are not {waiters} subscribers");
}

/// Returns how often the server was asked to run this command.
fn calls(server: &Server, command: &str) -> usize {
    let statistics: String = server.ask(&["INFO", "commandstats"]);
    let calls = statistics.split_once(&format!("cmdstat_{command}:calls="));
    calls.map_or(0, |(_, calls)| calls.split(',').next().unwrap().parse().unwrap())
}
