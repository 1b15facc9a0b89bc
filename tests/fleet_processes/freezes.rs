//! Processes that are frozen (SIGSTOP) in the middle of a refresh, and wake up later.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;
use tower_refresh::testing::{AuthorizationServer, Fault};

use crate::process::Process;
use crate::stage::{
    Kind, LEASE, Stage, assert_every_reuse_was_reported, assert_no_reuse, over_all_stores,
    over_leased_stores, replace_by,
};
use crate::steps::{Halt, How};
use crate::worker::Orders;

/// Long enough that no token expires during a test.
const LIFETIME: Duration = Duration::from_secs(3600);

fn stop_at(at: &str, skip: usize) -> Option<Halt> {
    Some(Halt { at: at.to_owned(), skip, how: How::Stop })
}

// ===== before the last check of the lock =====

over_leased_stores!(
    process_that_lost_its_lock_while_frozen_adopts,
    freeze_between_check_and_sending_is_reported,
);

async fn process_that_lost_its_lock_while_frozen_adopts(kind: Kind) {
    let lifetime = Duration::from_secs(2);
    for step in ["after the load", "before the intent", "after the intent", "before the look"] {
        let server = AuthorizationServer::builder().access_token_lifetime(lifetime).build();
        let Some(stage) = Stage::new(kind, server).await else { return };
        let first = stage.server.issue_refresh_token();
        let orders = Orders { sends: false, ..stage.orders(first.expose_secret()) };

        // Three loads for the first set: without the lock, with it, and without it for the second.
        let skip = if step == "after the load" { 3 } else { 1 };
        let mut frozen = Process::start(&Orders { halt: stop_at(step, skip), ..orders.clone() });
        frozen.ask("renew").await;
        frozen.tell("renew").await;
        frozen.says(1, json!({ "at": step })).await;

        // Its lease ends, and another process takes over: at once without an intent, and at the expiry of the access token with
        // one.
        let mut other = Process::start(&Orders { sends: true, ..orders });
        stage.until("it was renewed", |counters| counters.token_requests_granted == 2).await;
        other.says(1, json!({ "sending": 2 })).await;
        other.says(2, json!({ "event": "renewed" })).await;

        frozen.go_on();
        let said = frozen.says(2, json!({ "did": "renew" })).await;
        assert!(said["error"].is_null(), "{step}: {said}");
        frozen.tell("send").await;
        let so_far = stage.counters().token_requests_granted;
        stage.until("it goes on", |counters| counters.token_requests_granted > so_far + 1).await;
        let (frozen_counts, other_counts) = (frozen.end().await, other.end().await);

        assert_no_reuse(&stage.counters());
        assert!(
            frozen.sent().iter().all(|(number, _)| *number != 2),
            "{step}: {:?}",
            frozen.sent()
        );
        assert!(frozen_counts.adopted > 0, "{step}");
        assert_eq!(
            frozen_counts.accepted,
            frozen_counts.requests,
            "{step}: {}",
            frozen.transcript()
        );
        assert_eq!(other_counts.accepted, other_counts.requests, "{step}: {}", other.transcript());
        // The intent of a process that did not send is reported.
        let was_open = ["after the intent", "before the look"].contains(&step);
        assert_eq!(other_counts.unanswered > 0, was_open, "{step}");
    }
}

async fn freeze_between_check_and_sending_is_reported(kind: Kind) {
    let lifetime = Duration::from_secs(1);
    let server = AuthorizationServer::builder().access_token_lifetime(lifetime).build();
    let Some(stage) = Stage::new(kind, server).await else { return };
    let first = stage.server.issue_refresh_token();
    let orders = Orders { sends: false, ..stage.orders(first.expose_secret()) };

    // It has checked the lock, and is frozen before it sends. The others cannot know that it did not send.
    let halt = stop_at("before the sending", 1);
    let mut frozen = Process::start(&Orders { halt, ..orders.clone() });
    frozen.ask("renew").await;
    frozen.tell("renew").await;
    frozen.says(1, json!({ "at": "before the sending" })).await;

    // The others use the access token to its expiry, and report the open intent before they send.
    let other = Process::start(&Orders { sends: true, ..orders });
    stage.until("it was renewed", |counters| counters.token_requests_granted == 2).await;
    other.says(1, json!({ "event": "unanswered" })).await;
    assert_no_reuse(&stage.counters());

    // The token that it sends when it resumes is a reuse, and was reported.
    frozen.go_on();
    frozen.says(2, json!({ "did": "renew" })).await;
    other.says(1, json!({ "failure": "denied" })).await;
    assert_eq!(stage.counters().refresh_token_reuses, 1);
    assert_every_reuse_was_reported(&stage.counters(), [&frozen, &other]);
}

// ===== after sending =====

over_all_stores!(response_to_a_frozen_process_is_saved_when_it_resumes);

async fn response_to_a_frozen_process_is_saved_when_it_resumes(kind: Kind) {
    let server = AuthorizationServer::builder().access_token_lifetime(LIFETIME).build();
    let Some(stage) = Stage::new(kind, server).await else { return };
    let first = stage.server.issue_refresh_token();
    let orders = Orders { lock_wait_ms: 1500, ..stage.orders(first.expose_secret()) };
    let mut frozen = Process::start(&orders);
    frozen.ask("renew").await;
    let mut other = Process::start(&orders);
    other.says(1, json!({ "event": "adopted" })).await;

    // The token is spent, and the response waits in the socket of the frozen process.
    let late = Fault::normal().delay(Duration::from_millis(300)).after_processing();
    let so_far = stage.counters().token_requests;
    stage.server.token_faults().once(late);
    frozen.tell("renew").await;
    stage.until("it is under way", |counters| counters.token_requests > so_far).await;
    frozen.stop();
    sleep(LEASE * 2).await;

    // The others use the access token while it works, and send nothing.
    let said = other.ask("renew").await;
    let expected = if kind == Kind::File { "transient" } else { "ambiguous" };
    assert_eq!(said["error"], expected, "{said}");
    let accepted = stage.counters().resource_requests_ok;
    stage.until("requests", |counters| counters.resource_requests_ok > accepted + 10).await;
    assert_eq!(stage.counters().token_requests, so_far + 1);
    let before = stage.stored().await.unwrap();
    assert!(before.has_open_intent());

    frozen.go_on();
    frozen.says(2, json!({ "did": "renew", "error": null })).await;
    let stored = stage.stored().await.unwrap();
    assert!(!stored.has_open_intent());
    assert!(stage.server.is_unspent(&stored.refresh_token().unwrap()));
    // The others get it as soon as they need it.
    assert!(stage.server.revoke_access_token(&before.access_token().unwrap()));
    other.says(2, json!({ "event": "adopted" })).await;
    let (frozen_counts, other_counts) = (frozen.end().await, other.end().await);
    assert_no_reuse(&stage.counters());
    assert_eq!(stage.counters().token_requests, so_far + 1);
    assert_eq!(other_counts.adopted, 2, "{}", other.transcript());
    assert_eq!(frozen_counts.accepted, frozen_counts.requests);
    assert_eq!(other_counts.accepted, other_counts.requests);
}

// ===== while it holds a lock without a lease =====

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_process_blocks_neither_log_in_nor_log_out() {
    for skip_log_out in [false, true] {
        let server = AuthorizationServer::builder().access_token_lifetime(LIFETIME).build();
        let Some(stage) = Stage::new(Kind::File, server).await else { return };
        let first = stage.server.issue_refresh_token();
        let orders = stage.orders(first.expose_secret());
        let orders = Orders { sends: false, lock_wait_ms: 200, ..orders };
        let halt = stop_at("after the look", 1);
        let mut frozen = Process::start(&Orders { halt, ..orders.clone() });
        frozen.ask("renew").await;
        frozen.tell("renew").await;
        frozen.says(1, json!({ "at": "after the look" })).await;

        let mut other = Process::start(&orders);
        // The record can be loaded without the lock.
        assert!(other.ask("renew").await["error"].is_null());
        let said = other.ask("renew").await;
        assert_eq!(said["error"], "transient", "{said}");
        let message = said["message"].as_str().unwrap();
        assert!(message.contains("the store is locked"), "{message}");

        if !skip_log_out {
            let said = other.ask("forget").await;
            assert!(said["error"].is_null(), "{said}");
            assert_eq!(stage.stored().await.unwrap().refresh_token(), None);
        }
        let tokens = stage.server.issue();
        let said = other.ask(&replace_by(&tokens, LIFETIME)).await;
        assert!(said["error"].is_null(), "{said}");
        let ours = tokens.refresh_token().unwrap().expose_secret();
        assert_eq!(stage.stored().await.unwrap().refresh_token().unwrap(), ours);

        // The tokens that it gets when it resumes are of an ended session.
        frozen.go_on();
        let said = frozen.says(2, json!({ "did": "renew" })).await;
        assert!(said["error"].is_null(), "{said}");
        frozen.end().await;
        other.end().await;
        assert_eq!(frozen.count(&json!({ "event": "adopted" })), 1);
        assert_eq!(stage.stored().await.unwrap().refresh_token().unwrap(), ours);
        assert!(stage.server.is_unspent(ours));
        assert_no_reuse(&stage.counters());
    }
}
