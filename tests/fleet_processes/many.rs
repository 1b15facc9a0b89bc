//! One process of a fleet that serves many users: a pool, and requests of random users.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::watch;
use tower::{Service, ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::{Credentials, CredentialsPool, Event, RefreshLayer, RefreshPolicy};

use crate::place::Place;
use crate::steps::{SteppedSource, Steps};
use crate::worker::{Reporter, kind, say};

/// The users of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Users {
    /// A file with the first refresh token of each user, one a line.
    pub file: PathBuf,
    /// The number of requests in flight.
    pub senders: u64,
}

/// The pool of a process.
pub struct Many {
    pub pool: CredentialsPool<u64>,
    pub reporters: Arc<Vec<Reporter>>,
}

impl Many {
    pub fn new(place: &Place, token_endpoint: &str, first: Vec<String>) -> Self {
        let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let endpoint = TokenEndpoint::new(http, token_endpoint).unwrap();
        let reporters: Arc<Vec<_>> = Arc::new(first.iter().map(|_| Reporter::default()).collect());
        let (stores, told, number) = (place.stores(), Arc::clone(&reporters), first.len());
        // The lock of a user is held by a process that may be killed.
        let policy = RefreshPolicy::default()
            .timeout(Duration::from_secs(60))
            .backoff(Duration::from_millis(20), Duration::from_millis(100));
        let pool = CredentialsPool::builder(move |user: &u64| {
            let at = usize::try_from(*user).unwrap();
            let source = SteppedSource {
                source: RefreshTokenGrant::new(endpoint.clone(), first[at].as_str()),
                steps: Steps::new(None),
                reporter: told[at].clone(),
            };
            Credentials::builder(source).store(stores.of(*user)).policy(policy.clone())
        });
        Self { pool: pool.capacity(number).build(), reporters }
    }

    /// Notes which outcomes are reported as unknown.
    pub async fn listen(pool: CredentialsPool<u64>, reporters: Arc<Vec<Reporter>>) {
        let mut events = pool.subscribe();
        drop(pool);
        while let Some(named) = events.recv().await {
            let Some(reporter) = named.key.parse().ok().and_then(|user: usize| reporters.get(user))
            else {
                continue;
            };
            match named.event {
                Event::OutcomeUnknown { .. } => reporter.tells(true),
                Event::RefreshFailed { error, .. } if error.is_ambiguous() => reporter.tells(true),
                Event::Refreshed { .. } | Event::LoggedIn { .. } => reporter.tells(false),
                _ => {}
            }
        }
    }
}

pub async fn run(place: Place, token_endpoint: String, api: String, users: Users) {
    let first = std::fs::read_to_string(&users.file).unwrap();
    let first: Vec<_> = first.lines().map(str::to_owned).collect();
    let number = first.len() as u64;
    let Many { pool, reporters } = Many::new(&place, &token_endpoint, first);
    let listening = tokio::spawn(Many::listen(pool.clone(), reporters));
    let client = client(&pool, &api);

    let (ends, is_ended) = watch::channel(false);
    let (requests, accepted) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let senders = (0..users.senders).map(|sender| {
        let (client, is_ended, api) = (client.clone(), is_ended.clone(), api.clone());
        let (requests, accepted) = (Arc::clone(&requests), Arc::clone(&accepted));
        tokio::spawn(async move {
            // Each sender has its own order of the users, and all users have their turn.
            let start = u64::from(std::process::id()).wrapping_add(sender).wrapping_mul(7919);
            for n in 0_u64.. {
                if *is_ended.borrow() {
                    return;
                }
                let user = start.wrapping_add(n * users.senders) % number;
                requests.fetch_add(1, Relaxed);
                match send(client.clone(), &api, user).await {
                    Ok(()) => drop(accepted.fetch_add(1, Relaxed)),
                    Err((failure, message)) => {
                        say(&json!({ "failure": failure, "message": message, "user": user }));
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    });
    let senders: Vec<_> = senders.collect();
    say(&json!({ "did": "start" }));

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await.unwrap().is_some() {}
    let _ = ends.send(true);
    let _ = tokio::time::timeout(Duration::from_secs(60), join_all(senders)).await;
    let settled = pool.flush().await.is_ok();
    listening.abort();
    let counts = json!({
        "requests": requests.load(Relaxed), "accepted": accepted.load(Relaxed),
        "renewed": 0, "adopted": 0, "unanswered": 0, "unsaved": 0, "failed": 0,
    });
    say(&json!({ "counts": counts, "settled": settled }));
}

/// A client whose requests name their user as an extension.
pub fn client(
    pool: &CredentialsPool<u64>,
    api: &str,
) -> impl Service<
    Request<Full<Bytes>>,
    Response = http::Response<hyper::body::Incoming>,
    Error = tower_refresh::BoxError,
    Future: Send,
> + Clone
+ Send
+ 'static {
    let origin: http::Uri = api.parse().unwrap();
    let origin = format!("http://{}", origin.authority().unwrap());
    let layer = RefreshLayer::keyed(pool.clone(), |request| request.extensions().get().copied());
    ServiceBuilder::new()
        .layer(layer.origin(origin).unwrap())
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>())
}

/// Sends a request of a user. Returns the kind and the message of its failure.
pub async fn send<S>(client: S, api: &str, user: u64) -> Result<(), (String, String)>
where
    S: Service<
            Request<Full<Bytes>>,
            Response = http::Response<hyper::body::Incoming>,
            Error = tower_refresh::BoxError,
        >,
{
    let request = Request::get(api).extension(user).body(Full::default()).unwrap();
    match client.oneshot(request).await {
        Ok(response) if response.status() == StatusCode::OK => {
            let _ = response.into_body().collect().await;
            Ok(())
        }
        Ok(response) => Err((response.status().to_string(), String::new())),
        Err(error) => Err(match error.downcast_ref::<tower_refresh::TokenError>() {
            Some(error) => (kind(error).to_owned(), error.to_string()),
            None => ("transport".to_owned(), error.to_string()),
        }),
    }
}
