//! A server of the store that ends under load and returns with its data or without, and a token endpoint that is slower than a lease.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::sleep;
use tower_refresh::testing::{AuthorizationServer, Fault};

use crate::process::Process;
use crate::stage::{
    Kind, LEASE, Stage, StoreServer, assert_every_reuse_was_reported, assert_no_reuse, is_full,
    millis, over_leased_stores, print_figures,
};
use crate::steps::number_of;
use crate::worker::Orders;

const LIFETIME: Duration = Duration::from_secs(1);

/// Four processes under load, and a server that is down until the access token expires.
async fn an_outage(kind: Kind, loses_everything: bool) {
    let server = AuthorizationServer::builder().access_token_lifetime(LIFETIME).build();
    let Some(mut stage) = Stage::new(kind, server).await else { return };
    let first = stage.server.issue_refresh_token();
    let orders = stage.orders(first.expose_secret());
    let mut processes: Vec<_> = (0..4).map(|_| Process::start(&orders)).collect();
    stage.until("a load", |counters| counters.token_requests_granted >= 3).await;

    all_have_what_is_stored(&stage, &mut processes).await;
    let mut store_server = stage.store_server.take().unwrap();
    store_server.kill();
    for process in &mut processes {
        process.ask("send").await;
    }
    // Nothing is sent without a saved intent. The access token is used to its expiry, and then requests fail.
    for process in &processes {
        process.says(1, json!({ "failure": "transient" })).await;
    }
    let at_the_end = stage.counters();
    sleep(Duration::from_millis(500)).await;
    assert_eq!(stage.counters().token_requests, at_the_end.token_requests);
    if loses_everything {
        let StoreServer::Redis(redis) = &mut store_server else { unreachable!() };
        redis.lose_everything();
    }
    store_server.start_again();
    stage.store_server = Some(store_server);

    stage
        .until("it goes on", |counters| {
            counters.token_requests_granted >= at_the_end.token_requests_granted + 3
                && counters.resource_requests_ok > at_the_end.resource_requests_ok + 20
        })
        .await;
    // A process that has only its configuration finds the stored tokens of the others.
    let new = Process::start(&orders);
    new.says(1, json!({ "event": "adopted" })).await;
    processes.push(new);
    join_all(processes.iter_mut().map(Process::end)).await;

    let counters = stage.counters();
    print_figures(&format!(
        "{kind:?} came back {}: {} token requests, {} reuses, reported {} times; {} requests answered, {} failed",
        if loses_everything { "empty" } else { "with its data" },
        counters.token_requests,
        counters.refresh_token_reuses,
        processes
            .iter()
            .map(|process| process.count(&json!({ "event": "unanswered" })))
            .sum::<usize>(),
        counters.resource_requests_ok,
        processes
            .iter()
            .map(|process| process.count(&json!({ "failure": "transient" })))
            .sum::<usize>(),
    ));
    assert_no_reuse(&counters);
    assert_every_reuse_was_reported(&counters, &processes);
    assert_eq!(counters.token_requests_granted, counters.token_requests);
    stage.assert_nothing_is_lost(first.expose_secret()).await;
}

/// Pauses the processes between two refreshes, when all have the newest token. A process with an older one may be the first
/// to store it in an emptied Redis, and then it is sent again and reported.
async fn all_have_what_is_stored(stage: &Stage, processes: &mut [Process]) {
    loop {
        let granted = stage.counters().token_requests_granted;
        stage.until("a refresh", |counters| counters.token_requests_granted > granted).await;
        sleep(LIFETIME / 4).await;
        let mut have = Vec::new();
        for process in &mut *processes {
            have.push(process.ask("pause").await["has"].as_u64());
        }
        let stored = stage.stored().await.unwrap();
        let number = stored.refresh_token().as_deref().map(number_of);
        if !stored.has_open_intent() && have.iter().all(|has| *has == number) {
            return;
        }
        for process in &mut *processes {
            process.ask("send").await;
        }
    }
}

over_leased_stores!(
    a_server_that_comes_back_with_its_data_costs_no_session,
    unsaved_tokens_are_used_and_saved_when_the_server_is_back,
    a_lease_lasts_as_long_as_the_token_endpoint_takes,
);

async fn a_server_that_comes_back_with_its_data_costs_no_session(kind: Kind) {
    an_outage(kind, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emptied_redis_is_given_the_tokens_of_the_processes() {
    an_outage(Kind::Redis, true).await;
}

async fn unsaved_tokens_are_used_and_saved_when_the_server_is_back(kind: Kind) {
    let server = AuthorizationServer::builder().access_token_lifetime(60 * LIFETIME).build();
    let Some(mut stage) = Stage::new(kind, server).await else { return };
    let first = stage.server.issue_refresh_token();
    let mut process = Process::start(&stage.orders(first.expose_secret()));
    process.says(1, json!({ "event": "renewed" })).await;

    // The token is spent, and the server of the store ends before the response arrives.
    let late = Fault::normal().delay(LIFETIME / 2).after_processing();
    stage.server.token_faults().once(late);
    process.tell("renew").await;
    stage.until("it is under way", |counters| counters.token_requests == 2).await;
    let mut store_server = stage.store_server.take().unwrap();
    store_server.kill();
    process.says(1, json!({ "event": "unsaved" })).await;
    process.says(2, json!({ "event": "renewed" })).await;
    let accepted = stage.counters().resource_requests_ok;
    stage.until("requests", |counters| counters.resource_requests_ok > accepted + 10).await;

    store_server.start_again();
    stage.store_server = Some(store_server);
    process.says(1, json!({ "event": "saved" })).await;
    // The session continues from there.
    process.ask("renew").await;
    assert_eq!(stage.counters().token_requests_granted, 3);
    let counts = process.end().await;
    assert_eq!(counts.accepted, counts.requests, "{}", process.transcript());
    assert_no_reuse(&stage.counters());
    stage.assert_nothing_is_lost(first.expose_secret()).await;
}

async fn a_lease_lasts_as_long_as_the_token_endpoint_takes(kind: Kind) {
    let (lease, takes) = match is_full() {
        true => (Duration::from_secs(15), Duration::from_secs(30)),
        false => (LEASE, Duration::from_secs(3)),
    };
    let server = AuthorizationServer::builder().access_token_lifetime(2 * takes).build();
    let Some(stage) = Stage::new(kind, server).await else { return };
    let place = stage.place.with_lease_ms(millis(lease));
    let first = stage.server.issue_refresh_token();
    let orders = Orders { place, ..stage.orders(first.expose_secret()) };

    stage.server.token_faults().always(Fault::normal().delay(takes).after_processing());
    let mut processes: Vec<_> = (0..4).map(|_| Process::start(&orders)).collect();
    for process in &processes {
        process.says(1, json!({ "event": "renewed" })).await;
    }
    for process in &mut processes {
        let counts = process.end().await;
        assert_eq!((counts.accepted, counts.unanswered), (counts.requests, 0));
    }
    assert_eq!(stage.counters().token_requests, 1);
    assert_no_reuse(&stage.counters());
}
