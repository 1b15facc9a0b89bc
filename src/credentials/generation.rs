//! The number of a token set.

/// The number of a token set that was issued to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Generation(pub(super) u64);

impl Generation {
    #[cfg(feature = "oauth2")]
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}
