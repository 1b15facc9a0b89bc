//! Where tokens come from.

mod boxed;
mod cause;
mod fallback;
mod fetched_for;
mod file;
mod fixed;
mod info;
mod renewal;
mod token_source;

pub use self::boxed::BoxTokenSource;
pub use self::cause::Cause;
pub use self::fallback::{Fallback, FallbackError};
pub(crate) use self::fetched_for::FetchedFor;
pub use self::file::TokenFile;
pub use self::fixed::StaticToken;
pub use self::info::SourceInfo;
pub(crate) use self::info::Watch;
pub(crate) use self::renewal::Missing;
pub use self::renewal::Renewal;
pub use self::token_source::{TokenSource, source_fn};

#[cfg(test)]
mod testing {
    //! Shared by the tests of the sources.

    use crate::token::TokenSet;

    pub(super) fn tokens(token: &str) -> TokenSet {
        TokenSet::bearer(token).unwrap()
    }
}
