//! A process that is stopped during a refresh for longer than the time limit.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{advance, sleep};
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::store::{MemoryStore, TokenStore as _};
use tower_refresh::testing::{AuthorizationServer, TokioClock};
use tower_refresh::{
    Credentials, CredentialsBuilder, RefreshPolicy, TokenError, TokenSet, source_fn,
};

use crate::harness::{HOUR, SECOND};

/// S1
#[tokio::test(start_paused = true)]
async fn answer_that_arrived_while_the_process_was_stopped_is_used() {
    for (head, body) in [(1, 0), (20, 0), (0, 1), (0, 20), (10, 10)] {
        for is_stored in [false, true] {
            let server = AuthorizationServer::new();
            let grant = RefreshTokenGrant::new(
                endpoint(&server, head, body).timeout(2 * SECOND),
                server.issue_refresh_token(),
            );
            let store = MemoryStore::new();
            let source = match is_stored {
                true => Credentials::builder(grant).store(store.clone()),
                false => Credentials::builder(grant),
            };
            let outcome = stopped(source, 10 * SECOND).await;
            assert!(outcome.is_ok(), "{head} {body} {is_stored}: {outcome:?}");
            let counters = server.counters();
            assert_eq!((counters.token_requests, counters.refresh_token_reuses), (1, 0));
        }
    }
}

/// S1
#[tokio::test(start_paused = true)]
async fn response_to_a_stopped_process_with_a_store_is_used() {
    let source = source_fn(|_| async {
        let (sender, mut answers) = mpsc::channel(1);
        tokio::spawn(async move {
            sleep(SECOND).await;
            for _ in 0..20 {
                yield_now().await;
            }
            sender.send(()).await.unwrap();
        });
        answers.recv().await.unwrap();
        TokenSet::bearer("late")
    });
    let store = MemoryStore::new();
    let tokens = stopped(Credentials::builder(source).store(store.clone()), HOUR).await.unwrap();
    assert_eq!(tokens.access_token().expose_secret(), "late");
    assert!(store.load().await.unwrap().is_some());
}

/// S1
#[tokio::test(start_paused = true)]
async fn response_missing_after_a_stop_is_lost_within_a_bound() {
    let server = AuthorizationServer::new();
    server.token_faults().always(tower_refresh::testing::Fault::hang());
    let endpoint = endpoint(&server, 0, 0).timeout(2 * SECOND);
    let grant = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
    let outcome =
        tokio::time::timeout(HOUR + 60 * SECOND, stopped(Credentials::builder(grant), HOUR)).await;
    let error = outcome.unwrap().unwrap_err();
    assert!(error.is_ambiguous(), "{error}");
    assert!(error.to_string().contains("https://as.test took longer than 2s"), "{error}");
}

/// Fetches, and stops all tasks for a time during the fetch.
async fn stopped(source: CredentialsBuilder, time: Duration) -> Result<TokenSet, TokenError> {
    let policy = RefreshPolicy::default().timeout(2 * HOUR);
    let credentials = source.policy(policy).clock(TokioClock::new()).build();
    let fetch = tokio::spawn(async move { credentials.tokens().await });
    for _ in 0..100 {
        yield_now().await;
    }
    advance(time).await;
    fetch.await.unwrap()
}

/// An endpoint that responds after a second, and whose response passes through as many other tasks.
fn endpoint(server: &AuthorizationServer, head: usize, body: usize) -> TokenEndpoint {
    let service = server.token_service();
    let http = service_fn(move |request: Request<Full<Bytes>>| {
        let service = service.clone();
        let (sender, mut answers) = mpsc::channel(1);
        tokio::spawn(async move {
            let answer = service.oneshot(request).await.unwrap();
            let (parts, bytes) = answer.into_parts();
            let (frames, received) = mpsc::channel(1);
            let frame = bytes.collect().await.unwrap().to_bytes();
            sleep(SECOND).await;
            for _ in 0..head {
                yield_now().await;
            }
            sender.send(Response::from_parts(parts, received)).await.unwrap();
            for _ in 0..body {
                yield_now().await;
            }
            frames.send(frame).await
        });
        async move {
            let answer: Response<mpsc::Receiver<Bytes>> = answers.recv().await.unwrap();
            Ok::<_, BoxError>(answer.map(|received| {
                StreamBody::new(stream::unfold(received, |mut received| async {
                    let frame = Frame::data(received.recv().await?);
                    Some((Ok::<_, BoxError>(frame), received))
                }))
            }))
        }
    });
    let http = ServiceBuilder::new().buffer(4).service(http);
    TokenEndpoint::new(http, "https://as.test/token").unwrap()
}
