//! A rejection returns its connection to the pool: HTTP/1.1 and HTTP/2 over real sockets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::Notify;
use tokio::time::timeout;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::testing::{AuthorizationServer, Fault, Serving};
use tower_refresh::{Refresh, RefreshLayer};

#[tokio::test]
async fn two_hundred_retries_share_two_connections_over_http_1() {
    let api = Api::serve(Version::Http1).await;
    api.reject_and_retry(200).await;
    // The second connection is for a retry that is faster than the pool.
    assert!(api.connections() <= 2, "{} connections", api.connections());
}

#[tokio::test]
async fn two_hundred_retries_share_one_connection_over_http_2() {
    let api = Api::serve(Version::Http2).await;
    api.reject_and_retry(200).await;
    assert_eq!(api.connections(), 1);
}

#[tokio::test]
async fn slow_rejections_share_their_connections_with_the_retries() {
    let api = Api::serve(Version::Http1).await;
    read(api.post("/", "").await).await;
    for _ in 0..20 {
        api.server.revoke_all_access_tokens();
        assert_eq!(read(api.post("/late/20", "body").await).await, "body");
    }
    assert_eq!(api.server.counters().resource_requests_unauthorized, 20);
    assert!(api.connections() <= 2, "{} connections", api.connections());
}

#[tokio::test]
async fn rejection_of_exactly_the_limit_returns_its_connection() {
    let api = Api::serve(Version::Http1).await;
    for _ in 0..20 {
        api.server.resource_faults().once(rejection_of(16 * 1024));
        assert_eq!(read(api.post("/", "body").await).await, "body");
    }
    assert_eq!(api.server.counters().resource_requests_unauthorized, 20);
    assert!(api.connections() <= 2, "{} connections", api.connections());
}

#[tokio::test]
async fn a_rejection_that_never_ends_costs_a_connection_and_no_time() {
    let endless =
        Fault::normal().drip(1, Duration::from_secs(3600)).only_if(StatusCode::UNAUTHORIZED);
    unread_rejection_costs_a_connection(&endless).await;
}

#[tokio::test]
async fn a_rejection_that_is_too_long_costs_a_connection_and_no_time() {
    unread_rejection_costs_a_connection(&rejection_of(8 * 1024 * 1024)).await;
}

async fn unread_rejection_costs_a_connection(rejection: &Fault) {
    for (version, connections) in [(Version::Http1, 2), (Version::Http2, 1)] {
        let api = Api::serve(version).await;
        assert_eq!(read(api.post("/", "first").await).await, "first");
        api.server.revoke_all_access_tokens();
        api.server.resource_faults().once(rejection.clone());
        let second = timeout(PROMPTLY, api.post("/", "second")).await.unwrap();
        assert_eq!(read(second).await, "second");
        assert_eq!(api.server.counters().resource_requests_unauthorized, 1);
        assert_eq!(api.connections(), connections, "{version:?}");
    }
}

#[tokio::test]
async fn token_revoked_amid_a_hundred_requests_costs_one_refresh() {
    for version in [Version::Http1, Version::Http2] {
        let api = Api::serve(version).await;
        let first = api.post("/", "").await.headers()["echo-token"].clone();
        let post = |number: u64| {
            let (api, first) = (&api, &first);
            async move {
                let body = format!("body {number}");
                let answer = api.post("/delay/20", body.clone()).await;
                if number >= 50 {
                    assert_ne!(answer.headers()["echo-token"], first);
                }
                assert_eq!(read(answer).await, body);
            }
        };
        let arrived = Arc::new(Notify::new());
        let notify = Arc::clone(&arrived);
        api.server.resource_faults().when(move |number| {
            if number == 25 {
                notify.notify_one();
            }
            None
        });
        let later = async {
            arrived.notified().await;
            api.server.revoke_all_access_tokens();
            join_all((50..100).map(post)).await
        };
        let all = join(join_all((0..50).map(post)), later);
        timeout(Duration::from_secs(30), all).await.unwrap();
        let counters = api.server.counters();
        assert!(counters.resource_requests_unauthorized > 0, "{counters:?}");
        assert_eq!(counters.resource_requests_ok, 101, "{counters:?}");
        assert_eq!(counters.token_requests, 2, "{counters:?}");
        assert_eq!(counters.refresh_token_reuses, 0, "{counters:?}");
    }
}

/// A server behind a socket, and a client that gets its tokens without one, so that every connection is one to the API.
struct Api {
    server: AuthorizationServer,
    serving: Serving,
    client: Refresh<Client<HttpConnector, Full<Bytes>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

impl Api {
    async fn serve(version: Version) -> Self {
        let server = AuthorizationServer::new();
        let serving = server.serve().await.unwrap();
        let endpoint =
            TokenEndpoint::new(server.token_service(), "https://auth.test/token").unwrap();
        let source = RefreshTokenGrant::new(endpoint, server.issue_refresh_token());
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new())
            .http2_only(version == Version::Http2)
            .build(connector);
        let client = ServiceBuilder::new()
            .layer(RefreshLayer::new(source).origin(serving.origin()).unwrap())
            .service(http);
        Self { server, serving, client }
    }

    async fn post(&self, path: &str, body: impl Into<Bytes>) -> Response<Incoming> {
        let request = Request::post(self.serving.url(path)).body(Full::new(body.into())).unwrap();
        self.client.clone().oneshot(request).await.unwrap()
    }

    /// Rejects each request with a response whose body is 0 to 20 ms late, so that it is sent again.
    async fn reject_and_retry(&self, times: u64) {
        self.server.resource_faults().when(|number| {
            let late = Duration::from_millis(number % 21);
            Some(Fault::normal().delay_body(late).only_if(StatusCode::UNAUTHORIZED))
        });
        read(self.post("/", "").await).await;
        for number in 0..times {
            self.server.revoke_all_access_tokens();
            // Every value of a byte, and longer each time.
            let body: Vec<u8> = (0..number * 100).map(|at| (at % 251) as u8).collect();
            let answer = self.post("/", body.clone()).await;
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(read(answer).await, body, "{number}");
        }
        let counters = self.server.counters();
        assert_eq!(counters.resource_requests_unauthorized, times);
        assert_eq!(counters.resource_requests, 1 + 2 * times);
        assert_eq!(counters.token_requests, 1 + times);
    }

    fn connections(&self) -> u64 {
        self.serving.connections()
    }
}

fn rejection_of(bytes: usize) -> Fault {
    Fault::status(StatusCode::UNAUTHORIZED).body(vec![b'.'; bytes])
}

async fn read(answer: Response<Incoming>) -> Bytes {
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().collect().await.unwrap().to_bytes()
}

/// A bound for a test that hangs. The time spent on a rejection is not measured, because machines stall.
const PROMPTLY: Duration = Duration::from_secs(5);
