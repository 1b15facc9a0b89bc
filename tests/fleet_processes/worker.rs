//! One process of a fleet: a program that takes orders and reports.
//!
//! It reads an order a line from standard input, and writes a JSON object a line to standard output.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{ClientAuth, Dialect, RefreshTokenGrant, TokenEndpoint};
use tower_refresh::{Credentials, Event, RefreshLayer, RefreshPolicy, TokenError, TokenSet};

use crate::many::{self, Users};
use crate::place::Place;
use crate::steps::{Halt, SteppedSource, SteppedStore, Steps, number_of};

const ORDERS: &str = "TOWER_REFRESH_FLEET_WORKER";

/// The orders at the start of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    pub place: Place,
    pub token_endpoint: String,
    pub client: Option<(String, String)>,
    pub api: String,
    pub refresh_token: String,
    /// True if requests are sent from the start.
    pub sends: bool,
    /// The pause between requests.
    pub pause_ms: u64,
    pub backoff_ms: (u64, u64),
    pub timeout_ms: u64,
    pub lock_wait_ms: u64,
    pub reuse_grace_ms: Option<u64>,
    pub halt: Option<Halt>,
    /// Serves these users instead of one.
    pub users: Option<Users>,
}

impl Orders {
    pub fn from_environment() -> Option<Self> {
        let orders = std::env::var(ORDERS).ok()?;
        Some(serde_json::from_str(&orders).unwrap())
    }

    pub fn to_environment(&self) -> (&'static str, String) {
        (ORDERS, serde_json::to_string(self).unwrap())
    }
}

/// The counters of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that were made.
    pub requests: u64,
    /// Requests whose response was a 2xx.
    pub accepted: u64,
    /// Token sets that were issued to the requests: obtained, or adopted.
    pub renewed: u64,
    pub adopted: u64,
    pub unanswered: u64,
    pub unsaved: u64,
    /// Refreshes that failed.
    pub failed: u64,
}

pub async fn run(orders: Orders) {
    // Even if it is frozen, it ends with the test.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();

    if let Some(users) = orders.users {
        return many::run(orders.place, orders.token_endpoint, orders.api, users).await;
    }
    let reporter = Reporter::default();
    let credentials = credentials(&orders, &reporter);
    let telling = tokio::spawn(reporter.clone().tell(credentials.clone()));
    let sending = Sending::default();
    sending.is_on.store(orders.sends, Relaxed);
    let task = tokio::spawn(send(credentials.clone(), orders, reporter.clone(), sending.clone()));
    say(&json!({ "did": "start" }));

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        let words: Vec<_> = line.split(' ').collect();
        let outcome = match words[..] {
            ["send"] => {
                sending.is_on.store(true, Relaxed);
                Ok(())
            }
            ["pause"] => {
                sending.is_on.store(false, Relaxed);
                credentials.flush().await
            }
            ["renew"] => credentials.refresh().await.map(drop),
            ["forget"] => credentials.log_out().await,
            ["replace", access_token, refresh_token, lifetime_ms] => {
                let lifetime = Duration::from_millis(lifetime_ms.parse().unwrap());
                let tokens = TokenSet::bearer(access_token).unwrap().with_expires_in(lifetime);
                credentials.log_in(tokens.with_refresh_token(refresh_token)).await
            }
            _ => panic!("unknown order: {words:?}"),
        };
        let error = outcome.err();
        let message = error.as_ref().map(TokenError::to_string);
        let has = reporter.has.load(Relaxed);
        say(
            &json!({ "did": words[0], "error": error.as_ref().map(kind), "message": message, "has": has }),
        );
    }

    sending.ends.store(true, Relaxed);
    // The request in flight may complete, unless its server is gone.
    let _ = tokio::time::timeout(Duration::from_secs(10), task).await;
    let settled = credentials.flush().await.is_ok();
    // The last events are reported as well.
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
    telling.abort();
    let _ = telling.await;
    say(&json!({ "counts": reporter.counts(), "settled": settled }));
}

fn credentials(orders: &Orders, reporter: &Reporter) -> Credentials {
    // Node closes a connection after five idle seconds, and a token request at that moment has an unknown outcome.
    let http =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http::<Full<Bytes>>();
    let mut dialect = Dialect::rfc6749();
    dialect.reuse_grace = orders.reuse_grace_ms.map(Duration::from_millis);
    let mut endpoint = TokenEndpoint::new(http, &orders.token_endpoint).unwrap().dialect(dialect);
    if let Some((id, secret)) = &orders.client {
        endpoint = endpoint.client_auth(ClientAuth::basic(id, secret));
    }

    let steps = Steps::new(orders.halt.clone());
    let source = SteppedSource {
        source: RefreshTokenGrant::new(endpoint, orders.refresh_token.as_str()),
        steps: steps.clone(),
        reporter: reporter.clone(),
    };
    let store = SteppedStore { store: orders.place.store(), steps };
    let (first, most) = orders.backoff_ms;
    let policy = RefreshPolicy::default()
        .timeout(Duration::from_millis(orders.timeout_ms))
        .backoff(Duration::from_millis(first), Duration::from_millis(most));
    Credentials::builder(source)
        .store(store)
        .lock_timeout(Duration::from_millis(orders.lock_wait_ms))
        .policy(policy)
        .build()
}

#[derive(Clone, Default)]
struct Sending {
    is_on: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
}

/// Sends requests, one after the other.
async fn send(credentials: Credentials, orders: Orders, reporter: Reporter, sending: Sending) {
    let origin: http::Uri = orders.api.parse().unwrap();
    let origin = format!("http://{}", origin.authority().unwrap());
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(credentials).origin(origin).unwrap())
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let pause = Duration::from_millis(orders.pause_ms);
    while !sending.ends.load(Relaxed) {
        if sending.is_on.load(Relaxed) {
            let request = Request::get(&orders.api).body(Full::default()).unwrap();
            reporter.counted.requests.fetch_add(1, Relaxed);
            let failure = match client.clone().oneshot(request).await {
                Ok(answer) if answer.status().is_success() => {
                    let _ = answer.into_body().collect().await;
                    None
                }
                Ok(answer) => Some((answer.status().to_string(), String::new())),
                Err(error) => Some(match error.downcast_ref::<TokenError>() {
                    Some(error) => (kind(error).to_owned(), error.to_string()),
                    None => ("transport".to_owned(), error.to_string()),
                }),
            };
            match failure {
                None => {
                    reporter.counted.accepted.fetch_add(1, Relaxed);
                }
                Some((failure, message)) => say(&json!({ "failure": failure, "message": message })),
            }
        }
        tokio::time::sleep(pause).await;
    }
}

// ===== reports =====

pub fn say(what: &Value) {
    // A line of its own, apart from the output of the test harness. The test may have ended, so that the pipe is closed.
    let line = format!("\n{what}\n");
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// Reports events, and remembers the reports.
#[derive(Clone, Default)]
pub struct Reporter {
    counted: Arc<Counted>,
    /// The number of the refresh token that came with the newest set.
    has: Arc<AtomicU64>,
    /// True if the last report was that the fate of a refresh token is unknown.
    has_told: Arc<AtomicBool>,
}

#[derive(Default)]
struct Counted {
    requests: AtomicU64,
    accepted: AtomicU64,
    renewed: AtomicU64,
    adopted: AtomicU64,
    unanswered: AtomicU64,
    unsaved: AtomicU64,
    failed: AtomicU64,
}

impl Reporter {
    pub fn has_told(&self) -> bool {
        self.has_told.load(Relaxed)
    }

    pub fn tells(&self, has_told: bool) {
        self.has_told.store(has_told, Relaxed);
    }

    fn counts(&self) -> Counts {
        let Counted { requests, accepted, renewed, adopted, unanswered, unsaved, failed } =
            &*self.counted;
        Counts {
            requests: requests.load(Relaxed),
            accepted: accepted.load(Relaxed),
            renewed: renewed.load(Relaxed),
            adopted: adopted.load(Relaxed),
            unanswered: unanswered.load(Relaxed),
            unsaved: unsaved.load(Relaxed),
            failed: failed.load(Relaxed),
        }
    }

    async fn tell(self, credentials: Credentials) {
        let mut events = credentials.subscribe();
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Relaxed);
        };
        while let Some(event) = events.recv().await {
            match event {
                Event::OutcomeUnknown { error, .. } => {
                    count(&self.counted.unanswered);
                    say(&json!({ "event": "unanswered", "message": error.to_string() }));
                    self.has_told.store(true, Relaxed);
                }
                Event::RefreshFailed { error, .. } => {
                    count(&self.counted.failed);
                    say(
                        &json!({ "event": "failed", "kind": kind(&error), "message": error.to_string() }),
                    );
                    if error.is_ambiguous() {
                        self.has_told.store(true, Relaxed);
                    }
                }
                Event::Refreshed { generation, .. } => {
                    count(&self.counted.renewed);
                    say(&json!({ "event": "renewed", "generation": generation }));
                    self.has_told.store(false, Relaxed);
                    // The set that was just issued is available.
                    if let Some(tokens) = credentials.current()
                        && let Some(token) = tokens.refresh_token()
                    {
                        self.has.store(number_of(token.expose_secret()), Relaxed);
                    }
                }
                Event::LoggedIn { .. } => self.has_told.store(false, Relaxed),
                Event::FoundInStore => {
                    count(&self.counted.adopted);
                    say(&json!({ "event": "adopted" }));
                }
                Event::Unsaved { error, .. } => {
                    count(&self.counted.unsaved);
                    say(&json!({ "event": "unsaved", "message": error.to_string() }));
                }
                Event::Saved => say(&json!({ "event": "saved" })),
                Event::Lagged { missed, .. } => {
                    say(&json!({ "event": "lagged", "missed": missed }))
                }
                _ => {}
            }
        }
    }
}

pub fn kind(error: &TokenError) -> &'static str {
    if error.is_denied() {
        "denied"
    } else if error.is_ambiguous() {
        "ambiguous"
    } else if error.is_misconfigured() {
        "misconfigured"
    } else {
        "transient"
    }
}
