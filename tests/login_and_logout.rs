//! `replace` and `forget` are seen at once, and an old session never comes back.
#![allow(clippy::disallowed_methods, reason = "tests read paused time")]
#![allow(clippy::unwrap_used, reason = "a test: helpers outside of test functions too")]

mod harness;

use std::time::Duration;

use harness::{HOUR, accept, client, get, let_others_run, policy, puppet, tokens};
use tokio::time::{Instant, advance, timeout};
use tokio_test::{assert_pending, assert_ready, task};
use tower::ServiceExt as _;
use tower_refresh::{
    Cause, Credentials, RefreshLayer, Renewal, TokenError, TokenSet, TokenSource, TokenStatus,
};

async fn current<S: TokenSource>(credentials: &Credentials<S>) -> String {
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
    credentials.flush().await.unwrap();
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
async fn flush_waits_for_flights_without_callers() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    timeout(Duration::ZERO, credentials.flush()).await.unwrap().unwrap();
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
    assert!(timeout(Duration::from_secs(5), credentials.flush()).await.is_err());
    advance(Duration::from_secs(1)).await;
    flight.answer(tokens("theirs"));
    credentials.flush().await.unwrap();
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

#[tokio::test(start_paused = true)]
async fn a_token_that_landed_just_before_a_log_out_reaches_nobody_after_it() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let mut waiting = task::spawn(credentials.token());
    assert_pending!(waiting.poll());
    strings.next().await.answer(tokens("alice").expires_in(HOUR));
    credentials.flush().await.unwrap();
    credentials.forget().await.unwrap();
    assert_pending!(waiting.poll());
    strings.next().await.answer(tokens("bob").expires_in(HOUR));
    let_others_run().await;
    assert_eq!(assert_ready!(waiting.poll()).unwrap().access_token().expose_secret(), "bob");
}

#[tokio::test(start_paused = true)]
async fn a_denial_that_landed_just_before_a_log_in_reaches_nobody_after_it() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let mut waiting = task::spawn(credentials.token());
    assert_pending!(waiting.poll());
    strings.next().await.fail(TokenError::denied("log in"));
    credentials.flush().await.unwrap();
    credentials.replace(tokens("mine").expires_in(HOUR)).await.unwrap();
    assert_eq!(assert_ready!(waiting.poll()).unwrap().access_token().expose_secret(), "mine");
    assert_eq!(strings.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_has_not_begun_is_not_flown_after_a_log_out() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let mut waiting = task::spawn(credentials.token());
    assert_pending!(waiting.poll());
    let mut forgetting = task::spawn(credentials.forget());
    assert_pending!(forgetting.poll());
    drop(waiting);
    let_others_run().await;
    assert_ready!(forgetting.poll()).unwrap();
    assert_eq!(strings.count(), 0);
}

// ===== a source that hangs =====

#[tokio::test(start_paused = true)]
async fn a_log_out_behind_a_lost_flight_reaches_the_source() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy().timeout(Duration::from_secs(1)));
    let mut waiting = task::spawn(credentials.token());
    assert_pending!(waiting.poll());
    let flight = strings.next().await;
    let forgetting = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.forget().await }
    });
    let_others_run().await;
    drop(waiting);
    advance(Duration::from_secs(11)).await;
    let mut other = task::spawn(credentials.token());
    assert_pending!(other.poll());
    let_others_run().await;
    flight.answer(tokens("late"));
    forgetting.await.unwrap().unwrap();
    assert!(strings.adopted.try_recv().unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_log_in_behind_a_flight_that_hangs_ends_after_ten_timeouts() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.token().await.unwrap_err();
    let _hung = strings.next().await;
    let start = Instant::now();
    let replacing = credentials.replace(tokens("mine"));
    timeout(HOUR, replacing).await.unwrap().unwrap();
    assert!(start.elapsed() <= Duration::from_secs(300), "{:?}", start.elapsed());
    assert!(strings.adopted.try_recv().unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_log_in_behind_a_flight_that_hangs_ends_whatever_others_ask_meanwhile() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.token().await.unwrap_err();
    let _hung = strings.next().await;
    let replacing = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.replace(tokens("mine").expires_in(HOUR)).await }
    });
    let_others_run().await;
    for _ in 0..31 {
        assert_eq!(current(&credentials).await, "mine");
        advance(Duration::from_secs(10)).await;
    }
    timeout(Duration::ZERO, replacing).await.unwrap().unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_a_log_out_behind_a_flight_that_hangs_the_next_session_begins_after_ten_timeouts() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let mut waiting = task::spawn(credentials.token());
    assert_pending!(waiting.poll());
    let _hung = strings.next().await;
    let forgetting = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.forget().await }
    });
    let_others_run().await;
    // Each request is released at its timeout, and so at most ten of them in a row fail.
    for _ in 0..10 {
        assert_eq!(strings.count(), 0);
        credentials.token().await.unwrap_err();
        let_others_run().await;
    }
    let (token, ()) = tokio::join!(credentials.token(), async {
        strings.next().await.answer(tokens("new"));
    });
    assert_eq!(token.unwrap().access_token().expose_secret(), "new");
    forgetting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_hears_the_log_in_out_still_renews() {
    struct Deaf;
    impl TokenSource for Deaf {
        async fn fetch(&self, _: Renewal) -> Result<TokenSet, TokenError> {
            Ok(tokens("fetched").expires_in(HOUR).build())
        }
        async fn adopt(&self, _: Option<&TokenSet>) -> Result<(), TokenError> {
            std::future::pending().await
        }
    }

    let credentials = Credentials::with_policy(Deaf, policy().timeout(Duration::from_secs(1)));
    let mut replacing = task::spawn(credentials.replace(tokens("mine").expires_in(HOUR)));
    assert_pending!(replacing.poll());
    let_others_run().await;
    advance(Duration::from_secs(20)).await;
    assert_eq!(current(&credentials).await, "mine");
    // Nothing was sent, and so nothing is unknown.
    assert!(credentials.status().error.is_none());
    assert_eq!(credentials.renew().await.unwrap().access_token().expose_secret(), "fetched");
}
