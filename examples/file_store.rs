//! Two processes that share one refresh token through a file. Run it in two terminals:
//!
//! ```text
//! cargo run --example file_store --features file-store,hyper-util,testing [-- SECONDS]
//! ```
//!
//! The first one also plays the authorization server and the API, and begins a session. The second one finds both, and the
//! file, in the same place, and uses what the first has obtained. From then on whoever is first renews the token, and the
//! other one adopts it; stop one with Ctrl-C (the second, say) or `kill -9` it, and start it again. Alone it runs for 6
//! seconds, or as long as it is told to.
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
use tower_refresh::store::{FileStore, Stored};
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

    // ===== all that a program needs; with hyper-rustls' connector for https =====
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let endpoint = TokenEndpoint::new(http.clone(), format!("{}/token", found.origin))?;
    // What it was configured with, in every process: it is sent once, and then the file knows better.
    let grant = RefreshTokenGrant::new(endpoint, found.refresh_token);
    let store = FileStore::new(folder.join("tokens.json"));
    let credentials = Credentials::new(Stored::new(grant, store));
    let layer = RefreshLayer::with_credentials(credentials.clone()).origin(&found.origin);
    let client = ServiceBuilder::new().layer(layer).service(http);

    // ===== requests =====
    let mut seen = Seen::new(credentials.subscribe());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        let request = Request::get(format!("{}/notes", found.origin)).body(Full::default())?;
        let answer = client.clone().oneshot(request).await?;
        seen.tell(began);
        if !answer.status().is_success() {
            return Err(format!("the API answered {}", answer.status()).into());
        }
        // Read to its end, so that the connection serves the next request.
        answer.into_body().collect().await?;
        seen.requests += 1;
        sleep(Duration::from_millis(100)).await;
    }
    // What could not be saved yet is saved now, or this says why it is lost.
    credentials.flush().await?;
    println!(
        "{} requests; {} tokens renewed here, {} adopted",
        seen.requests, seen.renewed, seen.adopted
    );

    match server {
        Some(server) => server.serve_the_others().await,
        None => Ok(()),
    }
}

// ===== what happens =====

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

    /// Says what has happened since it was last asked.
    fn tell(&mut self, began: Instant) {
        let mut is_adopted = false;
        while let Some(Some(event)) = self.events.recv().now_or_never() {
            let what = match event {
                Event::FoundInStore => {
                    is_adopted = true;
                    continue;
                }
                Event::Refreshed { .. } if std::mem::take(&mut is_adopted) => {
                    self.adopted += 1;
                    "adopted what the other one renewed".to_owned()
                }
                Event::Refreshed { .. } => {
                    self.renewed += 1;
                    "renewed, and saved for the other one".to_owned()
                }
                // The other one was killed between the two: see what `Stored` does about it.
                Event::OutcomeUnknown { error, .. } | Event::RefreshFailed { error, .. } => {
                    error.to_string()
                }
                _ => continue,
            };
            println!("{:5.1} s  {what}", began.elapsed().as_secs_f64());
        }
    }
}

// ===== a server to try it on =====

/// What another process needs to know.
struct Found {
    origin: String,
    refresh_token: String,
}

/// The server, in the process that plays it.
struct Server {
    server: AuthorizationServer,
    _serving: Serving,
    /// Tells the others that it runs.
    _lock: File,
}

async fn find_or_start_a_server(folder: &Path) -> Result<(Found, Option<Server>), BoxError> {
    let lock = File::create(folder.join("server.lock"))?;
    let described: PathBuf = folder.join("server.json");
    if lock.try_lock().is_err() {
        println!("using the server of the process that was first");
        // It may be starting itself.
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
        return Err("the process that was first does not say where its server is".into());
    }

    println!("the first: serving the authorization server and the API");
    // What an earlier server has issued is worth nothing here, and the store would say so.
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
    async fn serve_the_others(self) -> Result<(), BoxError> {
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
            _ => Err("broken: a refresh token is spent once".into()),
        }
    }
}
