//! The users that may own and write the files of a store.
//!
//! A user who can write a record chooses the account that the program uses, and receives its next refresh token.

#[cfg(not(unix))]
mod other;
#[cfg(unix)]
mod unix;

/// The users that share the files of one store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    /// The processes of one user.
    User,
    /// The members of the folder's group, by its number.
    #[cfg(unix)]
    Group(u32),
}
