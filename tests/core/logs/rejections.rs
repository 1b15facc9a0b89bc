//! Rejections: one line each, and the rejection backoff.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use http::StatusCode;
use tokio::time::advance;
use tower::ServiceExt as _;
use tower_refresh::{Credentials, Event, RefreshLayer};
use tracing::Level;

use super::Program;
use crate::harness::{self, HOUR, MINUTE, Mint, policy};
use crate::records::Records;

#[tokio::test(start_paused = true)]
async fn rejection_backoff_is_news_again_after_a_silent_application() {
    let records = Records::start();
    let credentials = Credentials::builder(Mint::new(24 * HOUR)).policy(policy()).build();
    let mut events = credentials.subscribe();
    let mut current = credentials.tokens().await.unwrap();
    for round in 0..3 {
        while let Ok(newer) = credentials.rejected(&current).await {
            current = newer;
        }
        let trouble = records.take_trouble();
        assert_eq!(trouble.len(), 1, "round {round}: {trouble:?}");
        trouble[0].assert(Level::WARN, "rejection", "token rejected again", &[]);
        // Without a report the token counts as accepted.
        advance(10 * MINUTE).await;
    }
    let events = std::iter::from_fn(|| events.recv().now_or_never().flatten());
    let ended = events.filter(|event| matches!(event, Event::RejectionBackoffEnded));
    assert_eq!(ended.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn end_of_a_rejection_backoff_is_one_line_at_info() {
    let records = Records::start();
    let repaired = Arc::new(AtomicBool::new(false));
    let is_repaired = Arc::clone(&repaired);
    let credentials = Credentials::builder(Mint::new(HOUR)).name("api").policy(policy()).build();
    let client = harness::client(RefreshLayer::new(credentials), move |_, _| {
        let repaired = is_repaired.load(Ordering::SeqCst);
        async move { if repaired { StatusCode::OK } else { StatusCode::UNAUTHORIZED } }
    });
    let get = async |status: u16| {
        let response = client.clone().oneshot(harness::get("/a")).await.unwrap();
        assert_eq!(response.status(), status);
    };
    for round in 0..2 {
        for _ in 0..3 {
            get(401).await;
            advance(MINUTE).await;
        }
        let lines = records.take();
        let trouble: Vec<_> = lines.iter().filter(|line| line.level <= Level::INFO).collect();
        assert_eq!(trouble.len(), 1, "round {round}: {lines:?}");
        trouble[0].assert(
            Level::WARN,
            "rejection",
            "token rejected again",
            &[
                ("credentials", "api"),
                ("origin", "https://api.test"),
                ("status", "401"),
                ("challenge.error", ""),
            ],
        );
        // Each rejected response, also that of a second attempt.
        let rejected: Vec<_> =
            lines.iter().filter(|line| line.message == "token rejected").collect();
        assert!(rejected.len() >= 4, "{lines:?}");
        for line in rejected {
            let fields = [("credentials", "api"), ("origin", "https://api.test")];
            line.assert(Level::DEBUG, "rejection", "token rejected", &fields);
        }

        repaired.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            get(200).await;
            advance(MINUTE).await;
        }
        let lines = records.take();
        let info: Vec<_> = lines.iter().filter(|line| line.level <= Level::INFO).collect();
        assert_eq!(info.len(), 1, "{lines:?}");
        let message = "token accepted by a target that had rejected it after a refresh";
        info[0].assert(Level::INFO, "rejection", message, &[("credentials", "api")]);
        repaired.store(false, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn challenge_that_asks_for_more_scope_is_one_debug_line() {
    let records = Records::start();
    let program = Program::new();
    assert_eq!(program.get("https://api.test/forbidden?key=1").await, Some(403));
    assert_eq!(program.get("https://api.test/").await, Some(200));
    let lines = records.take();
    let lines: Vec<_> = lines.iter().filter(|it| it.target.ends_with("rejection")).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].assert(
        Level::DEBUG,
        "rejection",
        "token accepted, and the challenge asks for more",
        &[
            ("credentials", "billing"),
            ("origin", "https://api.test"),
            ("status", "403"),
            ("challenge.error", "insufficient_scope"),
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn event_of_a_rejection_backoff_has_origin_status_and_challenge() {
    let program = Program::new();
    let mut events = program.credentials.subscribe();
    assert_eq!(program.get("https://api.test/unauthorized").await, Some(401));
    loop {
        let event = events.recv().await.unwrap();
        let Event::RejectionBackoffStarted { origin, status, challenge_error, .. } = event else {
            continue;
        };
        assert_eq!(origin.as_deref(), Some("https://api.test"));
        assert_eq!(status, Some(StatusCode::UNAUTHORIZED));
        assert_eq!(challenge_error.as_deref(), Some("invalid_token"));
        return;
    }
}

#[tokio::test(start_paused = true)]
async fn origin_is_logged_in_each_way_that_a_request_names_it() {
    use bytes::Bytes;
    use http::{Request, Response, header};
    use http_body_util::Full;
    use tower::ServiceBuilder;

    let named = |layer: RefreshLayer| layer.origin("https://api.test").unwrap();
    let any = |layer: RefreshLayer| layer.any_https_origin();
    type SetUp = fn(RefreshLayer) -> RefreshLayer;
    let sets: [(SetUp, &str, Option<&str>, &str); 5] = [
        (named, "https://api.test/a?k=1", None, "https://api.test"),
        (named, "https://API.test:443/a", None, "https://API.test:443"),
        (named, "/a", Some("api.test"), "https://api.test"),
        (named, "/a", None, ""),
        (any, "https://else.test/a", None, "https://else.test"),
    ];
    for (set_up, uri, host, origin) in sets {
        let records = Records::start();
        let credentials = Credentials::with_policy(Mint::new(HOUR), policy());
        let api = tower::service_fn(|_: Request<Full<Bytes>>| async {
            let mut response = Response::new(Full::<Bytes>::default());
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            Ok::<_, std::convert::Infallible>(response)
        });
        let layer = set_up(RefreshLayer::new(credentials));
        let client = ServiceBuilder::new().layer(layer).service(api);
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        client.oneshot(request.body(Full::default()).unwrap()).await.unwrap();
        let lines = records.take();
        let rejected: Vec<_> =
            lines.iter().filter(|line| line.target.ends_with("rejection")).collect();
        // Two attempts, and the warning.
        assert_eq!(rejected.len(), 3, "{uri}: {lines:?}");
        for line in rejected {
            assert_eq!(line.field("origin"), origin, "{uri}: {line:?}");
        }
    }
}
