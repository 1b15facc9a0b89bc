//! 100 requests are sent with one token. Their 401s arrive one after another, so that all but the first find a newer token.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{sleep, timeout};

use super::{Crowd, LIMIT};
use crate::api::{Api, Hold};
use crate::endpoint::{Behaviour, Endpoint};
use crate::peer::{BoxError, Peer};
use crate::report::Event;

pub const REQUESTS: u32 = 100;

pub async fn run<P: Peer>() -> Result<Event, BoxError> {
    let latency = Duration::from_millis(5);
    let endpoint = Endpoint::start(Behaviour { latency, status: StatusCode::OK }).await?;
    let hold = Hold::new(REQUESTS as usize);
    let mut peer = P::connect(endpoint.url(), Api::holding(hold.clone())).await?;
    if peer.send(0).await? != StatusCode::OK {
        return Err("the first request is not accepted".into());
    }
    let before = endpoint.calls();

    hold.arm();
    let mut crowd = Crowd::new();
    crowd.send(&peer, REQUESTS as usize);
    timeout(LIMIT, hold.arrived(REQUESTS)).await?;
    for _ in 0..REQUESTS {
        hold.release_one();
        if !crowd.one().await {
            break;
        }
        // A peer may return the 401 and refresh in the background: the next 401 arrives after that.
        sleep(2 * latency).await;
    }
    let mut event = crowd.finish(&endpoint).await;
    event.token_requests -= before;
    Ok(event)
}
