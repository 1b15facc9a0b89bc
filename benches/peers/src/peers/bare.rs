//! No layer: the request alone, whose time is subtracted from that of the others.

use http::StatusCode;

use crate::api::{self, Api, request};
use crate::peer::{About, BoxError, Fetches, Peer};

#[derive(Clone)]
pub struct NoLayer {
    api: Api,
}

impl Peer for NoLayer {
    const ABOUT: About = About { name: "no layer", fetches: Fetches::Never, ..About::DEFAULT };

    async fn connect(_: &str, api: Api) -> Result<Self, BoxError> {
        Ok(Self { api })
    }

    async fn send(&mut self, headers: usize) -> Result<StatusCode, BoxError> {
        api::send(&mut self.api, request(headers)).await
    }
}
