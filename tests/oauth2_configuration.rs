//! What a dialect, an endpoint and a grant can be configured to send and to keep.
#![cfg(feature = "oauth2")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod oauth2_support;

use std::convert::Infallible;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::Full;
use oauth2_support::{Log, Reply, answer, endpoint, json};
use tower_refresh::oauth2::{
    Authentication, ClientAuth, ClientCredentialsGrant, Dialect, Grant, RefreshTokenGrant,
    Revocation, TokenEndpoint,
};
use tower_refresh::{Cause, Challenge, Credentials, Renewal, TokenError, TokenSet, TokenSource};

const KEPT: &str = r#"{"access_token":"a"}"#;

fn dialect(json: &str) -> Dialect {
    serde_json::from_str(json).unwrap()
}

fn missing() -> Renewal {
    Renewal::new(Cause::Missing)
}

fn after(previous: &TokenSet) -> Renewal {
    Renewal::new(Cause::Expired).with_previous(previous.clone())
}

/// An endpoint at another URL, in a dialect.
fn at(url: &str, json: &str, replies: impl IntoIterator<Item = Reply>) -> (TokenEndpoint, Log) {
    let (endpoint, log) = endpoint(replies);
    (endpoint.at(url).unwrap().dialect(dialect(json)), log)
}

fn in_dialect(json: &str, replies: impl IntoIterator<Item = Reply>) -> (TokenEndpoint, Log) {
    at(oauth2_support::URL, json, replies)
}

/// Asserts that nothing was sent because of the configuration, and that the error names a field.
fn assert_refused(outcome: Result<impl Sized, TokenError>, log: &Log, named: &str) -> String {
    let error = outcome.err().unwrap();
    assert!(error.is_misconfigured(), "{error}");
    let shown = format!("{error} {error:?}");
    assert!(shown.contains(&format!("`{named}`")), "{named}: {shown}");
    assert_eq!(log.len(), 0);
    shown
}

// ===== Extra fields =====

const SALESFORCE: &str = r#"{"fields": {"extra": ["instance_url", "issued_at", "flags", "id"]}}"#;

/// Fault C22: Salesforce.
#[tokio::test]
async fn extra_fields_of_an_answer_are_kept_over_a_refresh() {
    let (endpoint, _) = in_dialect(
        SALESFORCE,
        [
            json(
                r#"{"access_token":"a","instance_url":"https://eu7.example.com","issued_at":1700000000,"flags":["x"],"other":"y"}"#,
            ),
            json(r#"{"access_token":"b","issued_at":null,"flags":""}"#),
            json(r#"{"access_token":"c","instance_url":"https://eu8.example.com"}"#),
        ],
    );
    let grant = RefreshTokenGrant::new(endpoint, "r");
    let first = grant.fetch(missing()).await.unwrap();
    assert!(!format!("{first:?}").contains("eu7"), "{first:?}");
    let second = grant.fetch(after(&first)).await.unwrap();
    let third = grant.fetch(after(&second)).await.unwrap();
    for (tokens, url) in [(first, "eu7"), (second, "eu7"), (third, "eu8")] {
        let url = format!("https://{url}.example.com");
        assert_eq!(tokens.extra("instance_url"), Some(&*url));
        assert_eq!(tokens.extra("issued_at"), Some("1700000000"));
        assert_eq!(tokens.extra("flags"), Some(r#"["x"]"#));
        assert_eq!((tokens.extra("id"), tokens.extra("other")), (None, None));
    }
}

/// Fault C22.
#[tokio::test]
async fn extra_field_that_is_too_long_is_left_out() {
    let body = |length| json(&format!(r#"{{"access_token":"a","id":"{}"}}"#, "x".repeat(length)));
    let (endpoint, _) = in_dialect(SALESFORCE, [body(8 * 1024), body(8 * 1024 + 1)]);
    for kept in [true, false] {
        let tokens = RefreshTokenGrant::new(endpoint.clone(), "r").fetch(missing()).await.unwrap();
        assert_eq!(tokens.extra("id").is_some(), kept);
    }
}

/// Fault C22.
#[cfg(feature = "store")]
#[tokio::test]
async fn extra_fields_are_kept_in_a_store() {
    use tower_refresh::store::{MemoryStore, Stored};

    let url = r#"{"access_token":"a","refresh_token":"r2","expires_in":3600,"instance_url":"https://eu7.example.com"}"#;
    let renewed = r#"{"access_token":"b","refresh_token":"r3","expires_in":3600}"#;
    let (endpoint, log) = in_dialect(SALESFORCE, [json(url), json(renewed)]);
    let store = MemoryStore::new();
    let start = || {
        let grant = RefreshTokenGrant::new(endpoint.clone(), "r");
        Credentials::new(Stored::new(grant, store.clone()))
    };
    start().token().await.unwrap();
    // As after a restart.
    let credentials = start();
    let stored = credentials.token().await.unwrap();
    assert_eq!(log.len(), 1);
    let renewed = credentials.renew().await.unwrap();
    for (tokens, token) in [(stored, "a"), (renewed, "b")] {
        assert_eq!(tokens.access_token().expose_secret(), token);
        assert_eq!(tokens.extra("instance_url"), Some("https://eu7.example.com"));
    }
}

// ===== Parameters from a closure =====

/// Fault B13: Microsoft Entra, with the code of the documentation.
#[tokio::test]
async fn claims_of_the_challenge_are_sent_with_the_refresh() {
    let claims = r#"{"access_token":{"nbf":{"essential":true,"value":"1700000000"}}}"#;
    let mut headers = HeaderMap::new();
    let challenge = format!(
        r#"Bearer realm="", error="insufficient_claims", claims="{}""#,
        STANDARD.encode(claims)
    );
    headers.insert(WWW_AUTHENTICATE, HeaderValue::try_from(challenge).unwrap());
    let challenge = Challenge::parse(&headers).remove(0);

    let more = |renewal: Renewal| async move {
        let claims = renewal.challenge().and_then(|challenge| challenge.param("claims"));
        let claims = claims.map(|claims| STANDARD.decode(claims).unwrap());
        Ok(claims.map(|claims| ("claims", String::from_utf8(claims).unwrap())))
    };
    let (endpoint, log) = in_dialect("{}", [json(KEPT), json(KEPT), json(KEPT)]);
    let encoded: String = form_urlencoded(claims);
    let rejected = Renewal::new(Cause::Rejected).with_challenge(challenge);
    let refresh = RefreshTokenGrant::new(endpoint.clone(), "r").params_with(more);
    refresh.fetch(rejected.clone()).await.unwrap();
    refresh.fetch(missing()).await.unwrap();
    let for_itself = ClientCredentialsGrant::new(endpoint).params_with(more);
    for_itself.fetch(rejected).await.unwrap();
    let first = "grant_type=refresh_token&refresh_token=r";
    assert_eq!(
        log.bodies(),
        [
            format!("{first}&claims={encoded}"),
            first.to_owned(),
            format!("grant_type=client_credentials&claims={encoded}"),
        ]
    );
}

fn form_urlencoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Fault B13.
#[tokio::test]
async fn closure_sees_the_previous_token_set() {
    let (endpoint, log) = in_dialect("{}", [json(KEPT)]);
    let grant = RefreshTokenGrant::new(endpoint, "").params_with(|renewal: Renewal| async move {
        let previous = renewal.previous().and_then(TokenSet::id_token).map(str::to_owned);
        Ok(previous.map(|id_token| ("id_token_hint", id_token)))
    });
    let previous = TokenSet::bearer("a").unwrap().refresh_token("r").id_token("i").build();
    grant.fetch(after(&previous)).await.unwrap();
    assert_eq!(log.bodies(), ["grant_type=refresh_token&refresh_token=r&id_token_hint=i"]);
}

/// Fault B13.
#[tokio::test]
async fn closure_cannot_replace_the_refresh_token() {
    let renamed = r#"{"parameter_names": {"refresh_token": "refreshToken"}}"#;
    for (json_dialect, name) in [
        ("{}", "refresh_token"),
        (renamed, "refresh_token"),
        (renamed, "refreshToken"),
        (r#"{"body": "json"}"#, "refresh_token"),
    ] {
        let (endpoint, log) = in_dialect(json_dialect, []);
        let grant = RefreshTokenGrant::new(endpoint.clone(), "r")
            .params_with(move |_| async move { Ok([(name, "sesame")]) });
        let sent_as = if json_dialect == renamed { "refreshToken" } else { "refresh_token" };
        let shown = assert_refused(grant.fetch(missing()).await, &log, sent_as);
        assert!(!shown.contains("sesame"), "{shown}");
        let grant = RefreshTokenGrant::new(endpoint, "r").param(name, "sesame");
        assert_refused(grant.fetch(missing()).await, &log, sent_as);
    }
}
