//! A log-in or log-out counts at once, and an ended session never returns.
#![allow(clippy::disallowed_methods, reason = "reads tokio's paused clock")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use tokio::time::{Instant, advance, timeout};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Service as _, ServiceExt as _};
use tower_refresh::{Cause, Credentials, RefreshLayer, TokenError, TokenStatus};

use crate::harness::{HOUR, accept, client, get, let_others_run, policy, puppet, tokens};

async fn current(credentials: &Credentials) -> String {
    credentials.tokens().await.unwrap().access_token().expose_secret().to_owned()
}

#[tokio::test(start_paused = true)]
async fn log_in_before_the_first_request_needs_no_refresh() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.log_in(tokens("mine").with_expires_in(HOUR)).await.unwrap();
    assert_eq!(current(&credentials).await, "mine");
    assert_eq!(strings.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn log_in_during_a_refresh_counts_at_once_and_discards_it() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let mut waiting = task::spawn(credentials.tokens());
    assert_pending!(waiting.poll());
    let flight = strings.next().await;

    let mut replacing = task::spawn(credentials.log_in(tokens("mine").with_expires_in(HOUR)));
    assert_pending!(replacing.poll());
    // Callers that waited for the refresh get the new token before the refresh ends, like all others.
    assert!(waiting.is_woken());
    assert_eq!(assert_ready!(waiting.poll()).unwrap().access_token().expose_secret(), "mine");
    assert_eq!(current(&credentials).await, "mine");

    // The log-in is recorded when the refresh has ended, and not before.
    let_others_run().await;
    assert_pending!(replacing.poll());
    flight.answer(tokens("theirs").with_expires_in(HOUR));
    let_others_run().await;
    assert_ready!(replacing.poll()).unwrap();
    assert_eq!(current(&credentials).await, "mine");
    assert_eq!(strings.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn log_out_during_a_refresh_brings_no_session_back() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.log_in(tokens("mine").with_expires_in(HOUR)).await.unwrap();
    let renewing = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.refresh().await }
    });
    let flight = strings.next().await;

    let forgetting = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.log_out().await }
    });
    let_others_run().await;
    assert_eq!(credentials.status().token, TokenStatus::Missing);
    flight.answer(tokens("theirs").with_expires_in(HOUR));
    forgetting.await.unwrap().unwrap();

    // The waiting caller asks again, without a token.
    let asked = strings.next().await;
    assert_eq!(asked.renewal.cause(), Cause::Missing);
    assert!(asked.renewal.previous().is_none());
    asked.fail(TokenError::denied("log in"));
    assert!(renewing.await.unwrap().unwrap_err().is_denied());
    assert!(credentials.tokens().await.unwrap_err().is_denied());
}

#[tokio::test(start_paused = true)]
async fn log_out_after_a_refresh_leaves_no_token() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let (token, ()) = tokio::join!(credentials.tokens(), async {
        strings.next().await.answer(tokens("t").with_expires_in(HOUR));
    });
    token.unwrap();
    credentials.log_out().await.unwrap();
    assert_eq!(credentials.status().token, TokenStatus::Missing);
    let mut waiting = task::spawn(credentials.tokens());
    assert_pending!(waiting.poll());
    assert!(strings.next().await.renewal.previous().is_none());
}

#[tokio::test(start_paused = true)]
async fn last_of_several_log_ins_is_the_one_that_is_recorded() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let mut waiting = task::spawn(credentials.tokens());
    assert_pending!(waiting.poll());
    let flight = strings.next().await;
    let mut changes: Vec<_> = (0..5)
        .map(|n| {
            let credentials = credentials.clone();
            task::spawn(async move { credentials.log_in(tokens(&format!("m{n}"))).await })
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
    let mut renewing = task::spawn(credentials.refresh());
    assert_pending!(renewing.poll());
    let renewal = strings.next().await.renewal;
    assert_eq!(renewal.previous().unwrap().access_token().expose_secret(), "m4");
    assert_eq!(current(&credentials).await, "m4");
}

#[tokio::test(start_paused = true)]
async fn a_log_in_that_is_dropped_halfway_still_is_recorded() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    {
        let mut replacing = task::spawn(credentials.log_in(tokens("mine")));
        assert_pending!(replacing.poll());
    }
    credentials.flush().await.unwrap();
    let mut renewing = task::spawn(credentials.refresh());
    assert_pending!(renewing.poll());
    let renewal = strings.next().await.renewal;
    assert_eq!(renewal.previous().unwrap().access_token().expose_secret(), "mine");
}

#[tokio::test(start_paused = true)]
async fn log_in_and_log_out_clear_the_backoff_and_the_error() {
    for end in ENDS {
        for failure in [TokenError::transient("x").with_retry_after(HOUR), TokenError::denied("x")]
        {
            let (source, mut strings) = puppet();
            let credentials = Credentials::with_policy(source, policy());
            let (error, ()) = tokio::join!(credentials.tokens(), async {
                strings.next().await.fail(failure);
            });
            error.unwrap_err();
            end(&credentials).await;
            let status = credentials.status();
            assert!(status.error.is_none() && status.backoff.is_none(), "{status:?}");
            assert!(status.rejection_backoff.is_none(), "{status:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn log_out_lets_the_next_request_ask_the_source_at_once() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let (error, ()) = tokio::join!(credentials.tokens(), async {
        strings.next().await.fail(TokenError::transient("x").with_retry_after(HOUR));
    });
    error.unwrap_err();
    credentials.log_out().await.unwrap();
    let mut waiting = task::spawn(credentials.tokens());
    assert_pending!(waiting.poll());
    strings.next().await.answer(tokens("t"));
}

#[tokio::test(start_paused = true)]
async fn flush_waits_for_flights_without_callers() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    timeout(Duration::ZERO, credentials.flush()).await.unwrap().unwrap();
    {
        let mut waiting = task::spawn(credentials.tokens());
        assert_pending!(waiting.poll());
    }
    let flight = strings.next().await;
    let replacing = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.log_in(tokens("mine")).await }
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
async fn waiting_request_is_sent_with_the_token_of_a_log_in() {
    let (source, mut strings) = puppet();
    let layer = RefreshLayer::new(Credentials::with_policy(source, policy()));
    let credentials = layer.credentials().clone();
    let client = client(layer, accept);
    let waiting = tokio::spawn(client.oneshot(get("/")));
    let _flight = strings.next().await;
    let replacing = tokio::spawn(async move { credentials.log_in(tokens("mine")).await });
    assert_eq!(waiting.await.unwrap().unwrap().status(), http::StatusCode::OK);
    replacing.abort();
}

#[tokio::test(start_paused = true)]
async fn token_that_landed_before_a_log_out_is_not_used_after_it() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let mut waiting = task::spawn(credentials.tokens());
    assert_pending!(waiting.poll());
    strings.next().await.answer(tokens("alice").with_expires_in(HOUR));
    credentials.flush().await.unwrap();
    credentials.log_out().await.unwrap();
    assert_pending!(waiting.poll());
    strings.next().await.answer(tokens("bob").with_expires_in(HOUR));
    let_others_run().await;
    assert_eq!(assert_ready!(waiting.poll()).unwrap().access_token().expose_secret(), "bob");
}

#[tokio::test(start_paused = true)]
async fn denial_that_landed_before_a_log_in_is_not_returned_after_it() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let mut waiting = task::spawn(credentials.tokens());
    assert_pending!(waiting.poll());
    strings.next().await.fail(TokenError::denied("log in"));
    credentials.flush().await.unwrap();
    credentials.log_in(tokens("mine").with_expires_in(HOUR)).await.unwrap();
    assert_eq!(assert_ready!(waiting.poll()).unwrap().access_token().expose_secret(), "mine");
    assert_eq!(strings.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_has_not_begun_is_not_flown_after_a_log_out() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let mut waiting = task::spawn(credentials.tokens());
    assert_pending!(waiting.poll());
    let mut forgetting = task::spawn(credentials.log_out());
    assert_pending!(forgetting.poll());
    drop(waiting);
    let_others_run().await;
    assert_ready!(forgetting.poll()).unwrap();
    assert_eq!(strings.count(), 0);
}

// ===== a request belongs to the session of its first attempt =====

/// Alice is logged in. Her token is rejected after a second, every other one is accepted at once.
fn alice_is_rejected(
    sent: &Arc<AtomicUsize>,
) -> impl Fn(String, String) -> BoxFuture<'static, http::StatusCode> + Clone + Send + Sync + 'static
{
    let sent = Arc::clone(sent);
    move |token, _| {
        sent.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if token != "alice" {
                return http::StatusCode::OK;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            http::StatusCode::UNAUTHORIZED
        })
    }
}

async fn log_out(credentials: &Credentials) {
    credentials.log_out().await.unwrap();
}

async fn log_in_as_bob(credentials: &Credentials) {
    credentials.log_in(tokens("bob").with_expires_in(HOUR)).await.unwrap();
}

async fn log_out_and_in(credentials: &Credentials) {
    log_out(credentials).await;
    log_in_as_bob(credentials).await;
}

type End = for<'a> fn(&'a Credentials) -> BoxFuture<'a, ()>;

/// The ways in which a session ends.
const ENDS: [End; 3] = [
    |it| Box::pin(log_out(it)),
    |it| Box::pin(log_in_as_bob(it)),
    |it| Box::pin(log_out_and_in(it)),
];

fn session_is_over(error: &TokenError) -> bool {
    error.is_denied() && error.is_session_over() && error.to_string().contains("logged in or out")
}

/// S11: the request was sent before the log-out, and is rejected after it.
#[tokio::test(start_paused = true)]
async fn rejected_request_is_not_resent_across_a_login() {
    for end in ENDS {
        let (source, mut strings) = puppet();
        let sent = Arc::default();
        let layer = RefreshLayer::new(Credentials::with_policy(source, policy()));
        let credentials = layer.credentials().clone();
        credentials.log_in(tokens("alice").with_expires_in(HOUR)).await.unwrap();
        let request = tokio::spawn(client(layer, alice_is_rejected(&sent)).oneshot(get("/")));
        let_others_run().await;
        end(&credentials).await;

        let response = request.await.unwrap().unwrap();
        assert_eq!(response.status(), http::StatusCode::UNAUTHORIZED);
        assert!(session_is_over(response.extensions().get().unwrap()));
        assert_eq!((sent.load(Ordering::SeqCst), strings.count()), (1, 0));
    }
}

/// S11: the request was rejected before the log-out, and waits for the refresh.
#[tokio::test(start_paused = true)]
async fn rejected_request_that_waits_is_not_resent_across_a_login() {
    for end in ENDS {
        let (source, mut strings) = puppet();
        let sent = Arc::default();
        let layer = RefreshLayer::new(Credentials::with_policy(source, policy()));
        let credentials = layer.credentials().clone();
        credentials.log_in(tokens("alice").with_expires_in(HOUR)).await.unwrap();
        let request = tokio::spawn(client(layer, alice_is_rejected(&sent)).oneshot(get("/")));
        let flight = strings.next().await;
        let ended = tokio::spawn(async move { end(&credentials).await });
        let_others_run().await;
        flight.answer(tokens("alice-2").with_expires_in(HOUR));

        let response = request.await.unwrap().unwrap();
        assert_eq!(response.status(), http::StatusCode::UNAUTHORIZED);
        assert!(session_is_over(response.extensions().get().unwrap()));
        assert_eq!(sent.load(Ordering::SeqCst), 1);
        ended.await.unwrap();
    }
}

/// S11: the request has not been sent yet, and waits for the refresh of an expired token.
#[tokio::test(start_paused = true)]
async fn request_that_waits_for_a_token_is_not_sent_across_a_login() {
    for end in ENDS {
        let (source, mut strings) = puppet();
        let sent = Arc::default();
        let layer = RefreshLayer::new(Credentials::with_policy(source, policy()));
        let credentials = layer.credentials().clone();
        credentials.log_in(tokens("alice").with_expires_in(HOUR)).await.unwrap();
        advance(HOUR).await;
        let request = tokio::spawn(client(layer, alice_is_rejected(&sent)).oneshot(get("/")));
        let flight = strings.next().await;
        let ended = tokio::spawn(async move { end(&credentials).await });
        let_others_run().await;
        flight.answer(tokens("alice-2").with_expires_in(HOUR));

        let error = request.await.unwrap().unwrap_err();
        assert!(session_is_over(error.downcast_ref().unwrap()), "{error}");
        assert_eq!(sent.load(Ordering::SeqCst), 0);
        ended.await.unwrap();
    }
}

/// S11: the refresh landed just before the log-out, and the request was not polled in between.
#[tokio::test(start_paused = true)]
async fn token_that_landed_before_a_log_in_is_not_sent_after_it() {
    for end in ENDS {
        let (source, mut strings) = puppet();
        let sent = Arc::default();
        let layer = RefreshLayer::new(Credentials::with_policy(source, policy()));
        let credentials = layer.credentials().clone();
        let mut request = task::spawn(client(layer, alice_is_rejected(&sent)).oneshot(get("/")));
        assert_pending!(request.poll());
        // The request was made before the first session, so that it belongs to Alice.
        strings.next().await.answer(tokens("alice").with_expires_in(HOUR));
        credentials.flush().await.unwrap();
        end(&credentials).await;

        let error = assert_ready!(request.poll()).unwrap_err();
        assert!(session_is_over(error.downcast_ref().unwrap()), "{error}");
        assert_eq!(sent.load(Ordering::SeqCst), 0);
    }
}

/// S11: the request has a token, and its service is not ready before the log-out.
#[tokio::test(start_paused = true)]
async fn request_held_up_by_its_service_is_not_sent_across_a_login() {
    for end in ENDS {
        let (source, mut strings) = puppet();
        let sent: Arc<AtomicUsize> = Arc::default();
        let counted = Arc::clone(&sent);
        let layer = RefreshLayer::new(Credentials::with_policy(source, policy()))
            .origin("https://api.test")
            .unwrap();
        let credentials = layer.credentials().clone();
        let one_at_a_time = tower::limit::GlobalConcurrencyLimitLayer::new(1);
        let api = tower::service_fn(move |_: http::Request<Full<Bytes>>| {
            counted.fetch_add(1, Ordering::SeqCst);
            async {
                tokio::time::sleep(Duration::from_secs(5)).await;
                Ok::<_, Infallible>(http::Response::new(Full::<Bytes>::default()))
            }
        });
        let api = tower::ServiceBuilder::new().layer(one_at_a_time).service(api);
        let mut busy = api.clone();
        let client = tower::ServiceBuilder::new().layer(layer).service(api);

        let request = tokio::spawn(client.oneshot(get("/")));
        let flight = strings.next().await;
        let busy = tokio::spawn(busy.ready().await.unwrap().call(get("/")));
        flight.answer(tokens("alice").with_expires_in(HOUR));
        let_others_run().await;
        end(&credentials).await;

        busy.await.unwrap().unwrap();
        let error = request.await.unwrap().unwrap_err();
        assert!(session_is_over(error.downcast_ref().unwrap()), "{error}");
        assert_eq!(sent.load(Ordering::SeqCst), 1);
    }
}

/// S11: the request has a newer token, and reads the rejected response out.
#[tokio::test(start_paused = true)]
async fn rejected_request_is_not_resent_after_a_log_in_while_reading() {
    for end in ENDS {
        let (source, mut strings) = puppet();
        let sent: Arc<AtomicUsize> = Arc::default();
        let counted = Arc::clone(&sent);
        let layer = RefreshLayer::new(Credentials::with_policy(source, policy()))
            .origin("https://api.test")
            .unwrap();
        let credentials = layer.credentials().clone();
        credentials.log_in(tokens("alice").with_expires_in(HOUR)).await.unwrap();
        let api = tower::service_fn(move |_: http::Request<Full<Bytes>>| {
            counted.fetch_add(1, Ordering::SeqCst);
            // A body that does not end.
            let frames = futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>();
            let mut response = http::Response::new(StreamBody::new(frames));
            *response.status_mut() = http::StatusCode::UNAUTHORIZED;
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let client = tower::ServiceBuilder::new().layer(layer).service(api);
        let mut request = task::spawn(client.oneshot(get("/")));
        assert_pending!(request.poll());
        strings.next().await.answer(tokens("alice-2").with_expires_in(HOUR));
        credentials.flush().await.unwrap();
        assert_pending!(request.poll());
        end(&credentials).await;

        advance(Duration::from_secs(1)).await;
        let error = assert_ready!(request.poll()).unwrap_err();
        assert!(error.to_string().contains("not sent again"), "{error}");
        assert!(error.downcast_ref::<TokenError>().is_none());
        assert!(session_is_over(TokenError::of::<()>(&Err(error)).unwrap()));
        assert_eq!(sent.load(Ordering::SeqCst), 1);
    }
}

/// S11, the exception: a request that is made between two sessions belongs to the next one.
#[tokio::test(start_paused = true)]
async fn request_made_while_logged_out_waits_for_the_next_login() {
    let (source, mut strings) = puppet();
    let layer = RefreshLayer::new(Credentials::with_policy(source, policy()));
    let credentials = layer.credentials().clone();
    let client = client(layer, accept);
    credentials.log_in(tokens("alice").with_expires_in(HOUR)).await.unwrap();
    for _ in 0..2 {
        credentials.log_out().await.unwrap();
    }
    let request = tokio::spawn(client.oneshot(get("/")));
    let flight = strings.next().await;
    let forgetting = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.log_out().await }
    });
    let_others_run().await;
    let replacing = tokio::spawn(async move { credentials.log_in(tokens("bob")).await });
    assert_eq!(request.await.unwrap().unwrap().status(), http::StatusCode::OK);
    flight.fail(TokenError::denied("log in"));
    replacing.await.unwrap().unwrap();
    forgetting.await.unwrap().unwrap();
}

/// S11: calls of the application itself belong to no session.
#[tokio::test(start_paused = true)]
async fn callers_get_the_tokens_of_the_current_session() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.log_in(tokens("alice").with_expires_in(HOUR)).await.unwrap();
    let mut renewing = task::spawn(credentials.refresh());
    assert_pending!(renewing.poll());
    advance(HOUR).await;
    let mut waiting = task::spawn(credentials.tokens());
    assert_pending!(waiting.poll());
    let _flight = strings.next().await;
    let mut replacing = task::spawn(credentials.log_in(tokens("bob").with_expires_in(HOUR)));
    assert_pending!(replacing.poll());
    for got in [assert_ready!(waiting.poll()), assert_ready!(renewing.poll())] {
        assert_eq!(got.unwrap().access_token().expose_secret(), "bob");
    }
}

// ===== a subscriber that panics =====

#[cfg(feature = "tracing")]
#[tokio::test(start_paused = true)]
async fn panic_of_a_subscriber_ends_no_refresh_and_no_log_in() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let _guard = crate::log::panic_at_each_event();
    for user in ["alice", "bob"] {
        let set = tokens(user).with_refresh_token(user).with_expires_in(HOUR);
        credentials.log_in(set).await.unwrap();
    }
    advance(HOUR).await;
    let (found, ()) = tokio::join!(credentials.tokens(), async {
        let asked = strings.next().await;
        assert_eq!(asked.renewal.refresh_token().unwrap().expose_secret(), "bob");
        asked.answer(tokens("of-bob"));
    });
    assert_eq!(found.unwrap().access_token().expose_secret(), "of-bob");
}

// ===== a source that hangs =====

#[tokio::test(start_paused = true)]
async fn log_out_behind_a_lost_refresh_discards_its_answer() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy().timeout(Duration::from_secs(1)));
    let mut waiting = task::spawn(credentials.tokens());
    assert_pending!(waiting.poll());
    let flight = strings.next().await;
    let forgetting = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.log_out().await }
    });
    let_others_run().await;
    drop(waiting);
    advance(Duration::from_secs(11)).await;
    let mut other = task::spawn(credentials.tokens());
    assert_pending!(other.poll());
    let_others_run().await;
    flight.answer(tokens("late"));
    forgetting.await.unwrap().unwrap();
    assert_eq!(credentials.status().token, TokenStatus::Missing);
    assert_pending!(other.poll());
    assert!(strings.next().await.renewal.previous().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_log_in_behind_a_flight_that_hangs_ends_after_ten_timeouts() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.tokens().await.unwrap_err();
    let _hung = strings.next().await;
    let start = Instant::now();
    let replacing = credentials.log_in(tokens("mine"));
    timeout(HOUR, replacing).await.unwrap().unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(300));
}

#[tokio::test(start_paused = true)]
async fn log_in_behind_a_hanging_refresh_ends_despite_other_callers() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.tokens().await.unwrap_err();
    let _hung = strings.next().await;
    let replacing = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.log_in(tokens("mine").with_expires_in(HOUR)).await }
    });
    let_others_run().await;
    for _ in 0..31 {
        assert_eq!(current(&credentials).await, "mine");
        advance(Duration::from_secs(10)).await;
    }
    timeout(Duration::ZERO, replacing).await.unwrap().unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn log_out_behind_a_hanging_refresh_ends_after_ten_timeouts() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let mut waiting = task::spawn(credentials.tokens());
    assert_pending!(waiting.poll());
    let _hung = strings.next().await;
    let forgetting = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.log_out().await }
    });
    let_others_run().await;
    // Each request ends at its timeout, so that at most ten in a row fail.
    for _ in 0..10 {
        assert_eq!(strings.count(), 0);
        credentials.tokens().await.unwrap_err();
        let_others_run().await;
    }
    let (token, ()) = tokio::join!(credentials.tokens(), async {
        strings.next().await.answer(tokens("new"));
    });
    assert_eq!(token.unwrap().access_token().expose_secret(), "new");
    forgetting.await.unwrap().unwrap();
}
