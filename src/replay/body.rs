//! Bodies that can be sent twice.

use http_body::Body;

/// A request body that can keep a spare of itself.
///
/// The crate has it for the in-memory bodies: [`Full`](http_body_util::Full), [`Empty`](http_body_util::Empty), `String`,
/// and [`Either`](http_body_util::Either) of two of them. For a foreign type see
/// [`ReplayWith`](crate::ReplayWith); a body of your own that is cheap to clone needs two lines:
///
/// ```
/// # use std::convert::Infallible;
/// # use std::pin::Pin;
/// # use std::task::{Context, Poll};
/// # use bytes::Bytes;
/// # use http_body::{Body, Frame};
/// use tower_refresh::ReplayBody;
///
/// #[derive(Clone)]
/// struct Greeting(Option<Bytes>);
/// #
/// # impl Body for Greeting {
/// #     type Data = Bytes;
/// #     type Error = Infallible;
/// #     fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
/// #         Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
/// #     }
/// # }
///
/// impl ReplayBody for Greeting {
///     type Spare = Self;
///
///     fn split(self, _limit: usize) -> (Self, Option<Self>) {
///         (self.clone(), Some(self))
///     }
///
///     fn replay(spare: Self) -> Option<Self> {
///         Some(spare)
///     }
/// }
/// ```
///
/// # Contract
///
/// What [`replay`](Self::replay) returns sends byte for byte what the body that was split off would have sent, with the
/// same length and the same trailers, however far that one got; or there is no replay. An empty or a partial body in
/// place of the real one is worse than none: a server cannot tell it from what was meant.
///
/// Nothing is promised about *when* a spare is complete. A body that is a stream can keep its frames while the first one
/// sends them, and find out only on replay whether they fitted the limit: the spare is then a handle to what both share.
pub trait ReplayBody: Body + Sized {
    /// What is kept while the body is sent. `Send` where the request's future is to be.
    type Spare;

    /// Splits the body into the one to send and a spare; no spare if it is known that there can be none.
    ///
    /// The spare takes at most `limit` bytes of memory that the body itself would not hold anyway: one that shares its
    /// bytes by reference count may ignore it. The body to send is sent as it would have been without a spare.
    fn split(self, limit: usize) -> (Self, Option<Self::Spare>);

    /// Makes the body of the second attempt; none if the spare is not the whole body, or more than the limit allowed.
    fn replay(spare: Self::Spare) -> Option<Self>;
}
