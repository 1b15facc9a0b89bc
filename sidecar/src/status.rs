//! The response to `GET /-/status`. It never contains the token.

use std::fmt;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use http_body_util::{Either, Full};
use serde_json::json;
use tower_refresh::{Event, Events, Status};

use crate::answer::{AnswerBody, token_error_kind};

#[derive(Default)]
pub struct Counters {
    /// Requests that the API has answered.
    answered: AtomicU64,
    /// Requests to which the sidecar responded instead of the API.
    refused: AtomicU64,
    renewed: AtomicU64,
    /// Refreshes by other sidecars with the same configuration, or by this one before its start.
    adopted: AtomicU64,
    not_renewed: AtomicU64,
    /// The last `sidecar-error`.
    last_error: ArcSwapOption<&'static str>,
}

impl Counters {
    pub fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    pub fn refused(&self, kind: &'static str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.last_error.store(Some(kind.into()));
    }

    /// Counts refreshes and logs their failures. Ends with the credentials.
    pub async fn count(&self, mut events: Events) {
        let mut is_adopted = false;
        while let Some(event) = events.recv().await {
            match event {
                // The next token set to be issued.
                Event::FoundInStore => is_adopted = true,
                Event::Refreshed { .. } => {
                    let counter = if is_adopted { &self.adopted } else { &self.renewed };
                    counter.fetch_add(1, Ordering::Relaxed);
                    is_adopted = false;
                }
                Event::RefreshFailed { error, .. } => {
                    complain(&error);
                    self.not_renewed.fetch_add(1, Ordering::Relaxed);
                }
                Event::Unsaved { error, .. } => {
                    complain(&format_args!("the newest tokens are not saved yet: {error}"));
                }
                Event::Saved => complain(&"the newest tokens are saved now"),
                Event::OutcomeUnknown { error, .. } => complain(&error),
                _ => {}
            }
        }
    }

    pub fn report(&self, api: &str, token: &Status) -> Response<AnswerBody> {
        let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs());
        let report = json!({
            "api": api,
            "token": {
                "state": token.token.to_string(),
                "generation": token.generation,
                "usable_for_seconds": seconds(token.usable_for),
                "refreshing": token.refreshing,
                "error": token.error.as_ref().map(token_error_kind),
                "backoff_seconds": seconds(token.backoff),
                "rejection_backoff_seconds": seconds(token.rejection_backoff),
            },
            "refreshes": {
                "succeeded": self.renewed.load(Ordering::Relaxed),
                "adopted": self.adopted.load(Ordering::Relaxed),
                "failed": self.not_renewed.load(Ordering::Relaxed),
            },
            "requests": {
                "answered": self.answered.load(Ordering::Relaxed),
                "refused": self.refused.load(Ordering::Relaxed),
                "last_error": self.last_error.load().as_deref(),
            },
        });
        let mut response =
            Response::new(Either::Right(Full::<Bytes>::from(format!("{report:#}\n"))));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Writes a line to standard error. Unlike `eprintln` it does not panic if that is closed.
pub fn complain(of: &dyn fmt::Display) {
    let _ = writeln!(io::stderr(), "sidecar: {of}");
}
