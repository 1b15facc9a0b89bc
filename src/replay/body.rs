//! Bodies that can be sent twice.

use http_body::Body;

/// A request body that can keep a spare of itself.
///
/// | body | kept |
/// |---|---|
/// | [`Full`](http_body_util::Full), [`Empty`](http_body_util::Empty) | by reference count, whatever the limit |
/// | `String` | a copy, up to the limit |
/// | [`BoxBody`](http_body_util::combinators::BoxBody), [`UnsyncBoxBody`](http_body_util::combinators::UnsyncBoxBody) of `Bytes`, whose error is `From<BoxError>` | the frames that were sent, up to the limit |
/// | [`Either`](http_body_util::Either) of two of them | as the one that it is |
/// | the bodies of tonic, axum and reqwest, with the features of these names | the frames that were sent, up to the limit; reqwest's in-memory ones by reference count |
/// | any other, in a [`Replayable`](crate::Replayable) | the frames that were sent, up to the limit |
///
/// For a type of another crate that can be cloned see [`ReplayWith`](crate::ReplayWith). A body of your own that is cheap to
/// clone needs two lines:
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
///     fn replay(spare: Self) -> Self {
///         spare
///     }
/// }
/// ```
///
/// # Large bodies in memory
///
/// A stream whose request is rejected early is broken off, and over HTTP/1.1 its connection with it. What is in memory as one
/// piece cannot be broken off: hyper takes all of it at once, and counts the connection as free while it is still being
/// written. If the server rejects it early, and closes the connection without `Connection: close`, which RFC 9112 §9.6 asks
/// of it, the second attempt can meet the closed connection, and fails. Send megabytes in pieces, as a stream, and raise the
/// [limit](crate::RefreshLayer::replay_limit).
///
/// # Servers that do not read
///
/// Over HTTP/2 hyper learns that a body is broken off only when it asks for the next frame, which it does not as long as one
/// waits for the server's window. If a server rejects early, reads nothing and does not reset the stream either (RFC 9113
/// §8.1), that stream stays open. The second attempt waits for ever if the server allows one stream at a time, or if the
/// first has used up the connection's window: put a timeout outside.
///
/// # Contract
///
/// What [`replay`](Self::replay) returns sends byte for byte what the body that was split off would have sent, with the
/// same length and the same trailers, however far that one got; or [`pause`](Self::pause) says that it cannot. An empty or a
/// partial body in place of the real one is worse than none: a server cannot tell it from what was meant.
///
/// Dropping a spare leaves the first body as if there had never been one.
#[diagnostic::on_unimplemented(
    message = "a body of type `{Self}` cannot be sent again",
    label = "expected a `ReplayBody`",
    note = "wrap the body in `Replayable`, box it with `http_body_util::BodyExt::boxed`, or implement `ReplayBody` for `{Self}`",
    note = "without `ReplayBody`, set `.replay_with(|body| ..)` on the layer to copy the body, or `.without_retry()` to send each request once"
)]
pub trait ReplayBody: Body + Sized {
    /// What is kept while the body is sent. `Send` where the request's future is to be.
    type Spare;

    /// Splits the body into the one to send and a spare; no spare if it is known that there can be none.
    ///
    /// The spare takes at most `limit` bytes of memory that the body itself would not hold anyway: one that shares its
    /// bytes by reference count may ignore it. The body to send is sent as it would have been without a spare.
    fn split(self, limit: usize) -> (Self, Option<Self::Spare>);

    /// Told that the answer rejects the token: returns whether the spare can become the whole body.
    ///
    /// If it can, it stays so until the spare is replayed or dropped. A stream sends no more of itself meanwhile: while a new
    /// token is on its way, what was sent would outgrow the limit.
    fn pause(spare: &mut Self::Spare) -> bool {
        let _ = spare;
        true
    }

    /// Makes the body of the second attempt. Called only once [`pause`](Self::pause) has returned true.
    ///
    /// If the first body is still being sent, it fails from now on.
    fn replay(spare: Self::Spare) -> Self;
}
