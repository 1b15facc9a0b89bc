//! S2: a wall clock that is wrong for a moment, or on one machine, does not log the user out.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower_refresh::oauth2::{RefreshTokenGrant, TokenEndpoint};
use tower_refresh::store::MemoryStore;
use tower_refresh::testing::ManualClock;
use tower_refresh::{Clock, Credentials};

use crate::harness::{DAY, HOUR};

/// The lifetimes that the server states.
const ACCESS: Duration = Duration::from_secs(300);
const REFRESH: Duration = Duration::from_secs(1800);

/// S2
#[tokio::test(start_paused = true)]
async fn expired_refresh_token_is_sent_and_the_server_decides() {
    for has_store in [false, true] {
        for ahead in [2 * HOUR, DAY, 3650 * DAY] {
            let server = Server::default();
            let clock = ManualClock::new();
            let memory = has_store.then(MemoryStore::new);
            let credentials = server.credentials(&clock, memory.as_ref());
            assert_eq!(token(&credentials).await, "a1");

            clock.advance_wall(ahead);
            assert_eq!(token(&credentials).await, "a2", "{has_store} {ahead:?}");
            clock.rewind_wall(ahead);
            clock.advance(ACCESS);
            assert_eq!(token(&credentials).await, "a3", "{has_store} {ahead:?}");
            assert_eq!(server.posts(), 3);
        }
    }
}

/// S2
#[tokio::test(start_paused = true)]
async fn restart_with_a_clock_ahead_sends_the_stored_refresh_token() {
    let server = Server::default();
    let clock = ManualClock::new();
    let memory = MemoryStore::new();
    assert_eq!(token(&server.credentials(&clock, Some(&memory))).await, "a1");
    for number in 2..5 {
        clock.advance_wall(DAY);
        let restarted = server.credentials(&clock, Some(&memory));
        assert_eq!(token(&restarted).await, format!("a{number}"));
    }
    assert_eq!(server.posts(), 4);
}

/// S2
#[tokio::test(start_paused = true)]
async fn one_wrong_clock_does_not_log_out_the_fleet() {
    let server = Server::default();
    let memory = MemoryStore::new();
    let (right, wrong) = (ManualClock::new(), ManualClock::new());
    wrong.advance_wall(2 * HOUR);
    let first = server.credentials(&right, Some(&memory));
    assert_eq!(token(&first).await, "a1");
    assert_eq!(token(&server.credentials(&wrong, Some(&memory))).await, "a2");

    right.advance(ACCESS);
    wrong.advance(ACCESS);
    // By the correct clock, the set stored under the wrong one expires two hours later.
    first.tokens().await.unwrap();
    server.credentials(&right, Some(&memory)).tokens().await.unwrap();
    right.advance(DAY);
    let number = server.posts() + 1;
    assert_eq!(token(&first).await, format!("a{number}"));
}

/// S2: the program was off for longer than the refresh token lives.
#[tokio::test(start_paused = true)]
async fn refusal_of_an_expired_refresh_token_is_the_servers() {
    for has_store in [false, true] {
        let server = Server::default();
        let clock = ManualClock::new();
        let memory = has_store.then(MemoryStore::new);
        let credentials = server.credentials(&clock, memory.as_ref());
        token(&credentials).await;
        clock.advance(DAY);
        server.refuse();
        let error = credentials.tokens().await.unwrap_err();
        assert!(error.is_denied() && error.to_string().contains("invalid_grant"), "{error}");
        assert_eq!(server.posts(), 2, "{has_store}");
    }
}

/// S2: the stated expiry is information.
#[tokio::test(start_paused = true)]
async fn status_reports_the_stated_expiry_of_the_refresh_token() {
    for has_store in [false, true] {
        let server = Server::default();
        let clock = ManualClock::new();
        let memory = has_store.then(MemoryStore::new);
        let credentials = server.credentials(&clock, memory.as_ref());
        assert_eq!(credentials.status().refresh_token_expires_at, None);

        let expires_at = seconds(clock.now().wall() + REFRESH);
        token(&credentials).await;
        assert_eq!(credentials.status().refresh_token_expires_at.map(seconds), Some(expires_at));
        // It is still reported after that time, and after a restart.
        clock.advance(Duration::from_secs(60));
        if let Some(memory) = &memory {
            let restarted = server.credentials(&clock, Some(memory));
            token(&restarted).await;
            assert_eq!(restarted.status().refresh_token_expires_at.map(seconds), Some(expires_at));
        }
        clock.advance(HOUR);
        assert_eq!(credentials.status().refresh_token_expires_at.map(seconds), Some(expires_at));

        credentials.log_out().await.unwrap();
        assert_eq!(credentials.status().refresh_token_expires_at, None);
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

async fn token(credentials: &Credentials) -> String {
    credentials.tokens().await.unwrap().access_token().expose_secret().to_owned()
}

// ===== a token endpoint that rotates and counts =====

#[derive(Clone, Default)]
struct Server {
    posts: Arc<AtomicUsize>,
    refuses: Arc<AtomicUsize>,
}

impl Server {
    fn posts(&self) -> usize {
        self.posts.load(Ordering::SeqCst)
    }

    fn refuse(&self) {
        self.refuses.store(1, Ordering::SeqCst);
    }

    fn answer(&self) -> Response<Full<Bytes>> {
        let number = self.posts.fetch_add(1, Ordering::SeqCst) + 1;
        let is_refused = self.refuses.load(Ordering::SeqCst) != 0;
        let (status, body) = if is_refused {
            (StatusCode::BAD_REQUEST, r#"{"error":"invalid_grant"}"#.to_owned())
        } else {
            let (access, refresh) = (ACCESS.as_secs(), REFRESH.as_secs());
            let body = format!(
                r#"{{"access_token":"a{number}","refresh_token":"r{number}","expires_in":{access},"refresh_expires_in":{refresh}}}"#
            );
            (StatusCode::OK, body)
        };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        response
    }

    fn credentials(&self, clock: &ManualClock, memory: Option<&MemoryStore>) -> Credentials {
        let server = self.clone();
        let http = tower::service_fn(move |_: Request<Full<Bytes>>| {
            let response = server.answer();
            async { Ok::<_, Infallible>(response) }
        });
        let endpoint = TokenEndpoint::new(http, "https://as.test/token").unwrap();
        let grant = RefreshTokenGrant::new(endpoint.clock(clock.clone()), "r0");
        let builder = Credentials::builder(grant).clock(clock.clone());
        match memory {
            Some(memory) => builder.store(memory.clone()).build(),
            None => builder.build(),
        }
    }
}
