//! Sources that request tokens from an OAuth 2.0 token endpoint (RFC 6749).
//!
//! A [`TokenEndpoint`] combines an HTTP client of your choice, a URL, the client authentication ([`ClientAuth`]), and the
//! differences between the server and RFC 6749 ([`Dialect`]). A grant turns it into a [`TokenSource`](crate::TokenSource):
//!
//! ```toml
//! [dependencies]
//! tower-refresh = { version = "0.1", features = ["hyper-util"] }
//! ```
//!
//! ```no_run
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use hyper_util::client::legacy::Client;
//! use hyper_util::rt::TokioExecutor;
//! use tower::ServiceBuilder;
//! use tower_refresh::RefreshLayer;
//! use tower_refresh::oauth2::{ClientAuth, RefreshTokenGrant, TokenEndpoint};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Plaintext HTTP is for loopback. Other URLs need https and a client with TLS.
//! let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
//! let endpoint = TokenEndpoint::new(client.clone(), "http://localhost:8080/token")?
//!     .client_auth(ClientAuth::basic("my-client", std::env::var("CLIENT_SECRET")?));
//! let source = RefreshTokenGrant::new(endpoint, std::env::var("REFRESH_TOKEN")?);
//!
//! let api = ServiceBuilder::new()
//!     .layer(RefreshLayer::new(source).origin("https://api.example.com")?)
//!     .service(client);
//! # Ok(())
//! # }
//! ```
//!
//! | Grant | Use |
//! |---|---|
//! | [`RefreshTokenGrant`] | A user has logged in, and the program holds the refresh token (RFC 6749 §6). |
//! | [`ClientCredentialsGrant`] | The program acts on its own behalf (RFC 6749 §4.4). |
//! | [`TokenExchangeGrant`] | The program acts [on behalf of a user](#on-behalf-of-a-user), or exchanges a token of another issuer (RFC 8693). |
//! | [`JwtBearerGrant`] | The same at Microsoft Entra ID; or the program signs an assertion (RFC 7523). |
//! | [`Grant`] | All other types, such as password and SAML (RFC 7522). |
//!
//! [`Revocation`] revokes tokens when the user logs out (RFC 7009).
//!
//! # Endpoints that differ from the RFC
//!
//! A [`Dialect`] describes the differences. It is plain data, so that an endpoint needs only a configuration. A
//! [guide](crate::docs::token_endpoints) shows how to find it, and that of four documented endpoints:
//!
//! ```
//! use tower_refresh::oauth2::{BodyFormat, Dialect};
//!
//! let dialect: Dialect = serde_json::from_str(r#"{ "body": "json", "default_lifetime": 3600 }"#)?;
//! dialect.validate()?;
//! assert_eq!(dialect.body, BodyFormat::Json);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # On behalf of a user
//!
//! A backend that receives the access token of a user must not pass it on: the token was issued for the backend, and the next API
//! rejects it. The backend obtains a token of its own that is for the same user and the next API.
//!
//! | Server | Grant |
//! |---|---|
//! | with token exchange (RFC 8693), such as Keycloak | [`TokenExchangeGrant`] |
//! | Microsoft Entra ID, AD FS | [`JwtBearerGrant`] with [`on_behalf_of`](JwtBearerGrant::on_behalf_of) |
//!
//! Both take the token of the user from a [`SecurityToken`]:
//!
//! | Known to the backend | Token of the user |
//! |---|---|
//! | the user's refresh token | the [`Credentials`](crate::Credentials) of a [`RefreshTokenGrant`] |
//! | a session that another part of the program keeps fresh | [`SecurityToken::from_fn`], which returns the newest token |
//! | the token of the current request only | the token itself: the error is [denied](crate::TokenError::is_denied) once it has expired |
//!
//! The issued token is for one user and one audience, so that each pair has credentials of its own. The feature `pool` keeps them in
//! a [`CredentialsPool`](../struct.CredentialsPool.html) whose keys are the pairs, beside the pool of the users. Each API has a layer:
//!
//! ```
//! # #[cfg(feature = "pool")]
//! # mod gateway {
//! use tower_refresh::oauth2::{JwtBearerGrant, RefreshTokenGrant, TokenEndpoint, TokenExchangeGrant};
//! use tower_refresh::{Credentials, CredentialsPool, Keyed, OriginError, RefreshLayer, RequestHead};
//!
//! /// A user and an audience.
//! type Pair = (String, &'static str);
//!
//! /// The verified user, an extension of each request.
//! #[derive(Clone)]
//! struct User(String);
//!
//! /// After the log-in of a user, call `users.log_in(&user, tokens)`.
//! fn users(endpoint: TokenEndpoint) -> CredentialsPool<String> {
//!     CredentialsPool::new(move |_user: &String| {
//!         // Add a store, so that a restart does not log the users out.
//!         Credentials::builder(RefreshTokenGrant::new(endpoint.clone(), ""))
//!     })
//! }
//!
//! fn pairs(endpoint: TokenEndpoint, users: CredentialsPool<String>) -> CredentialsPool<Pair> {
//!     CredentialsPool::new(move |(user, audience): &Pair| {
//!         let exchange = TokenExchangeGrant::new(endpoint.clone(), users.get(user)?);
//!         Ok(Credentials::builder(exchange.audience(*audience)))
//!     })
//! }
//!
//! /// The same at Microsoft Entra ID, where the scope names the API.
//! fn pairs_at_entra(endpoint: TokenEndpoint, users: CredentialsPool<String>) -> CredentialsPool<Pair> {
//!     CredentialsPool::new(move |(user, audience): &Pair| {
//!         let grant = JwtBearerGrant::new(endpoint.clone(), users.get(user)?).on_behalf_of();
//!         Ok(Credentials::builder(grant.scope(format!("{audience}/.default"))))
//!     })
//! }
//!
//! /// The layer of the client for one API. Make another one for the next API, over a clone of the pool.
//! fn billing(
//!     pairs: CredentialsPool<Pair>,
//! ) -> Result<RefreshLayer<Keyed<Pair, impl Fn(RequestHead<'_>) -> Option<Pair>>>, OriginError> {
//!     RefreshLayer::keyed(pairs, |request| {
//!         let User(user) = request.extensions().get()?;
//!         Some((user.clone(), "billing"))
//!     })
//!     .origin("https://billing.example.com")
//! }
//! # }
//! ```
//!
//! - Take the user from a token that the backend has verified: its `iss` and `sub`. A request without a user is an error.
//! - If the backend has no refresh tokens of its users, the pool's closure cannot see the token of the request: it makes the
//!   credentials of a pair once, and not for each request. Keep the newest token of each user in a map, and read it with
//!   [`SecurityToken::from_fn`], whose closure returns a [denied](crate::TokenError::denied) error for an unknown user.
//! - The pool names the credentials after the pair. Credentials outside of a pool that have a store need a
//!   [name](crate::CredentialsBuilder::name) that contains the user and the audience. With the audience alone, the requests of one user
//!   carry the token of another.
//! - When a user logs out, first log out the user, and then the pair of each audience. In this order, an exchange in flight gives no
//!   token to later requests, and the next one fails. The API accepts an issued token until it expires.
//!
//! # The meaning of an answer
//!
//! | Answer | Error |
//! |---|---|
//! | 3xx | [misconfigured](crate::TokenError::is_misconfigured): the request carries secrets and follows no redirect |
//! | 4xx with an error code | by the [code](#error-codes) |
//! | 4xx with an empty body, and a status in [`Dialect::denied_statuses`] | [denied](crate::TokenError::is_denied): the user must log in again |
//! | 401 without a known error code, with a `Basic` challenge or (if the client authenticated) an empty body | misconfigured: the client credentials were refused |
//! | 407 | misconfigured: a proxy requires credentials and did not forward the request |
//! | 408 | unknown outcome |
//! | 421, 425 | [transient](crate::TokenError::is_transient) |
//! | 429 or 503, with an OAuth error or `Retry-After` | transient |
//! | 429 or 503 with neither, perhaps from a gateway that has forwarded the request | unknown outcome |
//! | other 5xx, unless its code is in [`Dialect::transient`] | unknown outcome |
//! | other 4xx: an HTML page, JSON without an error code, an empty body | unknown outcome |
//! | 200 without a readable token, a closed connection, no answer in time | unknown outcome |
//! | no connection ([`is_unsent`](TokenEndpoint::is_unsent)) | transient |
//!
//! An *unknown outcome* is [ambiguous](crate::TokenError::is_ambiguous) if a refresh token was sent that the server may have
//! replaced ([`Dialect::rotates`]), and transient otherwise. Each error keeps `Retry-After`
//! ([`retry_after`](crate::TokenError::retry_after)), and its message begins with the origin of the endpoint, the status, and
//! the content type of the answer.
//!
//! ## Error codes
//!
//! | Code | Error |
//! |---|---|
//! | `invalid_grant`, `expired_token`, `interaction_required`, `login_required`, `account_selection_required`, `consent_required` | denied |
//! | `temporarily_unavailable`, `slow_down`, `authorization_pending`, and common codes of rate limiters | transient |
//! | `server_error` | unknown outcome |
//! | any other | misconfigured |
//!
//! `interaction_required`, `login_required`, `account_selection_required` and `consent_required` leave the refresh token valid.
//! It is sent again every five minutes while requests need a token.
//!
//! The fields [`denied`](Dialect::denied) and [`transient`](Dialect::transient) of a [`Dialect`] classify further codes, or the
//! same codes differently. For example, for a server that reports errors with status 200 and a number:
//!
//! ```
//! use tower_refresh::oauth2::Dialect;
//!
//! // 200 {"errcode": 40030, "errmsg": "invalid refresh_token"}
//! let dialect: Dialect = serde_json::from_str(
//!     r#"{ "errors_with_200": true, "denied": [40030], "transient": [-1] }"#,
//! )?;
//! dialect.validate()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Flawed answers
//!
//! An answer may contain the only copy of the next refresh token. A flaw outside of the tokens therefore does not lose it:
//!
//! | Flaw | Handling |
//! |---|---|
//! | PHP notices, `)]}',`, `while(1);`, a callback, brackets or a byte order mark around the JSON | skipped |
//! | JSON in a JSON string, UTF-16 | decoded |
//! | `NaN`, `0042`, `None`, `'text'`, wrong escapes, control characters, comments, missing or extra commas | read; an ambiguous value counts as `null` |
//! | a repeated member | the last usable value counts |
//! | a refresh token that is an integer | its digits are kept |
//! | other spellings of a name, lifetimes in milliseconds, times of 0 | see [`Fields`] |
//! | an object that does not end, a page of HTML | not an answer |
//!
//! A complete JSON object is read even if the body has no proper end: no last chunk, fewer bytes than its `Content-Length`, no
//! `close_notify` of TLS, or a connection that stays open. An object after other text must also have an access token. A form
//! needs a proper end, because nothing else marks it as complete.
//!
//! Requests have `accept-encoding: identity`, unless the dialect's `extra_headers` set it. The feature `decompression` decodes
//! gzip and deflate from servers that compress nevertheless.
//!
//! # Secrets caveat
//!
//! No error contains a body, the query of a URL, or a secret that was sent, even if the server or the HTTP client quotes it.
//! The HTTP client may log secrets on its own: see its documentation.

mod client_auth;
mod client_credentials;
mod dialect;
mod endpoint;
mod grant;
mod jwt_bearer;
mod lenient;
mod moment;
#[cfg_attr(
    not(feature = "tracing"),
    allow(unused_imports, unused_variables, dead_code, reason = "the macros expand to nothing")
)]
mod narrowed;
mod proof;
mod refresh_token;
mod request;
mod response;
mod revocation;
mod scrub;
mod security_token;
mod token_exchange;
mod token_request;
mod wiped;

pub use self::client_auth::{AuthParams, ClientAuth};
pub use self::client_credentials::ClientCredentialsGrant;
pub use self::dialect::{BodyFormat, Dialect, Fields, LifetimeUnit, ParameterType, RequestMethod};
pub use self::endpoint::TokenEndpoint;
#[cfg(feature = "reqwest")]
pub(crate) use self::endpoint::{WasSent, Watch};
pub use self::grant::Grant;
pub use self::jwt_bearer::JwtBearerGrant;
pub use self::refresh_token::RefreshTokenGrant;
pub use self::revocation::Revocation;
pub use self::security_token::SecurityToken;
pub use self::token_exchange::TokenExchangeGrant;
