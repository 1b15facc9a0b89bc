//! reqwest as a service of `http` types.
//!
//! `reqwest::Client` is a tower service of reqwest's own requests and responses. [`ReqwestService`] is a service of
//! `http::Request` and `http::Response`, like everything in this crate. One client can serve below a
//! [`RefreshLayer`](crate::RefreshLayer) and at the token endpoint.
//!
//! ```toml
//! [dependencies]
//! http = "1"
//! reqwest = "0.13"
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! tower = { version = "0.5", features = ["util"] }
//! tower-refresh = { version = "0.1", features = ["reqwest"] }
//! ```
//!
//! TLS comes from the features of your own `reqwest` dependency, by default `default-tls`. The feature `reqwest` of this crate
//! enables none of them.
//!
//! ```no_run
//! use http::Request;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_refresh::RefreshLayer;
//! # #[cfg(feature = "oauth2")]
//! use tower_refresh::oauth2::{ClientAuth, RefreshTokenGrant, TokenEndpoint};
//! use tower_refresh::reqwest::ReqwestService;
//!
//! # #[cfg(feature = "oauth2")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_refresh::BoxError> {
//! let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
//! let http = ReqwestService::new(client);
//!
//! let endpoint = TokenEndpoint::new(http.clone(), "https://auth.example.com/oauth2/token")?
//!     .client_auth(ClientAuth::basic("my-client", std::env::var("CLIENT_SECRET")?));
//! let source = RefreshTokenGrant::new(endpoint, std::env::var("REFRESH_TOKEN")?);
//! let api = ServiceBuilder::new()
//!     .layer(RefreshLayer::new(source).origin("https://api.example.com")?)
//!     .service(http);
//!
//! let request = Request::post("https://api.example.com/v1/notes").body(reqwest::Body::from("a note"))?;
//! let response = api.oneshot(request).await?;
//! // Convert it back to use reqwest's own methods.
//! println!("{}", reqwest::Response::from(response).text().await?);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "oauth2"))]
//! # fn main() {}
//! ```
//!
//! # Redirects
//!
//! By default, reqwest follows redirects itself, *below* the layer, which has checked the origin of the first URL only. reqwest
//! 0.13 removes `Authorization` if scheme, host or port change, so the token does not leave its origin. Nevertheless, set
//! `redirect::Policy::none()`, and use tower-http's `FollowRedirectLayer` outside the layer if redirects must be followed:
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
//! Any body whose data is `Bytes` can be sent. These bodies remain in memory, so that reqwest can send them again after a redirect
//! (307 or 308): `Full<Bytes>`, `Empty<Bytes>`, `String`, and a `reqwest::Body` made from bytes. All other bodies, including the
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
//! reqwest takes over method, URI, version, headers and body. Extensions of a request are dropped, so extended CONNECT (RFC 8441)
//! is not possible. The URI must be absolute and its path must begin with a slash, so `OPTIONS *` is not possible either.

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
