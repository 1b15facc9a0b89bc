//! The number of allocations, from a global allocator that counts them.

use allocation_counter::{measure, opt_out};

/// Returns the number of allocations of one request, after the first ones have set up what the next ones reuse.
pub(crate) fn per_request(send: &mut dyn FnMut(u32)) -> f64 {
    const REQUESTS: u32 = 100;
    send(10);
    measure(|| send(REQUESTS)).count_total as f64 / f64::from(REQUESTS)
}

/// Runs code whose time is measured. The allocator takes about 1 ns for each allocation then.
pub(crate) fn without_counting(run: impl FnOnce()) {
    opt_out(run);
}
