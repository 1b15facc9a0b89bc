//! Records of an earlier version of the crate are used.
//!
//! The files in `format_1` were written when the rules were in a source of their own, and got some fields of a later version.

use std::time::Duration;

use serde_json::Value;
use tower_refresh::store::{MemoryStore, StoredTokens, TokenStore as _};
use tower_refresh::testing::ManualClock;
use tower_refresh::{Credentials, TokenSet};

use crate::scripted::{Scripted, issued};

const SENT: &str = include_str!("format_1/sent.json");
const REFUSED: &str = include_str!("format_1/refused.json");
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn record_with_an_unknown_outcome_is_used_and_refreshed() {
    let clock = ManualClock::new();
    let store = stored(SENT).await;
    let server = Scripted::default();
    let start = |configured: &str| credentials(&server, &clock, &store, configured);
    let first = start("fake-refresh-0");

    clock.advance(HOUR / 2);
    let tokens = first.tokens().await.unwrap();
    assert_eq!(tokens.access_token().expose_secret(), "fake-access-2");
    assert_eq!(tokens.scope(), Some("notes"));
    assert_eq!(tokens.id_token(), Some("fake-id-2"));
    assert_eq!(tokens.extra("instance_url"), Some("https://eu7.example.com"));
    assert!(tokens.refresh_token_expires_at().is_some());
    // Its refresh token was sent, and the outcome is unknown.
    assert!(first.refresh().await.unwrap_err().is_ambiguous());
    assert!(server.sent().is_empty());

    clock.advance(HOUR);
    server.answers(issued(3, 3600));
    let tokens = first.tokens().await.unwrap();
    assert_eq!(server.sent(), ["fake-refresh-2"]);
    assert_eq!(tokens.access_token().expose_secret(), "access-3");
    assert_eq!(tokens.extra("instance_url"), Some("https://eu7.example.com"));

    let (before, after) = (json(SENT), current(&store).await);
    for field in ["/later", "/body/plain/later", "/body/plain/tokens/later", "/binding"] {
        assert_eq!(after.pointer(field).unwrap(), before.pointer(field).unwrap(), "{field}");
    }
    assert_eq!((&after["version"], &after["epoch"]), (&before["version"], &before["epoch"]));
    assert_eq!(after["revision"], 3);
    assert_eq!(after["body"]["plain"].get("intent"), None);
    let spent = |json: &Value| json["body"]["plain"]["spent"].as_array().unwrap().len();
    assert_eq!(spent(&after), spent(&before) + 1);

    // Spent refresh tokens of the earlier version are not sent, neither after a restart nor by a log-in.
    for spent in ["fake-refresh-0", "fake-refresh-1", "fake-refresh-2"] {
        let restarted = start(spent);
        let tokens = restarted.tokens().await.unwrap();
        assert_eq!(tokens.access_token().expose_secret(), "access-3", "{spent}");
    }
    for spent in ["fake-refresh-1", "fake-refresh-2"] {
        let brought = TokenSet::bearer("a").unwrap().with_refresh_token(spent);
        assert!(first.log_in(brought).await.unwrap_err().is_denied(), "{spent}");
    }
    assert_eq!(server.sent(), ["fake-refresh-2"]);
}

#[tokio::test]
async fn record_with_a_refused_refresh_token_denies_without_a_request() {
    let clock = ManualClock::new();
    let store = stored(REFUSED).await;
    let server = Scripted::default();
    let credentials = credentials(&server, &clock, &store, "fake-refresh-0");
    let tokens = credentials.tokens().await.unwrap();
    assert_eq!(tokens.access_token().expose_secret(), "fake-access-2");
    assert!(credentials.refresh().await.unwrap_err().is_denied());
    clock.advance(2 * HOUR);
    assert!(credentials.tokens().await.unwrap_err().is_denied());
    assert!(server.sent().is_empty());

    // A log-in ends that, and keeps the fields of a later version.
    let login =
        TokenSet::bearer("access-l").unwrap().with_expires_in(HOUR).with_refresh_token("refresh-l");
    credentials.log_in(login).await.unwrap();
    server.answers(issued(4, 3600));
    credentials.refresh().await.unwrap();
    assert_eq!(server.sent(), ["refresh-l"]);
    let after = current(&store).await;
    assert_eq!((after["epoch"].as_u64(), after["revision"].as_u64()), (Some(2), Some(4)));
    for field in ["/later", "/body/plain/later"] {
        assert_eq!(after.pointer(field), json(REFUSED).pointer(field), "{field}");
    }
}

async fn stored(json: &str) -> MemoryStore {
    let store = MemoryStore::new();
    let record = StoredTokens::from_json(json.as_bytes()).unwrap();
    store.save(&record, None).await.unwrap();
    store
}

fn credentials(
    server: &Scripted,
    clock: &ManualClock,
    store: &MemoryStore,
    configured: &str,
) -> Credentials {
    Credentials::builder(server.grant(clock, configured))
        .store(store.clone())
        .name("billing")
        .clock(clock.clone())
        .build()
}

async fn current(store: &MemoryStore) -> Value {
    let record = store.load().await.unwrap().unwrap();
    serde_json::from_slice(&record.to_json().unwrap()).unwrap()
}

fn json(json: &str) -> Value {
    serde_json::from_str(json).unwrap()
}
