//! The counters of a server.

use std::collections::BTreeMap;

/// A snapshot of the counters of an [`AuthorizationServer`](super::AuthorizationServer).
///
/// The token requests that were granted, refused, faulted or abandoned and those in flight add up to `token_requests`. The same is
/// true for resource requests.
///
/// # Examples
///
/// ```
/// use tower_refresh::testing::{AuthorizationServer, Counters};
///
/// let server = AuthorizationServer::new();
/// server.issue();
/// let counters: Counters = server.counters();
/// assert_eq!(counters.access_tokens_issued, 1);
/// assert_eq!(counters.token_requests, 0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Requests to the token endpoint.
    pub token_requests: u64,
    /// Token requests with the grant type `refresh_token` (RFC 6749 §6).
    pub refresh_token_requests: u64,
    /// Token requests with the grant type `client_credentials` (RFC 6749 §4.4).
    pub client_credentials_requests: u64,
    /// Token requests with the grant type `password` (RFC 6749 §4.3).
    pub password_requests: u64,
    /// Token requests with the grant type of a token exchange (RFC 8693).
    pub token_exchange_requests: u64,
    /// Token requests with the grant type of a JWT bearer assertion (RFC 7523).
    pub jwt_bearer_requests: u64,
    /// Token requests with another grant type, or without one.
    pub other_grant_requests: u64,

    /// Token requests that were answered with tokens.
    pub token_requests_granted: u64,
    /// Token requests that the endpoint answered with an error, without a fault.
    pub token_requests_refused: u64,
    /// Token requests whose answer a fault replaced or whose connection it dropped. With
    /// [`after_processing`](super::Fault::after_processing), tokens were issued.
    pub token_requests_faulted: u64,
    /// Token requests that the caller dropped.
    pub token_requests_abandoned: u64,
    /// The error codes (RFC 6749 §5.2) that the token endpoint returned without a fault, with their numbers. An answer that did not
    /// arrive counts.
    pub refusals: BTreeMap<&'static str, u64>,
    /// The largest number of token requests in flight at once.
    pub max_concurrent_token_requests: u64,

    /// Access tokens issued, over HTTP or by the test. An answer that did not arrive counts.
    pub access_tokens_issued: u64,
    /// Uses of each refresh token, by its number: the token `rt-3-…` has the number 3. Unused tokens are included with 0.
    ///
    /// [`AuthorizationServer::refresh_token_uses`](super::AuthorizationServer::refresh_token_uses) returns the number for a token.
    pub refresh_token_uses: BTreeMap<u64, u64>,
    /// Uses of a spent refresh token, which a correct client never makes.
    pub refresh_token_reuses: u64,
    /// Uses of a spent refresh token inside the window of [`Rotation::Grace`](super::Rotation::Grace). They do not count as reuses.
    pub refresh_tokens_answered_again: u64,
    /// Families (all tokens of one log-in) that were revoked because of a reuse.
    pub families_revoked: u64,
    /// Requests to the revocation endpoint (RFC 7009).
    pub revocation_requests: u64,

    /// Requests to the protected resource.
    pub resource_requests: u64,
    /// Resource requests that were answered with a status of 200 to 299.
    pub resource_requests_ok: u64,
    /// Resource requests that were answered with 401, by the resource or by a fault.
    pub resource_requests_unauthorized: u64,
    /// Resource requests that were answered with any other status.
    pub resource_requests_other: u64,
    /// Resource requests whose connection a fault dropped.
    pub resource_requests_dropped: u64,
    /// Resource requests that the caller dropped.
    pub resource_requests_abandoned: u64,

    /// Connections accepted over all [sockets](super::AuthorizationServer::serve) of this server.
    pub connections: u64,
}
