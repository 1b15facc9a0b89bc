//! The reason for a refresh.

use std::fmt;

/// The reason why a source is asked for a token set.
///
/// `Display` writes the name in snake case.
///
/// # Examples
///
/// ```
/// use tower_refresh::{Cause, Renewal};
///
/// let renewal = Renewal::new(Cause::Rejected);
/// assert_eq!(renewal.cause().to_string(), "rejected");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// No token has been obtained.
    Missing,
    /// The current token expires soon. It is used meanwhile.
    Expiring,
    /// The current token has expired.
    Expired,
    /// A resource server rejected the current token.
    Rejected,
    /// The application asked for a refresh.
    Forced,
}

impl Cause {
    /// Returns the name in snake case.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Forced => "forced",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
