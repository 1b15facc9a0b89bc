//! reqwest through the layer: with its own builder, as a middleware, or as a service of `http` types.
//!
//! `reqwest::Client` has no place for a layer: its builder sends a request straight to the client. [`ReqwestClient`] has the same
//! methods, and sends each request through a [`RefreshLayer`](crate::RefreshLayer). The response is reqwest's own.
//!
//! ```toml
//! [dependencies]
//! reqwest = "0.13"
//! serde = { version = "1", features = ["derive"] }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! tower-refresh = { version = "0.1", features = ["reqwest"] }
//! ```
//!
//! TLS comes from the features of your own `reqwest` dependency, by default `default-tls`. The feature `reqwest` of this crate
//! enables `form`, `json` and `query` and no other.
//!
//! ```no_run
//! use serde::Deserialize;
//! use tower_refresh::RefreshLayer;
//! # #[cfg(feature = "oauth2")]
//! use tower_refresh::oauth2::{ClientAuth, RefreshTokenGrant, TokenEndpoint};
//! use tower_refresh::reqwest::{ReqwestClient, ReqwestService};
//!
//! #[derive(Deserialize)]
//! struct User {
//!     name: String,
//! }
//!
//! # #[cfg(feature = "oauth2")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_refresh::BoxError> {
//! let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
//!
//! // Where tokens come from.
//! let endpoint = TokenEndpoint::new(ReqwestService::new(http.clone()), "https://auth.example.com/oauth2/token")?
//!     .client_auth(ClientAuth::basic("my-client", std::env::var("CLIENT_SECRET")?));
//! let grant = RefreshTokenGrant::new(endpoint, std::env::var("REFRESH_TOKEN")?);
//!
//! // Where they go.
//! let layer = RefreshLayer::new(grant).origin("https://api.example.com")?;
//! let credentials = layer.credentials().clone();
//! let client = ReqwestClient::new(http, layer);
//!
//! let request = client.get("https://api.example.com/v1/me").query(&[("fields", "name")]);
//! let me: User = request.send_ok().await?.json().await?;
//! println!("{}", me.name);
//!
//! // Waits for a refresh in flight: its response is the only copy of the next refresh token.
//! credentials.flush().await?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "oauth2"))]
//! # fn main() {}
//! ```
//!
//! # Three ways
//!
//! | Type | Program | Requests |
//! |---|---|---|
//! | [`ReqwestClient`] | programs that use reqwest | of reqwest's builder |
//! | [`RefreshMiddleware`](struct.RefreshMiddleware.html) (feature `reqwest-middleware`) | programs that use reqwest-middleware already | of reqwest-middleware's builder |
//! | [`ReqwestService`] | tower stacks, and token endpoints | `http::Request` |
//!
//! All of them can share one `reqwest::Client`, and one [`Credentials`](crate::Credentials). A guide shows
//! [tests without a socket](crate::docs::testing#reqwest-without-a-socket).
//!
//! # Differences to reqwest
//!
//! | Part of reqwest | `ReqwestClient` |
//! |---|---|
//! | `query`, `json`, `form`, `header`, `version` and others of the builder | unchanged |
//! | `multipart`, and methods of later versions | through [`map`](RequestBuilder::map) |
//! | `send().await?.error_for_status()?` | [`send_ok`](RequestBuilder::send_ok), which keeps the reason of a 401: `error_for_status` drops it |
//! | the response: `url`, `error_for_status`, `json`, `cookies`, `upgrade`, … | reqwest's own type, unchanged |
//! | cookies, proxies, default headers, compression, redirects | unchanged, below the layer |
//! | time limits of the client and of a request | apply to each attempt, and not to the wait for a token |
//! | `bearer_auth`, `basic_auth` | unchanged: the layer leaves a request with its own `Authorization` alone |
//! | `Authorization` among the default headers of the client | replaced by the token, in requests to named origins |
//! | a body that is a stream | streamed, and sent again after a rejection, up to [a limit](crate::RefreshLayer::replay_limit) |
//! | `ClientBuilder::retry` | repeats an attempt below the layer, with the same token |
//! | the error of `send` and `send_ok` | a [`ReqwestError`], without the query of the URL |
//! | the errors of `error_for_status`, `json`, … | reqwest's own, with the whole URL |
//!
//! # Time limits
//!
//! For a limit that includes the wait for a token and the second attempt, put a layer around the `RefreshLayer`:
//!
//! ```
//! use std::time::Duration;
//!
//! use tower::ServiceBuilder;
//! use tower_refresh::RefreshLayer;
//! use tower_refresh::reqwest::ReqwestClient;
//!
//! fn client(http: reqwest::Client, layer: RefreshLayer) -> ReqwestClient {
//!     ReqwestClient::new(http, ServiceBuilder::new().timeout(Duration::from_secs(30)).layer(layer))
//! }
//! ```
//!
//! Its error is a [`ReqwestError::Other`]. [`RefreshPolicy`](crate::RefreshPolicy) limits the wait alone.
//!
//! # When there is no token
//!
//! [`send_ok`](RequestBuilder::send_ok) returns the reason as a [`ReqwestError::Token`], before the request was sent or after a 401. The
//! error can pass through your own functions:
//!
//! ```
//! use tower_refresh::reqwest::{ReqwestClient, ReqwestError};
//!
//! async fn me(client: &ReqwestClient) -> Result<String, ReqwestError> {
//!     Ok(client.get("https://api.example.com/v1/me").send_ok().await?.text().await?)
//! }
//!
//! async fn must_log_in(client: &ReqwestClient) -> bool {
//!     matches!(me(client).await, Err(ReqwestError::Token(error)) if error.must_log_in())
//! }
//! ```
//!
//! With [`send`](RequestBuilder::send), a 401 is a response. [`ReqwestError::token_error`] finds the reason in an error and in a 401, but
//! not in the error that `error_for_status` makes of it.
//!
//! # Single requests
//!
//! An [`extension`](RequestBuilder::extension) configures one request: [`Skip`](crate::Skip), [`ReplayLimit`](crate::ReplayLimit), or
//! the user whose token it carries (feature `pool`):
//!
//! ```
//! # #[cfg(feature = "pool")]
//! # {
//! use tower_refresh::reqwest::{ReqwestClient, ReqwestError};
//! use tower_refresh::{CredentialsPool, OriginError, RefreshLayer};
//!
//! #[derive(Clone, Copy)]
//! struct UserId(u64);
//!
//! fn client(http: reqwest::Client, pool: CredentialsPool<u64>) -> Result<ReqwestClient, OriginError> {
//!     let layer = RefreshLayer::keyed(pool, |request| request.extensions().get().map(|UserId(user)| *user));
//!     Ok(ReqwestClient::new(http, layer.origin("https://api.example.com")?))
//! }
//!
//! async fn notes_of(user: UserId, client: &ReqwestClient) -> Result<String, ReqwestError> {
//!     let request = client.get("https://api.example.com/v1/notes").extension(user);
//!     Ok(request.send_ok().await?.text().await?)
//! }
//! # }
//! ```
//!
//! # Middleware
//!
//! With the feature `reqwest-middleware`, the layer is a middleware of the crate of that name, with all of its guarantees:
//!
//! ```
//! # #[cfg(feature = "reqwest-middleware")]
//! # {
//! use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
//! use tower_refresh::RefreshLayer;
//! use tower_refresh::reqwest::RefreshMiddleware;
//!
//! fn client(http: reqwest::Client, layer: RefreshLayer) -> ClientWithMiddleware {
//!     ClientBuilder::new(http).with(RefreshMiddleware::new(layer)).build()
//! }
//! # }
//! ```
//!
//! - **Order.** Middleware that is added earlier is outer. Add retries and caches before this one: an inner retry repeats the token that
//!   it was given. Both attempts pass through the middleware that is added later.
//! - **Extensions.** The layer sees the extensions of reqwest-middleware, so that `with_extension(Skip::Token)` and
//!   `with_extension(user)` work. Changes that inner middleware makes are kept.
//! - **Bodies.** Streams are sent again. The retries of other middleware, such as those of reqwest-retry, refuse streams.
//! - **Errors.** If there is no token, the source of the error is the `TokenError`. The errors of reqwest are unchanged, and show the
//!   whole URL.
//!
//! # Service
//!
//! [`ReqwestService`] is the client of a [token endpoint](crate::oauth2), and takes the place of an HTTP client in a tower stack:
//!
//! ```no_run
//! use http::Request;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_refresh::reqwest::ReqwestService;
//! use tower_refresh::{RefreshLayer, StaticToken};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_refresh::BoxError> {
//! let api = ServiceBuilder::new()
//!     .layer(RefreshLayer::new(StaticToken::new("sesame".parse()?)).origin("https://api.example.com")?)
//!     .service(ReqwestService::new(reqwest::Client::new()));
//!
//! let request = Request::post("https://api.example.com/v1/notes").body(reqwest::Body::from("a note"))?;
//! let response = api.oneshot(request).await?;
//! // Convert it back to use reqwest's own methods.
//! println!("{}", reqwest::Response::from(response).text().await?);
//! # Ok(())
//! # }
//! ```
//!
//! # Redirects
//!
//! By default, reqwest follows redirects itself, *below* the layer, which has checked the origin of the first URL only. reqwest
//! 0.13 removes `Authorization` if scheme, host or port change, so the token does not leave its origin. Nevertheless, set
//! `redirect::Policy::none()`, and put tower-http's `FollowRedirectLayer` around the layer if redirects must be followed. It follows a
//! 307 or 308 of a request with a body only if its policy clones bodies. The reasons:
//!
//! - reqwest does not remove a token in a [header of its own](crate::RefreshLayer::header).
//! - A 401 from the other origin looks like a rejected token and costs a refresh and a second attempt.
//! - A refresh token must be sent to the token endpoint only. The client of a `TokenEndpoint` must not follow redirects.
//!
//! # Proxies
//!
//! reqwest takes proxies from the environment (`http_proxy`, `all_proxy`, …), for loopback too unless `no_proxy` names it. Over
//! plaintext HTTP, a proxy can read all tokens and client secrets, and may be another machine. For plaintext on loopback, use a
//! client with `no_proxy()`.
//!
//! # Bodies
//!
//! A `ReqwestService` sends any body whose data is `Bytes`. These bodies remain in memory, so that reqwest can send them again after
//! a redirect (307 or 308): `Full<Bytes>`, `Empty<Bytes>`, `String`, and a `reqwest::Body` made from bytes. All other bodies, including the
//! same bytes in a box, are streamed frame by frame with their trailers. reqwest does not send them again, and returns the
//! redirect. Responses are streamed as well.
//!
//! A token request is always streamed, because a refresh token may be sent only once: a 307 or 308 is the token endpoint's
//! response. reqwest follows a 301, 302 or 303 without the body, and any redirect if all parameters are in the query. Unless that
//! leads to tokens, the error names the redirect and never denies the grant. Streaming also shows whether reqwest has sent the
//! request, so that a `TokenEndpoint` knows when it may be repeated.
//!
//! # Limits
//!
//! reqwest takes over method, URI, version, headers, body and its own time limit. Other extensions are dropped, so extended CONNECT
//! (RFC 8441) is not possible. The URI must be absolute and its path must begin with a slash, so `OPTIONS *` is not possible either.

mod body;
mod client;
mod error;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
mod request;
mod response;
mod service;
mod watch;

pub use self::client::ReqwestClient;
pub use self::error::ReqwestError;
#[cfg(feature = "reqwest-middleware")]
pub use self::middleware::RefreshMiddleware;
pub use self::request::RequestBuilder;
pub use self::response::ResponseFuture;
pub use self::service::ReqwestService;
