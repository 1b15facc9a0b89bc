//! Shared by the benches: requests, services, the stacks over them, and a harness that compares stacks in one run.
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "compiled into each bench, which uses its own part, fails by panicking, and measures time"
)]

pub(crate) mod allocations;
pub(crate) mod by_hand;
pub(crate) mod compare;
pub(crate) mod requests;
pub(crate) mod services;
pub(crate) mod stacks;
pub(crate) mod svg;
pub(crate) mod table;

/// Returns whether cargo asks for a list of tests, as nextest does. A bench has none.
pub(crate) fn lists() -> bool {
    std::env::args().any(|argument| argument == "--list")
}

/// Returns whether the bench is to be measured. Under `cargo test`, it only has to run.
pub(crate) fn is_bench() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}
