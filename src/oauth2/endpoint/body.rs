//! The body of an answer.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::decode::{decode, too_long};
use crate::error::BoxError;
use crate::oauth2::dialect::Dialect;
use crate::oauth2::lenient::is_json;
use crate::oauth2::response::is_whole;
use crate::oauth2::scrub::Secrets;
use crate::oauth2::wiped::append;

/// The part of a body that was read.
pub(super) struct Reading {
    bytes: Zeroizing<Vec<u8>>,
    limit: usize,
}

impl Reading {
    pub(super) fn new(limit: usize) -> Self {
        let bytes = Zeroizing::new(Vec::with_capacity(limit.min(8 * 1024)));
        Self { bytes, limit }
    }

    /// Reads a body to its end. An error is the reason why that failed.
    ///
    /// `is_answer` decides whether JSON is complete although the body does not end: another object may come before the answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future keeps the bytes that were read.
    pub(super) async fn read(
        &mut self,
        mut body: UnsyncBoxBody<Bytes, BoxError>,
        is_answer: impl Fn(&[u8]) -> bool,
        secrets: &Secrets,
    ) -> Result<(), String> {
        loop {
            let frame = if is_json(&self.bytes) {
                // A server that announces too great a length would otherwise delay the answer.
                match timeout(PAUSE, body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) if is_answer(&self.bytes) => return Ok(()),
                    Err(_) => body.frame().await,
                }
            } else {
                body.frame().await
            };
            let Some(frame) = frame else {
                return Ok(());
            };
            let frame =
                frame.map_err(|error| format!("was cut off: {}", secrets.describe(&*error)))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if data.len() > self.limit.saturating_sub(self.bytes.len()) {
                return Err(too_long(self.limit));
            }
            append(&mut self.bytes, &data);
        }
    }

    /// Returns the decoded body. An error is the reason why it cannot be used.
    ///
    /// `end` is the result of [`read`](Self::read). A complete JSON object is used even if the body has no proper end, also
    /// after other text. A form needs a proper end.
    pub(super) fn finish(
        self,
        end: Result<(), String>,
        headers: &HeaderMap,
        dialect: &Dialect,
        secrets: &Secrets,
    ) -> Result<Zeroizing<Vec<u8>>, String> {
        let decoded = decode(self.bytes, headers, self.limit, secrets)?;
        match end.and(decoded.end) {
            Err(why) if !is_whole(&decoded.bytes, dialect) => Err(why),
            _ => Ok(decoded.bytes),
        }
    }
}

/// How long to wait for more of a body before checking whether the JSON in it is complete.
const PAUSE: Duration = Duration::from_secs(1);
