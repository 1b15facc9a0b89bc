//! gRPC over tonic.
//!
//! [`RefreshLayer`](crate::RefreshLayer) wraps a tonic `Channel` like any other client, and a generated client uses the result:
//!
//! ```
//! use tonic::transport::Channel;
//! use tonic_health::pb::HealthCheckRequest;
//! use tonic_health::pb::health_client::HealthClient;
//! use tower::ServiceBuilder;
//! use tower_refresh::{RefreshLayer, TokenSource};
//!
//! async fn check<S: TokenSource>(source: S, channel: Channel) -> Result<(), tonic::Status> {
//!     let service = ServiceBuilder::new().layer(RefreshLayer::new(source)).service(channel);
//!     let response = HealthClient::new(service).check(HealthCheckRequest::default()).await?;
//!     println!("{response:?}");
//!     Ok(())
//! }
//! ```
//!
//! All four kinds of call work. The messages of a call are kept while they are sent, up to the layer's
//! [`replay_limit`](crate::RefreshLayer::replay_limit), so that the call can be retried if its token is rejected. Nothing is delayed
//! for that, including streams.
//!
//! # Options
//!
//! | Option | Effect |
//! |---|---|
//! | [`HoldTrailersLayer`] | also retries calls that the server rejects in the trailers |
//! | [`RefreshLayer::replay_limit`](crate::RefreshLayer::replay_limit) | how much of a call's messages is kept for a retry |
//! | `tonic::Request::set_timeout` | the deadline of each attempt, without the wait for a token |
//! | `tokio::time::timeout` around the call | the [deadline of the whole call](#deadlines) |
//!
//! # Rejections
//!
//! `UNAUTHENTICATED` is gRPC's counterpart of 401. Most servers refuse a call before they have sent anything. The status is then in
//! the response headers, which needs no configuration. A status can also come in the *trailers*, after the body. By then the
//! response to a streaming call belongs to the caller, who gets the status. The response to a unary call can be held until its
//! trailers have arrived, which [`HoldTrailersLayer`] does:
//!
//! | Rejection by the server | Without `HoldTrailersLayer` | With it |
//! |---|---|---|
//! | tonic: an error instead of a response, or from an interceptor | retried | retried |
//! | tonic: an error inside a stream | returned to the caller | retried, if at most one message came before it, and within the limit and the timeout |
//! | grpcio: `context.abort` | retried | retried |
//! | grpcio: `context.set_code`, and then a response | returned to the caller | retried |
//! | both: after initial metadata | returned to the caller | retried |
//!
//! # Errors
//!
//! A call that was never sent fails with a [`TokenError`](crate::TokenError). If the request is a gRPC one (its `content-type` begins
//! with `application/grpc`) and the feature `tonic` is enabled, the error of the service is a `tonic::Status`, which generated clients
//! return unchanged:
//!
//! | `TokenError` | Code |
//! |---|---|
//! | transient, ambiguous | `UNAVAILABLE` |
//! | denied | `UNAUTHENTICATED` |
//! | misconfigured | `FAILED_PRECONDITION` |
//!
//! The `TokenError` is the source of the status. A status with such a source means that the call was never sent. (For a rejected call,
//! see [the guide](crate::docs::grpc#errors).)
//!
//! ```
//! use tower_refresh::TokenError;
//!
//! fn must_log_in(status: &tonic::Status) -> bool {
//!     TokenError::find(status).is_some_and(TokenError::must_log_in)
//! }
//! # assert!(must_log_in(&TokenError::denied("the session is over").into()));
//! # assert!(!must_log_in(&tonic::Status::unauthenticated("who are you?")));
//! ```
//!
//! # Deadlines
//!
//! `set_timeout` does not limit the wait for a token. `tokio::time::timeout` around the call limits all of it, as
//! [the guide](crate::docs::grpc#deadlines) shows. A generated client reports the error of tower's `Timeout` as `UNKNOWN`.
//!
//! # Caveats
//!
//! - **No origin is needed, so check the channel's URL.** Generated clients send requests without an authority, and the channel
//!   determines their destination. The layer cannot see it: over a channel to an `http://` URL the token is sent in plaintext.
//! - **Open streams are not interrupted.** If the token of an open stream expires or is revoked, the server decides what happens to it.

mod body;
mod future;
mod layer;
mod service;
mod status;
mod wire;

pub use self::body::ResponseBody;
pub use self::future::ResponseFuture;
pub use self::layer::HoldTrailersLayer;
pub use self::service::HoldTrailers;
pub(crate) use self::status::for_caller;
