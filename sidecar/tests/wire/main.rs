//! The sidecar on the wire: framing, upgrades, limits of connections, private CAs, plaintext HTTP/2.
#![cfg(unix)]
#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test: helpers outside of test functions too, some of which only the other test uses"
)]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod authority;
mod connections_kept;
mod files;
mod framing;
mod reach;
mod upgrade;
