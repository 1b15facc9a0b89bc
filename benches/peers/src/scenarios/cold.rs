//! 1,000 requests at once, without a token. The time includes the constructor, in which some peers request the token.

use std::time::Duration;

use http::StatusCode;

use super::Crowd;
use crate::api::Api;
use crate::endpoint::{Behaviour, Endpoint};
use crate::peer::{BoxError, Peer};
use crate::report::Event;

pub const REQUESTS: usize = 1_000;
pub const LATENCY: Duration = Duration::from_millis(50);

pub async fn run<P: Peer>() -> Result<Event, BoxError> {
    let endpoint = Endpoint::start(Behaviour { latency: LATENCY, status: StatusCode::OK }).await?;
    let mut crowd = Crowd::new();
    let peer = P::connect(endpoint.url(), Api::new()).await?;
    crowd.send(&peer, REQUESTS);
    Ok(crowd.finish(&endpoint).await)
}
