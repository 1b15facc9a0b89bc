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
mod records;
mod set_up;
mod silent;
mod waiters;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool_postgres::{Manager, Pool};
use tokio_postgres::{Client, Config, NoTls, Row};

use super::PostgresStore;
use crate::store::tests::proxy::Proxy;
use crate::store::tests::servers::postgres::{PgBouncer, PostgresServer};
use crate::store::tests::{
    self as shared, LONG, SECOND, everything, folder, held, is_free, loaded, ms, record, runtime,
    save,
};
use crate::store::{StoreLock as _, StoredTokens, TokenStore as _, WriteId};
use crate::token::TokenSet;

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
fn through(proxy: &Proxy, url: &str) -> String {
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
