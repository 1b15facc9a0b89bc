//! One fault: what happens to a request in place of the right thing.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio::time::sleep;

use super::body::{ConnectionDropped, Pieces, ResponseBody};

/// What goes wrong with one request.
///
/// A fault says what is answered ([`honest`](Self::honest) is the right answer, the others replace it), and may say
/// when and how. Order it through [`Faults`](super::Faults).
///
/// **Before or after** is the choice that matters. A fault that replaces the answer strikes *before* the request is
/// processed: nothing is spent, nothing is issued, and the client could send the same request again. With
/// [`after_processing`](Self::after_processing) the request counted, and only the answer is lost: a refresh token that
/// is rotated is spent, and a client that sends it again gives itself away as a thief.
///
/// ```
/// use std::time::Duration;
/// use http::StatusCode;
/// use tower_refresh::testing::Fault;
///
/// // The answer arrives, 300 ms late.
/// Fault::honest().delay(Duration::from_millis(300));
/// // A proxy loses the answer to a request that counted.
/// Fault::status(StatusCode::BAD_GATEWAY).body("<h1>Bad gateway</h1>").after_processing();
/// // The connection ends after the refresh token was spent.
/// Fault::drop_connection().after_processing();
/// // Down for maintenance.
/// Fault::unavailable().retry_after(Duration::from_secs(2));
/// ```
#[derive(Clone)]
#[must_use = "a fault does nothing until it is ordered, as with `server.token_faults().once(fault)`"]
pub struct Fault {
    answer: Answer,
    after_processing: bool,
    only: Option<StatusCode>,
    delay: Duration,
    late: Duration,
    pieces: Option<Pieces>,
    cut: bool,
}

#[derive(Clone)]
enum Answer {
    /// The right one.
    Honest,
    /// This one.
    Fixed { status: StatusCode, headers: HeaderMap, body: Bytes },
    /// 503, from the server itself or from a gateway in front of it.
    Unavailable { headers: HeaderMap },
    /// None: the connection is closed.
    Dropped,
    /// None, and the connection stays open.
    Never,
}

impl Fault {
    /// Answers as if there were no fault: to be made [late](Self::delay), [dripped](Self::drip) or [cut](Self::cut).
    pub fn honest() -> Self {
        Self::new(Answer::Honest)
    }

    /// Answers with this status, and with the [headers](Self::header) and the [body](Self::body) that are set.
    pub fn status(status: StatusCode) -> Self {
        Self::new(Answer::Fixed { status, headers: HeaderMap::new(), body: Bytes::new() })
    }

    /// Answers 503 Service Unavailable.
    ///
    /// An outage of the server itself: the body holds the error `temporarily_unavailable`, and the request was not processed.
    /// With [`after_processing`](Self::after_processing) the answer is that of a gateway, which has lost the connection to
    /// the server: the body is empty. In both cases, [`retry_after`](Self::retry_after) adds when to come back.
    ///
    /// For a gateway that did not forward the request, use [`status`](Self::status).
    pub fn unavailable() -> Self {
        Self::new(Answer::Unavailable { headers: HeaderMap::new() })
    }

    /// Answers 400 with an error of a token endpoint (RFC 6749 §5.2), such as `invalid_grant`.
    ///
    /// The token endpoint does so by itself where it is right to; this is for codes that it would not send.
    pub fn oauth_error(code: &str) -> Self {
        let mut headers = HeaderMap::new();
        let body = error_body(code, &mut headers);
        Self::new(Answer::Fixed { status: StatusCode::BAD_REQUEST, headers, body })
    }

    /// Closes the connection without an answer.
    ///
    /// Called as a tower service the server returns [`ConnectionDropped`]. Over a socket the connection is closed, and
    /// with HTTP/2 whatever else is on it.
    pub fn drop_connection() -> Self {
        Self::new(Answer::Dropped)
    }

    /// Never answers, and leaves the connection open.
    pub fn hang() -> Self {
        Self::new(Answer::Never)
    }

    fn new(answer: Answer) -> Self {
        Self {
            answer,
            after_processing: false,
            only: None,
            delay: Duration::ZERO,
            late: Duration::ZERO,
            pieces: None,
            cut: false,
        }
    }

    /// Processes the request first: a refresh token is spent and tokens are issued, and then the fault strikes.
    ///
    /// Once the processing is done, the caller's going away changes nothing about it.
    pub fn after_processing(mut self) -> Self {
        self.after_processing = true;
        self
    }

    /// Strikes only if the honest answer would have this status; any other answer is given as it is.
    ///
    /// The request is processed to know it, as with [`after_processing`](Self::after_processing). A one-off fault is
    /// used up either way.
    pub fn only_if(mut self, status: StatusCode) -> Self {
        self.only = Some(status);
        self.after_processing()
    }

    /// Waits so long: before the request is processed, or after, with [`after_processing`](Self::after_processing).
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sends the head of the answer at once and its body so much later.
    pub fn late_body(mut self, delay: Duration) -> Self {
        self.late = delay;
        self
    }

    /// Sends the body in pieces of `bytes` (at least 1), with `interval` between them.
    pub fn drip(mut self, bytes: usize, interval: Duration) -> Self {
        self.pieces = Some(Pieces { size: bytes, interval });
        self
    }

    /// Sends half of the body and then drops the connection (HTTP/2: resets the stream).
    ///
    /// An empty body cannot be cut.
    pub fn cut(mut self) -> Self {
        self.cut = true;
        self
    }

    /// Adds a header to an answer that was made by [`status`](Self::status) or one of its kin.
    ///
    /// Other faults have no headers of their own, and are not changed.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if let Answer::Fixed { headers, .. } | Answer::Unavailable { headers } = &mut self.answer {
            headers.append(name, value);
        }
        self
    }

    /// Adds `Retry-After` (RFC 9110 §10.2.3), as [`header`](Self::header) does; part of a second counts as a whole one.
    pub fn retry_after(self, delay: Duration) -> Self {
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        self.header(RETRY_AFTER, seconds.into())
    }

    /// Sets the body of an answer that was made by [`status`](Self::status) or one of its kin.
    ///
    /// Other faults have no body of their own, and are not changed.
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.answer = match self.answer {
            Answer::Fixed { status, headers, .. } => {
                Answer::Fixed { status, headers, body: bytes.into() }
            }
            Answer::Unavailable { headers } => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Answer::Fixed { status, headers, body: bytes.into() }
            }
            other => other,
        };
        self
    }

    /// Lets the request meet the fault. `process` does what an honest server would do.
    pub(super) async fn strike<P>(self, process: P) -> Result<Struck, ConnectionDropped>
    where
        P: FnOnce() -> Honest,
    {
        let done = match self.after_processing {
            true => Ok(process()),
            false => Err(process),
        };
        let done = match (done, self.only) {
            (Ok(honest), Some(status)) if honest.response.status() != status => {
                return Ok(honest.answer().await);
            }
            (done, _) => done,
        };

        if !self.delay.is_zero() {
            sleep(self.delay).await;
        }
        let fixed = |status, headers, body| {
            let mut response = Response::new(ResponseBody::new(body));
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Struck { response, honest: false }
        };
        let mut struck = match self.answer {
            Answer::Honest => {
                let honest = done.unwrap_or_else(|process| process());
                honest.answer().await
            }
            Answer::Fixed { status, headers, body } => fixed(status, headers, body),
            Answer::Unavailable { headers } if self.after_processing => {
                fixed(StatusCode::SERVICE_UNAVAILABLE, headers, Bytes::new())
            }
            Answer::Unavailable { mut headers } => {
                let body = error_body("temporarily_unavailable", &mut headers);
                fixed(StatusCode::SERVICE_UNAVAILABLE, headers, body)
            }
            Answer::Dropped => return Err(ConnectionDropped::new()),
            Answer::Never => std::future::pending().await,
        };

        struck.response = struck.response.map(|mut body| {
            if !self.late.is_zero() {
                body = body.late(self.late);
            }
            if let Some(pieces) = self.pieces {
                body = body.in_pieces(pieces);
            }
            if self.cut {
                body = body.cut();
            }
            body
        });
        Ok(struck)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer: &dyn fmt::Debug = match &self.answer {
            Answer::Honest => &"honest",
            // Headers and body may be anything that the test thinks of.
            Answer::Fixed { status, .. } => status,
            Answer::Unavailable { .. } => &StatusCode::SERVICE_UNAVAILABLE,
            Answer::Dropped => &"dropped",
            Answer::Never => &"never",
        };
        f.debug_struct("Fault")
            .field("answer", answer)
            .field("after_processing", &self.after_processing)
            .field("only", &self.only)
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}

/// Makes the body of an OAuth error (RFC 6749 §5.2), and adds its headers.
fn error_body(code: &str, headers: &mut HeaderMap) -> Bytes {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    serde_json::json!({ "error": code }).to_string().into()
}

/// What an honest server answers.
pub(super) struct Honest {
    pub(super) response: Response<Bytes>,
    /// So much later, decided now and said then.
    pub(super) delay: Duration,
    /// The body still later.
    pub(super) late: Duration,
}

impl Honest {
    pub(super) fn new(response: Response<Bytes>) -> Self {
        Self { response, delay: Duration::ZERO, late: Duration::ZERO }
    }

    pub(super) async fn answer(self) -> Struck {
        if !self.delay.is_zero() {
            sleep(self.delay).await;
        }
        Struck {
            response: self.response.map(|bytes| ResponseBody::new(bytes).late(self.late)),
            honest: true,
        }
    }
}

/// What came of a request.
pub(super) struct Struck {
    pub(super) response: Response<ResponseBody>,
    /// Whether it is the answer to the request, or a fault in place of one.
    pub(super) honest: bool,
}
