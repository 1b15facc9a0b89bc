//! One process of the fleet. It prints a line for each event.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::sleep;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::store::RedisStore;
use tower_refresh::{BoxError, Credentials, Event, Events, RefreshLayer, RefreshPolicy};

/// The configuration of a worker: a line of JSON on its standard input, because other users can read arguments and environments.
#[derive(Clone, Serialize, Deserialize)]
pub struct Orders {
    pub redis: String,
    pub key: String,
    /// The origin of the token endpoint and the API.
    pub origin: String,
    pub refresh_token: String,
}

/// Sends requests until standard input is closed.
pub async fn run() -> Result<(), BoxError> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let orders = lines.next_line().await?.ok_or("workers are started by the `fleet` program")?;
    let Orders { redis, key, origin, refresh_token } = serde_json::from_str(&orders)?;

    // ===== a complete client; for https, use hyper-rustls' connector =====
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let endpoint = TokenEndpoint::new(http.clone(), format!("{origin}/token"))?;
    let grant = RefreshTokenGrant::new(endpoint, refresh_token);
    // Shorter than the default, because workers are killed while they hold the lock.
    let store = RedisStore::new(redis, key)?.lease(Duration::from_secs(1));
    // Shorter than the default, because tokens live for half a second.
    let policy =
        RefreshPolicy::default().backoff(Duration::from_millis(50), Duration::from_millis(200));
    let credentials = Credentials::builder(grant).store(store).policy(policy).build();
    let layer = RefreshLayer::new(credentials.clone()).origin(&origin)?;
    let client = ServiceBuilder::new().layer(layer).service(http);

    // ===== requests =====
    tokio::spawn(print(credentials.subscribe()));
    let requests = tokio::spawn(async move {
        loop {
            let request = Request::get(format!("{origin}/notes")).body(Full::default())?;
            println!("request");
            match client.clone().oneshot(request).await {
                Ok(response) if response.status().is_success() => {
                    response.into_body().collect().await?;
                }
                Ok(response) => println!("failed: {}", response.status()),
                Err(error) => println!("failed: {error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
        #[allow(unreachable_code, reason = "gives the block its error type")]
        Ok::<(), BoxError>(())
    });
    while lines.next_line().await?.is_some() {}
    requests.abort();
    credentials.flush().await?;
    Ok(())
}

/// Prints a line for each event.
async fn print(mut events: Events) {
    while let Some(event) = events.recv().await {
        match event {
            Event::FoundInStore => println!("adopted"),
            Event::OutcomeUnknown { error, .. } => println!("unanswered: {error}"),
            Event::RefreshFailed { error, .. } if error.is_denied() => println!("denied: {error}"),
            _ => {}
        }
    }
}
