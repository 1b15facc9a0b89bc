//! The trait of bodies that can be sent twice.

use http_body::Body;

/// A request body that can be sent a second time.
///
/// The [module documentation](super) lists the types that implement it. For a type of another crate, use
/// [`Replayable`](super::Replayable) or [`RefreshLayer::replay_with`](crate::RefreshLayer::replay_with).
///
/// # Contract
///
/// The body that [`replay`](Self::replay) returns sends the same bytes as the original body, with the same length and the same
/// trailers, regardless of how much of the first attempt was sent. If it cannot, [`pause`](Self::pause) returns false. A
/// truncated body is worse than an error: the server cannot distinguish it from the intended one.
///
/// Dropping a spare leaves the first attempt as if there had never been a spare.
///
/// # Examples
///
/// A body that is cheap to clone:
///
/// ```
/// # use std::convert::Infallible;
/// # use std::pin::Pin;
/// # use std::task::{Context, Poll};
/// # use bytes::Bytes;
/// # use http_body::{Body, Frame};
/// use tower_refresh::replay::ReplayBody;
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
///     fn keep_spare(&mut self, _limit: usize) -> Option<Self> {
///         Some(self.clone())
///     }
///
///     fn replay(spare: Self) -> Self {
///         spare
///     }
/// }
/// ```
#[doc(alias = "retry")]
#[doc(alias = "try_clone")]
#[diagnostic::on_unimplemented(
    message = "a body of type `{Self}` cannot be sent a second time",
    label = "the request's body must implement `ReplayBody`",
    note = "wrap the body in `tower_refresh::replay::Replayable`, or implement `ReplayBody` for `{Self}`",
    note = "or configure the layer with `.replay_with(|body| ..)` or `.without_retry()`"
)]
pub trait ReplayBody: Body + Sized {
    /// The data that is kept while the body is sent. For the request's future to be `Send`, it must be `Send`.
    type Spare;

    /// Returns a spare of the body, or `None` if it is already known that the body cannot be sent twice. The body itself is sent
    /// afterwards.
    ///
    /// The spare takes at most `limit` bytes of memory in addition to the body. A spare that shares its bytes with the body by
    /// reference count may ignore the limit. The body sends what it would have sent without a spare, also if this turns it into a
    /// handle to state that it shares with the spare.
    fn keep_spare(&mut self, limit: usize) -> Option<Self::Spare>;

    /// Pauses the first attempt, and returns whether the spare can become the whole body.
    ///
    /// Called when the response rejects the token. After `true`, the spare must remain able to be replayed until it is dropped.
    /// A stream sends no more frames until then, because while the token is refreshed they would exceed the limit.
    fn pause(spare: &mut Self::Spare) -> bool {
        let _ = spare;
        true
    }

    /// Returns the body of the second attempt. Called only after [`pause`](Self::pause) has returned true.
    ///
    /// If the first attempt's body is still being sent, it fails from now on.
    fn replay(spare: Self::Spare) -> Self;
}
