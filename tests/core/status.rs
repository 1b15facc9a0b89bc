//! The status, and the reason why a request has no token, as an application reads them.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Response, StatusCode};
use tokio::time::advance;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::{BoxError, Credentials, RefreshLayer, TokenError, TokenStatus};

use crate::harness::{HOUR, Mint, accept, client, get, policy, puppet, tokens};

#[tokio::test(start_paused = true)]
async fn line_of_the_status_follows_the_life_of_a_token() {
    let mint = Mint::new(HOUR);
    let credentials = Credentials::with_policy(mint.clone(), policy());
    assert_eq!(credentials.status().to_string(), "missing, refresh due");
    credentials.warm_up().await.unwrap();
    let fresh = "fresh, generation 1, usable for 59m, refresh due in 54m";
    assert_eq!(credentials.status().to_string(), fresh);

    advance(HOUR - 40 * Duration::from_secs(1)).await;
    let stale = "stale, generation 1, usable for 29s, refresh due";
    assert_eq!(credentials.status().to_string(), stale);
    mint.fail(Some(TokenError::misconfigured("the variable CLIENT_ID is not set")));
    credentials.refresh().await.unwrap_err();
    let failed =
        "refresh due in 5m, last failure: invalid configuration: the variable CLIENT_ID is not set";
    assert!(credentials.status().to_string().ends_with(failed), "{}", credentials.status());
}

/// The token and the one after it are rejected, and then accepted.
#[tokio::test(start_paused = true)]
async fn new_token_is_rejected_until_a_response_accepts_it() {
    let credentials = Credentials::with_policy(Mint::new(HOUR), policy());
    let good_from = Arc::new(AtomicUsize::new(2));
    let good = Arc::clone(&good_from);
    let api = move |token: String, path: String| {
        let number: usize = token.trim_start_matches('t').parse().unwrap();
        let is_good = number >= good.load(Ordering::SeqCst) || path == "/public";
        async move { if is_good { StatusCode::OK } else { StatusCode::UNAUTHORIZED } }
    };
    let client = client(RefreshLayer::new(credentials.clone()), api);
    let send = async |path: &str| client.clone().oneshot(get(path)).await.unwrap().status();
    let token = || credentials.status().token;

    // The first token is rejected and replaced: the new one is good.
    assert_eq!(send("/").await, StatusCode::OK);
    assert_eq!(token(), TokenStatus::Fresh);
    // The new one and the one after it are rejected too.
    good_from.store(usize::MAX, Ordering::SeqCst);
    assert_eq!(send("/").await, StatusCode::UNAUTHORIZED);
    assert_eq!((token(), credentials.status().generation), (TokenStatus::Rejected, Some(3)));
    advance(Duration::from_secs(60)).await;
    assert_eq!(token(), TokenStatus::Rejected);
    // An acceptance elsewhere ends that, until the next rejection.
    assert_eq!(send("/public").await, StatusCode::OK);
    assert_eq!(token(), TokenStatus::Fresh);
    assert_eq!(send("/").await, StatusCode::UNAUTHORIZED);
    assert_eq!(token(), TokenStatus::Rejected);
}

// ===== the reason =====

/// An error that has the reason as its source.
#[derive(Debug)]
struct Wrapped(BoxError);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the catalogue is unavailable")
    }
}

impl Error for Wrapped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

#[tokio::test(start_paused = true)]
async fn reason_is_found_in_an_error_and_in_a_response() {
    let mint = Mint::new(HOUR);
    mint.fail(Some(TokenError::denied("expired")));
    let credentials = Credentials::with_policy(mint, policy());
    let reject = |_, _| async { StatusCode::UNAUTHORIZED };
    let client = client(RefreshLayer::new(credentials.clone()), reject);
    let must_log_in = |result: &Result<Response<_>, BoxError>| {
        TokenError::of(result).is_some_and(TokenError::must_log_in)
    };

    // The request was never sent.
    let result = client.clone().oneshot(get("/")).await;
    assert!(result.is_err() && must_log_in(&result));
    // Another layer has wrapped the error.
    let outer =
        ServiceBuilder::new().map_err(|error| Wrapped(error).into()).service(client.clone());
    let result = outer.oneshot(get("/")).await;
    assert!(result.is_err() && must_log_in(&result));
    // The token was rejected, and there is no newer one.
    credentials.log_in(tokens("t").with_expires_in(HOUR)).await.unwrap();
    let result = client.oneshot(get("/")).await;
    assert!(result.is_ok() && must_log_in(&result));
    assert!(TokenError::of(&Ok(Response::new(()))).is_none());
    assert!(TokenError::of::<()>(&Err("down".into())).is_none());
}

#[tokio::test(start_paused = true)]
async fn end_of_a_session_is_no_reason_to_log_in() {
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let client = client(RefreshLayer::new(credentials.clone()), accept);
    credentials.log_in(tokens("alice").with_expires_in(HOUR)).await.unwrap();
    advance(HOUR).await;
    let request = tokio::spawn(client.oneshot(get("/")));
    let flight = strings.next().await;
    let (logged_in, _) =
        tokio::join!(credentials.log_in(tokens("bob").with_expires_in(HOUR)), async {
            flight.answer(tokens("alice-2"))
        },);
    logged_in.unwrap();
    let result = request.await.unwrap();
    let error = TokenError::of(&result).unwrap();
    assert!(error.is_session_over() && !error.must_log_in());
}
