//! The stage of a test: a server, a store, and a folder for both.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::{sleep, timeout};
use tower_refresh::TokenSet;
use tower_refresh::store::{StoredTokens, TokenStore as _};
use tower_refresh::testing::{AuthorizationServer, Counters, Serving};

use crate::folder::Folder;
use crate::place::Place;
use crate::process::{LONG, Process};
use crate::servers::postgres::PostgresServer;
use crate::servers::redis::RedisServer;
use crate::worker::Orders;

/// The time that a lock in Redis or PostgreSQL outlives its holder by default.
pub const LEASE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Redis,
    Postgres,
}

/// The server of a store, if it has one.
pub enum StoreServer {
    Redis(RedisServer),
    Postgres(PostgresServer),
}

impl StoreServer {
    /// Ends it like a crash.
    pub fn kill(&mut self) {
        match self {
            Self::Redis(server) => server.kill(),
            Self::Postgres(server) => server.kill(),
        }
    }

    pub fn start_again(&mut self) {
        match self {
            Self::Redis(server) => server.start_again(),
            Self::Postgres(server) => server.start_again(),
        }
    }
}

pub struct Stage {
    pub server: AuthorizationServer,
    pub serving: Serving,
    pub place: Place,
    pub store_server: Option<StoreServer>,
    folder: Folder,
    _turn: Turn,
}

/// Some tests need the machine alone, which may be small.
static TURN: RwLock<()> = RwLock::const_new(());

pub enum Turn {
    Shared { _turn: RwLockReadGuard<'static, ()> },
    Alone { _turn: RwLockWriteGuard<'static, ()> },
}

impl Stage {
    /// Sets up a stage. Returns `None` without the server that it needs.
    pub async fn new(kind: Kind, server: AuthorizationServer) -> Option<Self> {
        Self::at(Turn::Shared { _turn: TURN.read().await }, kind, server).await
    }

    /// Sets up a stage while no other exists.
    pub async fn alone(kind: Kind, server: AuthorizationServer) -> Option<Self> {
        Self::at(Turn::Alone { _turn: TURN.write().await }, kind, server).await
    }

    async fn at(turn: Turn, kind: Kind, server: AuthorizationServer) -> Option<Self> {
        let folder = Folder::new();
        let lease_ms = millis(LEASE);
        let (store_server, place) = match kind {
            Kind::File => (None, Place::File { path: folder.path("tokens.json") }),
            Kind::Redis => {
                let server = RedisServer::start(&folder.path("redis"))?;
                let url = server.url();
                (Some(StoreServer::Redis(server)), Place::Redis { url, lease_ms })
            }
            Kind::Postgres => {
                let server = PostgresServer::start(&folder.path("postgres"), &[])?;
                let url = server.url("postgres");
                Place::postgres(&url).migrate().await.unwrap();
                (Some(StoreServer::Postgres(server)), Place::Postgres { url, lease_ms })
            }
        };
        let serving = server.serve().await.unwrap();
        Some(Self { server, serving, place, store_server, folder, _turn: turn })
    }

    /// Returns the default orders of a process: to send requests, beginning with this refresh token.
    pub fn orders(&self, refresh_token: &str) -> Orders {
        Orders {
            place: self.place.clone(),
            token_endpoint: self.serving.url("/token"),
            client: None,
            api: self.serving.url("/things"),
            refresh_token: refresh_token.to_owned(),
            sends: true,
            pause_ms: 10,
            backoff_ms: (20, 100),
            timeout_ms: 60_000,
            lock_wait_ms: 60_000,
            reuse_grace_ms: None,
            halt: None,
            users: None,
        }
    }

    /// Returns the path of a file that ends with the stage.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    pub fn counters(&self) -> Counters {
        self.server.counters()
    }

    /// Waits for a condition on the counters.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Counters) -> bool) {
        let so = async {
            while !is_so(&self.counters()) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(LONG, so).await.is_err() {
            panic!("never: {what}: {:?}", self.counters());
        }
    }

    /// Loads the record, through a store of the test itself.
    pub async fn stored(&self) -> Option<Stored> {
        Some(Stored::new(self.place.store().load().await.unwrap()?))
    }

    /// Asserts that the stored refresh token works, unless its record has an open intent or a denial. Without a record, the
    /// configured token must work. Processes may write meanwhile.
    pub async fn assert_nothing_is_lost(&self, configured: &str) {
        loop {
            let stored = self.stored().await;
            let (write_id, token) = match &stored {
                Some(stored) if stored.has_open_intent() || stored.is_denied() => return,
                Some(stored) => (Some(stored.record.write_id()), stored.refresh_token()),
                None => (None, Some(configured.to_owned())),
            };
            if token.is_none_or(|token| self.server.is_unspent(&token)) {
                return;
            }
            let again = self.stored().await.map(|stored| stored.record.write_id());
            assert_ne!(
                again, write_id,
                "a refresh token that was spent is stored as if it were not"
            );
        }
    }
}

/// A record, and its content.
pub struct Stored {
    pub record: StoredTokens,
    content: Value,
}

impl Stored {
    fn new(record: StoredTokens) -> Self {
        let json: Value = serde_json::from_slice(&record.to_json().unwrap()).unwrap();
        Self { record, content: json["body"]["plain"].clone() }
    }

    pub fn has_open_intent(&self) -> bool {
        self.record.has_open_intent()
    }

    pub fn refresh_token(&self) -> Option<String> {
        self.content["tokens"]["refresh_token"].as_str().map(str::to_owned)
    }

    pub fn access_token(&self) -> Option<String> {
        self.content["tokens"]["access_token"].as_str().map(str::to_owned)
    }

    /// Returns whether its refresh token was denied.
    pub fn is_denied(&self) -> bool {
        !self.content["denied"].is_null()
    }
}

/// Returns the order to log in.
pub fn replace_by(tokens: &TokenSet, lifetime: Duration) -> String {
    let access_token = tokens.access_token().expose_secret();
    let refresh_token = tokens.refresh_token().unwrap().expose_secret();
    format!("replace {access_token} {refresh_token} {}", millis(lifetime))
}

pub fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap()
}

/// Returns whether all rounds run, and not the short version.
pub fn is_full() -> bool {
    std::env::var("TOWER_REFRESH_FLEET").is_ok_and(|how| how == "full")
}

/// Prints figures. If all rounds run, this is past the harness, which hides the output of passing tests.
pub fn print_figures(figures: &str) {
    if is_full() {
        drop(std::io::stderr().write_all(format!("{figures}\n").as_bytes()));
    } else {
        println!("{figures}");
    }
}

// ===== assertions =====

/// Asserts that the server counted no reuse.
pub fn assert_no_reuse(counters: &Counters) {
    assert_eq!(counters.refresh_token_reuses, 0, "{counters:?}");
    assert_eq!(counters.families_revoked, 0, "{counters:?}");
    assert!(counters.refresh_token_uses.values().all(|uses| *uses <= 1), "{counters:?}");
}

/// Asserts that a process which sent a refresh token again had reported its unknown outcome before.
pub fn assert_every_reuse_was_reported<'a>(
    counters: &Counters,
    processes: impl IntoIterator<Item = &'a Process>,
) {
    let sent: Vec<_> = processes.into_iter().flat_map(Process::sent).collect();
    for (&number, &uses) in &counters.refresh_token_uses {
        let of_it = || sent.iter().filter(|(sent, _)| *sent == number);
        let times = of_it().count() as u64;
        assert!(uses <= times, "{number} was used {uses} times and announced {times} times");
        let untold = of_it().filter(|(_, told)| !told).count();
        assert!(untold <= 1, "{number} was sent by {untold} processes that did not report it");
    }
    let uses: u64 = counters.refresh_token_uses.values().map(|uses| uses.saturating_sub(1)).sum();
    assert!(counters.refresh_token_reuses <= uses, "{counters:?}");
}

/// Makes a test of each function for each store.
macro_rules! over_all_stores {
    ($($name:ident),* $(,)?) => {
        crate::stage::over_store!(file, File, super, $($name),*);
        crate::stage::over_store!(redis, Redis, super, $($name),*);
        crate::stage::over_store!(postgres, Postgres, super, $($name),*);
    };
}
pub(crate) use over_all_stores;

/// Makes a test of each function for each store whose lock is a lease.
macro_rules! over_leased_stores {
    ($($name:ident),* $(,)?) => {
        mod leases {
            crate::stage::over_store!(redis, Redis, super::super, $($name),*);
            crate::stage::over_store!(postgres, Postgres, super::super, $($name),*);
        }
    };
}
pub(crate) use over_leased_stores;

macro_rules! over_store {
    ($module:ident, $kind:ident, $place:path, $($name:ident),*) => {
        mod $module {
            use $place as functions;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    functions::$name(crate::stage::Kind::$kind).await;
                }
            )*
        }
    };
}
pub(crate) use over_store;
