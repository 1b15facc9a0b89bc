//! The incidents of the quickstart and of an operator, as a log at WARN shows them.

use std::time::Duration;

use http::{Request, header};
use http_body_util::Full;
use tokio::time::advance;
use tower_refresh::testing::Fault;
use tracing::Level;

use super::Program;
use crate::harness::{HOUR, MINUTE, SECOND, let_others_run};
use crate::records::Records;

#[tokio::test(start_paused = true)]
async fn healthy_program_logs_one_debug_line_for_each_refresh() {
    let records = Records::start();
    let program = Program::new();
    for _ in 0..5 {
        for _ in 0..20 {
            assert_eq!(program.get("https://api.test/things").await, Some(200));
        }
        advance(HOUR - MINUTE).await;
        assert_eq!(program.get("https://api.test/things").await, Some(200));
        let_others_run().await;
    }
    let lines: Vec<_> =
        records.take().into_iter().filter(|line| line.level < Level::TRACE).collect();
    assert_eq!(lines.len(), 6, "{lines:?}");
    for (line, generation) in lines.iter().zip(1..) {
        let cause = if generation == 1 { "missing" } else { "expiring" };
        line.assert(
            Level::DEBUG,
            "refresh",
            "token refreshed",
            &[
                ("credentials", "billing"),
                ("generation", &generation.to_string()),
                ("cause", cause),
                ("usable_for_ms", "3590000"),
            ],
        );
    }
}

/// Incident: the API answers 401 although refreshes succeed.
#[tokio::test(start_paused = true)]
async fn token_that_an_api_never_accepts_is_one_warning_with_the_challenge() {
    let records = Records::start();
    let program = Program::new();
    for _ in 0..50 {
        assert_eq!(program.get("https://api.test/unauthorized?key=1").await, Some(401));
        assert_eq!(program.get("https://api.test/b/unauthorized").await, Some(401));
        advance(SECOND).await;
    }
    let trouble = records.take_trouble();
    assert_eq!(trouble.len(), 1, "{trouble:?}");
    trouble[0].assert(
        Level::WARN,
        "rejection",
        "token rejected again right after a refresh: check its audience, scope and issuer",
        &[
            ("credentials", "billing"),
            ("origin", "https://api.test"),
            ("status", "401"),
            ("challenge.error", "invalid_token"),
            ("backoff_ms", "5000"),
        ],
    );
}

/// Incident: the token endpoint refuses the grant.
#[tokio::test(start_paused = true)]
async fn refused_refresh_token_is_one_error_with_code_and_endpoint() {
    let records = Records::start();
    let program = Program::new();
    program.server.token_faults().always(Fault::oauth_error("invalid_grant"));
    for _ in 0..20 {
        assert_eq!(program.get("https://api.test/").await, None);
        advance(MINUTE).await;
    }
    let trouble = records.take_trouble();
    assert_eq!(trouble.len(), 1, "{trouble:?}");
    trouble[0].assert(
        Level::ERROR,
        "refresh",
        "refresh denied: log in again",
        &[
            ("credentials", "billing"),
            ("cause", "missing"),
            ("endpoint", "https://as.test"),
            ("kind", "denied"),
            ("code", "invalid_grant"),
            ("retry_in_ms", ""),
        ],
    );
    assert!(trouble[0].field("error").contains("https://as.test answered 400"), "{trouble:?}");
}

#[tokio::test(start_paused = true)]
async fn failed_refresh_is_logged_with_the_time_until_requests_fail() {
    let records = Records::start();
    let program = Program::new();
    assert_eq!(program.get("https://api.test/").await, Some(200));
    program.server.token_faults().always(Fault::unavailable());
    advance(HOUR - MINUTE).await;
    assert_eq!(program.get("https://api.test/").await, Some(200));
    let_others_run().await;
    advance(MINUTE).await;
    assert_eq!(program.get("https://api.test/").await, None);
    let failed = records.take();
    let failed: Vec<_> =
        failed.iter().filter(|line| line.message.starts_with("refresh failed")).collect();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert_eq!(failed[0].level, Level::WARN);
    // The leeway does not count after a failure.
    assert_eq!(failed[0].field("usable_for_ms"), "60000");
    assert_eq!(failed[1].field("usable_for_ms"), "0");
}

/// Incident: a request goes to an origin that was not named.
#[tokio::test(start_paused = true)]
async fn unnamed_origin_that_answers_401_is_one_warning_for_each_origin() {
    let records = Records::start();
    let program = Program::new();
    for _ in 0..3 {
        for origin in ["https://api.test:8443", "http://api.test"] {
            let url = format!("{}/a?key=1", origin.replace("://", "://ann:pw@"));
            assert_eq!(program.get(&url).await, Some(401));
        }
    }
    let lines = records.take();
    let trouble: Vec<_> = lines.iter().filter(|line| line.level <= Level::WARN).collect();
    assert_eq!(trouble.len(), 2, "{trouble:?}");
    for (line, origin) in trouble.iter().zip(["https://api.test:8443", "http://api.test"]) {
        let fields = [
            ("credentials", "billing"),
            ("origin", origin),
            ("named", "https://api.test"),
            ("status", "401"),
            ("challenge.error", ""),
        ];
        line.assert(
            Level::WARN,
            "origin",
            "request without a token answered with 401: its origin is not named",
            &fields,
        );
    }
    // Each request, and each further 401.
    let debug = lines.iter().filter(|line| line.level == Level::DEBUG);
    let debug: Vec<_> = debug.collect();
    assert_eq!(debug.len(), 6 + 4, "{debug:?}");
    for line in debug.iter().filter(|line| !line.fields.contains_key("status")) {
        line.assert(Level::DEBUG, "origin", "no token attached", &[("part", "URI")]);
        assert!(line.field("origin").starts_with("http"), "{line:?}");
    }
}

// ===== the quickstart =====

#[tokio::test(start_paused = true)]
async fn outage_is_one_warning_and_its_end_is_one_line_at_info() {
    let records = Records::start();
    let program = Program::new();
    assert_eq!(program.get("https://api.test/").await, Some(200));
    advance(HOUR - MINUTE).await;
    records.take();
    program.server.token_faults().always(Fault::unavailable());
    for _ in 0..50 {
        assert_eq!(program.get("https://api.test/").await, Some(200));
        advance(SECOND).await;
    }
    let trouble = records.take_trouble();
    assert_eq!(trouble.len(), 1, "{trouble:?}");
    trouble[0].assert(
        Level::WARN,
        "refresh",
        "refresh failed, and is tried again",
        &[
            ("credentials", "billing"),
            ("cause", "expiring"),
            ("endpoint", "https://as.test"),
            ("kind", "transient"),
        ],
    );
    let retry_in = trouble[0].field("retry_in_ms").parse::<u64>().unwrap();
    assert!((500..=1000).contains(&retry_in), "{retry_in}");

    program.server.token_faults().clear();
    advance(MINUTE).await;
    assert_eq!(program.get("https://api.test/").await, Some(200));
    advance(MINUTE).await;
    assert_eq!(program.get("https://api.test/").await, Some(200));
    let_others_run().await;
    let lines = records.take();
    let info: Vec<_> = lines.iter().filter(|line| line.level <= Level::INFO).collect();
    assert_eq!(info.len(), 1, "{lines:?}");
    info[0].assert(Level::INFO, "refresh", "refreshes work again", &[("credentials", "billing")]);
    assert!(info[0].field("failures").parse::<u32>().unwrap() > 2, "{info:?}");
}

#[tokio::test(start_paused = true)]
async fn revocation_is_a_rejection_and_a_refresh_at_debug() {
    let records = Records::start();
    let program = Program::new();
    assert_eq!(program.get("https://api.test/").await, Some(200));
    records.take();
    program.server.revoke_all_access_tokens();
    assert_eq!(program.get("https://api.test/").await, Some(200));
    let_others_run().await;
    let lines: Vec<_> =
        records.take().into_iter().filter(|line| line.level < Level::TRACE).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    lines[0].assert(
        Level::DEBUG,
        "rejection",
        "token rejected",
        &[
            ("credentials", "billing"),
            ("generation", "1"),
            ("origin", "https://api.test"),
            ("status", "401"),
            ("challenge.error", "invalid_token"),
        ],
    );
    lines[1].assert(
        Level::DEBUG,
        "refresh",
        "token refreshed",
        &[("generation", "2"), ("cause", "rejected"), ("waiters", "1")],
    );
}

#[tokio::test(start_paused = true)]
async fn misconfiguration_is_one_error_until_another_code_follows() {
    let records = Records::start();
    let program = Program::new();
    for (code, wait) in [("invalid_client", 400), ("invalid_scope", 400)] {
        program.server.token_faults().always(Fault::oauth_error(code));
        for _ in 0..3 {
            assert_eq!(program.get("https://api.test/").await, None);
            advance(Duration::from_secs(wait)).await;
        }
        let trouble = records.take_trouble();
        assert_eq!(trouble.len(), 1, "{trouble:?}");
        let fields = [("kind", "misconfigured"), ("code", code), ("retry_in_ms", "300000")];
        trouble[0].assert(Level::ERROR, "refresh", "refresh failed because of the conf", &fields);
        program.server.token_faults().clear();
    }
}

#[tokio::test(start_paused = true)]
async fn unnamed_host_header_is_logged_as_the_origin_that_was_asked() {
    let records = Records::start();
    let program = Program::new();
    let request = Request::get("https://api.test/").header(header::HOST, "ann:pw@other.test");
    assert_eq!(program.send(request.body(Full::default()).unwrap()).await, Some(401));
    let lines = records.take();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let fields = [("origin", "https://other.test"), ("part", "`Host` header")];
    lines[0].assert(Level::DEBUG, "origin", "no token attached", &fields);
    let fields = [("origin", "https://other.test"), ("status", "401")];
    lines[1].assert(Level::WARN, "origin", "request without a token answered with 401", &fields);
}

#[tokio::test(start_paused = true)]
async fn number_of_unnamed_origins_in_warnings_is_bounded() {
    let records = Records::start();
    let program = Program::new();
    for number in 0..100 {
        assert_eq!(program.get(&format!("https://api-{number}.test/")).await, Some(401));
    }
    assert_eq!(records.take_trouble().len(), 64);
}
