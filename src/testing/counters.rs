//! What happened, in numbers.

use std::collections::BTreeMap;

/// What an [`AuthorizationServer`](super::AuthorizationServer) has seen so far: a snapshot, made by
/// [`counters`](super::AuthorizationServer::counters).
///
/// Token requests that were answered, faulted or abandoned, and those still in flight, add up to `token_requests`;
/// resource requests likewise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Requests to the token endpoint, whatever came of them.
    pub token_requests: u64,
    /// Token requests with the grant type `refresh_token` (RFC 6749 §6).
    pub refresh_token_requests: u64,
    /// Token requests with the grant type `client_credentials` (RFC 6749 §4.4).
    pub client_credentials_requests: u64,
    /// Token requests with the grant type `password` (RFC 6749 §4.3).
    pub password_requests: u64,
    /// Token requests with another grant type, or none that could be read.
    pub other_grant_requests: u64,

    /// Token requests that were answered with tokens.
    pub token_requests_granted: u64,
    /// Token requests that were answered with an error that is the endpoint's own.
    pub token_requests_refused: u64,
    /// Token requests that a fault answered, or whose connection it dropped; with
    /// [`after_processing`](super::Fault::after_processing) tokens were issued nevertheless.
    pub token_requests_faulted: u64,
    /// Token requests whose caller went away first.
    pub token_requests_abandoned: u64,
    /// The error codes (RFC 6749 §5.2) that the token endpoint came to by itself, and how often, whether or not the
    /// answer arrived.
    pub refusals: BTreeMap<&'static str, u64>,
    /// The most token requests that were ever in flight at once.
    pub max_concurrent_token_requests: u64,

    /// Access tokens issued, over HTTP or by the test, whether or not the answer arrived.
    pub access_tokens_issued: u64,
    /// Uses of each refresh token, by its number: the token `rt-3-…` is number 3. One that was never used is 0.
    ///
    /// [`AuthorizationServer::refresh_token_uses`](super::AuthorizationServer::refresh_token_uses) asks by the token.
    pub refresh_token_uses: BTreeMap<u64, u64>,
    /// Uses of a refresh token that was spent: what a well-behaved client never does.
    pub refresh_token_reuses: u64,
    /// Uses of a spent refresh token inside the window of [`Rotation::Grace`](super::Rotation::Grace), which were
    /// answered; not counted as reuses.
    pub refresh_tokens_answered_again: u64,
    /// Families (all tokens that come from one log-in) revoked because of a reuse.
    pub families_revoked: u64,
    /// Requests to the revocation endpoint (RFC 7009).
    pub revocation_requests: u64,

    /// Requests to the protected resource, whatever came of them.
    pub resource_requests: u64,
    /// Resource requests that were answered with a status of 200 to 299.
    pub resource_requests_ok: u64,
    /// Resource requests that were answered 401, by the resource itself or by a fault.
    pub resource_requests_unauthorized: u64,
    /// Resource requests that were answered with any other status.
    pub resource_requests_other: u64,
    /// Resource requests whose connection a fault dropped.
    pub resource_requests_dropped: u64,
    /// Resource requests whose caller went away first.
    pub resource_requests_abandoned: u64,

    /// Connections accepted, by all that [serve](super::AuthorizationServer::serve) this server.
    pub connections: u64,
}
