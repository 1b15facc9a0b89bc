//! A wrapper that makes any body replayable.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::body::ReplayBody;
use super::tee::{StreamSpare, Tee, poll_bytes};
use crate::error::BoxError;

/// Wraps any body so that it can be sent a second time.
///
/// Use it for streams and for body types that do not implement [`ReplayBody`]. The box bodies of http-body-util need no wrapper
/// if their error is [`BoxError`], and neither do the bodies of tonic, axum and reqwest with the features of these names.
///
/// The frames that the first attempt sends are kept until the response arrives, up to
/// [`replay_limit`](crate::RefreshLayer::replay_limit) bytes. Large frames are shared by reference count. If the response
/// rejects the token, the second attempt sends the kept frames and then the rest of the body, including trailers. Nothing is
/// read ahead and nothing is delayed. A body that exceeds the limit is sent unchanged, and the caller gets the rejection,
/// unless it arrives before that much was sent.
///
/// # Errors
///
/// Frames fail with the boxed error of the body. The first attempt's body also fails when the second attempt takes over, so
/// that the server does not take the received part for the whole.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use futures_util::stream;
/// use http::Request;
/// use http_body::Frame;
/// use http_body_util::StreamBody;
/// use tower_refresh::BoxError;
/// use tower_refresh::replay::Replayable;
///
/// let chunks = stream::iter(["one", "two"].map(|chunk| Ok::<_, BoxError>(Frame::data(Bytes::from(chunk)))));
/// let request = Request::put("https://api.example.com/v1/file")
///     .body(Replayable::new(StreamBody::new(chunks)))?;
/// # Ok::<(), http::Error>(())
/// ```
#[doc(alias = "buffer")]
#[doc(alias = "retry")]
pub struct Replayable<B> {
    inner: Inner<B>,
}

enum Inner<B> {
    Whole(Pin<Box<B>>),
    /// Boxed, because an outer layer may have split the body before.
    Split(Tee<Box<Replayable<B>>, BoxError>),
}

impl<B> Replayable<B> {
    /// Wraps a body.
    ///
    /// # Examples
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body_util::Empty;
    /// use tower_refresh::replay::Replayable;
    ///
    /// let body = Replayable::new(Empty::<Bytes>::new());
    /// ```
    pub fn new(body: B) -> Self {
        Self { inner: Inner::Whole(Box::pin(body)) }
    }

    fn of(tee: Tee<Box<Self>, BoxError>) -> Self {
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
        match &mut self.inner {
            Inner::Whole(body) => {
                let frame = ready!(poll_bytes(body.as_mut(), cx));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Inner::Split(tee) => Pin::new(tee).poll_frame(cx),
        }
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

    fn keep_spare(&mut self, limit: usize) -> Option<Self::Spare> {
        if self.is_end_stream() {
            return Some(StreamSpare::nothing());
        }
        let nothing = Self::replay(StreamSpare::nothing());
        let whole = Box::new(mem::replace(self, nothing));
        let (first, spare) = Tee::split(whole, limit, |error| error);
        *self = Self::of(first);
        Some(spare)
    }

    fn pause(spare: &mut Self::Spare) -> bool {
        spare.pause()
    }

    fn replay(spare: Self::Spare) -> Self {
        Self::of(spare.replay(|error| error))
    }
}

impl<B> fmt::Debug for Replayable<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replayable").finish_non_exhaustive()
    }
}
