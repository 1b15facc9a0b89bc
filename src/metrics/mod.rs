//! The metrics of the credentials and of a pool. Without the feature `metrics`, the functions have no effect and the types no size, so
//! that no call site needs a `cfg`.
//!
//! A recorder is code of others: none of these functions is called under a lock, except [`Standing::note`], which calls no recorder.

#[cfg_attr(not(feature = "metrics"), path = "without.rs")]
#[cfg_attr(not(feature = "pool"), allow(dead_code, reason = "only a pool has members"))]
mod recorded;
#[cfg(feature = "metrics")]
mod store;
#[cfg(feature = "metrics")]
mod table;

pub(crate) use self::recorded::{Metrics, Place, Refreshing, Standing, Waiter};
use crate::error::{TokenError, TokenErrorKind};

/// The end of a refresh.
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "only the metrics read it"))]
pub(crate) enum Ending<'a> {
    /// The token set is used.
    Success {
        was_stored: bool,
    },
    Failure(&'a TokenError),
    /// A log-in, a log-out or another refresh came first.
    Superseded,
}

/// The reason for an eviction from a pool.
#[cfg_attr(not(feature = "pool"), allow(dead_code, reason = "only a pool evicts"))]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Eviction {
    Idle,
    Capacity,
}

/// The troubles of credentials, which gauges count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "only the metrics read it"))]
pub(crate) struct Troubles {
    /// The kind of the error of the last refresh, if it failed.
    pub(crate) failed: Option<TokenErrorKind>,
    /// True if a target rejected the token again right after a refresh, and has accepted none since.
    pub(crate) is_rejected: bool,
    /// True if the current token set is only in memory, although there is a store.
    pub(crate) is_unsaved: bool,
}
