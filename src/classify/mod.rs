//! What an answer says about the token.

mod challenge;

pub use self::challenge::Challenge;
