//! The example `sidecar` on the wire: framing, upgrades, limits of connections, private CAs, plaintext HTTP/2.
#![cfg(unix)]
#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test: helpers outside of test functions too, and modules of an example that it uses in part"
)]

#[path = "../../examples/sidecar/answer.rs"]
mod answer;
#[path = "../../examples/quickstart/config.rs"]
mod config;
#[path = "../../examples/sidecar/connections.rs"]
mod connections;
#[path = "../../examples/sidecar/guard.rs"]
mod guard;
#[path = "../../examples/sidecar/headers.rs"]
mod headers;
#[path = "../../examples/sidecar/limits.rs"]
mod limits;
#[path = "../../examples/sidecar/listen.rs"]
mod listen;
#[path = "../../examples/sidecar/proxy.rs"]
mod proxy;
#[path = "../../examples/sidecar/serve.rs"]
mod serve;
#[path = "../sidecar_support/mod.rs"]
mod sidecar_support;
#[path = "../../examples/quickstart/source.rs"]
mod source;
#[path = "../../examples/sidecar/status.rs"]
mod status;
#[path = "../../examples/quickstart/trust.rs"]
mod trust;

mod answers;
mod authority;
mod connections_kept;
mod files;
mod framing;
mod reach;
mod upgrade;
