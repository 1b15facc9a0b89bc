//! Records to save.

use std::time::Duration;

use serde_json::{Value, json};

use super::checks::{LAW_6, broken};
use crate::store::{StoredTokens, WriteId};
use crate::token::{AccessToken, TokenSet};

/// Returns a record with tokens of this length, as the successor of a record or as the first one.
pub(super) fn example(
    after: Option<&StoredTokens>,
    length: usize,
    has_open_intent: bool,
) -> StoredTokens {
    // All characters that RFC 6749 (appendix A.12 and A.17) allows in a token, which also tests escaping. No two are the same.
    let token = |kind: &str| {
        let salt = WriteId::random();
        let visible = (b'!'..=b'~').map(char::from).cycle();
        format!("{kind}-{salt}-{}", visible.take(length).collect::<String>())
    };
    let access_token = match AccessToken::new(token("at")) {
        Ok(access_token) => access_token,
        Err(error) => broken("no law", format_args!("the test has a mistake: {error}")),
    };
    let tokens = TokenSet::new(access_token)
        .with_expires_in(Duration::from_secs(300))
        .with_refresh_token(token("rt"))
        .with_scope("read write")
        .with_id_token(token("id"));
    StoredTokens::example(after, &tokens, has_open_intent)
}

pub(super) fn named(after: &StoredTokens) -> StoredTokens {
    edited(&example(Some(after), 16, false), |json| {
        json["binding"] = json!({
            "token_endpoint": "https://as.example.com",
            "client_id": "it's \"100%\" \\ {me}",
            "name": "Zoë’s 店 🗝",
        });
    })
}

pub(super) fn with_unknown_fields(after: &StoredTokens) -> StoredTokens {
    edited(&example(Some(after), 16, true), |json| {
        let later = json!({ "list": [1, 2.5, null, true, "…"], "": { "nested": [[], {}] } });
        json["from_a_later_version"] = later.clone();
        json["body"]["plain"]["from_a_later_version"] = later.clone();
        json["body"]["plain"]["tokens"]["from_a_later_version"] = later;
    })
}

pub(super) fn edited(record: &StoredTokens, edit: impl FnOnce(&mut Value)) -> StoredTokens {
    let mut json = as_value(record);
    edit(&mut json);
    match StoredTokens::from_json(json.to_string().as_bytes()) {
        Ok(record) => record,
        Err(error) => broken("no law", format_args!("the test has a mistake: {error}")),
    }
}

/// Returns whether two records are the same, including unknown fields.
pub(super) fn is_same(one: &StoredTokens, other: &StoredTokens) -> bool {
    one.write_id() == other.write_id() && as_value(one) == as_value(other)
}

pub(super) fn as_value(record: &StoredTokens) -> Value {
    match serde_json::to_value(record) {
        Ok(json) => json,
        Err(_) => broken(LAW_6, "a loaded record cannot be written as JSON"),
    }
}
