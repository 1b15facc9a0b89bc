//! The bodies of answers: whole, delayed, in pieces, truncated.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// The body of an answer of a [`ServerService`](super::ServerService).
///
/// A [`Fault`](super::Fault) may delay it, split it into pieces, or end it with an error. The size hint is always the length of the
/// whole body. A served answer has it as `Content-Length`, so that a client can detect a truncated body.
///
/// # Examples
///
/// ```
/// use http::Request;
/// use http_body_util::{BodyExt, Empty};
/// use tower::ServiceExt;
/// use tower_refresh::testing::{AuthorizationServer, ResponseBody};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let service = AuthorizationServer::new().resource_service();
/// let request = Request::get("https://api.example.com/").body(Empty::<&[u8]>::new())?;
/// let body: ResponseBody = service.oneshot(request).await?.into_body();
/// assert_eq!(body.collect().await?.to_bytes(), "no access token\n");
/// # Ok(())
/// # }
/// ```
pub struct ResponseBody {
    rest: Bytes,
    /// The length of the truncated part, if the body ends with an error.
    cut_off: Option<usize>,
    pieces: Option<Pieces>,
    /// The end of the current pause.
    wait: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Pieces {
    pub(super) size: usize,
    pub(super) interval: Duration,
}

impl ResponseBody {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { rest: bytes, cut_off: None, pieces: None, wait: None }
    }

    /// Sends nothing for this time from now on.
    pub(super) fn delayed(mut self, delay: Duration) -> Self {
        if !delay.is_zero() {
            self.wait = Some(Box::pin(sleep(delay)));
        }
        self
    }

    pub(super) fn in_pieces(mut self, pieces: Pieces) -> Self {
        self.pieces = Some(pieces);
        self
    }

    /// Sends the first half, and then an error. An empty body cannot be cut off.
    pub(super) fn truncated(mut self) -> Self {
        let whole = self.rest.len();
        self.rest.truncate(whole / 2);
        self.cut_off = Some(whole - self.rest.len()).filter(|left| *left > 0);
        self
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ConnectionDropped;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ConnectionDropped>>> {
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(cx));
            self.wait = None;
        }
        if self.rest.is_empty() {
            let end = self.cut_off.take().map(|_| Err(ConnectionDropped::new()));
            return Poll::Ready(end);
        }

        let size = self.pieces.map_or(usize::MAX, |pieces| pieces.size.max(1));
        let size = size.min(self.rest.len());
        let piece = self.rest.split_to(size);
        let pause = if self.rest.is_empty() {
            // With an error right after the data, hyper discards what it has not written yet.
            self.cut_off.map(|_| BEFORE_THE_ERROR)
        } else {
            self.pieces.map(|pieces| pieces.interval)
        };
        self.wait = pause.map(|pause| Box::pin(sleep(pause)));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.cut_off.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let whole = self.rest.len() + self.cut_off.unwrap_or_default();
        SizeHint::with_exact(whole as u64)
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes may be tokens.
        f.debug_struct("ResponseBody")
            .field("length", &self.rest.len())
            .field("cut_off", &self.cut_off)
            .field("pieces", &self.pieces)
            .finish_non_exhaustive()
    }
}

/// The error of a connection that a [fault](super::Fault) has dropped.
///
/// A [`ServerService`](super::ServerService) returns it if there is no answer, and a [`ResponseBody`] if it is truncated. Over a
/// socket, the connection is closed instead.
///
/// # Examples
///
/// ```
/// use http::Request;
/// use http_body_util::Empty;
/// use tower::ServiceExt;
/// use tower_refresh::testing::{AuthorizationServer, ConnectionDropped, Fault};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = AuthorizationServer::new();
/// server.resource_faults().once(Fault::drop_connection());
/// let request = Request::get("https://api.example.com/").body(Empty::<&[u8]>::new())?;
/// let error: ConnectionDropped = server.resource_service().oneshot(request).await.unwrap_err();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionDropped {}

impl ConnectionDropped {
    pub(super) fn new() -> Self {
        Self {}
    }
}

impl fmt::Display for ConnectionDropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server dropped the connection because of a fault")
    }
}

impl Error for ConnectionDropped {}

const BEFORE_THE_ERROR: Duration = Duration::from_millis(10);
