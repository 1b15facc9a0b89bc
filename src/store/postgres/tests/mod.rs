//! `PostgresStore` against a PostgreSQL server, and against what can happen to one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests, of servers and processes that do not follow a paused clock, which print what they measure"
)]

mod cuts;
mod leases;
mod many;
mod outages;
mod processes;
#[allow(dead_code, clippy::duplicate_mod, reason = "shared with the tests of `RedisStore`")]
#[path = "../../redis/tests/proxy.rs"]
mod proxy;
mod records;
#[allow(unreachable_pub, reason = "shared with other tests")]
#[path = "../../../../tests/harness/postgres_server.rs"]
mod server;
mod set_up;
mod silent;
mod waiters;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool_postgres::{Manager, Pool};
use tokio_postgres::{Client, Config, NoTls, Row};

use super::{PostgresLock, PostgresStore};
use crate::store::{StoreError, StoreLock as _, StoredTokens, TokenStore as _, WriteId};
use crate::token::TokenSet;
use server::PostgresServer;

const SECOND: Duration = Duration::from_secs(1);

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A database of one test.
struct Database {
    /// The settings of a connection to it.
    url: String,
    name: String,
}

impl Database {
    /// Creates one on the server of all tests, with the table in it. Without a server, prints that the test is skipped.
    async fn new() -> Option<Self> {
        Self::on(SERVER.as_ref()?).await
    }

    async fn on(server: &PostgresServer) -> Option<Self> {
        let database = Self::empty_on(server).await;
        store_at(&database.url).migrate().await.unwrap();
        Some(database)
    }

    /// Creates one without the table.
    async fn empty_on(server: &PostgresServer) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);

        let name = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let client = connect(&server.url("postgres")).await;
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        Self { url: server.url(&name), name }
    }

    /// Returns a store of the grant `grant`, over a pool of its own.
    fn store(&self) -> PostgresStore {
        store_at(&self.url)
    }

    /// Runs statements without the store.
    async fn run(&self, statements: &str) {
        connect(&self.url).await.batch_execute(statements).await.unwrap();
    }

    /// Returns the row of a query as texts.
    async fn ask(&self, query: &str) -> Row {
        connect(&self.url).await.query_one(query, &[]).await.unwrap()
    }

    /// Returns a column of the row, as text.
    async fn column(&self, column: &str) -> Option<String> {
        let query = format!("SELECT {column}::text FROM tower_refresh WHERE name = 'grant'");
        self.ask(&query).await.get(0)
    }
}

static SERVER: LazyLock<Option<PostgresServer>> = LazyLock::new(|| server(&[]));

fn server(settings: &[&str]) -> Option<PostgresServer> {
    PostgresServer::start(&folder("postgres"), settings)
}

/// Returns the path of a new folder.
fn folder(of: &str) -> std::path::PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);

    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("tower-refresh-{of}-{}-{next}", std::process::id()))
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Returns the part of the settings that is the port.
fn port_of(url: &str) -> String {
    url.split(' ').find(|part| part.starts_with("port=")).unwrap().to_owned()
}

/// Returns the settings of a connection through a proxy.
fn through(proxy: &proxy::Proxy, url: &str) -> String {
    url.replace(&port_of(url), &format!("port={}", proxy.port))
}

fn pool_at(url: &str, size: usize) -> Pool {
    Pool::builder(Manager::new(config(url), NoTls)).max_size(size).build().unwrap()
}

fn config(url: &str) -> Config {
    url.parse().unwrap()
}

fn store_at(url: &str) -> PostgresStore {
    // The machine may have a lot to do.
    PostgresStore::new(pool_at(url, 4), "grant").unwrap().timeout(10 * SECOND).pool_timeout(LONG)
}

/// Returns a store that listens for releases.
fn listening(url: &str) -> PostgresStore {
    store_at(url).listen_with(config(url), NoTls)
}

/// Waits until the connection hears of releases, and something waits for one.
async fn hears(store: &PostgresStore, database: &Database) {
    for _ in 0..3000 {
        let is_on = store.grant.notices.as_ref().unwrap().is_on();
        if is_on && database.column("is_waited").await.as_deref() == Some("true") {
            return;
        }
        tokio::time::sleep(ms(10)).await;
    }
    panic!("nothing listens");
}

fn record(after: Option<&StoredTokens>, name: &str) -> StoredTokens {
    let tokens = TokenSet::bearer(format!("access-{name}")).unwrap();
    let tokens = tokens.with_refresh_token(format!("refresh-{name}"));
    StoredTokens::example(after, &tokens, false)
}

async fn save(store: &PostgresStore, record: &StoredTokens, replaces: Option<&StoredTokens>) {
    store.save(record, replaces.map(StoredTokens::write_id)).await.unwrap();
}

async fn loaded(store: &PostgresStore) -> Option<WriteId> {
    store.load().await.unwrap().as_ref().map(StoredTokens::write_id)
}

async fn is_free(store: &PostgresStore) -> bool {
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

async fn held(lock: &PostgresLock) -> bool {
    lock.is_held().await.unwrap()
}

/// Does everything that a store does.
async fn everything(store: &PostgresStore) -> Result<(), StoreError> {
    let lock = store.lock(SECOND).await?;
    let found = store.load().await?;
    let next = record(found.as_ref(), "next");
    store.save(&next, found.as_ref().map(StoredTokens::write_id)).await?;
    assert!(lock.is_held().await?);
    let error = store.lock(ms(100)).await.unwrap_err();
    if !error.is_held() {
        return Err(error);
    }
    lock.release().await;
    if is_free(store).await { Ok(()) } else { Err(StoreError::misconfigured("not released")) }
}
