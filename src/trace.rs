//! Logging: the targets, and macros that expand to nothing without the `tracing` feature, so that no call site needs a `cfg`.
//!
//! The subscriber and the `Display` of a source's error are code of others. A panic of theirs ends at the macro: it must not leave
//! a flight without its task, or lose the answer of a token endpoint.
//!
//! The message of each line is one literal, which `src/docs/logs.md` lists. Everything that varies is a field.

mod span;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub(crate) use self::span::Span;

/// The targets, one for each area.
#[allow(dead_code, reason = "some areas are features, and without `tracing` nothing is logged")]
pub(crate) mod target {
    pub(crate) const ENDPOINT: &str = "tower_refresh::endpoint";
    pub(crate) const ORIGIN: &str = "tower_refresh::origin";
    pub(crate) const POOL: &str = "tower_refresh::pool";
    pub(crate) const REFRESH: &str = "tower_refresh::refresh";
    pub(crate) const REJECTION: &str = "tower_refresh::rejection";
    pub(crate) const SESSION: &str = "tower_refresh::session";
    pub(crate) const STORE: &str = "tower_refresh::store";
}

#[cfg(feature = "tracing")]
macro_rules! detail {
    ($($arg:tt)*) => {{ $crate::trace::guarded(|| ::tracing::trace!($($arg)*)); }};
}
#[cfg(feature = "tracing")]
macro_rules! debug {
    ($($arg:tt)*) => {{ $crate::trace::guarded(|| ::tracing::debug!($($arg)*)); }};
}
#[cfg(feature = "tracing")]
macro_rules! info {
    ($($arg:tt)*) => {{ $crate::trace::guarded(|| ::tracing::info!($($arg)*)); }};
}
#[cfg(feature = "tracing")]
macro_rules! warning {
    ($($arg:tt)*) => {{ $crate::trace::guarded(|| ::tracing::warn!($($arg)*)); }};
}
#[cfg(feature = "tracing")]
macro_rules! error {
    ($($arg:tt)*) => {{ $crate::trace::guarded(|| ::tracing::error!($($arg)*)); }};
}

#[cfg(not(feature = "tracing"))]
macro_rules! nothing {
    ($($arg:tt)*) => {{}};
}
#[cfg(not(feature = "tracing"))]
pub(crate) use {
    nothing as debug, nothing as detail, nothing as error, nothing as info, nothing as warning,
};

/// Logs a change at its level, and the same again at DEBUG: `change!(is_news, warning, …)`.
macro_rules! change {
    ($is_news:expr, $level:ident, $($arg:tt)*) => {
        if $is_news { $crate::trace::$level!($($arg)*) } else { $crate::trace::debug!($($arg)*) }
    };
}

pub(crate) use change;
#[cfg(feature = "tracing")]
pub(crate) use {debug, detail, error, info, warning};

/// Runs code of others, and returns `None` if it panics.
pub(crate) fn guarded<T>(code: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(code)).ok()
}

/// Returns a duration as the value of a field that ends in `_ms`.
#[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "the macros expand to nothing"))]
pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
