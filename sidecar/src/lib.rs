#![doc = include_str!("../README.md")]
//!
//! The library holds the parts of the program for its tests. It has no stable interface.
#![allow(
    missing_debug_implementations,
    clippy::disallowed_methods,
    reason = "the parts of a program, not an interface; its clock is the real one"
)]

#[cfg(unix)]
#[doc(hidden)]
pub mod answer;
#[cfg(unix)]
#[doc(hidden)]
pub mod check;
#[cfg(unix)]
#[doc(hidden)]
pub mod config;
#[cfg(unix)]
#[doc(hidden)]
pub mod connections;
#[cfg(unix)]
#[doc(hidden)]
pub mod demo;
#[cfg(unix)]
#[doc(hidden)]
pub mod guard;
#[cfg(unix)]
#[doc(hidden)]
pub mod headers;
#[cfg(unix)]
#[doc(hidden)]
pub mod limits;
#[cfg(unix)]
#[doc(hidden)]
pub mod listen;
#[cfg(unix)]
#[doc(hidden)]
pub mod program;
#[cfg(unix)]
#[doc(hidden)]
pub mod proxy;
#[cfg(unix)]
#[doc(hidden)]
pub mod serve;
#[cfg(unix)]
#[doc(hidden)]
pub mod source;
#[cfg(unix)]
#[doc(hidden)]
pub mod status;
#[cfg(unix)]
#[doc(hidden)]
pub mod trust;
