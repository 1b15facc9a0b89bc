//! Log-ins and log-outs over a shared store: an ended session does not return, and a denial counts for all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use tokio::time::sleep;
use tower::ServiceExt as _;
use tower_refresh::oauth2::Grant;
use tower_refresh::testing::{Fault, Rotation};
use tower_refresh::{
    Event, RefreshLayer, Renewal, SourceInfo, TokenError, TokenSet, TokenSource, source_fn,
};

use crate::harness::{self, let_others_run};
use crate::world::{MINUTE, Order, SECOND, Step, Worker, World, access, count, refresh};

/// A fallback that counts its log-ins.
fn log_in(
    calls: &Arc<AtomicU64>,
    answer: impl Fn() -> Result<TokenSet, TokenError> + Send + Sync + 'static,
) -> impl TokenSource {
    let calls = Arc::clone(calls);
    source_fn(move |_: Renewal| {
        calls.fetch_add(1, Ordering::SeqCst);
        let answer = answer();
        async move { answer }
    })
}

// ===== denied =====

#[tokio::test(start_paused = true)]
async fn denied_token_is_sent_by_no_other_and_not_after_a_restart() {
    for rotation in [Rotation::Strict, Rotation::Never] {
        let world = World::with(|server| server.rotation(rotation))
            .dialect(|dialect| dialect.rotates = rotation == Rotation::Strict);
        let workers = world.workers(4);
        let token = workers[0].tokens().await.unwrap();
        for worker in &workers {
            worker.tokens().await.unwrap();
        }
        world.server.revoke_refresh_token(refresh(&token));
        sleep(MINUTE).await;
        for worker in &workers {
            assert!(worker.tokens().await.unwrap_err().is_denied());
        }
        for _ in 0..5 {
            assert!(world.worker().tokens().await.unwrap_err().is_denied());
            sleep(MINUTE).await;
        }
        assert_eq!(world.requests(), 2, "{rotation:?}");
        assert!(!world.has_open_intent().await);
    }
}

#[tokio::test(start_paused = true)]
async fn denied_configured_token_is_not_sent_after_a_restart() {
    for rotation in [Rotation::Strict, Rotation::Never] {
        let world = World::with(|server| server.rotation(rotation))
            .dialect(|dialect| dialect.rotates = rotation == Rotation::Strict);
        world.server.revoke_refresh_token(world.configured.expose_secret());
        for _ in 0..3 {
            assert!(world.worker().tokens().await.unwrap_err().is_denied());
        }
        assert_eq!(world.requests(), 1, "{rotation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_could_not_be_stored_is_stored_later() {
    let world = World::new();
    let worker = world.worker();
    let token = worker.tokens().await.unwrap();
    world.server.revoke_refresh_token(refresh(&token));
    worker.store.order(Step::SaveRest, Order::Fail);
    assert!(worker.refresh().await.unwrap_err().is_denied());
    sleep(Duration::from_secs(6)).await;
    assert!(worker.refresh().await.unwrap_err().is_denied());
    let after = world.worker();
    assert_eq!(after.access().await, access(&token));
    assert!(after.refresh().await.unwrap_err().is_denied());
    assert_eq!(world.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn flush_saves_a_refusal_that_could_not_be_stored() {
    let world = World::new();
    let worker = world.worker();
    let token = worker.tokens().await.unwrap();
    world.server.revoke_refresh_token(refresh(&token));
    worker.store.order(Step::SaveRest, Order::Fail);
    assert!(worker.refresh().await.unwrap_err().is_denied());
    assert!(world.has_open_intent().await);
    worker.flush().await.unwrap();
    assert!(!world.has_open_intent().await);
    let after = world.worker();
    after.tokens().await.unwrap();
    assert!(after.refresh().await.unwrap_err().is_denied());
    assert_eq!(world.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn denial_of_a_superseded_token_does_not_deny_the_stored_one() {
    let world = World::new();
    let [slow, other] = [world.worker(), world.worker()];
    let token = slow.tokens().await.unwrap();
    other.tokens().await.unwrap();
    world.server.revoke_refresh_token(refresh(&token));
    world
        .server
        .token_faults()
        .once(Fault::oauth_error("invalid_grant").delay(Duration::from_secs(5)));
    let renewing = tokio::spawn({
        let slow = slow.clone();
        async move { slow.refresh().await }
    });
    sleep(SECOND).await;
    let session = world.server.issue();
    other.log_in(session.clone()).await.unwrap();
    assert_eq!(access(&renewing.await.unwrap().unwrap()), access(&session));
    let after = world.worker();
    assert_eq!(after.access().await, access(&session));
    after.refresh().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_log_in_of_a_sibling_is_picked_up_within_seconds() {
    let world = World::new();
    let [denied, other] = [world.worker(), world.worker()];
    world.server.revoke_refresh_token(world.configured.expose_secret());
    denied.tokens().await.unwrap_err();
    let session = world.server.issue();
    other.log_in(session.clone()).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(denied.access().await, access(&session));
    assert_eq!(world.requests(), 1);
    assert_eq!(count(&denied.events(), |event| matches!(event, Event::FoundInStore)), 1);
}

// ===== fallbacks =====

#[tokio::test(start_paused = true)]
async fn fallback_is_asked_once_for_all_and_its_tokens_are_saved() {
    let world = World::with(|server| server.user("compass", "pass"));
    let calls = Arc::new(AtomicU64::new(0));
    let source = || {
        let server = world.server.clone();
        world.grant().or_else(log_in(&calls, move || Ok(server.issue())))
    };
    let workers = [world.worker_of(source()), world.worker_of(source())];
    let token = workers[0].tokens().await.unwrap();
    workers[1].tokens().await.unwrap();
    world.server.revoke_refresh_token(refresh(&token));
    sleep(MINUTE).await;
    let tokens = join_all(workers.iter().map(|worker| worker.access())).await;
    assert_eq!(tokens[0], tokens[1]);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(world.worker_of(source()).access().await, tokens[0]);
    // It is refreshed like any other.
    sleep(MINUTE).await;
    workers[0].tokens().await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(world.requests(), 3);
    assert_eq!(world.reuses(), 0);
}

#[tokio::test(start_paused = true)]
async fn denied_fallback_is_not_asked_repeatedly() {
    let world = World::new();
    let calls = Arc::new(AtomicU64::new(0));
    let wrong = || Err(TokenError::denied("wrong password"));
    // A worker with a refresh token, and one that begins without any.
    world.server.revoke_refresh_token(world.configured.expose_secret());
    for token in [world.configured.clone(), "".into()] {
        calls.store(0, Ordering::SeqCst);
        world.backing.come_back(None).await;
        let worker = world.worker_of(world.grant_with(token).or_else(log_in(&calls, wrong)));
        for _ in 0..10 {
            assert!(worker.tokens().await.unwrap_err().is_denied());
            sleep(Duration::from_secs(6)).await;
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_counts_although_the_other_way_to_log_in_has_failed() {
    for is_ambiguous in [false, true] {
        let world = World::new();
        let calls = Arc::new(AtomicU64::new(0));
        let token = world.worker().tokens().await.unwrap();
        world.server.revoke_refresh_token(refresh(&token));
        sleep(MINUTE).await;
        let source = || {
            let fails = move || {
                Err(if is_ambiguous {
                    TokenError::ambiguous("cut")
                } else {
                    TokenError::transient("down")
                })
            };
            world.grant().or_else(log_in(&calls, fails))
        };
        for round in 1..=3 {
            let error = world.worker_of(source()).tokens().await.unwrap_err();
            assert_eq!(error.is_ambiguous(), is_ambiguous, "{error}");
            assert!(!error.is_denied());
            assert_eq!(calls.load(Ordering::SeqCst), round, "it may work later");
        }
        assert_eq!(world.requests(), 2, "the refresh token was refused, and is not sent again");
        assert!(!world.has_open_intent().await);
    }
}

#[tokio::test(start_paused = true)]
async fn refusal_counts_if_the_fallback_brings_no_refresh_token() {
    for rotates in [true, false] {
        let world = World::new().dialect(|dialect| dialect.rotates = rotates);
        let calls = Arc::new(AtomicU64::new(0));
        let password = || Ok(TokenSet::bearer("password")?.with_expires_in(MINUTE));
        let worker = world.worker_of(world.grant().or_else(log_in(&calls, password)));
        let refused = worker.tokens().await.unwrap();
        world.server.revoke_refresh_token(refresh(&refused));
        assert_eq!(access(&worker.refresh().await.unwrap()), "password");
        let sent = world.requests();
        // The application brings it back.
        assert!(worker.log_in(refused).await.unwrap_err().is_denied());
        let _ = worker.refresh().await;
        assert_eq!(world.requests(), sent, "{rotates}");
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_of_a_password_fallback_are_stored_and_refreshed() {
    let world = World::with(|server| server.user("compass", "pass"));
    let password = || {
        Grant::new(world.endpoint(), "password")
            .param("username", "compass")
            .param("password", "pass")
    };
    world.server.revoke_refresh_token(world.configured.expose_secret());
    let worker = world.worker_of(world.grant().or_else(password()));
    let first = worker.access().await;
    assert_eq!(world.worker().access().await, first);
    sleep(MINUTE).await;
    let second = worker.tokens().await.unwrap();
    assert_eq!(world.server.counters().password_requests, 1);
    assert_eq!(world.worker().access().await, access(&second));
    assert_eq!(world.reuses(), 0);
}

// ===== log-ins and log-outs during a refresh =====

#[tokio::test(start_paused = true)]
async fn a_log_out_during_a_flight_of_a_sibling_is_final() {
    for step in [Step::SaveIntent, Step::IsHeld, Step::SaveTokens, Step::Release] {
        let world = World::new();
        let [flying, other] = [world.worker(), world.worker()];
        flying.tokens().await.unwrap();
        let (renewing, go) = flying.refresh_to(step).await;
        other.log_out().await.unwrap();
        go.send(()).unwrap();
        let outcome = renewing.await.unwrap();
        assert_eq!(outcome.is_ok(), step == Step::Release, "{step:?}: {outcome:?}");
        if let Err(error) = outcome {
            assert!(error.is_denied(), "{step:?}: {error}");
        }
        sleep(MINUTE).await;
        for worker in [&flying, &other, &world.worker()] {
            assert!(worker.tokens().await.unwrap_err().is_denied(), "{step:?}");
        }
        assert_eq!(world.reuses(), 0);
        assert!(!world.json().await.contains("rt-"), "{step:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_in_during_a_flight_of_a_sibling_is_what_all_go_on_with() {
    for step in [Step::SaveIntent, Step::IsHeld, Step::SaveTokens] {
        let world = World::new();
        let [flying, other] = [world.worker(), world.worker()];
        flying.tokens().await.unwrap();
        let (renewing, go) = flying.refresh_to(step).await;
        let session = world.server.issue();
        other.log_in(session.clone()).await.unwrap();
        go.send(()).unwrap();
        assert_eq!(access(&renewing.await.unwrap().unwrap()), access(&session), "{step:?}");
        let after = world.worker();
        assert_eq!(after.access().await, access(&session));
        sleep(MINUTE).await;
        after.tokens().await.unwrap();
        flying.tokens().await.unwrap();
        assert_eq!(world.reuses(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_begins_after_a_log_out_sends_nothing() {
    let world = World::new();
    let [one, other] = [world.worker(), world.worker()];
    one.tokens().await.unwrap();
    other.log_out().await.unwrap();
    assert!(one.refresh().await.unwrap_err().is_denied());
    assert_eq!(world.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn log_out_outlives_restarts_with_the_same_configuration() {
    let mut world = World::new();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    worker.log_out().await.unwrap();
    for _ in 0..3 {
        assert!(world.worker().tokens().await.unwrap_err().is_denied());
    }
    assert_eq!(world.requests(), 1);
    // Before the first token, too.
    world.configured = world.server.issue_refresh_token();
    world.backing.come_back(None).await;
    world.worker().log_out().await.unwrap();
    assert!(world.worker().tokens().await.unwrap_err().is_denied());
    assert_eq!(world.requests(), 1);
    // A new token in the configuration is a log-in.
    world.configured = world.server.issue_refresh_token();
    world.worker().tokens().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_spent_token_that_is_brought_back_is_refused() {
    let world = World::new();
    let worker = world.worker();
    let first = worker.tokens().await.unwrap();
    let second = worker.refresh().await.unwrap();
    let before = world.json().await;
    let error = worker.log_in(first).await.unwrap_err();
    assert!(error.is_denied(), "{error}");
    assert_eq!(world.json().await, before);
    sleep(MINUTE).await;
    worker.tokens().await.unwrap();
    assert_eq!(world.server.refresh_token_uses(refresh(&second)), 1);
    assert_eq!(world.reuses(), 0);
}

// ===== while the store is down =====

#[tokio::test(start_paused = true)]
async fn a_log_in_while_the_store_is_down_is_stored_later() {
    let world = World::new();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    worker.store.go_down();
    let session = world.server.issue();
    assert!(worker.log_in(session.clone()).await.unwrap_err().is_transient());
    assert_eq!(worker.access().await, access(&session));
    assert!(worker.flush().await.is_err());
    worker.store.come_up();
    worker.flush().await.unwrap();
    assert_eq!(world.worker().access().await, access(&session));
    sleep(MINUTE).await;
    worker.tokens().await.unwrap();
    assert_eq!(world.server.refresh_token_uses(refresh(&session)), 1);
    assert_eq!(world.reuses(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_log_out_while_the_store_is_down_is_stored_later() {
    let world = World::new();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    worker.store.go_down();
    worker.log_out().await.unwrap_err();
    worker.tokens().await.unwrap_err();
    worker.store.come_up();
    sleep(Duration::from_secs(2)).await;
    assert!(worker.tokens().await.unwrap_err().is_denied());
    assert!(world.worker().tokens().await.unwrap_err().is_denied());
    assert_eq!(world.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn log_in_stored_late_does_not_undo_a_later_one_of_a_sibling() {
    let world = World::new();
    let [late, other] = [world.worker(), world.worker()];
    late.tokens().await.unwrap();
    late.store.go_down();
    late.log_in(world.server.issue()).await.unwrap_err();
    sleep(SECOND).await;
    other.log_out().await.unwrap();
    late.store.come_up();
    for _ in 0..20 {
        sleep(Duration::from_secs(10)).await;
        let _ = late.tokens().await;
        let _ = late.flush().await;
    }
    assert!(late.tokens().await.unwrap_err().is_denied());
    assert!(world.worker().tokens().await.unwrap_err().is_denied());
    assert!(!world.json().await.contains("rt-"));
    assert_eq!((world.requests(), world.reuses()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_log_in_that_was_not_renewed_here_is_not_logged_in_again() {
    let world = World::with(|server| server.rotation(Rotation::Never))
        .dialect(|dialect| dialect.rotates = false);
    let [one, other] = [world.worker(), world.worker()];
    let session = world.server.issue();
    one.log_in(session.clone()).await.unwrap();
    other.tokens().await.unwrap();
    sleep(MINUTE).await;
    let renewed = other.access().await;
    let epoch = world.record().await.unwrap().epoch();
    // Another worker writes in between.
    one.store.order(Step::Load, Order::Delay(SECOND));
    assert_eq!(one.access().await, renewed);
    assert_eq!(world.record().await.unwrap().epoch(), epoch);
    assert_eq!(world.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn concurrent_log_ins_leave_one_session_for_all_workers() {
    let world = World::new();
    let workers = world.workers(4);
    let sessions: Vec<_> = workers.iter().map(|_| world.server.issue()).collect();
    let replacing = workers.iter().zip(&sessions).map(|(worker, session)| async {
        worker.log_in(session.clone()).await.unwrap();
    });
    join_all(replacing).await;
    let stored = world.worker().access().await;
    assert!(sessions.iter().any(|session| access(session) == stored));
    sleep(MINUTE).await;
    let tokens = join_all(workers.iter().map(|worker| worker.access())).await;
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_eq!(world.reuses(), 0);
}

// ===== the rejection backoff =====

#[tokio::test(start_paused = true)]
async fn rejection_backoff_sends_nothing_and_adopts_a_siblings_token() {
    let world = World::new();
    let [backed_off, other] = [world.worker(), world.worker()];
    let good = Arc::new(std::sync::OnceLock::<String>::new());
    let known = Arc::clone(&good);
    let client =
        harness::client(RefreshLayer::new(backed_off.credentials.clone()), move |token, _| {
            let is_good = known.get() == Some(&token);
            async move { if is_good { StatusCode::OK } else { StatusCode::UNAUTHORIZED } }
        });
    assert_eq!(status(&client).await, StatusCode::UNAUTHORIZED);
    assert!(backed_off.status().rejection_backoff.is_some());
    let before = world.requests();
    // The rejection backoff holds for 5 seconds; it is looked now and then, and nothing is sent.
    for _ in 0..4 {
        status(&client).await;
        sleep(SECOND).await;
    }
    assert_eq!(world.requests(), before);
    // Now it lasts longer.
    sleep(Duration::from_secs(2)).await;
    status(&client).await;
    let on_for = backed_off.status().rejection_backoff.unwrap();
    assert!(on_for > Duration::from_secs(6), "{on_for:?}");
    other.tokens().await.unwrap();
    good.set(access(&other.refresh().await.unwrap()).to_owned()).unwrap();
    let before = world.requests();
    status(&client).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(status(&client).await, StatusCode::OK);
    assert_eq!(world.requests(), before);
    assert!(backed_off.status().rejection_backoff.is_none());
    let_others_run().await;
}

// ===== requests belong to a session =====

/// Returns a client of a worker, over an API that rejects one token, and the number of requests that arrive.
fn client_rejected_with(worker: &Worker, token: &str) -> (harness::Client, Arc<AtomicU64>) {
    let (rejected, arrived) = (token.to_owned(), Arc::new(AtomicU64::new(0)));
    let counter = Arc::clone(&arrived);
    let layer = RefreshLayer::new(worker.credentials.clone());
    let client = harness::client(layer, move |token, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        let is_rejected = token == rejected;
        async move { if is_rejected { StatusCode::UNAUTHORIZED } else { StatusCode::OK } }
    });
    (client, arrived)
}

async fn status(client: &harness::Client) -> StatusCode {
    client.clone().oneshot(harness::get("/")).await.unwrap().status()
}

/// A request that is rejected with this token is not sent again. The next one has another token.
async fn assert_not_resent(worker: &Worker, token: &str) {
    let (client, arrived) = client_rejected_with(worker, token);
    assert_eq!(status(&client).await, StatusCode::UNAUTHORIZED);
    assert_eq!(arrived.load(Ordering::SeqCst), 1);
    assert_eq!(status(&client).await, StatusCode::OK);
}

/// S11: a log-in elsewhere begins a session too, once it is stored.
#[tokio::test(start_paused = true)]
async fn rejected_request_is_not_resent_after_a_log_in_elsewhere() {
    let world = World::new();
    let [here, elsewhere] = [world.worker(), world.worker()];
    let alice = here.access().await;
    elsewhere.log_in(world.server.issue()).await.unwrap();
    assert_not_resent(&here, &alice).await;
}

/// S11: also if the session here began with a log-in of the application.
#[tokio::test(start_paused = true)]
async fn rejected_request_of_a_log_in_is_not_resent_after_another() {
    let world = World::new();
    let [here, elsewhere] = [world.worker(), world.worker()];
    let alice = world.server.issue();
    here.log_in(alice.clone()).await.unwrap();
    elsewhere.log_in(world.server.issue()).await.unwrap();
    assert_not_resent(&here, access(&alice)).await;
}

/// S11: also if the log-in here could not be saved, and was superseded meanwhile.
#[tokio::test(start_paused = true)]
async fn rejected_request_of_an_unsaved_log_in_is_not_resent() {
    let world = World::new();
    let [here, elsewhere] = [world.worker(), world.worker()];
    let alice = world.server.issue();
    here.store.go_down();
    here.log_in(alice.clone()).await.unwrap_err();
    sleep(SECOND).await;
    elsewhere.log_in(world.server.issue()).await.unwrap();
    here.store.come_up();
    assert_not_resent(&here, access(&alice)).await;
}

/// S11: a refresh elsewhere ends no session, even one that a log-in here began.
#[tokio::test(start_paused = true)]
async fn rejected_request_of_a_log_in_is_resent_after_a_refresh() {
    let world = World::new();
    let [here, elsewhere] = [world.worker(), world.worker()];
    let alice = world.server.issue();
    here.log_in(alice.clone()).await.unwrap();
    elsewhere.tokens().await.unwrap();
    elsewhere.refresh().await.unwrap();
    let before = world.requests();
    let (client, _) = client_rejected_with(&here, access(&alice));
    assert_eq!(status(&client).await, StatusCode::OK);
    assert_eq!(world.requests(), before);
}

/// S11: tokens that were stored before may be those of the next log-in, which then has one session.
#[tokio::test(start_paused = true)]
async fn request_of_a_log_in_with_stored_tokens_waits_for_a_refresh() {
    let world = World::new();
    let here = world.worker();
    let tokens = here.tokens().await.unwrap();
    here.log_in(tokens).await.unwrap();
    sleep(2 * MINUTE).await;
    let client = harness::client(RefreshLayer::new(here.credentials.clone()), harness::accept);
    assert_eq!(status(&client).await, StatusCode::OK);
}

/// S11: tokens obtained without the store are not a log-in, no matter which of two processes stores them last.
#[tokio::test(start_paused = true)]
async fn request_waits_for_a_token_after_two_began_without_the_store() {
    for first in [0, 1] {
        let world = World::with(|server| server.rotation(Rotation::Never))
            .dialect(|dialect| dialect.rotates = false);
        let workers = [world.serving(), world.serving()];
        for worker in &workers {
            worker.store.go_down();
            worker.tokens().await.unwrap();
            sleep(SECOND).await;
        }
        for worker in &workers {
            worker.store.come_up();
        }
        for worker in [&workers[first], &workers[1 - first]] {
            sleep(5 * SECOND).await;
            worker.tokens().await.unwrap();
            worker.flush().await.unwrap();
        }
        for round in 0..6 {
            sleep([2 * MINUTE, 45 * SECOND][round % 2]).await;
            for worker in &workers {
                let layer = RefreshLayer::new(worker.credentials.clone());
                let client = harness::client(layer, harness::accept);
                assert_eq!(status(&client).await, StatusCode::OK, "{first} {round}");
                sleep(SECOND).await;
            }
        }
    }
}

/// S11: a denial ends the session, so that a request waits for a log-in elsewhere.
#[tokio::test(start_paused = true)]
async fn request_made_while_denied_is_sent_after_a_login_elsewhere() {
    let world = World::new();
    let [here, elsewhere] = [world.worker(), world.worker()];
    let alice = here.tokens().await.unwrap();
    world.server.revoke_refresh_token(refresh(&alice));
    sleep(2 * MINUTE).await;
    assert!(here.tokens().await.unwrap_err().is_denied());
    let bob = world.server.issue();
    elsewhere.log_in(bob).await.unwrap();
    sleep(Duration::from_secs(6)).await;

    let client = harness::client(RefreshLayer::new(here.credentials.clone()), harness::accept);
    assert_eq!(status(&client).await, StatusCode::OK);
}

// ===== denials of a fresh proof =====

/// A80, over a store: the stored denial allows a probe, and an explicit refresh.
#[tokio::test(start_paused = true)]
async fn refused_fresh_proof_is_tried_again_under_a_store() {
    struct Signed(Arc<AtomicU64>);
    impl TokenSource for Signed {
        async fn fetch(&self, _: Renewal) -> Result<TokenSet, TokenError> {
            match self.0.fetch_add(1, Ordering::SeqCst) {
                0..3 => Err(TokenError::denied("the clock is not set yet")),
                _ => Ok(harness::tokens("t")),
            }
        }

        fn info(&self) -> SourceInfo {
            SourceInfo::new().fresh_proof(true)
        }
    }

    let world = World::new();
    let calls = Arc::new(AtomicU64::new(0));
    let worker = world.worker_of(Signed(Arc::clone(&calls)));
    let asked_within = async |time| {
        let before = calls.load(Ordering::SeqCst);
        for _ in 0..time / 6 {
            assert!(worker.tokens().await.unwrap_err().is_denied());
            sleep(Duration::from_secs(6)).await;
        }
        calls.load(Ordering::SeqCst) - before
    };
    assert_eq!(asked_within(294).await, 1);
    assert_eq!(asked_within(60).await, 1);
    assert!(worker.refresh().await.unwrap_err().is_denied());
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    assert_eq!(asked_within(240).await, 0);
    worker.refresh().await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 4);
}

/// A31, OpenID Connect Core §3.1.2.6: the user must do something first, and the refresh token still stands for the whole fleet.
#[tokio::test(start_paused = true)]
async fn conditional_denial_is_tried_again_under_a_store() {
    for (rotation, code) in [
        (Rotation::Strict, "interaction_required"),
        (Rotation::Strict, "login_required"),
        (Rotation::Strict, "consent_required"),
        (Rotation::Never, "account_selection_required"),
    ] {
        let world = World::with(|server| server.rotation(rotation))
            .dialect(|dialect| dialect.rotates = rotation == Rotation::Strict);
        let workers = world.workers(2);
        workers[0].tokens().await.unwrap();
        world.server.token_faults().always(Fault::oauth_error(code));
        sleep(2 * MINUTE).await;

        let before = world.requests();
        for _ in 0..250 {
            for worker in &workers {
                assert!(worker.tokens().await.unwrap_err().is_denied(), "{code}");
            }
            sleep(SECOND).await;
        }
        assert!(world.requests() - before <= 2, "{code}: {}", world.requests() - before);
        assert!(!world.has_open_intent().await, "{code}");

        // Conditional access has changed.
        world.server.token_faults().clear();
        sleep(MINUTE).await;
        workers[0].tokens().await.unwrap();
        workers[1].refresh().await.unwrap();
        world.worker().tokens().await.unwrap();
        assert_eq!(world.reuses(), 0, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn log_in_is_saved_by_the_requests_that_follow() {
    let world = World::with(|server| server.access_token_lifetime(60 * MINUTE));
    let worker = world.worker();
    worker.tokens().await.unwrap();
    worker.store.go_down();
    let session = world.server.issue();
    worker.log_in(session.clone()).await.unwrap_err();
    worker.store.come_up();
    for _ in 0..20 {
        sleep(10 * SECOND).await;
        worker.tokens().await.unwrap();
    }
    assert!(world.json().await.contains(access(&session)));
}

#[tokio::test(start_paused = true)]
async fn log_in_while_an_earlier_one_is_saved_is_not_lost() {
    let world = World::new();
    let worker = world.worker();
    worker.tokens().await.unwrap();
    worker.store.go_down();
    worker.log_in(world.server.issue()).await.unwrap_err();
    worker.store.come_up();
    let [first, second] = [(); 2].map(|()| worker.store.pause(Step::SaveTokens));
    let flushing = tokio::spawn({
        let worker = worker.clone();
        async move { worker.flush().await }
    });
    let first = first.reached().await;
    let session = world.server.issue();
    let logging_in = tokio::spawn({
        let (worker, session) = (worker.clone(), session.clone());
        async move { worker.log_in(session).await }
    });
    let second = second.reached().await;
    first.send(()).unwrap();
    flushing.await.unwrap().unwrap();
    second.send(()).unwrap();
    logging_in.await.unwrap().unwrap();
    assert!(world.json().await.contains(access(&session)));
}

#[tokio::test(start_paused = true)]
async fn configured_token_replaced_by_a_log_in_ends_no_other_session() {
    let world = World::new();
    let other = world.worker();
    other.log_in(world.server.issue()).await.unwrap();
    let late = world.worker_of(world.grant_with(world.server.issue_refresh_token()));
    late.store.go_down();
    late.log_in(world.server.issue()).await.unwrap_err();
    sleep(SECOND).await;
    let session = world.server.issue();
    other.log_in(session.clone()).await.unwrap();
    late.store.come_up();
    let _ = late.flush().await;
    assert_eq!(access(&late.refresh().await.unwrap()), access(&session));
    assert_eq!(access(&other.tokens().await.unwrap()), access(&session));
    assert!(world.json().await.contains(access(&session)));
    assert_eq!(world.requests(), 0);
}
