//! tower-refresh
#![cfg_attr(docsrs, feature(doc_cfg))]

mod attach;
mod classify;
mod clock;
mod credentials;
mod error;
mod future;
mod layer;
#[cfg(feature = "oauth2")]
#[cfg_attr(docsrs, doc(cfg(feature = "oauth2")))]
pub mod oauth2;
mod origin;
mod replay;
mod service;
mod source;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod token;
mod trace;

pub use self::classify::{Challenge, Classify, Unauthorized, Verdict};
pub use self::clock::{Clock, Now};
pub use self::credentials::{Credentials, Event, Events, RefreshPolicy, Status, TokenStatus};
pub use self::error::{BoxError, TokenError};
pub use self::future::ResponseFuture;
pub use self::layer::RefreshLayer;
pub use self::replay::{ByType, NoRetry, ReplayBody, ReplayWith, Retry};
pub use self::service::{Refresh, Skip};
pub use self::source::{
    BoxTokenSource, Cause, Fallback, FallbackError, Renewal, StaticToken, TokenFile, TokenSource,
    source_fn,
};
pub use self::token::{AccessToken, RefreshToken, TokenSet, TokenSetBuilder};
