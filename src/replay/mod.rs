//! How a request is sent a second time after its token was rejected.
//!
//! A request is retried only if its body can be sent again from the beginning. A body in memory is cloned. A body that is a
//! stream is kept while it is sent, up to a limit, so that nothing is delayed and nothing is read in advance. Bodies keep their
//! type: the client below the layer sees the same type with and without the layer.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use bytes::Bytes;
//! use futures_util::stream;
//! use http::{Request, Response, StatusCode};
//! use http_body::Frame;
//! use http_body_util::{BodyExt, Full, StreamBody};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_refresh::replay::Replayable;
//! use tower_refresh::{BoxError, RefreshLayer, Renewal, TokenSet};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! // Stands for an HTTP client. The first token is rejected.
//! let api = tower::service_fn(async |request: Request<Replayable<_>>| {
//!     let authorization = request.headers()["authorization"].clone();
//!     let body = request.into_body().collect().await?.to_bytes();
//!     let mut response = Response::new(Full::<Bytes>::from(body));
//!     if authorization == "Bearer token-0" {
//!         *response.status_mut() = StatusCode::UNAUTHORIZED;
//!     }
//!     Ok::<_, BoxError>(response)
//! });
//! let source = |renewal: Renewal| async move {
//!     let generation = renewal.previous().map_or(0, |_| 1);
//!     TokenSet::bearer(format!("token-{generation}"))
//! };
//! let client = ServiceBuilder::new()
//!     .layer(RefreshLayer::new(source).origin("https://api.example.com")?)
//!     .service(api);
//!
//! let chunks = ["one ", "two"].map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::from(chunk))));
//! let body = Replayable::new(StreamBody::new(stream::iter(chunks)));
//! let request = Request::put("https://api.example.com/v1/file").body(body)?;
//! let response = client.oneshot(request).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//! assert_eq!(response.into_body().collect().await?.to_bytes(), "one two");
//! # Ok(())
//! # }
//! ```
//!
//! # Bodies
//!
//! | Body | Kept |
//! |---|---|
//! | [`Full`](http_body_util::Full), [`Empty`](http_body_util::Empty) | a reference, regardless of the limit |
//! | `String` | a copy, up to the limit |
//! | [`BoxBody`](http_body_util::combinators::BoxBody), [`UnsyncBoxBody`](http_body_util::combinators::UnsyncBoxBody) of `Bytes` with an error that is `From<BoxError>`, such as [`BoxError`](crate::BoxError) | the frames that were sent, up to the limit |
//! | [`Either`](http_body_util::Either) of two of them | like the one that it contains |
//! | The bodies of tonic, axum and reqwest, with the features of these names | the frames that were sent, up to the limit; for reqwest's bodies in memory, a reference |
//! | Any other body in a [`Replayable`] | the frames that were sent, up to the limit |
//! | A type of your own | as its [`ReplayBody`] implementation decides |
//! | A type of another crate | a copy, made by the closure of [`RefreshLayer::replay_with`](crate::RefreshLayer::replay_with) |
//!
//! # Options
//!
//! | Option | Effect |
//! |---|---|
//! | [`RefreshLayer::replay_limit`](crate::RefreshLayer::replay_limit) | the limit of all requests; 64 KiB by default |
//! | [`ReplayLimit`] in a request's extensions | the limit of this request |
//! | [`RefreshLayer::replay_with`](crate::RefreshLayer::replay_with) | a closure copies the body |
//! | [`RefreshLayer::without_retry`](crate::RefreshLayer::without_retry) | no request is sent a second time |
//! | [`Skip::Retry`](crate::Skip::Retry) in a request's extensions | this request is not sent a second time |
//!
//! A body that exceeds the limit is sent unchanged. If its token is rejected, the caller gets the rejection, unless it arrives
//! before that much was sent.
//!
//! # Large bodies in memory
//!
//! If a request is rejected while a stream is being sent, the stream is cut off, and over HTTP/1.1 the connection is closed. A
//! body in memory that is one piece cannot be cut off: hyper takes all of it at once and considers the connection free while it
//! is still being written. If the server rejects it early and closes the connection without `Connection: close`, which RFC 9112
//! §9.6 requires, the second attempt can fail on the closed connection. Send megabytes in pieces, as a stream, and raise the
//! [limit](ReplayLimit).
//!
//! # Servers that do not read
//!
//! Over HTTP/2, hyper notices that a body was cut off only when it polls for the next frame, which it does not do while a frame
//! waits for the server's window. If a server rejects early, reads nothing and does not reset the stream either (RFC 9113 §8.1),
//! the stream stays open. The second attempt waits forever if the server allows one stream at a time, or if the first attempt
//! has used up the connection's window. Put a timeout around the layer.
//!
//! # Compiler errors
//!
//! If the compiler reports that a method such as `oneshot` exists for `Refresh`, *but its trait bounds were not satisfied*, the
//! body of the request probably does not implement [`ReplayBody`]. Wrap it in a [`Replayable`], or choose one of the options above.
//! [`Refresh`](crate::Refresh#compiler-errors) lists the other causes.
//!
//! A box body fails with [`BoxError`](crate::BoxError), because the first attempt's body does when the second one takes over. If
//! its error is another one, such as `Infallible` or `io::Error`, convert it before it is boxed:
//! `.map_err(BoxError::from).boxed()`.

mod body;
mod head;
mod in_memory;
mod kept;
mod replayable;
mod retry;
mod shared;
mod streams;
mod tee;

pub use self::body::ReplayBody;
pub(crate) use self::head::SpareHead;
pub use self::replayable::Replayable;
pub use self::retry::{ByType, NoRetry, ReplayLimit, ReplayWith, Retry};
pub use self::tee::StreamSpare;
