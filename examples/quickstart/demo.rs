//! The load, the faults and the checks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{ClientAuth, RefreshTokenGrant, TokenEndpoint};
use tower_refresh::store::FileStore;
use tower_refresh::testing::{AuthorizationServer, Counters, Fault};
use tower_refresh::{
    BoxError, Credentials, Event, Events, RefreshLayer, RefreshPolicy, TokenError,
};

const LIFETIME: Duration = Duration::from_secs(4);
const RUN: Duration = Duration::from_secs(8);
/// Not shortly after a refresh: a request that was already retried with the new token is not sent a third time.
const REVOCATION: Duration = Duration::from_millis(1000);
const OUTAGE_AFTER: Duration = Duration::from_millis(3500);
const WORKERS: usize = 300;

pub async fn run() -> Result<(), BoxError> {
    let folder = Folder::new()?;
    show(&folder.0.join("tokens.json")).await
}

async fn show(tokens: &Path) -> Result<(), BoxError> {
    // ===== the server: a token endpoint and an API, on loopback =====
    let server = AuthorizationServer::builder()
        .access_token_lifetime(LIFETIME)
        .client("quickstart", "s3cr3t: 100% odd&=")
        .build();
    let serving = server.serve().await?;

    // ===== a complete client =====
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let endpoint = TokenEndpoint::new(http.clone(), serving.url("/token"))?
        .client_auth(ClientAuth::basic("quickstart", "s3cr3t: 100% odd&="));
    let refresh_token = server.issue_refresh_token();
    let grant = RefreshTokenGrant::new(endpoint.clone(), refresh_token.clone());
    // Shorter than the defaults, because tokens live for four seconds.
    let policy = RefreshPolicy::default()
        .refresh_ahead(Duration::from_millis(2500))
        .backoff(Duration::from_millis(100), Duration::from_millis(300));
    let credentials =
        Credentials::builder(grant).store(FileStore::new(tokens)).policy(policy).build();
    let layer = RefreshLayer::new(credentials.clone()).origin(serving.origin())?;
    let client = ServiceBuilder::new().layer(layer).service(http);

    // ===== the load =====
    println!(
        "{WORKERS} workers send requests for {RUN:?}; tokens live {LIFETIME:?} and are refreshed in the background\n"
    );
    let start = Instant::now();
    let end = start + RUN;
    let outage = Arc::new(AtomicBool::new(false));
    let timeline = tokio::spawn(print(credentials.subscribe(), start, Arc::clone(&outage)));
    let tally = Arc::new(Tally::default());
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let client = client.clone();
            let tally = Arc::clone(&tally);
            let url = serving.url(&format!("/things/{worker}"));
            tokio::spawn(async move {
                // The workers do not all send at the same instant.
                sleep(Duration::from_millis(worker as u64 % 50)).await;
                while Instant::now() < end {
                    let request =
                        Request::post(&url).body(Full::from("a body that may be sent again"));
                    let response = match request {
                        Ok(request) => client.clone().oneshot(request).await,
                        Err(error) => Err(error.into()),
                    };
                    tally
                        .count(response.map(|response| {
                            let status = response.status();
                            (status, response.into_body())
                        }))
                        .await;
                    sleep(Duration::from_millis(50)).await;
                }
            })
        })
        .collect();

    // ===== the faults =====
    sleep_until(start + REVOCATION).await;
    say(start, "the server revokes the access token");
    server.revoke_all_access_tokens();

    sleep_until(start + OUTAGE_AFTER).await;
    let mut events = credentials.subscribe();
    while !matches!(events.recv().await, Some(Event::Refreshed { .. }) | None) {}
    sleep(Duration::from_millis(700)).await;
    say(start, "the token endpoint fails: 503");
    outage.store(true, Ordering::Relaxed);
    server.token_faults().always(Fault::unavailable());
    // Wait for a refresh that fails.
    let failure =
        async { while !matches!(events.recv().await, Some(Event::RefreshFailed { .. }) | None) {} };
    let _ = timeout_at(end, failure).await;
    server.token_faults().clear();
    say(start, "the token endpoint works again");

    for worker in workers {
        worker.await?;
    }
    credentials.flush().await?;
    timeline.abort();

    // ===== a restart: the configured refresh token is spent, the file has the current one =====
    let grant = RefreshTokenGrant::new(endpoint, refresh_token);
    let restarted = Credentials::builder(grant).store(FileStore::new(tokens)).build();
    restarted.tokens().await?;
    say(start, "after a restart, the tokens are read from the file");
    restarted.refresh().await?;
    say(start, "the token is refreshed");

    let counters = server.counters();
    report(&tally, &counters);
    verdict(&tally, &counters)
}

/// A folder that only this user can open, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, BoxError> {
        let name = format!("tower-refresh-quickstart-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut folder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
        folder.create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

// ===== the result =====

#[derive(Default)]
struct Tally {
    requests: AtomicU64,
    accepted: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    async fn count<B>(&self, response: Result<(StatusCode, B), BoxError>)
    where
        B: http_body::Body,
        B::Error: Into<BoxError>,
    {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let counter = match response {
            Ok((status, body)) => match body.collect().await {
                Ok(_) if status.is_success() => &self.accepted,
                Ok(_) => &self.rejected,
                Err(_) => &self.failed,
            },
            Err(error) => {
                if let Some(error) = error.downcast_ref::<TokenError>() {
                    eprintln!("not sent: {error}");
                }
                &self.failed
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn say(start: Instant, what: &str) {
    println!("{:6.2} s  {what}", start.elapsed().as_secs_f64());
}

async fn print(mut events: Events, start: Instant, outage: Arc<AtomicBool>) {
    while let Some(event) = events.recv().await {
        match event {
            Event::RefreshStarted { cause, .. } => {
                say(start, &format!("  refresh started: {cause:?}"))
            }
            Event::Refreshed { generation, .. } => {
                say(start, &format!("  refresh landed: token {generation} for all requests"));
            }
            Event::RefreshFailed { error, retry_in, .. } => {
                say(
                    start,
                    &format!(
                        "  refresh failed: {error}; again in {:.0?}",
                        retry_in.unwrap_or_default()
                    ),
                );
                if outage.load(Ordering::Relaxed) {
                    say(start, "  the current token still works and is used");
                }
            }
            event => say(start, &format!("  {event:?}")),
        }
    }
}

fn report(tally: &Tally, counters: &Counters) {
    let rows = [
        ("requests", tally.requests.load(Ordering::Relaxed)),
        ("responses: accepted", tally.accepted.load(Ordering::Relaxed)),
        ("responses: other", tally.rejected.load(Ordering::Relaxed)),
        ("401s that the server returned", counters.resource_requests_unauthorized),
        ("refreshes", counters.token_requests_granted),
        ("refreshes that failed", counters.token_requests - counters.token_requests_granted),
        ("refreshes at the same time, at most", counters.max_concurrent_token_requests),
        ("refresh-token reuses", counters.refresh_token_reuses),
        ("connections", counters.connections),
        ("requests that failed", tally.failed.load(Ordering::Relaxed)),
    ];
    println!();
    for (what, count) in rows {
        println!("{what:<36}{count:>8}");
    }
    println!();
}

fn verdict(tally: &Tally, counters: &Counters) -> Result<(), BoxError> {
    let mut broken = Vec::new();
    let mut promise = |kept: bool, what: &'static str| {
        if !kept {
            broken.push(what);
        }
    };
    promise(tally.requests.load(Ordering::Relaxed) > 1000, "more than 1000 requests were sent");
    promise(tally.failed.load(Ordering::Relaxed) == 0, "no request fails");
    promise(tally.rejected.load(Ordering::Relaxed) == 0, "every rejected request is retried");
    promise(counters.resource_requests_unauthorized > 0, "the revocation was noticed");
    promise(counters.refresh_token_reuses == 0, "no refresh token is sent twice");
    promise(counters.families_revoked == 0, "the session is not ended");
    promise(counters.max_concurrent_token_requests == 1, "one refresh at a time");
    // At least one every four seconds. Refreshing ahead shortens that by up to two thirds. The revocation and the restart add two.
    promise((4..=12).contains(&counters.token_requests_granted), "one refresh for each expiry");
    promise(counters.token_requests > counters.token_requests_granted, "the outage was noticed");
    if broken.is_empty() {
        println!("every check passed");
        return Ok(());
    }
    Err(format!("broken: {}", broken.join("; ")).into())
}
