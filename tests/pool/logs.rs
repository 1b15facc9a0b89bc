//! The log lines of a pool.

use tokio::time::advance;
use tower_refresh::CredentialsPool;
use tower_refresh::testing::{Fault, TokioClock};
use tracing::Level;

use crate::harness::MINUTE;
use crate::records::Records;
use crate::users::{Users, names};

fn pool(users: &Users) -> CredentialsPool<String> {
    let users = users.clone();
    let make = move |user: &String| users.stored(user);
    CredentialsPool::builder(make).clock(TokioClock::new()).build()
}

#[tokio::test(start_paused = true)]
async fn outage_is_one_warning_and_its_end_one_line_at_info() {
    let records = Records::start();
    let users = Users::new();
    let pool = pool(&users);
    users.server.token_faults().always(Fault::unavailable());
    for _ in 0..3 {
        for user in names(10) {
            pool.get(&user).unwrap().tokens().await.unwrap_err();
        }
        advance(MINUTE).await;
    }
    let lines = records.take();
    let area = |area: &'static str| move |line: &&&_| is_of(line, area);
    let trouble: Vec<_> = lines.iter().filter(|line| line.level <= Level::WARN).collect();
    let outage: Vec<_> = trouble.iter().filter(area("pool")).collect();
    assert_eq!(outage.len(), 1, "{trouble:?}");
    let fields = [("endpoint", "https://auth.test"), ("kind", "transient")];
    outage[0].assert(Level::WARN, "pool", "outage of a token endpoint: it fails for", &fields);
    // Before the outage is noticed, and for each key that is a probe.
    let failed: Vec<_> = trouble.iter().filter(area("refresh")).collect();
    assert!(failed.len() <= 5, "{failed:?}");
    let refused = lines.iter().filter(|line| line.message.starts_with("refresh not sent during"));
    assert!(refused.clone().count() >= 20);
    for line in refused {
        let fields = [("endpoint", "https://auth.test"), ("kind", "transient")];
        line.assert(Level::DEBUG, "refresh", "refresh not sent during an outage", &fields);
        assert!(!line.field("credentials").is_empty() && !line.field("retry_in_ms").is_empty());
    }

    users.server.token_faults().clear();
    for user in names(10) {
        let _ = pool.get(&user).unwrap().tokens().await;
    }
    let lines = records.take();
    let info: Vec<_> = lines.iter().filter(|line| line.target.ends_with("pool")).collect();
    assert_eq!(info.len(), 1, "{lines:?}");
    let fields = [("endpoint", "https://auth.test")];
    info[0].assert(Level::INFO, "pool", "outage of a token endpoint over", &fields);
}

fn is_of(line: &crate::records::Line, area: &str) -> bool {
    line.target == format!("tower_refresh::{area}")
}

#[tokio::test(start_paused = true)]
async fn user_who_must_log_in_is_a_warning_with_the_key() {
    let records = Records::start();
    let users = Users::new();
    let pool = pool(&users);
    users.server.token_faults().always(Fault::oauth_error("invalid_grant"));
    for _ in 0..3 {
        for user in names(2) {
            pool.get(&user).unwrap().tokens().await.unwrap_err();
        }
        advance(MINUTE).await;
    }
    let trouble = records.take_trouble();
    assert_eq!(trouble.len(), 2, "{trouble:?}");
    for (line, user) in trouble.iter().zip(names(2)) {
        let fields = [("credentials", user.as_str()), ("code", "invalid_grant")];
        line.assert(Level::WARN, "refresh", "refresh of a user denied", &fields);
    }
}
