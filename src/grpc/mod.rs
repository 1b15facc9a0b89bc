//! gRPC over tonic.
//!
//! [`RefreshLayer`](crate::RefreshLayer) goes over a tonic `Channel` like over any other client, and a generated client
//! goes over both:
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
//!     let answer = HealthClient::new(service).check(HealthCheckRequest::default()).await?;
//!     println!("{answer:?}");
//!     Ok(())
//! }
//! ```
//!
//! There is no origin to name: a client without an origin of its own names no authority in its requests, and the
//! channel fixes where they go, and whether over TLS. So it is the channel's URL that must be looked at: the layer cannot
//! see it, and over a channel to an `http://` one the token goes in the open.
//!
//! All four kinds of call work. What a client sends is kept while it is sent, up to the layer's
//! [`replay_limit`](crate::RefreshLayer::replay_limit), so that a call whose token was rejected can be made again; nothing
//! waits for that, and no stream is delayed. A stream that is open when its token expires or is revoked is left alone:
//! what becomes of it is between the server and the caller.
//!
//! A deadline that a caller sets with `Request::set_timeout` counts for each attempt, and not for the wait for a token.
//! One for all of it is tower's `Timeout`, outside.
//!
//! # What a rejection looks like
//!
//! gRPC says `UNAUTHENTICATED` where HTTP says 401, and has two places to say it in. Most servers refuse a call before
//! they have answered anything: the status is then in the response headers, and this is all that it takes. It can also
//! come in the *trailers*, behind the body. By then a streaming answer belongs to the caller, who gets the status. An
//! answer to a unary call could still be held back, which is what [`HoldTrailersLayer`] does:
//!
//! | server, and how it refuses | without | with [`HoldTrailersLayer`] |
//! |---|---|---|
//! | tonic: an error in place of an answer, or from an interceptor | sent again | sent again |
//! | tonic: an error inside a stream | the caller's | sent again, if at most one message came before it, and within the limit and the timeout |
//! | grpcio: `context.abort` | sent again | sent again |
//! | grpcio: `context.set_code`, and then an answer | the caller's | sent again |
//! | either: after initial metadata | the caller's | sent again |
//!
//! # When there is no token
//!
//! A call that was never sent fails with a [`TokenError`](crate::TokenError), and `tonic::Status` has codes of its own
//! for that. If a request is a gRPC one (its `content-type` begins with `application/grpc`) and the feature `tonic` is
//! on, the service's error is a `Status`, which generated clients hand on as it is:
//!
//! | the `TokenError` is | the code is |
//! |---|---|
//! | transient, ambiguous | `UNAVAILABLE` |
//! | denied | `UNAUTHENTICATED` |
//! | misconfigured | `FAILED_PRECONDITION` |
//!
//! The `TokenError` is its source, and there only if the call was never sent:
//!
//! ```
//! use std::error::Error;
//!
//! use tower_refresh::TokenError;
//!
//! fn must_log_in(status: &tonic::Status) -> bool {
//!     let error = status.source().and_then(|source| source.downcast_ref::<TokenError>());
//!     error.is_some_and(TokenError::is_denied)
//! }
//! # assert!(must_log_in(&TokenError::denied("the session is over").into()));
//! # assert!(!must_log_in(&tonic::Status::unauthenticated("who are you?")));
//! ```

mod body;
mod future;
mod layer;
mod service;
mod status;

use http::{HeaderMap, header};

pub use self::body::ResponseBody;
pub use self::future::ResponseFuture;
pub use self::layer::HoldTrailersLayer;
pub use self::service::HoldTrailers;
pub(crate) use self::status::for_caller;

/// Returns whether these are the headers of a gRPC request or answer (gRPC over HTTP/2, "Content-Type").
fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
