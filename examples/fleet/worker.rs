//! One process of the fleet: what a program would be, but for the lines that it prints.

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
use tower_refresh::store::{RedisStore, Stored};
use tower_refresh::{BoxError, Credentials, Event, Events, RefreshLayer, RefreshPolicy};

/// What a worker is told, in a line of JSON on its standard input: arguments and environments can be seen by others.
#[derive(Clone, Serialize, Deserialize)]
pub struct Orders {
    pub redis: String,
    pub key: String,
    /// Of the server.
    pub origin: String,
    pub refresh_token: String,
}

/// Works until standard input ends.
pub async fn run() -> Result<(), BoxError> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let orders = lines.next_line().await?.ok_or("a worker is started by the fleet")?;
    let Orders { redis, key, origin, refresh_token } = serde_json::from_str(&orders)?;

    // ===== all that a program needs; with hyper-rustls' connector for https =====
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let endpoint = TokenEndpoint::new(http.clone(), format!("{origin}/token"))?;
    let grant = RefreshTokenGrant::new(endpoint, refresh_token);
    // One second, so that a worker that was killed is not waited for as long as by default.
    let store = RedisStore::new(redis, key)?.lease(Duration::from_secs(1));
    // Tokens of half a second want shorter pauses than the default ones.
    let policy =
        RefreshPolicy::default().backoff(Duration::from_millis(50), Duration::from_millis(200));
    let credentials = Credentials::with_policy(Stored::new(grant, store), policy);
    let layer = RefreshLayer::with_credentials(credentials.clone()).origin(&origin);
    let client = ServiceBuilder::new().layer(layer).service(http);

    // ===== requests =====
    tokio::spawn(tell(credentials.subscribe()));
    let requests = tokio::spawn(async move {
        loop {
            let request = Request::get(format!("{origin}/notes")).body(Full::default())?;
            println!("request");
            match client.clone().oneshot(request).await {
                Ok(answer) if answer.status().is_success() => {
                    answer.into_body().collect().await?;
                }
                Ok(answer) => println!("failed: {}", answer.status()),
                Err(error) => println!("failed: {error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
        #[allow(unreachable_code, reason = "the type of its errors")]
        Ok::<(), BoxError>(())
    });
    while lines.next_line().await?.is_some() {}
    requests.abort();
    credentials.flush().await?;
    Ok(())
}

/// Says what happens, a word a line.
async fn tell(mut events: Events) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Refreshed { .. } => println!("renewed"),
            Event::FoundInStore => println!("adopted"),
            Event::OutcomeUnknown { error, .. } => println!("unanswered: {error}"),
            Event::RefreshFailed { error, .. } if error.is_denied() => println!("denied: {error}"),
            _ => {}
        }
    }
}
