//! One fault: the answer that a request gets instead of the normal one.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio::time::sleep;

use super::body::{ConnectionDropped, Pieces, ResponseBody};

/// A fault for one request.
///
/// Begin with an answer: [`status`](Self::status), [`unavailable`](Self::unavailable), [`oauth_error`](Self::oauth_error),
/// [`drop_connection`](Self::drop_connection) or [`hang`](Self::hang) replace the normal answer, and [`normal`](Self::normal) keeps
/// it. Then add how and when it is sent. Order the fault through [`Faults`](super::Faults).
///
/// # Before or after processing
///
/// By default, a replaced answer means that the request was *not* processed: no token is spent or issued, and the client can send
/// the same request again. With [`after_processing`](Self::after_processing), the request is processed and only its answer is lost:
/// a rotating refresh token is spent, and a client that sends it again looks like a thief.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use http::StatusCode;
/// use tower_refresh::testing::Fault;
///
/// // The answer arrives 300 ms late.
/// Fault::normal().delay(Duration::from_millis(300));
/// // A proxy loses the answer to a request that was processed.
/// Fault::status(StatusCode::BAD_GATEWAY).body("<h1>Bad gateway</h1>").after_processing();
/// // The connection ends after the refresh token was spent.
/// Fault::drop_connection().after_processing();
/// // Maintenance.
/// Fault::unavailable().retry_after(Duration::from_secs(2));
/// ```
#[doc(alias = "failure")]
#[doc(alias = "chaos")]
#[derive(Clone)]
#[must_use = "a fault has no effect until it is ordered, as with `server.token_faults().once(fault)`"]
pub struct Fault {
    answer: Answer,
    headers: HeaderMap,
    body: Bytes,
    /// True if an empty body is that of an outage, unless the request was processed.
    is_outage: bool,
    after_processing: bool,
    only_if: Option<StatusCode>,
    delay: Duration,
    body_delay: Duration,
    pieces: Option<Pieces>,
    is_truncated: bool,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Normal,
    /// This status, with `headers` and `body`.
    Status(StatusCode),
    /// The connection is closed.
    Dropped,
    /// The connection stays open.
    Never,
}

impl Fault {
    /// Returns the normal answer, to be sent [late](Self::delay), [in pieces](Self::drip) or [truncated](Self::truncate).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_refresh::testing::{AuthorizationServer, Fault};
    ///
    /// let server = AuthorizationServer::new();
    /// server.token_faults().once(Fault::normal().delay(Duration::from_millis(300)));
    /// ```
    pub fn normal() -> Self {
        Self::new(Answer::Normal)
    }

    /// Answers with this status. Add [headers](Self::header) and a [body](Self::body) as needed.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::StatusCode;
    /// use tower_refresh::testing::{AuthorizationServer, Fault};
    ///
    /// let server = AuthorizationServer::new();
    /// server.token_faults().once(Fault::status(StatusCode::BAD_GATEWAY).body("<h1>Bad gateway</h1>"));
    /// ```
    pub fn status(status: StatusCode) -> Self {
        Self::new(Answer::Status(status))
    }

    /// Answers 503 Service Unavailable.
    ///
    /// The body has the OAuth error `temporarily_unavailable`, as in an outage of the server itself. With
    /// [`after_processing`](Self::after_processing), the body is empty, as from a gateway that has lost the connection to the
    /// server. For a gateway that did not forward the request, use [`status`](Self::status).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_refresh::testing::{AuthorizationServer, Fault};
    ///
    /// let server = AuthorizationServer::new();
    /// server.token_faults().once(Fault::unavailable().retry_after(Duration::from_secs(2)));
    /// ```
    pub fn unavailable() -> Self {
        Self { is_outage: true, ..Self::status(StatusCode::SERVICE_UNAVAILABLE) }
    }

    /// Answers 400 with an OAuth error (RFC 6749 §5.2), such as `slow_down`.
    ///
    /// The token endpoint sends `invalid_grant` and the like by itself where they apply.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::testing::{AuthorizationServer, Fault};
    ///
    /// let server = AuthorizationServer::new();
    /// server.token_faults().once(Fault::oauth_error("slow_down"));
    /// ```
    pub fn oauth_error(code: &str) -> Self {
        Self::status(StatusCode::BAD_REQUEST).with_error(code)
    }

    /// Closes the connection without an answer.
    ///
    /// A [`ServerService`](super::ServerService) returns [`ConnectionDropped`]. Over a socket, the connection is closed with all
    /// of its HTTP/2 streams.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::testing::{AuthorizationServer, Fault};
    ///
    /// let server = AuthorizationServer::new();
    /// server.token_faults().once(Fault::drop_connection().after_processing());
    /// ```
    pub fn drop_connection() -> Self {
        Self::new(Answer::Dropped)
    }

    /// Never answers, and leaves the connection open.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_refresh::testing::{AuthorizationServer, Fault};
    ///
    /// let server = AuthorizationServer::new();
    /// server.token_faults().once(Fault::hang());
    /// ```
    pub fn hang() -> Self {
        Self::new(Answer::Never)
    }

    fn new(answer: Answer) -> Self {
        Self {
            answer,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            is_outage: false,
            after_processing: false,
            only_if: None,
            delay: Duration::ZERO,
            body_delay: Duration::ZERO,
            pieces: None,
            is_truncated: false,
        }
    }

    /// Processes the request before the fault applies: a refresh token is spent and tokens are issued.
    ///
    /// This holds even if the caller drops the request.
    pub fn after_processing(mut self) -> Self {
        self.after_processing = true;
        self
    }

    /// Applies the fault only if the normal answer has this status. Any other answer is sent unchanged.
    ///
    /// The request is processed first, as with [`after_processing`](Self::after_processing). A one-off fault is used up in both
    /// cases.
    pub fn only_if(mut self, status: StatusCode) -> Self {
        self.only_if = Some(status);
        self.after_processing()
    }

    /// Waits before the request is processed, or after it with [`after_processing`](Self::after_processing).
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sends the head of the answer at once, and its body after this delay.
    pub fn delay_body(mut self, delay: Duration) -> Self {
        self.body_delay = delay;
        self
    }

    /// Sends the body in pieces of `bytes` bytes (at least 1), with a pause of `interval` between them.
    pub fn drip(mut self, bytes: usize, interval: Duration) -> Self {
        self.pieces = Some(Pieces { size: bytes, interval });
        self
    }

    /// Sends half of the body, and then drops the connection (HTTP/2: resets the stream).
    ///
    /// An empty body cannot be truncated.
    pub fn truncate(mut self) -> Self {
        self.is_truncated = true;
        self
    }

    /// Adds a header to an answer of [`status`](Self::status), [`unavailable`](Self::unavailable) or
    /// [`oauth_error`](Self::oauth_error). It has no effect on other faults.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Adds a [`header`](Self::header) `Retry-After` (RFC 9110 §10.2.3), rounded up to whole seconds.
    pub fn retry_after(self, delay: Duration) -> Self {
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        self.header(RETRY_AFTER, seconds.into())
    }

    /// Sets the body of an answer of [`status`](Self::status), [`unavailable`](Self::unavailable) or
    /// [`oauth_error`](Self::oauth_error). It has no effect on other faults.
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.body = bytes.into();
        self
    }

    /// Adds the headers and the body of an OAuth error (RFC 6749 §5.2).
    fn with_error(mut self, code: &str) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        self.body(serde_json::json!({ "error": code }).to_string())
    }

    /// Answers a request. `process` does what the server does without a fault.
    pub(super) async fn answer<P>(mut self, process: P) -> Result<Answered, ConnectionDropped>
    where
        P: FnOnce() -> Normal,
    {
        let done = if self.after_processing { Ok(process()) } else { Err(process) };
        let done = match (done, self.only_if) {
            (Ok(normal), Some(status)) if normal.response.status() != status => {
                return Ok(normal.answer().await);
            }
            (done, _) => done,
        };

        if !self.delay.is_zero() {
            sleep(self.delay).await;
        }
        let mut answered = match self.answer {
            Answer::Normal => done.unwrap_or_else(|process| process()).answer().await,
            Answer::Status(status) => {
                if self.is_outage && self.body.is_empty() && !self.after_processing {
                    self = self.with_error("temporarily_unavailable");
                }
                let mut response = Response::new(ResponseBody::new(self.body));
                *response.status_mut() = status;
                *response.headers_mut() = self.headers;
                Answered { response, is_normal: false }
            }
            Answer::Dropped => return Err(ConnectionDropped::new()),
            Answer::Never => std::future::pending().await,
        };

        answered.response = answered.response.map(|mut body| {
            body = body.delayed(self.body_delay);
            if let Some(pieces) = self.pieces {
                body = body.in_pieces(pieces);
            }
            if self.is_truncated { body.truncated() } else { body }
        });
        Ok(answered)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers and body may have secrets.
        f.debug_struct("Fault")
            .field("answer", &self.answer)
            .field("after_processing", &self.after_processing)
            .field("only_if", &self.only_if)
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}

/// The answer of the server without a fault.
pub(super) struct Normal {
    pub(super) response: Response<Bytes>,
    /// The delay between the decision and the answer.
    pub(super) delay: Duration,
    /// The delay between the head and the body.
    pub(super) body_delay: Duration,
}

impl Normal {
    pub(super) fn new(response: Response<Bytes>) -> Self {
        Self { response, delay: Duration::ZERO, body_delay: Duration::ZERO }
    }

    pub(super) async fn answer(self) -> Answered {
        if !self.delay.is_zero() {
            sleep(self.delay).await;
        }
        let response = self.response.map(|body| ResponseBody::new(body).delayed(self.body_delay));
        Answered { response, is_normal: true }
    }
}

/// The answer to a request.
pub(super) struct Answered {
    pub(super) response: Response<ResponseBody>,
    /// True if it is the normal answer and not that of a fault.
    pub(super) is_normal: bool,
}
