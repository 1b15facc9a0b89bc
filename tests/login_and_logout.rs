//! `replace` and `forget` are seen at once, and an old session never comes back.
#![allow(clippy::disallowed_methods, reason = "tests read paused time")]
#![allow(clippy::unwrap_used, reason = "a test: helpers outside of test functions too")]

mod harness;

use std::time::Duration;

use harness::{HOUR, accept, client, get, let_others_run, policy, puppet, tokens};
use tokio::time::{Instant, advance, timeout};
use tokio_test::{assert_pending, assert_ready, task};
use tower::ServiceExt as _;
use tower_refresh::{Cause, Credentials, RefreshLayer, TokenError, TokenStatus};

async fn current<S: tower_refresh::TokenSource>(credentials: &Credentials<S>) -> String {
    credentials.token().await.unwrap().access_token().expose_secret().to_owned()
}

#[tokio::test(start_paused = true)]
async fn replace_before_a_flight_spares_it() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.replace(tokens("mine").expires_in(HOUR)).await.unwrap();
    assert_eq!(current(&credentials).await, "mine");
    assert_eq!(strings.count(), 0);
    assert!(strings.adopted.try_recv().unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn replace_during_a_flight_is_seen_at_once_and_what_the_flight_brings_is_published_to_nobody()
{
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let mut waiting = task::spawn(credentials.token());
    assert_pending!(waiting.poll());
    let flight = strings.next().await;

    let mut replacing = task::spawn(credentials.replace(tokens("mine").expires_in(HOUR)));
    assert_pending!(replacing.poll());
    // Those who waited for the flight have the new one without waiting for its end, and so has everybody else.
    assert!(waiting.is_woken());
    assert_eq!(assert_ready!(waiting.poll()).unwrap().access_token().expose_secret(), "mine");
    assert_eq!(current(&credentials).await, "mine");

    // The source is told when the flight has ended, and not before.
    let_others_run().await;
    assert!(strings.adopted.try_recv().is_err());
    flight.answer(tokens("theirs").expires_in(HOUR));
    let_others_run().await;
    assert_ready!(replacing.poll()).unwrap();
    assert_eq!(strings.adopted.try_recv().unwrap().unwrap().access_token().expose_secret(), "mine");
    assert_eq!(current(&credentials).await, "mine");
    assert_eq!(strings.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn forget_during_a_flight_brings_no_session_back() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.replace(tokens("mine").expires_in(HOUR)).await.unwrap();
    strings.adopted.recv().await;
    let renewing = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.renew().await }
    });
    let flight = strings.next().await;

    let forgetting = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.forget().await }
    });
    let_others_run().await;
    assert_eq!(credentials.status().token, TokenStatus::Missing);
    flight.answer(tokens("theirs").expires_in(HOUR));
    forgetting.await.unwrap().unwrap();
    assert!(strings.adopted.try_recv().unwrap().is_none());

    // Whoever waited asks again, with nothing in hand.
    let asked = strings.next().await;
    assert_eq!(asked.renewal.cause(), Cause::Missing);
    assert!(asked.renewal.previous().is_none());
    asked.fail(TokenError::denied("log in"));
    assert!(renewing.await.unwrap().unwrap_err().is_denied());
    assert!(credentials.token().await.unwrap_err().is_denied());
}

#[tokio::test(start_paused = true)]
async fn forget_after_a_flight_leaves_nothing_of_it() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let (token, ()) = tokio::join!(credentials.token(), async {
        strings.next().await.answer(tokens("t").expires_in(HOUR));
    });
    token.unwrap();
    credentials.forget().await.unwrap();
    assert_eq!(credentials.status().token, TokenStatus::Missing);
    let mut waiting = task::spawn(credentials.token());
    assert_pending!(waiting.poll());
    assert!(strings.next().await.renewal.previous().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_last_of_several_log_ins_has_the_last_word_with_the_source_too() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let mut waiting = task::spawn(credentials.token());
    assert_pending!(waiting.poll());
    let flight = strings.next().await;
    let mut changes: Vec<_> = (0..5)
        .map(|n| {
            let credentials = credentials.clone();
            task::spawn(async move { credentials.replace(tokens(&format!("m{n}"))).await })
        })
        .collect();
    for change in &mut changes {
        assert_pending!(change.poll());
    }
    flight.answer(tokens("theirs"));
    let_others_run().await;
    for change in &mut changes {
        assert_ready!(change.poll()).unwrap();
    }
    assert_eq!(strings.adopted.try_recv().unwrap().unwrap().access_token().expose_secret(), "m4");
    assert!(strings.adopted.try_recv().is_err());
    assert_eq!(current(&credentials).await, "m4");
}

#[tokio::test(start_paused = true)]
async fn a_log_in_that_is_dropped_halfway_still_reaches_the_source() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    {
        let mut replacing = task::spawn(credentials.replace(tokens("mine")));
        assert_pending!(replacing.poll());
    }
    credentials.settled().await;
    assert!(strings.adopted.try_recv().unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_late_rejection_from_before_a_log_in_does_not_renew_the_new_session() {
    let (source, mut strings) = puppet();
    let layer = RefreshLayer::with_policy(source, policy());
    let credentials = layer.credentials().clone();
    credentials.replace(tokens("old").expires_in(HOUR)).await.unwrap();
    let client = client(layer, |token, _| async move {
        if token == "old" {
            tokio::time::sleep(Duration::from_secs(5)).await;
            http::StatusCode::UNAUTHORIZED
        } else {
            http::StatusCode::OK
        }
    });
    let late = tokio::spawn(client.oneshot(get("/")));
    let_others_run().await;
    credentials.replace(tokens("new").expires_in(HOUR)).await.unwrap();
    assert_eq!(late.await.unwrap().unwrap().status(), http::StatusCode::OK);
    assert_eq!(strings.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_log_in_clears_brake_cooldown_and_denial() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let (error, ()) = tokio::join!(credentials.token(), async {
        strings.next().await.fail(TokenError::transient("x").with_retry_after(HOUR));
    });
    error.unwrap_err();
    credentials.forget().await.unwrap();
    let status = credentials.status();
    assert!(status.error.is_none() && status.cooldown.is_none() && status.brake.is_none());
    let mut waiting = task::spawn(credentials.token());
    assert_pending!(waiting.poll());
    strings.next().await.answer(tokens("t"));
}

#[tokio::test(start_paused = true)]
async fn settled_waits_for_flights_that_nobody_else_waits_for() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    timeout(Duration::ZERO, credentials.settled()).await.unwrap();
    {
        let mut waiting = task::spawn(credentials.token());
        assert_pending!(waiting.poll());
    }
    let flight = strings.next().await;
    let replacing = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.replace(tokens("mine")).await }
    });
    let start = Instant::now();
    assert!(timeout(Duration::from_secs(5), credentials.settled()).await.is_err());
    advance(Duration::from_secs(1)).await;
    flight.answer(tokens("theirs"));
    credentials.settled().await;
    assert!(start.elapsed() >= Duration::from_secs(6));
    replacing.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_when_the_application_logs_in_goes_out_with_the_new_token() {
    let (source, mut strings) = puppet();
    let layer = RefreshLayer::with_policy(source, policy());
    let credentials = layer.credentials().clone();
    let client = client(layer, accept);
    let waiting = tokio::spawn(client.oneshot(get("/")));
    let _flight = strings.next().await;
    let replacing = tokio::spawn(async move { credentials.replace(tokens("mine")).await });
    assert_eq!(waiting.await.unwrap().unwrap().status(), http::StatusCode::OK);
    replacing.abort();
}
