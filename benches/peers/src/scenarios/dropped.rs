//! The request that leads to the token request is dropped while that is in flight, and 10 others wait.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{sleep, timeout};

use super::{Crowd, LIMIT};
use crate::api::Api;
use crate::endpoint::{Behaviour, Endpoint};
use crate::peer::{BoxError, Peer};
use crate::report::Event;

pub const OTHERS: usize = 10;
pub const LATENCY: Duration = Duration::from_millis(200);

pub async fn run<P: Peer>() -> Result<Event, BoxError> {
    let endpoint = Endpoint::start(Behaviour { latency: LATENCY, status: StatusCode::OK }).await?;
    let peer = P::connect(endpoint.url(), Api::new()).await?;

    let mut first = peer.clone();
    let first = tokio::spawn(async move { first.send(0).await });
    timeout(LIMIT, endpoint.called()).await?;
    let mut crowd = Crowd::new();
    crowd.send(&peer, OTHERS);
    // They wait for the token request, or for a lock.
    sleep(LATENCY / 4).await;
    first.abort();
    if first.await.is_ok() {
        return Err("the first request was not dropped in time".into());
    }
    Ok(crowd.finish(&endpoint).await)
}
