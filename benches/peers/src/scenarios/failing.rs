//! 100 requests at once, without a token, while the token endpoint answers with 503.

use http::StatusCode;

use super::Crowd;
use super::cold::LATENCY;
use crate::api::Api;
use crate::endpoint::{Behaviour, Endpoint};
use crate::peer::{BoxError, Peer};
use crate::report::Event;

pub const REQUESTS: usize = 100;

pub async fn run<P: Peer>() -> Result<Event, BoxError> {
    let behaviour = Behaviour { latency: LATENCY, status: StatusCode::SERVICE_UNAVAILABLE };
    let endpoint = Endpoint::start(behaviour).await?;
    let mut crowd = Crowd::new();
    if let Ok(peer) = P::connect(endpoint.url(), Api::new()).await {
        crowd.send(&peer, REQUESTS);
        return Ok(crowd.finish(&endpoint).await);
    }
    let mut event = crowd.finish(&endpoint).await;
    event.failed = REQUESTS;
    event.note = Some("the constructor fails");
    Ok(event)
}
