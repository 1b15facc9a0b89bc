//! The log lines about the store.

use tokio::time::sleep;
use tower_refresh::testing::ManualClock;
use tower_refresh::{Credentials, TokenSet};
use tracing::Level;

use crate::harness::{SECOND, let_others_run};
use crate::records::Records;
use crate::scripted::{Scripted, issued};
use crate::world::{Step, World};

#[tokio::test(start_paused = true)]
async fn unsaved_tokens_are_one_error_and_their_save_one_line_at_info() {
    let records = Records::start();
    let world = World::new();
    let worker = world.worker_as(world.grant(), |builder| builder.name("billing"));
    worker.tokens().await.unwrap();
    records.take();
    worker.renew_unsaved().await;
    let trouble = records.take_trouble();
    assert_eq!(trouble.len(), 1, "{trouble:?}");
    trouble[0].assert(
        Level::ERROR,
        "store",
        "token set not saved: it is lost if the program ends before the store works again",
        &[("credentials", "billing"), ("store", "the puppet"), ("kind", "transient")],
    );
    worker.store.come_up();
    worker.flush().await.unwrap();
    let lines = records.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let fields = [("credentials", "billing"), ("store", "the puppet")];
    lines[0].assert(Level::INFO, "store", "token set saved after all", &fields);
}

#[tokio::test(start_paused = true)]
async fn unsaved_tokens_of_the_next_session_are_an_error_again() {
    let records = Records::start();
    let world = World::new();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    for _ in 0..2 {
        worker.renew_unsaved().await;
        assert_eq!(errors(&records), 1);
        worker.store.come_up();
        let refresh_token = world.server.issue_refresh_token();
        let tokens = TokenSet::bearer("of-the-user").unwrap().with_refresh_token(refresh_token);
        worker.log_in(tokens).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn unsaved_tokens_are_an_error_again_after_a_newer_token() {
    let records = Records::start();
    let world = World::new();
    let (worker, elsewhere) = (world.worker(), world.worker());
    worker.tokens().await.unwrap();
    for _ in 0..2 {
        worker.renew_unsaved().await;
        assert_eq!(errors(&records), 1);
        let refresh_token = world.server.issue_refresh_token();
        let tokens = TokenSet::bearer("of-the-user").unwrap().with_refresh_token(refresh_token);
        elsewhere.log_in(tokens).await.unwrap();
        worker.store.come_up();
        worker.refresh().await.unwrap();
    }
}

fn errors(records: &Records) -> usize {
    records.take().iter().filter(|line| line.level == Level::ERROR).count()
}

#[tokio::test(start_paused = true)]
async fn token_of_another_process_is_one_debug_line() {
    let records = Records::start();
    let world = World::new();
    let (here, elsewhere) = (world.worker(), world.worker());
    here.tokens().await.unwrap();
    records.take();
    elsewhere.tokens().await.unwrap();
    let lines = records.take();
    let lines: Vec<_> = lines.iter().filter(|line| line.level < Level::TRACE).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let fields = [("generation", "1"), ("cause", "missing")];
    lines[0].assert(Level::DEBUG, "refresh", "newer token found in the store", &fields);
    let spans = records.spans("refresh");
    let outcomes: Vec<_> = spans.iter().map(|span| span.fields["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["refreshed", "found_in_store"]);
}

#[tokio::test(start_paused = true)]
async fn attempt_of_a_killed_process_is_one_warning() {
    let world = World::new();
    let killed = world.worker();
    killed.tokens().await.unwrap();
    let (_, go) = killed.refresh_to(Step::SaveTokens).await;
    killed.kill();
    drop(go);
    let_others_run().await;

    let records = Records::start();
    let worker = world.worker();
    for _ in 0..5 {
        let _ = worker.refresh().await;
        sleep(20 * SECOND).await;
    }
    let trouble = records.take_trouble();
    let message = "the store has a refresh token whose last use has an unknown outcome";
    let unknown: Vec<_> = trouble.iter().filter(|line| line.message.starts_with(message)).collect();
    assert_eq!(unknown.len(), 1, "{trouble:?}");
    unknown[0].assert(Level::WARN, "store", message, &[("kind", "ambiguous")]);
}

#[tokio::test(start_paused = true)]
async fn second_unknown_outcome_is_a_warning_that_requests_fail() {
    let records = Records::start();
    let (server, clock) = (Scripted::default(), ManualClock::new());
    let builder = Credentials::builder(server.grant(&clock, "first")).name("billing");
    let credentials = builder.clock(clock.clone()).build();
    server.answers(issued(1, 600));
    credentials.tokens().await.unwrap();
    clock.advance(600 * SECOND);
    for _ in 0..2 {
        server.loses_an_answer();
        credentials.tokens().await.unwrap_err();
        clock.advance(2 * SECOND);
    }
    for _ in 0..10 {
        credentials.tokens().await.unwrap_err();
        clock.advance(SECOND);
    }
    let trouble = records.take_trouble();
    assert_eq!(trouble.len(), 2, "{trouble:?}");
    let message = "outcome of a refresh unknown: the refresh token may be spent";
    trouble[0].assert(Level::WARN, "refresh", message, &[("kind", "ambiguous")]);
    let fields = [("credentials", "billing"), ("retry_in_ms", "60000"), ("usable_for_ms", "0")];
    let message = "outcome of a refresh unknown again: requests fail";
    trouble[1].assert(Level::WARN, "refresh", message, &fields);
}
