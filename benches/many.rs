//! The cost of many credentials that are idle: a program with one for each user.
//!
//! `cargo bench --all-features --bench many`. The bytes are those of one instance with a token of 1 KiB. With a store, they contain
//! the handle of the store. A `MemoryStore` also contains the record.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench fails by panicking, and measures time"
)]

mod support;

use std::time::{Duration, Instant};

use allocation_counter::measure;
use support::allocations::without_counting;
use support::{is_bench, lists, table};
use tokio::runtime::{Builder, Runtime};
use tower_refresh::store::{MemoryStore, RedisStore};
use tower_refresh::{Credentials, CredentialsBuilder, Renewal, TokenSet};

type NewBuilder = Box<dyn Fn() -> CredentialsBuilder>;

fn main() {
    if lists() {
        return;
    }
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let redis = RedisStore::new("redis://127.0.0.1:1/", "users").expect("a valid URL");
    let of_user = move || redis.for_key("user-1").expect("a key");
    let stores: [(&str, NewBuilder); 3] = [
        ("none", Box::new(|| Credentials::builder(source))),
        ("Redis, nothing loaded", Box::new(move || Credentials::builder(source).store(of_user()))),
        ("memory", Box::new(|| Credentials::builder(source).store(MemoryStore::new()))),
    ];
    let rows = stores.iter().enumerate().map(|(at, (name, builder))| {
        // Nothing listens there.
        let token = if at == 1 { None } else { Some(&runtime) };
        let (empty, idle) = (bytes(builder, None), token.map(|_| bytes(builder, token)));
        let idle = idle.map_or_else(|| "–".to_owned(), |idle| idle.to_string());
        vec![(*name).to_owned(), empty.to_string(), idle]
    });
    let rows: Vec<_> = rows.collect();
    table::print("Bytes of idle credentials", &["Store", "Before the first token", "Idle"], &rows);
    without_counting(time);
}

async fn source(_: Renewal) -> Result<TokenSet, tower_refresh::TokenError> {
    let tokens = TokenSet::bearer("t".repeat(1024))?;
    Ok(tokens.with_expires_in(Duration::from_secs(3600)))
}

/// Returns the bytes of one instance, with a token if there is a runtime to obtain it.
fn bytes(builder: &dyn Fn() -> CredentialsBuilder, runtime: Option<&Runtime>) -> i64 {
    let create = || {
        let credentials = builder().build();
        if let Some(runtime) = runtime {
            runtime.block_on(credentials.warm_up()).expect("a token");
            runtime.block_on(credentials.flush()).expect("nothing to save");
        }
        credentials
    };
    // The first ones also make what all share.
    let mut all = vec![create(), create()];
    all.clear();
    measure(|| all.push(create())).bytes_current
}

fn time() {
    let count = if is_bench() { 100_000 } else { 100 };
    let mut all = Vec::with_capacity(count);
    let began = Instant::now();
    all.extend((0..count).map(|_| Credentials::new(source)));
    let created = began.elapsed();
    let began = Instant::now();
    drop(all);
    println!("\n{count} credentials: created in {created:.1?}, dropped in {:.1?}", began.elapsed());
}
