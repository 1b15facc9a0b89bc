//! Many requests at once, at the moments in which a token is missing.
//!
//! `cargo bench --all-features --bench herd`. Each request is a task on a runtime with two threads. The token endpoint responds after
//! 50 ms, and its calls are counted. The baseline is the time in which the same tasks send their requests with a static header. The
//! time of each moment is given without the endpoint's 50 ms, except for the stale token, whose requests do not wait.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench fails by panicking, and measures time"
)]

mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use support::compare::Rounds;
use support::requests::{Requests, Values};
use support::services::{Body, Stack};
use support::stacks::{HOUR, TOKEN};
use support::{compare, table};
use tokio::runtime::Builder;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::auth::AddAuthorizationLayer;
use tower_refresh::{
    Credentials, RefreshLayer, RefreshPolicy, Renewal, TokenError, TokenSet, TokenSource,
};

const LATENCY: Duration = Duration::from_millis(50);

/// The lifetime of the token that becomes stale: it is stale in its second half, and not yet expired.
const SHORT: Duration = Duration::from_millis(1200);

/// The state of the token when the requests are sent.
#[derive(Clone, Copy)]
enum Moment {
    Cold,
    Stale,
    Rejected,
    Failing,
}

const MOMENTS: [(Moment, &str); 4] = [
    (Moment::Cold, "no token yet"),
    (Moment::Stale, "a stale token"),
    (Moment::Rejected, "a rejected token"),
    (Moment::Failing, "no token, and the endpoint fails"),
];

fn main() {
    if support::lists() {
        return;
    }
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        for requests in [1_000, 10_000] {
            print(requests).await;
        }
    });
}

async fn print(requests: u32) {
    let length = Rounds::new(5, requests);
    let mut fixed = Vec::new();
    let mut herds = MOMENTS.map(|_| Vec::new());
    let mut calls = MOMENTS.map(|_| 0);
    for _ in 0..length.rounds {
        let stack = AddAuthorizationLayer::bearer(TOKEN).layer(service_fn(api));
        fixed.push(herd(length.requests, stack, StatusCode::OK).await);
        for (number, (moment, _)) in MOMENTS.into_iter().enumerate() {
            let (took, called) = at(moment, length.requests).await;
            herds[number].push(took);
            calls[number] = called.max(calls[number]);
        }
    }
    let fixed = compare::median(fixed);
    let rows: Vec<_> = (0..MOMENTS.len())
        .map(|number| {
            let took = compare::median(herds[number].clone());
            vec![
                MOMENTS[number].1.to_owned(),
                calls[number].to_string(),
                format!("{took:.1} ms"),
                format!("{:+.1} ms", took - fixed),
                format!("× {:.2}", took / fixed),
            ]
        })
        .collect();
    let title = format!("{requests} requests at once: {fixed:.1} ms with a static header");
    let head = ["State", "Token calls", "Time beyond the latency", "To static", "Ratio"];
    table::print(&title, &head, &rows);
}

/// Returns the milliseconds that the requests take beyond the latency of the endpoint, and its calls.
async fn at(moment: Moment, requests: u32) -> (f64, u32) {
    let endpoint = Endpoint::default();
    let policy = RefreshPolicy::default().refresh_ahead(SHORT).jitter(Duration::ZERO);
    let credentials = Credentials::with_policy(endpoint.clone(), policy);
    let token = |token, lifetime| TokenSet::bearer(token).expect("valid").with_expires_in(lifetime);
    let (latency, status) = match moment {
        Moment::Cold => (LATENCY, StatusCode::OK),
        Moment::Stale => {
            credentials.log_in(token(TOKEN, SHORT)).await.expect("a token");
            tokio::time::sleep(SHORT.mul_f64(0.55)).await;
            (Duration::ZERO, StatusCode::OK)
        }
        Moment::Rejected => {
            credentials.log_in(token("revoked", HOUR)).await.expect("a token");
            (LATENCY, StatusCode::OK)
        }
        Moment::Failing => {
            endpoint.fails.store(true, Ordering::Relaxed);
            (LATENCY, StatusCode::SERVICE_UNAVAILABLE)
        }
    };
    let layer = RefreshLayer::new(credentials.clone()).origin("https://api.example.com");
    let stack = layer.expect("a valid origin").layer(service_fn(api));
    let took = herd(requests, stack, status).await - latency.as_secs_f64() * 1e3;
    // The failure was returned to each request, and here once more.
    drop(credentials.flush().await);
    (took, endpoint.calls.load(Ordering::Relaxed))
}

/// Sends the requests at once, each in a task of its own, and returns the milliseconds until the last one ends. An error counts
/// as [`StatusCode::SERVICE_UNAVAILABLE`].
async fn herd<S>(count: u32, stack: S, expected: StatusCode) -> f64
where
    S: Stack + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    let requests = Requests::new(8, Values::Static);
    let began = Instant::now();
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let (stack, request) = (stack.clone(), requests.build());
            tokio::spawn(async move {
                let response = stack.oneshot(request).await;
                response.map_or(StatusCode::SERVICE_UNAVAILABLE, |response| response.status())
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), expected);
    }
    began.elapsed().as_secs_f64() * 1e3
}

/// Accepts one token.
async fn api(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let mut response = Response::new(Full::default());
    let token = request.headers()[AUTHORIZATION].as_bytes().strip_prefix(b"Bearer ");
    if token != Some(TOKEN.as_bytes()) {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
    }
    Ok(response)
}

/// A token endpoint that counts its calls.
#[derive(Clone, Default)]
struct Endpoint {
    calls: Arc<AtomicU32>,
    fails: Arc<AtomicBool>,
}

impl TokenSource for Endpoint {
    async fn fetch(&self, _: Renewal) -> Result<TokenSet, TokenError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(LATENCY).await;
        if self.fails.load(Ordering::Relaxed) {
            return Err(TokenError::transient("unavailable"));
        }
        TokenSet::bearer(TOKEN).map(|tokens| tokens.with_expires_in(HOUR))
    }
}
