//! A snapshot of a pool, for a health endpoint.

use std::fmt;
use std::time::Duration;

#[cfg(feature = "serde")]
use crate::credentials::seconds;
use crate::credentials::{Credentials, Rounded, Status, TokenStatus};
use crate::error::TokenError;

/// A snapshot of a [`CredentialsPool`](crate::CredentialsPool), returned by [`pool_status`](crate::CredentialsPool::pool_status).
///
/// # Examples
///
/// ```
/// use tower_refresh::PoolStatus;
///
/// fn is_healthy(status: &PoolStatus) -> bool {
///     status.outages.is_empty() && status.unsaved == 0
/// }
/// # let _ = is_healthy;
/// ```
///
/// # Display
///
/// One line for an operator. Later versions may change it:
///
/// ```text
/// 812 keys: 790 fresh, 2 rejected, 3 refreshing, 12 failing, 5 denied, 0 unsaved; outage of https://auth.example.com, next attempt in 1500ms: no token for now: 503
/// ```
///
/// # JSON
///
/// With the feature `serde` the status is `Serialize`. Later versions may add fields.
///
/// ```json
/// {
///   "keys": 812, "fresh": 790, "rejected": 2, "refreshing": 3, "failing": 12, "denied": 5, "unsaved": 0,
///   "outages": [{
///     "endpoint": "https://auth.example.com",
///     "error": { "kind": "transient", "message": "no token for now: 503", "code": null },
///     "next_probe": 1.5
///   }]
/// }
/// ```
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PoolStatus {
    /// Number of keys that have credentials.
    pub keys: usize,
    /// Number of those with a fresh or stale token.
    pub fresh: usize,
    /// Number of those whose token was [rejected](TokenStatus::Rejected) and not accepted since.
    pub rejected: usize,
    /// Number of those with a refresh, a load or a save of the store, a log-in or a log-out in flight.
    pub refreshing: usize,
    /// Number of those whose last refresh failed, denied ones included.
    pub failing: usize,
    /// Number of those whose user must log in again.
    pub denied: usize,
    /// Number of those with a change that their store does not have.
    pub unsaved: usize,
    /// The token endpoints with an outage.
    pub outages: Vec<OutageStatus>,
}

/// The outage of a token endpoint, in a [`PoolStatus`].
///
/// # Examples
///
/// ```
/// use tower_refresh::OutageStatus;
///
/// fn line(outage: &OutageStatus) -> String {
///     format!("{}: {}", outage.endpoint, outage.error)
/// }
/// # let _ = line;
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct OutageStatus {
    /// The origin of the token endpoint.
    pub endpoint: String,
    /// The error of the last refresh that was sent to it.
    pub error: TokenError,
    /// Time until a refresh is sent again, in seconds in the JSON. Zero if one is in flight, or waits for a request.
    #[cfg_attr(feature = "serde", serde(serialize_with = "seconds::left"))]
    pub next_probe: Duration,
}

impl PoolStatus {
    pub(super) fn new(all: &[Credentials], outages: Vec<OutageStatus>) -> Self {
        let mut pool = Self { keys: all.len(), outages, ..Self::default() };
        for credentials in all {
            let Status { token, refreshing, error, unsaved, .. } = credentials.status();
            pool.fresh += usize::from(matches!(token, TokenStatus::Fresh | TokenStatus::Stale));
            pool.rejected += usize::from(token == TokenStatus::Rejected);
            pool.refreshing += usize::from(refreshing);
            pool.failing += usize::from(error.is_some());
            pool.denied += usize::from(error.is_some_and(|error| error.must_log_in()));
            pool.unsaved += usize::from(unsaved);
        }
        pool
    }
}

impl fmt::Display for PoolStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, fresh, rejected, refreshing, failing, denied, unsaved, outages } = self;
        write!(
            f,
            "{keys} keys: {fresh} fresh, {rejected} rejected, {refreshing} refreshing, {failing} failing, {denied} denied, {unsaved} unsaved"
        )?;
        outages.iter().try_for_each(|outage| write!(f, "; {outage}"))
    }
}

impl fmt::Display for OutageStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, error, next_probe } = self;
        write!(f, "outage of {endpoint}, next attempt in {}: {error}", Rounded(*next_probe))
    }
}
