//! An authorization server with configurable faults, and clocks, for tests.
//!
//! A client of an OAuth 2.0 token endpoint is easy to write and hard to test. The failures that matter are rare: the answer with the
//! next refresh token is lost, two tasks spend one refresh token at once, or the endpoint is down at the moment in which everything
//! expires. [`AuthorizationServer`] produces them on demand, and counts the reactions of the client.
//!
//! | Part | Content |
//! |---|---|
//! | token endpoint | the grants `refresh_token`, `client_credentials` and `password` (RFC 6749). Token exchange (RFC 8693) and `jwt-bearer` (RFC 7523) on behalf of a user |
//! | revocation endpoint | revokes a token, and the log-in of a refresh token (RFC 7009) |
//! | resource | accepts the access tokens as bearer tokens (RFC 6750) |
//!
//! Use the server as [tower services](AuthorizationServer::service), which need no socket and run in tokio's paused time, or over
//! [a socket](AuthorizationServer::serve).
//!
//! [`store_laws`] tests a [`TokenStore`](crate::store::TokenStore) of your own.
//!
//! # Examples
//!
//! A client that sends a request twice if the first answer does not arrive, as many HTTP clients can. Is that safe for a refresh
//! token?
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, StatusCode, header};
//! use http_body_util::Full;
//! use tower::ServiceExt;
//! use tower_refresh::testing::{AuthorizationServer, Fault, ServerService};
//!
//! // The client under test.
//! async fn refresh(server: ServerService, refresh_token: &str) -> Option<StatusCode> {
//!     for _attempt in 0..2 {
//!         let form = format!("grant_type=refresh_token&refresh_token={refresh_token}");
//!         let request = Request::post("https://auth.example.com/token")
//!             .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
//!             .body(Full::<Bytes>::from(form))
//!             .unwrap();
//!         if let Ok(response) = server.clone().oneshot(request).await {
//!             return Some(response.status());
//!         }
//!     }
//!     None
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() {
//!     let server = AuthorizationServer::new();
//!     let session = server.issue();
//!     let refresh_token = session.refresh_token().unwrap().expose_secret();
//!
//!     // The connection ends before the server has processed the token: sending it again works.
//!     server.token_faults().once(Fault::drop_connection());
//!     assert_eq!(refresh(server.token_service(), refresh_token).await, Some(StatusCode::OK));
//!
//!     // It ends after the token was spent: sending it again looks like theft, and logs the user out.
//!     let session = server.issue();
//!     let refresh_token = session.refresh_token().unwrap().expose_secret();
//!     server.token_faults().once(Fault::drop_connection().after_processing());
//!     assert_eq!(
//!         refresh(server.token_service(), refresh_token).await,
//!         Some(StatusCode::BAD_REQUEST),
//!     );
//!     assert_eq!(server.counters().refresh_token_reuses, 1);
//!     assert_eq!(server.counters().families_revoked, 1);
//!     assert!(!server.is_live(session.access_token().expose_secret()));
//! }
//! ```
//!
//! With a [`RefreshLayer`](crate::RefreshLayer), the same server is both the token endpoint and the API:
//!
//! ```
//! use http::{Request, StatusCode};
//! use http_body_util::Empty;
//! use bytes::Bytes;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_refresh::RefreshLayer;
//! use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
//! use tower_refresh::testing::AuthorizationServer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let server = AuthorizationServer::new();
//! let endpoint = TokenEndpoint::new(server.token_service(), "https://auth.example.com/token")?;
//! let source = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
//! let client = ServiceBuilder::new()
//!     .layer(RefreshLayer::new(source).origin("https://api.example.com")?)
//!     .service(server.resource_service());
//!
//! for _ in 0..2 {
//!     let request = Request::get("https://api.example.com/things").body(Empty::<Bytes>::new())?;
//!     let response = client.clone().oneshot(request).await?;
//!     assert_eq!(response.status(), StatusCode::OK);
//!     // The next request is rejected, and the client refreshes the token.
//!     server.revoke_all_access_tokens();
//! }
//! assert_eq!(server.counters().token_requests, 2);
//! assert_eq!(server.counters().resource_requests_unauthorized, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Settings
//!
//! [`Rotation`] determines the handling of used refresh tokens:
//!
//! | Rotation | Effect of a use | Effect of a reuse |
//! |---|---|---|
//! | [`Strict`](Rotation::Strict), the default | spends the token | revokes all tokens of the log-in |
//! | [`Grace`](Rotation::Grace) | spends the token | returns the same successor for a while, then as `Strict` |
//! | [`Never`](Rotation::Never) | none | not possible |
//!
//! The [builder](AuthorizationServerBuilder) sets lifetimes (milliseconds are possible), the required client authentication, whether
//! a new access token [revokes](AuthorizationServerBuilder::revokes_previous) the previous one, and more.
//!
//! # Faults
//!
//! Order a [`Fault`] through [`token_faults`](AuthorizationServer::token_faults) or
//! [`resource_faults`](AuthorizationServer::resource_faults) at any time: for [one](Faults::once) request,
//! [several](Faults::times), [a window of time](Faults::during), the requests that [a closure](Faults::when) selects, or
//! [all](Faults::always).
//!
//! | Fault | Cause in production |
//! |---|---|
//! | [`status`](Fault::status) with [`header`](Fault::header) and [`body`](Fault::body) | the page of a proxy, the 403 of a firewall, a 200 with invalid content |
//! | [`unavailable`](Fault::unavailable), with or without [`retry_after`](Fault::retry_after) | a deployment, an overload |
//! | [`oauth_error`](Fault::oauth_error) | an error code that this server does not return by itself |
//! | [`drop_connection`](Fault::drop_connection) | a crash, the idle timeout of a load balancer |
//! | [`hang`](Fault::hang) | a network that loses packets |
//! | [`normal`](Fault::normal) with [`delay`](Fault::delay) | a slow server |
//! | … with [`delay_body`](Fault::delay_body) | an answer in two packets |
//! | … with [`drip`](Fault::drip) | a server that sends single bytes, within any idle timeout |
//! | … with [`truncate`](Fault::truncate) | a connection that ends in the middle of an answer |
//!
//! By default, the request is not processed. With [`after_processing`](Fault::after_processing), it is, and only the answer is lost,
//! which can lose a refresh token.
//!
//! # The protected resource
//!
//! It answers 401 to an invalid token, with a challenge as in RFC 6750 §3.1. To a valid token it answers 200 with the body of the
//! request, and with the headers `echo-method`, `echo-path`, `echo-length` (of the body, in bytes), `echo-token` (the number of
//! the token, such as `at-3`, not the token itself), `echo-log-in` ([the number of the log-in](AuthorizationServer::log_in_of) that it
//! is for) and `echo-audience` ([the audiences](AuthorizationServer::audience_of) of an exchanged token).
//!
//! Words in the path change the answer. They can be combined, at any place in the path: `/late/20/unauthorized`.
//!
//! | Path | Answer |
//! |---|---|
//! | `/unauthorized` | 401, even for a valid token |
//! | `/forbidden` | 403 with `error="insufficient_scope"` |
//! | `/status/418` | this status, if the token is valid |
//! | `/delay/250` | 250 ms later; the token is checked on arrival |
//! | `/late/20` | the head at once, the body 20 ms later |
//! | `/size/20000` | a body of 20,000 bytes, also for a 401 |
//! | `/early` | without waiting for the body of the request |
//!
//! # Counters
//!
//! [`Counters`] is a snapshot: token requests by grant and by outcome, the uses of each refresh token, reuses, revoked families,
//! resource requests by outcome, connections. Express the guarantees of a client as assertions over them, such as one token request
//! for a thousand requests, and no reuse.
//!
//! Tokens have a number (`at-3-…`, `rt-2-…`) for readable logs, and a random part, so that a client cannot guess them. `Debug` shows
//! no tokens.
//!
//! # Time
//!
//! Tokens expire by the server's [clock](AuthorizationServerBuilder::clock). Delays use tokio's timer. In tokio's paused time,
//! [`TokioClock`] keeps both together, also for the client: `RefreshPolicy::default().clock(clock)`. [`ManualClock`] tests a wall clock
//! that is set forward or back, and a machine that is suspended. The server uses only the monotonic reading, as if it ran on another
//! machine.
//!
//! Over a socket, do not pause tokio's time: it would advance while bytes are on their way.
//!
//! # Limits
//!
//! This server is for tests. It keeps all tokens in memory and in the clear, has no rate limits, and does not compare secrets in
//! constant time. It listens on loopback only, without TLS. There is no authorization endpoint and no browser: a test logs in with
//! [`issue`](AuthorizationServer::issue). It is strict where RFC 6749 is. For interoperability, test against another implementation as
//! well.

mod body;
mod client;
mod clock;
mod counters;
mod fault;
mod faults;
mod form;
mod resource;
mod server;
mod service;
mod serving;
mod shared;
#[cfg(feature = "store")]
mod store_laws;
mod token_endpoint;
mod tokens;

pub use self::body::{ConnectionDropped, ResponseBody};
pub use self::clock::{ManualClock, TokioClock};
pub use self::counters::Counters;
pub use self::fault::Fault;
pub use self::faults::Faults;
pub use self::server::{AuthorizationServer, AuthorizationServerBuilder};
pub use self::service::{ResponseFuture, ServerService};
pub use self::serving::Serving;
#[cfg(feature = "store")]
#[cfg_attr(docsrs, doc(cfg(feature = "store")))]
pub use self::store_laws::store_laws;
pub use self::tokens::Rotation;
