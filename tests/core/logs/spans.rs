//! The span of each refresh.

use tokio::time::advance;
use tower_refresh::{Credentials, Renewal, TokenError, TokenSet};
use tracing::{Instrument as _, Level};

use crate::harness::{HOUR, MINUTE, SECOND, let_others_run, policy, puppet, tokens};
use crate::records::Records;

#[tokio::test(start_paused = true)]
async fn span_of_a_refresh_has_its_outcome_and_its_waiters_follow() {
    let records = Records::start();
    let (source, mut strings) = puppet();
    let credentials = Credentials::builder(source).name("billing").policy(policy()).build();
    let waiting = [1, 2, 3].map(|number| {
        let credentials = credentials.clone();
        let span = tracing::info_span!("request", number);
        tokio::spawn(async move { credentials.tokens().await }.instrument(span))
    });
    let asked = strings.next().await;
    let_others_run().await;
    advance(2 * SECOND).await;
    asked.answer(tokens("t").with_expires_in(HOUR));
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    let_others_run().await;

    let refreshes = records.spans("refresh");
    assert_eq!(refreshes.len(), 1, "{refreshes:?}");
    let refresh = &refreshes[0];
    assert_eq!((refresh.level, refresh.target), (Level::DEBUG, "tower_refresh::refresh"));
    assert_eq!(refresh.parent, None);
    assert!(refresh.is_closed, "{refresh:?}");
    let expected = [
        ("attempt", "1"),
        ("cause", "missing"),
        ("credentials", "billing"),
        ("duration_ms", "2000"),
        ("generation", "1"),
        ("outcome", "refreshed"),
        ("waiters", "3"),
    ];
    let fields: Vec<_> =
        refresh.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(fields, expected);
    let requests = records.spans("request");
    assert_eq!(requests.len(), 3);
    for request in requests {
        assert_eq!(request.follows, [refresh.id], "{request:?}");
    }
    // The line of the refresh is in its span.
    let lines = records.take();
    assert!(lines.iter().any(|line| line.span == Some(refresh.id)), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn fetch_of_the_source_runs_in_the_span_of_the_refresh() {
    let records = Records::start();
    let source = |_: Renewal| async {
        tracing::info_span!("http").in_scope(|| ());
        tokio::task::yield_now().await;
        tracing::info_span!("http").in_scope(|| ());
        TokenSet::bearer("t").map(|tokens| tokens.with_expires_in(HOUR))
    };
    let credentials = Credentials::with_policy(source, policy());
    credentials.warm_up().await.unwrap();
    let refresh = records.spans("refresh").remove(0);
    let http = records.spans("http");
    assert_eq!(http.len(), 2);
    assert!(http.iter().all(|span| span.parent == Some(refresh.id)), "{http:?}");
}

#[tokio::test(start_paused = true)]
async fn span_of_a_failed_refresh_has_kind_code_and_attempt() {
    let records = Records::start();
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    for _ in 0..2 {
        let (failed, ()) = tokio::join!(credentials.tokens(), async {
            strings.next().await.fail(TokenError::transient("down").with_code("busy"));
        });
        failed.unwrap_err();
        advance(MINUTE).await;
    }
    let spans = records.spans("refresh");
    assert_eq!(spans.len(), 2);
    for (span, attempt) in spans.iter().zip(["1", "2"]) {
        let expected = [
            ("attempt", attempt),
            ("cause", "missing"),
            ("code", "busy"),
            ("credentials", ""),
            ("duration_ms", "0"),
            ("kind", "transient"),
            ("outcome", "failed"),
            ("waiters", "1"),
        ];
        let fields: Vec<_> =
            span.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(fields, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn span_of_an_overtaken_refresh_is_superseded() {
    let records = Records::start();
    let (source, mut strings) = puppet();
    let credentials = Credentials::with_policy(source, policy());
    let waiting = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.tokens().await }
    });
    let asked = strings.next().await;
    let log_in = tokio::spawn({
        let credentials = credentials.clone();
        async move { credentials.log_in(tokens("mine").with_expires_in(HOUR)).await }
    });
    let_others_run().await;
    asked.answer(tokens("late"));
    log_in.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    let spans = records.spans("refresh");
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0].fields["outcome"], "superseded");
}
