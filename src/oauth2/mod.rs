//! Sources that speak to an OAuth 2.0 token endpoint (RFC 6749).

mod client_auth;
mod dialect;
mod endpoint;
mod grant;
mod lenient;
mod moment;
mod request;
mod response;
mod revocation;
mod scrub;

pub use self::client_auth::{Authentication, ClientAuth};
pub use self::dialect::{BodyFormat, Dialect, Fields};
pub use self::endpoint::TokenEndpoint;
pub use self::grant::{ClientCredentialsGrant, Grant, RefreshTokenGrant};
pub use self::revocation::Revocation;
