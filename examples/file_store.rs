//! Two processes that share one refresh token through a file. Run it in two terminals:
//!
//! ```text
//! cargo run --example file_store --features file-store,hyper-util,testing [-- SECONDS]
//! ```
//!
//! The first process also runs the authorization server and the API, and begins a session. The second process finds the file and
//! uses the tokens that the first has obtained. From then on, either process refreshes the token and the other one adopts it. Stop
//! the second with Ctrl-C or `kill -9` and start it again. `SECONDS` is how long a process runs, by default 6.
#![allow(clippy::disallowed_methods, reason = "a program, whose clock is the real one")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::time::sleep;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::store::FileStore;
use tower_refresh::testing::{AuthorizationServer, Serving};
use tower_refresh::{BoxError, Credentials, Event, Events, RefreshLayer};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let seconds = match std::env::args().nth(1) {
        Some(seconds) => seconds.parse().map_err(|_| "usage: file_store [SECONDS]")?,
        None => 6,
    };
    let folder = std::env::temp_dir().join("tower-refresh-example");
    fs::create_dir_all(&folder)?;
    let (found, server) = find_or_start_a_server(&folder).await?;

    // ===== a complete client; for https, use hyper-rustls' connector =====
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let endpoint = TokenEndpoint::new(http.clone(), format!("{}/token", found.origin))?;
    // The same configuration in every process. It is sent once; later refresh tokens come from the file.
    let grant = RefreshTokenGrant::new(endpoint, found.refresh_token);
    let store = FileStore::new(folder.join("tokens.json"));
    let credentials = Credentials::builder(grant).store(store).build();
    let layer = RefreshLayer::new(credentials.clone()).origin(&found.origin)?;
    let client = ServiceBuilder::new().layer(layer).service(http);

    // ===== requests =====
    let mut seen = Seen::new(credentials.subscribe());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        let request = Request::get(format!("{}/notes", found.origin)).body(Full::default())?;
        let response = client.clone().oneshot(request).await?;
        seen.print(began);
        if !response.status().is_success() {
            return Err(format!("the API returned {}", response.status()).into());
        }
        // Read to the end, so that the connection can be reused.
        response.into_body().collect().await?;
        seen.requests += 1;
        sleep(Duration::from_millis(100)).await;
    }
    // Saves tokens that have not been saved, or returns the reason why they are lost.
    credentials.flush().await?;
    println!(
        "{} requests; {} tokens refreshed here, {} adopted",
        seen.requests, seen.renewed, seen.adopted
    );

    match server {
        Some(server) => server.serve_until_idle().await,
        None => Ok(()),
    }
}

// ===== events =====

struct Seen {
    events: Events,
    requests: u64,
    renewed: u64,
    adopted: u64,
}

impl Seen {
    fn new(events: Events) -> Self {
        Self { events, requests: 0, renewed: 0, adopted: 0 }
    }

    /// Prints the events since the last call.
    fn print(&mut self, began: Instant) {
        let mut is_adopted = false;
        while let Some(Some(event)) = self.events.recv().now_or_never() {
            let what = match event {
                Event::FoundInStore => {
                    is_adopted = true;
                    continue;
                }
                Event::Refreshed { .. } if std::mem::take(&mut is_adopted) => {
                    self.adopted += 1;
                    "adopted the token of the other process".to_owned()
                }
                Event::Refreshed { .. } => {
                    self.renewed += 1;
                    "refreshed, and saved for the other process".to_owned()
                }
                // The other process was killed after it sent the refresh token and before it saved the next.
                Event::OutcomeUnknown { error, .. } | Event::RefreshFailed { error, .. } => {
                    error.to_string()
                }
                _ => continue,
            };
            println!("{:5.1} s  {what}", began.elapsed().as_secs_f64());
        }
    }
}

// ===== the server =====

/// The configuration that the processes share.
struct Found {
    origin: String,
    refresh_token: String,
}

/// The server, in the first process.
struct Server {
    server: AuthorizationServer,
    _serving: Serving,
    /// Held while the server runs.
    _lock: File,
}

async fn find_or_start_a_server(folder: &Path) -> Result<(Found, Option<Server>), BoxError> {
    let lock = File::create(folder.join("server.lock"))?;
    let described: PathBuf = folder.join("server.json");
    if lock.try_lock().is_err() {
        println!("using the server of the first process");
        // The first process may still be starting.
        for _ in 0..50 {
            if let Ok(json) = fs::read(&described)
                && let Ok(json) = serde_json::from_slice::<Value>(&json)
            {
                let field = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
                let found =
                    Found { origin: field("origin"), refresh_token: field("refresh_token") };
                return Ok((found, None));
            }
            sleep(Duration::from_millis(100)).await;
        }
        return Err("the first process has not written the address of its server".into());
    }

    println!("first process: serving the authorization server and the API");
    // Tokens of an earlier run belong to another server.
    for file in [&described, &folder.join("tokens.json")] {
        match fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    let server =
        AuthorizationServer::builder().access_token_lifetime(Duration::from_secs(2)).build();
    let serving = server.serve().await?;
    let found = Found {
        origin: serving.origin(),
        refresh_token: server.issue_refresh_token().expose_secret().to_owned(),
    };
    let json = json!({ "origin": found.origin, "refresh_token": found.refresh_token });
    let draft = folder.join("server.json.new");
    fs::write(&draft, json.to_string())?;
    fs::rename(draft, described)?;
    Ok((found, Some(Server { server, _serving: serving, _lock: lock })))
}

impl Server {
    async fn serve_until_idle(self) -> Result<(), BoxError> {
        let mut requests = 0;
        while requests != self.server.counters().resource_requests {
            requests = self.server.counters().resource_requests;
            sleep(Duration::from_secs(1)).await;
        }
        let counters = self.server.counters();
        println!(
            "the server counted {requests} requests, {} token requests and {} reuses of a refresh token",
            counters.token_requests, counters.refresh_token_reuses
        );
        match counters.refresh_token_reuses {
            0 => Ok(()),
            _ => Err("broken: a refresh token was sent twice".into()),
        }
    }
}
