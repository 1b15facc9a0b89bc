//! The time of each operation of a store.
//!
//! `cargo bench --all-features --bench stores`. A save replaces a record of 1.5 KiB, and a lock is released at once. The baselines are
//! the store in memory, and for files a write, a sync and a rename without a lock and without checks. Redis and PostgreSQL sync
//! each write too, and are skipped where they are not installed.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench fails by panicking, and measures time"
)]

mod support;

#[allow(unreachable_pub, clippy::unwrap_used, reason = "shared with tests")]
#[path = "../tests/harness/folder.rs"]
mod folder;
#[path = "../tests/harness/servers/mod.rs"]
mod servers;

use std::fs::{self, File};
use std::future::{Future, ready};
use std::io::Write as _;
use std::pin::Pin;
use std::time::{Duration, Instant};

use deadpool_postgres::{Manager, Pool};
use folder::Folder;
use servers::postgres::PostgresServer;
use servers::redis::RedisServer;
use support::compare::{Rounds, Times, in_turn};
use support::table;
use tokio_postgres::NoTls;
use tower_refresh::store::{
    EncryptedStore, EncryptionKey, FileStore, MemoryStore, PostgresStore, RedisStore,
    StoreLock as _, StoredTokens, TokenStore,
};

const OPERATIONS: [&str; 3] = ["lock", "load", "save"];
const LOCK: usize = 0;
const LOAD: usize = 1;
const SAVE: usize = 2;

/// Does one operation a number of times.
type Operations = Box<dyn Fn(usize, u32) -> Pin<Box<dyn Future<Output = ()>>>>;

fn main() {
    if support::lists() {
        return;
    }
    let folder = Folder::new();
    let redis = RedisServer::start(&folder.path("redis"));
    let postgres =
        PostgresServer::start(&folder.path("postgres"), &["fsync=on", "full_page_writes=on"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let file = |name| FileStore::new(folder.path(name));
        let mut stores = vec![
            ("memory", over(MemoryStore::new()).await),
            ("memory, encrypted", over(EncryptedStore::new(MemoryStore::new(), key())).await),
            ("file, by hand", by_hand(&folder)),
            ("file", over(file("plain.json")).await),
            ("file, encrypted", over(EncryptedStore::new(file("sealed.json"), key())).await),
        ];
        if let Some(redis) = &redis {
            let store = RedisStore::new(redis.url(), "bench").expect("a valid URL");
            stores.push(("Redis", over(store).await));
        }
        if let Some(postgres) = &postgres {
            stores.push(("PostgreSQL", over(in_postgres(postgres).await).await));
        }
        print(&stores).await;
    });
}

async fn in_postgres(server: &PostgresServer) -> PostgresStore {
    let config = server.url("postgres").parse().expect("settings");
    let pool = Pool::builder(Manager::new(config, NoTls)).build().expect("a pool");
    let store = PostgresStore::new(pool, "bench").expect("a valid name");
    store.migrate().await.expect("a table");
    store
}

async fn print(stores: &[(&str, Operations)]) {
    let mut rows: Vec<_> = stores.iter().map(|(name, _)| vec![(*name).to_owned()]).collect();
    for operation in 0..OPERATIONS.len() {
        let times = measure(stores, operation).await;
        for (number, row) in rows.iter_mut().enumerate() {
            let time = times.nanoseconds(number) / 1e3;
            row.push(format!("{time:.1} µs × {:<5.1}", times.ratio(number, 0)));
        }
    }
    let head = ["Store", OPERATIONS[LOCK], OPERATIONS[LOAD], OPERATIONS[SAVE]];
    table::print("Time of an operation, and its ratio to the store in memory", &head, &rows);
}

async fn measure(stores: &[(&str, Operations)], operation: usize) -> Times {
    const COUNT: u32 = 10;
    let mut times = vec![Vec::new(); stores.len()];
    for number in in_turn(stores.len(), Rounds::new(31, COUNT).rounds) {
        let run = &stores[number].1;
        // Caches are cold after another store.
        run(operation, 2).await;
        let began = Instant::now();
        run(operation, COUNT).await;
        times[number].push(began.elapsed().as_nanos() as f64 / f64::from(COUNT));
    }
    Times::from_rounds(times)
}

// ===== the stores =====

/// Returns the operations of a store with a record.
async fn over<S: TokenStore + Clone>(store: S) -> Operations {
    store.save(&record(1), None).await.expect("an empty store");
    Box::new(move |operation, count| {
        let store = store.clone();
        Box::pin(async move {
            let wait = Duration::from_secs(1);
            let (one, two) = (record(1), record(2));
            for number in 0..count {
                match operation {
                    LOCK => store.lock(wait).await.expect("the lock").release().await,
                    LOAD => drop(store.load().await.expect("an answer").expect("a record")),
                    _ => {
                        // The last one leaves the first record.
                        let (new, old) = if number % 2 == 0 { (&two, &one) } else { (&one, &two) };
                        store.save(new, Some(old.write_id())).await.expect("a save");
                    }
                }
            }
        })
    })
}

/// Returns the operations of a program that locks, reads and replaces a file.
fn by_hand(folder: &Folder) -> Operations {
    let [lock, path, new] =
        ["by-hand.lock", "by-hand", "by-hand.new"].map(|name| folder.path(name));
    let folder = folder.path("");
    let json = record(1).to_json().expect("JSON");
    fs::write(&path, &json).expect("a file");
    Box::new(move |operation, count| {
        for _ in 0..count {
            let done = match operation {
                LOCK => File::create(&lock).and_then(|file| file.lock()),
                LOAD => fs::read(&path).map(drop),
                _ => File::create(&new).and_then(|mut file| {
                    file.write_all(&json)?;
                    file.sync_all()?;
                    fs::rename(&new, &path)?;
                    File::open(&folder)?.sync_all()
                }),
            };
            done.expect("the file system works");
        }
        Box::pin(ready(()))
    })
}

fn key() -> EncryptionKey {
    EncryptionKey::new("key", [7; 32])
}

/// Returns a record of 1.5 KiB with this number.
fn record(number: u64) -> StoredTokens {
    let json = serde_json::json!({
        "version": 1,
        "write_id": format!("{number:032x}"),
        "epoch": 1,
        "revision": number,
        "binding": {},
        "body": { "plain": {
            "fingerprint_key": format!("{number:032x}"),
            "tokens": {
                "access_token": "a".repeat(1024),
                "received_at_ms": 1_700_000_000_000_u64,
                "expires_at_ms": 1_700_003_600_000_u64,
                "refresh_token": "r".repeat(256),
            },
        } },
    });
    StoredTokens::from_json(json.to_string().as_bytes()).expect("a record")
}
