//! A refresh that the application asks for after it has removed the cause of a failure.

use futures_util::future::join_all;
use tokio::time::advance;
use tower_refresh::{Credentials, TokenError, TokenSource as _};

use crate::harness::{HOUR, MINUTE, Mint, let_others_run, policy, puppet, tokens};

/// The errors after which nothing is sent for a while, or ever.
fn remembered() -> [TokenError; 4] {
    [
        TokenError::transient("503"),
        TokenError::ambiguous("cut"),
        TokenError::denied("expired"),
        TokenError::misconfigured("fix me"),
    ]
}

#[tokio::test(start_paused = true)]
async fn repaired_source_is_asked_at_once_after_any_failure() {
    for error in remembered() {
        let mint = Mint::new(HOUR);
        let credentials = Credentials::with_policy(mint.clone(), policy());
        mint.fail(Some(error.clone()));
        credentials.tokens().await.unwrap_err();
        mint.fail(None);
        assert!(credentials.tokens().await.unwrap_err().is_remembered());

        let all = (0..100).map(|_| credentials.refresh_now());
        let all = join_all(all).await;
        assert!(
            all.into_iter().all(|tokens| tokens.unwrap().access_token().expose_secret() == "t2")
        );
        assert_eq!(mint.calls(), 2, "{error}");
        assert!(credentials.status().error.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn source_that_still_fails_is_asked_for_each_call() {
    for error in remembered() {
        let mint = Mint::new(HOUR);
        let credentials = Credentials::with_policy(mint.clone(), policy());
        mint.fail(Some(error.clone()));
        for calls in 1..=3 {
            let again = credentials.refresh_now().await.unwrap_err();
            assert_eq!((again.kind(), again.is_remembered()), (error.kind(), false));
            assert_eq!(mint.calls(), calls);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn refresh_token_of_unknown_outcome_is_not_sent_while_the_token_works() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.log_in(tokens("t1").with_expires_in(HOUR)).await.unwrap();
    let lost = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.refresh().await }
    });
    strings.next().await.fail(TokenError::ambiguous("cut"));
    assert!(lost.await.unwrap().unwrap_err().is_ambiguous());
    advance(MINUTE).await;
    let error = credentials.refresh_now().await.unwrap_err();
    assert!(error.is_ambiguous() && error.is_remembered(), "{error}");
    assert_eq!(strings.count(), 0);
    assert_eq!(credentials.current().unwrap().access_token().expose_secret(), "t1");

    // The token works no more, and there is nothing to lose.
    advance(HOUR).await;
    let again = tokio::spawn(async move { credentials.refresh_now().await });
    let_others_run().await;
    strings.next().await.answer(tokens("t2"));
    again.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn unknown_outcome_is_not_risked_while_an_endless_token_works() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    credentials.log_in(tokens("t1")).await.unwrap();
    let refresh_now = || {
        let credentials = credentials.clone();
        tokio::spawn(async move { credentials.refresh_now().await })
    };
    let lost = refresh_now();
    strings.next().await.fail(TokenError::ambiguous("cut"));
    lost.await.unwrap().unwrap_err();
    let again = refresh_now();
    let_others_run().await;
    assert_eq!(strings.count(), 0);
    assert!(again.await.unwrap().unwrap_err().is_remembered());

    // Waiting for the expiry has no end.
    advance(HOUR).await;
    let later = refresh_now();
    strings.next().await.answer(tokens("t2"));
    later.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn refused_refresh_token_is_not_sent_and_a_second_source_is_asked() {
    let (grant, mut strings) = puppet();
    let mint = Mint::new(HOUR);
    mint.fail(Some(TokenError::transient("down")));
    let credentials = Credentials::with_policy(grant.or_else(mint.clone()), policy());
    credentials.log_in(tokens("t1").with_expires_in(HOUR)).await.unwrap();
    let refused = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.refresh().await }
    });
    let asked = strings.next().await;
    assert!(asked.renewal.refresh_token().is_ok());
    asked.fail(TokenError::denied("expired"));
    refused.await.unwrap().unwrap_err();

    mint.fail(None);
    let repaired = tokio::spawn(async move { credentials.refresh_now().await });
    let asked = strings.next().await;
    assert!(asked.renewal.refresh_token().is_err());
    asked.fail(TokenError::denied("there is nothing to send"));
    assert_eq!(repaired.await.unwrap().unwrap().access_token().expose_secret(), "t2");
}
