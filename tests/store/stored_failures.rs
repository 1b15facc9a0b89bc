//! Credentials that share a store, while the store, the lock, the network or the process fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use tokio::sync::Notify;
use tokio::time::sleep;
use tower_refresh::store::{StoreError, StoredTokens};
use tower_refresh::testing::{Fault, Rotation};
use tower_refresh::{Credentials, Event, OnUnavailable, TokenError, TokenSet, source_fn};

use crate::harness::{self, let_others_run, puppet};
use crate::world::{
    MINUTE, Order, SECOND, Step, Worker, World, access, count, lost, refresh, useless,
};

fn is_store_down(error: &TokenError) -> bool {
    let error = error.get_ref().downcast_ref::<StoreError>();
    error.is_some_and(StoreError::is_unavailable)
}

fn unanswered(worker: &Worker) -> usize {
    count(&worker.events(), |event| matches!(event, Event::OutcomeUnknown { .. }))
}

/// Kills a worker during a refresh, once it has reached a step.
async fn kill_at(world: &World, step: Step) {
    let worker = world.worker();
    worker.tokens().await.unwrap();
    let (_, go) = worker.refresh_to(step).await;
    worker.kill();
    drop(go);
    let_others_run().await;
}

// ===== an open intent =====

#[tokio::test(start_paused = true)]
async fn killed_before_the_intent_is_saved_nothing_is_in_doubt() {
    for step in [Step::Lock, Step::SaveIntent] {
        let world = World::new();
        kill_at(&world, step).await;
        assert!(!world.has_open_intent().await, "{step:?}");
        let worker = world.worker();
        worker.tokens().await.unwrap();
        worker.refresh().await.unwrap();
        assert_eq!((world.requests(), world.reuses()), (2, 0), "{step:?}");
        assert_eq!(unanswered(&worker), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn kill_before_sending_delays_the_refresh_token_until_expiry() {
    let world = World::new();
    kill_at(&world, Step::IsHeld).await;
    let workers = world.workers(8);
    for worker in &workers {
        let error = {
            worker.tokens().await.unwrap();
            worker.refresh().await.unwrap_err()
        };
        assert!(error.is_ambiguous(), "{error}");
        assert!(error.to_string().contains("the outcome is unknown"), "{error}");
    }
    assert_eq!(world.requests(), 1);
    sleep(MINUTE).await;
    let tokens = join_all(workers.iter().map(|worker| worker.access())).await;
    assert!(tokens.iter().all(|token| *token == tokens[0] && world.server.is_live(token)));
    assert_eq!((world.requests(), world.reuses()), (2, 0));
    for worker in &workers {
        assert_eq!(unanswered(worker), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn kill_after_sending_leads_to_one_reported_attempt_for_all() {
    let world = World::new();
    kill_at(&world, Step::SaveTokens).await;
    let workers = world.workers(8);
    for worker in &workers {
        worker.tokens().await.unwrap();
    }
    assert_eq!(world.requests(), 2);
    sleep(Duration::from_secs(49)).await;
    // Stale: the token is still used, and nothing is sent.
    for worker in &workers {
        worker.tokens().await.unwrap();
        worker.flush().await.unwrap();
    }
    assert_eq!(world.requests(), 2);
    sleep(Duration::from_secs(11)).await;
    let outcomes = join_all(workers.iter().map(|worker| worker.tokens())).await;
    let mut told = 0;
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert!(error.is_denied(), "{error}");
        told += usize::from(error.to_string().contains("refused afterwards"));
        assert!(!error.to_string().contains("rt-"), "{error}");
    }
    assert!(told >= 1);
    assert_eq!(world.requests(), 3, "one attempt, for all of them");
    // No further attempt follows.
    for _ in 0..5 {
        sleep(MINUTE).await;
        join_all(workers.iter().map(|worker| worker.tokens())).await;
        world.worker().tokens().await.unwrap_err();
    }
    assert_eq!((world.requests(), world.reuses()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn killed_after_the_save_everything_is_there() {
    let world = World::new();
    kill_at(&world, Step::Release).await;
    let worker = world.worker();
    worker.tokens().await.unwrap();
    assert_eq!(world.requests(), 2);
    worker.refresh().await.unwrap();
    assert_eq!((world.requests(), world.reuses()), (3, 0));
    assert_eq!(unanswered(&worker), 0);
}

#[tokio::test(start_paused = true)]
async fn kill_at_the_first_refresh_retries_the_configured_token_once() {
    let world = World::new();
    let worker = world.worker();
    let paused = worker.store.pause(Step::IsHeld);
    tokio::spawn({
        let worker = worker.clone();
        async move { worker.tokens().await }
    });
    let go = paused.reached().await;
    worker.kill();
    drop(go);
    let after = world.worker();
    after.tokens().await.unwrap();
    assert_eq!((world.requests(), world.reuses()), (1, 0));
    assert_eq!(unanswered(&after), 1);
}

#[tokio::test(start_paused = true)]
async fn repeated_lost_attempts_back_off_for_the_whole_fleet() {
    let world = World::new();
    let workers = world.workers(8);
    join_all(workers.iter().map(|worker| worker.access())).await;
    sleep(MINUTE).await;
    // Before processing, so that the server does not revoke the family.
    world.server.token_faults().always(Fault::drop_connection());
    let mut sent = Vec::new();
    for second in 0..600 {
        let before = world.requests();
        for worker in &workers {
            let error = worker.tokens().await.unwrap_err();
            assert!(error.is_ambiguous(), "{error}");
        }
        sent.extend((before..world.requests()).map(|_| second));
        sleep(SECOND).await;
    }
    // The second follows at once, since the access token has expired. Then the wait is a minute, and doubles.
    let pauses: Vec<_> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses.len(), 4, "{pauses:?}");
    assert!(pauses[1] >= 60 && pauses[2] >= 120 && pauses[3] >= 240, "{pauses:?}");
    world.server.token_faults().clear();
    sleep(Duration::from_secs(900)).await;
    for worker in &workers {
        worker.tokens().await.unwrap();
    }
    assert_eq!(world.reuses(), 0);
}

#[tokio::test(start_paused = true)]
async fn own_lost_response_is_reported_by_the_error_alone() {
    let world = World::new();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    world.server.token_faults().once(Fault::drop_connection());
    let error = worker.refresh().await.unwrap_err();
    assert!(error.is_ambiguous());
    sleep(MINUTE).await;
    worker.tokens().await.unwrap();
    assert_eq!(unanswered(&worker), 0);
    assert_eq!(world.reuses(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_not_waited_for_and_one_attempt_follows() {
    let world = World::new();
    kill_at(&world, Step::IsHeld).await;
    let worker = world.worker();
    let first = worker.access().await;
    let mut layered = harness::client(
        tower_refresh::RefreshLayer::new(worker.credentials.clone()),
        move |token, _| {
            let first = first.clone();
            async move { if token == first { StatusCode::UNAUTHORIZED } else { StatusCode::OK } }
        },
    );
    let answer = tower::Service::call(
        tower::ServiceExt::ready(&mut layered).await.unwrap(),
        harness::get("/"),
    )
    .await
    .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!((world.requests(), world.reuses()), (2, 0));
}

// ===== a grace window =====

fn graceful() -> World {
    World::with(|server| server.rotation(Rotation::Grace(Duration::from_secs(10))))
        .dialect(|dialect| dialect.reuse_grace = Some(Duration::from_secs(10)))
}

#[tokio::test(start_paused = true)]
async fn lost_response_is_requested_again_at_once_in_the_grace_window() {
    let world = graceful();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    world.server.token_faults().once(lost());
    worker.refresh().await.unwrap();
    assert_eq!(world.requests(), 3);
    assert_eq!(world.server.counters().refresh_tokens_answered_again, 1);

    world.server.token_faults().times(2, lost());
    let error = worker.refresh().await.unwrap_err();
    assert!(error.is_ambiguous(), "{error}");
    assert_eq!(world.requests(), 5);
    sleep(SECOND).await;
    for worker in world.workers(3) {
        worker.tokens().await.unwrap();
        worker.refresh().await.unwrap_err();
    }
    assert_eq!((world.requests(), world.reuses()), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn store_failure_before_the_second_request_leaves_the_outcome_unknown() {
    for (step, before) in [(Step::Load, 2), (Step::SaveIntent, 1), (Step::IsHeld, 1)] {
        let world = graceful();
        let worker = world.worker();
        worker.tokens().await.unwrap();
        world.server.token_faults().once(lost());
        for _ in 0..before {
            worker.store.order(step, Order::Delay(Duration::ZERO));
        }
        worker.store.order(step, Order::Fail);
        let error = worker.refresh().await.unwrap_err();
        assert!(error.is_ambiguous(), "{step:?} {error}");
        assert!(error.to_string().contains("when sent again"), "{step:?} {error}");
        assert_eq!(world.requests(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn another_process_asks_again_in_the_grace_window_after_a_crash() {
    let world = graceful();
    kill_at(&world, Step::SaveTokens).await;
    sleep(Duration::from_secs(3)).await;
    let worker = world.worker();
    worker.tokens().await.unwrap();
    worker.refresh().await.unwrap();
    assert_eq!((world.requests(), world.reuses()), (3, 0));
    assert_eq!(world.server.counters().refresh_tokens_answered_again, 1);
    assert_eq!(unanswered(&worker), 1);
}

#[tokio::test(start_paused = true)]
async fn past_the_grace_window_the_access_token_is_used_to_its_end() {
    let world = graceful();
    kill_at(&world, Step::SaveTokens).await;
    sleep(Duration::from_secs(10)).await;
    let worker = world.worker();
    worker.tokens().await.unwrap();
    assert!(worker.refresh().await.unwrap_err().is_ambiguous());
    assert_eq!(world.requests(), 2);
}

// ===== requests that did not count =====

#[tokio::test(start_paused = true)]
async fn what_did_not_count_takes_the_intent_back() {
    let world = World::new();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    let faults = [
        Fault::unavailable(),
        Fault::status(StatusCode::TOO_MANY_REQUESTS).retry_after(SECOND),
        Fault::oauth_error("invalid_client"),
    ];
    for fault in faults {
        world.server.token_faults().once(fault.clone());
        let worker = world.worker();
        worker.tokens().await.unwrap();
        let error = worker.refresh().await.unwrap_err();
        assert!(error.is_transient() || error.is_misconfigured(), "{error}");
        assert!(!world.has_open_intent().await, "{fault:?}");
    }
    let after = world.worker();
    after.tokens().await.unwrap();
    after.refresh().await.unwrap();
    assert_eq!(world.reuses(), 0);
    assert_eq!(unanswered(&after), 0);
}

/// S4
#[tokio::test(start_paused = true)]
async fn intent_stays_open_after_503_from_a_gateway() {
    let world = World::new();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    world.server.token_faults().once(Fault::unavailable().after_processing());
    let error = worker.refresh().await.unwrap_err();
    assert!(error.is_ambiguous(), "{error}");
    assert!(world.has_open_intent().await);
    worker.tokens().await.unwrap();
    assert_eq!((world.requests(), world.reuses()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_open_intent_comes_back_with_an_attempt_that_did_not_count() {
    let world = World::new();
    kill_at(&world, Step::SaveTokens).await;
    sleep(MINUTE).await;
    world.server.token_faults().once(Fault::unavailable());
    let worker = world.worker();
    let error = worker.tokens().await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(world.has_open_intent().await);
    assert!(world.json().await.contains(r#""attempt": 1"#));
    // The token was spent after all.
    sleep(SECOND).await;
    let error = worker.tokens().await.unwrap_err();
    assert!(error.is_denied(), "{error}");
    assert!(error.to_string().contains("refused afterwards"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_taken_back_is_taken_back_later() {
    let world = World::new();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    world.server.token_faults().once(Fault::unavailable());
    worker.store.order(Step::SaveRest, Order::Fail);
    worker.refresh().await.unwrap_err();
    assert!(world.has_open_intent().await);
    sleep(SECOND).await;
    worker.refresh().await.unwrap();
    assert_eq!((world.requests(), world.reuses()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn an_intent_whose_save_was_lost_is_no_doubt_of_our_own() {
    let world = World::new();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    for order in [Order::Fail, Order::FailAfterwards] {
        worker.store.order(Step::SaveIntent, order);
        let error = worker.refresh().await.unwrap_err();
        assert!(is_store_down(&error), "{error}");
        let before = world.requests();
        sleep(Duration::from_secs(2)).await;
        worker.refresh().await.unwrap();
        assert_eq!((world.requests(), world.reuses()), (before + 1, 0));
    }
}

// ===== a save that fails =====

#[tokio::test(start_paused = true)]
async fn failed_save_is_tried_again_before_the_token_is_used() {
    let world = World::new();
    let worker = world.worker();
    for _ in 0..2 {
        worker.store.order(Step::SaveTokens, Order::Fail);
    }
    worker.store.order(Step::SaveTokens, Order::FailAfterwards);
    let token = worker.access().await;
    assert_eq!(world.worker().access().await, token);
    assert_eq!(count(&worker.events(), |event| matches!(event, Event::Unsaved { .. })), 0);
}

#[tokio::test(start_paused = true)]
async fn unsaved_tokens_are_used_and_saved_by_the_next_requests() {
    let world = World::new();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    for _ in 0..4 {
        worker.store.order(Step::SaveTokens, Order::Fail);
    }
    let token = access(&worker.refresh().await.unwrap()).to_owned();
    assert!(world.server.is_live(&token));
    assert!(worker.status().unsaved);
    assert_eq!(count(&worker.events(), |event| matches!(event, Event::Unsaved { .. })), 1);
    assert!(world.has_open_intent().await);
    sleep(Duration::from_secs(6)).await;
    // Used, and saved in the background.
    assert_eq!(worker.access().await, token);
    worker.flush().await.unwrap();
    assert!(!world.has_open_intent().await);
    assert_eq!(count(&worker.events(), |event| matches!(event, Event::Saved)), 1);
    assert_eq!(world.worker().access().await, token);
    assert_eq!(world.requests(), 2);
    // Then it is refreshed in time.
    sleep(Duration::from_secs(30)).await;
    assert_eq!(worker.access().await, token);
    worker.flush().await.unwrap();
    assert_eq!(world.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn flush_saves_what_is_unsaved_and_reports_the_rest() {
    let world = World::new();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    let token = worker.renew_unsaved().await;
    let error = worker.flush().await.unwrap_err();
    assert!(is_store_down(&error), "{error}");
    worker.events();
    worker.store.come_up();
    worker.flush().await.unwrap();
    assert_eq!(count(&worker.events(), |event| matches!(event, Event::Saved)), 1);
    assert_eq!(world.worker().access().await, token);
    // Reported once.
    sleep(Duration::from_secs(6)).await;
    worker.access().await;
    worker.flush().await.unwrap();
    assert_eq!(count(&worker.events(), |event| matches!(event, Event::Saved)), 0);
    assert_eq!(world.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn save_that_counted_without_an_answer_is_recognised() {
    let world = World::new();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    for _ in 0..4 {
        worker.store.order(Step::SaveTokens, Order::FailAfterwards);
        worker.store.order(Step::SaveRest, Order::FailAfterwards);
    }
    let token = access(&worker.refresh().await.unwrap()).to_owned();
    assert_eq!(count(&worker.events(), |event| matches!(event, Event::Unsaved { .. })), 1);
    worker.flush().await.unwrap();
    assert_eq!(count(&worker.events(), |event| matches!(event, Event::Saved)), 1);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(worker.access().await, token);
    worker.flush().await.unwrap();
    assert_eq!(world.requests(), 2, "there was nothing to renew");
}

#[tokio::test(start_paused = true)]
async fn save_that_counted_is_recognised_after_later_saves_of_others() {
    let world = World::new();
    let [worker, other] = [world.worker(), world.worker()];
    worker.tokens().await.unwrap();
    for _ in 0..4 {
        worker.store.order(Step::SaveTokens, Order::FailAfterwards);
        worker.store.order(Step::SaveRest, Order::FailAfterwards);
    }
    worker.refresh().await.unwrap();
    assert_eq!(count(&worker.events(), |event| matches!(event, Event::Unsaved { .. })), 1);
    other.refresh().await.unwrap();
    other.refresh().await.unwrap();
    worker.flush().await.unwrap();
    assert_eq!(count(&worker.events(), |event| matches!(event, Event::Saved)), 1);
}

#[tokio::test(start_paused = true)]
async fn unsaved_tokens_survive_an_older_refresh_that_was_overtaken() {
    let world = World::new();
    let answer = Arc::new(Notify::new());
    let late = Arc::clone(&answer);
    let calls = AtomicU64::new(0);
    let source = source_fn(move |_| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        let late = Arc::clone(&late);
        async move {
            if call == 1 {
                late.notified().await;
            }
            let set = TokenSet::bearer(format!("access-{call}"))?.with_expires_in(MINUTE);
            Ok(set)
        }
    });
    let store = world.store();
    // A refresh that is lost after ten timeouts, and whose lock has expired.
    let policy = world.policy().timeout(3 * SECOND);
    let credentials = Credentials::builder(source).store(store.clone()).policy(policy).build();
    credentials.tokens().await.unwrap();
    let slow = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.refresh().await }
    });
    sleep(31 * SECOND).await;
    slow.await.unwrap().unwrap_err();
    store.expire_lock();
    sleep(MINUTE).await;
    credentials.refresh().await.unwrap_err();
    sleep(4 * SECOND).await;
    let second = credentials.refresh().await.unwrap();
    for _ in 0..4 {
        store.order(Step::SaveTokens, Order::Fail);
    }
    let third = credentials.refresh().await.unwrap();
    assert_ne!(access(&second), access(&third));
    assert!(!world.json().await.contains(access(&third)));
    answer.notify_one();
    let_others_run().await;
    credentials.flush().await.unwrap();
    assert!(world.json().await.contains(access(&third)));
}

#[tokio::test(start_paused = true)]
async fn unsaved_tokens_are_used_to_expiry_behind_an_open_intent() {
    let world = World::new();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    let token = worker.renew_unsaved().await;
    for _ in 0..4 {
        sleep(Duration::from_secs(10)).await;
        assert_eq!(worker.access().await, token);
    }
    assert_eq!(world.requests(), 2);
    sleep(Duration::from_secs(20)).await;
    assert!(is_store_down(&worker.tokens().await.unwrap_err()));
    assert_eq!(world.requests(), 2, "nothing is sent while the store is down");
    worker.kill();
    assert!(world.has_open_intent().await);
}

// ===== the lock is lost =====

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_lost_before_the_token_is_sent_sends_nothing() {
    let world = World::new();
    let worker = world.worker();
    let first = worker.access().await;
    for order in [Order::LoseLock, Order::Fail] {
        worker.store.order(Step::IsHeld, order);
        let error = worker.refresh().await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(!world.has_open_intent().await);
        sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(world.requests(), 1);
    assert_eq!(worker.access().await, first);
    worker.refresh().await.unwrap();
}

/// Access tokens that expire before the wait for a silent store ends.
fn short() -> World {
    World::with(|server| server.access_token_lifetime(Duration::from_secs(5)))
}

#[tokio::test(start_paused = true)]
async fn worker_frozen_before_its_last_check_sends_nothing_and_adopts() {
    let world = short();
    let [frozen, other] = [world.worker(), world.worker()];
    frozen.tokens().await.unwrap();
    other.tokens().await.unwrap();
    let (renewing, go) = frozen.refresh_to(Step::IsHeld).await;
    frozen.store.expire_lock();
    assert!(other.refresh().await.unwrap_err().is_ambiguous());
    sleep(Duration::from_secs(5)).await;
    let renewed = other.access().await;
    go.send(()).unwrap();
    assert_eq!(access(&renewing.await.unwrap().unwrap()), renewed);
    assert_eq!((world.requests(), world.reuses()), (2, 0));
    assert!(!world.has_open_intent().await);
}

#[tokio::test(start_paused = true)]
async fn worker_frozen_after_sending_saves_its_successor_later() {
    let world = short();
    let [frozen, other] = [world.worker(), world.worker()];
    let first = frozen.access().await;
    other.tokens().await.unwrap();
    sleep(Duration::from_secs(2)).await;
    let (renewing, go) = frozen.refresh_to(Step::SaveTokens).await;
    frozen.store.expire_lock();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(other.access().await, first);
    assert!(other.refresh().await.unwrap_err().is_ambiguous());
    go.send(()).unwrap();
    let renewed = access(&renewing.await.unwrap().unwrap()).to_owned();
    sleep(SECOND).await;
    assert_eq!(other.access().await, renewed);
    assert_eq!((world.requests(), world.reuses()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn answer_that_a_later_one_has_overtaken_is_not_saved_later() {
    let world = graceful();
    let [slow, other] = [world.worker(), world.worker()];
    let paused = slow.store.pause(Step::SaveTokens);
    let fetching = tokio::spawn({
        let slow = slow.clone();
        async move { slow.access().await }
    });
    let go = paused.reached().await;
    slow.store.expire_lock();
    sleep(SECOND).await;
    let later = other.access().await;
    let record = world.json().await;
    go.send(()).unwrap();
    assert_eq!(fetching.await.unwrap(), later);
    slow.flush().await.unwrap();
    assert_eq!(world.json().await, record);
    assert_eq!(slow.access().await, later);
}

#[tokio::test(start_paused = true)]
async fn token_endpoint_slower_than_the_lease_costs_nothing() {
    let world = World::new();
    let [slow, other] = [world.worker(), world.worker()];
    slow.tokens().await.unwrap();
    other.tokens().await.unwrap();
    let fault = Fault::normal().after_processing().delay(Duration::from_secs(25));
    world.server.token_faults().once(fault);
    let renewing = tokio::spawn({
        let slow = slow.clone();
        async move { slow.refresh().await }
    });
    sleep(SECOND).await;
    slow.store.expire_lock();
    assert!(other.refresh().await.unwrap_err().is_ambiguous());
    renewing.await.unwrap().unwrap();
    sleep(MINUTE).await;
    other.tokens().await.unwrap();
    assert_eq!(world.reuses(), 0);
}

// ===== the store is down =====

#[tokio::test(start_paused = true)]
async fn with_the_store_down_a_source_that_rotates_sends_nothing() {
    let world = World::new();
    let worker = world.worker();
    worker.store.go_down();
    assert!(is_store_down(&worker.tokens().await.unwrap_err()));
    worker.store.come_up();
    sleep(SECOND).await;
    let token = worker.access().await;
    worker.store.go_down();
    sleep(Duration::from_secs(45)).await;
    // Used while it works.
    assert_eq!(worker.access().await, token);
    sleep(Duration::from_secs(15)).await;
    assert!(is_store_down(&worker.tokens().await.unwrap_err()));
    assert_eq!(world.requests(), 1);
    worker.store.come_up();
    sleep(SECOND * 2).await;
    worker.tokens().await.unwrap();
    assert_eq!((world.requests(), world.reuses()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn with_the_store_down_a_source_that_does_not_rotate_goes_on() {
    let world = World::with(|server| server.rotation(Rotation::Never))
        .dialect(|dialect| dialect.rotates = false);
    let worker = world.worker();
    worker.store.go_down();
    worker.tokens().await.unwrap();
    worker.store.come_up();
    worker.flush().await.unwrap();
    assert_eq!(world.worker().access().await, worker.access().await);
    let strict =
        world.worker_as(world.grant(), |stored| stored.on_unavailable(OnUnavailable::Fail));
    strict.store.go_down();
    assert!(is_store_down(&strict.tokens().await.unwrap_err()));
}

#[tokio::test(start_paused = true)]
async fn denied_token_is_not_sent_repeatedly_while_the_store_is_down() {
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let source = source_fn(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Err(TokenError::denied("wrong password")) }
    });
    let world = World::new();
    let worker = world.worker_as(source, |stored| stored.on_unavailable(OnUnavailable::Continue));
    worker.store.go_down();
    for _ in 0..10 {
        assert!(worker.tokens().await.unwrap_err().is_denied());
        sleep(Duration::from_secs(6)).await;
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    // After a log-in, requests succeed again.
    worker.log_in(world.server.issue()).await.unwrap_err();
    worker.tokens().await.unwrap();
    sleep(MINUTE).await;
    worker.tokens().await.unwrap_err();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn start_without_the_store_does_not_restore_an_ended_session() {
    let world = World::with(|server| server.rotation(Rotation::Never))
        .dialect(|dialect| dialect.rotates = false);
    let worker = world.worker();
    worker.tokens().await.unwrap();
    worker.log_out().await.unwrap();
    sleep(SECOND).await;
    let other = world.worker();
    other.store.go_down();
    // It cannot know this.
    other.tokens().await.unwrap();
    other.store.come_up();
    other.flush().await.unwrap();
    assert!(world.worker().tokens().await.unwrap_err().is_denied());
    sleep(MINUTE).await;
    assert!(other.tokens().await.unwrap_err().is_denied());
    assert!(worker.tokens().await.unwrap_err().is_denied());
}

#[tokio::test(start_paused = true)]
async fn store_outage_causes_no_more_refreshes_than_no_store_at_all() {
    let world = World::new();
    let worker = world.serving();
    worker.tokens().await.unwrap();
    worker.store.go_down();
    for _ in 0..600 {
        worker.tokens().await.unwrap();
        sleep(SECOND).await;
    }
    // Every 48 seconds, or every 45.
    assert!(world.requests() <= 15, "{}", world.requests());
    assert_eq!(world.reuses(), 0);
    assert!(is_store_down(&worker.flush().await.unwrap_err()));
    worker.events();
    // The store is back, and the tokens are saved soon.
    worker.store.come_up();
    let before = world.requests();
    let mut saved = false;
    for _ in 0..61 {
        worker.tokens().await.unwrap();
        let_others_run().await;
        saved |= count(&worker.events(), |event| matches!(event, Event::Saved)) == 1;
        sleep(SECOND).await;
    }
    assert!(saved);
    assert!(world.requests() <= before + 2);
    let token = worker.access().await;
    worker.flush().await.unwrap();
    assert_eq!(world.worker().access().await, token);
    assert_eq!(world.reuses(), 0);
}

#[tokio::test(start_paused = true)]
async fn unsaved_tokens_are_refreshed_in_time_during_a_store_outage() {
    let world = World::new();
    let worker = world.serving();
    worker.tokens().await.unwrap();
    worker.renew_unsaved().await;
    for _ in 0..300 {
        let token = worker.access().await;
        assert!(world.server.is_live(&token));
        sleep(SECOND).await;
    }
    assert!(world.requests() <= 9, "{}", world.requests());
    assert_eq!(world.reuses(), 0);
}

#[tokio::test(start_paused = true)]
async fn tokens_obtained_before_the_store_was_up_are_saved_later() {
    let world = World::new();
    let worker = world.serving();
    worker.store.go_down();
    let token = worker.access().await;
    assert_eq!(count(&worker.events(), |event| matches!(event, Event::Unsaved { .. })), 1);
    assert!(is_store_down(&worker.flush().await.unwrap_err()));
    worker.store.come_up();
    sleep(Duration::from_secs(10)).await;
    // The next requests save the token, and do not refresh it.
    assert_eq!(worker.access().await, token);
    let_others_run().await;
    assert_eq!(count(&worker.events(), |event| matches!(event, Event::Saved)), 1);
    assert_eq!(world.worker().access().await, token);
    sleep(MINUTE).await;
    worker.tokens().await.unwrap();
    assert_eq!((world.requests(), world.reuses()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_others_hold_is_no_store_that_is_down() {
    let world = World::new();
    let holder = world.worker();
    let worker = world.worker_as(world.grant(), |stored| {
        stored.on_unavailable(OnUnavailable::Continue).lock_timeout(Duration::from_secs(5))
    });
    let paused = holder.store.pause(Step::IsHeld);
    tokio::spawn(async move { holder.tokens().await });
    let go = paused.reached().await;
    let error = worker.tokens().await.unwrap_err();
    assert!(error.is_transient() && !is_store_down(&error), "{error}");
    assert!(error.to_string().contains("the store is locked"), "{error}");
    assert_eq!(world.requests(), 0);
    drop(go);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_is_down() {
    for step in [Step::Load, Step::Lock, Step::SaveIntent, Step::IsHeld] {
        let world = World::new();
        let worker = world.worker();
        worker.store.order(step, Order::Hang);
        let error = worker.tokens().await.unwrap_err();
        assert!(error.is_transient(), "{step:?}: {error}");
        sleep(MINUTE).await;
        worker.tokens().await.unwrap();
        assert_eq!((world.requests(), world.reuses()), (1, 0), "{step:?}");
    }
    // It has been sent, and no caller waits without end for the result.
    let world = World::new();
    let worker = world.worker();
    worker.store.order(Step::SaveTokens, Order::Hang);
    let token = worker.access().await;
    sleep(Duration::from_secs(6)).await;
    assert_eq!(worker.access().await, token);
    worker.flush().await.unwrap();
    assert_eq!(world.worker().access().await, token);
    assert_eq!((world.requests(), world.reuses()), (1, 0));
}

// ===== the store has lost something =====

#[tokio::test(start_paused = true)]
async fn emptied_store_gets_the_current_tokens_and_no_old_ones() {
    let world = World::new();
    let workers = world.workers(3);
    // Each has a different revision.
    let oldest = workers[2].access().await;
    workers[1].tokens().await.unwrap();
    workers[1].refresh().await.unwrap();
    workers[0].tokens().await.unwrap();
    let newest = access(&workers[0].refresh().await.unwrap()).to_owned();
    assert_ne!(oldest, newest);
    assert_eq!(world.requests(), 3);
    world.backing.come_back(None).await;
    for worker in workers.iter().rev() {
        let _ = worker.refresh().await;
        let_others_run().await;
    }
    assert_eq!(world.requests(), 3, "nothing is sent while the access token works");
    assert!(world.has_open_intent().await);
    assert_eq!(world.worker().access().await, newest);
    sleep(MINUTE).await;
    let tokens = join_all(workers.iter().map(|worker| worker.access())).await;
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_eq!((world.requests(), world.reuses()), (4, 0));
    assert!(workers.iter().any(|worker| unanswered(worker) >= 1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_rolled_back_is_brought_forward() {
    let world = World::new();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    let backup = world.record().await.unwrap();
    let newest = access(&worker.refresh().await.unwrap()).to_owned();
    world.backing.come_back(Some(&backup)).await;
    assert!(worker.refresh().await.unwrap_err().is_ambiguous());
    assert_eq!(world.worker().access().await, newest);
    sleep(MINUTE).await;
    worker.tokens().await.unwrap();
    assert_eq!((world.requests(), world.reuses()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn doubtful_store_is_not_trusted_while_the_access_token_works() {
    let world = World::new();
    world.worker().tokens().await.unwrap();
    world.backing.doubt();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    let error = worker.refresh().await.unwrap_err();
    assert!(error.is_ambiguous(), "{error}");
    assert!(error.to_string().contains("may be spent"), "{error}");
    assert_eq!(unanswered(&worker), 1);
    assert_eq!(world.requests(), 1);
    sleep(MINUTE).await;
    worker.tokens().await.unwrap();
    assert_eq!((world.requests(), world.reuses()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn store_lost_between_intent_and_save_gets_no_old_token() {
    let world = World::new();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    let (renewing, go) = worker.refresh_to(Step::SaveTokens).await;
    world.backing.come_back(None).await;
    go.send(()).unwrap();
    renewing.await.unwrap().unwrap();
    sleep(MINUTE).await;
    world.worker().tokens().await.unwrap();
    worker.tokens().await.unwrap();
    assert_eq!(world.server.refresh_token_uses(world.configured.expose_secret()), 1);
    assert_eq!(world.reuses(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_came_back_empty_brings_no_session_back() {
    let world = World::new();
    let worker = world.worker();
    worker.log_out().await.unwrap();
    world.backing.come_back(None).await;
    assert!(worker.tokens().await.unwrap_err().is_denied());
    assert_eq!(world.requests(), 0);
}

#[tokio::test(start_paused = true)]
async fn old_configured_token_does_not_return_with_an_emptied_store() {
    let mut world = World::new();
    let old = world.worker();
    old.tokens().await.unwrap();
    world.configured = world.server.issue_refresh_token();
    let new = world.worker();
    let token = new.access().await;
    old.refresh().await.unwrap();
    world.backing.come_back(None).await;
    let _ = new.refresh().await;
    let _ = old.refresh().await;
    assert_eq!(world.worker().access().await, token);
    sleep(MINUTE).await;
    old.tokens().await.unwrap();
    assert_eq!(world.reuses(), 0);
}

// ===== useless responses =====

#[tokio::test(start_paused = true)]
async fn the_refresh_token_of_a_useless_answer_is_saved() {
    for had_one in [false, true] {
        let world = World::new();
        if had_one {
            world.worker().tokens().await.unwrap();
        }
        let successor = world.server.issue();
        let worker = world.worker();
        world.server.token_faults().once(useless(refresh(&successor)));
        assert_eq!(worker.refresh().await.is_ok(), had_one);
        if had_one {
            worker.refresh().await.unwrap_err();
        }
        assert!(!world.has_open_intent().await);
        assert!(world.json().await.contains(refresh(&successor)));
        worker.kill();
        let after = world.worker();
        if had_one {
            after.tokens().await.unwrap();
        }
        after.refresh().await.unwrap();
        assert_eq!(world.server.refresh_token_uses(refresh(&successor)), 1, "{had_one}");
        assert_eq!(world.reuses(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn refresh_token_of_a_useless_response_is_saved_later_or_reported() {
    for (failures, unsaved) in [(3, 0), (4, 1)] {
        let world = World::new();
        let worker = world.worker();
        worker.tokens().await.unwrap();
        let successor = world.server.issue();
        world.server.token_faults().once(useless(refresh(&successor)));
        for _ in 0..failures {
            worker.store.order(Step::SaveTokens, Order::Fail);
        }
        worker.refresh().await.unwrap_err();
        let is_unsaved = |event: &Event| matches!(event, Event::Unsaved { .. });
        assert_eq!(count(&worker.events(), is_unsaved), unsaved);
        assert_eq!(world.json().await.contains(refresh(&successor)), unsaved == 0);
        worker.flush().await.unwrap();
        assert!(world.json().await.contains(refresh(&successor)));
    }
}

// ===== a source that hangs, a runtime that ends =====

#[tokio::test(start_paused = true)]
async fn source_that_hangs_does_not_hold_the_lock_without_end() {
    let world = World::new();
    let (source, mut strings) = puppet();
    let worker = world.worker_of(source.clone());
    let asking = tokio::spawn({
        let worker = worker.clone();
        async move { worker.tokens().await }
    });
    drop(strings.next().await);
    asking.await.unwrap().unwrap_err();
    let other = world.worker_of(source);
    assert!(other.tokens().await.unwrap_err().is_transient());
    sleep(Duration::from_secs(5 * 60)).await;
    let asking = tokio::spawn(async move { other.access().await });
    strings.next().await.answer(harness::tokens("one").with_expires_in(MINUTE));
    assert_eq!(asking.await.unwrap(), "one");
}

#[test]
fn runtime_that_ends_midway_frees_the_lock_and_keeps_the_intent() {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let first = runtime().unwrap();
    let world = first.block_on(async {
        let world = World::new();
        let worker = world.worker();
        worker.tokens().await.unwrap();
        drop(worker.refresh_to(Step::SaveTokens).await);
        world.server.token_faults().once(Fault::hang());
        tokio::spawn(async move { worker.refresh().await });
        let_others_run().await;
        world
    });
    drop(first);
    let second = runtime().unwrap();
    second.block_on(async {
        assert!(world.has_open_intent().await);
        let worker = world.worker();
        worker.tokens().await.unwrap();
        assert!(worker.refresh().await.unwrap_err().is_ambiguous());
    });
}

#[tokio::test(start_paused = true)]
async fn look_after_an_unknown_outcome_starts_no_refresh() {
    let world = World::new();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    world.server.token_faults().once(lost());
    worker.refresh().await.unwrap_err();
    worker.events();
    for _ in 0..3 {
        assert!(worker.refresh().await.unwrap_err().is_ambiguous());
        sleep(Duration::from_secs(6)).await;
    }
    assert_eq!(count(&worker.events(), |event| matches!(event, Event::RefreshStarted { .. })), 0);
    assert_eq!(world.requests(), 2);
}

// ===== secrets =====

#[tokio::test(start_paused = true)]
async fn no_token_is_in_any_error_event_or_debug() {
    let world = World::new();
    let worker = world.worker();
    let mut shown = String::new();
    let mut show = |what: &dyn std::fmt::Debug| shown.push_str(&format!("{what:?}\n"));
    show(&worker.tokens().await.unwrap());
    world.server.token_faults().once(lost());
    show(&worker.refresh().await.unwrap_err());
    show(&worker.flush().await);
    show(&worker.events());
    sleep(MINUTE).await;
    let other = world.worker();
    let error = other.tokens().await.unwrap_err();
    show(&error);
    show(&error.to_string());
    show(&other.events());
    show(&worker.status());
    show(&worker.credentials);
    let record: StoredTokens = world.record().await.unwrap();
    show(&record);
    worker.log_in(world.server.issue()).await.unwrap();
    worker.log_out().await.unwrap();
    show(&worker.events());
    for secret in ["rt-", "at-"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

/// A network that is down takes the store with it.
#[tokio::test(start_paused = true)]
async fn first_token_after_a_store_outage_comes_in_the_short_backoff() {
    let world = World::new();
    let worker = world.worker();
    worker.store.go_down();
    for _ in 0..600 {
        assert!(is_store_down(&worker.tokens().await.unwrap_err()));
        sleep(SECOND).await;
    }
    worker.tokens().await.ok();
    worker.store.come_up();
    sleep(SECOND).await;
    worker.tokens().await.unwrap();
}
