//! Decides whether a response accepts or rejects the token.
//!
//! [`Classify`] gives the verdict and [`Unauthorized`] is the default. To treat one more status like 401, call
//! [`Unauthorized::also_status`]; the table of error codes is `error_codes.rs`.

mod challenge;
mod error_codes;
mod grpc;
mod rejection;
mod unauthorized;
mod verdict;

pub use self::challenge::Challenge;
pub(crate) use self::challenge::is_tchar;
#[cfg(feature = "tonic")]
pub(crate) use self::grpc::{GRPC_STATUS, verdict as grpc_verdict};
pub(crate) use self::rejection::Rejection;
pub use self::unauthorized::Unauthorized;
pub use self::verdict::{Classify, Verdict};
