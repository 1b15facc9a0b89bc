//! Log-ins and log-outs during the refresh of another process, and refreshes whose response is lost.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use tower_refresh::testing::{AuthorizationServer, Fault, Rotation};

use crate::process::Process;
use crate::stage::{
    Kind, Stage, assert_every_reuse_was_reported, assert_no_reuse, over_all_stores, replace_by,
};
use crate::worker::Orders;

over_all_stores!(
    a_log_out_during_the_refresh_of_another_process_stays,
    a_log_out_before_the_refresh_of_another_process_stays,
    a_log_in_during_the_refresh_of_another_process_stays,
    a_log_in_before_the_refresh_of_another_process_stays,
    lost_response_is_repaired_in_the_grace_window,
    lost_response_leads_to_one_attempt_of_all_at_expiry,
);

const LIFETIME: Duration = Duration::from_secs(3600);

/// Starts two processes that have the same token and send no requests.
async fn two(kind: Kind) -> Option<(Stage, Process, Process)> {
    let server = AuthorizationServer::builder().access_token_lifetime(LIFETIME).build();
    let stage = Stage::new(kind, server).await?;
    let first = stage.server.issue_refresh_token();
    let orders = Orders { sends: false, ..stage.orders(first.expose_secret()) };
    let (mut one, mut other) = (Process::start(&orders), Process::start(&orders));
    assert!(one.ask("renew").await["error"].is_null());
    assert!(other.ask("renew").await["error"].is_null());
    assert_eq!(stage.counters().token_requests, 1);
    Some((stage, one, other))
}

/// Orders a refresh, and returns when the server has spent the token and not yet responded.
async fn begin_a_refresh(stage: &Stage, process: &mut Process) {
    let late = Fault::normal().delay(Duration::from_millis(500)).after_processing();
    stage.server.token_faults().once(late);
    let so_far = stage.counters().token_requests;
    process.tell("renew").await;
    stage.until("it is under way", |counters| counters.token_requests > so_far).await;
}

/// Asserts that no process has a token, and that none sends one.
async fn assert_logged_out(stage: &Stage, processes: [&mut Process; 2]) {
    let token_requests = stage.counters().token_requests;
    let stored = stage.stored().await.unwrap();
    assert_eq!((stored.refresh_token(), stored.has_open_intent()), (None, false));
    for process in processes {
        let said = process.ask("renew").await;
        assert_eq!(said["error"], "denied", "{said}");
        process.end().await;
    }
    assert_eq!(stage.counters().token_requests, token_requests);
    assert_no_reuse(&stage.counters());
}

/// Asserts that both have the tokens of the log-in, and continue with them.
async fn assert_logged_in(stage: &Stage, refresh_token: &str, processes: [&mut Process; 2]) {
    let number = crate::steps::number_of(refresh_token);
    let token_requests = stage.counters().token_requests;
    assert_eq!(stage.stored().await.unwrap().refresh_token().unwrap(), refresh_token);
    assert!(stage.server.is_unspent(refresh_token));
    let mut sent = Vec::new();
    for process in processes {
        let said = process.ask("renew").await;
        assert!(said["error"].is_null(), "{said}");
        process.end().await;
        sent.extend(process.sent());
    }
    let counters = stage.counters();
    assert!(counters.token_requests > token_requests);
    assert_eq!(sent.iter().filter(|(sent, _)| *sent == number).count(), 1, "{sent:?}");
    assert_no_reuse(&counters);
}

async fn a_log_out_during_the_refresh_of_another_process_stays(kind: Kind) {
    let Some((stage, mut one, mut other)) = two(kind).await else { return };
    begin_a_refresh(&stage, &mut one).await;
    let said = other.ask("forget").await;
    assert!(said["error"].is_null(), "{said}");
    assert_eq!(stage.counters().token_requests_granted, 1, "the log-out has waited");

    let said = one.says(2, json!({ "did": "renew" })).await;
    assert_eq!(said["error"], "denied", "{said}");
    assert!(said["message"].as_str().unwrap().contains("logged out"), "{said}");
    assert_logged_out(&stage, [&mut one, &mut other]).await;
}

async fn a_log_out_before_the_refresh_of_another_process_stays(kind: Kind) {
    let Some((stage, mut one, mut other)) = two(kind).await else { return };
    let said = other.ask("forget").await;
    assert!(said["error"].is_null(), "{said}");
    let said = one.ask("renew").await;
    assert_eq!(said["error"], "denied", "{said}");
    assert_logged_out(&stage, [&mut one, &mut other]).await;
}

async fn a_log_in_during_the_refresh_of_another_process_stays(kind: Kind) {
    let Some((stage, mut one, mut other)) = two(kind).await else { return };
    begin_a_refresh(&stage, &mut one).await;
    let tokens = stage.server.issue();
    let said = other.ask(&replace_by(&tokens, LIFETIME)).await;
    assert!(said["error"].is_null(), "{said}");
    assert_eq!(stage.counters().token_requests_granted, 1, "the log-in has waited");

    let said = one.says(2, json!({ "did": "renew" })).await;
    assert!(said["error"].is_null(), "{said}");
    one.says(1, json!({ "event": "adopted" })).await;
    let refresh_token = tokens.refresh_token().unwrap().expose_secret();
    assert_logged_in(&stage, refresh_token, [&mut one, &mut other]).await;
}

async fn a_log_in_before_the_refresh_of_another_process_stays(kind: Kind) {
    let Some((stage, mut one, mut other)) = two(kind).await else { return };
    let tokens = stage.server.issue();
    let said = other.ask(&replace_by(&tokens, LIFETIME)).await;
    assert!(said["error"].is_null(), "{said}");
    let said = one.ask("renew").await;
    assert!(said["error"].is_null(), "{said}");
    one.says(1, json!({ "event": "adopted" })).await;
    assert_eq!(stage.counters().token_requests, 1);
    let refresh_token = tokens.refresh_token().unwrap().expose_secret();
    assert_logged_in(&stage, refresh_token, [&mut one, &mut other]).await;
}

// ===== responses that are lost after the token was spent =====

/// Starts eight processes that send requests, and have all adopted the first set.
async fn eight(stage: &Stage, reuse_grace_ms: Option<u64>) -> Vec<Process> {
    let first = stage.server.issue_refresh_token();
    let orders = Orders { reuse_grace_ms, ..stage.orders(first.expose_secret()) };
    let processes: Vec<_> = (0..8).map(|_| Process::start(&orders)).collect();
    for process in &processes {
        process.says(1, json!({ "event": "renewed" })).await;
    }
    processes
}

async fn lost_response_is_repaired_in_the_grace_window(kind: Kind) {
    let grace = Duration::from_secs(60);
    let server = AuthorizationServer::builder()
        .access_token_lifetime(Duration::from_secs(1))
        .rotation(Rotation::Grace(grace))
        .build();
    let Some(stage) = Stage::new(kind, server).await else { return };
    let mut processes = eight(&stage, Some(crate::stage::millis(grace))).await;
    let so_far = stage.counters();

    stage.server.token_faults().once(Fault::drop_connection().after_processing());
    stage
        .until("it is made good", |counters| {
            counters.token_requests_granted > so_far.token_requests_granted + 1
        })
        .await;
    for process in &mut processes {
        let counts = process.end().await;
        assert_eq!(counts.accepted, counts.requests, "{}", process.transcript());
    }
    let counters = stage.counters();
    assert_eq!(counters.token_requests_faulted, 1);
    assert_eq!(counters.refresh_tokens_answered_again, 1);
    assert_eq!(counters.token_requests, counters.token_requests_granted + 1);
    assert_eq!((counters.refresh_token_reuses, counters.families_revoked), (0, 0));
    let stored = stage.stored().await.unwrap();
    assert!(!stored.has_open_intent());
    assert!(stage.server.is_unspent(&stored.refresh_token().unwrap()));
}

async fn lost_response_leads_to_one_attempt_of_all_at_expiry(kind: Kind) {
    // Long enough for all of them to see the loss before it expires.
    let lifetime = Duration::from_secs(5);
    let server = AuthorizationServer::builder().access_token_lifetime(lifetime).build();
    let Some(stage) = Stage::new(kind, server).await else { return };
    let mut processes = eight(&stage, None).await;
    let so_far = stage.counters();

    stage.server.token_faults().once(Fault::drop_connection().after_processing());
    stage.until("it is lost", |counters| counters.token_requests_faulted == 1).await;
    // The access token is used to its expiry, and the only report is a failed refresh.
    let accepted = stage.counters().resource_requests_ok;
    stage.until("requests", |counters| counters.resource_requests_ok > accepted + 50).await;
    let failures: Vec<Value> = processes
        .iter()
        .flat_map(Process::said)
        .filter(|line| line.get("failure").is_some())
        .collect();
    assert_eq!(failures, Vec::<Value>::new());
    assert_eq!(stage.counters().token_requests, so_far.token_requests + 1);

    // Then one attempt follows for all, and every process reports it.
    for process in &processes {
        process.says(1, json!({ "failure": "denied" })).await;
    }
    sleep(Duration::from_millis(500)).await;
    for process in &mut processes {
        process.end().await;
    }
    let counters = stage.counters();
    assert_eq!(counters.token_requests, so_far.token_requests + 2);
    assert_eq!((counters.refresh_token_reuses, counters.families_revoked), (1, 1));
    assert_every_reuse_was_reported(&counters, &processes);
    assert!(stage.stored().await.unwrap().is_denied());
}
