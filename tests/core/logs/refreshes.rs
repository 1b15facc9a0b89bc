//! Refreshes that are late, lost or overtaken, and tokens that are not saved.

use tokio::time::{advance, sleep};
use tower_refresh::{Credentials, TokenError};
use tracing::Level;

use crate::harness::{HOUR, MINUTE, SECOND, let_others_run, policy, puppet, tokens};
use crate::records::Records;

#[tokio::test(start_paused = true)]
async fn slow_source_is_a_warning_of_its_waiters_and_one_of_its_answer() {
    let records = Records::start();
    let (source, mut strings) = puppet();
    let credentials = Credentials::builder(source).name("slow").policy(policy()).build();
    for round in 0..2 {
        let waiting = [credentials.clone(), credentials.clone()];
        let waiting =
            waiting.map(|credentials| tokio::spawn(async move { credentials.refresh().await }));
        let asked = strings.next().await;
        sleep(45 * SECOND).await;
        for waiting in waiting {
            assert!(waiting.await.unwrap().unwrap_err().is_transient());
        }
        asked.answer(tokens("late").with_expires_in(HOUR));
        let_others_run().await;
        let trouble = records.take_trouble();
        if round == 1 {
            assert!(trouble.is_empty(), "{trouble:?}");
            break;
        }
        assert_eq!(trouble.len(), 2, "{trouble:?}");
        trouble[0].assert(
            Level::WARN,
            "refresh",
            "request failed because no token arrived in time",
            &[("credentials", "slow"), ("timeout_ms", "30000")],
        );
        trouble[1].assert(
            Level::WARN,
            "refresh",
            "refresh took longer than requests wait",
            &[
                ("credentials", "slow"),
                ("generation", "1"),
                ("cause", "forced"),
                ("duration_ms", "45000"),
                ("waiters", "2"),
                ("timeout_ms", "30000"),
            ],
        );
    }
    // One that ends in time.
    let (refreshed, ()) = tokio::join!(credentials.refresh(), async {
        strings.next().await.answer(tokens("soon").with_expires_in(HOUR));
    });
    refreshed.unwrap();
    let lines = records.take();
    let info: Vec<_> = lines.iter().filter(|line| line.level <= Level::INFO).collect();
    assert_eq!(info.len(), 1, "{lines:?}");
    info[0].assert(Level::INFO, "refresh", "refreshes work again", &[("generation", "3")]);
}

#[tokio::test(start_paused = true)]
async fn source_that_hangs_is_one_warning_that_its_refresh_is_lost() {
    let records = Records::start();
    let (source, mut strings) = puppet();
    let credentials = Credentials::builder(source).name("hung").policy(policy()).build();
    let mut hung = Vec::new();
    for _ in 0..3 {
        assert!(credentials.tokens().await.is_err());
        hung.push(strings.next().await);
        advance(301 * SECOND).await;
    }
    let lost = records.take_trouble();
    let lost = lost.iter().filter(|line| line.message.starts_with("refresh counts as lost"));
    let lost: Vec<_> = lost.collect();
    assert_eq!(lost.len(), 1, "{lost:?}");
    lost[0].assert(Level::WARN, "refresh", "refresh counts", &[("credentials", "hung")]);
}

#[tokio::test(start_paused = true)]
async fn unknown_outcome_is_a_warning_that_the_refresh_token_may_be_spent() {
    let records = Records::start();
    let (source, mut strings) = puppet();
    let credentials = Credentials::builder(source).name("lost").policy(policy()).build();
    let (failed, ()) = tokio::join!(credentials.tokens(), async {
        strings.next().await.fail(TokenError::ambiguous("the connection was closed"));
    });
    failed.unwrap_err();
    let trouble = records.take_trouble();
    assert_eq!(trouble.len(), 1, "{trouble:?}");
    trouble[0].assert(
        Level::WARN,
        "refresh",
        "outcome of a refresh unknown: the refresh token may be spent",
        &[("credentials", "lost"), ("kind", "ambiguous"), ("code", ""), ("endpoint", "")],
    );
}

#[tokio::test(start_paused = true)]
async fn log_in_and_log_out_are_debug_lines_and_end_the_trouble() {
    let records = Records::start();
    let (source, mut strings) = puppet();
    let credentials = Credentials::builder(source).name("user").policy(policy()).build();
    for _ in 0..2 {
        let (denied, ()) = tokio::join!(credentials.tokens(), async {
            strings.next().await.fail(TokenError::denied("expired"));
        });
        denied.unwrap_err();
        assert_eq!(records.take_trouble().len(), 1);
        credentials.log_in(tokens("a").with_expires_in(HOUR)).await.unwrap();
        credentials.log_out().await.unwrap();
        let lines = records.take();
        assert_eq!(lines.len(), 2, "{lines:?}");
        lines[0].assert(Level::DEBUG, "session", "logged in", &[("credentials", "user")]);
        lines[1].assert(Level::DEBUG, "session", "logged out", &[("credentials", "user")]);
    }
    advance(MINUTE).await;
}
