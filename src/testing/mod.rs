//! An authorization server that goes wrong when told to, for the tests of whatever speaks to one.
//!
//! A client of an OAuth 2.0 token endpoint is easily written and hard to test. What ruins it happens rarely and never
//! on demand: the answer that carries the next refresh token is lost, two tasks spend one refresh token at once, the
//! endpoint is down for the second in which everything expires. [`AuthorizationServer`] does all of that when it is
//! told to, and counts what the client did about it.
//!
//! It is a token endpoint with the grants `refresh_token`, `client_credentials` and `password` (RFC 6749), a
//! revocation endpoint (RFC 7009), and a resource that is protected by the tokens (RFC 6750). It is there twice: as
//! [tower services](AuthorizationServer::service), which need no socket and run in tokio's paused time, and behind
//! [a real one](AuthorizationServer::serve).
//!
//! # Example
//!
//! A client that asks twice when the first answer does not come, as most HTTP clients can be made to. Is that a good
//! idea for a refresh token?
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
//!     // The connection ends before the server has looked at the token: asking again is right.
//!     server.token_faults().once(Fault::drop_connection());
//!     assert_eq!(refresh(server.token_service(), refresh_token).await, Some(StatusCode::OK));
//!
//!     // It ends after the token was spent: asking again looks like theft, and logs the user out.
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
//! With a [`RefreshLayer`](crate::RefreshLayer) the same server plays both parts, the token endpoint and the API:
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
//!     // The server changes its mind, and the client finds out by itself.
//!     server.revoke_all_access_tokens();
//! }
//! assert_eq!(server.counters().token_requests, 2);
//! assert_eq!(server.counters().resource_requests_unauthorized, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Modes
//!
//! [`Rotation`] is what becomes of a refresh token that is used. [`Strict`](Rotation::Strict), the default, is the
//! hardest: every refresh token can be spent once, and whoever spends it again kills everything that came of the same
//! log-in, the newest refresh token and the live access tokens too. [`Grace`](Rotation::Grace) forgives that for a
//! while, and answers with a refresh token that the client may have seen before. [`Never`](Rotation::Never) answers
//! with none, and the client must keep the one it has.
//!
//! The [builder](AuthorizationServerBuilder) sets lifetimes (of milliseconds, if need be), the client authentication
//! that is expected, whether a new access token [revokes](AuthorizationServerBuilder::revokes_previous) the one before,
//! and more.
//!
//! # Faults
//!
//! A [`Fault`] is ordered through [`token_faults`](AuthorizationServer::token_faults) or
//! [`resource_faults`](AuthorizationServer::resource_faults), at any time: for [one](Faults::once) request, for
//! [the next few](Faults::next), for [a window of time](Faults::during), for whatever [a closure](Faults::when)
//! picks, or for [all](Faults::always).
//!
//! | fault | what it is in life |
//! |---|---|
//! | [`status`](Fault::status) with [`header`](Fault::header) and [`body`](Fault::body) | a proxy's page, a firewall's 403, a 200 with nonsense in it |
//! | [`unavailable`](Fault::unavailable), with or without [`retry_after`](Fault::retry_after) | a deployment, an overload |
//! | [`oauth_error`](Fault::oauth_error) | an error code that the server would not come to by itself |
//! | [`drop_connection`](Fault::drop_connection) | a crash, a load balancer's idle timeout |
//! | [`hang`](Fault::hang) | a network that swallows packets |
//! | [`honest`](Fault::honest) and [`delay`](Fault::delay) | a slow server |
//! | … and [`late_body`](Fault::late_body) | an answer in two packets, the second a little later |
//! | … and [`drip`](Fault::drip) | a server that sends a byte now and then, under any idle timeout |
//! | … and [`cut`](Fault::cut) | a connection that ends in the middle of an answer |
//!
//! All of them strike before the request has counted, or, with [`after_processing`](Fault::after_processing), when it
//! has. The second is the one that loses refresh tokens.
//!
//! # The protected resource
//!
//! It answers 401 to a token that is not alive, with a challenge as RFC 6750 §3.1 wants it. To one that is, it answers
//! 200 with the body of the request, and with the headers `echo-method`, `echo-path`, `echo-length` (of the body, in
//! bytes) and `echo-token` (which token it saw, such as `at-3`, not the token itself).
//!
//! Words in the path ask for something else. They can be combined, and go anywhere in it: `/late/20/unauthorized`.
//!
//! | path | answer |
//! |---|---|
//! | `/unauthorized` | 401, whatever the token |
//! | `/forbidden` | 403 with `error="insufficient_scope"` |
//! | `/status/418` | this status, if the token is good |
//! | `/delay/250` | 250 ms later; the token is judged on arrival |
//! | `/late/20` | the head at once, the body 20 ms later |
//! | `/size/20000` | a body of 20,000 bytes, 401s included |
//! | `/early` | without waiting for the request's body |
//!
//! # Counters
//!
//! [`Counters`] is a snapshot of what happened: token requests by grant and by outcome, the uses of each refresh token,
//! reuses, families revoked, resource requests by outcome, connections. The promises of a client are equations over
//! them, such as one token request for a thousand requests, and no reuse ever.
//!
//! Tokens are numbered (`at-3-…`, `rt-2-…`), so that a log can be read, and otherwise random, so that no client gets
//! anywhere by guessing. `Debug` shows none of them.
//!
//! # Time
//!
//! Tokens expire by the server's [clock](AuthorizationServerBuilder::clock), delays and drips take their time from
//! tokio. In tokio's paused time [`TokioClock`] makes the two one, for the client as well:
//! `RefreshPolicy::default().clock(clock)`. [`ManualClock`] tests what no timer can: a wall clock that is set forward
//! or back, a machine that was suspended. The server takes the monotonic reading only, as if it ran somewhere else.
//!
//! Behind a socket, do not pause tokio's time: it jumps ahead while the bytes are on their way.
//!
//! # What it is not
//!
//! Not an authorization server. It keeps every token it ever issued in memory and in the clear, limits nothing, and
//! compares secrets in no constant time. It listens on loopback only, without TLS. There is no authorization endpoint
//! and no browser: a test logs in with [`issue`](AuthorizationServer::issue). It is strict where RFC 6749 is, and as
//! helpful as real servers are where it is not: to test against one that is somebody else's, take one that is.

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
