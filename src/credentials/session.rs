//! The session of a request: whose tokens it may be sent with.
//!
//! A request belongs to the session in which its token was obtained, or would have been: after a log-in or a log-out it is
//! neither sent nor sent again, because the token would be that of another user. A request that is made while there is no
//! session belongs to the next one.

use crate::error::TokenError;

/// The tokens from one log-in to the next log-in or log-out: odd. Between two of them, and before the first: even.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Session(u64);

impl Session {
    /// Returns the session that begins after this one.
    pub(super) fn next(self) -> Self {
        Self((self.0 + 1) | 1)
    }

    /// Returns the state between this session and the next.
    pub(super) fn end(self) -> Self {
        Self(self.0 + (self.0 & 1))
    }

    /// Returns whether there are tokens.
    pub(super) fn has_begun(self) -> bool {
        self.0 & 1 == 1
    }
}

/// Makes the error for a request whose session is over.
///
/// Denied, so that no retry that goes by the kind sends the request with the token of another user. Unsent, so that it denies
/// nothing to other credentials whose source passes it on.
pub(super) fn is_over() -> TokenError {
    TokenError::denied(
        "the application logged in or out since the request was made, here or in another process that shares the store, so that the request is not sent with the new token",
    )
    .of_ended_session()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_odd_and_grow() {
        let none = Session::default();
        let first = none.next();
        assert!(!none.has_begun() && first.has_begun());
        assert_eq!(none.end(), none);
        let between = first.end();
        assert!(first < between && !between.has_begun());
        assert_eq!(between.next(), first.next());
    }
}
