//! Many users of a fleet that shares a store: expiries, a revocation of all tokens, kills, and a store that ends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::sleep;
use tower_refresh::testing::{AuthorizationServer, Counters, Fault};

use crate::kills::Dice;
use crate::many::{self, Many, Users};
use crate::process::Process;
use crate::stage::{
    Kind, Stage, assert_every_reuse_was_reported, assert_no_reuse, is_full, over_leased_stores,
    print_figures,
};
use crate::worker::{Counts, Orders};

over_leased_stores!(
    users_whose_tokens_are_revoked_at_once_all_succeed,
    eight_processes_with_many_users_reuse_nothing,
    kills_of_processes_with_many_users_report_every_reuse,
    store_that_ends_and_returns_costs_no_user_a_token,
    token_endpoint_that_is_down_is_probed_and_loses_no_token,
);

/// Creates a session for each of so many users. Returns the first refresh tokens, and a file with them.
fn sessions(stage: &Stage, number: usize) -> (Vec<String>, PathBuf) {
    let issue = |_| stage.server.issue_refresh_token().expose_secret().to_owned();
    let first: Vec<_> = (0..number).map(issue).collect();
    let file = stage.path("sessions");
    std::fs::write(&file, first.join("\n")).unwrap();
    (first, file)
}

fn orders(stage: &Stage, file: PathBuf) -> Orders {
    Orders { users: Some(Users { file, senders: 50 }), ..stage.orders("") }
}

/// Returns the number of requests that failed, by their kind.
fn failures<'a>(processes: impl IntoIterator<Item = &'a Process>) -> BTreeMap<String, u64> {
    let mut failures = BTreeMap::new();
    for line in processes.into_iter().flat_map(Process::said) {
        if let Some(failure) = line["failure"].as_str() {
            *failures.entry(failure.to_owned()).or_default() += 1;
        }
    }
    failures
}

/// The default of both stores.
const DEFAULT_LEASE: Duration = Duration::from_secs(15);

fn uses(counters: &Counters) -> u64 {
    counters.refresh_token_uses.values().sum()
}

// ===== a revocation =====

async fn users_whose_tokens_are_revoked_at_once_all_succeed(kind: Kind) {
    let number = if is_full() { 10_000 } else { 1_000 };
    let server = AuthorizationServer::builder().access_token_lifetime(Duration::from_secs(3600));
    let Some(mut stage) = Stage::alone(kind, server.build()).await else { return };
    stage.place.set_lease(DEFAULT_LEASE);
    stage.server.token_faults().always(Fault::normal().delay(Duration::from_millis(50)));
    let (first, _) = sessions(&stage, number);
    let orders = stage.orders("");
    let Many { pool, .. } = Many::new(&stage.place, &orders.token_endpoint, first);
    let client = many::client(&pool, &orders.api);
    let send_all = async || {
        let began = Instant::now();
        let requests = (0..number as u64).map(|user| {
            tokio::spawn({
                let (client, api) = (client.clone(), orders.api.clone());
                async move {
                    // An API accepts so many connections at once.
                    sleep(Duration::from_millis(user / 20)).await;
                    many::send(client, &api, user).await.map(|()| Instant::now())
                }
            })
        });
        let mut ended = Vec::new();
        for request in requests.collect::<Vec<_>>() {
            ended.push(request.await.unwrap().expect("the request succeeds"));
        }
        let (one, last) = (ended.iter().min().unwrap(), ended.iter().max().unwrap());
        (last.duration_since(*one), last.duration_since(began))
    };
    send_all().await;
    stage.server.revoke_all_access_tokens();
    let (spread, took) = send_all().await;

    let counters = stage.counters();
    print_figures(&format!(
        "{kind:?}: {number} users whose tokens were revoked at once: all succeeded within {took:.1?}, the last {spread:.1?} after the first; {} token requests for the revocation, {} at once at most",
        counters.token_requests - number as u64,
        counters.max_concurrent_token_requests,
    ));
    assert_no_reuse(&counters);
    assert_eq!(counters.token_requests, 2 * number as u64);
    assert_eq!(counters.resource_requests_unauthorized, number as u64);
    pool.flush().await.unwrap();
}

// ===== expiries =====

/// Returns the number that a variable of the environment has instead of the default.
fn wanted(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}

async fn eight_processes_with_many_users_reuse_nothing(kind: Kind) {
    let (number, expiries, lifetime) = match is_full() {
        true => {
            (1_000, wanted("TOWER_REFRESH_FLEET_EXPIRIES").unwrap_or(5), Duration::from_secs(5))
        }
        false => (50, 4, Duration::from_secs(3)),
    };
    let server = AuthorizationServer::builder().access_token_lifetime(lifetime).build();
    let Some(mut stage) = Stage::alone(kind, server).await else { return };
    stage.place.set_lease(DEFAULT_LEASE);
    let (_, file) = sessions(&stage, number);
    let orders = orders(&stage, file);
    let began = Instant::now();
    let mut processes: Vec<_> = (0..8).map(|_| Process::start(&orders)).collect();
    let wanted = (number * expiries) as u64;
    for part in 1..=4 {
        let wanted = wanted * part / 4;
        stage.until("expiries", |counters| counters.token_requests_granted >= wanted).await;
    }
    let took = began.elapsed();
    let counts: Vec<Counts> = join_all(processes.iter_mut().map(Process::end)).await;

    let counters = stage.counters();
    let sum = |count: fn(&Counts) -> u64| counts.iter().map(count).sum::<u64>();
    let (requests, accepted) = (sum(|it| it.requests), sum(|it| it.accepted));
    print_figures(&format!(
        "{kind:?}: 8 processes, {number} users, {expiries} expiries in {took:.1?}: {} token requests granted, {} uses, {} reuses, {} families revoked; {requests} requests, {} failed",
        counters.token_requests_granted,
        uses(&counters),
        counters.refresh_token_reuses,
        counters.families_revoked,
        requests - accepted,
    ));
    assert_no_reuse(&counters);
    assert_eq!(counters.token_requests_granted, uses(&counters));
    assert_eq!(failures(&processes), BTreeMap::new());
    assert_eq!(requests, accepted);
}

// ===== kills =====

async fn kills_of_processes_with_many_users_report_every_reuse(kind: Kind) {
    let kills = if is_full() { 200 } else { 20 };
    let lifetime = Duration::from_secs(1);
    let server = AuthorizationServer::builder().access_token_lifetime(lifetime).build();
    let Some(stage) = Stage::new(kind, server).await else { return };
    let (_, file) = sessions(&stage, 100);
    let orders = orders(&stage, file);
    let mut dice = Dice::new();
    let mut processes: Vec<_> = (0..4).map(|_| Process::start(&orders)).collect();
    let mut dead = Vec::new();
    let began = Instant::now();
    while dead.len() < kills {
        sleep(Duration::from_millis(dice.roll(100..300))).await;
        let which = dice.roll(0..4) as usize;
        processes[which].kill().await;
        dead.push(std::mem::replace(&mut processes[which], Process::start(&orders)));
    }
    let took = began.elapsed();
    join_all(processes.iter_mut().map(Process::end)).await;

    let counters = stage.counters();
    let all: Vec<_> = dead.iter().chain(&processes).collect();
    print_figures(&format!(
        "{kind:?}: {kills} kills among 4 processes with 100 users in {took:.1?}: {} token requests, {} reuses, {} families revoked; requests that failed: {:?}",
        counters.token_requests,
        counters.refresh_token_reuses,
        counters.families_revoked,
        failures(all.iter().copied()),
    ));
    assert_every_reuse_was_reported(&counters, all.iter().copied());
    assert!(!failures(all.iter().copied()).contains_key("misconfigured"));
}

// ===== outages =====

async fn token_endpoint_that_is_down_is_probed_and_loses_no_token(kind: Kind) {
    let number = if is_full() { 1_000 } else { 50 };
    let seconds = wanted("TOWER_REFRESH_FLEET_OUTAGE").unwrap_or(if is_full() { 10 } else { 2 });
    let lifetime = Duration::from_secs(5);
    let server = AuthorizationServer::builder().access_token_lifetime(lifetime).build();
    let Some(mut stage) = Stage::alone(kind, server).await else { return };
    stage.place.set_lease(DEFAULT_LEASE);
    let (_, file) = sessions(&stage, number);
    let orders = orders(&stage, file);
    let mut processes: Vec<_> = (0..8).map(|_| Process::start(&orders)).collect();
    let per_user = |times: u64| {
        move |counters: &Counters| counters.token_requests_granted >= times * number as u64
    };
    stage.until("a load", per_user(2)).await;
    stage.server.token_faults().always(Fault::unavailable());
    let before = stage.counters();
    sleep(Duration::from_secs(seconds as u64)).await;
    let during = stage.counters();
    stage.server.token_faults().clear();
    let began = Instant::now();
    let so_far = during.token_requests_granted / number as u64;
    stage.until("it goes on", per_user(so_far + 2)).await;
    let took = began.elapsed();
    join_all(processes.iter_mut().map(Process::end)).await;

    let counters = stage.counters();
    let probes = during.token_requests - before.token_requests;
    let failures = failures(&processes);
    print_figures(&format!(
        "{kind:?}: token endpoint down for {seconds} s, 8 processes, {number} users: {probes} token requests meanwhile, two more token sets per user within {took:.1?}; {} reuses, {} families revoked; requests that failed: {failures:?}",
        counters.refresh_token_reuses, counters.families_revoked,
    ));
    assert_no_reuse(&counters);
    assert_eq!(counters.token_requests_granted, uses(&counters));
    // A token that could not be refreshed is used to its end, and some end on their way to the API.
    let is_expected = |kind: &String| ["transient", "401 Unauthorized"].contains(&kind.as_str());
    assert!(failures.keys().all(is_expected), "{failures:?}");
    // The refreshes that were in flight, 64 in each process at most, and then one at a time in each process.
    let (in_flight, seconds) = (number.min(8 * 64) as u64, seconds as u64);
    assert!(probes <= in_flight + 8 * 4 * (seconds + 1), "{probes}");
}

async fn store_that_ends_and_returns_costs_no_user_a_token(kind: Kind) {
    let lifetime = Duration::from_secs(1);
    let server = AuthorizationServer::builder().access_token_lifetime(lifetime).build();
    let Some(mut stage) = Stage::new(kind, server).await else { return };
    // Longer than the outage, so that the process that has a new token set is the first to continue.
    stage.place.set_lease(DEFAULT_LEASE);
    let number = 50;
    let (_, file) = sessions(&stage, number);
    let orders = orders(&stage, file);
    let mut processes: Vec<_> = (0..4).map(|_| Process::start(&orders)).collect();
    let per_user = |times: u64| {
        move |counters: &Counters| counters.token_requests_granted >= times * number as u64
    };
    stage.until("a load", per_user(3)).await;
    let mut store_server = stage.store_server.take().unwrap();
    store_server.kill();
    for process in &processes {
        process.says(1, json!({ "failure": "transient" })).await;
    }
    store_server.start_again();
    stage.store_server = Some(store_server);
    let so_far = stage.counters().token_requests_granted / number as u64;
    stage.until("it goes on", per_user(so_far + 3)).await;
    join_all(processes.iter_mut().map(Process::end)).await;

    let counters = stage.counters();
    print_figures(&format!(
        "{kind:?} ended and returned: {number} users, {} token requests, {} reuses, {} families revoked; requests that failed: {:?}",
        counters.token_requests,
        counters.refresh_token_reuses,
        counters.families_revoked,
        failures(&processes),
    ));
    assert_every_reuse_was_reported(&counters, &processes);
    assert!(!failures(&processes).contains_key("denied"));
}
