//! Private servers on loopback.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "compiled into several crates, which use different parts; what fails in a helper fails its test"
)]

#[cfg(feature = "postgres")]
pub mod postgres;
mod program;
#[cfg(feature = "redis")]
pub mod redis;
