//! A wrapper that makes any body one that can be sent twice.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::ReplayBody;
use super::tee::{StreamSpare, Tee};
use crate::error::BoxError;

/// Wraps any body, so that it can be sent twice.
///
/// The frames that the first attempt sends are kept until the answer comes (large ones by reference count), up to
/// [`replay_limit`](crate::RefreshLayer::replay_limit) bytes; nothing is read ahead and nothing waits. If the answer
/// rejects the token, the second attempt sends what was kept and then the rest of the body, trailers included. A body that
/// is longer than the limit is sent as it is, and the caller gets the rejection; unless that comes early, before so much
/// was sent.
///
/// ```
/// use bytes::Bytes;
/// use futures_util::stream;
/// use http::Request;
/// use http_body::Frame;
/// use http_body_util::StreamBody;
/// use tower_refresh::{BoxError, Replayable};
///
/// let chunks = stream::iter(["one", "two"].map(|chunk| Ok::<_, BoxError>(Frame::data(Bytes::from(chunk)))));
/// let request = Request::put("https://api.example.com/v1/file")
///     .body(Replayable::new(StreamBody::new(chunks)))?;
/// # Ok::<(), http::Error>(())
/// ```
///
/// The box bodies of http-body-util, and with the features of their names those of tonic, axum and reqwest, need no
/// wrapper.
///
/// # Errors
///
/// Frames fail with the body's error, boxed. The first attempt's body also fails once the second attempt takes over: so
/// that the server does not take what it has for the whole.
pub struct Replayable<B> {
    inner: Inner<B>,
}

enum Inner<B> {
    Whole(Pin<Box<B>>),
    /// Of what may have been split before, by a layer further out.
    Split(Tee<Box<Replayable<B>>>),
}

impl<B> Replayable<B> {
    /// Wraps a body.
    pub fn new(body: B) -> Self {
        Self { inner: Inner::Whole(Box::pin(body)) }
    }

    fn split_up(tee: Tee<Box<Self>>) -> Self {
        Self { inner: Inner::Split(tee) }
    }
}

impl<B> Body for Replayable<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(match &mut self.inner {
            Inner::Whole(body) => ready!(body.as_mut().poll_frame(cx)).map(|frame| match frame {
                // A `Bytes` is not copied by this.
                Ok(frame) => Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))),
                Err(error) => Err(error.into()),
            }),
            Inner::Split(tee) => ready!(Pin::new(tee).poll_frame(cx))
                .map(|frame| frame.map_err(|failure| failure.boxed())),
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Whole(body) => body.is_end_stream(),
            Inner::Split(tee) => tee.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Whole(body) => body.size_hint(),
            Inner::Split(tee) => tee.size_hint(),
        }
    }
}

impl<B> ReplayBody for Replayable<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Spare = StreamSpare<Box<Self>>;

    fn split(self, limit: usize) -> (Self, Option<Self::Spare>) {
        if self.is_end_stream() {
            return (self, Some(StreamSpare::nothing()));
        }
        let (first, spare) = Tee::split(Box::new(self), limit);
        (Self::split_up(first), Some(spare))
    }

    fn pause(spare: &mut Self::Spare) -> bool {
        spare.pause()
    }

    fn replay(spare: Self::Spare) -> Self {
        Self::split_up(spare.replay())
    }
}

impl<B> From<B> for Replayable<B> {
    fn from(body: B) -> Self {
        Self::new(body)
    }
}

impl<B> fmt::Debug for Replayable<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replayable").finish_non_exhaustive()
    }
}
