//! Verdicts that the application reports for clients that are not tower services.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::advance;
use tower::ServiceExt as _;
use tower_refresh::{Credentials, Event, RefreshLayer, TokenError, TokenSet, TokenStatus};

use crate::harness::{HOUR, MINUTE, Mint, SECOND, accept, client, get, policy, tokens};

fn access(tokens: &TokenSet) -> &str {
    tokens.access_token().expose_secret()
}

#[tokio::test(start_paused = true)]
async fn reports_about_one_token_lead_to_one_refresh() {
    let mint = Mint::new(HOUR);
    let credentials = Credentials::with_policy(mint.clone(), policy());
    let old = credentials.tokens().await.unwrap();
    let all = join_all((0..1000).map(|_| credentials.rejected(&old))).await;
    assert!(all.iter().all(|tokens| access(tokens.as_ref().unwrap()) == "t2"));
    // A report that comes late is about an older token.
    assert_eq!(access(&credentials.rejected(&old).await.unwrap()), "t2");
    assert_eq!(mint.calls(), 2);
    assert_eq!(credentials.status().token, TokenStatus::Fresh);
}

#[tokio::test(start_paused = true)]
async fn report_about_unknown_tokens_returns_the_current_ones() {
    let mint = Mint::new(HOUR);
    let credentials = Credentials::with_policy(mint.clone(), policy());
    let foreign = tokens("foreign");
    assert_eq!(access(&credentials.rejected(&foreign).await.unwrap()), "t1");
    credentials.accepted(&foreign);
    // After a log-in, the tokens of the last user are unknown.
    credentials.log_in(tokens("bob").with_expires_in(HOUR)).await.unwrap();
    let of_alice = tokens("t1");
    assert_eq!(access(&credentials.rejected(&of_alice).await.unwrap()), "bob");
    assert_eq!((mint.calls(), credentials.status().token), (1, TokenStatus::Fresh));
}

#[tokio::test(start_paused = true)]
async fn request_waits_while_reported_tokens_are_replaced() {
    let credentials = Credentials::with_policy(Mint::new(HOUR), policy());
    let client = client(RefreshLayer::new(credentials.clone()), |token, _| async move {
        assert_eq!(token, "t2");
        http::StatusCode::OK
    });
    let old = credentials.tokens().await.unwrap();
    let (new, sent) = tokio::join!(credentials.rejected(&old), client.oneshot(get("/")));
    assert_eq!((access(&new.unwrap()), sent.unwrap().status()), ("t2", http::StatusCode::OK));
}

#[tokio::test(start_paused = true)]
async fn server_that_rejects_every_token_backs_off() {
    let mint = Mint::new(24 * HOUR);
    let credentials = Credentials::with_policy(mint.clone(), policy());
    let mut current = credentials.tokens().await.unwrap();
    // An hour of attempts each second.
    for _ in 0..3600 {
        match credentials.rejected(&current).await {
            Ok(newer) => current = newer,
            Err(error) => {
                assert!(error.is_transient() && error.to_string().contains("rejected again"))
            }
        }
        advance(SECOND).await;
    }
    assert!(mint.calls() < 20, "{}", mint.calls());
    assert_eq!(credentials.status().token, TokenStatus::Rejected);
}

#[tokio::test(start_paused = true)]
async fn accepted_tokens_end_the_rejection_backoff() {
    let mint = Mint::new(24 * HOUR);
    let credentials = Credentials::with_policy(mint.clone(), policy());
    let old = credentials.tokens().await.unwrap();
    let new = credentials.rejected(&old).await.unwrap();
    credentials.rejected(&new).await.unwrap_err();
    assert!(credentials.status().rejection_backoff.is_some());
    let mut events = credentials.subscribe();
    // A report about an older token is no evidence for the new one.
    credentials.accepted(&old);
    assert_eq!(credentials.status().token, TokenStatus::Rejected);
    credentials.accepted(&new);
    assert_eq!(credentials.status().token, TokenStatus::Fresh);
    assert!(matches!(events.recv().await, Some(Event::RejectionBackoffEnded)));
    assert_eq!(access(&credentials.rejected(&new).await.unwrap()), "t3");
}

#[tokio::test(start_paused = true)]
async fn tokens_without_a_report_for_the_longest_backoff_count_as_accepted() {
    for (silence, is_refreshed) in [(MINUTE, false), (5 * MINUTE, true), (10 * HOUR, true)] {
        let mint = Mint::new(24 * HOUR);
        let credentials = Credentials::with_policy(mint.clone(), policy());
        let old = credentials.tokens().await.unwrap();
        let new = credentials.rejected(&old).await.unwrap();
        advance(silence).await;
        // Revoked after it was used.
        assert_eq!(credentials.rejected(&new).await.is_ok(), is_refreshed, "{silence:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn backoff_of_the_application_does_not_hold_back_requests() {
    let mint = Mint::new(24 * HOUR);
    let credentials = Credentials::with_policy(mint.clone(), policy());
    let mut current = credentials.tokens().await.unwrap();
    while let Ok(newer) = credentials.rejected(&current).await {
        current = newer;
    }
    let rejected = access(&current).to_owned();
    let client = client(RefreshLayer::new(credentials.clone()), move |token, _| {
        let is_rejected = token == rejected;
        async move { if is_rejected { http::StatusCode::UNAUTHORIZED } else { http::StatusCode::OK } }
    });
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), http::StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn failed_replacement_returns_its_error_and_the_token_stays_in_use() {
    let mint = Mint::new(HOUR);
    let credentials = Credentials::with_policy(mint.clone(), policy());
    let old = credentials.tokens().await.unwrap();
    mint.fail(Some(TokenError::denied("expired")));
    assert!(credentials.rejected(&old).await.unwrap_err().must_log_in());
    assert_eq!(credentials.status().token, TokenStatus::Rejected);
    let client = client(RefreshLayer::new(credentials.clone()), accept);
    assert_eq!(client.oneshot(get("/")).await.unwrap().status(), http::StatusCode::OK);
    assert_eq!(credentials.status().token, TokenStatus::Fresh);
    advance(Duration::from_secs(1)).await;
    assert_eq!(mint.calls(), 2);
}
