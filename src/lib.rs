//! A [tower](https://docs.rs/tower) layer that attaches an OAuth access token to requests and keeps it fresh.
//!
//! A program that calls an API must attach its access token, notice that it is about to expire or was rejected, get a new
//! one *once* however many requests are in flight, send the rejected request again, and never lose the refresh token,
//! which most servers let a client spend only once. [`RefreshLayer`] is that job:
//!
//! ```toml
//! [dependencies]
//! bytes = "1"
//! http = "1"
//! http-body-util = "0.1"
//! hyper-util = { version = "0.1", features = ["client-legacy", "http1", "http2", "tokio"] }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! tower = { version = "0.5", features = ["util"] }
//! tower-refresh = { version = "0.1", features = ["hyper-util"] }
//! ```
//!
//! ```no_run
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use hyper_util::client::legacy::Client;
//! use hyper_util::rt::TokioExecutor;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_refresh::RefreshLayer;
//! use tower_refresh::oauth2::{ClientAuth, RefreshTokenGrant, TokenEndpoint};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_refresh::BoxError> {
//! # let connector = hyper_util::client::legacy::connect::HttpConnector::new();
//! // Bring a client that can do https, such as hyper with hyper-rustls.
//! let http = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
//!
//! // Where tokens come from.
//! let endpoint = TokenEndpoint::new(http.clone(), "https://auth.example.com/oauth2/token")?
//!     .client_auth(ClientAuth::basic("my-client", std::env::var("CLIENT_SECRET")?));
//! let source = RefreshTokenGrant::new(endpoint, std::env::var("REFRESH_TOKEN")?);
//!
//! // Where they go.
//! let client = ServiceBuilder::new()
//!     .layer(RefreshLayer::new(source).origin("https://api.example.com"))
//!     .service(http);
//!
//! let request = Request::get("https://api.example.com/v1/me").body(Full::default())?;
//! let answer = client.oneshot(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What happens to a request
//!
//! 1. **May it carry the token?** Only to an [origin](RefreshLayer::origin) that was named. Requests elsewhere pass
//!    untouched.
//! 2. **Is there a token?** A *fresh* one is attached, without a lock. A *stale* one (about to expire) is attached
//!    too, while it is renewed behind the requests. Only if there is none, or it has expired, the request waits.
//! 3. **What does the answer say?** Whatever does not reject the token ([`Classify`]) is the caller's.
//! 4. **Rejected:** the token is renewed, unless somebody did so meanwhile, and the request is sent again, once. If there is
//!    no newer token, or the request cannot be sent again, the caller gets the answer as it is.
//!
//! # Bodies
//!
//! The request's body keeps its type, which must be one that can be sent twice ([`ReplayBody`]): in memory, or a stream in
//! a box or in a [`Replayable`]. Of a stream, what the first attempt sends is kept as it goes by, up to
//! [a limit](RefreshLayer::replay_limit); nothing is read ahead, and nothing waits for a first message. As soon as the
//! answer accepts the token, all of that is let go. If it rejects the token before the body has ended, the body pauses; with
//! a newer token the first attempt is broken off, never ended as if it were complete, and the second sends what was kept
//! and then the rest. Over the limit the rejection is the caller's.
//!
//! # The pieces
//!
//! | to | use |
//! |---|---|
//! | obtain tokens from an OAuth 2.0 token endpoint | the grants in [`oauth2`] |
//! | obtain them from elsewhere | a closure ([`source_fn`]), [`TokenFile`], [`StaticToken`], or a [`TokenSource`] of your own |
//! | keep tokens across restarts; share them among processes and machines | [`store`](store/index.html) (features `file-store`, `redis`, …) |
//! | log in again once the refresh token is gone | [`TokenSource::or_else`] |
//! | share one token among several clients; log in and out; watch | [`Credentials`] |
//! | say when to renew, how long to wait | [`RefreshPolicy`] |
//! | say which answers reject a token | [`Unauthorized`], [`Classify`] |
//! | send streams and bodies of other types again | [`Replayable`], [`RefreshLayer::replay_limit`], [`RefreshLayer::replay_with`], [`ReplayBody`] |
//! | leave one request alone, or keep more of it | [`Skip`], [`ReplayLimit`] |
//! | send through reqwest | [`reqwest::ReqwestService`](reqwest/struct.ReqwestService.html) (feature `reqwest`) |
//! | call gRPC services | [`grpc`](grpc/index.html) (feature `tonic`) |
//! | test against a server that goes wrong when told to | [`testing`](testing/index.html) (feature `testing`) |
//!
//! # Layer order
//!
//! Above is outside: what a request passes first.
//!
//! | layer | put it | because |
//! |---|---|---|
//! | redirect | outside | each hop is then checked by the origin rule, and a foreign one gets no token |
//! | retry | outside | each attempt then goes out with the token of the day; beneath, it repeats the one that it was given |
//! | timeout | either | outside it counts the wait for a token and the second attempt too, and stops no refresh; beneath it counts each attempt |
//! | concurrency limit | beneath | a request that waits for a token then holds no permit |
//! | buffer | beneath, if the client is not `Clone` | outside it is needed only to share what is not `Clone` |
//! | load shed | outside, over the limit | beneath, an overload is an error of the second attempt as well |
//! | tracing | either | outside it sees requests without a token; beneath it sees each attempt, with a header marked sensitive |
//!
//! The HTTP client that a [token endpoint](oauth2::TokenEndpoint) uses must not pass through the layer that it feeds; such
//! recursion is an error that says so.
//!
//! # When there is no token
//!
//! The service's error is a boxed one, as with tower's `Timeout` and `Buffer`. A [`TokenError`] downcasts out of it, and
//! comes only when the request was never sent:
//!
//! ```
//! use tower_refresh::{BoxError, TokenError};
//!
//! fn must_log_in(error: &BoxError) -> bool {
//!     let error = error.downcast_ref::<TokenError>();
//!     error.is_some_and(|error| error.is_denied() && !error.is_session_over())
//! }
//! ```
//!
//! If the request was sent and its token rejected, the response reaches the caller. If there is no newer token, the reason is a
//! [`TokenError`] in the extensions of the response:
//!
//! ```
//! use tower_refresh::TokenError;
//!
//! fn reason<B>(response: &http::Response<B>) -> Option<&TokenError> {
//!     response.extensions().get()
//! }
//! ```
//!
//! A log-in or a log-out also denies the requests that were made before it, which is no reason to log in
//! ([`TokenError::is_session_over`]): see [`Credentials`].
//!
//! Where the request is a gRPC one, and the feature `tonic` is on, it is a `tonic::Status` with the `TokenError` as its
//! source: generated clients make `UNKNOWN` of everything else.
//!
//! # gRPC
//!
//! With the feature `tonic` the layer goes over a tonic `Channel`, and a generated client over the layer. All four
//! kinds of call work, and are made again if their token was rejected before anything was answered. Servers that answer
//! first and say so behind it, in the trailers, want `grpc::HoldTrailersLayer` beneath; the `grpc` module says more.
//!
//! # Before the program ends
//!
//! A refresh runs in a task of its own, and its answer is the only copy of the next refresh token. Await
//! [`Credentials::flush`] before the runtime goes. With a `store` the refresh token outlives the program; what could not be
//! saved is the error that `flush` returns.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `oauth2` (default) | [`oauth2`]: sources for token endpoints |
//! | `tracing` (default) | events for `tracing`, none of them with a secret |
//! | `store` | `store`: token sets are saved before they are used; in memory, and for stores of one's own |
//! | `file-store` | `store::FileStore`, for the processes of one machine; with `store` |
//! | `redis` | `store::RedisStore`, for a fleet; with `store` |
//! | `encrypted-store` | `store::EncryptedStore`: encryption at rest over any store; with `store` |
//! | `hyper-util` | errors of connecting of hyper-util's client prove that a refresh token was not sent; with `oauth2` |
//! | `decompression` | a token endpoint's answer that is gzip or deflate, although that was not asked for, is decoded; with `oauth2` |
//! | `testing` | `testing`: an authorization server with faults to order, and clocks to set by hand |
//! | `axum` | axum's body can be sent again |
//! | `reqwest` | `reqwest`: reqwest's client as a service of `http` types; its body can be sent again |
//! | `tonic` | `grpc`: calls over tonic are sent again, their errors are statuses, and trailers can be held |
//! | `full` | all of them |
//!
//! A feature adds API and never changes behaviour, except that `tonic` makes the errors of gRPC requests statuses, that
//! `hyper-util` recognises errors, and that `decompression` reads more answers. There is no TLS in any of them, and no HTTP client but for `reqwest`, whose own features are yours to choose.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod attach;
mod classify;
mod clock;
mod credentials;
mod error;
mod future;
#[cfg(feature = "tonic")]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
pub mod grpc;
mod layer;
#[cfg_attr(
    not(any(feature = "oauth2", feature = "store")),
    allow(dead_code, reason = "a whole exchange is for a token endpoint or a store")
)]
mod limit;
#[cfg(feature = "oauth2")]
#[cfg_attr(docsrs, doc(cfg(feature = "oauth2")))]
pub mod oauth2;
mod origin;
mod replay;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub mod reqwest;
mod service;
mod source;
#[cfg(feature = "store")]
#[cfg_attr(docsrs, doc(cfg(feature = "store")))]
pub mod store;
mod target;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod token;
mod trace;

pub use self::classify::{Challenge, Classify, Unauthorized, Verdict};
pub use self::clock::{Clock, Now};
pub use self::credentials::{Credentials, Event, Events, RefreshPolicy, Status, TokenStatus};
pub use self::error::{BoxError, TokenError};
pub use self::future::ResponseFuture;
pub use self::layer::RefreshLayer;
pub use self::replay::{
    ByType, NoRetry, ReplayBody, ReplayLimit, ReplayWith, Replayable, Retry, StreamSpare,
};
pub use self::service::{Refresh, Skip};
pub use self::source::{
    BoxTokenSource, Cause, Fallback, FallbackError, Renewal, SourceInfo, StaticToken, TokenFile,
    TokenSource, source_fn,
};
pub use self::token::{AccessToken, RefreshToken, TokenSet, TokenSetBuilder};

/// The README's examples compile.
#[cfg(all(doctest, feature = "oauth2"))]
#[doc = include_str!("../README.md")]
struct Readme;
