//! Many grants over one pool.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

use super::*;
use crate::{Credentials, RefreshPolicy, Renewal};

/// The tokens of all users are revoked at once, and the token endpoint takes 50 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousand_users_refresh_at_once_over_ten_connections() {
    let Some(database) = Database::new().await else { return };
    let users = std::env::var("TOWER_REFRESH_USERS").map_or(1000, |users| users.parse().unwrap());
    let [first, last] = refresh_all(&database, &database.url, users).await;
    println!(
        "{users} users over 10 connections: the first after {first:?}, the last after {last:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundred_users_refresh_at_once_through_a_pooler() {
    let Some(database) = Database::new().await else { return };
    let server = SERVER.as_ref().unwrap();
    let Some(pooler) = PgBouncer::start(&folder("pgbouncer"), server, 3) else { return };
    let [first, last] = refresh_all(&database, &pooler.url(&database.name), 100).await;
    println!("100 users through a pooler: the first after {first:?}, the last after {last:?}");
}

/// Refreshes the tokens of each user once. Returns after how long the first had a new token, and the last.
async fn refresh_all(database: &Database, url: &str, users: usize) -> [Duration; 2] {
    let pool = pool_at(url, 10);
    let store = PostgresStore::new(pool, "none")
        .unwrap()
        .pool_timeout(LONG)
        .listen_with(config(&database.url), NoTls);
    let mut all = Vec::new();
    for user in 0..users {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let source = move |_: Renewal| {
            let call = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::time::sleep(ms(50)).await;
                TokenSet::bearer(format!("access-{call}"))
            }
        };
        let store = store.for_name(format!("user-{user}")).unwrap();
        // The machine may have a lot to do.
        let policy = RefreshPolicy::default().timeout(10 * LONG);
        let credentials = Credentials::builder(source).store(store).policy(policy).build();
        all.push((credentials, calls));
    }
    let mut took = [Duration::ZERO; 2];
    for round in 1..=2 {
        let began = Instant::now();
        let mut refreshes = JoinSet::new();
        for (credentials, _) in &all {
            let credentials = credentials.clone();
            refreshes.spawn(async move {
                let refreshed = if round == 1 {
                    credentials.tokens().await.map(drop)
                } else {
                    credentials.refresh().await.map(drop)
                };
                refreshed.unwrap();
                began.elapsed()
            });
        }
        let times = refreshes.join_all().await;
        took = [*times.iter().min().unwrap(), *times.iter().max().unwrap()];
        for (_, calls) in &all {
            assert_eq!(calls.load(Ordering::Relaxed), round, "each user is refreshed once");
        }
    }
    took
}
