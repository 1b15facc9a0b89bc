//! The bodies of answers: whole, late, dripped, cut.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// The body of an answer.
///
/// It keeps to the fault that was ordered for it: it may come late, come in small pieces, or end in an error. Its size
/// hint tells the whole length all the same, which is what goes into `Content-Length` when it is served: a body that is
/// cut is seen to be cut.
pub struct ResponseBody {
    /// What is still to be sent.
    rest: Bytes,
    /// The length of what was cut off; nothing if the body ends as it should.
    cut_off: Option<usize>,
    pieces: Option<Pieces>,
    /// Nothing comes before this.
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

    /// Nothing of it comes before `delay` from now.
    pub(super) fn late(mut self, delay: Duration) -> Self {
        if !delay.is_zero() {
            self.wait = Some(Box::pin(sleep(delay)));
        }
        self
    }

    pub(super) fn in_pieces(mut self, pieces: Pieces) -> Self {
        self.pieces = Some(pieces);
        self
    }

    /// Only the first half of it comes, and then an error.
    pub(super) fn cut(mut self) -> Self {
        let whole = self.rest.len();
        self.rest.truncate(whole / 2);
        self.cut_off = Some(whole - self.rest.len());
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
            // An error right behind the data would discard what hyper has not yet written.
            self.cut_off.map(|_| BEFORE_THE_CUT)
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

/// The connection was dropped, because a [fault](super::Fault) had ordered it.
///
/// It is the error of the [service](super::ServerService) when there is no answer, and of its
/// [body](ResponseBody) when there is half of one. Over a socket nobody sees it: the connection is closed.
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
        f.write_str("the server dropped the connection, as a fault had ordered")
    }
}

impl Error for ConnectionDropped {}

const BEFORE_THE_CUT: Duration = Duration::from_millis(10);
