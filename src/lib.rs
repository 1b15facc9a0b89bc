//! tower-refresh
#![cfg_attr(docsrs, feature(doc_cfg))]

#[allow(dead_code, reason = "the request's future will use it")]
mod attach;
#[allow(dead_code, reason = "the request's future will use it")]
mod classify;
mod clock;
mod error;
#[allow(dead_code, reason = "the request's future will use it")]
mod origin;
#[allow(dead_code, unused_imports, reason = "the request's future will use it")]
mod replay;
mod source;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod token;

pub use self::classify::{Challenge, Classify, Unauthorized, Verdict};
pub use self::clock::{Clock, Now};
pub use self::error::{BoxError, TokenError};
pub use self::replay::{ByType, NoRetry, ReplayBody, ReplayWith, Retry};
pub use self::source::{
    BoxTokenSource, Cause, Fallback, FallbackError, Renewal, StaticToken, TokenFile, TokenSource,
    source_fn,
};
pub use self::token::{AccessToken, RefreshToken, TokenSet, TokenSetBuilder};
