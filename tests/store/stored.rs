//! Credentials that share a store, without faults: a refresh token is spent at most once, its successor is saved before it
//! is used, and every worker adopts it.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;
use tower_refresh::oauth2::{ClientCredentialsGrant, RefreshTokenGrant};
use tower_refresh::testing::{Fault, Rotation};
use tower_refresh::{Credentials, Event, TokenSet, TokenSource, source_fn};

use crate::harness::{self, puppet};
use crate::world::{MINUTE, SECOND, Skewed, Step, World, access, count, refresh};

// ===== once =====

#[tokio::test(start_paused = true)]
async fn eight_that_share_a_store_spend_each_refresh_token_once() {
    let world = World::new();
    let workers = world.workers(8);
    for round in 1..=20 {
        let tokens = join_all(workers.iter().map(|worker| worker.access())).await;
        for token in tokens {
            assert!(world.server.is_live(&token));
        }
        assert_eq!(world.requests(), round);
        sleep(MINUTE).await;
    }
    assert_eq!(world.reuses(), 0);
    for worker in &workers {
        worker.flush().await.unwrap();
        assert_eq!(
            count(&worker.events(), |event| matches!(event, Event::RefreshFailed { .. })),
            0
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_with_what_is_stored() {
    let world = World::new();
    let before = world.worker();
    let token = before.access().await;
    drop(before);
    let after = world.worker();
    assert_eq!(after.access().await, token);
    assert_eq!(world.requests(), 1);
    after.refresh().await.unwrap();
    assert_eq!(world.requests(), 2);
    assert_eq!(world.reuses(), 0);
}

#[tokio::test(start_paused = true)]
async fn intent_is_saved_before_sending_and_tokens_before_their_use() {
    let world = World::new();
    let worker = world.worker();
    let in_order = ["lock", "load", "save intent", "is held", "fetch", "save tokens", "release"];
    for round in 0..2 {
        // The first load is without the lock.
        let (asking, go) = worker.refresh_to(Step::SaveTokens).await;
        assert!(!asking.is_finished(), "unsaved tokens are not used");
        assert!(world.has_open_intent().await);
        let release = worker.store.pause(Step::Release);
        go.send(()).unwrap();
        let go = release.reached().await;
        assert!(!world.has_open_intent().await);
        go.send(()).unwrap();
        asking.await.unwrap().unwrap();
        let log = world.log.take();
        assert_eq!(log[0], "load", "{round}");
        assert_eq!(log[1..], in_order, "{round}");
    }
}

// ===== adoption =====

#[tokio::test(start_paused = true)]
async fn tokens_of_a_sibling_are_adopted_for_every_cause() {
    let world = World::new();
    let [one, other] = [world.worker(), world.worker()];
    // Missing.
    let first = one.access().await;
    assert_eq!(other.access().await, first);
    assert_eq!(count(&other.events(), |event| matches!(event, Event::FoundInStore)), 1);
    // Forced.
    let second = access(&one.refresh().await.unwrap()).to_owned();
    assert_eq!(access(&other.refresh().await.unwrap()), second);
    assert_eq!(world.requests(), 2);
    // Expiring: the old token is used while the new one is obtained.
    sleep(Duration::from_secs(50)).await;
    one.access().await;
    one.flush().await.unwrap();
    assert_eq!(world.requests(), 3);
    assert_eq!(other.access().await, second);
    other.flush().await.unwrap();
    assert_eq!(other.access().await, one.access().await);
    // Expired.
    sleep(MINUTE).await;
    let fourth = one.access().await;
    assert_eq!(other.access().await, fourth);
    assert_eq!(world.requests(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_and_expired_is_renewed_and_not_adopted() {
    let world = World::new();
    let first = world.worker().access().await;
    sleep(MINUTE).await;
    let second = world.worker().access().await;
    assert_ne!(first, second);
    assert!(world.server.is_live(&second));
    assert_eq!((world.requests(), world.reuses()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn tokens_of_a_sibling_are_adopted_while_the_lock_is_held() {
    let world = World::new();
    let [one, other, third] = [world.worker(), world.worker(), world.worker()];
    let first = one.access().await;
    other.access().await;
    let second = access(&other.refresh().await.unwrap()).to_owned();
    assert_ne!(first, second);
    // It holds the lock, and its response is slow.
    third.access().await;
    let (renewing, go) = third.refresh_to(Step::IsHeld).await;
    assert_eq!(access(&one.refresh().await.unwrap()), second);
    assert_eq!(world.requests(), 2);
    go.send(()).unwrap();
    renewing.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_set_of_a_useless_answer_is_not_adopted_as_a_newer_one() {
    let world = World::new();
    let worker = world.worker();
    let first = worker.access().await;
    let useless = world.server.issue();
    let body = format!(r#"{{"token_type":"bearer","refresh_token":"{}"}}"#, refresh(&useless));
    let fault = tower_refresh::testing::Fault::status(http::StatusCode::OK)
        .header(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"))
        .body(body);
    world.server.token_faults().once(fault);
    worker.refresh().await.unwrap_err();
    sleep(SECOND).await;
    let next = worker.refresh().await.unwrap();
    assert_ne!(access(&next), first);
    assert_eq!(world.server.refresh_token_uses(refresh(&useless)), 1);
}

// ===== the configured refresh token =====

#[tokio::test(start_paused = true)]
async fn configured_token_is_sent_once_over_all_restarts() {
    let world = World::new();
    world.worker().access().await;
    for _ in 0..3 {
        sleep(MINUTE).await;
        world.worker().access().await;
    }
    assert_eq!(world.server.refresh_token_uses(world.configured.expose_secret()), 1);
    assert_eq!(world.reuses(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_different_configured_token_wins_over_the_store_once() {
    let mut world = World::new();
    let old = world.worker();
    let first = old.access().await;
    let old_token = world.configured.clone();
    world.configured = world.server.issue_refresh_token();
    let new = world.worker();
    let second = new.access().await;
    assert_ne!(first, second);
    assert_eq!(world.server.refresh_token_uses(world.configured.expose_secret()), 1);
    // The old configuration does not return with any restart.
    sleep(MINUTE).await;
    old.access().await;
    let mut behind = world.clone();
    behind.configured = old_token;
    for _ in 0..3 {
        let restarted = behind.worker();
        assert_eq!(restarted.access().await, new.access().await);
        sleep(MINUTE).await;
    }
    assert_eq!(world.server.refresh_token_uses(behind.configured.expose_secret()), 1);
    assert_eq!(world.server.refresh_token_uses(world.configured.expose_secret()), 1);
    assert_eq!(world.reuses(), 0);
}

#[tokio::test(start_paused = true)]
async fn workers_with_different_configured_tokens_do_not_alternate() {
    let mut world = World::new();
    let one = world.worker();
    world.configured = world.server.issue_refresh_token();
    let other = world.worker();
    for round in 0..10 {
        let (first, second) = tokio::join!(one.tokens(), other.tokens());
        if round > 0 {
            assert_eq!(access(&first.unwrap()), access(&second.unwrap()));
        }
        sleep(MINUTE).await;
    }
    assert!(world.requests() <= 12, "{}", world.requests());
    assert_eq!(world.reuses(), 0);
}

#[tokio::test(start_paused = true)]
async fn stored_set_without_refresh_token_hides_the_configured_one() {
    let world = World::new();
    let worker = world.worker();
    worker.access().await;
    let brought = TokenSet::bearer("brought").unwrap().with_expires_in(MINUTE);
    worker.log_in(brought).await.unwrap();
    drop(worker);
    sleep(MINUTE).await;
    let error = world.worker().tokens().await.unwrap_err();
    assert!(error.is_denied(), "{error}");
    assert_eq!(world.server.refresh_token_uses(world.configured.expose_secret()), 1);
}

// ===== the binding =====

#[tokio::test(start_paused = true)]
async fn a_record_of_something_else_is_neither_used_nor_changed() {
    let world = World::new();
    world.worker().access().await;
    let before = world.json().await;
    let elsewhere = world.endpoint().with_url("https://other.test/token").unwrap();
    let other_client =
        world.endpoint().client_auth(tower_refresh::oauth2::ClientAuth::public("other"));
    let workers = [
        world.worker_of(RefreshTokenGrant::new(elsewhere, world.configured.clone())),
        world.worker_of(RefreshTokenGrant::new(other_client, world.configured.clone())),
        world.worker_as(world.grant(), |stored| stored.name("other")),
        world.worker_of(RefreshTokenGrant::new(
            world.endpoint().with_url("https://as.test:444/token").unwrap(),
            "another",
        )),
    ];
    for worker in &workers {
        let error = worker.tokens().await.unwrap_err();
        assert!(error.is_misconfigured(), "{error}");
        assert!(error.to_string().contains("the puppet"), "{error}");
        assert!(error.to_string().contains("or remove this record"), "{error}");
        worker.log_in(world.server.issue()).await.unwrap_err();
        worker.log_out().await.unwrap_err();
        let error = worker.flush().await.unwrap_err();
        assert!(error.is_misconfigured(), "{error}");
    }
    assert_eq!(world.json().await, before);
    assert_eq!(world.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn typing_error_corrected_before_the_first_token_is_forgotten() {
    let world = World::new();
    let wrong = world.endpoint().with_url("https://typo.test/token").unwrap();
    let wrong = world.worker_of(RefreshTokenGrant::new(wrong, world.configured.clone()));
    world.server.token_faults().once(Fault::unavailable());
    assert!(wrong.tokens().await.unwrap_err().is_transient());
    assert!(world.json().await.contains("typo.test"));

    world.worker().access().await;
    assert!(!world.json().await.contains("typo.test"));
    assert_eq!(world.reuses(), 0);
    // From now on no other grant can use the record.
    sleep(MINUTE).await;
    assert!(wrong.refresh().await.unwrap_err().is_misconfigured());
}

#[tokio::test(start_paused = true)]
async fn the_default_port_is_no_other_server() {
    let world = World::new();
    let token = world.worker().access().await;
    let endpoint = world.endpoint().with_url("https://AS.test:443/other").unwrap();
    let worker = world.worker_of(RefreshTokenGrant::new(endpoint, world.configured.clone()));
    assert_eq!(worker.access().await, token);
}

// ===== sources that spend nothing =====

#[tokio::test(start_paused = true)]
async fn tokens_of_a_client_are_shared_without_an_intent() {
    let world = World::with(|server| server.client("compass", "secret"));
    let grant = || {
        ClientCredentialsGrant::new(
            world
                .endpoint()
                .client_auth(tower_refresh::oauth2::ClientAuth::basic("compass", "secret")),
        )
    };
    let workers = [world.worker_of(grant()), world.worker_of(grant()), world.worker_of(grant())];
    for round in 1..=5 {
        let tokens = join_all(workers.iter().map(|worker| worker.access())).await;
        assert!(tokens.iter().all(|token| *token == tokens[0] && world.server.is_live(token)));
        assert_eq!(world.requests(), round);
        sleep(MINUTE).await;
    }
    assert!(!world.log.take().contains(&"save intent"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_rotate_needs_no_intent() {
    let world = World::with(|server| server.rotation(Rotation::Never))
        .dialect(|dialect| dialect.rotates = false);
    let workers = world.workers(4);
    for round in 1..=5 {
        let tokens = join_all(workers.iter().map(|worker| worker.access())).await;
        assert!(tokens.iter().all(|token| *token == tokens[0] && world.server.is_live(token)));
        assert_eq!(world.requests(), round);
        sleep(MINUTE).await;
    }
    world.worker().access().await;
    assert!(!world.log.take().contains(&"save intent"));
    assert_eq!(world.server.refresh_token_uses(world.configured.expose_secret()), 6);
}

#[tokio::test(start_paused = true)]
async fn source_without_information_is_stored_as_one_that_rotates() {
    let world = World::new();
    let (source, mut strings) = puppet();
    let worker = world.worker_of(source);
    let asking = tokio::spawn({
        let worker = worker.clone();
        async move { worker.access().await }
    });
    // It has no refresh token yet.
    strings.next().await.answer(harness::tokens("one").with_expires_in(MINUTE));
    assert_eq!(asking.await.unwrap(), "one");
    assert!(!world.log.take().contains(&"save intent"));
    let asking = tokio::spawn(async move { worker.refresh().await });
    let asked = strings.next().await;
    assert_eq!(refresh(asked.renewal.previous().unwrap()), "refresh-one");
    assert!(world.has_open_intent().await);
    // The source may omit the refresh token deliberately, after a log-in by other means.
    asked.answer(TokenSet::bearer("two").unwrap().with_expires_in(MINUTE));
    assert!(asking.await.unwrap().unwrap().refresh_token().is_none());
    assert!(!world.json().await.contains("refresh-one"));
}

// ===== clocks =====

#[tokio::test(start_paused = true)]
async fn clocks_that_differ_by_seconds_spend_nothing_twice() {
    let world = World::new();
    let skewed = |ahead: u64, behind: u64| {
        let clock = Skewed {
            clock: world.clock.clone(),
            ahead: SECOND * ahead as u32,
            behind: SECOND * behind as u32,
        };
        let endpoint = world.endpoint().clock(clock.clone());
        let grant = RefreshTokenGrant::new(endpoint, world.configured.clone());
        let policy = world.policy().clock(clock);
        Credentials::builder(grant).store(world.store()).policy(policy).build()
    };
    let workers = [skewed(0, 0), skewed(4, 0), skewed(0, 4), skewed(2, 0)];
    for _ in 0..200 {
        for tokens in join_all(workers.iter().map(|worker| worker.tokens())).await {
            tokens.unwrap();
        }
        sleep(Duration::from_secs(7)).await;
    }
    assert_eq!(world.reuses(), 0);
    let uses = world.server.counters().refresh_token_uses;
    assert!(uses.values().all(|uses| *uses <= 1), "{uses:?}");
    // 1400 seconds of tokens that live for 60, renewed from 48 on, or 44 by a clock that is ahead.
    assert!(world.requests() <= 35, "{}", world.requests());
}

#[tokio::test(start_paused = true)]
async fn outer_source_gets_no_rejected_access_token_again() {
    let world = World::new();
    let grant = world.grant();
    let bare = source_fn(move |renewal| {
        let grant = grant.clone();
        async move {
            let tokens = grant.fetch(renewal).await?;
            TokenSet::bearer(access(&tokens))
        }
    });
    let worker = world.worker_of(bare);
    worker.tokens().await.unwrap();
    // Its refresh token is lost, and the configured one is not sent twice.
    assert!(worker.refresh().await.unwrap_err().is_denied());
    assert_eq!((world.requests(), world.reuses()), (1, 0));
}

// ===== two in one process =====

#[tokio::test(start_paused = true)]
async fn two_credentials_over_one_stored_source_share_it() {
    let world = World::new();
    let one = world.worker();
    let other = world.worker();
    for round in 1..=5 {
        let (first, second) = tokio::join!(one.tokens(), other.tokens());
        assert_eq!(access(&first.unwrap()), access(&second.unwrap()));
        assert_eq!(world.requests(), round);
        sleep(MINUTE).await;
    }
    // Tokens of one are known to the other, which does not log in again.
    one.log_in(world.server.issue()).await.unwrap();
    sleep(MINUTE).await;
    let before = world.requests();
    let renewed = other.tokens().await.unwrap();
    assert_eq!(access(&one.tokens().await.unwrap()), access(&renewed));
    assert_eq!(world.requests(), before + 1);
    assert_eq!(world.reuses(), 0);
}

#[tokio::test(start_paused = true)]
async fn lost_refresh_that_lands_late_is_saved_and_spends_nothing() {
    let world = World::new();
    let fast = || {
        let policy = world.policy().timeout(SECOND);
        Credentials::builder(world.grant()).store(world.store()).policy(policy).build()
    };
    let worker = fast();
    let late = tower_refresh::testing::Fault::normal().delay(Duration::from_secs(20));
    world.server.token_faults().once(late.after_processing());
    worker.tokens().await.unwrap_err();
    sleep(Duration::from_secs(10)).await;
    // The refresh is lost now, and the next one waits for the lock that it still holds.
    worker.tokens().await.unwrap_err();
    sleep(Duration::from_secs(10)).await;
    let token = worker.tokens().await.unwrap();
    assert!(world.server.is_live(access(&token)));
    assert_eq!((world.requests(), world.reuses()), (1, 0));
    assert_eq!(access(&fast().tokens().await.unwrap()), access(&token));
}
