//! The time and the memory of a pool with many keys.

use std::time::Instant;

use allocation_counter::measure;
use tokio::runtime::Runtime;
use tower_refresh::store::MemoryStore;
use tower_refresh::{Credentials, CredentialsBuilder, CredentialsPool, Renewal};

use crate::support::{allocations, is_bench, table};
use crate::token;

type Pool = CredentialsPool<u64>;

pub(crate) fn print() {
    let keys = if is_bench() { 100_000 } else { 100 };
    let stored = || builder().store(MemoryStore::new());
    let rows = [
        row("no token yet", keys, builder, false),
        row("a token of 1 KiB", keys, builder, true),
        row("a token of 1 KiB, in a `MemoryStore` too", keys, stored, true),
    ];
    let head =
        ["Credentials", "Kept", "Made", "Bytes for each", "Allocations", "Pause when dropped"];
    table::print(&format!("A pool of {keys} keys"), &head, &rows);
}

fn row(name: &str, keys: u64, make: fn() -> CredentialsBuilder, has_token: bool) -> Vec<String> {
    let mut pools = Vec::new();
    let counted = measure(|| pools.push(filled(keys, make, has_token)));
    pools.clear();
    let ([mut made, mut pause], mut kept) = ([f64::INFINITY; 2], 0);
    // The fastest of a few, which other programs disturbed least.
    allocations::without_counting(|| {
        for _ in 0..3 {
            let began = Instant::now();
            let pool = filled(keys, make, has_token);
            made = made.min(began.elapsed().as_secs_f64() * 1e3);
            kept = pool.len();
            // In a runtime, where the keys are dropped on a thread of their own. Dropping the runtime waits for it.
            let runtime = runtime();
            let _context = runtime.enter();
            let began = Instant::now();
            drop(pool);
            pause = pause.min(began.elapsed().as_secs_f64() * 1e3);
        }
    });
    vec![
        name.to_owned(),
        kept.to_string(),
        format!("{made:.0} ms"),
        format!("{}", counted.bytes_current / keys as i64),
        format!("{:.1}", counted.count_total as f64 / keys as f64),
        format!("{pause:.2} ms"),
    ]
}

fn filled(keys: u64, make: fn() -> CredentialsBuilder, has_token: bool) -> Pool {
    let pool = CredentialsPool::builder(move |_: &u64| make()).capacity(keys as usize).build();
    runtime().block_on(async {
        for key in 0..keys {
            let credentials = pool.get(&key).expect("a name");
            if has_token {
                credentials.warm_up().await.expect("a token");
            }
        }
    });
    pool
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn builder() -> CredentialsBuilder {
    Credentials::builder(|_: Renewal| async { token() })
}
