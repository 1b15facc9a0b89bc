//! Logging macros that expand to nothing without the `tracing` feature, so that no call site needs a `cfg`.

#[cfg(feature = "tracing")]
macro_rules! debug {
    ($($arg:tt)*) => { ::tracing::debug!($($arg)*) };
}
#[cfg(feature = "tracing")]
macro_rules! warning {
    ($($arg:tt)*) => { ::tracing::warn!($($arg)*) };
}

// An expression, as the others are, and one that uses the fields: no call site warns.
#[cfg(not(feature = "tracing"))]
macro_rules! debug {
    ($($(%)? $(?)? $field:ident,)* $message:literal) => {{ $(_ = &$field;)* }};
}
#[cfg(not(feature = "tracing"))]
macro_rules! warning {
    ($($(%)? $(?)? $field:ident,)* $message:literal) => {{ $(_ = &$field;)* }};
}

pub(crate) use {debug, warning};
