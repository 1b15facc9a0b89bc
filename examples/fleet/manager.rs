//! Starts and kills the workers, and counts events.

use std::hash::{BuildHasher as _, RandomState};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower_refresh::BoxError;
use tower_refresh::testing::{AuthorizationServer, Counters, Fault};

use crate::Options;
use crate::redis_server::RedisServer;
use crate::worker::Orders;

const LIFETIME: Duration = Duration::from_millis(500);

/// The response time of the token endpoint. The longer it is, the more workers are killed during a refresh.
const ENDPOINT_TAKES: Duration = Duration::from_millis(100);

/// How long no refresh may succeed before the program logs in again.
///
/// A killed worker holds the lock for one second, and access tokens live for half a second.
const PATIENCE: Duration = Duration::from_secs(3);

pub async fn run(options: Options) -> Result<(), BoxError> {
    let own;
    let redis = match options.redis {
        Some(url) => url,
        None => {
            own = RedisServer::start().await?;
            println!("started redis-server at {}", own.url());
            own.url().to_owned()
        }
    };
    let server = AuthorizationServer::builder().access_token_lifetime(LIFETIME).build();
    server.token_faults().always(Fault::normal().delay(ENDPOINT_TAKES).after_processing());
    let serving = server.serve().await?;
    let log_in = || server.issue_refresh_token().expose_secret().to_owned();
    let mut orders = Orders {
        redis: redis.clone(),
        // A new key for each run.
        key: format!("example-{:016x}", RandomState::new().hash_one(0)),
        origin: serving.origin(),
        refresh_token: log_in(),
    };

    println!(
        "{} workers for {:?}; access tokens live {LIFETIME:?}, the token endpoint responds after {ENDPOINT_TAKES:?}",
        options.workers, options.run
    );
    let tally = Arc::new(Tally::default());
    let mut workers = Vec::new();
    for _ in 0..options.workers {
        workers.push(Worker::start(&orders, &tally).await?);
    }
    let began = Instant::now();
    let (mut kills, mut log_ins) = (0, 0);
    let mut last_refresh = (0, Instant::now());
    while began.elapsed() < options.run {
        sleep(Duration::from_millis(100 + random(200))).await;
        // If the session is over, or its state has been unknown for too long, log in again. A new refresh token in the configuration
        // replaces the stored one.
        let refreshes = server.counters().token_requests_granted;
        if refreshes != last_refresh.0 {
            last_refresh = (refreshes, Instant::now());
        }
        if tally.denied.swap(0, Relaxed) > 0 || last_refresh.1.elapsed() > PATIENCE {
            println!("  logging in again");
            log_ins += 1;
            last_refresh.1 = Instant::now();
            orders.refresh_token = log_in();
        }
        let which = usize::try_from(random(options.workers as u64))?;
        workers[which].child.kill().await?;
        kills += 1;
        workers[which] = Worker::start(&orders, &tally).await?;
    }
    for worker in workers {
        worker.end().await?;
    }
    clean_up(&redis, &orders.key).await;

    let counters = server.counters();
    report(&tally, &counters, kills, log_ins);
    verdict(&tally, &counters)
}

// ===== workers =====

struct Worker {
    /// Killed when dropped.
    child: Child,
    listening: JoinHandle<()>,
}

impl Worker {
    async fn start(orders: &Orders, tally: &Arc<Tally>) -> Result<Self, BoxError> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = format!("{}\n", serde_json::to_string(orders)?);
        if let Some(stdin) = &mut child.stdin {
            stdin.write_all(orders.as_bytes()).await?;
        }
        let lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        let tally = Arc::clone(tally);
        let listening = tokio::spawn(async move {
            let Some(mut lines) = lines else { return };
            while let Ok(Some(line)) = lines.next_line().await {
                tally.count(&line);
            }
        });
        Ok(Self { child, listening })
    }

    async fn end(mut self) -> Result<(), BoxError> {
        drop(self.child.stdin.take());
        let status = timeout(Duration::from_secs(60), self.child.wait()).await??;
        self.listening.await?;
        if status.success() { Ok(()) } else { Err("a worker could not save its tokens".into()) }
    }
}

/// Returns a random number below `end`.
fn random(end: u64) -> u64 {
    RandomState::new().hash_one(0) % end
}

/// Deletes the key, in case the Redis server is shared.
async fn clean_up(redis: &str, key: &str) {
    if let Ok(client) = redis::Client::open(redis)
        && let Ok(mut connection) = client.get_multiplexed_async_connection().await
    {
        let key = format!("tower-refresh:{key}");
        let _ = redis::cmd("DEL").arg(key).exec_async(&mut connection).await;
    }
}

// ===== the result =====

#[derive(Default)]
struct Tally {
    requests: AtomicU64,
    failed: AtomicU64,
    adopted: AtomicU64,
    unanswered: AtomicU64,
    denied: AtomicU64,
    /// The last line that was printed, which every worker repeats.
    last: Mutex<String>,
}

impl Tally {
    fn count(&self, line: &str) {
        let counter = match line.split(':').next() {
            Some("request") => &self.requests,
            Some("failed") => &self.failed,
            Some("adopted") => &self.adopted,
            Some("unanswered") => &self.unanswered,
            Some("denied") => &self.denied,
            // Incomplete, because the worker was killed.
            _ => return,
        };
        counter.fetch_add(1, Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if (line.starts_with("unanswered") || line.starts_with("denied")) && *last != line {
            println!("  a worker reports: {line}");
            line.clone_into(&mut last);
        }
    }
}

fn report(tally: &Tally, counters: &Counters, kills: u64, log_ins: u64) {
    let rows = [
        ("requests", tally.requests.load(Relaxed)),
        ("requests that failed", tally.failed.load(Relaxed)),
        ("workers killed", kills),
        ("refreshes (token requests)", counters.token_requests),
        ("tokens that were adopted", tally.adopted.load(Relaxed)),
        ("reports of an unknown outcome", tally.unanswered.load(Relaxed)),
        ("refresh-token reuses", counters.refresh_token_reuses),
        ("sessions that the server ended", counters.families_revoked),
        ("log-ins after that", log_ins),
    ];
    println!();
    for (what, count) in rows {
        println!("{what:<36}{count:>8}");
    }
    println!();
}

fn verdict(tally: &Tally, counters: &Counters) -> Result<(), BoxError> {
    if counters.refresh_token_reuses > tally.unanswered.load(Relaxed) {
        return Err(
            "broken: more reuses of a refresh token than reports of an unknown outcome".into()
        );
    }
    if tally.adopted.load(Relaxed) == 0 {
        return Err("broken: no worker adopted the token of another one".into());
    }
    println!("no more reuses of a refresh token than reports of an unknown outcome");
    Ok(())
}
