#![doc = include_str!("../README.md")]
//!
//! The library holds the parts of the program for its tests. It has no stable interface, and is empty where there are no Unix
//! sockets.
#![cfg(unix)]
#![allow(
    missing_debug_implementations,
    clippy::disallowed_methods,
    reason = "the parts of a program, not an interface; its clock is the real one"
)]

#[doc(hidden)]
pub mod answer;
#[doc(hidden)]
pub mod check;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod connections;
#[doc(hidden)]
pub mod demo;
#[doc(hidden)]
pub mod guard;
#[doc(hidden)]
pub mod headers;
#[doc(hidden)]
pub mod limits;
#[doc(hidden)]
pub mod listen;
#[doc(hidden)]
pub mod program;
#[doc(hidden)]
pub mod proxy;
#[doc(hidden)]
pub mod serve;
#[doc(hidden)]
pub mod source;
#[doc(hidden)]
pub mod status;
#[doc(hidden)]
pub mod trust;
