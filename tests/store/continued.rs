//! Refreshes while the store is unavailable are recorded once it is available again.

use std::time::Duration;

use tokio::time::sleep;
use tower_refresh::testing::Fault;
use tower_refresh::{Event, Renewal, TokenSource as _, source_fn};

use crate::world::{MINUTE, Order, SECOND, Step, World, access, count, lost, refresh, useless};

#[tokio::test(start_paused = true)]
async fn stored_refresh_token_is_sent_although_a_save_fails() {
    let world = World::new();
    world.worker().tokens().await.unwrap();
    sleep(MINUTE).await;
    world.backing.doubt();
    let worker = world.serving();
    worker.store.order(Step::SaveIntent, Order::Fail);
    worker.tokens().await.unwrap();
    assert_eq!(world.reuses(), 0);
}

#[tokio::test(start_paused = true)]
async fn unmade_attempt_is_taken_back_after_a_store_outage() {
    for is_saved_without_an_answer in [true, false] {
        let world = World::new();
        let worker = world.serving();
        worker.tokens().await.unwrap();
        world.server.token_faults().times(2, Fault::unavailable());
        if is_saved_without_an_answer {
            worker.store.order(Step::SaveIntent, Order::FailAfterwards);
            worker.refresh().await.unwrap_err();
        } else {
            worker.store.order(Step::SaveRest, Order::Fail);
            worker.refresh().await.unwrap_err();
            worker.store.go_down();
            sleep(SECOND).await;
            worker.refresh().await.unwrap_err();
            worker.store.come_up();
        }
        assert!(world.has_open_intent().await, "{is_saved_without_an_answer}");
        worker.flush().await.unwrap();
        assert!(!world.has_open_intent().await, "{is_saved_without_an_answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn attempt_after_a_rotation_without_the_store_is_recorded() {
    for has_first in [true, false] {
        let world = World::new();
        let worker = world.serving();
        if has_first {
            worker.tokens().await.unwrap();
        }
        worker.store.go_down();
        worker.refresh().await.unwrap();
        world.server.token_faults().once(lost());
        assert!(worker.refresh().await.unwrap_err().is_ambiguous());
        worker.store.come_up();
        worker.flush().await.unwrap();
        assert!(world.has_open_intent().await, "{has_first}");
        let sent = world.requests();
        assert!(world.worker().refresh().await.is_ok());
        assert!(world.worker().refresh().await.is_ok());
        let other = world.worker();
        other.tokens().await.unwrap();
        assert!(other.refresh().await.unwrap_err().is_ambiguous());
        assert_eq!(world.requests(), sent);
    }
}

#[tokio::test(start_paused = true)]
async fn attempt_after_a_log_in_without_the_store_is_recorded() {
    let world = World::new();
    let worker = world.serving();
    worker.tokens().await.unwrap();
    worker.store.go_down();
    worker.log_in(world.server.issue()).await.unwrap_err();
    world.server.token_faults().once(lost());
    assert!(worker.refresh().await.unwrap_err().is_ambiguous());
    worker.store.come_up();
    worker.flush().await.unwrap();
    assert!(world.has_open_intent().await);
}

#[tokio::test(start_paused = true)]
async fn refusal_after_a_rotation_without_the_store_is_recorded() {
    for has_first in [true, false] {
        let world = World::new();
        let worker = world.serving();
        if has_first {
            worker.tokens().await.unwrap();
        }
        worker.store.go_down();
        worker.refresh().await.unwrap();
        world.server.token_faults().once(Fault::oauth_error("invalid_grant"));
        assert!(worker.refresh().await.unwrap_err().is_denied());
        worker.store.come_up();
        worker.flush().await.unwrap();
        sleep(MINUTE).await;
        let sent = world.requests();
        assert!(world.worker().tokens().await.unwrap_err().is_denied());
        for _ in 0..10 {
            assert!(worker.tokens().await.unwrap_err().is_denied());
            sleep(6 * SECOND).await;
        }
        assert_eq!(world.requests(), sent, "{has_first}");
    }
}

#[tokio::test(start_paused = true)]
async fn refresh_tokens_replaced_without_the_store_are_not_sent_again() {
    let world = World::new();
    let worker = world.serving();
    worker.tokens().await.unwrap();
    worker.store.go_down();
    let between = worker.refresh().await.unwrap();
    worker.refresh().await.unwrap();
    worker.store.come_up();
    worker.flush().await.unwrap();
    worker.tokens().await.unwrap();
    // The application brings an old one back.
    assert!(worker.log_in(between.clone()).await.unwrap_err().is_denied());
    let _ = worker.refresh().await;
    assert_eq!(world.reuses(), 0);
    assert_eq!(world.server.refresh_token_uses(refresh(&between)), 1);
}

#[tokio::test(start_paused = true)]
async fn refresh_tokens_of_an_unsaved_log_in_are_not_sent_again() {
    let world = World::new();
    let worker = world.serving();
    worker.tokens().await.unwrap();
    worker.store.go_down();
    let session = world.server.issue();
    worker.log_in(session.clone()).await.unwrap_err();
    worker.refresh().await.unwrap();
    worker.store.come_up();
    worker.flush().await.unwrap();
    assert!(worker.log_in(session.clone()).await.unwrap_err().is_denied());
    let _ = worker.refresh().await;
    assert_eq!(world.reuses(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_overtaken_is_no_saved_token_set() {
    let world = World::new();
    let [worker, other] = [world.serving(), world.worker()];
    worker.tokens().await.unwrap();
    other.tokens().await.unwrap();
    worker.store.go_down();
    world.server.token_faults().once(Fault::drop_connection());
    worker.refresh().await.unwrap_err();
    other.refresh().await.unwrap();
    worker.store.come_up();
    worker.flush().await.unwrap();
    let events = worker.events();
    assert_eq!(count(&events, |event| matches!(event, Event::Unsaved { .. })), 0);
    assert_eq!(count(&events, |event| matches!(event, Event::Saved)), 0);
}

/// A closure around a grant passes on no facts.
#[tokio::test(start_paused = true)]
async fn first_refresh_token_of_a_useless_answer_is_kept() {
    for has_facts in [true, false] {
        let world = World::new().dialect(|dialect| dialect.rotates = !has_facts);
        let successor = world.server.issue();
        world.server.token_faults().once(useless(refresh(&successor)));
        let grant = world.grant();
        let builder = match has_facts {
            true => tower_refresh::Credentials::builder(grant),
            false => tower_refresh::Credentials::builder(source_fn(move |renewal: Renewal| {
                let grant = grant.clone();
                async move { grant.fetch(renewal).await }
            })),
        };
        let credentials = builder.policy(world.policy()).build();
        credentials.tokens().await.unwrap_err();
        sleep(MINUTE).await;
        credentials.tokens().await.unwrap();
        assert_eq!(world.server.refresh_token_uses(refresh(&successor)), 1, "{has_facts}");
    }
}

#[tokio::test(start_paused = true)]
async fn rotations_during_an_outage_are_all_in_the_record_in_the_end() {
    for times in 1..5 {
        let world = World::new();
        let worker = world.serving();
        let mut sets = vec![worker.tokens().await.unwrap()];
        worker.store.go_down();
        for _ in 0..times {
            sets.push(worker.refresh().await.unwrap());
        }
        let last = sets.pop().unwrap();
        worker.store.come_up();
        sleep(Duration::from_secs(6)).await;
        assert_eq!(worker.access().await, access(&last));
        sleep(SECOND).await;
        // A new process knows only the record.
        let after = world.worker();
        assert_eq!(after.access().await, access(&last));
        for replaced in sets {
            assert!(after.log_in(replaced).await.unwrap_err().is_denied(), "{times}");
        }
        assert_eq!(world.worker().access().await, access(&last));
    }
}

#[tokio::test(start_paused = true)]
async fn attempt_after_a_roll_back_without_the_store_is_recorded() {
    let world = World::new();
    let worker = world.serving();
    worker.tokens().await.unwrap();
    let old = world.record().await;
    worker.refresh().await.unwrap();
    worker.store.go_down();
    world.backing.come_back(old.as_ref()).await;
    world.server.token_faults().once(Fault::drop_connection());
    assert!(worker.refresh().await.unwrap_err().is_ambiguous());
    worker.store.come_up();
    worker.flush().await.unwrap();
    assert!(world.has_open_intent().await);
    sleep(MINUTE).await;
    worker.tokens().await.unwrap();
    assert_eq!(world.reuses(), 0);
}

#[tokio::test(start_paused = true)]
async fn log_in_refreshed_offline_does_not_undo_a_later_one() {
    let world = World::new();
    let [late, other] = [world.serving(), world.worker()];
    late.tokens().await.unwrap();
    late.store.go_down();
    late.log_in(world.server.issue()).await.unwrap_err();
    late.refresh().await.unwrap();
    sleep(SECOND).await;
    let session = world.server.issue();
    other.log_in(session.clone()).await.unwrap();
    late.store.come_up();
    late.flush().await.unwrap();
    assert!(world.json().await.contains(access(&session)));
    assert_eq!(access(&late.refresh().await.unwrap()), access(&session));
}
