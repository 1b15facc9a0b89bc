//! A [tower](https://docs.rs/tower) layer that attaches an OAuth access token to requests and keeps it fresh.
//!
//! A program that calls an API with an access token must attach the token, notice that it is about to expire or was rejected,
//! get a new one *once* however many requests are in flight, and send the rejected request again. It must never lose the
//! refresh token, which most servers let a client use only once. [`RefreshLayer`] does that job:
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
//! // `connector` is any that connects with TLS, such as that of hyper-rustls in the README.
//! let http = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
//!
//! // Where tokens come from.
//! let endpoint = TokenEndpoint::new(http.clone(), "https://auth.example.com/oauth2/token")?
//!     .client_auth(ClientAuth::basic("my-client", std::env::var("CLIENT_SECRET")?));
//! let source = RefreshTokenGrant::new(endpoint, std::env::var("REFRESH_TOKEN")?);
//!
//! // Where they go.
//! let client = ServiceBuilder::new()
//!     .layer(RefreshLayer::new(source).origin("https://api.example.com")?)
//!     .service(http);
//!
//! let request = Request::get("https://api.example.com/v1/me").body(Full::default())?;
//! let response = client.oneshot(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The client is a plain type, such as `Refresh<Client<HttpConnector, Full<Bytes>>>` here, so that it can be a field of a
//! struct: see [`Refresh`].
//!
//! # What happens to a request
//!
//! 1. **May it carry the token?** A request carries the token only to a named [origin](RefreshLayer::origin). Other requests
//!    are sent unchanged.
//! 2. **Is there a token?** A *fresh* token is attached, without a lock. A *stale* token (about to expire) is attached too, and
//!    refreshed in the background. The request waits only if there is no token or if it has expired.
//! 3. **Is the token rejected?** Any response that does not reject the token ([`Classify`]) is returned unchanged.
//! 4. If it is rejected, the token is refreshed, unless another request has already caused that, and the request is sent again, once.
//!    If there is no newer token, or if the request cannot be sent again, the response is returned unchanged.
//!
#![doc = include_str!("docs/pictures/request.svg")]
//!
//! # The life of a token
//!
//! Idle credentials refresh nothing: a request notices that the token is stale or has expired. [`RefreshPolicy`] sets the times.
//!
#![doc = include_str!("docs/pictures/token.svg")]
//!
//! # Bodies
//!
//! The request's body keeps its type, which must be one that can be sent twice ([`ReplayBody`]): a body in memory, or a stream
//! that is boxed with the error [`BoxError`] or in a [`Replayable`]. The frames of a stream are kept while the first attempt sends them, up to
//! [a limit](RefreshLayer::replay_limit). Nothing is read ahead, and nothing waits for a first message.
//!
//! When a response accepts the token, the kept frames are released. When a response rejects the token before the body has ended,
//! the body pauses. With a newer token, the first attempt ends with an error, never as if it were complete. The second attempt
//! sends the kept frames and then the rest. Over the limit, the rejection is returned.
//!
//! # Overview
//!
//! | Task | Item |
//! |---|---|
//! | Obtain tokens from an OAuth 2.0 token endpoint | the grants in [`oauth2`] |
//! | Act on behalf of users: token exchange, Microsoft Entra ID's on-behalf-of | [a guide](oauth2#on-behalf-of-a-user) |
//! | Obtain tokens from elsewhere | a closure ([`source_fn`]), [`TokenFile`], [`StaticToken`], or your own [`TokenSource`] |
//! | Keep tokens across restarts; share them among processes and machines | [`store`](store/index.html) (features `file-store`, `redis`, `postgres`, …) |
//! | Log in again once the refresh token is denied | [`TokenSource::or_else`] |
//! | Share one token among clients, log in and out, watch events | [`Credentials`] |
//! | Show the state in a health endpoint or a line | [`Credentials::status`], [`Status`] |
//! | Find out why a request has no token, and whether the user must log in | [`TokenError::of`], with reqwest [`ReqwestError::token_error`](reqwest/enum.ReqwestError.html#method.token_error), and [`TokenError::must_log_in`] |
//! | Refresh after a repair, during a backoff | [`Credentials::refresh_now`] |
//! | Use a client that is not a tower service: Kafka, PostgreSQL, a WebSocket | [`Credentials::tokens`], [`Credentials::rejected`] |
//! | Use the token of the user that a request is for | [`CredentialsPool`](struct.CredentialsPool.html), [`RefreshLayer::keyed`](struct.RefreshLayer.html#method.keyed) (feature `pool`) |
//! | Configure when to refresh and how long to wait | [`RefreshPolicy`] |
//! | Configure which responses reject a token | [`Unauthorized`], [`Classify`] |
//! | Send streams and bodies of other types again | [`Replayable`], [`RefreshLayer::replay_limit`], [`RefreshLayer::replay_with`], [`ReplayBody`] |
//! | Find the cause of a trouble in the logs | [`docs::logs`] |
//! | Configure a single request | [`Skip`], [`ReplayLimit`] |
//! | Send requests with reqwest's own builder | [`reqwest::ReqwestClient`](reqwest/struct.ReqwestClient.html) (feature `reqwest`) |
//! | Call gRPC services | [`grpc`](grpc/index.html) (feature `tonic`) |
//! | Measure refreshes, requests and stores; dashboard and alerts | [`docs::metrics`](docs/metrics/index.html) (feature `metrics`) |
//! | Test against an authorization server with faults | [`testing`](testing/index.html) (feature `testing`) |
//! | Find the cause of a compiler error | [`docs::compiler_errors`] |
//!
//! # Layer order
//!
//! An outer layer sees the request first. Redirects and retries belong outside of this layer, limits of concurrency inside: the
//! [guide](docs::layer_order) gives the position of each layer, with the reason.
//!
//! # When there is no token
//!
//! The service's error is boxed, as with tower's `Timeout` and `Buffer`. If the request was never sent, it is a [`TokenError`].
//!
//! If the request was sent and its token rejected, the response is returned. If there is no newer token, the reason is a
//! [`TokenError`] in the extensions of the response.
//!
//! [`TokenError::of`] finds the reason in both, and in an error that another layer has wrapped:
//!
//! ```
//! use http::Response;
//! use tower_refresh::{BoxError, TokenError};
//!
//! fn must_log_in<B>(result: &Result<Response<B>, BoxError>) -> bool {
//!     TokenError::of(result).is_some_and(TokenError::must_log_in)
//! }
//! ```
//!
//! A log-in or a log-out also denies the requests that were made before it. That is no reason to log in
//! ([`TokenError::must_log_in`] is false, [`TokenError::is_session_over`] is true): see [`Credentials`].
//!
//! With the feature `tonic`, the error of a gRPC request is a `tonic::Status` whose source is the `TokenError`
//! ([`TokenError::find`]). Generated clients report any other error as `UNKNOWN`, also that of a timeout: see the module `grpc`.
//!
//! # gRPC
//!
//! With the feature `tonic`, the layer wraps a tonic `Channel`, and a generated client wraps the layer. All four kinds of
//! calls work, and are made again if their token is rejected before the first message of the response. Some servers report a
//! rejection in the trailers, after the head of the response. For these, add `grpc::HoldTrailersLayer` below this layer: see
//! the module `grpc`.
//!
//! # Before the program ends
//!
//! A refresh runs in a task of its own, and its response is the only copy of the next refresh token. Await
//! [`Credentials::flush`] before the runtime ends. With a `store`, the refresh token outlives the program, and `flush` returns
//! an error if a token could not be saved.
//!
//! # Features
//!
//! | Feature | Adds |
//! |---|---|
//! | `oauth2` (default) | [`oauth2`]: sources for token endpoints |
//! | `tracing` (default) | [log lines and spans](docs::logs) for `tracing`, without secrets |
//! | `metrics` | [metrics](docs::metrics) for a recorder of the facade `metrics` |
//! | `pool` | [`CredentialsPool`](struct.CredentialsPool.html): credentials by key, for many users |
//! | `store` | `store`: token sets are saved before they are used; in memory, and for your own stores |
//! | `file-store` | `store::FileStore`, for the processes of one machine; enables `store` |
//! | `redis` | `store::RedisStore`, for several machines; enables `store` |
//! | `postgres` | `store::PostgresStore`, for several machines; enables `store` |
//! | `encrypted-store` | `store::EncryptedStore`: encryption at rest over any store; enables `store` |
//! | `hyper-util` | recognises connection errors of hyper-util's client, which prove that a refresh token was not sent; enables `oauth2` |
//! | `decompression` | decodes a token endpoint's response in gzip or deflate, which some servers send unasked; enables `oauth2` |
//! | `serde` | [`Status`], `PoolStatus` and [`TokenError`] implement `Serialize`, [`RefreshPolicy`] `Serialize` and `Deserialize` |
//! | `testing` | `testing`: an authorization server with faults, and clocks that are set by hand |
//! | `axum` | axum's body can be sent again |
//! | `reqwest` | `reqwest`: requests of reqwest's own builder, and its client as a service of `http` types; its body can be sent again |
//! | `reqwest-middleware` | `reqwest::RefreshMiddleware`: a middleware of the crate reqwest-middleware; enables `reqwest` |
//! | `tonic` | `grpc`: calls over tonic are made again, their errors are statuses, and trailers can be held |
//! | `full` | all of them |
//!
//! A feature adds API and never changes behaviour, with three exceptions: `tonic` makes the errors of gRPC requests statuses,
//! `hyper-util` recognises more errors, and `decompression` reads more responses. No feature adds TLS. No feature adds an HTTP
//! client except `reqwest`, which enables the features `form`, `json` and `query` of reqwest. The others are yours to choose.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod acquire;
mod attach;
mod attempt;
mod classify;
mod clock;
mod config;
mod credentials;
#[cfg(any(doc, doctest))]
pub mod docs;
mod drain;
mod error;
mod find;
mod future;
mod grant;
#[cfg(feature = "tonic")]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
pub mod grpc;
mod layer;
#[cfg_attr(
    not(any(feature = "oauth2", feature = "store")),
    allow(dead_code, reason = "a whole exchange is for a token endpoint or a store")
)]
mod limit;
mod lock;
mod metrics;
#[cfg(feature = "oauth2")]
#[cfg_attr(docsrs, doc(cfg(feature = "oauth2")))]
pub mod oauth2;
mod origin;
#[cfg(feature = "pool")]
mod pool;
pub mod replay;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub mod reqwest;
mod service;
mod skip;
mod slow;
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
pub use self::clock::{Clock, Timestamp};
pub use self::credentials::{
    Credentials, CredentialsBuilder, Event, Events, IntoCredentials, OnUnavailable, RefreshPolicy,
    Status, TokenStatus,
};
pub use self::error::{BoxError, TokenError, TokenErrorKind};
pub use self::find::FindCredentials;
pub use self::future::ResponseFuture;
pub use self::layer::RefreshLayer;
pub use self::origin::OriginError;
#[cfg(feature = "pool")]
#[cfg_attr(docsrs, doc(cfg(feature = "pool")))]
pub use self::pool::{
    CredentialsPool, CredentialsPoolBuilder, Keyed, MakeCredentials, OutageStatus, PoolEvent,
    PoolEvents, PoolKey, PoolStatus, RequestHead,
};
pub use self::replay::{
    ByType, NoRetry, ReplayBody, ReplayLimit, ReplayWith, Replayable, Retry, StreamSpare,
};
pub use self::service::Refresh;
pub use self::skip::Skip;
pub use self::source::{
    BoxTokenSource, Cause, Fallback, FallbackError, Renewal, SourceInfo, StaticToken, TokenFile,
    TokenSource, source_fn,
};
pub use self::token::{AccessToken, RefreshToken, TokenSet};

/// The examples of the README.
#[cfg(all(doctest, feature = "file-store", feature = "oauth2", feature = "pool"))]
#[doc = include_str!("../README.md")]
struct Readme;
