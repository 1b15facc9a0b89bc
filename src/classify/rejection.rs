//! The rejection of a token, as far as the credentials report it.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::challenge::Challenge;

/// The rejection of a token. Without a response, all of it is unknown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rejection {
    /// The origin of the request, without userinfo.
    pub(crate) origin: Option<Arc<str>>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) challenge: Option<Challenge>,
}

impl Rejection {
    pub(crate) fn new<B>(response: &Response<B>, origin: Option<Arc<str>>) -> Self {
        let challenge = Challenge::for_source(response.headers());
        Self { origin, status: Some(response.status()), challenge }
    }

    /// Returns the error code of the challenge (RFC 6750 §3.1), or an ellipsis for a text that may repeat the token.
    pub(crate) fn error(&self) -> Option<&str> {
        let code = self.challenge.as_ref()?.error()?;
        let is_code = code.len() <= 32
            && code.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_' | b'-' | b'.'));
        Some(if is_code { code } else { "…" })
    }
}
