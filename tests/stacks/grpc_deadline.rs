//! The deadline of a gRPC call, as the docs of the module `grpc` show it, in paused time.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use http::{Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceBuilder;
use tower::timeout::error::Elapsed;
use tower_refresh::{BoxError, Credentials, RefreshLayer, TokenError, TokenSource};

use crate::harness::{HOUR, Mint, SECOND, policy};

/// Calls a server that does not answer.
async fn call(source: impl TokenSource, timeout: Duration) -> Status {
    let server =
        tower::service_fn(|_: Request<Body>| pending::<Result<Response<Body>, Infallible>>());
    let service = ServiceBuilder::new()
        .map_err(|error: BoxError| match error.downcast::<Elapsed>() {
            Ok(_) => Status::deadline_exceeded("no response in time").into(),
            Err(error) => error,
        })
        .timeout(timeout)
        .layer(RefreshLayer::new(Credentials::with_policy(source, policy())))
        .service(server);
    HealthClient::new(service).check(HealthCheckRequest::default()).await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn call_that_takes_too_long_is_deadline_exceeded() {
    // The server takes too long, or the token.
    for delay in [Duration::ZERO, HOUR] {
        let status = call(Mint::new(HOUR).delay(delay), 5 * SECOND).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn call_without_a_token_keeps_its_status_and_its_reason() {
    let mint = Mint::new(HOUR);
    mint.fail(Some(TokenError::denied("expired")));
    let status = call(mint, 5 * SECOND).await;
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(TokenError::find(&status).is_some_and(TokenError::must_log_in));
}
