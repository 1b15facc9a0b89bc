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
mod records;
mod set_up;
mod waiters;

use std::time::Duration;

use super::RedisStore;
use crate::store::tests::proxy::Proxy;
use crate::store::tests::servers::redis::RedisServer;
use crate::store::tests::{
    self as shared, LONG, SECOND, everything, folder, held, intent, is_free, loaded, ms, record,
    runtime, save,
};
use crate::store::{StoreError, StoreLock as _, TokenStore as _};
use crate::token::TokenSet;

/// Starts a server that persists every write. Without a `redis-server`, prints that the test is skipped.
fn server() -> Option<RedisServer> {
    RedisServer::start(&folder("redis"))
}

fn server_with(settings: &[&str]) -> Option<RedisServer> {
    RedisServer::start_with(&folder("redis"), settings)
}

/// A store under the key `tower-refresh:grant`, over a connection of its own.
fn store(server: &RedisServer) -> RedisStore {
    store_at(&server.url())
}

fn store_at(url: &str) -> RedisStore {
    // The machine may have a lot to do.
    RedisStore::new(url, "grant").unwrap().timeout(10 * SECOND)
}

/// Returns the URL of a server behind a proxy.
fn through(proxy: &Proxy) -> String {
    format!("redis://127.0.0.1:{}/", proxy.port)
}

const KEY: &str = "tower-refresh:grant";

/// Waits until this many waiters have subscribed.
async fn listening(server: &RedisServer, waiters: usize) {
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
fn calls(server: &RedisServer, command: &str) -> usize {
    let statistics: String = server.ask(&["INFO", "commandstats"]);
    let calls = statistics.split_once(&format!("cmdstat_{command}:calls="));
    calls.map_or(0, |(_, calls)| calls.split(',').next().unwrap().parse().unwrap())
}
