//! Eight processes under load, over many expiries.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tower_refresh::testing::AuthorizationServer;

use crate::process::Process;
use crate::stage::{Kind, Stage, assert_no_reuse, is_full, over_all_stores, print_figures};

const LIFETIME: Duration = Duration::from_millis(250);

over_all_stores!(eight_processes_send_one_token_request_per_expiry);

async fn eight_processes_send_one_token_request_per_expiry(kind: Kind) {
    let expiries = if is_full() { 200 } else { 20 };
    let server = AuthorizationServer::builder().access_token_lifetime(LIFETIME).build();
    let Some(stage) = Stage::alone(kind, server).await else { return };
    let first = stage.server.issue_refresh_token();

    let began = Instant::now();
    let orders = stage.orders(first.expose_secret());
    let mut processes: Vec<_> = (0..8).map(|_| Process::start(&orders)).collect();
    stage.until("all expiries", |counters| counters.token_requests_granted > expiries).await;
    let mut counts = Vec::new();
    for process in &mut processes {
        counts.push(process.end().await);
    }
    let took = began.elapsed();

    let counters = stage.counters();
    let sum = |count: fn(&crate::worker::Counts) -> u64| counts.iter().map(count).sum::<u64>();
    let (requests, accepted) = (sum(|counts| counts.requests), sum(|counts| counts.accepted));
    print_figures(&format!(
        "{kind:?}: {} token requests in {took:.1?}, {} reuses, {} families revoked; {requests} requests of 8 processes, {} failed, {} rejected and sent again; {} renewed, {} of them adopted",
        counters.token_requests,
        counters.refresh_token_reuses,
        counters.families_revoked,
        requests - accepted,
        counters.resource_requests_unauthorized,
        sum(|counts| counts.renewed),
        sum(|counts| counts.adopted),
    ));
    let failures: Vec<_> = processes
        .iter()
        .flat_map(Process::said)
        .filter(|line| line.get("failure").is_some() || line["event"] == "failed")
        .collect();

    // Each use was a rotation, and no token was used twice.
    assert_no_reuse(&counters);
    assert_eq!(counters.token_requests_granted, counters.token_requests);
    let uses: u64 = counters.refresh_token_uses.values().sum();
    assert_eq!(uses, counters.token_requests);
    // Each request got a response, and none failed.
    assert_eq!(requests, accepted, "{failures:?}");
    assert_eq!(counters.resource_requests_ok, accepted);
    // One token request per expiry for all processes: no refresh begins earlier than a quarter of the lifetime before expiry.
    let at_most = took.as_millis() / (LIFETIME * 3 / 4).as_millis() + 1;
    assert!(u128::from(counters.token_requests) <= at_most, "{counters:?} in {took:?}");
    assert!(counters.max_concurrent_token_requests <= 1);
    // Each process refreshed or adopted.
    assert_eq!(
        sum(|counts| counts.renewed),
        sum(|counts| counts.adopted) + counters.token_requests
    );
    assert!(sum(|counts| counts.adopted) > counters.token_requests, "nobody shared");
    let numbers: BTreeSet<_> = processes.iter().flat_map(Process::sent).collect();
    assert_eq!(numbers.len() as u64, counters.token_requests);
    assert!(numbers.iter().all(|(_, told)| !told));

    let stored = stage.stored().await.unwrap();
    assert!(!stored.has_open_intent());
    assert!(stage.server.is_unspent(&stored.refresh_token().unwrap()));
}
