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
use crate::oauth2::response::is_whole;
use crate::oauth2::scrub::Secrets;
use crate::oauth2::wiped::append;

/// The part of a body that was read.
pub(super) struct Reading {
    bytes: Zeroizing<Vec<u8>>,
    json: JsonEnd,
    limit: usize,
}

impl Reading {
    pub(super) fn new(limit: usize) -> Self {
        let bytes = Zeroizing::new(Vec::with_capacity(limit.min(8 * 1024)));
        Self { bytes, json: JsonEnd::default(), limit }
    }

    /// Reads a body to its end. An error is the reason why that failed.
    ///
    /// `is_answer` decides about JSON that is complete although the body does not end: another object may come before the
    /// answer.
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
            let frame = if self.json == JsonEnd::Closed {
                // A server that announces too great a length would otherwise delay the answer.
                match timeout(END_LIMIT, body.frame()).await {
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
            self.json = self.json.after(&data);
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
        let is_whole = |body: &[u8]| match JsonEnd::of(body) {
            JsonEnd::Closed => true,
            JsonEnd::Other => is_whole(body, dialect),
            _ => false,
        };
        match end.and(decoded.end) {
            Err(why) if !is_whole(&decoded.bytes) => Err(why),
            _ => Ok(decoded.bytes),
        }
    }
}

/// Where in a JSON object or array a text ends. The parser decides whether the text is JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum JsonEnd {
    /// Before the first brace.
    #[default]
    Before,
    /// Inside this many braces and brackets.
    Inside(usize),
    /// In a string.
    String(usize),
    /// In a string, after a backslash.
    Escape(usize),
    /// After the last brace.
    Closed,
    /// In other text.
    Other,
}

impl JsonEnd {
    fn of(text: &[u8]) -> Self {
        Self::default().after(text)
    }

    fn after(self, text: &[u8]) -> Self {
        text.iter().fold(self, |state, byte| match (state, byte) {
            // The last three are a byte order mark.
            (Self::Before, b' ' | b'\t' | b'\r' | b'\n' | 0xef | 0xbb | 0xbf) => Self::Before,
            (Self::Before, b'{' | b'[') => Self::Inside(1),
            (Self::Before, _) => Self::Other,
            (Self::Inside(depth), b'{' | b'[') => Self::Inside(depth + 1),
            (Self::Inside(1), b'}' | b']') => Self::Closed,
            (Self::Inside(depth), b'}' | b']') => Self::Inside(depth - 1),
            (Self::Inside(depth), b'"') => Self::String(depth),
            (Self::String(depth), b'"') => Self::Inside(depth),
            (Self::String(depth), b'\\') => Self::Escape(depth),
            (Self::Escape(depth), _) => Self::String(depth),
            (state, _) => state,
        })
    }
}

/// How long to wait for the end of a body after the end of the JSON in it.
const END_LIMIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault A60.
    #[test]
    fn json_is_complete_only_when_its_last_brace_is_closed() {
        let object = r#" {"a":"b}\"{","c":[{"d":"\\"}],"e":1} "#;
        let closed = object.trim_end().len();
        for at in 0..=object.len() {
            let is_closed = JsonEnd::of(&object.as_bytes()[..at]) == JsonEnd::Closed;
            assert_eq!(is_closed, at >= closed, "{at}");
        }
        for complete in ["\u{feff}{}", "[{}]", "{}<!-- 3 ms -->"] {
            assert_eq!(JsonEnd::of(complete.as_bytes()), JsonEnd::Closed, "{complete}");
        }
        for other in ["a=b&c={}", "<html>{}", "\"{}\"", "", "null"] {
            assert_ne!(JsonEnd::of(other.as_bytes()), JsonEnd::Closed, "{other}");
        }
    }
}
